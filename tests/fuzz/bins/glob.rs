#![no_main]

use slabd_fuzz::glob::glob;

libfuzzer_sys::fuzz_target!(|data: &[u8]| glob(data));
