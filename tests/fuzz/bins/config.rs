#![no_main]

use slabd_fuzz::config::config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config(data));
