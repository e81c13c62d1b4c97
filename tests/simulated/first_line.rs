//! The guard of a connection's first line: if it is no command, nothing behind it runs.

use slabd::codec::http::is_request_line;
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{FIRST_WORD_MAX, LEADING_BLANKS_MAX};
use slabd::net::sim::{ClientId, End};
use slabd::service::{Options, Secret};

use crate::sim::{Sim, hub, limits, subscriber};

/// The command that must not run.
const BEHIND: &[u8] = b"PUBLISH owned 1\r\n";

/// What other programs send first. Commands of the hub may follow each of them.
const OTHERS: &[&[u8]] = &[
    // HTTP, as browsers, libraries and careless programs send it.
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /\r\n",
    b"post / HTTP/1.1\r\n\r\n",
    b"POST  / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\nHost: a\n\n",
    b"\r\nPOST / HTTP/1.1\r\n\r\n",
    b"POST /\"' HTTP/1.1\r\n\r\n",
    b"POST /\xc3\xa9 HTTP/1.1\r\n\r\n",
    b"PURGE /x HTTP/1.1\r\n\r\n",
    b"PROPFIND /x HTTP/1.1\r\n\r\n",
    b"VERSION-CONTROL /x HTTP/1.1\r\n\r\n",
    b"M-SEARCH * HTTP/1.1\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    // Methods that are commands of the hub.
    b"PING / HTTP/1.1\r\n\r\n",
    b"ping / HTTP/1.1\r\n\r\n",
    b"INFO / HTTP/1.1\r\n\r\n",
    b"SHUTDOWN / HTTP/1.1\r\n\r\n",
    b"ECHO /\thttp HTTP/1.0\r\n\r\n",
    b"SUBSCRIBE sip:a SIP/2.0\r\nVia: a\r\n\r\n",
    b"PUBLISH sip:a SIP/2.0\r\n\r\n",
    b"INFO sip:a SIP/2.0\r\n\r\n",
    // Protocols of lines.
    b"OPTIONS rtsp://a/x RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    b"REQMOD icap://x ICAP/1.0\r\n\r\n",
    b"OPTIONS sip:a SIP/2.0\r\n\r\n",
    b"EHLO a\r\n",
    b"HELO a\r\n",
    b"USER a\r\n",
    b"AUTH TLS\r\n",
    b"AUTH\r\n",
    b"HELLO a\r\n",
    b"CLIENT\r\n",
    b"SELECT \"INBOX\"\r\n",
    b"a1 SELECT INBOX\r\n",
    b"NICK a\r\n",
    b"set key 0 0 1\r\n",
    b"get key\r\n",
    b"CONNECT\naccept-version:1.2\n\n\0",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
    b"<?xml version='1.0'?>\n",
    b"{\"method\":\"mining.subscribe\"}\n",
    b"<34>1 2003-10-11T22:14:15Z a - - -\n",
    b"/index\r\n",
    b"$4\r\nPING\r\n",
    b"+OK\r\n",
    // Binary protocols.
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03AAAA\0\0\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    b"AMQP\0\0\x09\x01\n",
    b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0\n",
    b"\0\0\0\x08\x04\xd2\x16\x2f\n",
    b"\x05\x01\0\n",
    b"\x04\x01\0\x50\n",
    b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0Cookie: mstshash=a\r\n",
    b"\0\x1d\x12\x34\x01\0\0\x01\n",
    b"\x80\0\0\x03\n",
    b"\xfeSMB@\0\n",
    b"\xff\xfb\x1f\n",
    b"PING\x1b[A\r\n",
    b"PING\rPING\r\n",
    b"ECHO a\x7f\r\n",
    b"ECHO \"a\r\n",
];

/// A hub, a subscriber to the channel `owned`, and the hub's commands.
struct Target {
    sim: Sim,
    witness: ClientId,
    names: Vec<String>,
}

impl Target {
    fn new() -> Target {
        let mut sim = hub(limits());
        let witness = subscriber(&mut sim, "owned");
        let asker = sim.accepted();
        let listed = sim.exchange(asker, "*2\r\n$7\r\nCOMMAND\r\n$4\r\nLIST\r\n");
        let names = listed.lines().filter(|line| !line.starts_with(['*', '$']));
        let names = names.map(str::to_owned).collect();
        sim.net().client_close(asker);
        sim.turns(2);
        Target { sim, witness, names }
    }

