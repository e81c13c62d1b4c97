//! slabd: a single-threaded server on one hand-written readiness loop.
//!
//! Start with [`reactor`], whose `turn()` is the loop. In this map, an arrow means "uses":
//!
//! ```text
//! main ─► cli ─► config ─► daemon ─┬─► services ─► hub                  protocols, sessions
//!                                  ├─► status ─► metrics                reports for operators
//!                                  ├─► notifier, inherited              the service manager
//!                                  └─► reactor ─┬─► service, outbox     input and output
//!                                               ├─► connection, timer   states, deadlines
//!                                               ├─► admission, sources  newcomers, floods
//!                                               ├─► datagram_gate       datagrams
//!                                               ├─► buffer, ledger      memory
//!                                               └─► net ─► sys          sockets, time
//! ```
//!
//! The [`reactor`] knows connections and no protocol. A [`service`] knows a protocol and no socket.
//! The largest service is the [`hub`], whose sessions and channels all its protocols share. The
//! wire formats are in [`codec`].
//!
//! The tools use the same modules. [`stress`] tests a server's limits, and [`lab`] runs
//! experiments. Both write a [`report`]. [`swarm`] runs the loop on the simulated network with
//! random clients.

#[forbid(unsafe_code)]
pub mod admission;
#[forbid(unsafe_code)]
pub mod broker_settings;
#[forbid(unsafe_code)]
pub mod buffer;
#[forbid(unsafe_code)]
mod calendar;
#[forbid(unsafe_code)]
pub mod cli;
#[forbid(unsafe_code)]
pub mod clock;
#[forbid(unsafe_code)]
pub mod codec;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod connection;
#[forbid(unsafe_code)]
pub mod daemon;
#[forbid(unsafe_code)]
pub mod datagram_gate;
#[forbid(unsafe_code)]
pub mod demo;
#[forbid(unsafe_code)]
pub mod escape;
#[forbid(unsafe_code)]
mod hosts;
#[forbid(unsafe_code)]
pub mod hub;
#[forbid(unsafe_code)]
pub mod inherited;
#[forbid(unsafe_code)]
pub mod kernel;
#[forbid(unsafe_code)]
pub mod lab;
#[forbid(unsafe_code)]
pub mod ledger;
#[forbid(unsafe_code)]
pub mod limits;
#[forbid(unsafe_code)]
pub mod log_lines;
#[forbid(unsafe_code)]
pub mod machine;
#[forbid(unsafe_code)]
pub mod memory;
#[forbid(unsafe_code)]
pub mod metrics;
#[forbid(unsafe_code)]
pub mod net;
#[forbid(unsafe_code)]
pub mod networks;
#[forbid(unsafe_code)]
pub mod notifier;
#[forbid(unsafe_code)]
pub mod outbox;
#[forbid(unsafe_code)]
pub mod payload;
#[forbid(unsafe_code)]
pub mod reactor;
#[forbid(unsafe_code)]
pub mod regular_file;
#[forbid(unsafe_code)]
pub mod report;
#[forbid(unsafe_code)]
pub mod retain_rule;
#[forbid(unsafe_code)]
pub mod routes;
#[forbid(unsafe_code)]
pub mod secret;
#[forbid(unsafe_code)]
pub mod service;
#[forbid(unsafe_code)]
pub mod services;
#[forbid(unsafe_code)]
pub mod setting;
#[forbid(unsafe_code)]
pub mod sources;
#[forbid(unsafe_code)]
pub mod stats;
#[forbid(unsafe_code)]
pub mod status;
#[forbid(unsafe_code)]
pub mod stress;
#[forbid(unsafe_code)]
pub mod swarm;
pub mod sys;
#[forbid(unsafe_code)]
pub mod terminal;
#[forbid(unsafe_code)]
pub mod timer;
#[forbid(unsafe_code)]
pub mod token;
#[forbid(unsafe_code)]
pub mod units;
