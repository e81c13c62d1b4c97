//! Drills: floods and faults on a real kernel, beside honest clients that must still be served.
//! Drills measure times, so they run one at a time.
//!
//!     cargo test --test drills -- --nocapture

mod cgroup;
mod checkboxes;
mod course;
mod datagram_flood;
#[path = "../support/flood.rs"]
mod flood;
mod floods;
#[path = "../support/gauge.rs"]
mod gauge;
#[path = "../support/honest.rs"]
mod honest;
mod kernel;
mod memory;
mod passwords;
#[path = "../support/mod.rs"]
mod support;
mod syn_flood;
mod vanished;
mod web_floods;