    /// Sends the pieces, each in a turn of its own. Returns the answer.
    fn attack(&mut self, pieces: &[&[u8]]) -> Vec<u8> {
        let client = self.sim.accepted();
        let before = self.sim.closed(Reason::ProtocolError);
        for piece in pieces {
            self.sim.send(client, piece);
            self.sim.turn();
        }
        let is_ended = self.sim.is_ended(client);
        let shown = pieces.concat().escape_ascii().to_string();
        assert!(is_ended, "the connection goes on behind {shown}");
        assert_eq!(self.sim.closed(Reason::ProtocolError), before, "reaped once it has ended");
        let answer = self.sim.net().client_received(client);
        self.sim.net().client_close(client);
        self.sim.turns(3);
        assert_eq!(self.sim.closed(Reason::ProtocolError), before + 1, "{shown}");
        assert_eq!(self.sim.received(self.witness), "", "a command ran behind {shown}");
        answer
    }
}

/// Returns the first line without its ending. A blank line may come before it.
fn first_line(stream: &[u8]) -> &[u8] {
    let stream = stream.strip_prefix(b"\r\n").unwrap_or(stream);
    let line = stream.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[test]
fn no_command_runs_behind_the_first_line_of_another_protocol_at_any_cut() {
    let mut target = Target::new();
    for other in OTHERS {
        let stream = [other, BEHIND].concat();
        let whole = target.attack(&[&stream]);
        let is_http = is_request_line(first_line(other));
        // A line with the version of HTTP that is no request line gets an answer of HTTP, too.
        let is_refused = whole.starts_with(b"HTTP/1.1 4") || whole.starts_with(b"HTTP/1.1 5");
        let is_answered = is_refused || !is_http && whole.starts_with(b"-ERR ");
        assert!(is_answered, "{} to {}", whole.escape_ascii(), other.escape_ascii());
        for cut in 1..other.len() {
            let answer = target.attack(&[&stream[..cut], &stream[cut..]]);
            assert_eq!(answer, whole, "{} cut at {cut}", other.escape_ascii());
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(target.attack(&bytes), whole, "{} byte by byte", other.escape_ascii());
    }
}

/// The first line is random, or one of another protocol with some bytes changed.
#[test]
fn no_command_runs_behind_a_random_first_line() {
    let mut target = Target::new();
    let mut tried = 0;
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut line = match random.bool() {
            true => OTHERS[random.usize(..OTHERS.len())].to_vec(),
            false => (0..random.usize(1..40)).map(|_| random.u8(..)).collect(),
        };
        for _ in 0..random.usize(..4) {
            let at = random.usize(..line.len());
            line[at] = *random.choice(b"\n\r\0 \t/.1APING\"'\\*\x7f\x80".as_slice()).unwrap();
        }
        line.extend_from_slice(b"\r\n");
        // Whether the line is a command is judged more strictly here: by its first word.
        let first = line.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
        let first = first.unwrap_or_default().trim_ascii();
        let word = first.split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
        let word = String::from_utf8_lossy(word).to_lowercase();
        let is_command = target.names.contains(&word) || first.is_empty();
        if is_command || word.starts_with('*') || word.contains(['"', '\'']) {
            continue;
        }
        tried += 1;
        let stream = [&line, BEHIND].concat();
        if is_request_line(first_line(&line)) {
            // The rest may be the fields of its head, which has no end.
            let client = target.sim.accepted();
            target.sim.exchange(client, &stream);
            target.sim.net().client_close(client);
            target.sim.turns(3);
            assert_eq!(target.sim.received(target.witness), "", "{}", stream.escape_ascii());
            continue;
        }
        let cut = random.usize(..=line.len());
        target.attack(&[&stream[..cut], &stream[cut..]]);
    }
    assert!(tried > 2000, "only {tried} of the lines are no commands");
}

#[test]
fn an_unknown_command_as_an_array_keeps_the_connection_and_the_guard() {
    let mut target = Target::new();
    let client = target.sim.accepted();
    let answer = target.sim.exchange(client, "*1\r\n$4\r\nNOPE\r\n*1\r\n$4\r\nPING\r\n");
    assert!(answer.starts_with("-ERR unknown command 'NOPE'") && answer.ends_with("+PONG\r\n"));
    let client = target.sim.accepted();
    target.sim.exchange(client, "*1\r\n$4\r\nNOPE\r\n");
    target.sim.exchange(client, [b"GET /\r\n", BEHIND].concat());
    assert!(target.sim.is_ended(client), "the guard holds until a command has run");
    assert_eq!(target.sim.received(target.witness), "");
}

#[test]
fn after_a_command_a_mistyped_line_is_an_error_and_the_connection_stays() {
    let mut sim = hub(limits());
    let client = sim.accepted();
    let answer = sim.exchange(client, "PING\r\nPIGN\r\n\r\nECHO a b\r\nSUBSCRIBE\r\nECHO a\r\n");
    assert!(answer.starts_with("+PONG\r\n-ERR unknown command 'PIGN'"), "{answer}");
    assert!(answer.ends_with("$1\r\na\r\n"), "{answer}");
    assert_eq!(sim.exchange(client, "PUBLISH a HTTP/1.1\r\n"), ":0\r\n", "a payload");
    assert!(sim.exchange(client, "GET / HTTP/1.1\r\n\r\nPING\r\n").starts_with("HTTP/1.1 400 "));
    assert!(sim.is_ended(client), "a request of another protocol closes at any time");
}

#[test]
fn a_control_character_in_a_line_closes_the_connection_at_any_time() {
    for byte in (0..=0x1f).chain([0x7f]).filter(|byte| !matches!(byte, b'\t' | b'\n')) {
        let mut sim = hub(limits());
        let client = sim.accepted();
        let line = [b"PING\r\nECHO a".as_slice(), &[byte], b"b\r\nPING\r\n"].concat();
        let answer = sim.exchange(client, &line);
        let expected = format!("+PONG\r\n-ERR Protocol error: control character 0x{byte:02x} in");
        assert!(answer.starts_with(&expected), "{byte}: {answer}");
        assert!(!answer.ends_with("+PONG\r\n") && sim.is_ended(client), "{byte}");
        assert_eq!(sim.closed(Reason::ProtocolError) + sim.reactor.connections() as u64, 1);
    }
}

#[test]
fn text_in_utf_8_and_tabs_are_no_control_characters() {
    let mut sim = hub(limits());
    let (client, witness) = (sim.accepted(), subscriber(&mut sim, "städte"));
    assert_eq!(sim.exchange(client, "PUBLISH\tstädte\t\"Zürich 東京 🚆\"\n"), ":1\r\n");
    assert!(sim.received(witness).ends_with("$19\r\nZürich 東京 🚆\r\n"));
}

#[test]
fn blank_lines_before_the_first_command_are_skipped_up_to_a_limit() {
    for (blanks, fits) in [
        ("\r\n".repeat(3), true),
        (" \t\n \r\n".into(), true),
        ("\n".repeat(LEADING_BLANKS_MAX - 1), true),
        ("\n".repeat(LEADING_BLANKS_MAX), true),
        ("\n".repeat(LEADING_BLANKS_MAX + 1), false),
        (" ".repeat(LEADING_BLANKS_MAX) + "\n", false),
    ] {
        for command in ["PING\r\n", "*1\r\n$4\r\nPING\r\n"] {
            let stream = format!("{blanks}{command}");
            let mut sim = hub(limits());
            let (whole, split) = (sim.accepted(), sim.accepted());
            let answer = sim.exchange(whole, &stream);
            stream.bytes().for_each(|byte| drop(sim.exchange(split, [byte])));
            let expected = if fits { "+PONG\r\n" } else { "-ERR Protocol error: too many blanks" };
            assert!(answer.starts_with(expected), "{stream:?}: {answer}");
            assert_eq!((sim.is_ended(whole), sim.is_ended(split)), (!fits, !fits), "{stream:?}");
        }
    }
    // Blank lines are no message: the connection stays in the silent set.
    let mut sim = hub(limits());
    let client = sim.accepted();
    sim.exchange(client, "\r\n\r\n");
    assert_eq!(sim.reactor.stats().work.messages, 0);
}

#[test]
fn an_endless_first_word_is_judged_before_its_line_ends() {
    for (word, judged) in [
        ("A".repeat(FIRST_WORD_MAX - 1), false),
        ("A".repeat(FIRST_WORD_MAX), false),
        ("A".repeat(FIRST_WORD_MAX + 1), true),
        ("<".into(), true),
        ("\u{80}".into(), true),
        ("\0".into(), true),
        ("\"A".into(), false),
    ] {
        let mut sim = hub(limits());
        let client = sim.accepted();
        sim.exchange(client, &word);
        assert_eq!(sim.is_ended(client), judged, "{word:?}");
    }
}

/// A person may type a wrong password, and nothing else runs before the right one.
#[test]
fn before_the_password_a_refused_command_keeps_the_connection_and_the_guard() {
    let password = Some(Secret(b"secret"[..].into()));
    let options = Options { password, ..Options::default() };
    let mut sim = Sim::new(Box::new(Hub::new(&options)), limits());
    let client = sim.accepted();
    assert!(sim.exchange(client, "PUBLISH owned 1\r\n").starts_with("-NOAUTH"));
    assert!(sim.exchange(client, "AUTH wrong\r\n").starts_with("-WRONGPASS"));
    assert_eq!(sim.exchange(client, "AUTH secret\r\nPING\r\n"), "+OK\r\n+PONG\r\n");
    assert!(sim.exchange(client, "NOPE\r\n").starts_with("-ERR unknown command"));
    assert_eq!(sim.net().client_saw(client), End::Open);
    for line in ["EHLO a\r\n", "NOPE\r\n", "PUBLISH a\r\n", "AUTH wrong\r\nEHLO a\r\n"] {
        let client = sim.accepted();
        sim.exchange(client, format!("{line}AUTH secret\r\nPUBLISH owned 1\r\n"));
        assert!(sim.is_ended(client), "{line}");
    }
}
