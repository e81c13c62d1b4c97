#![no_main]

use slabd_fuzz::resp::resp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| resp(data));
