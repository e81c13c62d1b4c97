//! The clients of the nodes: publishers, and subscribers by RESP2, RESP3 and server-sent events.

use std::collections::{BTreeMap, VecDeque};

use super::super::replies::{Front, Value, parse};
use super::super::{Violation, ensure};
use super::names::{self, CHANNELS, NAMES, NameIndex};
use super::shadow::{MessageNumber, Shadow, SubscriptionRecord};
use crate::net::sim::{ClientId, End, SimNet};

/// The protocol of a client, and its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientForm {
    /// It subscribes by RESP2.
    Listener,
    /// It publishes by RESP2.
    Publisher,
    /// It does both by RESP3.
    Newer,
    /// It gets the server-sent events of one channel.
    Events(NameIndex),
    /// It subscribes to everything by RESP3, and never leaves.
    Witness,
}

/// A reply that a client waits for.
#[derive(Debug)]
enum AwaitedAnswer {
    Hello,
    Subscribed(NameIndex, usize),
    Unsubscribed(NameIndex, usize),
    Receivers(MessageNumber),
    Counters,
    /// The head of a stream of events.
    Head(NameIndex, usize),
}

/// A client of a node.
pub struct NodeClient {
    pub node: usize,
    pub number: u32,
    pub life: usize,
    pub form: ClientForm,
    id: ClientId,
    inbox: Vec<u8>,
    awaited: VecDeque<AwaitedAnswer>,
    /// The subscriptions asked for, and those confirmed.
    wanted: BTreeMap<NameIndex, usize>,
    confirmed: BTreeMap<NameIndex, usize>,
    /// The figures that the node has told.
    pub figures: Option<BTreeMap<String, u64>>,
    pub has_left: bool,
}

fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

