//! `fanout`: subscribes connections to one channel, publishes to it, and checks each delivery.
//!
//! This shape parses all replies itself. A subscriber of RESP gets the confirmation of SUBSCRIBE,
//! then messages. One of Socket.IO joins by an event, and gets its acknowledgement first. One of
//! WebSocket or of events is subscribed as soon as it is open. The publisher gets an answer to each
//! publish, in order; only that of WebSocket gets none.

use std::collections::VecDeque;
use std::time::Duration;

use super::Shape;
use crate::clock::{Clock, Time};
use crate::net::Net;
use crate::report::figures::rate;
use crate::stress::answer::WRONG;
use crate::stress::dialer::Dialer;
use crate::stress::meter::Reading;
use crate::stress::pace::{Next, Pace, earliest};
use crate::stress::plan::Plan;
use crate::stress::record::{Delivery, Record};
use crate::stress::resp::command;
use crate::stress::target::Scheme;
use crate::stress::wire::payload;
use crate::stress::world::{PeerFlags, StressDial, World};

const SUBSCRIBER: u8 = 0;
const PUBLISHER: u8 = 1;

/// The first bytes of a message. The number of the run follows, which distinguishes the message
/// from those of other publishers, then the number of the message and the moment it was due. Each
/// number has 16 hexadecimal digits.
const MARK: &str = "slabd:";
const DIGITS: usize = 16;
const HEAD: usize = MARK.len() + 3 * DIGITS;

/// The shape `fanout`.
pub struct FanoutShape {
    plan: Plan,
    subscribers: Dialer,
    publisher: Dialer,
    subscribe: Vec<u8>,
    /// Slot of the publisher while it is open.
    publishes: Option<u32>,
    /// `MARK` and the number of the run.
    mark: Vec<u8>,
    padding: Vec<u8>,
    pace: Option<Pace>,
    /// True once the server's memory has been asked for. It is read before the load begins.
    asked_memory: bool,
    subscribed: u64,
    published: u64,
    /// True once all messages are published or the duration has passed.
    is_published: bool,
    until: Time,
    delivery: Delivery,
    /// Moments at which the unanswered publishes were due.
    unanswered: VecDeque<Time>,
    /// Moment of the last delivery, or of a publish after all earlier messages had arrived.
    progress: Time,
}

impl FanoutShape {
    pub fn new(plan: &Plan, now: Time) -> FanoutShape {
        FanoutShape {
            subscribers: Dialer::once(
                SUBSCRIBER,
                StressDial::default(),
                plan.connections,
                plan.connect_rate,
                now,
            ),
            publisher: Dialer::once(
                PUBLISHER,
                StressDial {
                    http: plan.publish.as_ref().map(|target| target.address),
                    ..StressDial::default()
                },
                1,
                None,
                now,
            ),
            subscribe: command(&[b"SUBSCRIBE", plan.channel.as_bytes()]),
            publishes: None,
            mark: format!("{MARK}{:016x}", Clock::unix_time().as_nanos() as u64).into_bytes(),
            padding: payload(plan.size.saturating_sub(HEAD).max(1)),
            pace: None,
            asked_memory: false,
            subscribed: 0,
            published: 0,
            is_published: false,
            until: now,
            delivery: Delivery::default(),
            unanswered: VecDeque::new(),
            progress: now,
            plan: plan.clone(),
        }
    }

    fn begin<N: Net>(&mut self, world: &mut World<N>) {
        let meter = &mut world.meter;
        meter.begin_load(world.now);
        self.pace = self
            .plan
            .rate
            .map(|rate| Pace::new(rate, self.plan.arrivals, self.plan.seed, world.now));
        self.progress = world.now;
        self.until = world.now + self.plan.duration;
    }

    fn publish<N: Net>(&mut self, world: &mut World<N>, publisher: u32, due: Time) {
        if self.is_quiet() {
            self.progress = world.now;
        }
        self.published += 1;
        self.delivery.expected += self.subscribed;
        let mut text = self.mark.clone();
        text.extend_from_slice(
            format!("{:016x}{:016x}", self.published, due.as_nanos()).as_bytes(),
        );
        text.extend_from_slice(&self.padding);
        if self.is_answered() {
            self.unanswered.push_back(due);
            world.meter.sent += 1;
        }
        if let Some(packet) = world.wire.socketio().map(|form| form.publish(&text)) {
            return world.emit(publisher, &packet, 0);
        }
        let request = match (world.wire.websocket(), &self.plan.publish) {
            (Some(form), _) => form.message(&text),
            (_, Some(target)) => self.plan.request.publish(target, &text),
            _ => command(&[b"PUBLISH", self.plan.channel.as_bytes(), &text]),
        };
        world.send(publisher, &request, 0, due);
    }

