//! Honest clients of the small services: what each is owed follows from the bytes that it has sent.

use super::{Scene, ServiceKind, Violation, ensure};
use crate::net::sim::{ClientId, End};

pub struct LineClient {
    pub id: ClientId,
    service: ServiceKind,
    /// Bytes that it takes at a visit, at most.
    pub appetite: usize,
    sent: Vec<u8>,
    received: Vec<u8>,
    has_shut: bool,
    /// Bytes that it is owed by the end of a drain.
    due: usize,
    /// It closed or reset, or saw the server do so.
    pub is_cut: bool,
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

    pub fn act(&mut self, scene: &mut Scene<'_>) {
        if self.is_cut || self.has_shut {
            return;
        }
        let length = scene.random.usize(1..300);
        let letter =
            |random: &mut fastrand::Rng| if random.u8(0..8) == 0 { b'\n' } else { random.alphanumeric() as u8 };
        let bytes: Vec<u8> = (0..length).map(|_| letter(scene.random)).collect();
        if scene.net.client_send(self.id, &bytes) {
            self.sent.extend(bytes);
        }
        if scene.random.u8(..) < 8 {
            self.shut(scene);
        }
    }

    /// The loop is told to stop. All that has arrived by now is to be answered.
    pub fn drain_begins(&mut self, scene: &mut Scene<'_>) {
        self.due = if scene.all_has_arrived(self.id) { self.owed().len() } else { 0 };
    }

    /// Has nothing more to say.
    pub fn shut(&mut self, scene: &mut Scene<'_>) {
        if !self.is_cut && !self.has_shut {
            self.has_shut = true;
            scene.net.client_shutdown(self.id);
        }
    }

    pub fn leave(&mut self, scene: &mut Scene<'_>) {
        match scene.random.bool() {
            true => scene.net.client_close(self.id),
            false => scene.net.client_reset(self.id),
        }
        self.is_cut = true;
    }

    pub fn receive(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        if self.is_cut {
            return Ok(());
        }
        self.received.extend(scene.net.client_take(self.id, self.appetite));
        let end = scene.net.client_saw(self.id);
        if end == End::Reset || end == End::Fin && scene.net.client_has_taken_all(self.id) {
            self.is_cut = true;
            scene.net.client_close(self.id);
            ensure(self.received.len() >= self.due || end == End::Reset || !scene.plan.is_fair, || {
                format!("closed by a drain before {} bytes for what had arrived; {}", self.due, self.waits_for())
            })?;
            let is_due = scene.is_draining || self.has_shut && self.received == self.owed();
            ensure(is_due || !scene.plan.is_fair, || {
                format!("{} was closed though nothing is scarce", self.waits_for())
            })?;
        }
        let owed = self.owed();
        let (received, owed) = (&self.received[..], &owed[..]);
        let is_right = received.len() <= owed.len() && owed[..received.len()] == *received;
        ensure(is_right || self.was_turned_away(scene), || {
            format!(
                "client of {} received {}, and is owed {}",
                self.service.name(),
                received.escape_ascii(),
                owed.escape_ascii()
            )
        })
    }

    /// Whether all that it was owed has come, or its connection has ended.
    pub fn is_satisfied(&self) -> bool {
        self.is_cut || self.received == self.owed()
    }

    pub fn waits_for(&self) -> String {
        let (got, owed) = (self.received.len(), self.owed().len());
        format!("client {:?} of {} has {got} of {owed} bytes", self.id, self.service.name())
    }

    /// It came when there was no slot, or its line was too long: then an error takes the place of what it is owed.
    fn was_turned_away(&self, scene: &Scene<'_>) -> bool {
        let lines = self.received.rsplit(|byte| *byte == b'\n');
        let is_error = |line: &[u8]| line.starts_with(b"error: ");
        !scene.plan.is_fair
            && lines.take(2).any(|line| is_error(line) || b"error: ".starts_with(line) && !line.is_empty())
    }

    fn owed(&self) -> Vec<u8> {
        match self.service {
            ServiceKind::Echo => self.sent.clone(),
            ServiceKind::Discard | ServiceKind::Hub => Vec::new(),
            ServiceKind::Hello => {
                let mut owed = b"Hello\r\n".to_vec();
                let mut lines: Vec<&[u8]> = self.sent.split(|byte| *byte == b'\n').collect();
                // The end of the stream ends a last line.
                let last = lines.pop().unwrap_or_default();
                lines.extend((self.has_shut && !last.is_empty()).then_some(last));
                for line in lines {
                    owed.extend([b"Hello, ", line, b"!\r\n"].concat());
                }
                owed
            }
        }
    }
}
