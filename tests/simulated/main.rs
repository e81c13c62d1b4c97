//! The loop and the hub on the simulated network, in virtual time. Here are also the comparisons of
//! the simulation with the kernel, and of the codecs of RESP and WebSocket with others. No
//! test starts a server.
//!
//!     cargo test --test simulated

#![forbid(unsafe_code)]

mod accepting;
mod admission;
mod admission_room;
mod against_kernel;
mod budgets;
mod datagrams;
mod deadlines;
mod defences;
mod deliveries;
mod dials;
mod door;
mod extension;
mod first_line;
mod fuzz_corpus;
mod http;
mod hub;
mod hub_closing;
mod hub_server;
mod hub_sizes;
mod metrics;
mod nodes;
mod output;
mod packets_differential;
mod passwords;
mod replay;
mod resp_differential;
mod restoring;
mod retained;
mod seeds;
mod services;
mod sim;
mod smuggling;
mod socketio;
mod socketio_routes;
mod sources;
mod stopping;
mod torture;
mod websocket;
mod websocket_differential;
