#![no_main]

use slabd_fuzz::http::http;

libfuzzer_sys::fuzz_target!(|data: &[u8]| http(data));
