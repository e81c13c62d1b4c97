//! `slabd lab restart`: a TCP connection is state at both ends, and a restart destroys the server's
//! end. UDP keeps no such state, because each datagram is complete.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::client;
use super::server::ServerProcess;
use super::{Scale, row, verdict};
use crate::report::{Page, Section, Table, Verdict};
use crate::sys;

/// A service with its greeting, a question and the answer. By UDP there is no greeting.
struct Talk {
    service: &'static str,
    greeting: &'static str,
    question: &'static str,
    answer: &'static str,
}

/// The services. At the hub, the publish has no receiver, so its answer is short enough for UDP.
const TALKS: [Talk; 3] = [
    Talk {
        service: "hello",
        greeting: "Hello\r\n",
        question: "Ada\r\n",
        answer: "Hello, Ada!\r\n",
    },
    Talk { service: "echo", greeting: "", question: "Ada\r\n", answer: "Ada\r\n" },
    Talk { service: "hub", greeting: "", question: "PUBLISH empty Ada\r\n", answer: ":0\r\n" },
];

/// The measurements of one service, before and after one restart.
#[derive(Clone, Debug, Default, PartialEq)]
struct RestartResult {
    service: &'static str,
    ended_by: &'static str,
    /// True if the client got an answer before the restart.
    tcp_before: bool,
    udp_before: bool,
    /// The clients' results while no server was running.
    tcp_meanwhile: String,
    udp_meanwhile: String,
    /// True if the same socket got an answer after the restart.
    tcp_after: bool,
    udp_after: bool,
    /// True if a new connection got an answer.
    tcp_again: bool,
}

/// Receivers of a publish: with one subscriber, after the restart, and after a new subscription.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Subscribers {
    before: u64,
    after: u64,
    /// After the client has connected and subscribed again.
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
        "Clients before, during and after a restart",
        "service | ended by | TCP while down | TCP after | TCP new | UDP while down | UDP after",
        rows,
    );
    let mut sections = vec![Section::Table(table)];
    sections.extend(judge(&results, &subscribers).map(Section::Verdict));
    Ok(Page {
        title: "slabd lab restart".into(),
        summary: "Clients ask a server with three services by TCP and by UDP. The server ends and \
                  starts again at the same addresses, and the clients ask again on the same \
                  sockets. It ends once gracefully (SIGTERM) and once by a kill (SIGKILL)."
            .into(),
        sections,
    })
}

fn judge(results: &[RestartResult], subscribers: &[Subscribers]) -> [Verdict; 3] {
    let count =
        |what: fn(&RestartResult) -> bool| results.iter().filter(|result| what(result)).count();
    let all = results.len();
    let ready = all > 0 && count(|result| result.tcp_before && result.udp_before) == all;
    let (tcp, udp, again) = (
        count(|result| result.tcp_after),
        count(|result| result.udp_after),
        count(|result| result.tcp_again),
    );
    let counts: Vec<String> = subscribers
        .iter()
        .map(|of| {
            format!(
                "{} before, {} after, {} after subscribing again",
                of.before, of.after, of.again
            )
        })
        .collect();
    [
        verdict(
            "A restart ends every TCP connection, graceful or not, because the server's end \
             of its state is gone.",
            format!("{tcp} of {all} connections got an answer after the restart"),
            ready && tcp == 0,
        ),
        verdict(
            "A UDP client keeps its socket over a restart, because each datagram is complete.",
            format!("{udp} of {all} sockets got an answer after the restart"),
            ready && udp == all,
        ),
        verdict(
            "Reconnecting is not enough: a client must restore the state of its connection, such \
             as subscriptions.",
            format!(
                "{again} of {all} new connections got an answer; receivers of a publish: {}",
                counts.join("; ")
            ),
            ready
                && again == all
                && subscribers.iter().all(|of| (of.before, of.after, of.again) == (1, 0, 1)),
        ),
    ]
}

