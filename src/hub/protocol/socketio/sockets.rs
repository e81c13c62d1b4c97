//! Sockets: a client in a namespace, from CONNECT to its end.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, PacketProgress, WRONG};
use super::{HAS_CONNECTED, IS_SOCKET, SocketIo};
use crate::codec::engineio::Framing;
use crate::codec::socketio;
use crate::hub::Shared;
use crate::hub::access::Attempt;
use crate::hub::channels::Kind;
use crate::hub::encoding::{CatchUpForm, Encoding};
use crate::hub::json::JsonText;
use crate::hub::sessions::{FURTHER, SessionId};
use crate::hub::verbs::VerbResult;
use crate::limits::{AUTH_KEPT_MAX, DEPARTURES_MAX, LEAVES_AT_ONCE};
use crate::routes::{EventRate, EventRoutes, Newcomers, Sender};

/// How often a client may connect to a namespace whose routes publish then.
const CONNECT_RATE: EventRate = EventRate { count: 10, per: Duration::from_secs(60) };

/// Stands for the route of connects to the first namespace. Each further one has the next below.
const CONNECT_ROUTE: u16 = u16::MAX;

/// The password in the `auth` of a CONNECT.
#[derive(Default, Deserialize)]
struct Credentials<'a> {
    #[serde(borrow)]
    password: Option<JsonText<'a>>,
    #[serde(borrow)]
    token: Option<JsonText<'a>>,
}

