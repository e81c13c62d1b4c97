//! The protocols that peers speak to the hub. A protocol parses bytes and calls the hub's verbs.

mod datagram;
mod resp;

pub use resp::{DENIED, Resp, example, farewell, full};
