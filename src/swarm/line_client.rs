//! Honest clients of the small services. The expected output of each follows from the bytes it has
//! sent.

use super::{HonestClient, Scene, ServiceKind, Violation, ensure};
use crate::net::sim::{ClientId, End};

/// An honest client of echo, hello or discard.
pub struct LineClient {
    id: ClientId,
    service: ServiceKind,
    /// Maximum number of bytes that the client receives at a time.
    appetite: usize,
    sent: Vec<u8>,
    received: Vec<u8>,
    has_shut: bool,
    /// Minimum number of bytes that the client must have by the end of a drain.
    due: usize,
    /// True once the client or the server has closed or reset the stream.
    is_cut: bool,
}

impl LineClient {
    pub fn new(id: ClientId, service: ServiceKind, appetite: usize) -> LineClient {
        LineClient {
            id,
            service,
            appetite,
            sent: Vec::new(),
            received: Vec::new(),
            has_shut: false,
            due: 0,
            is_cut: false,
        }
    }

    /// Half-closes the stream.
    fn shut(&mut self, scene: &mut Scene<'_>) {
        if !self.is_cut && !self.has_shut {
            self.has_shut = true;
            scene.net.client_shutdown(self.id);
        }
    }

    /// True if the client got an error in place of its output, because no slot was free or its line
    /// was too long.
    fn was_turned_away(&self, scene: &Scene<'_>) -> bool {
        let lines = self.received.rsplit(|byte| *byte == b'\n');
        let is_error = |line: &[u8]| line.starts_with(b"error: ");
        !scene.plan.is_fair
            && lines
                .take(2)
                .any(|line| is_error(line) || b"error: ".starts_with(line) && !line.is_empty())
    }

    /// Returns the expected output for all bytes sent so far.
    fn expected(&self) -> Vec<u8> {
        match self.service {
            ServiceKind::Echo => self.sent.clone(),
            ServiceKind::Discard | ServiceKind::Hub => Vec::new(),
            ServiceKind::Hello => {
                let mut expected = b"Hello\r\n".to_vec();
                let mut lines: Vec<&[u8]> = self.sent.split(|byte| *byte == b'\n').collect();
                // The end of the stream ends the last line.
                let last = lines.pop().unwrap_or_default();
                lines.extend((self.has_shut && !last.is_empty()).then_some(last));
                for line in lines {
                    expected.extend([b"Hello, ", line, b"!\r\n"].concat());
                }
                expected
            }
        }
    }
}

impl HonestClient for LineClient {
    fn ids(&self) -> Vec<ClientId> {
        if self.is_cut { Vec::new() } else { vec![self.id] }
    }

    fn set_appetite(&mut self, bytes: usize) {
        self.appetite = bytes;
    }

    /// Sends some random bytes. Sometimes half-closes the stream after them.
    fn act(&mut self, scene: &mut Scene<'_>) {
        if self.is_cut || self.has_shut {
            return;
        }
        let length = scene.random.usize(1..300);
        let letter = |random: &mut fastrand::Rng| {
            if random.u8(0..8) == 0 { b'\n' } else { random.alphanumeric() as u8 }
        };
        let bytes: Vec<u8> = (0..length).map(|_| letter(scene.random)).collect();
        if scene.net.client_send(self.id, &bytes) {
            self.sent.extend(bytes);
        }
        if scene.random.u8(..) < 8 {
            self.shut(scene);
        }
    }

    /// Closes or resets the stream in any state.
    fn leave(&mut self, scene: &mut Scene<'_>) {
        match scene.random.bool() {
            true => scene.net.client_close(self.id),
            false => scene.net.client_reset(self.id),
        }
        self.is_cut = true;
    }

    /// Notes the start of a drain. The loop must answer all input that has arrived by now.
    fn drain_begins(&mut self, scene: &mut Scene<'_>) {
        self.due = if scene.all_has_arrived(self.id) { self.expected().len() } else { 0 };
    }

    /// Takes bytes from the server and compares them with the expected output.
    fn receive(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        if self.is_cut {
            return Ok(());
        }
        self.received.extend(scene.net.client_take(self.id, self.appetite));
        let end = scene.net.client_saw(self.id);
        if end == End::Reset || end == End::Fin && scene.net.client_has_taken_all(self.id) {
            self.is_cut = true;
            scene.net.client_close(self.id);
            ensure(
                self.received.len() >= self.due || end == End::Reset || !scene.plan.is_fair,
                || {
                    format!(
                        "a drain closed the client before it had the {} bytes due; {}",
                        self.due,
                        self.waits_for()
                    )
                },
            )?;
            let is_due = scene.is_draining || self.has_shut && self.received == self.expected();
            ensure(is_due || !scene.plan.is_fair, || {
                format!("{}, but was closed although nothing is scarce", self.waits_for())
            })?;
        }
        let expected = self.expected();
        let (received, expected) = (&self.received[..], &expected[..]);
        let is_right = received.len() <= expected.len() && expected[..received.len()] == *received;
        ensure(is_right || self.was_turned_away(scene), || {
            format!(
                "client of {} received {} instead of {}",
                self.service.name(),
                received.escape_ascii(),
                expected.escape_ascii()
            )
        })
    }

    /// True if the client has all its expected output, or its connection has ended.
    fn is_satisfied(&self) -> bool {
        self.is_cut || self.received == self.expected()
    }

    fn waits_for(&self) -> String {
        let (got, expected) = (self.received.len(), self.expected().len());
        format!("client {:?} of {} has {got} of {expected} bytes", self.id, self.service.name())
    }

    fn is_over(&self) -> bool {
        self.is_cut
    }
}
