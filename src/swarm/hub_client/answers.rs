//! Checks what an honest client of the hub receives: compares answers with the expected ones, and
//! notes messages on the board.

use super::super::board::{TOPICS, TopicIndex, TopicKind, topics_of};
use super::super::replies::{Front, Value, parse};
use super::super::{HonestClient, Scene, Violation, ensure};
use super::{Expected, HubClient};
use crate::net::sim::End;

impl HubClient {
    /// Takes bytes from the server, and checks each answer and message.
    pub fn look(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        if self.is_cut {
            return self.look_for_the_end(scene);
        }
        let taken = scene.net.client_take(self.id, self.appetite);
        scene.board.tick();
        self.inbox.extend(taken);
        let mut used = 0;
        loop {
            match parse(&self.inbox[used..]) {
                Front::Whole(value, length) => {
                    used += length;
                    self.take(value, scene)?;
                }
                Front::Partial => break,
                Front::Wrong => {
                    let rest = self.inbox[used..].escape_ascii().to_string();
                    return Err(
                        format!("client {} received invalid bytes: {rest}", self.number).into()
                    );
                }
            }
        }
        self.inbox.drain(..used);
        self.look_for_the_end(scene)
    }

    /// Checks whether the server has ended the stream, and whether it was allowed to.
    fn look_for_the_end(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let end = scene.net.client_saw(self.id);
        if end != End::Open
            && !self.is_cut
            && (end == End::Reset || scene.net.client_has_taken_all(self.id))
        {
            self.is_cut = true;
            let is_due = scene.is_draining
                || self.has_finished && self.expected.is_empty() && end == End::Fin;
            ensure(is_due || !scene.plan.is_fair, || {
                format!(
                    "client {} was closed ({end:?}) although nothing is scarce; {}",
                    self.number,
                    self.waits_for()
                )
            })?;
            ensure(self.due == 0 || end == End::Reset, || {
                format!(
                    "a drain closed the client before it had the {} answers due; {}",
                    self.due,
                    self.waits_for()
                )
            })?;
            let has_all = self.has_quit && self.expected.is_empty()
                || scene.plan.is_fair && scene.is_draining;
            if !has_all || end == End::Reset {
                self.cut(scene);
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

    fn take(&mut self, value: Value, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let is_push = matches!(value, Value::Push(_));
        let kind = match value.elements().first().map(Value::text) {
            Some(b"message") => Some(TopicKind::Channel),
            Some(b"pmessage") => Some(TopicKind::Pattern),
            Some(b"smessage") => Some(TopicKind::Shard),
            _ => None,
        };
        if let Some(kind) = kind {
            ensure(is_push == self.receives_resp3, || {
                format!("client {} received {value:?} in the wrong protocol", self.number)
            })?;
            return self.message(kind, &value, scene);
        }
        // A closing message, or the error that no slot is free.
        let last_words = match &value {
            Value::Push(elements) => {
                elements.first().is_some_and(|first| first.text() == b"closing")
            }
            Value::Error(text) => {
                text.starts_with("ERR closing")
                    || text.starts_with("ERR max number of clients reached")
            }
            _ => false,
        };
        if last_words {
            self.was_told = true;
            self.cut(scene);
            return Ok(());
        }
        ensure(!self.was_told, || {
            format!("client {} received {value:?} after a closing message", self.number)
        })?;
        let Some(expected) = self.expected.pop_front() else {
            return Err(
                format!("client {} received {value:?} but expects no answer", self.number).into()
            );
        };
        self.due = self.due.saturating_sub(1);
        self.settle(expected, value, scene)
    }

    fn message(
        &mut self,
        kind: TopicKind,
        value: &Value,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let words: Vec<&[u8]> = value.elements().iter().map(Value::text).collect();
        let (name, channel, payload) = match words[..] {
            [_, channel, payload] => (channel, channel, payload),
            [_, pattern, channel, payload] => (pattern, channel, payload),
            _ => return Err(format!("client {} received {value:?}", self.number).into()),
        };
        let topic = topics_of(kind).find(|topic| TOPICS[*topic as usize].1.as_bytes() == name);
        let Some(topic) = topic.filter(|topic| self.confirmed.contains(topic)) else {
            return Err(format!(
                "client {} received {value:?} without a subscription",
                self.number
            )
            .into());
        };
        // The board does not know the messages of hostile clients, which come by the pattern `*`.
        if channel.starts_with(b"h") {
            return Ok(());
        }
        scene.board.receive(self.number, topic, channel, payload)
    }

    /// Compares an answer with the next expected one, and applies its effect.
    fn settle(
        &mut self,
        expected: Expected,
        value: Value,
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let is_right = match &expected {
            Expected::This(this) => value == *this,
            Expected::Error(start) => {
                matches!(&value, Value::Error(text) if text.starts_with(start))
            }
            Expected::Integer | Expected::Receivers(_) => matches!(value, Value::Integer(_)),
            Expected::Exec(answers) => {
                matches!(&value, Value::Array(values) if values.len() == answers.len())
            }
            Expected::Hello { is_resp3: true } => matches!(value, Value::Map(_)),
            Expected::Hello { is_resp3: false } => matches!(value, Value::Array(_)),
            Expected::Reset => value == Value::Simple("RESET".into()),
            Expected::Subscribed { value: this, .. }
            | Expected::Unsubscribed { value: this, .. } => value == *this,
            Expected::OneOfEnds { remaining, .. } => {
                value.elements().get(2) == Some(&Value::Integer(*remaining))
            }
        };
        ensure(is_right, || {
            format!("client {} received {value:?} instead of {expected:?}", self.number)
        })?;
        match expected {
            Expected::Hello { is_resp3 } => self.receives_resp3 = is_resp3,
            Expected::Reset => {
                self.receives_resp3 = false;
                self.left_all(scene);
            }
            Expected::Receivers(message) => {
                if let Value::Integer(receivers) = value {
                    scene.board.answered(message, receivers);
                }
            }
            Expected::Exec(answers) => {
                for (expected, value) in answers.into_iter().zip(value.elements()) {
                    self.settle(expected, value.clone(), scene)?;
                }
            }
            Expected::Subscribed { topic, window, .. } => {
                self.confirmed.insert(topic);
                if let Some(window) = window {
                    scene.board.windows[window].confirmed = Some(scene.board.tick());
                }
            }
            Expected::Unsubscribed { topic, window, .. } => self.left(topic, window, scene),
            Expected::OneOfEnds { topics, kind, .. } => {
                let name = value.elements().get(1).map(Value::text).unwrap_or_default();
                let topic =
                    topics_of(kind).find(|topic| TOPICS[*topic as usize].1.as_bytes() == name);
                let window = topic.and_then(|topic| topics.get(&topic).copied());
                let (Some(topic), Some(window)) = (topic, window) else {
                    return Err(format!(
                        "client {} received {value:?} instead of an end of {topics:?}",
                        self.number
                    )
                    .into());
                };
                ensure(self.confirmed.contains(&topic), || {
                    format!("client {} received {value:?} twice", self.number)
                })?;
                self.left(topic, window, scene);
            }
            Expected::This(_) | Expected::Error(_) | Expected::Integer => {}
        }
        Ok(())
    }

    /// Notes that RESET has ended all subscriptions.
    fn left_all(&mut self, scene: &mut Scene<'_>) {
        self.confirmed.clear();
        let now = scene.board.tick();
        let own = scene.board.windows.iter_mut().filter(|window| window.client == self.number);
        for window in own.filter(|window| window.confirmed.is_some()) {
            window.left.get_or_insert(now);
            window.is_settled = true;
        }
    }

    /// Notes the confirmed end of a subscription.
    fn left(&mut self, topic: TopicIndex, window: Option<usize>, scene: &mut Scene<'_>) {
        self.confirmed.remove(&topic);
        if let Some(window) = window {
            scene.board.windows[window].left = Some(scene.board.tick());
            scene.board.windows[window].is_settled = true;
        }
    }
}