impl NodeClient {
    /// Begins to talk on a connection that has been made.
    pub fn new(
        (node, life): (usize, usize),
        number: u32,
        form: ClientForm,
        id: ClientId,
        net: &mut SimNet,
        shadow: &mut Shadow,
    ) -> NodeClient {
        let mut client = NodeClient {
            node,
            number,
            life,
            form,
            id,
            inbox: Vec::new(),
            awaited: VecDeque::new(),
            wanted: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            figures: None,
            has_left: false,
        };
        let mut out = Vec::new();
        match form {
            ClientForm::Newer | ClientForm::Witness => {
                command(&mut out, &[b"HELLO", b"3"]);
                client.awaited.push_back(AwaitedAnswer::Hello);
            }
            ClientForm::Events(channel) => {
                let name = names::text(channel);
                out =
                    format!("GET /events/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
                let record = client.record(channel, shadow);
                client.wanted.insert(channel, record);
                client.awaited.push_back(AwaitedAnswer::Head(channel, record));
            }
            ClientForm::Listener | ClientForm::Publisher => {}
        }
        if form == ClientForm::Witness {
            client.subscribe(names::ALL, &mut out, shadow);
        }
        net.client_send(id, &out);
        client
    }

    fn record(&self, name: NameIndex, shadow: &mut Shadow) -> usize {
        shadow.subscribe(SubscriptionRecord {
            client: self.number,
            life: self.life,
            name,
            tells_gaps: self.form != ClientForm::Listener,
            is_witness: self.form == ClientForm::Witness,
            asked: 0,
            confirmed: None,
            leaving: None,
            left: None,
            is_cut: false,
            received: Vec::new(),
            gaps: Vec::new(),
        })
    }

    /// True once the client may be part of what is checked.
    pub fn is_ready(&self) -> bool {
        self.awaited.is_empty()
    }

    pub fn waits_for(&self) -> String {
        format!("client {} waits for {:?}", self.number, self.awaited.front())
    }

    /// Sends some random commands.
    pub fn act(&mut self, random: &mut fastrand::Rng, net: &mut SimNet, shadow: &mut Shadow) {
        let mut out = Vec::new();
        for _ in 0..random.usize(1..5) {
            let publishes = match self.form {
                ClientForm::Publisher => true,
                ClientForm::Newer => random.bool(),
                ClientForm::Listener => false,
                ClientForm::Events(_) | ClientForm::Witness => break,
            };
            if publishes {
                let channel = random.u8(..CHANNELS);
                let length = random.usize(..=shadow.plan.payload_max);
                self.publish(channel, length, &mut out, shadow);
                continue;
            }
            let name = random.u8(..NAMES.len() as u8);
            match self.wanted.contains_key(&name) {
                false => self.subscribe(name, &mut out, shadow),
                true if random.bool() => self.unsubscribe(name, &mut out, shadow),
                true => {}
            }
        }
        net.client_send(self.id, &out);
    }

    /// Publishes one message, and sends it.
    pub fn publish_now(&mut self, channel: NameIndex, net: &mut SimNet, shadow: &mut Shadow) {
        let mut out = Vec::new();
        self.publish(channel, 10, &mut out, shadow);
        net.client_send(self.id, &out);
    }

    /// Asks the node for its figures of the broker.
    pub fn ask_figures(&mut self, net: &mut SimNet) {
        let mut out = Vec::new();
        command(&mut out, &[b"INFO", b"broker"]);
        self.awaited.push_back(AwaitedAnswer::Counters);
        net.client_send(self.id, &out);
    }

    fn publish(
        &mut self,
        channel: NameIndex,
        length: usize,
        out: &mut Vec<u8>,
        shadow: &mut Shadow,
    ) {
        let message = shadow.publish(Some(self.life), self.number, channel, length);
        command(out, &[b"PUBLISH", names::text(channel).as_bytes(), &shadow.payload(message)]);
        self.awaited.push_back(AwaitedAnswer::Receivers(message));
    }

    fn subscribe(&mut self, name: NameIndex, out: &mut Vec<u8>, shadow: &mut Shadow) {
        let record = self.record(name, shadow);
        self.wanted.insert(name, record);
        let verb: &[u8] = if names::is_pattern(name) { b"PSUBSCRIBE" } else { b"SUBSCRIBE" };
        command(out, &[verb, names::text(name).as_bytes()]);
        self.awaited.push_back(AwaitedAnswer::Subscribed(name, record));
    }

    fn unsubscribe(&mut self, name: NameIndex, out: &mut Vec<u8>, shadow: &mut Shadow) {
        let Some(record) = self.wanted.remove(&name) else { return };
        let now = shadow.tick();
        shadow.subscriptions[record].leaving.get_or_insert(now);
        let verb: &[u8] = if names::is_pattern(name) { b"PUNSUBSCRIBE" } else { b"UNSUBSCRIBE" };
        command(out, &[verb, names::text(name).as_bytes()]);
        self.awaited.push_back(AwaitedAnswer::Unsubscribed(name, record));
    }

    /// Closes or resets the connection.
    pub fn leave(&mut self, resets: bool, net: &mut SimNet, shadow: &mut Shadow) {
        match resets {
            true => net.client_reset(self.id),
            false => net.client_close(self.id),
        }
        self.has_left = true;
        let number = self.number;
        shadow.cut(|own| own.client == number);
    }

    /// Takes bytes from the node, and checks each answer and message.
    pub fn receive(
        &mut self,
        net: &mut SimNet,
        shadow: &mut Shadow,
        may_be_closed: bool,
    ) -> Result<(), Violation> {
        let bytes = net.client_received(self.id);
        self.inbox.extend_from_slice(&bytes);
        match self.form {
            ClientForm::Events(channel) => self.take_events(channel, shadow)?,
            _ => self.take_values(shadow)?,
        }
        let has_ended = net.client_saw(self.id) != End::Open;
        ensure(!has_ended || may_be_closed, || {
            format!("the node has closed client {}, {:?}", self.number, self.form)
        })?;
        self.has_left |= has_ended;
        Ok(())
    }

    fn take_values(&mut self, shadow: &mut Shadow) -> Result<(), Violation> {
        let inbox = std::mem::take(&mut self.inbox);
        let mut used = 0;
        loop {
            match parse(&inbox[used..]) {
                Front::Whole(value, length) => {
                    used += length;
                    self.take(&value, shadow)?;
                }
                Front::Partial => break,
                Front::Wrong => {
                    let text = inbox[used..].escape_ascii();
                    return Err(format!("client {} got no reply: {text}", self.number).into());
                }
            }
        }
        self.inbox = inbox[used..].to_vec();
        Ok(())
    }

    fn take(&mut self, value: &Value, shadow: &mut Shadow) -> Result<(), Violation> {
        let is_push = matches!(value, Value::Push(_))
            || self.form == ClientForm::Listener && matches!(value, Value::Array(_));
        let parts = value.elements();
        let part = |index: usize| parts.get(index).map_or(&b""[..], Value::text);
        match (is_push, part(0)) {
            (true, b"message") => {
                return self.take_message((part(1), false), part(1), part(2), shadow);
            }
            (true, b"pmessage") => {
                return self.take_message((part(1), true), part(2), part(3), shadow);
            }
            (true, b"gap") if self.form != ClientForm::Listener => {
                let name = names::find(part(1), false).or(names::find(part(1), true));
                return self.take_gap(name, shadow);
            }
            (true, b"closing") => return Ok(()),
            _ => {}
        }
        let now = shadow.tick();
        match (self.awaited.pop_front(), value) {
            (Some(AwaitedAnswer::Hello), Value::Map(_)) => {}
            (Some(AwaitedAnswer::Subscribed(name, record)), _)
                if is_push
                    && matches!(part(0), b"subscribe" | b"psubscribe")
                    && part(1) == names::text(name).as_bytes() =>
            {
                shadow.subscriptions[record].confirmed = Some(now);
                self.confirmed.insert(name, record);
            }
            (Some(AwaitedAnswer::Unsubscribed(name, record)), _)
                if is_push
                    && matches!(part(0), b"unsubscribe" | b"punsubscribe")
                    && part(1) == names::text(name).as_bytes() =>
            {
                shadow.subscriptions[record].left = Some(now);
                self.confirmed.remove(&name);
            }
            (Some(AwaitedAnswer::Receivers(message)), Value::Integer(count)) => {
                shadow.answered(message, Some(*count));
            }
            (Some(AwaitedAnswer::Receivers(message)), Value::Error(text))
                if text.contains("wait to be sent") =>
            {
                shadow.answered(message, None);
            }
            (Some(AwaitedAnswer::Counters), Value::Bulk(text)) => {
                let text = String::from_utf8_lossy(text);
                let figures = text.lines().filter_map(|line| {
                    let (name, figure) = line.split_once(':')?;
                    Some((name.to_string(), figure.trim().parse().ok()?))
                });
                self.figures = Some(figures.collect());
            }
            (awaited, value) => {
                let number = self.number;
                return Err(format!("client {number}: {value:?} answers {awaited:?}").into());
            }
        }
        Ok(())
    }

    fn take_message(
        &mut self,
        (topic, is_pattern): (&[u8], bool),
        channel: &[u8],
        payload: &[u8],
        shadow: &mut Shadow,
    ) -> Result<(), Violation> {
        let name = names::find(topic, is_pattern);
        match name.and_then(|name| self.confirmed.get(&name)) {
            Some(record) => shadow.receive(*record, channel, payload),
            None => Err(format!(
                "client {} gets messages of {} without a subscription",
                self.number,
                topic.escape_ascii()
            )
            .into()),
        }
    }

    fn take_gap(&mut self, name: Option<NameIndex>, shadow: &mut Shadow) -> Result<(), Violation> {
        let now = shadow.tick();
        match name.and_then(|name| self.confirmed.get(&name)) {
            Some(record) => shadow.subscriptions[*record].gaps.push(now),
            None => {
                let number = self.number;
                return Err(format!("client {number} is told of a gap of {name:?}").into());
            }
        }
        Ok(())
    }

    fn take_events(&mut self, channel: NameIndex, shadow: &mut Shadow) -> Result<(), Violation> {
        if let Some(AwaitedAnswer::Head(name, record)) = self.awaited.front() {
            let Some(end) = self.inbox.windows(4).position(|part| part == b"\r\n\r\n") else {
                return Ok(());
            };
            let head: Vec<u8> = self.inbox.drain(..end + 4).collect();
            ensure(head.starts_with(b"HTTP/1.1 200"), || head.escape_ascii().to_string())?;
            shadow.subscriptions[*record].confirmed = Some(shadow.tick());
            self.confirmed.insert(*name, *record);
            self.awaited.pop_front();
        }
        while let Some(end) = self.inbox.windows(2).position(|part| part == b"\n\n") {
            let block: Vec<u8> = self.inbox.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&block);
            if let Some(data) = text.strip_prefix("data: ") {
                let payload = data.trim_end().as_bytes();
                let name = names::text(channel).as_bytes();
                self.take_message((name, false), name, payload, shadow)?;
            } else if let Some(data) = text.strip_prefix("event: gap\n") {
                let expected = format!("data: {{\"gap\":\"{}\"}}\n\n", names::text(channel));
                ensure(data == expected, || format!("not a gap: {data}"))?;
                self.take_gap(Some(channel), shadow)?;
            } else {
                let is_other = text.starts_with("retry: ") || text.starts_with(':');
                ensure(is_other, || format!("not an event: {text}"))?;
            }
        }
        Ok(())
    }
}
