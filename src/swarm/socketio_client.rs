//! An honest Socket.IO client of the hub. It begins with polls or with a WebSocket, and may upgrade
//! from one to the other as the official client does. It uses the built-in verbs and knows the
//! answer to each of its packets. Messages to its rooms come in between, and the
//! [board](super::board) judges them.

mod packets;
mod streams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use serde_json::json;

use super::board::{TOPICS, TopicIndex, TopicKind, topics_of};
use super::{HonestClient, PASSWORD, Scene, Violation};
use crate::net::sim::ClientId;
use streams::{PollStream, WebStream};

/// The answer to a packet. Answers come in the order of their packets.
#[derive(Debug)]
enum ExpectedPacket {
    Connected,
    /// The password was missing.
    ConnectError,
    InvalidNamespace,
    /// The acknowledgement of a publish: its number, and the message.
    Receivers(u32, u32),
    /// The acknowledgement of an event that is none of the verbs.
    Error(u32),
    Subscribed {
        ack: u32,
        topics: Vec<TopicIndex>,
        windows: Vec<usize>,
    },
    Unsubscribed {
        ack: u32,
        topic: TopicIndex,
        window: Option<usize>,
    },
}

/// What the client has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientStage {
    Fresh,
    /// It waits for the packet that opens its session.
    Opening,
    /// It has sent CONNECT.
    Connecting,
    Connected,
    /// It is in no namespace.
    Apart,
    /// It has sent its last packet.
    Finished,
}

/// How far an upgrade to WebSocket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    None,
    Probing,
    /// The server has answered the probe. The client ends its requests first.
    Pausing,
}

enum OutPacket {
    Text(String),
    Binary(Vec<u8>),
}

/// An honest Socket.IO client.
pub struct SocketIoClient {
    /// Its number on the board.
    number: u32,
    /// Maximum number of bytes that the client receives at a time.
    appetite: usize,
    server: SocketAddr,
    /// The address of its latest connection.
    source: SocketAddr,
    /// Its streams. Without an upgrade under way, it has either a WebSocket or the others.
    poll: Option<PollStream>,
    post: Option<PollStream>,
    websocket: Option<WebStream>,
    is_polling: bool,
    upgrade: Upgrade,
    sid: String,
    stage: ClientStage,
    has_password: bool,
    /// Packets that wait for the end of a request, or of an upgrade.
    outgoing: Vec<OutPacket>,
    subscriptions: BTreeMap<TopicIndex, usize>,
    acks: u32,
    // The state after what was received.
    expected: VecDeque<ExpectedPacket>,
    confirmed: BTreeSet<TopicIndex>,
    /// Number of answers that the client must have by the end of a drain.
    due: usize,
    /// Number of times in a row that nothing came.
    quiet: u32,
    /// True once the client or the server has ended the session.
    is_cut: bool,
    /// True once the client cannot connect any more.
    is_lost: bool,
    /// The stream whose end is the end of the session.
    last: Option<ClientId>,
}

impl SocketIoClient {
    pub fn new(
        id: ClientId,
        (server, source): (SocketAddr, SocketAddr),
        number: u32,
        appetite: usize,
        random: &mut fastrand::Rng,
    ) -> SocketIoClient {
        let is_polling = random.bool();
        SocketIoClient {
            number,
            appetite,
            server,
            source,
            poll: is_polling.then(|| PollStream::new(id)),
            post: None,
            websocket: (!is_polling).then(|| WebStream::new(id)),
            is_polling,
            upgrade: Upgrade::None,
            sid: String::new(),
            stage: ClientStage::Fresh,
            has_password: false,
            outgoing: Vec::new(),
            subscriptions: BTreeMap::new(),
            acks: 0,
            expected: VecDeque::new(),
            confirmed: BTreeSet::new(),
            due: 0,
            quiet: 0,
            is_cut: false,
            is_lost: false,
            last: None,
        }
    }

    /// Adds a packet to those that `flush` sends.
    fn put(&mut self, text: String) {
        self.outgoing.push(OutPacket::Text(text));
    }

