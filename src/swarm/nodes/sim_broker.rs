//! The simulated broker: a Redis of publishes and subscriptions, with one order for all publishes.
//!
//! It reads commands with a parser of its own. Once per step, [`SimBroker::read`] takes the bytes
//! of the links, and [`SimBroker::write`] sends the replies. Its faults by intent are in
//! [`broker_faults`](super::broker_faults).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::replies::{Front, Value, parse};
use super::super::{Violation, ensure};
use super::names;
use super::plan::{BROKER_HOSTS, BROKER_PASSWORD};
use super::shadow::Shadow;
use crate::clock::Time;
use crate::codec::resp::{self, Protocol};
use crate::hub::glob;
use crate::net::Net;
use crate::net::sim::{ClientId, End, SimNet};

/// Longest time until a node replaces a link that is up and silent: the time between probes, the
/// time for a reply, and some steps.
const REPLACED_WITHIN: Duration = Duration::from_millis(10_000 + 4_000 + 2_000);

/// How the broker treats a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMode {
    Sound,
    /// It gets replies and no messages.
    Deaf(Time),
    /// It gets nothing.
    Mute(Time),
}

/// A connection of a node, at the broker.
pub struct BrokerSide {
    pub node: usize,
    pub id: ClientId,
    /// The number of its record in the shadow.
    pub record: usize,
    pub mode: LinkMode,
    /// Maximum number of bytes read from it in a step.
    pub read_max: usize,
    /// It ends within its next bytes, after this many.
    pub ends_after: Option<usize>,
    input: Vec<u8>,
    pub output: Vec<u8>,
    is_known: bool,
    protocol: Protocol,
    pub channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
}

/// The state of the whole broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerState {
    Serving,
    /// It neither reads nor writes.
    Stalled(Time),
    /// It refuses publishes.
    Loading(Time),
    /// It is not there. Dials hang, or are refused.
    Dead {
        until: Time,
        hangs: bool,
    },
}

/// The broker.
pub struct SimBroker {
    pub state: BrokerState,
    pub links: Vec<BrokerSide>,
    prefix: Vec<u8>,
    pattern_prefix: Vec<u8>,
    /// Links that their nodes gave up because they were silent.
    pub replaced: u64,
    /// Connections that were accepted.
    pub accepted: u64,
}

/// Returns the addresses of the broker.
pub fn addresses(hosts: usize) -> impl Iterator<Item = SocketAddr> {
    BROKER_HOSTS.into_iter().take(hosts).map(|host| SocketAddr::from((host, 6379)))
}

impl SimBroker {
    pub fn new(prefix: &str) -> SimBroker {
        let escaped: String = prefix
            .chars()
            .flat_map(|one| "*?[".contains(one).then_some('\\').into_iter().chain([one]))
            .collect();
        SimBroker {
            state: BrokerState::Serving,
            links: Vec::new(),
            prefix: prefix.into(),
            pattern_prefix: escaped.into(),
            replaced: 0,
            accepted: 0,
        }
    }

    /// Adds a connection of a node.
    pub fn accept(&mut self, node: usize, life: usize, id: ClientId, shadow: &mut Shadow) {
        self.accepted += 1;
        self.links.push(BrokerSide {
            node,
            id,
            record: shadow.open_link(life),
            mode: LinkMode::Sound,
            read_max: usize::MAX,
            ends_after: None,
            input: Vec::new(),
            output: Vec::new(),
            is_known: !shadow.plan.has_password,
            protocol: Protocol::Resp2,
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
        });
    }

    /// Takes the bytes of all links of a node, and runs the commands in them.
    pub fn read(
        &mut self,
        node: usize,
        net: &mut SimNet,
        shadow: &mut Shadow,
    ) -> Result<(), Violation> {
        if matches!(self.state, BrokerState::Stalled(_)) {
            return Ok(());
        }
        for index in (0..self.links.len())
            .filter(|index| self.links[*index].node == node)
            .collect::<Vec<_>>()
        {
            let link = &mut self.links[index];
            let bytes = net.client_take(link.id, link.read_max);
            if matches!(link.mode, LinkMode::Mute(_)) {
                continue;
            }
            link.input.extend_from_slice(&bytes);
            self.run_all(index, shadow)?;
        }
        Ok(())
    }

