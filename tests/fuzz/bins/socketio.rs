#![no_main]

use slabd_fuzz::socketio::socketio;

libfuzzer_sys::fuzz_target!(|data: &[u8]| socketio(data));
