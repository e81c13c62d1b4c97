//! `slabd stress`: load and floods against any server, on the same seams as the server itself.

pub mod record;
pub mod target;
pub mod wire;
