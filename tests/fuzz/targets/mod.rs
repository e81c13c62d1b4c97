//! The fuzz targets: each a plain function of bytes that panics on what must not be. Run by cargo-fuzz through `bins`, and over the
//! seeds by the test `fuzz_corpus`, which has these files as a module of its own.

pub mod config;
pub mod connection;
pub mod datagram;
pub mod glob;
pub mod hub;
mod hub_model;
pub mod inline;
mod no_server;
pub mod resp;
pub mod sniff;
