//! Sockets that a service manager has opened for this process: socket activation, sd_listen_fds(3).
//!
//! The manager keeps its own copy of each socket open. Connections that arrive while the server
//! restarts wait in the accept queue, and the next process serves them.

use std::env;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use socket2::{SockRef, Type};

use crate::limits::LISTENERS_MAX;
use crate::sys;

/// The number of the first inherited file. SD_LISTEN_FDS_START, sd_listen_fds(3).
const FIRST: RawFd = 3;

/// A socket that the service manager has bound, and that listens if it is of TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InheritedSocket {
    /// Its file descriptor.
    pub number: RawFd,
    /// The name from LISTEN_FDNAMES; empty without one.
    pub name: String,
    pub address: SocketAddr,
    /// True for TCP, false for UDP.
    pub is_stream: bool,
}

/// Returns the sockets that the environment names. There are none if LISTEN_PID names another
/// process. An error says which socket cannot be used, and what is accepted.
pub fn read() -> Result<Vec<InheritedSocket>, String> {
    let variable = |name: &str| env::var_os(name).map(|text| text.to_string_lossy().into_owned());
    let for_us = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let Some(count) = variable("LISTEN_FDS").filter(|_| for_us) else { return Ok(Vec::new()) };
    let most = LISTENERS_MAX;
    let count = count.parse().ok().filter(|count| *count <= most).ok_or_else(|| {
        format!("LISTEN_FDS is '{count}'; accepted: a number of sockets, 0 to {most}")
    })?;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (FIRST..).take(count).map(|number| inspect(number, names.next().unwrap_or(""))).collect()
}

/// Asks the kernel what an inherited file is.
fn inspect(number: RawFd, name: &str) -> Result<InheritedSocket, String> {
    let refused = |why: &str| {
        let named = if name.is_empty() { String::new() } else { format!(" ('{name}')") };
        Err(format!(
            "inherited file {number}{named} {why}; \
             accepted: listening TCP sockets and bound UDP sockets"
        ))
    };
    let file = match sys::borrow(number) {
        Ok(file) => file,
        Err(error) => return refused(&format!("cannot be used: {error}")),
    };
    let socket = SockRef::from(&file);
    let (Ok(kind), Ok(address)) = (socket.r#type(), socket.local_addr()) else {
        return refused("is not a socket");
    };
    let Some(address) = address.as_socket() else {
        return refused("is not a socket of IPv4 or IPv6");
    };
    let is_stream = kind == Type::STREAM;
    if !is_stream && kind != Type::DGRAM {
        return refused("is neither a TCP nor a UDP socket");
    }
    if is_stream && !socket.is_listener().unwrap_or(false) {
        return refused("is a connection (Accept=yes)");
    }
    // An IPv4 client would have an IPv6 address, and limits would take all of them for one source.
    if address.is_ipv6() && !socket.only_v6().unwrap_or(false) {
        return Err(format!(
            "inherited socket {address} takes IPv4 too; set BindIPv6Only=ipv6-only for it, and add \
             a socket of IPv4"
        ));
    }
    Ok(InheritedSocket { number, name: name.into(), address, is_stream })
}
