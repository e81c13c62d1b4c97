//! Checks what an honest WebSocket client receives: compares answers with the expected ones, and
//! notes messages on the board.

use serde_json::Value;

use super::super::board::{TOPICS, TopicIndex, TopicKind, topics_of};
use super::super::{HonestClient, Scene, Violation, ensure};
use super::{ACCEPT, ExpectedEvent, WebClient, frame};
use crate::codec::websocket::{Decoded, Opcode, parse_close};
use crate::net::sim::End;

/// Longest message that a client accepts, in bytes. Those of the simulation are shorter.
const MESSAGE_MAX: usize = 1 << 20;

impl WebClient {
    /// Takes bytes from the server, and checks each answer and message.
    pub fn look(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        if self.is_cut {
            return self.look_for_the_end(scene);
        }
        let taken = scene.net.client_take(self.id, self.appetite);
        scene.board.tick();
        self.inbox.extend(taken);
        if self.is_upgraded || self.take_head(scene)? {
            self.take_frames(scene)?;
        }
        self.look_for_the_end(scene)
    }

    /// Takes the head of the answer to the handshake. Returns true if it is whole, and good.
    fn take_head(&mut self, scene: &mut Scene<'_>) -> Result<bool, Violation> {
        let shown = self.inbox.escape_ascii().to_string();
        let end = self.inbox.windows(4).position(|end| end == b"\r\n\r\n");
        let is_begun = self.inbox.starts_with(&b"HTTP/1.1 101 "[..self.inbox.len().min(13)]);
        if !is_begun {
            // There is no room, or the server drains, or a deadline has passed.
            ensure(!scene.plan.is_fair || scene.is_draining, || {
                format!("web client {} was refused: {shown}", self.number)
            })?;
            (self.was_told, self.inbox) = (true, Vec::new());
            scene.board.cut(self.number);
        }
        let Some(end) = end.filter(|_| is_begun) else { return Ok(false) };
        let head: Vec<u8> = self.inbox.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let accept = format!("\r\nsec-websocket-accept: {}\r\n", ACCEPT.to_ascii_lowercase());
        let is_right = head.contains(&accept)
            && head.contains("\r\nupgrade: websocket\r\n")
            && head.contains("\r\nconnection: upgrade\r\n")
            && matches!(self.expected.pop_front(), Some(ExpectedEvent::Handshake));
        ensure(is_right, || format!("web client {} was answered {shown}", self.number))?;
        self.due = self.due.saturating_sub(1);
        self.is_upgraded = true;
        scene.board.upgrades += 1;
        if let Some((topic, window)) = self.channel {
            self.confirmed.insert(topic);
            scene.board.windows[window].confirmed = Some(scene.board.tick());
        }
        Ok(true)
    }

    fn take_frames(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        loop {
            let decoded = self.decoder.decode(&mut self.inbox, MESSAGE_MAX);
            match decoded {
                Ok(Decoded::Incomplete { used }) => {
                    self.inbox.drain(..used);
                    return Ok(());
                }
                Ok(Decoded::Control { opcode, payload, used }) => {
                    let payload = self.inbox[payload].to_vec();
                    self.inbox.drain(..used);
                    self.take_control(opcode, payload, scene)?;
                }
                Ok(Decoded::Message { opcode, payload, used }) => {
                    let payload = self.inbox[payload].to_vec();
                    self.inbox.drain(..used);
                    self.decoder.taken();
                    ensure(!self.was_told, || {
                        format!("web client {} received a message after the close", self.number)
                    })?;
                    self.take_message(opcode, &payload, scene)?;
                }
                Err(code) => {
                    let shown = self.inbox.escape_ascii();
                    return Err(format!(
                        "web client {} received invalid frames, {code:?}: {shown}",
                        self.number
                    )
                    .into());
                }
            }
        }
    }

