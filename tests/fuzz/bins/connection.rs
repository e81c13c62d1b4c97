#![no_main]

use slabd_fuzz::connection::connection;

libfuzzer_sys::fuzz_target!(|data: &[u8]| connection(data));
