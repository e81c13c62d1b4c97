//! The far side that the loop dials: names with their addresses, and addresses that answer dials.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::connection::{Segment, Side};
use super::{ClientId, SimNet};
use crate::clock::Time;
use crate::net::Ready;
use crate::token::Token;

/// How an address answers the loop's connection attempts. One that is not told to answer is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialAnswer {
    Accepts,
    /// ECONNREFUSED.
    Refuses,
}

/// A name that answers after some time. Without addresses, the answer is that it is not known.
struct SimName {
    addresses: Vec<IpAddr>,
    /// `None`: the name never answers.
    after: Option<Duration>,
}

/// The number of a look-up, and its addresses or an error.
type NameAnswer = (u32, io::Result<Vec<SocketAddr>>);

/// The names and the addresses, and what is under way to the loop.
#[derive(Default)]
pub(super) struct Dialled {
    names: BTreeMap<String, SimName>,
    look_ups: BTreeMap<(Time, u64), NameAnswer>,
    look_ups_begun: u64,
    answers: VecDeque<NameAnswer>,
    /// True until the next poll reports the answers.
    edge: bool,
    addresses: BTreeMap<SocketAddr, DialAnswer>,
    accepted: Vec<(SocketAddr, ClientId)>,
}

impl Dialled {
    pub(super) fn take_answer(&mut self) -> Option<NameAnswer> {
        self.answers.pop_front()
    }

    /// Returns the event that announces answers, once.
    pub(super) fn report(&mut self) -> Option<Ready> {
        let token = Token::RESOLVED;
        let event = Ready { token, readable: true, writable: false, read_on: false };
        std::mem::take(&mut self.edge).then_some(event)
    }
}

/// The far side of dials, for tests that play a server which the loop connects to.
impl SimNet {
    /// Gives a name these addresses. A look-up is answered `after` it began. Without addresses, the
    /// name is not known, as any other name.
    pub fn add_name(&mut self, name: &str, addresses: &[IpAddr], after: Duration) {
        let known = SimName { addresses: addresses.to_vec(), after: Some(after) };
        self.dialled.names.insert(name.into(), known);
    }

    /// Makes look-ups of a name hang for ever.
    pub fn add_silent_name(&mut self, name: &str) {
        self.dialled.names.insert(name.into(), SimName { addresses: Vec::new(), after: None });
    }

    /// Sets how `address` answers connection attempts from now on. With `None` they hang, unless
    /// [`Self::accept_connect`] or [`Self::refuse_connect`] answers them.
    pub fn answer_dials(&mut self, address: SocketAddr, answer: Option<DialAnswer>) {
        match answer {
            Some(answer) => self.dialled.addresses.insert(address, answer),
            None => self.dialled.addresses.remove(&address),
        };
    }

    /// Returns the next connection that `address` has accepted as [`Self::answer_dials`] told it.
    pub fn accepted_dial(&mut self, address: SocketAddr) -> Option<ClientId> {
        let accepted = &mut self.dialled.accepted;
        let index = accepted.iter().position(|&(to, _)| to == address)?;
        Some(accepted.remove(index).1)
    }

    /// Returns the number of look-ups that the loop has begun.
    pub fn look_ups_begun(&self) -> u64 {
        self.dialled.look_ups_begun
    }
}

impl SimNet {
    pub(super) fn look_up(&mut self, number: u32, host: &str, port: u16) {
        self.note("looks up", number, i64::from(port));
        self.dialled.look_ups_begun += 1;
        let (addresses, after) = match self.dialled.names.get(host) {
            Some(SimName { after: None, .. }) => return,
            Some(SimName { addresses, after: Some(after) }) => (addresses.as_slice(), *after),
            None => (&[][..], Duration::ZERO),
        };
        let found = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let answer = match addresses {
            [] => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(found),
        };
        let key = (self.now + after, self.dialled.look_ups_begun);
        self.dialled.look_ups.insert(key, (number, answer));
    }

    /// Hands over the answers of the look-ups that are due.
    pub(super) fn answer_look_ups(&mut self) {
        while let Some(first) = self.dialled.look_ups.first_entry()
            && first.key().0 <= self.now
        {
            let answer = first.remove();
            self.note("name answered", answer.0, 0);
            self.dialled.answers.push_back(answer);
            self.dialled.edge = true;
        }
    }

    /// Returns when the next segment or answer arrives.
    pub(super) fn next_arrival(&self) -> Option<Time> {
        let segment = self.arrivals.first_key_value().map(|(&(at, _), _)| at);
        let answer = self.dialled.look_ups.first_key_value().map(|(&(at, _), _)| at);
        segment.into_iter().chain(answer).min()
    }

    /// Sends the answer of `address` to a connection attempt on its way.
    pub(super) fn answer_dial(&mut self, address: SocketAddr, client: ClientId) {
        if let Some(answer) = self.dialled.addresses.get(&address) {
            let accepts = *answer == DialAnswer::Accepts;
            self.post(client, Segment::Answer(accepts));
        }
    }

    /// Lets the answer of an address arrive.
    pub(super) fn dial_is_answered(&mut self, client: ClientId, accepts: bool) {
        let address = self.answer_arrives(client, accepts);
        self.dialled.accepted.extend(address.filter(|_| accepts).map(|address| (address, client)));
    }

    /// Lets the answer to a connection attempt arrive, and returns the address. Returns `None` if
    /// the loop has given up meanwhile.
    pub(super) fn answer_arrives(&mut self, client: ClientId, accepts: bool) -> Option<SocketAddr> {
        let index = self.connecting.iter().position(|&(_, own)| own == client)?;
        let (address, _) = self.connecting.remove(index);
        let Side::Connecting(file) = self.connection(client).side else { return None };
        let connection = self.connection_mut(client);
        connection.side = Side::Open(file);
        if !accepts {
            connection.client_gone = true;
            connection.refuse();
        }
        self.wake(file);
        Some(address)
    }
}
