#![no_main]

use slabd_fuzz::inline::inline;

libfuzzer_sys::fuzz_target!(|data: &[u8]| inline(data));