    /// Adds the packet that connects to the namespace.
    fn connect(&mut self, scene: &mut Scene<'_>) {
        self.stage = ClientStage::Connecting;
        // In a fair seed the client authenticates first, because the loop must not close it.
        let says = scene.plan.is_fair || scene.random.u8(0..3) > 0;
        if scene.plan.has_password && !self.has_password && !says {
            self.put("40".into());
            self.expected.push_back(ExpectedPacket::ConnectError);
            return;
        }
        self.has_password = true;
        let key = ["password", "token"][scene.random.usize(..2)];
        self.put(format!("40{}", json!({key: PASSWORD})));
        self.expected.push_back(ExpectedPacket::Connected);
    }

    /// Adds one random packet.
    fn command(&mut self, scene: &mut Scene<'_>) {
        self.acks += 1;
        let ack = self.acks;
        match scene.random.u8(0..20) {
            0 => {
                self.put("40/nowhere,".into());
                self.expected.push_back(ExpectedPacket::InvalidNamespace);
            }
            1 => {
                self.put(format!("42{ack}[\"nonsense\",1,{{}}]"));
                self.expected.push_back(ExpectedPacket::Error(ack));
            }
            2..7 => self.subscribe(scene, ack),
            7..10 => self.unsubscribe(scene, ack),
            _ => self.publish(scene, ack),
        }
    }

    fn subscribe(&mut self, scene: &mut Scene<'_>, ack: u32) {
        let topics: Vec<TopicIndex> =
            (0..scene.random.usize(1..4)).map(|_| channel(scene.random)).collect();
        let mut windows = Vec::new();
        for topic in &topics {
            if !self.subscriptions.contains_key(topic) {
                let window = scene.board.subscribe(self.number, *topic);
                self.subscriptions.insert(*topic, window);
                windows.push(window);
            }
        }
        let names: Vec<&str> = topics.iter().map(|topic| TOPICS[*topic as usize].1).collect();
        let mut event = vec!["subscribe"];
        event.extend(names);
        self.put(format!("42{ack}{}", json!(event)));
        self.expected.push_back(ExpectedPacket::Subscribed { ack, topics, windows });
    }

    fn unsubscribe(&mut self, scene: &mut Scene<'_>, ack: u32) {
        let topic = channel(scene.random);
        let window = self.subscriptions.remove(&topic);
        if let Some(window) = window {
            let now = scene.board.tick();
            scene.board.windows[window].leaving.get_or_insert(now);
        }
        self.put(format!("42{ack}{}", json!(["unsubscribe", TOPICS[topic as usize].1])));
        self.expected.push_back(ExpectedPacket::Unsubscribed { ack, topic, window });
    }

    /// Adds a publish: as text or as an attachment, with an acknowledgement or without.
    fn publish(&mut self, scene: &mut Scene<'_>, ack: u32) {
        let topic = channel(scene.random);
        let length = scene.random.usize(..=scene.plan.payload_max);
        let message = scene.board.publish(self.number, topic, length, false);
        let payload = scene.board.payload(message);
        let name = TOPICS[topic as usize].1;
        let id = match scene.random.u8(0..4) {
            0 => String::new(),
            _ => {
                self.expected.push_back(ExpectedPacket::Receivers(ack, message));
                ack.to_string()
            }
        };
        if scene.random.u8(0..4) > 0 {
            let text = String::from_utf8_lossy(&payload);
            return self.put(format!("42{id}{}", json!(["publish", name, text])));
        }
        let data = json!(["publish", name, {"_placeholder": true, "num": 0}]);
        self.put(format!("451-{id}{data}"));
        self.outgoing.push(OutPacket::Binary(payload));
    }

    /// Leaves the namespace, and can connect to it again.
    fn disconnect(&mut self, scene: &mut Scene<'_>) {
        self.put("41".into());
        self.stage = ClientStage::Apart;
        self.subscriptions.clear();
        scene.board.leave(self.number);
        scene.board.cut(self.number);
    }

    /// Ends the session. The packet is the last one.
    fn finish(&mut self, scene: &mut Scene<'_>) {
        self.disconnect(scene);
        self.put("1".into());
        self.stage = ClientStage::Finished;
        self.expected.clear();
    }

    /// Notes that the session has ended, so messages under way are lost.
    fn cut(&mut self, scene: &mut Scene<'_>) {
        scene.board.cut(self.number);
        self.close(scene);
    }

