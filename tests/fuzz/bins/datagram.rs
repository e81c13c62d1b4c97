#![no_main]

use slabd_fuzz::datagram::datagram;

libfuzzer_sys::fuzz_target!(|data: &[u8]| datagram(data));
