//! The house style, the README and docs, and the command line.
//!
//!     cargo test --test house

mod command_line;
mod docs;
mod style;
#[path = "../support/mod.rs"]
mod support;
