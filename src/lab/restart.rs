//! `slabd lab restart`: a connection is state on both ends, and a restart takes one of them away. A datagram carries all that it needs.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::client;
use super::server::ServerProcess;
use super::{Scale, row, verdict};
use crate::report::{Page, Section, Table, Verdict};
use crate::sys;

/// A service, what it says first, and what it is asked: by TCP the same as by UDP, but for the line break of an answer.
struct Talk {
    service: &'static str,
    greeting: &'static str,
    question: &'static str,
    answer: &'static str,
}

/// Of the hub, what was published reaches nobody; the answer says so, and is as long by UDP as the question may have it.
const TALKS: [Talk; 3] = [
    Talk { service: "hello", greeting: "Hello\r\n", question: "Ada\r\n", answer: "Hello, Ada!\r\n" },
    Talk { service: "echo", greeting: "", question: "Ada\r\n", answer: "Ada\r\n" },
    Talk { service: "hub", greeting: "", question: "PUBLISH nobody Ada\r\n", answer: ":0\r\n" },
];

/// What one service's clients met over one restart.
#[derive(Clone, Debug, Default, PartialEq)]
struct RestartResult {
    service: &'static str,
    ended_by: &'static str,
    /// Answered before the restart.
    tcp_before: bool,
    udp_before: bool,
    /// What was found of the server while it was away.
    tcp_meanwhile: String,
    udp_meanwhile: String,
    /// Answered after it, on the same socket.
    tcp_after: bool,
    udp_after: bool,
    /// On a new connection.
    tcp_again: bool,
}

/// Receivers of a publish: while one client is subscribed, and after the restart.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Subscribers {
    before: u64,
    after: u64,
    /// Once the client has connected and subscribed again.
    again: u64,
}

pub fn run(_: &Scale) -> Result<Page> {
    let mut results = Vec::new();
    let mut subscribers = Vec::new();
    for (signal, name) in [(sys::SIGTERM, "SIGTERM"), (sys::SIGKILL, "SIGKILL")] {
        let (of_services, of_hub) = restart(signal, name)?;
        results.extend(of_services);
        subscribers.push(of_hub);
    }
    let yes = |answered: bool| if answered { "answered" } else { "dead" };
    let rows = results.iter().map(|result| {
        let (tcp, udp) = (yes(result.tcp_after), yes(result.udp_after));
        row([
            &result.service,
            &result.ended_by,
            &result.tcp_meanwhile,
            &tcp,
            &yes(result.tcp_again),
            &result.udp_meanwhile,
            &udp,
        ])
    });
    let table = Table::new(
        "What clients met that had been answered before the restart",
        "service | ended by | TCP meanwhile | TCP after | TCP anew | UDP meanwhile | UDP after",
        rows,
    );
    let mut sections = vec![Section::Table(table)];
    sections.extend(judge(&results, &subscribers).map(Section::Verdict));
    Ok(Page {
        title: "slabd lab restart".into(),
        summary: "A server of three services is asked by TCP and by UDP, ended, started again at the same addresses, and asked again on the \
                  same sockets: once ended in good order (SIGTERM), once killed (SIGKILL)."
            .into(),
        sections,
    })
}

fn judge(results: &[RestartResult], subscribers: &[Subscribers]) -> [Verdict; 3] {
    let count = |what: fn(&RestartResult) -> bool| results.iter().filter(|result| what(result)).count();
    let all = results.len();
    let ready = all > 0 && count(|result| result.tcp_before && result.udp_before) == all;
    let (tcp, udp, again) =
        (count(|result| result.tcp_after), count(|result| result.udp_after), count(|result| result.tcp_again));
    let told: Vec<String> = subscribers
        .iter()
        .map(|of| format!("{} before, {} after, {} when made again", of.before, of.after, of.again))
        .collect();
    [
        verdict(
            "A restart ends every TCP connection, however the server ended: it was state on both ends, and one is gone.",
            format!("{tcp} of {all} connections were answered afterwards"),
            ready && tcp == 0,
        ),
        verdict(
            "A UDP client never notices a restart: each datagram carries all that it needs.",
            format!("{udp} of {all} sockets were answered afterwards, the same sockets as before"),
            ready && udp == all,
        ),
        verdict(
            "Connecting again is not enough: what the server knew of a connection, like a subscription, must be made again.",
            format!("{again} of {all} new connections were answered; receivers of a publish: {}", told.join("; ")),
            ready && again == all && subscribers.iter().all(|of| (of.before, of.after, of.again) == (1, 0, 1)),
        ),
    ]
}