    /// Sends what waits for the links of a node, and forgets those that have ended.
    pub fn write(
        &mut self,
        node: usize,
        net: &mut SimNet,
        shadow: &mut Shadow,
    ) -> Result<(), Violation> {
        if matches!(self.state, BrokerState::Stalled(_)) {
            return Ok(());
        }
        let mut outcome = Ok(());
        let replaced = &mut self.replaced;
        self.links.retain_mut(|link| {
            if link.node != node {
                return true;
            }
            if matches!(link.mode, LinkMode::Mute(_)) {
                link.output.clear();
            }
            if !link.output.is_empty() {
                let mut bytes = std::mem::take(&mut link.output);
                let cut = link.ends_after.filter(|cut| *cut < bytes.len());
                bytes.truncate(cut.unwrap_or(bytes.len()));
                net.client_send(link.id, &bytes);
                if cut.is_some() {
                    net.client_close(link.id);
                    shadow.close_link(link.record);
                    return false;
                }
            }
            let is_over = net.client_saw(link.id) != End::Open
                && (net.client_saw(link.id) == End::Reset || net.client_has_taken_all(link.id));
            if is_over {
                *replaced += u64::from(link.mode != LinkMode::Sound);
                net.client_close(link.id);
                shadow.close_link(link.record);
            } else if let LinkMode::Deaf(since) | LinkMode::Mute(since) = link.mode
                && net.client_saw(link.id) == End::Open
                && net.now().since(since) > REPLACED_WITHIN
            {
                outcome = Err(Violation::from(format!(
                    "link {} of node {node} is silent since {since:?} and is not replaced",
                    link.record
                )));
            }
            !is_over
        });
        outcome
    }

    fn run_all(&mut self, index: usize, shadow: &mut Shadow) -> Result<(), Violation> {
        let input = std::mem::take(&mut self.links[index].input);
        let mut used = 0;
        loop {
            match parse(&input[used..]) {
                Front::Whole(value, length) => {
                    used += length;
                    let words: Vec<&[u8]> = value.elements().iter().map(Value::text).collect();
                    self.run(index, &words, shadow)?;
                }
                Front::Partial => break,
                Front::Wrong => {
                    let text = input[used..].escape_ascii();
                    return Err(
                        format!("a node sends the broker what is no command: {text}").into()
                    );
                }
            }
        }
        self.links[index].input = input[used..].to_vec();
        Ok(())
    }

    fn run(&mut self, index: usize, words: &[&[u8]], shadow: &mut Shadow) -> Result<(), Violation> {
        let is_resp3 = shadow.plan.is_resp3;
        let link = &mut self.links[index];
        let out = &mut link.output;
        match words {
            [b"HELLO", b"3", rest @ ..] if is_resp3 => {
                if let [b"AUTH", b"default", password, ..] = rest {
                    link.is_known |= *password == BROKER_PASSWORD.as_bytes();
                }
                if !link.is_known {
                    resp::error(out, b"NOAUTH HELLO must be called with the client authenticated");
                    return Ok(());
                }
                link.protocol = Protocol::Resp3;
                resp::map(out, 2, Protocol::Resp3);
                resp::bulk(out, b"proto");
                resp::integer(out, 3);
                resp::bulk(out, b"modules");
                resp::array(out, 0);
            }
            [b"AUTH", password] if *password == BROKER_PASSWORD.as_bytes() => {
                link.is_known = true;
                resp::simple(out, "OK");
            }
            [b"HELLO", ..] => resp::error(out, b"ERR unknown command 'HELLO', with args: '3'"),
            _ if !link.is_known => resp::error(out, b"NOAUTH Authentication required."),
            [b"CLIENT", b"SETNAME", _] | [b"SELECT", _] => resp::simple(out, "OK"),
            [b"PUBLISH", channel, payload] => {
                return self.publish_by(index, channel, payload, shadow);
            }
            [b"SUBSCRIBE", list @ ..] => self.change(index, "subscribe", list, shadow)?,
            [b"PSUBSCRIBE", list @ ..] => self.change(index, "psubscribe", list, shadow)?,
            [b"UNSUBSCRIBE", list @ ..] => self.change(index, "unsubscribe", list, shadow)?,
            [b"PUNSUBSCRIBE", list @ ..] => self.change(index, "punsubscribe", list, shadow)?,
            [name, ..] => {
                let error = [b"ERR unknown command '", *name, b"', with args beginning with: "];
                resp::error(out, &error.concat());
            }
            [] => return Err("an empty command to the broker".to_string().into()),
        }
        Ok(())
    }

