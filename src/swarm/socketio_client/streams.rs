//! The streams of an honest Socket.IO client: its requests, its WebSocket, and the change from one
//! to the other.

use super::super::{HonestClient, Scene, Violation, ensure};
use super::{ClientStage, OutPacket, SocketIoClient, Upgrade};
use crate::codec::engineio::{self, EnginePacket, PacketType};
use crate::codec::websocket::{Decoded, Decoder, Opcode, Role, encode_masked, parse_close};
use crate::net::sim::{ClientId, End};

/// Longest message that a client accepts, in bytes. Those of the simulation are shorter.
const MESSAGE_MAX: usize = 1 << 20;

const PATH: &str = "/socket.io/?EIO=4&transport=";

/// A connection that carries requests one by one.
pub struct PollStream {
    pub id: ClientId,
    inbox: Vec<u8>,
    /// True while a request has no answer.
    pub is_busy: bool,
    /// True once an answer has said that it is the last one.
    is_last: bool,
}

impl PollStream {
    pub fn new(id: ClientId) -> PollStream {
        PollStream { id, inbox: Vec::new(), is_busy: false, is_last: false }
    }

    fn send(&mut self, scene: &mut Scene<'_>, request: &[u8]) {
        self.is_busy = true;
        scene.net.client_send(self.id, request);
    }

    /// Takes the next answer: its status and its body.
    fn take(&mut self, scene: &mut Scene<'_>, appetite: usize) -> Option<(u16, Vec<u8>)> {
        self.inbox.extend(scene.net.client_take(self.id, appetite));
        let end = self.inbox.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.inbox[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let length = head.split_once("\r\ncontent-length:").map(|(_, rest)| rest.trim_start());
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok()).unwrap_or(0);
        if self.inbox.len() < end + length {
            return None;
        }
        self.is_busy = false;
        self.is_last = head.contains("\r\nconnection: close\r\n");
        let body = self.inbox[end..end + length].to_vec();
        self.inbox.drain(..end + length);
        Some((status, body))
    }
}

/// A connection that is or becomes a WebSocket.
pub struct WebStream {
    pub id: ClientId,
    inbox: Vec<u8>,
    decoder: Decoder,
    is_upgraded: bool,
    /// True once a packet has come by it that came by no poll.
    pub has_spoken: bool,
}

impl WebStream {
    pub fn new(id: ClientId) -> WebStream {
        let decoder = Decoder::new(Role::Client);
        WebStream { id, inbox: Vec::new(), decoder, is_upgraded: false, has_spoken: false }
    }

    fn shake_hands(&self, scene: &mut Scene<'_>, sid: &str) {
        let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
        let request = format!(
            "GET {PATH}websocket{sid} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        scene.net.client_send(self.id, request.as_bytes());
    }

    /// Sends a message in one frame or in two.
    fn send(&self, scene: &mut Scene<'_>, opcode: Opcode, payload: &[u8]) {
        let mut out = Vec::new();
        let mut frame = |scene: &mut Scene<'_>, first: u8, payload: &[u8]| {
            let start = out.len();
            encode_masked(&mut out, Opcode::Text, payload, scene.random.u32(..).to_le_bytes());
            out[start] = first;
        };
        if scene.random.u8(0..4) == 0 {
            let (part, rest) = payload.split_at(scene.random.usize(..=payload.len()));
            frame(scene, opcode as u8, part);
            frame(scene, 0x80, rest);
        } else {
            frame(scene, 0x80 | opcode as u8, payload);
        }
        scene.net.client_send(self.id, &out);
    }

    /// Takes the answer to the handshake. Returns its status, once it is whole.
    fn take_head(&mut self) -> Option<u16> {
        let end = self.inbox.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let head: Vec<u8> = self.inbox.drain(..end).collect();
        let status = String::from_utf8_lossy(&head);
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        self.is_upgraded = status == 101;
        Some(status)
    }
}

impl SocketIoClient {
    /// Sends the request that opens the session.
    pub fn open(&mut self, scene: &mut Scene<'_>) {
        self.stage = ClientStage::Opening;
        match (&mut self.poll, &self.websocket) {
            (Some(poll), _) => {
                let request = format!("GET {PATH}polling HTTP/1.1\r\nHost: localhost\r\n\r\n");
                poll.send(scene, request.as_bytes());
            }
            (None, Some(websocket)) => websocket.shake_hands(scene, ""),
            (None, None) => {}
        }
    }

    fn dial(&mut self, scene: &mut Scene<'_>) -> Option<ClientId> {
        self.source.set_port(self.source.port() + 1);
        let id = scene.net.client_from(self.server, self.source);
        if id.is_none() && scene.is_draining {
            // The listener is gone for good.
            self.is_lost = true;
        }
        id
    }

    /// Begins to replace polls by a WebSocket.
    pub fn begin_upgrade(&mut self, scene: &mut Scene<'_>) {
        if !self.is_polling || self.upgrade != Upgrade::None {
            return;
        }
        if let Some(id) = self.dial(scene) {
            let stream = WebStream::new(id);
            stream.shake_hands(scene, &self.sid);
            self.websocket = Some(stream);
            self.upgrade = Upgrade::Probing;
        }
    }

