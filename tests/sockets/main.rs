//! The program on real sockets: each test starts a server and sends it input.
//!
//!     cargo test --test sockets

#![forbid(unsafe_code)]

mod bad_input;
mod datagram_loops;
mod foreign_text;
mod greeting;
mod http;
mod hub;
mod hub_access;
mod hub_clients;
mod hub_config;
mod hub_datagrams;
mod hub_info;
mod hub_monitor;
mod hub_untrusted;
mod lessons;
mod limits_of_the_machine;
mod log_flood;
mod memory_of_the_machine;
mod metrics;
mod one_order;
mod ordinary_loads;
mod process;
mod resets;
mod room;
mod signals;
mod socket_options;
#[path = "../support/mod.rs"]
mod support;
