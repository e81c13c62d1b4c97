//! HTTP/1.1: requests to the hub, and the upgrades of their connections to WebSocket and to
//! server-sent events.
//!
//! A request is one message of the loop, with its body. While it is incomplete its connection is
//! silent or partial, under the same deadlines as any other. The head is read when it is complete,
//! again when its body is, and whenever a request that waits is served again.

mod access;
mod exchange;
mod page;
mod polling;
mod retained;
mod routes;
mod script;
mod serving;
mod target;
mod upgrade;

use std::collections::HashMap;
use std::mem::MaybeUninit;

use log::{Level, debug, log_enabled};

use crate::clock::Tick;
use crate::codec::http::{
    self, BodyFraming, BodyProgress, HeadLimits, RequestError, Response, imf_fixdate,
};
use crate::connection::Reason;
use crate::hub::Shared;
use crate::hub::json;
use crate::hub::protocol::progress::MessageProgress;
use crate::hub::protocol::socketio::SocketIo;
use crate::hub::sessions::SessionId;
use crate::limits::{HEADERS_MAX, Limits, UNTRUSTED_INPUT_MAX};
use crate::service::server::Server;
use crate::service::{Reply, Taken};
use exchange::{HeadDecision, HttpExchange, JSON};

pub use routes::{POLLED, path_of, plain};

/// The HTTP side of the hub.
#[derive(Default)]
pub struct Http {
    /// The requests whose head is complete and which are not answered yet.
    pending: HashMap<SessionId, Pending>,
    date: Date,
}

/// A request whose head is complete.
struct Pending {
    /// Length of the head, in bytes.
    head: usize,
    /// How the end of the body is found. `None` until the head is admitted.
    framing: Option<BodyFraming>,
    body: BodyProgress,
    /// Longest body that is accepted, in bytes.
    most: usize,
    /// The length of the body, and the bytes that it took with its framing. `None` until it is
    /// complete.
    whole: Option<(usize, usize)>,
}

/// The time of an answer, formatted at most once per tick of the loop.
#[derive(Default)]
struct Date {
    made: Option<Tick>,
    text: [u8; 29],
}

impl Pending {
    fn find(
        input: &[u8],
        scanned: usize,
        limits: &HeadLimits,
    ) -> Result<Option<Pending>, RequestError> {
        let head = http::find_head(input, scanned, limits)?;
        let body = BodyProgress::default;
        Ok(head.map(|head| Pending { head, framing: None, body: body(), most: 0, whole: None }))
    }

    /// Looks at the input behind an admitted head. Returns true once the body is complete.
    fn receive(&mut self, body: &mut [u8]) -> Result<bool, RequestError> {
        if let (None, Some(framing)) = (self.whole, self.framing) {
            self.whole = self.body.receive(framing, body, self.most)?;
        }
        Ok(self.whole.is_some())
    }
}

impl Date {
    fn text(&mut self, reply: &Reply<'_>, server: &dyn Server) -> &[u8; 29] {
        if self.made != Some(reply.now.tick()) {
            self.made = Some(reply.now.tick());
            self.text = imf_fixdate(server.system_time().as_secs());
        }
        &self.text
    }
}

