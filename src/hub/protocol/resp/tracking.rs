//! CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR: client-side caching.
//!
//! There are no keys, so none ever changes and no invalidation is ever sent. A client that turns
//! tracking on gets the replies of Redis, and what it asked for is kept for TRACKINGINFO.

use std::collections::BTreeMap;

use super::Call;
use super::words::{is, shown, word};
use crate::codec::resp::{self, Command, Protocol};
use crate::hub::Shared;
use crate::hub::sessions::SessionId;
use crate::limits::{PREFIX_MAX, PREFIXES_MAX};

/// The sessions that have turned tracking on.
#[derive(Default)]
pub struct Trackers {
    /// By slot of the session.
    on: BTreeMap<u32, Tracking>,
    /// Memory of all prefixes, in bytes.
    prefix_bytes: usize,
}

/// The options that a session gave to CLIENT TRACKING.
#[derive(Clone, Default, PartialEq)]
struct Tracking {
    /// By place in [`MODES`].
    modes: [bool; MODES.len()],
    /// The id of the connection that invalidations go to; 0: this one.
    redirect: i64,
    prefixes: Vec<Box<[u8]>>,
}

const MODES: [&str; 4] = ["bcast", "optin", "optout", "noloop"];
const BCAST: usize = 0;
const OPTIN: usize = 1;
const OPTOUT: usize = 2;

impl Trackers {
    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.on.len() * (size_of::<Tracking>() + size_of::<u32>()) + self.prefix_bytes
    }

    /// Returns the number of sessions that have turned tracking on.
    pub fn len(&self) -> usize {
        self.on.len()
    }

    /// Turns tracking off: the session has ended, or asks for it.
    pub fn close(&mut self, session: SessionId) {
        if let Some(own) = self.on.remove(&session.index) {
            self.prefix_bytes -= own.prefix_bytes();
        }
    }

    /// Returns the slots of the sessions that have turned tracking on.
    pub fn sessions(&self) -> impl Iterator<Item = u32> {
        self.on.keys().copied()
    }

    /// Panics if the bytes of the prefixes are counted wrong. For tests.
    pub fn check_invariants(&self) {
        let bytes: usize = self.on.values().map(Tracking::prefix_bytes).sum();
        assert_eq!(self.prefix_bytes, bytes, "the bytes of the prefixes are counted wrong");
    }
}

impl Tracking {
    fn prefix_bytes(&self) -> usize {
        self.prefixes.iter().map(|prefix| size_of::<Box<[u8]>>() + prefix.len()).sum()
    }

    /// Parses the options behind ON or OFF.
    fn parse(shared: &Shared, words: Command<'_>) -> Result<Tracking, String> {
        let mut own = Tracking::default();
        let mut at = 3;
        while at < words.len() {
            let (option, more) = (word(words, at), at + 1 < words.len());
            if let Some(mode) = MODES.iter().position(|mode| is(option, mode)) {
                own.modes[mode] = true;
            } else if is(option, "redirect") && more {
                at += 1;
                own.redirect = match resp::number(word(words, at)) {
                    _ if own.redirect != 0 => {
                        return Err(
                            "ERR A client can only redirect to a single other client".into()
                        );
                    }
                    Some(id) if (1..=shared.sessions.newest()).contains(&id) => id,
                    Some(_) => {
                        return Err("ERR The client ID you want redirect to does not exist".into());
                    }
                    None => return Err("ERR value is not an integer or out of range".into()),
                };
            } else if is(option, "prefix") && more {
                at += 1;
                own.add_prefix(word(words, at))?;
            } else {
                return Err("ERR syntax error".into());
            }
            at += 1;
        }
        Ok(own)
    }

    fn add_prefix(&mut self, prefix: &[u8]) -> Result<(), String> {
        if self.prefixes.len() >= PREFIXES_MAX || prefix.len() > PREFIX_MAX {
            return Err(format!(
                "ERR too many or too long prefixes; accepted: up to {PREFIXES_MAX} per \
                 connection, of up to {PREFIX_MAX} bytes each"
            ));
        }
        self.prefixes.push(prefix.into());
        Ok(())
    }

