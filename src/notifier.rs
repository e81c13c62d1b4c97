//! Tells the service manager the state of the server: sd_notify(3).
//!
//! Each message has the whole state, so the next one makes up for one that is lost. The pings of
//! the watchdog follow turns of the loop: a loop that is stuck sends none, and is restarted.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use log::warn;

use crate::clock::{Clock, Tick, Time};
use crate::limits::{NOTIFY_RETRY, TIMEOUT_MAX};

/// The way to the service manager, and what it was told last.
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// Time between two pings: half of what the watchdog allows.
    ping_every: Option<Duration>,
    /// The state of the server, such as `READY=1`.
    state: &'static str,
    /// When the last message was sent.
    told: Time,
    /// True if the last message was not sent, because the manager's queue was full.
    is_owed: bool,
    /// True if the loop wakes up for the next message.
    is_armed: bool,
}

impl Notifier {
    /// Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. Without a socket, all calls do nothing.
    /// Warns of a variable that cannot be used.
    pub fn from_environment() -> Notifier {
        let variable = |name: &str| env::var_os(name).filter(|text| !text.is_empty());
        let text = |name: &str| variable(name).map(|text| text.to_string_lossy().into_owned());
        let manager = variable("NOTIFY_SOCKET").map(|path| manager(path.as_bytes()));
        let ping_every = watchdog(text("WATCHDOG_USEC"), text("WATCHDOG_PID"));
        let manager = manager.and_then(|manager| manager.map_err(|why| warn!("{why}")).ok());
        let ping_every = ping_every.map_err(|why| warn!("{why}")).ok().flatten();
        Notifier::new(manager, ping_every)
    }

    fn new(manager: Option<(UnixDatagram, SocketAddr)>, ping_every: Option<Duration>) -> Notifier {
        Notifier {
            ping_every: ping_every.filter(|_| manager.is_some()),
            manager,
            state: "",
            told: Time::ZERO,
            is_owed: false,
            is_armed: false,
        }
    }

    /// The server serves, at the start or after a reload. A drain goes on whatever is reloaded.
    pub fn ready(&mut self, status: &str, now: Time) {
        if self.state != STOPPING {
            self.state = "READY=1\n";
            self.tell("", status, now);
        }
    }

    /// The server reads its configuration again.
    pub fn reloading(&mut self, now: Time) {
        if self.state == STOPPING {
            return;
        }
        // The manager compares it with the time of its own request: systemd.service(5),
        // Type=notify-reload.
        let began = format!("RELOADING=1\nMONOTONIC_USEC={}\n", Clock::since_boot().as_micros());
        self.state = "";
        self.tell(&began, "reading the configuration again", now);
    }

    /// The server drains. Only the first call counts.
    pub fn stopping(&mut self, status: &str, now: Time) {
        if self.state != STOPPING {
            self.state = STOPPING;
            self.tell("", status, now);
        }
    }

    /// Handles the end of a turn that began at `now`: pings the watchdog when it is time. Returns
    /// after what time the loop must turn again at the latest, unless it knows already.
    pub fn turned(&mut self, now: Time, connections: usize) -> Option<Duration> {
        if now.since(self.told) >= self.wait()? {
            self.tell("", &format!("{connections} connections"), now);
        }
        let wait = self.wait().filter(|_| !self.is_armed)?;
        self.is_armed = true;
        // A timer counts whole ticks, and must not end before the time.
        Some(wait + Tick::LENGTH)
    }

    /// Returns the time from the last message to the next one.
    fn wait(&self) -> Option<Duration> {
        if self.is_owed { Some(NOTIFY_RETRY) } else { self.ping_every }
    }

    fn tell(&mut self, extra: &str, status: &str, now: Time) {
        (self.told, self.is_owed, self.is_armed) = (now, false, false);
        let Some((socket, address)) = &self.manager else { return };
        let ping = if self.ping_every.is_some() { "WATCHDOG=1\n" } else { "" };
        let message = format!("{extra}{}{ping}STATUS={status}\n", self.state);
        match socket.send_to_addr(message.as_bytes(), address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_owed = true,
            Err(error) => warn!("cannot tell the service manager: {error}"),
            Ok(_) => {}
        }
    }
}

const STOPPING: &str = "STOPPING=1\n";

/// Returns a socket, and the address that NOTIFY_SOCKET names: a path, or `@` and an abstract name.
fn manager(path: &[u8]) -> Result<(UnixDatagram, SocketAddr), String> {
    let address = match path {
        [b'/', ..] => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(path))),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => Err(io::Error::other("expected a path, or @ and a name")),
    };
    let socket = || -> io::Result<_> {
        let socket = UnixDatagram::unbound()?;
        // The loop never waits for the manager.
        socket.set_nonblocking(true)?;
        Ok((socket, address?))
    };
    socket().map_err(|error| format!("NOTIFY_SOCKET cannot be used: {error}"))
}

