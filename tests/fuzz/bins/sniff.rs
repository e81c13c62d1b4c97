#![no_main]

use slabd_fuzz::sniff::sniff;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sniff(data));