    /// True if the server answers a publish.
    fn is_answered(&self) -> bool {
        self.plan.target.scheme != Scheme::WebSocket
    }

    /// True if no publish and no delivery is outstanding.
    fn is_quiet(&self) -> bool {
        self.unanswered.is_empty() && self.delivery.delivered >= self.delivery.expected
    }

    /// Publishes the messages that are due, or that the limit of messages in flight allows.
    fn publish_due<N: Net>(&mut self, world: &mut World<N>, publisher: u32) -> Next {
        while !self.is_published {
            if self.published >= self.plan.messages || world.now >= self.until {
                self.is_published = true;
                break;
            }
            let mut arrived = self.delivery.delivered / self.subscribed.max(1);
            if self.plan.publish.is_some() {
                // A server that closes the connection after an answer ignores what follows.
                arrived = arrived.min(self.published - self.unanswered.len() as u64);
            }
            let due = match &mut self.pace {
                Some(pace) if pace.next() > world.now => {
                    return earliest([Next::At(pace.next()), Next::At(self.until)]);
                }
                Some(pace) => pace.take(),
                None if self.published >= arrived + self.plan.in_flight as u64 => {
                    return Next::At(self.until);
                }
                None => world.now,
            };
            self.publish(world, publisher, due);
        }
        Next::OnEvent
    }

    /// Takes the answer to a publish: the number of receivers, or an error.
    fn take_answer<N: Net>(&mut self, world: &mut World<N>, answer: &[u8], is_error: bool) {
        let Some(due) = self.unanswered.pop_front() else {
            return world.meter.error(WRONG, 1);
        };
        if is_error {
            world.meter.refused(answer);
            // The server delivered the message to no subscriber.
            self.delivery.expected = self.delivery.expected.saturating_sub(self.subscribed);
            return;
        }
        world.meter.answered += 1;
        world.meter.latency.record(world.now.since(due), 1);
    }

    /// Takes the answer to SUBSCRIBE. Returns false and closes the connection if it is an error or
    /// another reply.
    fn take_confirmation<N: Net>(
        &mut self,
        world: &mut World<N>,
        slot: u32,
        answer: &[u8],
        is_error: bool,
    ) -> bool {
        if is_error {
            world.meter.refused(answer);
            world.meter.fail("not subscribed");
        } else if self.is_confirmation(answer) {
            world.settle(slot);
            self.subscribed += 1;
            return true;
        } else {
            world.meter.error(WRONG, 1);
        }
        world.settle(slot);
        world.close(slot);
        false
    }

    /// True for the answer to a subscription. A client of Socket.IO gets no messages before.
    fn is_confirmation(&self, answer: &[u8]) -> bool {
        self.plan.target.scheme == Scheme::SocketIo
            || memchr::memmem::find(answer, b"\r\nsubscribe\r\n").is_some()
    }

    fn is_complete(&self) -> bool {
        self.is_published && self.is_quiet()
    }

    fn end<N: Net>(&mut self, world: &mut World<N>) -> Next {
        let meter = &mut world.meter;
        meter.error("unanswered at the end", self.unanswered.len() as u64);
        self.unanswered.clear();
        meter.end_load(self.progress);
        Next::Done
    }
}

