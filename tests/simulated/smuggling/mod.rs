//! Requests that two servers might read differently are refused, and nothing behind them runs.

mod rows;

use slabd::codec::http::is_request_line;
use slabd::connection::Reason;
use slabd::net::sim::ClientId;

use crate::sim::{Sim, hub, limits, subscriber};
use rows::Row;

const GOOD: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The request behind each row. A refused request must take it along.
const BEHIND: &[u8] =
    b"POST /publish/owned HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1";

/// A hub, and a subscriber to the channel that only [`BEHIND`] publishes to.
struct Target {
    sim: Sim,
    witness: ClientId,
}

impl Target {
    fn new() -> Target {
        let mut sim = hub(limits());
        let witness = subscriber(&mut sim, "owned");
        Target { sim, witness }
    }

    /// Sends the pieces, each in a turn of its own, and checks the statuses of the answers.
    fn send(&mut self, pieces: &[&[u8]], expected: &[u16]) {
        let is_refused = !matches!(expected.last(), Some(200 | 404));
        let sim = &mut self.sim;
        let refused = sim.closed(Reason::ProtocolError);
        let client = sim.accepted();
        for piece in pieces {
            sim.send(client, piece);
            sim.turn();
        }
        let is_ended = sim.is_ended(client);
        let answer = sim.received(client);
        let shown = pieces.concat().escape_ascii().to_string();
        let shown = &shown[..shown.len().min(500)];
        assert_eq!(statuses(&answer), expected, "{shown}\n{answer}");
        assert_eq!(is_ended, is_refused, "{shown}");
        assert!(!is_refused || answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert!(!is_refused || answer.contains("{\"error\":\""), "{answer}");
        sim.net().client_close(client);
        sim.turns(3);
        assert_eq!(sim.closed(Reason::ProtocolError), refused + u64::from(is_refused), "{shown}");
        let heard = sim.received(self.witness);
        assert_eq!(heard.is_empty(), is_refused, "{shown}: {heard}");
    }
}

/// Returns the statuses of the answers, without 100.
fn statuses(answer: &str) -> Vec<u16> {
    let status = |at: usize| answer.get(at..at + 3)?.parse().ok();
    let found = answer.match_indices("HTTP/1.1 ").filter_map(|(at, line)| status(at + line.len()));
    found.filter(|status| *status != 100).collect()
}

/// Returns the statuses of the answers to some requests that are served and to a row.
fn expected(before: &[u16], status: u16) -> Vec<u16> {
    let behind: &[u16] = if matches!(status, 200 | 404) { &[200] } else { &[] };
    [before, &[status], behind].concat()
}

#[test]
fn a_refused_request_ends_its_connection_and_nothing_behind_it_runs() {
    let mut target = Target::new();
    let rows = rows::rows();
    assert!(rows.len() >= 200);
    for (bytes, status) in &rows {
        let expected = expected(&[200], *status);
        target.send(&[&[GOOD, bytes, BEHIND].concat()], &expected);
        target.send(&[GOOD, bytes, BEHIND], &expected);
    }
}

#[test]
fn a_refused_request_is_refused_however_its_bytes_arrive() {
    let mut target = Target::new();
    for (bytes, status) in &rows::rows() {
        // Requests of thousands of bytes arrive in some hundred pieces.
        let pieces: Vec<&[u8]> = bytes.chunks(bytes.len() / 300 + 1).collect();
        let pieces = [&[GOOD][..], &pieces, &[BEHIND]].concat();
        target.send(&pieces, &expected(&[200], *status));
    }
}

#[test]
fn a_refused_first_request_is_refused_as_any_other() {
    let mut target = Target::new();
    let is_first = |(bytes, _): &&Row| {
        let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        line.strip_suffix(b"\r").is_some_and(is_request_line)
    };
    let rows = rows::rows();
    let rows: Vec<&Row> = rows.iter().filter(is_first).collect();
    assert!(rows.len() >= 200);
    for (bytes, status) in rows {
        let expected = expected(&[], *status);
        target.send(&[&[bytes, BEHIND].concat()], &expected);
        let (front, back) = bytes.split_at(bytes.len() / 2);
        target.send(&[front, back, BEHIND], &expected);
    }
}