    /// Returns the state after this one, if the session turns tracking on with the given options.
    fn joined_by(self, was_on: bool, mut new: Tracking) -> Result<Tracking, String> {
        let switched = |mode: &str| {
            format!(
                "ERR You can't switch {mode} before disabling tracking for this client, and then \
                 re-enabling it with a different mode."
            )
        };
        if !new.prefixes.is_empty() && !new.modes[BCAST] {
            return Err("ERR PREFIX option requires BCAST mode to be enabled".into());
        }
        if was_on && self.modes[BCAST] != new.modes[BCAST] {
            return Err(switched("BCAST mode on/off"));
        }
        if new.modes[BCAST] && (new.modes[OPTIN] || new.modes[OPTOUT]) {
            return Err("ERR OPTIN and OPTOUT are not compatible with BCAST".into());
        }
        if new.modes[OPTIN] && new.modes[OPTOUT] {
            return Err("ERR You can't specify both OPTIN mode and OPTOUT mode".into());
        }
        if (new.modes[OPTIN] && self.modes[OPTOUT]) || (new.modes[OPTOUT] && self.modes[OPTIN]) {
            return Err(switched("OPTIN/OPTOUT mode"));
        }
        if !new.modes[BCAST] {
            return Ok(new);
        }
        new.check_overlaps(&self.prefixes)?;
        let added = std::mem::replace(&mut new.prefixes, self.prefixes);
        if added.is_empty() && !new.prefixes.iter().any(|prefix| prefix.is_empty()) {
            new.add_prefix(b"")?;
        }
        added.iter().try_for_each(|prefix| new.add_prefix(prefix))?;
        Ok(new)
    }

    /// No prefix of a session may begin with another.
    fn check_overlaps(&self, present: &[Box<[u8]>]) -> Result<(), String> {
        let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
        let error = |own: &[u8], which: &str, other: &[u8]| {
            format!(
                "ERR Prefix '{}' overlaps with {which} prefix '{}'. Prefixes for a single client \
                 must not overlap.",
                shown(own),
                shown(other)
            )
        };
        for (at, own) in self.prefixes.iter().enumerate() {
            if let Some(other) = present.iter().find(|other| overlap(own, other)) {
                return Err(error(own, "an existing", other));
            }
            if let Some(other) = self.prefixes[at + 1..].iter().find(|other| overlap(own, other)) {
                return Err(error(own, "another provided", other));
            }
        }
        Ok(())
    }
}

/// Runs `CLIENT TRACKING ON|OFF [options]`.
pub fn tracking(shared: &Shared, words: Command<'_>, call: &mut Call<'_, '_>) {
    let new = match Tracking::parse(shared, words) {
        Ok(new) => new,
        Err(error) => return call.error(&error),
    };
    let (session, trackers) = (call.session, &mut *call.trackers);
    if is(word(words, 2), "off") {
        trackers.close(session);
    } else if is(word(words, 2), "on") {
        let present = trackers.on.get(&session.index).cloned();
        let was_on = present.is_some();
        match present.unwrap_or_default().joined_by(was_on, new) {
            Ok(new) => {
                trackers.close(session);
                trackers.prefix_bytes += new.prefix_bytes();
                trackers.on.insert(session.index, new);
            }
            Err(error) => return call.error(&error),
        }
    } else {
        return call.error("ERR syntax error");
    }
    resp::simple(call.out(), "OK");
}

/// Runs `CLIENT CACHING YES|NO`.
pub fn caching(words: Command<'_>, call: &mut Call<'_, '_>) {
    let Some(own) = call.trackers.on.get(&call.session.index) else {
        return call.error(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN \
             or OPTOUT mode enabled",
        );
    };
    for (answer, mode) in [("yes", OPTIN), ("no", OPTOUT)] {
        if is(word(words, 2), answer) {
            return match own.modes[mode] {
                true => resp::simple(call.out(), "OK"),
                false => call.error(&format!(
                    "ERR CLIENT CACHING {} is only valid when tracking is enabled in {} mode.",
                    answer.to_ascii_uppercase(),
                    MODES[mode].to_ascii_uppercase()
                )),
            };
        }
    }
    call.error("ERR syntax error");
}

/// Runs `CLIENT GETREDIR`.
pub fn redirect(call: &mut Call<'_, '_>) {
    let redirect = call.trackers.on.get(&call.session.index).map_or(-1, |own| own.redirect);
    resp::integer(call.out(), redirect);
}