impl Http {
    /// Serves the request at the front of the input.
    pub fn receive(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        (input, scanned): (&mut [u8], usize),
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
        socketio: &mut SocketIo,
    ) -> Taken {
        let Limits { max_message: most, max_head: bytes, max_headers: headers, .. } =
            *server.limits();
        let limits = HeadLimits { bytes, headers };
        let known = self.pending.remove(&session).map(|known| Ok(Some(known)));
        let mut pending = match known.unwrap_or_else(|| Pending::find(input, scanned, &limits)) {
            Ok(Some(pending)) => pending,
            Ok(None) => return Taken::Incomplete,
            Err(error) => return self.refuse(shared, session, error, reply, server),
        };
        let (head, body) = input.split_at_mut(pending.head);
        let is_new = pending.framing.is_none();
        match pending.receive(body) {
            Ok(is_complete) if is_complete || is_new => {}
            Ok(_) => return self.keep(session, pending, Taken::Incomplete),
            Err(error) => return self.refuse(shared, session, error, reply, server),
        }
        let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let head = match http::parse(head, &mut fields, &limits) {
            Ok(head) => head,
            Err(error) => return self.refuse(shared, session, error, reply, server),
        };
        let mut exchange = HttpExchange {
            http: self,
            socketio,
            shared,
            session,
            reply,
            server,
            head: &head,
            is_admitted: false,
            has_password: false,
        };
        let route = match exchange.admit() {
            HeadDecision::Route(route) => route,
            HeadDecision::Waits => return self.keep(session, pending, Taken::Later),
            HeadDecision::Refused => return Taken::Message(pending.head),
        };
        pending.framing = Some(head.framing);
        let takes_body = route.takes_body() || polling::takes_body(&exchange, &route);
        pending.most = if takes_body { most } else { most.min(UNTRUSTED_INPUT_MAX) };
        match pending.receive(body) {
            Ok(true) => {}
            Ok(false) => {
                if head.expects_continue {
                    exchange.reply.send(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                return self.keep(session, pending, Taken::Incomplete);
            }
            Err(error) => return self.refuse(shared, session, error, reply, server),
        }
        exchange.is_admitted = true;
        let (length, used) = pending.whole.unwrap_or_default();
        match serving::serve(&mut exchange, &route, &body[..length]) {
            MessageProgress::Taken => Taken::Message(pending.head + used),
            MessageProgress::StaysSilent => Taken::Skip(pending.head + used),
            MessageProgress::Waits => self.keep(session, pending, Taken::Later),
        }
    }

    /// Keeps what is known of a request until its connection is served again.
    fn keep(&mut self, session: SessionId, pending: Pending, taken: Taken) -> Taken {
        self.pending.insert(session, pending);
        taken
    }

    /// Answers a request that cannot be told from the next one, and closes the connection.
    fn refuse(
        &mut self,
        shared: &mut Shared,
        session: SessionId,
        error: RequestError,
        reply: &mut Reply<'_>,
        server: &dyn Server,
    ) -> Taken {
        shared.http_requests += 1;
        if log_enabled!(Level::Debug) {
            let peer = shared.peer(session, server).map_or("?".into(), |peer| peer.to_string());
            debug!("{peer} refused {}: {}", error.status(), error.text());
        }
        let date = self.date.text(reply, server);
        let response = Response {
            status: error.status(),
            content_type: JSON,
            minor: 1,
            keep_alive: false,
            date,
            extra: &[],
        };
        response.write(reply.bytes_mut(), &error_body(error.text()), false);
        reply.close_for(Reason::ProtocolError);
        // The loop drops all input of a connection that closes.
        Taken::Message(1)
    }

    /// Drops what is held for a session that has ended.
    pub fn closed(&mut self, session: SessionId) {
        self.pending.remove(&session);
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.pending.capacity() * size_of::<(SessionId, Pending)>()
    }

    /// Returns unused capacity to the allocator.
    pub fn shrink(&mut self) {
        self.pending.shrink_to_fit();
    }

    /// Returns the sessions with a request that is partly received. For tests.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.pending.keys().copied()
    }
}

/// Returns the body of an error: `{"error":"text"}`.
fn error_body(text: &str) -> Vec<u8> {
    let mut body = b"{\"error\":".to_vec();
    json::string(&mut body, text);
    body.extend_from_slice(b"}\n");
    body
}

/// Appends the answer to a client whose request was not complete in time.
pub fn farewell(reason: Reason, out: &mut Vec<u8>) {
    let is_late = matches!(reason, Reason::MessageTimeout | Reason::FirstMessageTimeout);
    if is_late {
        let body = error_body("the request was not complete in time; send it at once");
        let head = format!(
            "HTTP/1.1 408 Request Timeout\r\nServer: slabd\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&body);
    }
}
