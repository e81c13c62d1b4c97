//! `slabd stress` and `slabd lab` on the command line.
//!
//!     cargo test --test tools

mod lab;
mod report_page;
mod stress;
mod stress_faults;
mod stress_flags;
mod stress_floods;
mod stress_http;
mod stress_socketio;
mod stress_websocket;
#[path = "../support/mod.rs"]
mod support;