/// Returns the time between two pings. `None` if the watchdog is off or watches another process.
fn watchdog(time: Option<String>, process: Option<String>) -> Result<Option<Duration>, String> {
    let is_ours = process.is_none_or(|number| number == std::process::id().to_string());
    let Some(time) = time.filter(|_| is_ours) else { return Ok(None) };
    let allowed = time.parse().ok().filter(|time| *time > 0).map(Duration::from_micros);
    let Some(allowed) = allowed else {
        return Err(format!(
            "WATCHDOG_USEC is '{time}'; accepted: a number of microseconds, 1 or more"
        ));
    };
    Ok(Some((allowed / 2).min(TIMEOUT_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the socket of a manager, and a notifier that sends to it.
    fn pair(ping_every: Option<Duration>) -> (UnixDatagram, Notifier) {
        let name = format!("@slabd-notify-{}-{}", std::process::id(), fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, Notifier::new(Some(manager(name.as_bytes()).unwrap()), ping_every))
    }

    fn next(socket: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 1000];
        let length = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    #[test]
    fn the_manager_is_told_each_state_once() {
        let (socket, mut notifier) = pair(None);
        notifier.ready("up to 5 connections", Time::ZERO);
        assert_eq!(next(&socket).unwrap(), "READY=1\nSTATUS=up to 5 connections\n");
        notifier.reloading(Time::ZERO);
        let told = next(&socket).unwrap();
        let time = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let time: u128 = time.lines().next().unwrap().parse().unwrap();
        assert!(time > 0 && time <= Clock::since_boot().as_micros());
        notifier.ready("the same", Time::ZERO);
        assert_eq!(next(&socket).unwrap(), "READY=1\nSTATUS=the same\n");
        notifier.stopping("7 connections to finish", Time::ZERO);
        notifier.stopping("6 connections to finish", Time::ZERO);
        notifier.reloading(Time::ZERO);
        notifier.ready("again", Time::ZERO);
        assert_eq!(next(&socket).unwrap(), "STOPPING=1\nSTATUS=7 connections to finish\n");
        assert_eq!((next(&socket), notifier.turned(Time::ZERO + SECOND, 6)), (None, None));
    }

    #[test]
    fn a_ping_follows_a_turn_after_half_of_the_time_of_the_watchdog() {
        let every = watchdog(Some("2000000".into()), None).unwrap();
        let (socket, mut notifier) = pair(every);
        notifier.ready("", Time::ZERO);
        assert!(next(&socket).unwrap().contains("WATCHDOG=1\n"));
        // The loop is asked once to turn in time.
        assert_eq!(notifier.turned(Time::ZERO, 0), Some(SECOND + Tick::LENGTH));
        let before = Time::ZERO + (SECOND - Duration::from_nanos(1));
        assert_eq!((notifier.turned(before, 0), next(&socket)), (None, None));
        let asked = notifier.turned(Time::ZERO + SECOND, 3);
        assert_eq!(asked, Some(SECOND + Tick::LENGTH));
        let ping = "READY=1\nWATCHDOG=1\nSTATUS=3 connections\n";
        assert_eq!(next(&socket).as_deref(), Some(ping));
    }

    #[test]
    fn a_message_that_does_not_fit_the_queue_of_the_manager_is_sent_again() {
        let (socket, mut notifier) = pair(None);
        while !notifier.is_owed {
            notifier.ready("", Time::ZERO);
        }
        assert_eq!(notifier.turned(Time::ZERO, 0), Some(NOTIFY_RETRY + Tick::LENGTH));
        while next(&socket).is_some() {}
        assert_eq!(notifier.turned(Time::ZERO + NOTIFY_RETRY, 4), None);
        assert_eq!(next(&socket).unwrap(), "READY=1\nSTATUS=4 connections\n");
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_an_error_and_that_of_another_process_is_ignored() {
        let ours = std::process::id().to_string();
        for (time, process, expected) in [
            (None, None, Ok(None)),
            (Some("3"), Some("1"), Ok(None)),
            (Some("4"), Some(&*ours), Ok(Some(Duration::from_micros(2)))),
            (Some("18446744073709551615"), None, Ok(Some(TIMEOUT_MAX))),
        ] {
            assert_eq!(watchdog(time.map(Into::into), process.map(Into::into)), expected);
        }
        for time in ["0", "-1", "soon", ""] {
            assert!(watchdog(Some(time.into()), None).unwrap_err().contains("accepted: a number"));
        }
        assert!(manager(b"tcp:5").unwrap_err().contains("expected a path, or @ and a name"));
        assert!(manager(&[b'/'; 200]).is_err());
    }
}
