//! slabd: a single-threaded server on one hand-written readiness loop.
//!
//! Start with [`reactor`]: its `turn()` is the loop. The README tells the reading order of the files; this page maps them.
//!
//! ```text
//!   main ─► cli ─► config ─► daemon ─┬─► services ─► hub                            what peers speak with
//!                               │    └─► reactor ─┬─► service, outbox               input, and what comes of it
//!                               └─► status        ├─► connection, timer, admission  states and deadlines
//!                                     │           ├─► buffer, ledger, stats         what waits, and what is counted
//!                   memory, kernel, metrics       └─► net ─► sys                    sockets and time
//! ```
//!
//! The [`reactor`] knows connections and no protocol; a [`service`] knows a protocol and no socket. The [`hub`] is the largest
//! service: its sessions, channels and fan-out are shared by all protocols that it speaks. [`codec`] has the wire formats.
//!
//! Beside the server, and on top of the same modules: [`lab`] and [`stress`], whose results are pages of [`report`]; and [`swarm`], which plays
//! the loop among random clients on the simulated network.
//!
//! A byte's way: [`net::Net::read`] fills the chunk → the [`reactor`] gives it to [`service::Service::receive`] → whose answer
//! goes to the [`outbox`] → and at the end of the turn to [`net::Net::write`]. What the peer does not take waits in a
//! [`buffer`] of its connection.

#[forbid(unsafe_code)]
pub mod admission;
#[forbid(unsafe_code)]
pub mod buffer;
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
pub mod hub;
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
pub mod memory;
#[forbid(unsafe_code)]
pub mod metrics;
#[forbid(unsafe_code)]
pub mod net;
#[forbid(unsafe_code)]
pub mod networks;
#[forbid(unsafe_code)]
pub mod outbox;
#[forbid(unsafe_code)]
pub mod reactor;
#[forbid(unsafe_code)]
pub mod report;
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
pub mod timer;
#[forbid(unsafe_code)]
pub mod token;
#[forbid(unsafe_code)]
pub mod units;