    fn take_control(
        &mut self,
        opcode: Opcode,
        payload: Vec<u8>,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        match opcode {
            // The client answers, unless it has said its last word.
            Opcode::Ping if !self.has_finished => {
                let mut out = Vec::new();
                frame(scene, &mut out, 0x80 | Opcode::Pong as u8, &payload);
                scene.net.client_send(self.id, &out);
            }
            Opcode::Pong => {
                let expected = self.answered();
                let is_right =
                    matches!(&expected, Some(ExpectedEvent::Pong(this)) if *this == payload);
                ensure(is_right, || {
                    format!("web client {} received a pong, not {expected:?}", self.number)
                })?;
            }
            Opcode::Close => {
                let (number, close) = (self.number, parse_close(&payload));
                let is_answer = matches!(self.expected.front(), Some(ExpectedEvent::Close));
                let is_right = match &close {
                    Ok(Some((1000, _))) => is_answer && self.answered().is_some(),
                    Ok(Some((1001, _))) => scene.is_draining,
                    Ok(Some(_)) => !scene.plan.is_fair,
                    _ => false,
                };
                ensure(is_right && !self.was_told, || {
                    format!("web client {number} received the close {close:?}")
                })?;
                self.was_told = true;
                if !is_answer {
                    scene.board.cut(self.number);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self) -> Option<ExpectedEvent> {
        self.due = self.due.saturating_sub(1);
        self.expected.pop_front()
    }

    fn take_message(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        ensure(opcode == Opcode::Text, || {
            format!("web client {} received text as {opcode:?}", self.number)
        })?;
        if let Some((topic, _)) = self.channel {
            let channel = TOPICS[topic as usize].1.as_bytes();
            scene.board.receive(self.number, topic, channel, payload)?;
            if let Some(message) = self.echoes.front().copied()
                && scene.board.payload(message) == payload
            {
                self.echoes.pop_front();
                scene.board.served(message);
            }
            return Ok(());
        }
        let text = String::from_utf8_lossy(payload);
        let value: Value = serde_json::from_slice(payload).map_err(|error| {
            Violation::from(format!("web client {} received {text}: {error}", self.number))
        })?;
        match value.get("channel").and_then(Value::as_str) {
            Some(channel) => self.take_publish(channel, &value, scene),
            None => self.settle(&text, &value, scene),
        }
    }

    /// Takes a message to one of the subscriptions of a client with JSON.
    fn take_publish(
        &mut self,
        channel: &str,
        value: &Value,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let pattern = value.get("pattern").and_then(Value::as_str);
        let (kind, name) = match pattern {
            Some(pattern) => (TopicKind::Pattern, pattern),
            None => (TopicKind::Channel, channel),
        };
        let topic = topics_of(kind).find(|topic| TOPICS[*topic as usize].1 == name);
        let Some(topic) = topic.filter(|topic| self.confirmed.contains(topic)) else {
            let text = format!("web client {} received {value} unasked", self.number);
            return Err(text.into());
        };
        // The board does not know the messages of hostile clients, which come by the pattern `*`.
        if channel.starts_with('h') {
            return Ok(());
        }
        let data = value.get("data").and_then(Value::as_str).unwrap_or_default();
        scene.board.receive(self.number, topic, channel.as_bytes(), data.as_bytes())
    }

    /// Compares an answer with the next expected one, and applies its effect.
    fn settle(
        &mut self,
        text: &str,
        value: &Value,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let Some(expected) = self.answered() else {
            let text = format!("web client {} received {text}, and expects nothing", self.number);
            return Err(text.into());
        };
        let is_right = match &expected {
            ExpectedEvent::This(this)
            | ExpectedEvent::Subscribed { text: this, .. }
            | ExpectedEvent::Unsubscribed { text: this, .. } => {
                serde_json::from_str(this).ok().as_ref() == Some(value)
            }
            ExpectedEvent::Receivers(_, id) => {
                value.get("published").is_some() && value.get("id") == Some(&Value::from(*id))
            }
            ExpectedEvent::Handshake | ExpectedEvent::Pong(_) | ExpectedEvent::Close => false,
        };
        ensure(is_right, || {
            format!("web client {} received {text} instead of {expected:?}", self.number)
        })?;
        match expected {
            ExpectedEvent::Receivers(message, _) => {
                let receivers = value.get("receivers").and_then(Value::as_i64);
                scene.board.answered(message, receivers.unwrap_or(-1));
            }
            ExpectedEvent::Subscribed { topic, window, .. } => {
                self.confirmed.insert(topic);
                if let Some(window) = window {
                    scene.board.windows[window].confirmed = Some(scene.board.tick());
                }
            }
            ExpectedEvent::Unsubscribed { topic, window, .. } => self.left(topic, window, scene),
            _ => {}
        }
        Ok(())
    }

    /// Notes the confirmed end of a subscription.
    fn left(&mut self, topic: TopicIndex, window: Option<usize>, scene: &mut Scene<'_>) {
        self.confirmed.remove(&topic);
        if let Some(window) = window {
            scene.board.windows[window].left = Some(scene.board.tick());
            scene.board.windows[window].is_settled = true;
        }
    }

    /// Checks whether the server has ended the stream, and whether it was allowed to.
    fn look_for_the_end(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let end = scene.net.client_saw(self.id);
        let has_all = end == End::Reset || scene.net.client_has_taken_all(self.id);
        if end != End::Open && !self.is_cut && has_all {
            self.is_cut = true;
            let has_answers = self.expected.is_empty() && end == End::Fin;
            let is_due = scene.is_draining || self.has_finished && has_answers;
            ensure(is_due || !scene.plan.is_fair, || {
                format!("was closed ({end:?}) although nothing is scarce; {}", self.waits_for())
            })?;
            ensure(self.due == 0 || end == End::Reset, || {
                format!("a drain left {} answers due; {}", self.due, self.waits_for())
            })?;
            if end == End::Reset || !(scene.plan.is_fair && scene.is_draining) {
                scene.board.cut(self.number);
            }
            // A well-behaved client closes as well.
            scene.net.client_close(self.id);
        }
        if !self.is_gone && !scene.net.is_served(self.id) {
            self.is_gone = true;
            scene.board.gone(self.number);
        }
        Ok(())
    }
}