impl<N: Net> Shape<N> for FanoutShape {
    fn act(&mut self, world: &mut World<N>) -> Next {
        if world.meter.load_began.is_none() {
            let dialing = self.subscribers.act(world, world.outstanding);
            if self.subscribers.left() > 0 || world.meter.connecting > 0 || world.outstanding > 0 {
                return dialing;
            }
            if self.subscribed == 0 {
                return Next::Done;
            }
            match self.publishes {
                None if self.publisher.left() > 0 => return self.publisher.act(world, 0),
                // The publisher could not connect.
                None => return Next::Done,
                Some(_) if !self.asked_memory => {
                    self.asked_memory = true;
                    world.meter.wants_memory = Some(Reading::Highest);
                    return Next::At(world.now);
                }
                Some(_) => self.begin(world),
            }
        }
        let Some(publisher) = self.publishes else {
            self.publisher.act(world, 0);
            return match world.meter.connecting {
                0 => self.end(world),
                _ => Next::OnEvent,
            };
        };
        let publishing = self.publish_due(world, publisher);
        if self.is_complete() {
            return self.end(world);
        }
        if self.is_quiet() {
            return publishing;
        }
        let gives_up = self.progress + self.plan.timeout;
        if world.now >= gives_up {
            return self.end(world);
        }
        earliest([publishing, Next::At(gives_up)])
    }

    fn opened(&mut self, world: &mut World<N>, slot: u32) {
        let peer = &mut world.peers[slot as usize];
        peer.flags.set(PeerFlags::LISTENS);
        match peer.role {
            SUBSCRIBER => {
                let now = world.now;
                match (self.plan.target.scheme, world.wire.socketio()) {
                    (Scheme::Resp, _) => world.send(slot, &self.subscribe, 1, now),
                    (_, Some(form)) => {
                        let packet = form.subscribe();
                        world.emit(slot, &packet, 1);
                    }
                    _ => {
                        self.subscribed += 1;
                        return;
                    }
                }
                world.meter.sent -= 1;
            }
            _ => self.publishes = Some(slot),
        }
    }

    fn message(&mut self, world: &mut World<N>, slot: u32, message: &[u8], is_error: bool) -> bool {
        let peer = &mut world.peers[slot as usize];
        if peer.role == PUBLISHER {
            // Over WebSocket, a publisher gets its own messages.
            if self.is_answered() {
                self.take_answer(world, message, is_error);
            }
            return true;
        }
        if peer.outstanding > 0 {
            return self.take_confirmation(world, slot, message, is_error);
        }
        if is_error {
            world.meter.refused(message);
            return true;
        }
        // Other publishers may use the channel too.
        let Some(at) = memchr::memmem::find(message, &self.mark) else { return true };
        let number = |index: usize| {
            let from = at + self.mark.len() + index * DIGITS;
            u64::from_str_radix(std::str::from_utf8(message.get(from..from + DIGITS)?).ok()?, 16)
                .ok()
        };
        let (Some(serial), Some(due)) = (number(0), number(1)) else {
            world.meter.error(WRONG, 1);
            return true;
        };
        if serial as u32 <= peer.serial {
            self.delivery.out_of_order += 1;
        } else {
            peer.serial = serial as u32;
        }
        self.delivery.delivered += 1;
        self.progress = world.now;
        world.meter.delivery_latency.record(world.now.since(Time::from_nanos(due)), 1);
        true
    }

    fn ended(&mut self, world: &mut World<N>, slot: u32) {
        let peer = &world.peers[slot as usize];
        if peer.role == PUBLISHER {
            // An HTTP server may close a connection after some requests.
            let is_in_order = self.publishes.take().is_some() && self.unanswered.is_empty();
            if self.plan.publish.is_some() && is_in_order && !self.is_published {
                self.publisher.more();
            }
        } else if peer.flags.has(PeerFlags::LISTENS) && peer.outstanding == 0 {
            // Its pending messages are lost. Later messages do not expect this subscriber.
            self.subscribed = self.subscribed.saturating_sub(1);
        }
    }

    fn finish(&mut self, world: &mut World<N>, record: &mut Record) {
        let meter = &mut world.meter;
        let load = meter
            .load_ended
            .zip(meter.load_began)
            .map_or(Duration::ZERO, |(end, start)| end.since(start));
        self.delivery.subscribers = self.subscribed;
        self.delivery.published = self.published;
        self.delivery.lost = self.delivery.expected.saturating_sub(self.delivery.delivered);
        self.delivery.latency = meter.delivery_latency.summary(true);
        if !load.is_zero() {
            let each = self.delivery.delivered as f64 / load.as_secs_f64();
            record.notes.push(format!("deliveries: {}", rate(each)));
        }
        if self.published < self.plan.messages {
            let left = self.plan.messages - self.published;
            record.notes.push(format!("the run ended before {left} messages were published"));
        }
        record.delivery = Some(self.delivery.clone());
    }
}