    /// Closes all streams.
    fn close(&mut self, scene: &mut Scene<'_>) {
        self.is_cut = true;
        for id in self.ids() {
            scene.net.client_close(id);
        }
        // The end of a client is known only if it surely has a WebSocket. The packet that ends an
        // upgrade may be lost with its stream, and the loop then goes on waiting for polls.
        self.last = self.websocket.as_ref().filter(|web| web.has_spoken).map(|web| web.id);
        (self.poll, self.post, self.websocket) = (None, None, None);
    }
}

impl HonestClient for SocketIoClient {
    fn ids(&self) -> Vec<ClientId> {
        let polls = [&self.poll, &self.post].into_iter().flatten().map(|stream| stream.id);
        polls.chain(self.websocket.as_ref().map(|stream| stream.id)).collect()
    }

    fn set_appetite(&mut self, bytes: usize) {
        self.appetite = bytes;
    }

    /// Opens the session, or sends some random packets at once. Sometimes begins an upgrade, leaves
    /// the namespace, or ends the session.
    fn act(&mut self, scene: &mut Scene<'_>) {
        if self.is_cut {
            return;
        }
        match self.stage {
            ClientStage::Fresh => self.open(scene),
            ClientStage::Opening | ClientStage::Connecting | ClientStage::Finished => return,
            ClientStage::Apart => self.connect(scene),
            ClientStage::Connected => {
                (0..scene.random.usize(1..=scene.plan.pipeline_max))
                    .for_each(|_| self.command(scene));
                match scene.random.u8(..) {
                    0..4 => self.finish(scene),
                    4..12 => self.disconnect(scene),
                    12..50 => self.begin_upgrade(scene),
                    _ => {}
                }
            }
        }
        scene.board.tick();
        self.flush(scene);
    }

    fn receive(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        if self.is_cut {
            if self.last.is_some_and(|id| !scene.net.is_served(id)) {
                self.last = None;
                scene.board.gone(self.number);
            }
            return Ok(());
        }
        self.quiet += 1;
        scene.board.tick();
        self.take_polls(scene)?;
        self.take_posts(scene)?;
        self.take_frames(scene)?;
        if !self.is_cut {
            self.go_on(scene);
        }
        if self.is_lost {
            self.cut(scene);
        }
        Ok(())
    }

    fn leave(&mut self, scene: &mut Scene<'_>) {
        if !self.is_cut && scene.random.bool() {
            self.ids().into_iter().for_each(|id| scene.net.client_reset(id));
        }
        self.cut(scene);
    }

    /// Notes the start of a drain. The loop must answer all that has arrived by now, if the client
    /// has a WebSocket. The output of polls may be lost, also in the middle of an upgrade.
    fn drain_begins(&mut self, scene: &mut Scene<'_>) {
        let websocket = self.websocket.as_ref().filter(|stream| stream.has_spoken);
        match websocket {
            None => scene.board.cut(self.number),
            Some(stream) if scene.all_has_arrived(stream.id) => self.due = self.expected.len(),
            Some(_) => {}
        }
    }

    fn is_satisfied(&self) -> bool {
        let is_settled =
            matches!(self.stage, ClientStage::Fresh | ClientStage::Connected | ClientStage::Apart);
        self.is_cut
            || is_settled
                && self.expected.is_empty()
                && self.outgoing.is_empty()
                && self.upgrade == Upgrade::None
    }

    /// True if nothing is under way to the client, also in no poll.
    fn is_quiet(&self) -> bool {
        self.is_cut || self.stage == ClientStage::Fresh || self.quiet > 2
    }

    fn is_over(&self) -> bool {
        self.is_cut && self.last.is_none()
    }

    fn waits_for(&self) -> String {
        format!(
            "Socket.IO client {} ({:?}, upgrade {:?}) waits for {:?}, has {} packets to send, and \
             streams {:?}",
            self.number,
            self.stage,
            self.upgrade,
            self.expected.front(),
            self.outgoing.len(),
            self.ids()
        )
    }
}

/// Returns a random channel. Two of them are popular, so some messages have many receivers.
fn channel(random: &mut fastrand::Rng) -> TopicIndex {
    let channels = topics_of(TopicKind::Channel).count() as u8;
    if random.bool() { random.u8(..2) } else { random.u8(..channels) }
}