impl Client<'_> {
    /// Returns the socket of the client in a namespace.
    pub fn socket(&self, namespace: u8) -> Option<SessionId> {
        self.io.sockets(self.shared, self.session).find(|(_, of)| *of == namespace).map(|one| one.0)
    }

    /// Connects the client to a namespace.
    pub fn connect(&mut self, name: &str, data: &[u8]) -> PacketProgress {
        let routes = self.shared.fanout.routes().clone();
        let Some(namespace) = routes.namespace(name) else {
            self.refuse(name, "Invalid namespace");
            return self.taken();
        };
        if self.socket(namespace).is_some() {
            return WRONG;
        }
        let auth: Option<&RawValue> = serde_json::from_slice(data).ok();
        if !self.shared.is_authenticated(self.session) {
            match self.log_in(auth) {
                VerbResult::Done(()) => *self.trusts = Some(true),
                VerbResult::Later => return PacketProgress::Waits,
                VerbResult::Refused(text) => {
                    self.refuse(name, &text);
                    return self.taken();
                }
            }
        }
        let kept = match routes.auth(namespace, auth) {
            Ok(kept) if kept.len() <= AUTH_KEPT_MAX => kept,
            Ok(_) => {
                self.refuse(name, &format!("auth is too long; accepted: {AUTH_KEPT_MAX} bytes"));
                return self.taken();
            }
            Err(text) => {
                self.refuse(name, &text);
                return self.taken();
            }
        };
        let publishes = !routes.on_connect(namespace).is_empty();
        if publishes || !routes.on_disconnect(namespace).is_empty() {
            let is_busy = self.shared.is_held_up || self.shared.fanout.is_backlogged();
            let Shared { publishers, sessions, .. } = &mut *self.shared;
            if publishers.must_wait(sessions, self.speaker, is_busy && publishes) {
                return PacketProgress::Waits;
            }
            // Else a client that connects and disconnects would publish without end.
            let route = CONNECT_ROUTE - u16::from(namespace);
            if !self.io.rates.allow(self.session.serial, route, CONNECT_RATE, self.now) {
                self.refuse(name, &format!("too many connects; accepted: {CONNECT_RATE}"));
                return self.taken();
            }
        }
        let had_connected = self.shared.sessions.get(self.session).protocol_state & HAS_CONNECTED;
        let socket = self.open_socket(namespace);
        if !kept.is_empty() {
            self.io.held += kept.len();
            self.io.auths.insert(socket, kept.into());
        }
        if let Err(text) = self.subscribe_to_routes(&routes, namespace, socket) {
            // Others have not heard of the socket.
            self.io.forget_auth(socket);
            self.close_socket(socket);
            if let Some(own) = self.shared.sessions.get_mut(self.session) {
                own.protocol_state = own.protocol_state & !HAS_CONNECTED | had_connected;
            }
            self.refuse(name, &text);
            return self.taken();
        }
        self.run_on_connect(&routes, namespace, socket);
        PacketProgress::Taken
    }

    fn refuse(&mut self, name: &str, text: &str) {
        self.framing.text(self.out, |out| socketio::write_connect_error(out, name, text));
    }

    /// Checks the password in the `auth` of a CONNECT.
    fn log_in(&mut self, auth: Option<&RawValue>) -> VerbResult<()> {
        let given: Credentials<'_> =
            auth.and_then(|auth| serde_json::from_str(auth.get()).ok()).unwrap_or_default();
        let Some(JsonText(password)) = given.password.or(given.token) else {
            self.shared.note_refused(self.speaker, self.server);
            return VerbResult::Refused(
                "the password is missing; connect with auth: {password: \"PASSWORD\"}".into(),
            );
        };
        let password = password.as_bytes();
        match self.shared.log_in(self.speaker, None, password, self.now, self.server) {
            VerbResult::Done(Attempt::Right | Attempt::NoPassword) => {
                self.shared.set_authenticated(self.session, true);
                VerbResult::Done(())
            }
            VerbResult::Later => VerbResult::Later,
            VerbResult::Done(Attempt::Wrong) | VerbResult::Refused(_) => {
                VerbResult::Refused("wrong password".into())
            }
        }
    }

    /// Makes a socket of the client: its own session, or a further one.
    fn open_socket(&mut self, namespace: u8) -> SessionId {
        let encoding = match self.framing {
            Framing::Frames => Encoding::SocketIo(namespace),
            Framing::Poll => Encoding::SocketIoPolling(namespace),
        };
        let own = self.shared.sessions.get(self.session);
        let is_first = own.protocol_state & IS_SOCKET == 0;
        let socket = match own.destination() {
            Some(destination) if !is_first => {
                let now = self.now.tick();
                let socket = self.shared.sessions.open_beside(self.session, destination, now);
                self.io.further.entry(self.session).or_default().push(socket);
                socket
            }
            _ => self.session,
        };
        if let Some(own) = self.shared.sessions.get_mut(socket) {
            own.encoding = encoding;
            own.put(FURTHER, !is_first);
        }
        if let Some(own) = self.shared.sessions.get_mut(self.session) {
            own.protocol_state |= HAS_CONNECTED | if is_first { IS_SOCKET } else { 0 };
        }
        socket
    }

    /// Subscribes a new socket to the channels that the routes of its namespace name. The answer to
    /// its CONNECT precedes their messages.
    fn subscribe_to_routes(
        &mut self,
        routes: &EventRoutes,
        namespace: u8,
        socket: SessionId,
    ) -> Result<(), String> {
        let sid = self.io.socket_sid(socket);
        let sid = std::str::from_utf8(&sid).unwrap_or_default();
        let start = self.out.len();
        let name = routes.namespace_name(namespace);
        self.framing.text(self.out, |out| socketio::write_connect(out, name, sid));
        let all = self.shared.has_cluster().then_some((Kind::Feed, name));
        let channels = routes.channels(namespace).map(|channel| (Kind::Channel, channel));
        for (kind, channel) in all.into_iter().chain(channels) {
            let channel = channel.as_bytes();
            let subscribed = self.shared.subscribe_to(socket, kind, channel, self.server, self.out);
            if let Err(text) = subscribed {
                self.out.truncate(start);
                return Err(text);
            }
        }
        for channel in routes.channels(namespace) {
            let form = match routes.from(namespace, channel.as_bytes()).map(|from| &from.newcomers)
            {
                None | Some(Newcomers::GetNothing) => continue,
                Some(Newcomers::GetEach) => CatchUpForm::Messages,
                Some(Newcomers::GetAll(event)) => CatchUpForm::Array(Rc::clone(event)),
            };
            self.shared.catch_up(socket, channel.as_bytes(), form);
        }
        Ok(())
    }

    fn run_on_connect(&mut self, routes: &EventRoutes, namespace: u8, socket: SessionId) {
        let auth = self.io.auths.get(&socket).map(|auth| auth.to_string()).unwrap_or_default();
        let sid = self.io.socket_sid(socket);
        let sid = std::str::from_utf8(&sid).unwrap_or_default();
        for route in routes.on_connect(namespace) {
            let sender = Sender { sid, auth: &auth };
            match route.run(&[], &sender) {
                // It has waited already, before the socket was there.
                Ok(actions) => drop(self.act(namespace, socket, actions, None, false)),
                Err(_) => self.shared.socketio.refused += 1,
            }
        }
    }

    /// Ends a socket as its client asks.
    pub fn disconnect(&mut self, namespace: u8, socket: SessionId) -> PacketProgress {
        if self.shared.channels.len(socket.index) > LEAVES_AT_ONCE && socket == self.session {
            // Its subscriptions would end over many turns, and the session goes on.
            return PacketProgress::Ends(crate::connection::Reason::ServiceClosed);
        }
        self.end_socket(namespace, socket);
        PacketProgress::Taken
    }

    fn end_socket(&mut self, namespace: u8, socket: SessionId) {
        self.io.announce_end(self.shared, namespace, socket);
        self.close_socket(socket);
    }

    fn close_socket(&mut self, socket: SessionId) {
        if socket != self.session {
            if let Some(further) = self.io.further.get_mut(&self.session) {
                further.retain(|one| *one != socket);
                if further.is_empty() {
                    self.io.further.remove(&self.session);
                }
            }
            return self.shared.end(socket);
        }
        self.shared.leave(socket);
        self.io.rejoins.entry(socket).and_modify(|times| *times += 1).or_insert(1);
        if let Some(own) = self.shared.sessions.get_mut(socket) {
            own.protocol_state &= !IS_SOCKET;
        }
    }
}

