//! The addresses that a run connects from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::args::StressArgs;
use super::flags::within;
use super::target::Target;

/// Number of connections per source address on this machine. Many servers limit one address to
/// about this.
const CONNECTIONS_PER_SOURCE: usize = 50;

/// Maximum number of source addresses. 127.0.0.0/8 has more, but a server's table of sources may
/// not.
const SOURCES_MAX: usize = 1 << 16;

/// True if the addresses to connect from, as far as they are given, can reach this one.
pub fn can_reach(args: &StressArgs, address: IpAddr) -> bool {
    let has_family = args.source.iter().any(|source| source.is_ipv4() == address.is_ipv4());
    let is_loopback = address.is_ipv4() && address.is_loopback();
    (args.source.is_empty() || has_family) && (args.sources.is_none() || is_loopback)
}

/// True if a connection from `source` can reach the address: it has the same family, and only a
/// loopback address can be reached from one.
pub fn fits(source: IpAddr, address: IpAddr) -> bool {
    let is_near = !source.is_loopback() || address.is_loopback();
    is_near && source.is_ipv4() == address.is_ipv4()
}

/// Returns the addresses to connect from: the given ones, or enough of 127.0.0.0/8 if the target is
/// a loopback address.
pub fn choose(
    args: &StressArgs,
    target: &Target,
    connections: usize,
) -> Result<Vec<IpAddr>, String> {
    if !args.source.is_empty() {
        let (family, example) = match target.address.is_ipv4() {
            true => ("IPv4", "127.0.0.2"),
            false => ("IPv6", "::1"),
        };
        if let Some(other) =
            args.source.iter().find(|source| source.is_ipv4() != target.address.is_ipv4())
        {
            return Err(format!(
                "--source: {other} cannot reach {}; expected an {family} address, such as \
                 {example}",
                target.address
            ));
        }
        return Ok(args.source.clone());
    }
    let is_loopback = matches!(target.address, SocketAddr::V4(v4) if v4.ip().is_loopback());
    match args.sources {
        Some(_) if !is_loopback => Err(format!(
            "--sources: {} is not in 127.0.0.0/8, whose addresses it counts; \
             give this machine's addresses instead, such as --source 192.0.2.7",
            target.address.ip()
        )),
        Some(count) => {
            within("sources", count as u64, 1, SOURCES_MAX as u64, 20)?;
            Ok(loopback_sources(count))
        }
        None if is_loopback => {
            let count = connections.div_ceil(CONNECTIONS_PER_SOURCE).min(SOURCES_MAX);
            Ok(loopback_sources(count))
        }
        None => Ok(Vec::new()),
    }
}

/// Returns `count` addresses of this machine: 127.0.0.1, then 127.1.0.1 and up. The first is the
/// only one that Redis in protected mode serves.
pub fn loopback_sources(count: usize) -> Vec<IpAddr> {
    let others = (0..).map(|index| Ipv4Addr::from(0x7f01_0001 + index));
    std::iter::once(Ipv4Addr::LOCALHOST).chain(others).take(count).map(IpAddr::V4).collect()
}
