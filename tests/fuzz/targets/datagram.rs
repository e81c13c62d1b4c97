//! Datagrams to the hub, with and without a password. The answer is not longer than the datagram,
//! is not an error, and equals the answer to the same command on a stream. Without the right
//! password, the hub answers nothing and publishes nothing.

use slabd::clock::Time;
use slabd::hub::Hub;
use slabd::service::{ConnectionId, Options, Reply, Secret, Service, Taken};

use super::no_server::NoServer;

const PASSWORD: &[u8] = b"pw";

/// Runs the target. The lowest bit of the first byte decides whether the hub has a password. The
/// other bytes are the datagram.
pub fn datagram(data: &[u8]) {
    let Some((choice, datagram)) = data.split_first() else { return };
    let password = (choice & 1 == 1).then(|| Secret(PASSWORD.into()));
    let command = match &password {
        None => Some(datagram),
        Some(_) => behind_password(datagram),
    };
    let mut hub = hub(password);
    let shown = || datagram.escape_ascii();
    let answer = ask(&mut hub, datagram);
    hub.check_invariants();
    assert!(answer.len() <= datagram.len(), "{} bytes to {}", answer.len(), shown());
    assert!(!answer.starts_with(b"-"), "an error as the answer to {}", shown());
    assert!(
        (0..3).all(|connection| !hub.listens(ConnectionId(connection))),
        "a datagram subscribes a session: {}",
        shown()
    );
    let Some(command) = command else {
        assert!(answer.is_empty() && !hub.has_output(), "without the password: {}", shown());
        return;
    };
    if answer.is_empty() {
        return;
    }
    assert_eq!(answer, by_stream(command), "by datagram and by stream: {}", shown());
    // A line break changes only the length of the datagram.
    let has_no_line_break = !command.contains(&b'\n') && !command.ends_with(b"\r");
    if !command.starts_with(b"*") && has_no_line_break {
        assert_eq!(
            answer,
            ask(&mut hub, &[datagram, b"\r\n"].concat()),
            "with a line break: {}",
            shown()
        );
    }
}

fn hub(password: Option<Secret>) -> Hub {
    let mut hub = Hub::new(&Options { password, ..Options::default() });
    for connection in 0..3 {
        let mut greeting = Vec::new();
        let reply = Reply::to(ConnectionId(connection), Time::ZERO, &mut greeting);
        hub.connected(&mut reply.from(([127, 0, 0, 1], 1000).into()));
    }
    hub
}

fn ask(hub: &mut Hub, datagram: &[u8]) -> Vec<u8> {
    // The service must leave earlier bytes of the buffer unchanged.
    let mut answer = b"before".to_vec();
    let mut reply = Reply::to_datagram(([127, 0, 0, 9], 1000).into(), Time::ZERO, &mut answer);
    hub.datagram(datagram, &mut reply, &mut NoServer::default());
    assert_eq!(reply.answers_datagram(), !reply.is_empty());
    assert!(!reply.is_late(), "the answer waits, but nothing is undelivered");
    answer.split_off(6)
}

/// Returns the answer of a session to the same command, followed by a line break.
fn by_stream(command: &[u8]) -> Vec<u8> {
    let (mut hub, mut answer) = (hub(None), Vec::new());
    let mut reply = Reply::to(ConnectionId(0), Time::ZERO, &mut answer);
    let mut ended = [command, b"\n"].concat();
    let taken = hub.receive(&mut ended, 0, &mut reply, &mut NoServer::default());
    assert!(matches!(taken, Taken::Message(_)), "{taken:?} of {}", command.escape_ascii());
    answer
}

/// Returns the command after a line with the right password, or `None` without that line.
fn behind_password(datagram: &[u8]) -> Option<&[u8]> {
    let line = [b"auth ", PASSWORD].concat();
    let (first, rest) = datagram.split_at_checked(line.len())?;
    let rest = rest.strip_prefix(b"\n").or_else(|| rest.strip_prefix(b"\r\n"))?;
    // The case of the command does not matter, the case of the password does.
    (first[..5].eq_ignore_ascii_case(b"auth ") && &first[5..] == PASSWORD).then_some(rest)
}