impl SocketIo {
    /// Returns the sockets of a client, with their namespaces.
    pub fn sockets<'a>(
        &'a self,
        shared: &'a Shared,
        client: SessionId,
    ) -> impl Iterator<Item = (SessionId, u8)> + 'a {
        let is_socket = shared.sessions.get(client).protocol_state & IS_SOCKET != 0;
        let further = match self.further.is_empty() {
            true => None,
            false => self.further.get(&client),
        };
        let all = is_socket.then_some(client).into_iter();
        let all = all.chain(further.into_iter().flatten().copied());
        all.filter_map(|socket| Some((socket, shared.sessions.get(socket).encoding.namespace()?)))
    }

    /// Finds the socket of a public sid, whether or not it has ended.
    pub fn find_socket(&self, sid: &[u8]) -> Option<SessionId> {
        let socket = self.sids.find_socket(sid)?;
        (self.socket_sid(socket) == sid).then_some(socket)
    }

    /// Returns the public sid of a socket.
    pub fn socket_sid(&self, socket: SessionId) -> [u8; 20] {
        self.sids.socket(socket, self.rejoins.get(&socket).copied().unwrap_or_default())
    }

    /// Ends all sockets of a client.
    pub fn end_sockets(&mut self, shared: &mut Shared, client: SessionId) {
        let sockets: Vec<(SessionId, u8)> = self.sockets(shared, client).collect();
        for (socket, namespace) in sockets {
            self.announce_end(shared, namespace, socket);
            if socket != client {
                shared.end(socket);
            }
        }
        self.further.remove(&client);
        self.rejoins.remove(&client);
    }

    /// Forgets what is kept of the `auth` of a socket.
    fn forget_auth(&mut self, socket: SessionId) -> Option<Box<str>> {
        let auth = self.auths.remove(&socket)?;
        self.held -= auth.len();
        Some(auth)
    }

    /// Queues what the routes of a namespace publish when a socket ends. Sockets may end by the
    /// thousand in one turn, so their messages leave as the backlog allows.
    fn announce_end(&mut self, shared: &mut Shared, namespace: u8, socket: SessionId) {
        let auth = self.forget_auth(socket);
        let routes = shared.fanout.routes().clone();
        let sid = self.socket_sid(socket);
        let sid = std::str::from_utf8(&sid).unwrap_or_default();
        let auth: Cow<'_, str> = auth.as_deref().map_or("".into(), Cow::from);
        for route in routes.on_disconnect(namespace) {
            let actions = route.run(&[], &Sender { sid, auth: &auth });
            let Some((channel, payload)) = actions.ok().and_then(|actions| actions.publish) else {
                continue;
            };
            if self.departures.len() == DEPARTURES_MAX {
                shared.socketio.refused += 1;
                continue;
            }
            self.held += channel.len() + payload.len();
            self.departures.push_back((channel, payload));
        }
    }

    /// Publishes the queued messages, while there is no backlog.
    pub fn publish_departures(&mut self, shared: &mut Shared) {
        while !shared.fanout.has_backlog()
            && let Some((channel, payload)) = self.departures.pop_front()
        {
            self.held -= channel.len() + payload.len();
            // The socket is gone, so nobody can be told of an error.
            let _ = shared.publish(&channel, &payload);
        }
    }
}
