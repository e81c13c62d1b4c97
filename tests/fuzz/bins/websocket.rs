#![no_main]

use slabd_fuzz::websocket::websocket;

libfuzzer_sys::fuzz_target!(|data: &[u8]| websocket(data));
