//! The log lines about the link to the broker. Of the attempts that fail alike, one line a minute
//! tells.

use log::{info, warn};

use super::broker::{LinkFault, SharedKind};
use crate::clock::Tick;
use crate::limits::{BROKER_HOSTS_MAX, LINK_FAILURE_LOG};

/// The hosts that have failed since the link was last up, at most [`BROKER_HOSTS_MAX`].
#[derive(Default)]
pub struct LinkLog {
    failed: Vec<FailedHost>,
}

struct FailedHost {
    host: String,
    fault: String,
    told: Tick,
    /// Attempts since then.
    attempts: u32,
}

impl LinkLog {
    pub fn up(&mut self, host: &str) {
        self.failed = Vec::new();
        info!("the link to the broker is up: {host}");
    }

    pub fn down(&mut self, host: &str, fault: &LinkFault) {
        warn!("the link to the broker is down: {host}: {fault}; messages stay here");
    }

    /// Tells of an attempt that has failed. Returns false if the log has told it not long ago.
    pub fn failed(&mut self, host: &str, fault: &LinkFault, now: Tick) -> bool {
        let fault = fault.to_string();
        let known = self.failed.iter().position(|one| one.host == host);
        let mut attempts = 0;
        if let Some(at) = known {
            let one = &mut self.failed[at];
            one.attempts += 1;
            let is_recent = now.distance_from(one.told) < Tick::count(LINK_FAILURE_LOG) as i32;
            if one.fault == fault && is_recent {
                return false;
            }
            attempts = one.attempts;
            self.failed.swap_remove(at);
        } else if self.failed.len() == BROKER_HOSTS_MAX {
            self.failed.clear();
        }
        let times = if attempts > 1 { format!(", {attempts} times") } else { String::new() };
        warn!("there is no link to the broker {host}: {fault}{times}");
        self.failed.push(FailedHost { host: host.into(), fault, told: now, attempts: 0 });
        true
    }

    pub fn refused(&mut self, kind: SharedKind, name: &[u8], code: &str) {
        let name = name.escape_ascii();
        match kind {
            SharedKind::Channel => warn!(
                "the broker refuses the channel {name}: {code}; its messages stay here. Allow it \
                 in the broker's ACL, or leave it out of --broker-channels"
            ),
            SharedKind::Pattern => warn!(
                "the broker refuses the pattern {name}: {code}; its subscribers get no messages \
                 of shared channels. Allow it in the broker's ACL"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn failures_that_are_alike_are_told_once_a_minute() {
        let mut log = LinkLog::default();
        let minute = Tick::count(LINK_FAILURE_LOG);
        let at = |ticks| Tick(0).plus(ticks);
        assert!(log.failed("a:1", &LinkFault::Closed, at(0)));
        assert!(log.failed("b:1", &LinkFault::Closed, at(1)));
        assert!(!log.failed("a:1", &LinkFault::Closed, at(2)));
        assert!(!log.failed("a:1", &LinkFault::Closed, at(minute - 1)));
        assert!(log.failed("a:1", &LinkFault::Closed, at(minute)));
        assert!(log.failed("a:1", &LinkFault::NoReply, at(minute + 1)));
        log.up("a:1");
        assert!(log.failed("a:1", &LinkFault::NoReply, at(minute + 2)));
        for host in 0..2 * BROKER_HOSTS_MAX {
            log.failed(&host.to_string(), &LinkFault::NoReply, at(minute + 3));
            assert!(log.failed.len() <= BROKER_HOSTS_MAX);
        }
        assert!(LINK_FAILURE_LOG > Duration::from_secs(1));
    }
}
