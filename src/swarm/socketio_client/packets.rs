//! Checks what an honest Socket.IO client receives: compares answers with the expected ones, and
//! notes messages on the board.

use serde_json::{Value, json};

use super::super::board::{TOPICS, TopicKind, topics_of};
use super::super::{HonestClient, Scene, Violation, ensure};
use super::{ClientStage, ExpectedPacket, SocketIoClient};
use crate::codec::engineio::PacketType;
use crate::codec::socketio::{self, PacketKind, SocketPacket};

impl SocketIoClient {
    /// Takes one packet of Engine.IO.
    pub fn take_packet(
        &mut self,
        kind: PacketType,
        data: &[u8],
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let wrong = |client: &Self| {
            let shown = data.escape_ascii();
            let text = format!("was sent {kind:?} \"{shown}\"; {}", client.waits_for());
            Err(Violation::from(text))
        };
        match kind {
            PacketType::Open if self.stage == ClientStage::Opening => self.take_open(data, scene),
            PacketType::Ping if data.is_empty() => {
                self.put("3".into());
                self.flush(scene);
                Ok(())
            }
            PacketType::Noop if self.is_polling => Ok(()),
            PacketType::Close if data.is_empty() => {
                let is_due =
                    self.stage == ClientStage::Finished || scene.is_draining || !scene.plan.is_fair;
                if !is_due {
                    return wrong(self);
                }
                self.cut(scene);
                Ok(())
            }
            PacketType::Message => match socketio::parse(data) {
                Ok(packet) => self.take_socket_packet(&packet, scene),
                Err(_) => wrong(self),
            },
            _ => wrong(self),
        }
    }

    fn take_open(&mut self, data: &[u8], scene: &mut Scene<'_>) -> Result<(), Violation> {
        let open: Value = serde_json::from_slice(data).unwrap_or_default();
        let upgrades = if self.is_polling { json!(["websocket"]) } else { json!([]) };
        let limits = &scene.plan.limits;
        self.sid = open["sid"].as_str().unwrap_or_default().to_string();
        let is_right = open.as_object().is_some_and(|keys| keys.len() == 5)
            && self.sid.len() == 20
            && open["upgrades"] == upgrades
            && open["pingInterval"] == json!(limits.socketio_ping_interval.as_millis() as u64)
            && open["pingTimeout"] == json!(limits.socketio_ping_timeout.as_millis() as u64)
            && open["maxPayload"].as_u64().is_some_and(|bytes| bytes > 0);
        ensure(is_right, || format!("client {} was opened with {open}", self.number))?;
        self.connect(scene);
        self.flush(scene);
        Ok(())
    }

    fn take_socket_packet(
        &mut self,
        packet: &SocketPacket<'_>,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        if self.stage == ClientStage::Finished {
            return Ok(());
        }
        let data: Value = serde_json::from_slice(packet.data).unwrap_or_default();
        if packet.kind == PacketKind::Event {
            return self.take_event(&data, scene);
        }
        self.due = self.due.saturating_sub(1);
        let Some(expected) = self.expected.pop_front() else {
            return Err(format!("client {} was sent {packet:?} unasked", self.number).into());
        };
        let found = (packet.kind, packet.namespace, packet.id.map(|id| id as u32));
        let ack = |ack: &u32| found == (PacketKind::Ack, "/", Some(*ack));
        let names = |topics: &[u8]| -> Vec<&str> {
            topics.iter().map(|topic| TOPICS[*topic as usize].1).collect()
        };
        let is_right = match &expected {
            ExpectedPacket::Connected => {
                let sid = data["sid"].as_str().unwrap_or_default();
                found == (PacketKind::Connect, "/", None) && sid.len() == 20 && sid != self.sid
            }
            ExpectedPacket::ConnectError => {
                found == (PacketKind::ConnectError, "/", None) && data["message"].is_string()
            }
            ExpectedPacket::InvalidNamespace => {
                found == (PacketKind::ConnectError, "/nowhere", None)
                    && data == json!({"message": "Invalid namespace"})
            }
            ExpectedPacket::Error(number) => ack(number) && data[0]["error"].is_string(),
            ExpectedPacket::Receivers(number, message) => {
                let channel = scene.board.publishes[*message as usize].channel;
                ack(number)
                    && data[0]["published"] == json!(TOPICS[channel as usize].1)
                    && data[0]["receivers"].is_u64()
            }
            ExpectedPacket::Subscribed { ack: number, topics, .. } => {
                ack(number) && data == json!([{"subscribed": names(topics)}])
            }
            ExpectedPacket::Unsubscribed { ack: number, topic, .. } => {
                ack(number) && data == json!([{"unsubscribed": names(&[*topic])}])
            }
        };
        ensure(is_right, || {
            format!("client {} received {packet:?} instead of {expected:?}", self.number)
        })?;
        self.settle(expected, &data, scene);
        Ok(())
    }

    /// Applies the effect of an answer.
    fn settle(&mut self, expected: ExpectedPacket, data: &Value, scene: &mut Scene<'_>) {
        match expected {
            ExpectedPacket::Connected => {
                // The subscriptions of an earlier connect have ended.
                self.confirmed.clear();
                scene.board.gone(self.number);
                scene.board.sockets += 1;
                self.stage = ClientStage::Connected;
            }
            ExpectedPacket::ConnectError => self.stage = ClientStage::Apart,
            ExpectedPacket::InvalidNamespace | ExpectedPacket::Error(_) => {}
            ExpectedPacket::Receivers(_, message) => {
                scene.board.answered(message, data[0]["receivers"].as_i64().unwrap_or(-1));
            }
            ExpectedPacket::Subscribed { topics, windows, .. } => {
                self.confirmed.extend(topics);
                for window in windows {
                    scene.board.windows[window].confirmed = Some(scene.board.tick());
                }
            }
            ExpectedPacket::Unsubscribed { topic, window, .. } => {
                self.confirmed.remove(&topic);
                if let Some(window) = window {
                    scene.board.windows[window].left = Some(scene.board.tick());
                    scene.board.windows[window].is_settled = true;
                }
            }
        }
    }

    /// Takes a message to one of the rooms.
    fn take_event(&mut self, event: &Value, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let text = |index: usize| event[index].as_str().unwrap_or_default();
        let topic = topics_of(TopicKind::Channel)
            .find(|topic| TOPICS[*topic as usize].1 == text(1))
            .filter(|topic| self.confirmed.contains(topic));
        let is_message = text(0) == "message" && event.as_array().is_some_and(|all| all.len() == 3);
        let Some(topic) = topic.filter(|_| is_message) else {
            return Err(format!("client {} received {event} unasked", self.number).into());
        };
        scene.board.receive(self.number, topic, text(1).as_bytes(), text(2).as_bytes())
    }
}
