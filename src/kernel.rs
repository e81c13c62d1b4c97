//! What the kernel does against floods, and whether it is set up to; and how many connections it allows.
//!
//! Handshakes that are never completed do not reach this process. The kernel answers them, with SYN cookies once its table
//! is full, and drops what does not fit the accept queue. Here its settings are looked at, and what it counts, which is all that can be known of
//! such a flood: net.ipv4.tcp_syncookies and the like in ip-sysctl.rst, /proc/net/netstat in snmp_counter.rst of its documentation.

use std::fs;

use crate::limits::FILES_RESERVED;

/// Settings of the kernel that decide how a flood goes; `None` where it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelSettings {
    /// 0: off, 1: when a table is full, 2: always.
    pub syn_cookies: Option<u64>,
    /// Longest accept queue.
    pub accept_queue_max: Option<u64>,
    /// Half-open connections remembered per listener where cookies are off.
    pub half_open_max: Option<u64>,
    /// Files open at once in the whole system, whatever each process may have.
    pub files_max: Option<u64>,
    /// Files that all processes of one user may watch by epoll: by default as many as a twenty-fifth of the memory holds.
    pub watches_max: Option<u64>,
}

/// Asks the kernel. What it does not tell, in a container say, is no error.
pub fn settings() -> KernelSettings {
    let number = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok();
    KernelSettings {
        syn_cookies: number("net/ipv4/tcp_syncookies"),
        accept_queue_max: number("net/core/somaxconn"),
        half_open_max: number("net/ipv4/tcp_max_syn_backlog"),
        files_max: number("fs/file-max"),
        watches_max: number("fs/epoll/max_user_watches"),
    }
}

impl KernelSettings {
    /// What should be changed before a flood comes, or so many connections: a line each.
    pub fn warnings(&self, backlog: u32, connections: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.syn_cookies == Some(0) {
            warnings.push(
                "SYN cookies are off: a flood of half-open connections locks everyone out; \
                 sysctl -w net.ipv4.tcp_syncookies=1"
                    .into(),
            );
        }
        if let Some(most) = self.accept_queue_max.filter(|&most| most < u64::from(backlog)) {
            warnings.push(format!(
                "the kernel cuts the accept queue from {backlog} to {most} connections; sysctl -w net.core.somaxconn={backlog}"
            ));
        }
        let wanted = connections as u64 + FILES_RESERVED;
        for (name, most, what) in [
            ("fs.file-max", self.files_max, "open files in all"),
            ("fs.epoll.max_user_watches", self.watches_max, "files watched by epoll for one user"),
        ] {
            if let Some(most) = most.filter(|&most| most < wanted) {
                warnings.push(format!(
                    "the kernel allows {most} {what}, too few for {connections} connections; sysctl -w {name}={wanted}"
                ));
            }
        }
        warnings
    }

    /// The name, value and meaning of each.
    pub fn rows(&self) -> [(&'static str, Option<u64>, &'static str); 5] {
        [
            ("net.ipv4.tcp_syncookies", self.syn_cookies, "0: off, 1: in need, 2: always."),
            ("net.core.somaxconn", self.accept_queue_max, "Longest accept queue."),
            ("net.ipv4.tcp_max_syn_backlog", self.half_open_max, "Half-open ones without cookies."),
            ("fs.file-max", self.files_max, "Files open at once in the whole system."),
            ("fs.epoll.max_user_watches", self.watches_max, "Files a user may watch by epoll."),
        ]
    }
}

/// What the kernel counts that tells of floods, for all listeners of this network namespace.
pub const COUNTERS: [(&str, &str); 7] = [
    ("ListenOverflows", "Handshakes dropped because an accept queue was full."),
    ("ListenDrops", "Handshakes dropped by a listener for any reason."),
    ("SyncookiesSent", "SYN cookies sent."),
    ("SyncookiesRecv", "Right answers to SYN cookies."),
    ("SyncookiesFailed", "Wrong answers to SYN cookies."),
    ("TCPReqQFullDoCookies", "Cookies sent because the table of half-open connections was full."),
    ("TCPReqQFullDrop", "Handshakes dropped because that table was full."),
];

/// Values of [`COUNTERS`], in their order; `None` where this kernel does not count that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([Option<u64>; COUNTERS.len()]);

/// Asks the kernel; all `None` when it does not tell.
pub fn counters() -> Counters {
    fs::read_to_string("/proc/net/netstat").map(|text| parse_netstat(&text)).unwrap_or_default()
}

impl Counters {
    /// How much was counted since an earlier look.
    pub fn since(&self, earlier: &Counters) -> impl Iterator<Item = (&'static str, Option<u64>, &'static str)> {
        let (now, then) = (self.0, earlier.0);
        COUNTERS.into_iter().enumerate().map(move |(index, (name, help))| {
            let grown = now[index].zip(then[index]).map(|(now, then)| now.saturating_sub(then));
            (name, grown, help)
        })
    }
}

/// The file has two lines a group: names, then values, in the same order.
fn parse_netstat(text: &str) -> Counters {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return Counters::default() };
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
    fn counters_are_found_by_name_whatever_stands_around_them() {
        let text = "TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed Other ListenOverflows ListenDrops\n\
                    TcpExt: 5 4 3 99 2 1\n\
                    IpExt: ListenDrops\nIpExt: 77\n";
        let expected = [Some(2), Some(1), Some(5), Some(4), Some(3), None, None];
        assert_eq!(parse_netstat(text), Counters(expected));
        for text in ["", "TcpExt: ListenDrops", "IpExt: ListenDrops\nIpExt: 7\n", "TcpExt: ListenDrops\nTcpExt: x\n"] {
            assert_eq!(parse_netstat(text), Counters::default(), "{text}");
        }
        // Fewer values than names: what is there counts.
        let cut = parse_netstat("TcpExt: ListenOverflows ListenDrops\nTcpExt: 8\n");
        assert_eq!(cut.0[..2], [Some(8), None]);
    }

    #[test]
    fn what_was_counted_before_is_left_out() {
        let at = |value| Counters([Some(value), None, Some(1), None, None, None, None]);
        let grown: Vec<_> = at(9).since(&at(4)).take(3).map(|(name, grown, _)| (name, grown)).collect();
        assert_eq!(grown, [("ListenOverflows", Some(5)), ("ListenDrops", None), ("SyncookiesSent", Some(0))]);
    }

    #[test]
    fn each_unfit_setting_is_one_line_that_says_what_to_do() {
        let fit = KernelSettings {
            syn_cookies: Some(1),
            accept_queue_max: Some(4096),
            half_open_max: Some(1),
            files_max: Some(1000 + FILES_RESERVED),
            watches_max: Some(1000 + FILES_RESERVED),
        };
        assert_eq!(fit.warnings(4096, 1000), [""; 0]);
        assert_eq!(KernelSettings::default().warnings(4096, 1000), [""; 0], "what is not known is not warned of");
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
    fn this_kernel_tells() {
        assert!(counters().0.iter().all(Option::is_some));
        let KernelSettings { syn_cookies, accept_queue_max, half_open_max, files_max, watches_max } = settings();
        let told = [syn_cookies, accept_queue_max, half_open_max, files_max, watches_max];
        assert!(told.iter().all(Option::is_some), "{told:?}");
    }
}