/// Runs `CLIENT TRACKINGINFO`.
pub fn info(shared: &Shared, call: &mut Call<'_, '_>) {
    let protocol = shared.protocol(call.session);
    let own = call.trackers.on.get(&call.session.index);
    let modes = own.map_or([false; MODES.len()], |own| own.modes);
    let modes = MODES.iter().zip(modes).filter_map(|(name, on)| on.then_some(*name));
    let flags: Vec<&str> =
        [if own.is_some() { "on" } else { "off" }].into_iter().chain(modes).collect();
    let redirect = own.map_or(-1, |own| own.redirect);
    let prefixes = own.map_or(Vec::new(), |own| own.prefixes.clone());
    let out = call.out();
    resp::map(out, 3, protocol);
    resp::bulk(out, b"flags");
    match protocol {
        Protocol::Resp2 => resp::array(out, flags.len()),
        Protocol::Resp3 => out.extend_from_slice(format!("~{}\r\n", flags.len()).as_bytes()),
    }
    flags.iter().for_each(|flag| resp::bulk(out, flag.as_bytes()));
    resp::bulk(out, b"redirect");
    resp::integer(out, redirect);
    resp::bulk(out, b"prefixes");
    resp::array(out, prefixes.len());
    prefixes.iter().for_each(|prefix| resp::bulk(out, prefix));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::hub::tests::{disconnect, exchange, hub};
    use crate::service::Service;

    fn answers(hub: &mut Hub, lines: &[&str]) -> Vec<String> {
        let mut send = |line: &&str| exchange(hub, 0, format!("{line}\r\n").as_bytes()).0;
        lines.iter().map(|line| String::from_utf8(send(line)).unwrap()).collect()
    }

    /// Redis 7.0.15 gave these replies.
    #[test]
    fn tracking_has_the_replies_of_redis() {
        let info = |flags: &str, redirect: i64, prefixes: &str| {
            let flags: Vec<&str> = flags.split(' ').collect();
            let bulks: String =
                flags.iter().map(|flag| format!("${}\r\n{flag}\r\n", flag.len())).collect();
            format!(
                "*6\r\n$5\r\nflags\r\n*{}\r\n{bulks}$8\r\nredirect\r\n:{redirect}\r\n\
                 $8\r\nprefixes\r\n{prefixes}",
                flags.len()
            )
        };
        let ab = "*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        for (lines, expected) in [
            (&["CLIENT TRACKING on"][..], "+OK\r\n".into()),
            (&["CLIENT TRACKINGINFO"], info("off", -1, "*0\r\n")),
            (&["CLIENT GETREDIR"], ":-1\r\n".into()),
            (&["CLIENT TRACKING ON", "CLIENT GETREDIR"], ":0\r\n".into()),
            (&["CLIENT TRACKING ON REDIRECT 1", "CLIENT GETREDIR"], ":1\r\n".into()),
            (&["CLIENT TRACKING ON", "CLIENT TRACKINGINFO"], info("on", 0, "*0\r\n")),
            (
                &["CLIENT TRACKING ON optin NOLOOP", "CLIENT TRACKINGINFO"],
                info("on optin noloop", 0, "*0\r\n"),
            ),
            (
                &["CLIENT TRACKING ON BCAST PREFIX a PREFIX b", "CLIENT TRACKINGINFO"],
                info("on bcast", 0, ab),
            ),
            (
                &[
                    "CLIENT TRACKING ON BCAST PREFIX a",
                    "CLIENT TRACKING ON BCAST PREFIX b",
                    "CLIENT TRACKINGINFO",
                ],
                info("on bcast", 0, ab),
            ),
            (
                &["CLIENT TRACKING ON BCAST", "CLIENT TRACKINGINFO"],
                info("on bcast", 0, "*1\r\n$0\r\n\r\n"),
            ),
            (
                &["CLIENT TRACKING ON", "CLIENT TRACKING OFF OPTIN", "CLIENT TRACKINGINFO"],
                info("off", -1, "*0\r\n"),
            ),
            (&["CLIENT TRACKING ON", "RESET", "CLIENT GETREDIR"], ":-1\r\n".into()),
            (&["CLIENT TRACKING ON OPTIN", "CLIENT CACHING YES"], "+OK\r\n".into()),
            (&["CLIENT TRACKING ON OPTOUT", "CLIENT CACHING NO"], "+OK\r\n".into()),
        ] {
            let mut hub = hub(1);
            assert_eq!(answers(&mut hub, lines).pop().unwrap(), expected, "{lines:?}");
            hub.check_invariants();
            disconnect(&mut hub, 0);
            hub.check_invariants();
            assert_eq!(hub.protocols.resp.trackers.bytes(), 0, "{lines:?}");
        }
    }

    #[test]
    fn tracking_has_the_errors_of_redis() {
        let switch = "before disabling tracking for this client, and then re-enabling it with a \
                      different mode.";
        for (lines, expected) in [
            (&["CLIENT TRACKING maybe"][..], "syntax error".into()),
            (&["CLIENT TRACKING ON FOO"], "syntax error".into()),
            (&["CLIENT TRACKING OFF FOO"], "syntax error".into()),
            (&["CLIENT TRACKING ON REDIRECT"], "syntax error".into()),
            (&["CLIENT TRACKING ON BCAST PREFIX"], "syntax error".into()),
            (
                &["CLIENT TRACKING ON REDIRECT 2"],
                "The client ID you want redirect to does not exist".into(),
            ),
            (&["CLIENT TRACKING ON REDIRECT x"], "value is not an integer or out of range".into()),
            (
                &["CLIENT TRACKING ON REDIRECT 1 REDIRECT 1"],
                "A client can only redirect to a single other client".into(),
            ),
            (
                &["CLIENT TRACKING ON OPTIN OPTOUT"],
                "You can't specify both OPTIN mode and OPTOUT mode".into(),
            ),
            (
                &["CLIENT TRACKING ON BCAST OPTIN"],
                "OPTIN and OPTOUT are not compatible with BCAST".into(),
            ),
            (
                &["CLIENT TRACKING ON PREFIX a"],
                "PREFIX option requires BCAST mode to be enabled".to_string(),
            ),
            (
                &["CLIENT TRACKING ON", "CLIENT TRACKING ON BCAST"],
                format!("You can't switch BCAST mode on/off {switch}"),
            ),
            (
                &["CLIENT TRACKING ON OPTIN", "CLIENT TRACKING ON OPTOUT"],
                format!("You can't switch OPTIN/OPTOUT mode {switch}"),
            ),
            (
                &["CLIENT TRACKING ON BCAST PREFIX a PREFIX ab"],
                "Prefix 'a' overlaps with another provided prefix 'ab'. Prefixes for a single \
                 client must not overlap."
                    .into(),
            ),
            (
                &["CLIENT TRACKING ON BCAST", "CLIENT TRACKING ON BCAST PREFIX a"],
                "Prefix 'a' overlaps with an existing prefix ''. Prefixes for a single client \
                 must not overlap."
                    .into(),
            ),
            (
                &["CLIENT CACHING YES"],
                "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN \
                 or OPTOUT mode enabled"
                    .into(),
            ),
            (
                &["CLIENT TRACKING ON", "CLIENT CACHING NO"],
                "CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.".into(),
            ),
            (&["CLIENT TRACKING ON OPTIN", "CLIENT CACHING x"], "syntax error".into()),
        ] {
            let answer = answers(&mut hub(1), lines).pop().unwrap();
            assert_eq!(answer, format!("-ERR {expected}\r\n"), "{lines:?}");
        }
    }

    #[test]
    fn the_prefixes_of_a_session_are_bounded() {
        for (count, fits) in
            [(PREFIXES_MAX - 1, true), (PREFIXES_MAX, true), (PREFIXES_MAX + 1, false)]
        {
            let prefixes: String = (0..count).map(|n| format!(" PREFIX {n:03}")).collect();
            let lines = [&format!("CLIENT TRACKING ON BCAST{prefixes}")[..]];
            assert_eq!(answers(&mut hub(1), &lines)[0] == "+OK\r\n", fits, "{count}");
        }
        for (length, fits) in [(PREFIX_MAX - 1, true), (PREFIX_MAX, true), (PREFIX_MAX + 1, false)]
        {
            let lines = [&format!("CLIENT TRACKING ON BCAST PREFIX {}", "x".repeat(length))[..]];
            assert_eq!(answers(&mut hub(1), &lines)[0] == "+OK\r\n", fits, "{length}");
        }
    }
}
