//! How peers speak to the hub. Each protocol knows its own bytes and the hub's verbs.

mod datagram;
mod resp;

pub use resp::{DENIED, Resp, example, farewell, full};
