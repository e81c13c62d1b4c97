//! The routes at work, on requests that are admitted and complete.

use std::io::Write;

use super::exchange::{HttpExchange, JSON, NO_STORE};
use super::routes::Route;
use super::{error_body, page, polling, retained, script, upgrade};
use crate::hub::protocol::progress::MessageProgress;
use crate::hub::verbs::VerbResult;
use crate::limits::INFO_STEPS;
use crate::metrics::prometheus::{self, MetricsForm};

/// Serves an admitted request whose body is complete.
pub fn serve(
    exchange: &mut HttpExchange<'_, '_>,
    route: &Route<'_>,
    body: &[u8],
) -> MessageProgress {
    note_request(exchange, route);
    match route {
        Route::Page => answer_page(exchange),
        Route::Script => answer_script(exchange),
        Route::Health => exchange.answer(200, JSON, b"{\"status\":\"ok\"}\n", NO_STORE),
        Route::Ready if exchange.server.is_draining() => {
            exchange.answer(503, JSON, b"{\"status\":\"draining\"}\n", NO_STORE);
        }
        Route::Ready => exchange.answer(200, JSON, b"{\"status\":\"ok\"}\n", NO_STORE),
        Route::Metrics => return answer_metrics(exchange),
        Route::Publish(channel) => return publish(exchange, channel, body),
        Route::WebSocket(channel) => return upgrade::to_websocket(exchange, channel.as_deref()),
        Route::Echo => return upgrade::to_echo(exchange),
        Route::SocketIo => return polling::serve(exchange, body),
        Route::Retained(channel, after) => return retained::serve(exchange, channel, *after),
        Route::Events(names, form) => return upgrade::to_events(exchange, names, *form),
    }
    MessageProgress::Taken
}

fn note_request(exchange: &mut HttpExchange<'_, '_>, route: &Route<'_>) {
    let agent = exchange.head.header("user-agent").unwrap_or_default();
    let number = route.number();
    let Some(own) = exchange.shared.sessions.get_mut(exchange.session) else { return };
    own.protocol_state = number;
    if own.agent == 0 && !agent.is_empty() {
        // The lines of CLIENT LIST have blanks between their fields.
        let plain = |byte: &u8| if byte.is_ascii_graphic() { *byte } else { b'_' };
        own.agent = exchange.shared.agents.take(&agent.iter().map(plain).collect::<Vec<_>>());
    }
}

fn answer_page(exchange: &mut HttpExchange<'_, '_>) {
    let (page, policy) = page::of(exchange.shared.demo);
    exchange.answer(200, "text/html; charset=utf-8", page.as_bytes(), &page::headers(policy));
}

/// Answers with the official client, unless the browser has it.
fn answer_script(exchange: &mut HttpExchange<'_, '_>) {
    let has_script = exchange.head.values("if-none-match").any(|tags| {
        tags.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|tag| {
            tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == script::TAG.as_bytes()
        })
    });
    match has_script {
        true => exchange.answer(304, "", b"", script::HEADERS),
        false => exchange.answer(200, script::CONTENT_TYPE, script::SCRIPT, script::HEADERS),
    }
}

/// Answers with all metrics. It counts as an INFO, and waits as one if clients have asked for
/// enough in this turn.
fn answer_metrics(exchange: &mut HttpExchange<'_, '_>) -> MessageProgress {
    if exchange.shared.must_wait_to_search(exchange.session) {
        return MessageProgress::Waits;
    }
    exchange.shared.asked += INFO_STEPS;
    let mut sections = exchange.server.metrics(&|_| true);
    sections.extend(exchange.shared.metrics(&|_| true));
    let form = MetricsForm::accepted(exchange.head.values("accept"));
    let mut text = Vec::new();
    prometheus::render(&sections, form, &mut text);
    exchange.answer(200, form.content_type(), &text, NO_STORE);
    MessageProgress::Taken
}

fn publish(exchange: &mut HttpExchange<'_, '_>, channel: &[u8], payload: &[u8]) -> MessageProgress {
    let HttpExchange { shared, session, server, .. } = exchange;
    match shared.publish_from(*session, channel, payload, *server) {
        VerbResult::Done(receivers) => {
            let mut body = [0; 40];
            let mut rest = &mut body[..];
            // The longest number has twenty digits.
            let _ = writeln!(rest, "{{\"receivers\":{receivers}}}");
            let length = 40 - rest.len();
            exchange.answer(200, JSON, &body[..length], NO_STORE);
        }
        VerbResult::Refused(text) => exchange.answer(400, JSON, &error_body(&text), &[]),
        VerbResult::Later => return MessageProgress::Waits,
    }
    MessageProgress::Taken
}