    /// Subscribes or unsubscribes names for a link.
    fn change(
        &mut self,
        index: usize,
        verb: &str,
        list: &[&[u8]],
        shadow: &mut Shadow,
    ) -> Result<(), Violation> {
        let (is_pattern, begins) = (verb.starts_with('p'), !verb.contains("un"));
        let prefix = if is_pattern { &self.pattern_prefix } else { &self.prefix };
        let link = &mut self.links[index];
        for name in list {
            let own = name.strip_prefix(&prefix[..]);
            let known = own.and_then(|own| names::find(own, is_pattern));
            let is_probe = own.is_some_and(|own| own.starts_with(b"slabd:probe:"));
            ensure(known.is_some() || is_probe && !is_pattern, || {
                format!("a node wants what none of its clients does: {}", name.escape_ascii())
            })?;
            if begins && known.is_some_and(|known| names::is_denied(known, &shadow.plan)) {
                // As Redis does, the names before it are subscribed or not, all or none.
                resp::error(&mut link.output, b"NOPERM No permissions to access a channel");
                return Ok(());
            }
        }
        for name in list {
            let all = if is_pattern { &mut link.patterns } else { &mut link.channels };
            match begins {
                true => all.insert(name.to_vec()),
                false => all.remove(*name),
            };
            if let Some(known) = name.strip_prefix(&prefix[..])
                && let Some(known) = names::find(known, is_pattern)
            {
                shadow.span(link.record, known, begins);
            }
            let count = link.channels.len() + link.patterns.len();
            resp::push(&mut link.output, 3, link.protocol);
            resp::bulk(&mut link.output, verb.as_bytes());
            resp::bulk(&mut link.output, name);
            resp::integer(&mut link.output, count as i64);
        }
        Ok(())
    }

    /// Runs the PUBLISH of a link.
    fn publish_by(
        &mut self,
        index: usize,
        channel: &[u8],
        payload: &[u8],
        shadow: &mut Shadow,
    ) -> Result<(), Violation> {
        let Some(own) = channel.strip_prefix(&self.prefix[..]) else {
            return Err(format!("{} lacks the prefix", channel.escape_ascii()).into());
        };
        let link = &mut self.links[index];
        let is_loading = matches!(self.state, BrokerState::Loading(_));
        let is_probe = own.starts_with(b"slabd:probe:");
        let is_denied =
            names::find(own, false).is_some_and(|known| names::is_denied(known, &shadow.plan));
        let refusal: Option<&[u8]> = match () {
            () if is_loading => Some(b"LOADING Redis is loading the dataset in memory"),
            () if is_denied => Some(b"NOPERM No permissions to access a channel"),
            () => None,
        };
        let from = Some(link.record);
        if let Some(refusal) = refusal {
            resp::error(&mut link.output, refusal);
            return match is_probe {
                true => Ok(()),
                false => shadow.reaches_broker(own, payload, from, true).map(drop),
            };
        }
        let receivers = match is_probe {
            true => self.probe(channel, payload, shadow),
            false => {
                let own = own.to_vec();
                self.publish(&own, payload, from, shadow)?
            }
        };
        resp::integer(&mut self.links[index].output, receivers);
        Ok(())
    }

    /// Sends a probe to the links that have subscribed to its channel, or to a pattern of it.
    fn probe(&mut self, channel: &[u8], payload: &[u8], shadow: &mut Shadow) -> i64 {
        let mut receivers = 0;
        for link in self.links.iter_mut().filter(|link| link.mode == LinkMode::Sound) {
            if link.channels.contains(channel) {
                receivers += 1;
                let words = [&b"message"[..], channel, payload];
                resp::pushed(&mut link.output, link.protocol, &words);
                shadow.proved(link.record);
            }
            for pattern in &link.patterns {
                if glob::matches(pattern, channel, &mut 0) {
                    receivers += 1;
                    let words = [&b"pmessage"[..], pattern, channel, payload];
                    resp::pushed(&mut link.output, link.protocol, &words);
                }
            }
        }
        receivers
    }

    /// Publishes a message of a link, or of another client of the broker, and sends it to all that
    /// have subscribed. The channel is without the prefix.
    pub fn publish(
        &mut self,
        own: &[u8],
        payload: &[u8],
        from: Option<usize>,
        shadow: &mut Shadow,
    ) -> Result<i64, Violation> {
        let message = shadow.reaches_broker(own, payload, from, false)?;
        let channel = [&self.prefix[..], own].concat();
        let mut receivers = 0;
        for link in &mut self.links {
            let is_sound = link.mode == LinkMode::Sound;
            if link.channels.contains(&channel) {
                receivers += 1;
                if let Some(name) = names::find(own, false).filter(|_| is_sound) {
                    let words = [&b"message"[..], &channel, payload];
                    resp::pushed(&mut link.output, link.protocol, &words);
                    shadow.passed_on(link.record, name, message);
                }
            }
            for pattern in &link.patterns {
                if glob::matches(pattern, &channel, &mut 0) {
                    receivers += 1;
                    let name = pattern.strip_prefix(&self.pattern_prefix[..]);
                    let name = name.and_then(|name| names::find(name, true));
                    if let Some(name) = name.filter(|_| is_sound) {
                        let words = [&b"pmessage"[..], pattern, &channel, payload];
                        resp::pushed(&mut link.output, link.protocol, &words);
                        shadow.passed_on(link.record, name, message);
                    }
                }
            }
        }
        Ok(receivers)
    }
}
