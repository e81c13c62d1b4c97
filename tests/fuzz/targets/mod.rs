//! The fuzz targets. Each is a function of bytes that panics on a bug. cargo-fuzz runs them through
//! `bins`. The test `fuzz_corpus` includes these files as a module and runs them over the seeds.

pub mod config;
pub mod connection;
pub mod datagram;
pub mod engineio;
pub mod glob;
pub mod http;
pub mod hub;
mod hub_model;
pub mod inline;
mod no_server;
pub mod replies;
pub mod resp;
pub mod sniff;
pub mod socketio;
pub mod websocket;
