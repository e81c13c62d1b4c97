#![no_main]

use slabd_fuzz::replies::replies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| replies(data));
