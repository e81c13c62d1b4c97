//! A broker for tests: it runs commands and scripts as Redis does, and can be told to misbehave.

#[cfg(test)]
use std::collections::{BTreeMap, BTreeSet};

use super::notices::value_of;
use super::scripts;
use crate::codec::resp::{self, CommandLimits, Parser, Protocol};
use crate::hub::glob;

/// A broker that runs commands as Redis does, and can be told to misbehave.
pub struct ModelBroker {
    /// True if it knows HELLO and RESP3.
    pub is_new: bool,
    pub password: Option<Vec<u8>>,
    /// Names that the ACL denies.
    pub denied: BTreeSet<Vec<u8>>,
    /// The error to every PUBLISH of a client, except probes.
    pub publish_error: Option<&'static str>,
    /// The master that it names as a Sentinel.
    pub master: Option<(&'static str, &'static str)>,
    pub role: &'static str,
    pub accepts: bool,
    /// True if it neither reads nor writes.
    pub is_stopped: bool,
    /// True if it takes publishes and delivers none.
    pub is_deaf: bool,
    pub connections: Vec<ModelConnection>,
    /// The commands that it ran, without their arguments, and the number of words.
    pub ran: Vec<(String, usize)>,
    /// True if it knows EVAL. The script is one of [`scripts`].
    pub runs_scripts: bool,
    /// The error to every script.
    pub script_error: Option<&'static str>,
    pub hashes: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// The number of fields that each script to read values looked at.
    pub looks: Vec<usize>,
}

#[derive(Default)]
pub struct ModelConnection {
    pub is_open: bool,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    pub is_new: bool,
    pub is_known: bool,
    pub channels: BTreeSet<Vec<u8>>,
    pub patterns: BTreeSet<Vec<u8>>,
}

impl ModelConnection {
    fn protocol(&self) -> Protocol {
        if self.is_new { Protocol::Resp3 } else { Protocol::Resp2 }
    }
}

impl ModelBroker {
    pub fn new(is_new: bool) -> ModelBroker {
        ModelBroker {
            is_new,
            password: None,
            denied: BTreeSet::new(),
            publish_error: None,
            master: None,
            role: "master",
            accepts: true,
            is_stopped: false,
            is_deaf: false,
            connections: Vec::new(),
            ran: Vec::new(),
            runs_scripts: true,
            script_error: None,
            hashes: BTreeMap::new(),
            looks: Vec::new(),
        }
    }

    pub fn connect(&mut self) -> usize {
        let is_known = self.password.is_none();
        let one = ModelConnection { is_open: true, is_known, ..ModelConnection::default() };
        self.connections.push(one);
        self.connections.len() - 1
    }

    /// Ends every connection. Their unsent bytes are lost.
    pub fn kill(&mut self) {
        self.connections.iter_mut().for_each(|one| *one = ModelConnection::default());
    }

    pub fn receive(&mut self, index: usize, bytes: &[u8]) {
        if !self.connections[index].is_open {
            return;
        }
        self.connections[index].input.extend_from_slice(bytes);
        let mut parser = Parser::default();
        loop {
            let input = std::mem::take(&mut self.connections[index].input);
            let limits = CommandLimits::up_to(64 << 20);
            let found = parser.parse_multibulk(&input, &limits).unwrap();
            let Some((command, length)) = found else {
                self.connections[index].input = input;
                return;
            };
            let words: Vec<Vec<u8>> = command.iter().map(<[u8]>::to_vec).collect();
            self.connections[index].input = input[length..].to_vec();
            self.run(index, &words);
        }
    }

    fn run(&mut self, index: usize, words: &[Vec<u8>]) {
        let name = String::from_utf8(words[0].clone()).unwrap();
        self.ran.push((name.clone(), words.len()));
        let is_known = self.connections[index].is_known;
        let out = &mut self.connections[index].output;
        match &*name {
            "HELLO" if !self.is_new => {
                let quoted = words[1..].join(&b"' '"[..]);
                let text = [b"ERR unknown command 'HELLO', with args: '", &quoted[..]].concat();
                resp::error(out, &text);
            }
            "HELLO" | "AUTH" => {
                let given = match words.iter().position(|word| word == b"AUTH") {
                    Some(0) => words.last(),
                    Some(at) => words.get(at + 2),
                    None => None,
                };
                let fits = self.password.as_ref() == given;
                let connection = &mut self.connections[index];
                if given.is_some() && !fits {
                    resp::error(&mut connection.output, b"WRONGPASS invalid password");
                    return;
                }
                if given.is_none() && !is_known {
                    resp::error(&mut connection.output, b"NOAUTH HELLO without a password");
                    return;
                }
                connection.is_known = true;
                if name == "AUTH" {
                    resp::simple(&mut connection.output, "OK");
                    return;
                }
                connection.is_new = true;
                resp::map(&mut connection.output, 2, Protocol::Resp3);
                resp::bulk(&mut connection.output, b"proto");
                resp::integer(&mut connection.output, 3);
                resp::bulk(&mut connection.output, b"modules");
                resp::array(&mut connection.output, 0);
            }
            _ if !is_known => resp::error(out, b"NOAUTH Authentication required."),
            "SELECT" | "CLIENT" => resp::simple(out, "OK"),
            "ROLE" => {
                resp::array(out, 3);
                resp::bulk(out, self.role.as_bytes());
                resp::integer(out, 1);
                resp::array(out, 0);
            }
            "SENTINEL" => match self.master {
                Some((host, port)) => {
                    resp::array(out, 2);
                    resp::bulk(out, host.as_bytes());
                    resp::bulk(out, port.as_bytes());
                }
                None => resp::null(out, Protocol::Resp2),
            },
            "PUBLISH" => self.publish(Some(index), &words[1], &words[2]),
            "SUBSCRIBE" | "PSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE" => {
                self.change(index, &name, &words[1..]);
            }
            "EVAL" if !self.runs_scripts => resp::error(out, b"ERR unknown command 'EVAL'"),
            "EVAL" => match self.script_error {
                Some(error) => resp::error(out, error.as_bytes()),
                None => self.eval(index, &words[1], &words[3], &words[4..]),
            },
            other => panic!("the model has no {other}"),
        }
    }