    /// Gives up an upgrade. The client goes on with its polls.
    fn end_upgrade(&mut self, scene: &mut Scene<'_>) {
        if let Some(stream) = self.websocket.take() {
            scene.net.client_close(stream.id);
        }
        self.upgrade = Upgrade::None;
    }

    /// Sends the packets that wait, if the way is free.
    pub fn flush(&mut self, scene: &mut Scene<'_>) {
        if self.outgoing.is_empty() || self.upgrade == Upgrade::Pausing {
            return;
        }
        if !self.is_polling {
            let Some(stream) = &self.websocket else { return };
            for packet in self.outgoing.drain(..) {
                match packet {
                    OutPacket::Text(text) => stream.send(scene, Opcode::Text, text.as_bytes()),
                    OutPacket::Binary(bytes) => stream.send(scene, Opcode::Binary, &bytes),
                }
            }
            return;
        }
        if self.post.is_none() {
            self.post = self.dial(scene).map(PollStream::new);
        }
        let Some(post) = self.post.as_mut().filter(|post| !post.is_busy) else { return };
        let mut body = Vec::new();
        for packet in self.outgoing.drain(..) {
            engineio::join(&mut body, 0);
            match packet {
                OutPacket::Text(text) => body.extend_from_slice(text.as_bytes()),
                OutPacket::Binary(bytes) => engineio::write_binary(&mut body, &bytes),
            }
        }
        let (sid, length) = (&self.sid, body.len());
        let mut request = format!(
            "POST {PATH}polling&sid={sid} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend(body);
        post.send(scene, &request);
    }

    /// Polls again, goes on with an upgrade, and sends packets that wait.
    pub fn go_on(&mut self, scene: &mut Scene<'_>) {
        let is_open = !matches!(self.stage, ClientStage::Fresh | ClientStage::Opening);
        let is_busy = |stream: &Option<PollStream>| stream.as_ref().is_some_and(|s| s.is_busy);
        if self.upgrade == Upgrade::Pausing && !is_busy(&self.poll) && !is_busy(&self.post) {
            if let Some(stream) = &self.websocket {
                stream.send(scene, Opcode::Text, b"5");
            }
            for stream in [self.poll.take(), self.post.take()].into_iter().flatten() {
                scene.net.client_close(stream.id);
            }
            (self.is_polling, self.upgrade) = (false, Upgrade::None);
        }
        if self.is_polling && is_open && self.upgrade != Upgrade::Pausing {
            if self.poll.is_none() {
                self.poll = self.dial(scene).map(PollStream::new);
            }
            let request =
                format!("GET {PATH}polling&sid={} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.sid);
            if let Some(poll) = self.poll.as_mut().filter(|poll| !poll.is_busy) {
                poll.send(scene, request.as_bytes());
                self.quiet = 0;
            }
        }
        self.flush(scene);
    }

    /// Takes the answers to polls.
    pub fn take_polls(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let Some(poll) = &mut self.poll else { return Ok(()) };
        let id = poll.id;
        if let Some((status, body)) = poll.take(scene, self.appetite) {
            self.quiet = 0;
            if status != 200 {
                return self.refused(scene, status, &body);
            }
            for packet in engineio::packets(&body) {
                match packet {
                    Ok(EnginePacket::Text(kind, data)) => self.take_packet(kind, data, scene)?,
                    _ => {
                        let shown = body.escape_ascii();
                        return Err(format!("client {} was sent {shown}", self.number).into());
                    }
                }
                if self.is_cut {
                    return Ok(());
                }
            }
        }
        let Some(poll) = &self.poll else { return Ok(()) };
        if self.has_ended(id, poll.is_busy, poll.is_last, scene)? {
            self.poll = None;
        }
        Ok(())
    }

    /// Takes the answers to requests with packets.
    pub fn take_posts(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let Some(post) = &mut self.post else { return Ok(()) };
        let id = post.id;
        if let Some((status, body)) = post.take(scene, self.appetite) {
            self.quiet = 0;
            if (status, &body[..]) != (200, b"ok") {
                return self.refused(scene, status, &body);
            }
            if self.stage == ClientStage::Finished && self.outgoing.is_empty() {
                scene.board.gone(self.number);
                self.cut(scene);
                return Ok(());
            }
        }
        let Some(post) = &self.post else { return Ok(()) };
        if self.has_ended(id, post.is_busy, post.is_last, scene)? {
            self.post = None;
        }
        Ok(())
    }

    /// Takes the refusal of a request, which is the end of the session.
    fn refused(
        &mut self,
        scene: &mut Scene<'_>,
        status: u16,
        body: &[u8],
    ) -> Result<(), Violation> {
        let is_due =
            self.stage == ClientStage::Finished || scene.is_draining || !scene.plan.is_fair;
        let (number, stage) = (self.number, self.stage);
        self.cut(scene);
        ensure(is_due, || {
            let shown = body.escape_ascii();
            format!("Socket.IO client {number} ({stage:?}) was refused: {status} {shown}")
        })
    }

    /// Checks whether the server has ended the connection of requests, and whether it was allowed
    /// to. If a request has no answer, the session is over.
    fn has_ended(
        &mut self,
        id: ClientId,
        is_busy: bool,
        is_last: bool,
        scene: &mut Scene<'_>,
    ) -> Result<bool, Violation> {
        if is_last && !self.is_cut {
            scene.net.client_close(id);
            return Ok(true);
        }
        let end = scene.net.client_saw(id);
        if self.is_cut || end == End::Open || end == End::Fin && !scene.net.client_has_taken_all(id)
        {
            return Ok(false);
        }
        scene.net.client_close(id);
        let is_due =
            self.stage == ClientStage::Finished || scene.is_draining || !scene.plan.is_fair;
        ensure(is_due, || {
            format!("{id:?} was closed ({end:?}) although nothing is scarce; {}", self.waits_for())
        })?;
        if is_busy || matches!(self.stage, ClientStage::Fresh | ClientStage::Opening) {
            self.cut(scene);
        }
        Ok(true)
    }

    /// Takes the messages of the WebSocket.
    pub fn take_frames(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let Some(stream) = &mut self.websocket else { return Ok(()) };
        let taken = scene.net.client_take(stream.id, self.appetite);
        self.quiet = if taken.is_empty() { self.quiet } else { 0 };
        stream.inbox.extend(taken);
        if !stream.is_upgraded {
            match stream.take_head() {
                None => return self.look_for_the_end(scene),
                Some(101) => {}
                Some(_) if self.is_polling => {
                    // The upgrade is refused, and the session goes on.
                    self.end_upgrade(scene);
                    return Ok(());
                }
                Some(status) => return self.refused(scene, status, b""),
            }
            if self.is_polling {
                stream.send(scene, Opcode::Text, b"2probe");
            }
        }
        while let Some(stream) = &mut self.websocket {
            match stream.decoder.decode(&mut stream.inbox, MESSAGE_MAX) {
                Ok(Decoded::Incomplete { used }) => {
                    stream.inbox.drain(..used);
                    break;
                }
                Ok(Decoded::Control { opcode, payload, used }) => {
                    let payload = stream.inbox[payload].to_vec();
                    stream.inbox.drain(..used);
                    self.take_control(opcode, &payload, scene)?;
                }
                Ok(Decoded::Message { opcode, payload, used }) => {
                    let payload = stream.inbox[payload].to_vec();
                    stream.inbox.drain(..used);
                    stream.decoder.taken();
                    self.take_message(opcode, &payload, scene)?;
                }
                Err(code) => {
                    let text = format!("{} received invalid frames, {code:?}", self.number);
                    return Err(text.into());
                }
            }
        }
        self.look_for_the_end(scene)
    }

    fn take_message(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let packet = engineio::decode(payload).filter(|_| opcode == Opcode::Text);
        match packet {
            Some((PacketType::Pong, b"probe")) if self.upgrade == Upgrade::Probing => {
                self.upgrade = Upgrade::Pausing;
                Ok(())
            }
            Some((kind, data)) if !self.is_polling => {
                self.websocket.iter_mut().for_each(|stream| stream.has_spoken = true);
                self.take_packet(kind, data, scene)
            }
            _ => {
                let shown = payload.escape_ascii();
                Err(format!("Socket.IO client {} was sent {shown}", self.number).into())
            }
        }
    }

    fn take_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        scene: &mut Scene<'_>,
    ) -> Result<(), Violation> {
        let close = parse_close(payload);
        let is_right = match (opcode, &close) {
            // An upgrade takes too long.
            (Opcode::Close, _) if self.is_polling => true,
            (Opcode::Close, Ok(Some((1001, _)))) => scene.is_draining || !scene.plan.is_fair,
            (Opcode::Close, Ok(Some(_))) => {
                self.stage == ClientStage::Finished || !scene.plan.is_fair
            }
            _ => false,
        };
        ensure(is_right, || {
            format!(
                "received {opcode:?} {close:?} although nothing is scarce; {}",
                self.waits_for()
            )
        })
    }

    /// Checks whether the server has ended the WebSocket, and whether it was allowed to.
    fn look_for_the_end(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let Some(stream) = &self.websocket else { return Ok(()) };
        let end = scene.net.client_saw(stream.id);
        let has_all = end == End::Reset || scene.net.client_has_taken_all(stream.id);
        if self.is_cut || end == End::Open || !has_all {
            return Ok(());
        }
        if self.is_polling {
            self.end_upgrade(scene);
            return Ok(());
        }
        let is_due =
            scene.is_draining || self.stage == ClientStage::Finished || !scene.plan.is_fair;
        ensure(is_due, || {
            format!("was closed ({end:?}) although nothing is scarce; {}", self.waits_for())
        })?;
        ensure(self.due == 0 || end == End::Reset, || {
            format!("a drain left {} answers due; {}", self.due, self.waits_for())
        })?;
        if end == End::Reset || !(scene.plan.is_fair && scene.is_draining) {
            scene.board.cut(self.number);
        }
        self.close(scene);
        Ok(())
    }
}
