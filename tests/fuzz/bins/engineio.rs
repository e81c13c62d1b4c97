#![no_main]

use slabd_fuzz::engineio::engineio;

libfuzzer_sys::fuzz_target!(|data: &[u8]| engineio(data));