fn restart(signal: i32, ended_by: &'static str) -> Result<(Vec<RestartResult>, Subscribers)> {
    let listen = TALKS.map(|talk| format!("{}=127.0.0.1:0", talk.service));
    let server = start(&listen)?;
    let addresses: Vec<SocketAddr> =
        TALKS.iter().map(|talk| server.address(talk.service)).collect::<Result<_>>()?;
    let mut clients = Vec::new();
    for (talk, address) in TALKS.iter().zip(&addresses) {
        let mut tcp = client::connect(Ipv4Addr::LOCALHOST, *address)?;
        client::expect(&mut tcp, talk.greeting.as_bytes())?;
        let udp = client::datagrams(*address)?;
        let (tcp_before, udp_before) = (ask(&mut tcp, talk), ask_datagram(&udp, talk));
        clients.push((
            tcp,
            udp,
            RestartResult {
                service: talk.service,
                ended_by,
                tcp_before,
                udp_before,
                ..RestartResult::default()
            },
        ));
    }
    let hub = *addresses.last().context("the server has no hub")?;
    let _subscriber = subscribe(hub)?;
    let before = receivers(hub)?;
    server.end(signal)?;

    for ((tcp, udp, result), talk) in clients.iter_mut().zip(&TALKS) {
        result.tcp_meanwhile = end_of(tcp);
        result.udp_meanwhile = fate_of(udp, talk);
    }
    let listen: Vec<String> = TALKS
        .iter()
        .zip(&addresses)
        .map(|(talk, address)| format!("{}={address}", talk.service))
        .collect();
    let _server = start(&listen).context("cannot start the server again")?;
    let mut results = Vec::new();
    for (((mut tcp, udp, mut result), talk), address) in
        clients.into_iter().zip(&TALKS).zip(&addresses)
    {
        result.tcp_after = ask(&mut tcp, talk);
        result.udp_after = ask_datagram(&udp, talk);
        let mut tcp = client::connect(Ipv4Addr::LOCALHOST, *address)?;
        result.tcp_again =
            client::expect(&mut tcp, talk.greeting.as_bytes()).is_ok() && ask(&mut tcp, talk);
        results.push(result);
    }
    let after = receivers(hub)?;
    let _subscriber = subscribe(hub)?;
    Ok((results, Subscribers { before, after, again: receivers(hub)? }))
}

fn start(listen: &[String]) -> Result<ServerProcess> {
    let mut arguments: Vec<&str> = listen.iter().flat_map(|listen| ["--listen", listen]).collect();
    // On SIGTERM the server waits this long for its clients to close. These clients do not close.
    arguments.extend(["--close-timeout", "200ms"]);
    ServerProcess::start(&arguments)
}

fn ask(client: &mut TcpStream, talk: &Talk) -> bool {
    client::ask(client, talk.question.as_bytes(), talk.answer.as_bytes()).is_ok()
}

fn ask_datagram(socket: &UdpSocket, talk: &Talk) -> bool {
    let mut answer = [0; 64];
    // The first try may return an error that is pending since the time without a server.
    (0..2).any(|_| {
        let length = socket.send(talk.question.as_bytes()).and_then(|_| socket.recv(&mut answer));
        length.is_ok_and(|length| &answer[..length] == talk.answer.as_bytes())
    })
}

/// Returns how a connection ends when the server has ended.
fn end_of(client: &mut TcpStream) -> String {
    match client.read(&mut [0; 64]) {
        Ok(0) => "closed".into(),
        Ok(count) => format!("{count} more bytes"),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset".into(),
        Err(error) => error.to_string(),
    }
}

/// Returns the result of a datagram to a closed port.
fn fate_of(socket: &UdpSocket, talk: &Talk) -> String {
    match socket.send(talk.question.as_bytes()).and_then(|_| socket.recv(&mut [0; 64])) {
        Ok(_) => "answered".into(),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused".into(),
        Err(error) => error.to_string(),
    }
}

fn subscribe(hub: SocketAddr) -> Result<TcpStream> {
    let mut subscriber = client::connect(Ipv4Addr::LOCALHOST, hub)?;
    client::ask(
        &mut subscriber,
        b"SUBSCRIBE news\r\n",
        b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n",
    )?;
    Ok(subscriber)
}

/// Publishes to the channel. Returns the number of receivers.
fn receivers(hub: SocketAddr) -> Result<u64> {
    let mut publisher = client::connect(Ipv4Addr::LOCALHOST, hub)?;
    publisher.set_read_timeout(Some(Duration::from_secs(5)))?;
    client::ask(&mut publisher, b"PUBLISH news x\r\n", b":")?;
    let line = client::read_line(&mut publisher)?;
    ensure!(!line.is_empty(), "the hub does not answer PUBLISH with a number");
    line.parse().with_context(|| format!("the hub answers PUBLISH with {line:?}, not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    #[test]
    fn each_claim_fails_when_its_measurement_contradicts_it() {
        let good = RestartResult {
            tcp_before: true,
            udp_before: true,
            udp_after: true,
            tcp_again: true,
            ..RestartResult::default()
        };
        let kept = Subscribers { before: 1, after: 0, again: 1 };
        let outcomes = |results: &[RestartResult], of: Subscribers| {
            judge(results, &[of]).map(|verdict| verdict.outcome)
        };
        use Outcome::{Fails, Holds};
        assert_eq!(outcomes(&[good.clone(), good.clone()], kept), [Holds; 3]);
        let bad =
            RestartResult { tcp_after: true, udp_after: false, tcp_again: false, ..good.clone() };
        assert_eq!(outcomes(&[good.clone(), bad], kept), [Fails; 3]);
        let unready = RestartResult { tcp_before: false, ..good.clone() };
        assert_eq!(
            outcomes(&[unready], kept),
            [Fails; 3],
            "without an answer before the restart, no claim can hold"
        );
        assert_eq!(outcomes(&[good], Subscribers { after: 1, ..kept }), [Holds, Holds, Fails]);
        assert_eq!(outcomes(&[], kept), [Fails; 3]);
    }
}
