//! `slabd stress`: load and floods against any server, on the same seams as the server itself.

pub mod bounds;
pub mod compare;
pub mod files;
pub mod page;
pub mod plots;
pub mod record;
