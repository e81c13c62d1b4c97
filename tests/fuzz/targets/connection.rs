//! A whole connection: its answers do not depend on the cuts of its bytes or on the budgets of a
//! turn. The target runs the real loop twice on the simulated network, and checks its invariants
//! after every turn.
//!
//! Messages and MONITOR lines may come before or after answers, so they are compared separately.

use slabd::buffer::BufferMode;
use slabd::codec::resp::{CommandLimits, Frame, Parser, frame};
use slabd::hub::Hub;
use slabd::limits::Limits;
use slabd::net::Net;
use slabd::net::sim::{End, SimNet};
use slabd::reactor::Reactor;
use slabd::service::echo::Echo;
use slabd::service::hello::Hello;
use slabd::service::{Options, Secret, Service};

/// Maximum number of pieces of a stream. Each costs a turn, and checking its invariants is slow.
const PIECES_MAX: usize = 24;

/// The client's window in bytes: more than the answers of a turn.
const WINDOW: usize = 4 << 20;

/// The choices of the first bytes.
struct Plan {
    service: u8,
    password: bool,
    /// Lengths of the pieces, used repeatedly.
    pieces: Vec<usize>,
    limits: Limits,
}

/// The client's view of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    bytes: Vec<u8>,
    /// True if the server closed it before the client shut its side.
    closed_early: bool,
    end: End,
}

/// Runs the target. The first byte chooses service, password and budgets. The second is the number
/// of following bytes that are lengths of pieces. The other bytes are the stream.
pub fn connection(data: &[u8]) {
    let [choice, count, rest @ ..] = data else { return };
    let (lengths, stream) = rest.split_at(usize::from(count % 8).min(rest.len()));
    let budget = usize::from(choice >> 4) + 1;
    let plan = Plan {
        service: choice & 3,
        password: choice & 4 != 0,
        pieces: lengths.iter().map(|length| usize::from(*length).max(1)).collect(),
        limits: match choice & 8 {
            0 => limits(),
            _ => Limits {
                messages_per_turn: budget,
                reads_per_turn: 1,
                deliveries_per_turn: budget,
                ..limits()
            },
        },
    };
    let whole = serve(&Plan { pieces: Vec::new(), limits: limits(), ..plan }, stream);
    let split = serve(&plan, stream);
    match plan.service {
        2 => assert_eq!((&whole.bytes[..], &split.bytes[..]), (stream, stream)),
        3 => assert_eq!(whole, split, "{}", stream.escape_ascii()),
        _ => compare(&whole, &split, stream),
    }
}

fn limits() -> Limits {
    Limits { max_connections: 4, ..Limits::default() }
}

fn service(plan: &Plan) -> Box<dyn Service> {
    match plan.service {
        2 => Box::new(Echo),
        3 => Box::new(Hello),
        _ => {
            let password = plan.password.then(|| Secret(b"pw"[..].into()));
            Box::new(Hub::new(&Options { password, max_connections: 4, ..Options::default() }))
        }
    }
}

/// Runs a connection to its end.
fn serve(plan: &Plan, stream: &[u8]) -> Seen {
    let mut reactor = Reactor::new(SimNet::new(0), plan.limits.clone(), BufferMode::Pooled);
    let service = reactor.add_service(service(plan));
    let listener =
        reactor.listen("127.0.0.1:0".parse().expect("an address"), 8, service).expect("a listener");
    let client = reactor.net_mut().client(listener).expect("room in the accept queue");
    reactor.net_mut().set_window(client, WINDOW);
    let mut bytes = Vec::new();
    let mut rest = stream;
    let mut pieces = plan.pieces.iter().cycle().take(PIECES_MAX);
    while !rest.is_empty() {
        let length = pieces.next().map_or(rest.len(), |length| (*length).min(rest.len()));
        let (piece, behind) = rest.split_at(length);
        reactor.net_mut().client_send(client, piece);
        rest = behind;
        turn(&mut reactor);
        bytes.extend(reactor.net_mut().client_received(client));
    }
    let until_quiet = |reactor: &mut Reactor<SimNet>, bytes: &mut Vec<u8>| {
        let mut quiet = 0;
        while quiet < 3 {
            let before = reactor.stats().work.counts();
            turn(reactor);
            bytes.extend(reactor.net_mut().client_received(client));
            quiet = if reactor.stats().work.counts() == before { quiet + 1 } else { 0 };
        }
    };
    until_quiet(&mut reactor, &mut bytes);
    let closed_early = reactor.net_mut().client_saw(client) != End::Open;
    reactor.net_mut().client_shutdown(client);
    until_quiet(&mut reactor, &mut bytes);
    assert_eq!(reactor.connections(), 0, "the connection is still open: {}", stream.escape_ascii());
    Seen { bytes, closed_early, end: reactor.net_mut().client_saw(client) }
}

