//! The kernel's settings and counters about floods and the number of connections.
//!
//! Half-open connections do not reach this process. The kernel answers their handshakes, uses SYN
//! cookies once its table is full, and drops handshakes when the accept queue is full. This module
//! reads the settings that govern this, and the counters that show such a flood. The kernel
//! documents them in ip-sysctl.rst (net.ipv4.tcp_syncookies) and snmp_counter.rst
//! (/proc/net/netstat).

use std::fs;

use crate::limits::FILES_RESERVED;

/// Settings of the kernel that matter in a flood. `None` where they cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelSettings {
    /// Use of SYN cookies. 0: never, 1: when the table of half-open connections is full, 2: always.
    pub syn_cookies: Option<u64>,
    /// Maximum length of an accept queue.
    pub accept_queue_max: Option<u64>,
    /// Maximum number of half-open connections per listener where cookies are off.
    pub half_open_max: Option<u64>,
    /// Maximum number of open files in the whole system.
    pub files_max: Option<u64>,
    /// Maximum number of files that one user may watch by epoll. By default they may take 4 % of
    /// the memory.
    pub watches_max: Option<u64>,
}

/// Reads the settings from /proc/sys. A setting that cannot be read, as in some containers, is
/// `None`.
pub fn settings() -> KernelSettings {
    let number =
        |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok();
    KernelSettings {
        syn_cookies: number("net/ipv4/tcp_syncookies"),
        accept_queue_max: number("net/core/somaxconn"),
        half_open_max: number("net/ipv4/tcp_max_syn_backlog"),
        files_max: number("fs/file-max"),
        watches_max: number("fs/epoll/max_user_watches"),
    }
}

impl KernelSettings {
    /// Returns a line for each setting that is too low for an accept queue of `backlog`, for
    /// `connections`, or for a flood.
    pub fn warnings(&self, backlog: u32, connections: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.syn_cookies == Some(0) {
            warnings.push(
                "SYN cookies are off, so a flood of half-open connections can lock out clients; \
                 sysctl -w net.ipv4.tcp_syncookies=1"
                    .into(),
            );
        }
        if let Some(most) = self.accept_queue_max.filter(|&most| most < u64::from(backlog)) {
            warnings.push(format!(
                "the kernel limits the accept queue to {most} connections instead of {backlog}; \
                 sysctl -w net.core.somaxconn={backlog}"
            ));
        }
        let wanted = connections as u64 + FILES_RESERVED;
        for (name, most, what) in [
            ("fs.file-max", self.files_max, "open files in total"),
            ("fs.epoll.max_user_watches", self.watches_max, "files watched by epoll for one user"),
        ] {
            if let Some(most) = most.filter(|&most| most < wanted) {
                warnings.push(format!(
                    "the kernel allows {most} {what}, too few for {connections} connections; \
                     sysctl -w {name}={wanted}"
                ));
            }
        }
        warnings
    }

    /// Returns the name, value and help of each setting.
    pub fn rows(&self) -> [(&'static str, Option<u64>, &'static str); 5] {
        [
            (
                "net.ipv4.tcp_syncookies",
                self.syn_cookies,
                "Use of SYN cookies. 0: never, 1: when full, 2: always.",
            ),
            ("net.core.somaxconn", self.accept_queue_max, "Maximum length of an accept queue."),
            (
                "net.ipv4.tcp_max_syn_backlog",
                self.half_open_max,
                "Maximum half-open connections without cookies.",
            ),
            ("fs.file-max", self.files_max, "Maximum number of open files in the whole system."),
            (
                "fs.epoll.max_user_watches",
                self.watches_max,
                "Maximum number of files that one user may watch by epoll.",
            ),
        ]
    }
}

/// Names and help of the kernel's counters about floods. They cover the whole network namespace.
pub const COUNTERS: [(&str, &str); 7] = [
    ("ListenOverflows", "Handshakes dropped because an accept queue was full."),
    ("ListenDrops", "Handshakes dropped by a listener for any reason."),
    ("SyncookiesSent", "SYN cookies sent."),
    ("SyncookiesRecv", "Valid answers to SYN cookies."),
    ("SyncookiesFailed", "Invalid answers to SYN cookies."),
    ("TCPReqQFullDoCookies", "Cookies sent because the table of half-open connections was full."),
    ("TCPReqQFullDrop", "Handshakes dropped because the table of half-open connections was full."),
];

