//! Requests to the path of Socket.IO: handshakes, polls, and packets by POST (Engine.IO 4).

use super::exchange::{HttpExchange, JSON, NO_STORE};
use super::routes::{POLLED, Route};
use super::target::{pairs, split};
use super::upgrade::accept_websocket;
use crate::codec::engineio::EngineError;
use crate::connection::Reason;
use crate::hub::polls::WaitingPoll;
use crate::hub::protocol::progress::MessageProgress;
use crate::hub::protocol::socketio::{PacketProgress, PollOutcome};
use crate::hub::sessions::{self, PeerProtocol, SessionId};

const TEXT: &str = "text/plain; charset=UTF-8";

/// The parameters of a request.
#[derive(Default)]
struct Parameters {
    /// True for version 4 of the protocol, which is the only one served.
    is_version_4: bool,
    /// `None` if it is missing or empty.
    sid: Option<Vec<u8>>,
    transport: Vec<u8>,
}

impl Parameters {
    fn of(target: &str) -> Parameters {
        let (_, query) = split(target);
        let mut found = Parameters::default();
        for (key, value) in pairs(query).flatten() {
            match &*key {
                b"EIO" => found.is_version_4 = *value == *b"4",
                b"sid" => found.sid = Some(value.into_owned()).filter(|sid| !sid.is_empty()),
                b"transport" => found.transport = value.into_owned(),
                _ => {}
            }
        }
        found
    }
}

/// Serves a request.
pub fn serve(exchange: &mut HttpExchange<'_, '_>, body: &[u8]) -> MessageProgress {
    let parameters = Parameters::of(exchange.head.target);
    let is_upgrade = exchange.head.upgrades_to("websocket");
    match &parameters.transport[..] {
        b"websocket" if is_upgrade => return upgrade(exchange, &parameters),
        b"polling" if !is_upgrade => {}
        b"websocket" | b"polling" => return refuse(exchange, EngineError::BadRequest),
        _ => return refuse(exchange, EngineError::UnknownTransport),
    }
    let Some(sid) = &parameters.sid else {
        return match (exchange.head.method, parameters.is_version_4) {
            ("GET", true) => handshake(exchange),
            ("GET", false) => refuse(exchange, EngineError::UnsupportedVersion),
            _ => refuse(exchange, EngineError::BadHandshakeMethod),
        };
    };
    exchange.shared.polls.now = exchange.reply.now.tick();
    let client = client(exchange, sid);
    if client.is_ok_and(|(session, _)| exchange.shared.is_authenticated(session)) {
        // Its client gave the password.
        exchange.has_password = true;
        exchange.reply.trust(true);
    }
    match (client, exchange.head.method) {
        (Err(error), _) => refuse(exchange, error),
        (Ok(_), _) if !parameters.is_version_4 => refuse(exchange, EngineError::BadRequest),
        (Ok(client), "GET") => poll(exchange, client),
        (Ok(client), "POST") => post(exchange, client, body),
        (Ok(_), _) => refuse(exchange, EngineError::BadRequest),
    }
}

/// Returns true if a request has packets of a client that may use the hub. A guess must not make
/// the server keep a long body.
pub fn takes_body(exchange: &HttpExchange<'_, '_>, route: &Route<'_>) -> bool {
    let parameters = Parameters::of(exchange.head.target);
    let client = parameters.sid.as_ref().map(|sid| client(exchange, sid));
    *route == Route::SocketIo
        && client.is_some_and(|found| {
            found.is_ok_and(|(session, _)| exchange.shared.is_authenticated(session))
        })
}

/// Answers with an error of Engine.IO.
fn refuse(exchange: &mut HttpExchange<'_, '_>, error: EngineError) -> MessageProgress {
    exchange.answer(error.status(), JSON, error.body().as_bytes(), NO_STORE);
    // A guess says no more than a connection does.
    MessageProgress::StaysSilent
}

/// Finds the client of a sid: its session, and its number among those that poll.
fn client(exchange: &HttpExchange<'_, '_>, sid: &[u8]) -> Result<(SessionId, u32), EngineError> {
    let HttpExchange { shared, socketio, .. } = exchange;
    let session = socketio.find(shared, sid).ok_or(EngineError::UnknownSession)?;
    match shared.sessions.get(session).destination() {
        Some(sessions::Destination::Poll(number)) => Ok((session, number)),
        _ => Err(EngineError::BadRequest),
    }
}