/// Turns the loop once. Time stands still, so no deadline passes.
fn turn(reactor: &mut Reactor<SimNet>) {
    let now = reactor.net_mut().now();
    reactor.net_mut().hold_time_at(now);
    reactor.turn().expect("a turn");
    reactor.check_invariants();
}

fn compare(whole: &Seen, split: &Seen, stream: &[u8]) {
    if tells_of_the_loop(stream) {
        return;
    }
    let shown = || stream.escape_ascii();
    assert_eq!((whole.closed_early, whole.end), (split.closed_early, split.end), "{}", shown());
    let ((answers, messages), (split_answers, split_messages)) =
        (sorted(&whole.bytes), sorted(&split.bytes));
    assert_eq!(lines(&answers), lines(&split_answers), "answers to {}", shown());
    // A connection that is closed for its input may end before its messages are delivered.
    let (shorter, longer) =
        (messages.len().min(split_messages.len()), messages.len().max(split_messages.len()));
    assert!(
        shorter == longer || whole.closed_early,
        "{} messages in one run and {} in the other: {}",
        messages.len(),
        split_messages.len(),
        shown()
    );
    assert_eq!(
        lines(&messages[..shorter]),
        lines(&split_messages[..shorter]),
        "messages of {}",
        shown()
    );
}

/// Escapes values for a failure message.
fn lines(values: &[&[u8]]) -> Vec<String> {
    values.iter().map(|value| value.escape_ascii().to_string()).collect()
}

/// True if a command's answer depends on turns and buffers, or if a command changes limits.
fn tells_of_the_loop(mut stream: &[u8]) -> bool {
    let (limits, mut parser) = (CommandLimits::default(), Parser::default());
    while let Frame::Command { message, length } = frame(stream, 0, &limits) {
        let Ok(command) = parser.parse(message, &limits) else { return false };
        let word = |index: usize| command.get(index).unwrap_or_default().to_ascii_lowercase();
        match (&word(0)[..], &word(1)[..]) {
            (b"info" | b"memory" | b"shutdown", _) => return true,
            (b"client", b"list" | b"info" | b"closed") | (b"config", b"get" | b"set") => {
                return true;
            }
            _ => stream = &stream[length..],
        }
    }
    false
}

/// Separates the answers from the messages and MONITOR lines, which lose the byte in which the
/// protocols differ.
fn sorted(mut bytes: &[u8]) -> (Vec<&[u8]>, Vec<&[u8]>) {
    let (mut answers, mut messages) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        // The answer to an HTTP request is not RESP, and is the last one.
        let length = if bytes.starts_with(b"HTTP/") { bytes.len() } else { value(bytes) };
        let (value, rest) = bytes.split_at(length);
        let has = |head: &[u8]| value[1..].starts_with(head);
        let is_message = has(b"3\r\n$7\r\nmessage\r\n")
            || has(b"4\r\n$8\r\npmessage\r\n")
            || has(b"3\r\n$8\r\nsmessage\r\n");
        let is_monitored = value[0] == b'+' && value[1].is_ascii_digit();
        if is_message || is_monitored {
            messages.push(&value[1..])
        } else {
            answers.push(value)
        }
        bytes = rest;
    }
    (answers, messages)
}

/// Returns the length of the value at the front. Panics if there is none.
fn value(bytes: &[u8]) -> usize {
    let (mut at, mut due) = (0, 1);
    while due > 0 {
        let rest = &bytes[at..];
        let end = rest.iter().position(|byte| *byte == b'\r').expect("a line of a value");
        assert_eq!(rest[end + 1], b'\n');
        let number = || {
            std::str::from_utf8(&rest[1..end])
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .expect("a number")
        };
        at += end + 2;
        due -= 1;
        match rest[0] {
            b'+' | b'-' | b':' | b'_' => {}
            b'$' | b'=' if number() < 0 => {}
            b'$' | b'=' => {
                at += number() as usize + 2;
                assert_eq!(&bytes[at - 2..at], b"\r\n");
            }
            b'*' | b'>' => due += number(),
            b'%' => due += 2 * number(),
            other => {
                panic!("a value begins with {}, which RESP does not have", other.escape_ascii())
            }
        }
    }
    at
}
