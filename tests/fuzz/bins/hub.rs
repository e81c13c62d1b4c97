#![no_main]

use slabd_fuzz::hub::hub;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hub(data));