/// Begins a client that polls.
fn handshake(exchange: &mut HttpExchange<'_, '_>) -> MessageProgress {
    let now = exchange.reply.now.tick();
    let HttpExchange { shared, socketio, session, server, has_password, .. } = exchange;
    let Some(client) = socketio.begin_polling(shared, *session, now, server.limits()) else {
        exchange.answer_last(503, "too many clients; try again later (--max-connections)");
        return MessageProgress::Taken;
    };
    if *has_password {
        shared.set_authenticated(client, true);
    }
    let mut body = Vec::new();
    socketio.write_open(client, true, server.limits(), &mut body);
    exchange.answer(200, TEXT, &body, NO_STORE);
    // The handshake says no more than a connection does.
    MessageProgress::StaysSilent
}

/// Answers a poll with all output of the client, or makes it wait for some.
fn poll(exchange: &mut HttpExchange<'_, '_>, (_, client): (SessionId, u32)) -> MessageProgress {
    let HttpExchange { shared, socketio, .. } = exchange;
    match socketio.poll(shared, client) {
        PollOutcome::Output(body) => exchange.answer(200, TEXT, &body, NO_STORE),
        PollOutcome::Overlaps => return refuse(exchange, EngineError::BadRequest),
        PollOutcome::Waits => {
            let mut head = Vec::new();
            let closes = !exchange.begin_answer(TEXT, NO_STORE, &mut head);
            let poll = WaitingPoll { client, head: head.into(), closes };
            exchange.shared.polls.wait(exchange.session, poll);
            if let Some(own) = exchange.shared.sessions.get_mut(exchange.session) {
                own.protocol_state = POLLED;
            }
        }
    }
    MessageProgress::Taken
}

/// Serves the packets of a POST.
fn post(
    exchange: &mut HttpExchange<'_, '_>,
    client: (SessionId, u32),
    body: &[u8],
) -> MessageProgress {
    if exchange.head.header("content-type") == Some(b"application/octet-stream") {
        let HttpExchange { shared, socketio, .. } = exchange;
        socketio.end_polling(shared, client.1, None);
        return refuse(exchange, EngineError::BadRequest);
    }
    let HttpExchange { shared, socketio, session, reply, server, .. } = exchange;
    let progress = socketio.serve_packets(shared, client, *session, body, reply, *server);
    match progress {
        PacketProgress::Waits => return MessageProgress::Waits,
        PacketProgress::Ends(reason) => {
            let is_wrong = reason != Reason::ServiceClosed;
            let last = if is_wrong { None } else { Some(&b"6"[..]) };
            socketio.end_polling(shared, client.1, last);
        }
        PacketProgress::Taken | PacketProgress::StaysSilent => {}
    }
    exchange.answer(200, "text/html", b"ok", NO_STORE);
    match progress {
        PacketProgress::StaysSilent => MessageProgress::StaysSilent,
        _ => MessageProgress::Taken,
    }
}

/// Serves a request that upgrades its connection.
fn upgrade(exchange: &mut HttpExchange<'_, '_>, parameters: &Parameters) -> MessageProgress {
    let client = match &parameters.sid {
        None if !parameters.is_version_4 => {
            return refuse(exchange, EngineError::UnsupportedVersion);
        }
        None => None,
        Some(sid) => match exchange.socketio.find(exchange.shared, sid) {
            Some(_) if !parameters.is_version_4 => {
                return refuse(exchange, EngineError::BadRequest);
            }
            Some(client) => Some(client),
            None => return refuse(exchange, EngineError::UnknownSession),
        },
    };
    if !accept_websocket(exchange) {
        return MessageProgress::Taken;
    }
    let HttpExchange { shared, socketio, session, reply, server, has_password, .. } = exchange;
    if *has_password {
        shared.set_authenticated(*session, true);
    }
    shared.sessions.set_protocol(*session, PeerProtocol::SocketIo);
    match client {
        None => socketio.begin_websocket(shared, *session, reply, server.limits()),
        Some(client) => socketio.begin_probe(shared, client, *session, reply),
    }
    MessageProgress::StaysSilent
}