    fn change(&mut self, index: usize, command: &str, names: &[Vec<u8>]) {
        let connection = &mut self.connections[index];
        if names.iter().any(|name| self.denied.contains(name)) {
            resp::error(&mut connection.output, b"NOPERM No permissions to access a channel");
            return;
        }
        let protocol = connection.protocol();
        for name in names {
            let all = match command.contains("PSUB") || command.contains("PUNSUB") {
                true => &mut connection.patterns,
                false => &mut connection.channels,
            };
            match command.contains("UNSUB") {
                true => all.remove(name),
                false => all.insert(name.clone()),
            };
            let count = connection.channels.len() + connection.patterns.len();
            resp::push(&mut connection.output, 3, protocol);
            resp::bulk(&mut connection.output, command.to_lowercase().as_bytes());
            resp::bulk(&mut connection.output, name);
            resp::integer(&mut connection.output, count as i64);
        }
    }

    /// Publishes for a client of the link, or for another client.
    pub fn publish(&mut self, from: Option<usize>, channel: &[u8], payload: &[u8]) {
        let is_probe = channel.windows(6).any(|part| part == b"probe:");
        if let (Some(error), Some(from), false) = (self.publish_error, from, is_probe) {
            resp::error(&mut self.connections[from].output, error.as_bytes());
            return;
        }
        let receivers = self.deliver(channel, payload);
        if let Some(from) = from {
            resp::integer(&mut self.connections[from].output, receivers);
        }
    }

    /// Delivers a message. Returns the number of receivers.
    fn deliver(&mut self, channel: &[u8], payload: &[u8]) -> i64 {
        let mut receivers = 0;
        for connection in self.connections.iter_mut().filter(|one| one.is_open) {
            if self.is_deaf {
                continue;
            }
            let protocol = connection.protocol();
            if connection.channels.contains(channel) {
                receivers += 1;
                resp::pushed(&mut connection.output, protocol, &[b"message", channel, payload]);
            }
            for pattern in &connection.patterns {
                if glob::matches(pattern, channel, &mut 0) {
                    receivers += 1;
                    let words = [&b"pmessage"[..], pattern, channel, payload];
                    resp::pushed(&mut connection.output, protocol, &words);
                }
            }
        }
        receivers
    }

    /// Runs a script for a client. The arguments are those of `ARGV`.
    fn eval(&mut self, from: usize, script: &[u8], key: &[u8], arguments: &[Vec<u8>]) {
        let [notices, channel, rest @ ..] = arguments else { panic!("two channels") };
        let number = |text: &[u8]| std::str::from_utf8(text).unwrap().parse::<i64>().unwrap();
        let reply = match script {
            scripts::WRITE => {
                let (payload, field, max) = (&rest[0], &rest[1], number(&rest[2]));
                let hash = self.hashes.entry(key.to_vec()).or_default();
                let next = 1 + hash.get(&b"seq"[..]).map_or(0, |text| number(text));
                hash.insert(b"seq".to_vec(), next.to_string().into());
                if max == 0 {
                    hash.remove(field);
                } else {
                    hash.insert(field.clone(), value(next, payload));
                    self.trim(key, notices, field, max);
                }
                self.deliver(notices, &[next.to_string().as_bytes(), &rest[3]].concat());
                self.deliver(channel, payload)
            }
            scripts::ADOPT => {
                let mut count = 0;
                for one in rest[1..].chunks_exact(3) {
                    let (field, least, sign) = (&one[0], number(&one[1]), one[2][0]);
                    let hash = self.hashes.entry(key.to_vec()).or_default();
                    let known = hash.get(field).map(|text| value_of(text).unwrap().0 as i64);
                    let known = known.map_or(-1, |known| known) + i64::from(sign == b'*');
                    if known > least {
                        continue;
                    }
                    count += 1;
                    if sign == b'-' {
                        hash.remove(field);
                    } else {
                        hash.insert(field.clone(), value(least, &one[2][1..]));
                        self.trim(key, notices, field, number(&rest[0]));
                    }
                }
                count
            }
            scripts::OPEN => {
                let hash = self.hashes.entry(key.to_vec()).or_default();
                let before = hash.get(&b"seq"[..]).map_or(0, |text| number(text));
                let is_possible = before < 100_000_000_000_000;
                let (before, own) = (if is_possible { before } else { 0 }, number(&rest[2]));
                let life = hash.get(&b"life"[..]).filter(|_| is_possible);
                let new = |from: i64| [&rest[3], &b":"[..], from.to_string().as_bytes()].concat();
                let life = match life {
                    None => new(0),
                    Some(life) if *life == rest[1] && before < own => new(before + 1),
                    Some(life) => life.clone(),
                };
                let last = before.max(own).to_string().into_bytes();
                hash.insert(b"seq".to_vec(), last.clone());
                hash.insert(b"life".to_vec(), life.clone());
                let notice = [b"=", &rest[0][..], b" ", &life, b" ", &last].concat();
                self.deliver(notices, &notice);
                1
            }
            scripts::NOTIFY => self.deliver(notices, &rest[0]),
            _ => return self.read(from, script, key, rest),
        };
        resp::integer(&mut self.connections[from].output, reply);
    }