fn restart(signal: i32, ended_by: &'static str) -> Result<(Vec<RestartResult>, Subscribers)> {
    let listen = TALKS.map(|talk| format!("{}=127.0.0.1:0", talk.service));
    let server = start(&listen)?;
    let addresses: Vec<SocketAddr> = TALKS.iter().map(|talk| server.address(talk.service)).collect::<Result<_>>()?;
    let mut clients = Vec::new();
    for (talk, address) in TALKS.iter().zip(&addresses) {
        let mut tcp = client::connect(Ipv4Addr::LOCALHOST, *address)?;
        client::expect(&mut tcp, talk.greeting.as_bytes())?;
        let udp = client::datagrams(*address)?;
        let (tcp_before, udp_before) = (ask(&mut tcp, talk), ask_datagram(&udp, talk));
        clients.push((
            tcp,
            udp,
            RestartResult { service: talk.service, ended_by, tcp_before, udp_before, ..RestartResult::default() },
        ));
    }
    let hub = *addresses.last().context("no hub")?;
    let _subscriber = subscribe(hub)?;
    let before = receivers(hub)?;
    server.end(signal)?;

    for ((tcp, udp, result), talk) in clients.iter_mut().zip(&TALKS) {
        result.tcp_meanwhile = end_of(tcp);
        result.udp_meanwhile = fate_of(udp, talk);
    }
    let listen: Vec<String> =
        TALKS.iter().zip(&addresses).map(|(talk, address)| format!("{}={address}", talk.service)).collect();
    let _server = start(&listen).context("starting it again")?;
    let mut results = Vec::new();
    for (((mut tcp, udp, mut result), talk), address) in clients.into_iter().zip(&TALKS).zip(&addresses) {
        result.tcp_after = ask(&mut tcp, talk);
        result.udp_after = ask_datagram(&udp, talk);
        let mut tcp = client::connect(Ipv4Addr::LOCALHOST, *address)?;
        result.tcp_again = client::expect(&mut tcp, talk.greeting.as_bytes()).is_ok() && ask(&mut tcp, talk);
        results.push(result);
    }
    let after = receivers(hub)?;
    let _subscriber = subscribe(hub)?;
    Ok((results, Subscribers { before, after, again: receivers(hub)? }))
}

fn start(listen: &[String]) -> Result<ServerProcess> {
    let mut arguments: Vec<&str> = listen.iter().flat_map(|listen| ["--listen", listen]).collect();
    // On SIGTERM it waits so long for clients to close too. Ours do not, as theirs may not know that it is going.
    arguments.extend(["--close-timeout", "200ms"]);
    ServerProcess::start(&arguments)
}

fn ask(client: &mut TcpStream, talk: &Talk) -> bool {
    client::ask(client, talk.question.as_bytes(), talk.answer.as_bytes()).is_ok()
}

fn ask_datagram(socket: &UdpSocket, talk: &Talk) -> bool {
    let mut answer = [0; 64];
    // An error that was waiting on the socket, from the time without a server, comes in place of the first try.
    (0..2).any(|_| {
        let length = socket.send(talk.question.as_bytes()).and_then(|_| socket.recv(&mut answer));
        length.is_ok_and(|length| &answer[..length] == talk.answer.as_bytes())
    })
}

/// How a connection ends whose other end is gone.
fn end_of(client: &mut TcpStream) -> String {
    match client.read(&mut [0; 64]) {
        Ok(0) => "closed".into(),
        Ok(count) => format!("{count} bytes more"),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset".into(),
        Err(error) => error.to_string(),
    }
}

/// What becomes of a datagram to a port where nobody listens.
fn fate_of(socket: &UdpSocket, talk: &Talk) -> String {
    match socket.send(talk.question.as_bytes()).and_then(|_| socket.recv(&mut [0; 64])) {
        Ok(_) => "answered".into(),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused".into(),
        Err(error) => error.to_string(),
    }
}

fn subscribe(hub: SocketAddr) -> Result<TcpStream> {
    let mut subscriber = client::connect(Ipv4Addr::LOCALHOST, hub)?;
    client::ask(&mut subscriber, b"SUBSCRIBE news\r\n", b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")?;
    Ok(subscriber)
}

/// How many receive what is published to the channel.
fn receivers(hub: SocketAddr) -> Result<u64> {
    let mut publisher = client::connect(Ipv4Addr::LOCALHOST, hub)?;
    publisher.set_read_timeout(Some(Duration::from_secs(5)))?;
    client::ask(&mut publisher, b"PUBLISH news x\r\n", b":")?;
    let line = client::read_line(&mut publisher)?;
    ensure!(!line.is_empty(), "the hub does not say how many receive a publish");
    line.parse().with_context(|| format!("the hub says that {line:?} receive a publish"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    #[test]
    fn each_claim_fails_where_the_measurement_says_otherwise() {
        let good = RestartResult {
            tcp_before: true,
            udp_before: true,
            udp_after: true,
            tcp_again: true,
            ..RestartResult::default()
        };
        let kept = Subscribers { before: 1, after: 0, again: 1 };
        let outcomes =
            |results: &[RestartResult], of: Subscribers| judge(results, &[of]).map(|verdict| verdict.outcome);
        use Outcome::{Fails, Holds};
        assert_eq!(outcomes(&[good.clone(), good.clone()], kept), [Holds; 3]);
        let bad = RestartResult { tcp_after: true, udp_after: false, tcp_again: false, ..good.clone() };
        assert_eq!(outcomes(&[good.clone(), bad], kept), [Fails; 3]);
        let unready = RestartResult { tcp_before: false, ..good.clone() };
        assert_eq!(outcomes(&[unready], kept), [Fails; 3], "who was not answered before proves nothing");
        assert_eq!(outcomes(&[good], Subscribers { after: 1, ..kept }), [Holds, Holds, Fails]);
        assert_eq!(outcomes(&[], kept), [Fails; 3]);
    }
}
