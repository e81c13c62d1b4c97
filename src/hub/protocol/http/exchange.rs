//! One request: who may send it, and how it is answered.

use log::{debug, log_enabled};

use super::routes::Route;
use super::{Http, access, error_body, target};
use crate::codec::engineio::EngineError;
use crate::codec::http::{BodyFraming, RequestHead, Response};
use crate::hub::Shared;
use crate::hub::access::Attempt;
use crate::hub::protocol::socketio::SocketIo;
use crate::hub::sessions::SessionId;
use crate::hub::verbs::VerbResult;
use crate::service::Reply;
use crate::service::server::Server;

pub const JSON: &str = "application/json";

/// The methods of RFC 9110 and RFC 5789 whose target is a path. Others are not implemented.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"];

/// Methods and headers that pages of allowed origins may use.
const PREFLIGHT: [(&str, &str); 3] = [
    ("Access-Control-Allow-Methods", "GET, HEAD, POST"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID, Cache-Control"),
    ("Access-Control-Max-Age", "600"),
];

/// A request that is served, and the means to answer it.
pub struct HttpExchange<'a, 'b> {
    pub http: &'a mut Http,
    pub socketio: &'a mut SocketIo,
    pub shared: &'a mut Shared,
    pub session: SessionId,
    pub reply: &'a mut Reply<'b>,
    pub server: &'a mut dyn Server,
    pub head: &'a RequestHead<'a>,
    /// True once the head is admitted and the body is complete. Before that, the answer to a
    /// request with a body closes the connection.
    pub is_admitted: bool,
    /// True if the request has the right password, or the sid of a client that gave it. A proxy may
    /// send requests of several clients over a connection, so only an upgrade makes the whole
    /// session authenticated.
    pub has_password: bool,
}

/// The decision about a head.
pub enum HeadDecision<'a> {
    Route(Route<'a>),
    /// The answer to a wrong password must wait.
    Waits,
    /// The answer is sent.
    Refused,
}

impl<'a> HttpExchange<'a, '_> {
    /// Decides about a request by its head. Host and Origin come first, because a page of another
    /// origin must learn nothing.
    pub fn admit(&mut self) -> HeadDecision<'a> {
        let head = self.head;
        let route = Route::of(head.target, &self.server.limits().socketio_path);
        if !route.as_ref().is_ok_and(Route::is_harmless)
            && let Err(text) = self.check_origin()
        {
            let body = match route {
                Ok(Route::SocketIo) => EngineError::Forbidden.body_with(text),
                _ => error_body(text),
            };
            self.answer(403, JSON, &body, &[]);
            return HeadDecision::Refused;
        }
        if !METHODS.contains(&head.method) {
            return self.refused(501, "unknown method; expected GET, HEAD, POST or OPTIONS");
        }
        let route = match route {
            _ if head.method == "OPTIONS" && head.target == "*" => Route::Health,
            Ok(route) => route,
            Err(error) => return self.refused(error.status(), error.text()),
        };
        if head.method == "OPTIONS" {
            self.answer_options(&route);
            return HeadDecision::Refused;
        }
        let allows = route.allows();
        if !allows.split(", ").any(|method| method == head.method) {
            let text = format!("this path takes {allows}");
            self.answer(405, JSON, &error_body(&text), &[("Allow", allows)]);
            return HeadDecision::Refused;
        }
        match self.log_in(&route) {
            Some(refusal) => refusal,
            None => HeadDecision::Route(route),
        }
    }

    /// Checks the names that a browser reached the server by, and the page that sent the request.
    fn check_origin(&self) -> Result<(), &'static str> {
        let limits = self.server.limits();
        if !access::host_is_allowed(self.head.host, limits.allow_host.names()) {
            return Err("this Host is not allowed; use an address or localhost, or start the \
                        server with --allow-host NAME");
        }
        let allowed = access::origin_of(self.head, limits.allow_origin.names());
        allowed.map(drop).map_err(|()| match self.head.header("origin") {
            Some(b"null") => {
                "pages without an Origin of their own are not served; serve the page \
                              by HTTP"
            }
            Some(_) => {
                "pages of this Origin are not allowed; start the server with --allow-origin ORIGIN"
            }
            None => "other sites may only link to the page at /",
        })
    }

    /// Checks the password where the route needs one. Returns the decision if the request does not
    /// go on.
    fn log_in(&mut self, route: &Route<'_>) -> Option<HeadDecision<'a>> {
        if !self.shared.access.needs_password() {
            return None;
        }
        let Some((user, password)) = self.credentials() else {
            if !route.needs_password() {
                return None;
            }
            self.shared.note_refused(self.session, self.server);
            return Some(self.unauthorized("the password is missing"));
        };
        let now = self.reply.now;
        match self.shared.log_in(self.session, user.as_deref(), &password, now, self.server) {
            VerbResult::Done(Attempt::Right) => {
                self.reply.trust(true);
                self.has_password = true;
                None
            }
            VerbResult::Done(_) | VerbResult::Refused(_) => {
                Some(self.unauthorized("wrong password"))
            }
            VerbResult::Later => Some(HeadDecision::Waits),
        }
    }

    /// Returns the user and the password of the request, from the header or the query.
    fn credentials(&self) -> Option<(Option<Vec<u8>>, Vec<u8>)> {
        if let Some(value) = self.head.header("authorization") {
            return access::credentials(value);
        }
        let (_, query) = target::split(self.head.target);
        let mut pairs = target::pairs(query).flatten();
        let token = pairs.find(|(key, _)| **key == *b"token")?;
        Some((None, token.1.into_owned()))
    }

    fn unauthorized(&mut self, what: &str) -> HeadDecision<'a> {
        let text = format!(
            "{what}; send Authorization: Bearer PASSWORD, or Basic with the user default, or \
             ?token=PASSWORD"
        );
        let challenge = [("WWW-Authenticate", "Basic realm=\"slabd\", charset=\"UTF-8\"")];
        self.answer(401, JSON, &error_body(&text), &challenge);
        HeadDecision::Refused
    }

    fn refused(&mut self, status: u16, text: &str) -> HeadDecision<'a> {
        self.answer(status, JSON, &error_body(text), &[]);
        HeadDecision::Refused
    }

    fn answer_options(&mut self, route: &Route<'_>) {
        let mut extra = vec![("Allow", route.allows())];
        if self.head.header("access-control-request-method").is_some() {
            extra.extend(PREFLIGHT);
        }
        self.answer(204, "", b"", &extra);
    }

    /// Appends an error, and closes the connection with the subscriptions that it has begun.
    pub fn answer_last(&mut self, status: u16, text: &str) {
        let body = error_body(text);
        self.write(status, JSON, false, &[], |response, out| response.write(out, &body, false));
        self.reply.close();
    }

    /// Appends an answer, and closes the connection if it is the last one.
    pub fn answer(&mut self, status: u16, content_type: &str, body: &[u8], extra: &[(&str, &str)]) {
        let keep_alive = self.keeps_alive();
        let head_only = self.head.method == "HEAD";
        self.write(status, content_type, keep_alive, extra, |response, out| {
            response.write(out, body, head_only);
        });
        if !keep_alive {
            self.reply.close();
        }
    }

    /// Appends the head of an answer to `head`, up to the value of Content-Length. The answer
    /// follows later. Returns false if the connection closes behind it.
    pub fn begin_answer(
        &mut self,
        content_type: &str,
        extra: &[(&str, &str)],
        head: &mut Vec<u8>,
    ) -> bool {
        let keep_alive = self.keeps_alive();
        self.write(200, content_type, keep_alive, extra, |response, _| {
            response.write_head_to_length(head);
        });
        keep_alive
    }

    /// Returns whether the connection stays behind the answer.
    fn keeps_alive(&self) -> bool {
        let is_readable = self.is_admitted || self.head.framing == BodyFraming::None;
        // A session without the password is closed at a deadline, so it had better end in order.
        let may_stay = self.has_password || !self.shared.access.needs_password();
        self.head.keep_alive && is_readable && may_stay && !self.server.is_draining()
    }

    /// Appends an answer, whose form `write` decides, with the headers that all answers have.
    pub fn write(
        &mut self,
        status: u16,
        content_type: &str,
        keep_alive: bool,
        extra: &[(&str, &str)],
        write: impl FnOnce(&Response<'_>, &mut Vec<u8>),
    ) {
        self.log(status);
        let HttpExchange { http, shared, server, reply, head, .. } = self;
        shared.http_requests += 1;
        let origin = access::origin_of(head, server.limits().allow_origin.names());
        let cors;
        let mut extra = extra;
        if let Ok(Some(origin)) = origin {
            let both = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")];
            cors = [extra, &both].concat();
            extra = &cors;
        }
        let date = http.date.text(reply, *server);
        let minor = head.minor;
        let response = Response { status, content_type, minor, keep_alive, date, extra };
        write(&response, reply.bytes_mut());
    }

    /// Writes the access log. The query stays out, because it may hold the password.
    fn log(&self, status: u16) {
        if log_enabled!(log::Level::Debug) {
            let peer = self.shared.peer(self.session, self.server);
            let peer = peer.map_or("?".into(), |peer| peer.to_string());
            let (path, _) = target::split(self.head.target);
            debug!("{peer} {} {path} {status}", self.head.method);
        }
    }
}

/// The headers of an answer that is true only now.
pub const NO_STORE: &[(&str, &str)] = &[("Cache-Control", "no-store")];