    /// Runs a script that changes nothing.
    fn read(&mut self, from: usize, script: &[u8], key: &[u8], rest: &[Vec<u8>]) {
        let hash = self.hashes.get(key).cloned().unwrap_or_default();
        let ModelConnection { output, is_new, .. } = &mut self.connections[from];
        let protocol = if *is_new { Protocol::Resp3 } else { Protocol::Resp2 };
        let is_lost = hash.get(&b"life"[..]) != rest.first();
        match script {
            scripts::READ | scripts::ABSENT if is_lost => {
                resp::array(output, 1);
                resp::integer(output, 0);
            }
            scripts::READ => {
                let number =
                    |text: &[u8]| -> u64 { String::from_utf8_lossy(text).parse().unwrap() };
                let (cursor, count, most) = (number(&rest[1]), number(&rest[2]), number(&rest[3]));
                self.looks.push(count as usize);
                // As in Redis, the order is that of hashes, and fields come and go meanwhile.
                let mut fields: Vec<_> = hash.iter().map(|(field, v)| (place(field), v)).collect();
                fields.sort();
                let mut behind = fields.iter().filter(|(at, _)| *at >= cursor);
                let some: Vec<_> = behind.by_ref().take(count as usize).collect();
                let next = behind.next().map_or(0, |(at, _)| *at);
                let names: BTreeMap<u64, &Vec<u8>> = hash.keys().map(|f| (place(f), f)).collect();
                let shown: Vec<_> = some
                    .iter()
                    .map(|(at, value)| (names[at], *value))
                    .filter(|(field, _)| *field != b"seq" && *field != b"life")
                    .collect();
                resp::array(output, 3 + 2 * shown.len());
                resp::integer(output, 1);
                resp::bulk(output, next.to_string().as_bytes());
                resp::integer(output, hash.len() as i64 - 2);
                let mut size = 0;
                for (field, value) in shown {
                    resp::bulk(output, field);
                    let fits = size + field.len() + value.len() <= most as usize;
                    size += if fits { field.len() + value.len() } else { 0 };
                    if fits { resp::bulk(output, value) } else { resp::null(output, protocol) }
                }
            }
            scripts::FETCH => match hash.get(&rest[0]) {
                Some(value) => resp::bulk(output, value),
                None => resp::null(output, protocol),
            },
            scripts::ABSENT => {
                let absent: Vec<_> = rest[1..].iter().filter(|f| !hash.contains_key(*f)).collect();
                resp::array(output, 1 + absent.len());
                resp::integer(output, 1);
                absent.iter().for_each(|field| resp::bulk(output, field));
            }
            _ => panic!("the model does not know the script"),
        }
    }

    /// Removes the oldest value if there are too many.
    fn trim(&mut self, key: &[u8], notices: &[u8], own: &[u8], max: i64) {
        let Some(hash) = self.hashes.get_mut(key) else { return };
        let numbers = hash.iter().filter_map(|(field, text)| Some((value_of(text)?.0, field)));
        let oldest = numbers.filter(|(_, field)| **field != own).min();
        let oldest = oldest.map(|(_, field)| field.clone());
        if let Some(field) = oldest.filter(|_| hash.len() as i64 - 2 > max) {
            hash.remove(&field);
            self.deliver(notices, &[b"-", &field[..]].concat());
        }
    }

    /// Returns the messages of a hash by field.
    pub fn values(&self, key: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let hash = self.hashes.get(key).into_iter().flatten();
        let values = hash.filter_map(|(field, text)| Some((field, value_of(text)?.1)));
        values.map(|(field, payload)| (field.clone(), payload.to_vec())).collect()
    }
}

fn value(number: i64, payload: &[u8]) -> Vec<u8> {
    [number.to_string().as_bytes(), b" ", payload].concat()
}

/// Returns the place of a field in the order of HSCAN.
fn place(field: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    field.iter().fold(0xcbf2_9ce4_8422_2325, mix).max(1)
}