/// Values of [`COUNTERS`], in their order. `None` where this kernel does not have the counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([Option<u64>; COUNTERS.len()]);

/// Reads the counters from /proc/net/netstat. All are `None` if it cannot be read.
pub fn counters() -> Counters {
    fs::read_to_string("/proc/net/netstat").map(|text| parse_netstat(&text)).unwrap_or_default()
}

impl Counters {
    /// Returns the growth since `earlier`: name, count and help of each counter.
    pub fn since(
        &self,
        earlier: &Counters,
    ) -> impl Iterator<Item = (&'static str, Option<u64>, &'static str)> {
        let (now, then) = (self.0, earlier.0);
        COUNTERS.into_iter().enumerate().map(move |(index, (name, help))| {
            let grown = now[index].zip(then[index]).map(|(now, then)| now.saturating_sub(then));
            (name, grown, help)
        })
    }
}

/// Parses a file that has two lines per group: names, and values in the same order.
fn parse_netstat(text: &str) -> Counters {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return Counters::default();
    };
    let value = |wanted: &str| {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Counters(COUNTERS.map(|(name, _)| value(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_finds_counters_by_name_among_others() {
        let text = "TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed Other ListenOverflows \
                    ListenDrops\n\
                    TcpExt: 5 4 3 99 2 1\n\
                    IpExt: ListenDrops\nIpExt: 77\n";
        let expected = [Some(2), Some(1), Some(5), Some(4), Some(3), None, None];
        assert_eq!(parse_netstat(text), Counters(expected));
        for text in [
            "",
            "TcpExt: ListenDrops",
            "IpExt: ListenDrops\nIpExt: 7\n",
            "TcpExt: ListenDrops\nTcpExt: x\n",
        ] {
            assert_eq!(parse_netstat(text), Counters::default(), "{text}");
        }
        // Fewer values than names: the values present still count.
        let cut = parse_netstat("TcpExt: ListenOverflows ListenDrops\nTcpExt: 8\n");
        assert_eq!(cut.0[..2], [Some(8), None]);
    }

    #[test]
    fn growth_leaves_out_earlier_counts() {
        let at = |value| Counters([Some(value), None, Some(1), None, None, None, None]);
        let grown: Vec<_> =
            at(9).since(&at(4)).take(3).map(|(name, grown, _)| (name, grown)).collect();
        assert_eq!(
            grown,
            [("ListenOverflows", Some(5)), ("ListenDrops", None), ("SyncookiesSent", Some(0))]
        );
    }

    #[test]
    fn each_setting_that_is_too_low_gives_one_warning_with_the_remedy() {
        let fit = KernelSettings {
            syn_cookies: Some(1),
            accept_queue_max: Some(4096),
            half_open_max: Some(1),
            files_max: Some(1000 + FILES_RESERVED),
            watches_max: Some(1000 + FILES_RESERVED),
        };
        assert_eq!(fit.warnings(4096, 1000), [""; 0]);
        assert_eq!(
            KernelSettings::default().warnings(4096, 1000),
            [""; 0],
            "unknown settings give no warning"
        );
        let unfit = KernelSettings { syn_cookies: Some(0), accept_queue_max: Some(4095), ..fit };
        let warnings = unfit.warnings(4096, 1001);
        for (warning, end) in warnings.iter().zip([
            "; sysctl -w net.ipv4.tcp_syncookies=1",
            "; sysctl -w net.core.somaxconn=4096",
            "; sysctl -w fs.file-max=1065",
            "; sysctl -w fs.epoll.max_user_watches=1065",
        ]) {
            assert!(warning.ends_with(end) && !warning.contains('\n'), "{warning}");
        }
        assert_eq!(warnings.len(), 4, "{warnings:?}");
    }

    #[test]
    fn this_kernel_has_all_settings_and_counters() {
        assert!(counters().0.iter().all(Option::is_some));
        let rows = settings().rows();
        assert!(rows.iter().all(|(_, value, _)| value.is_some()), "{rows:?}");
    }
}
