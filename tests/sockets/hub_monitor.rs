//! The command MONITOR, which shows every command that runs.

use crate::support::hub_answers::{Answer, address, ask, connect, hub, lines};
use crate::support::{Client, Server};

#[test]
fn monitor_shows_commands_with_their_sender_and_no_passwords() {
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--requirepass", "secret"]);
    let mut monitor = connect(&server);
    monitor.send("AUTH secret\r\nMONITOR\r\n").expect("+OK\r\n+OK\r\n");
    let mut other = connect(&server);
    // MONITOR does not show refused commands or passwords.
    other.send("PING\r\nAUTH wrong\r\nHELLO 2 AUTH default wrong\r\nAUTH default secret\r\n");
    (0..4).for_each(|_| _ = Answer::read(&mut other));
    assert_eq!(ask(&mut other, "HELLO 2 AUTH default secret SETNAME me").map()[0].0, "server");
    assert_eq!(ask(&mut other, "ECHO \"two words\"").text(), "two words");
    other.send("*3\r\n$7\r\nPUBLISH\r\n$1\r\n\"\r\n$4\r\n\0\r\n\\\r\n").expect(":0\r\n");
    assert_eq!(ask(&mut other, "client id"), Answer::Number(2));
    let mut third = connect(&server);
    third.send("AUTH secret\r\nECHO last\r\n").expect("+OK\r\n$4\r\nlast\r\n");
    let (other, third) = (address(&other), address(&third));
    for expected in [
        format!("[0 {other}] \"ECHO\" \"two words\""),
        format!(r#"[0 {other}] "PUBLISH" "\"" "\x00\r\n\\""#),
        format!("[0 {other}] \"client\" \"id\""),
        format!("[0 {third}] \"ECHO\" \"last\""),
    ] {
        let shown = Answer::read(&mut monitor).text();
        let (time, rest) = shown.split_once(' ').expect("a time");
        assert_eq!(rest, expected);
        let (seconds, micros) = time.split_once('.').expect("the time has a fraction");
        assert!(
            seconds.parse::<u64>().is_ok() && micros.len() == 6 && micros.parse::<u32>().is_ok(),
            "{time}"
        );
    }
    assert!(
        lines(&mut connect_with_password(&server), "CLIENT LIST")
            .iter()
            .any(|line| line["flags"] == "O")
    );
}

fn connect_with_password(server: &Server) -> Client {
    let mut client = connect(server);
    client.send("AUTH secret\r\n").expect("+OK\r\n");
    client
}

/// Redis writes them as \a and \b.
#[test]
fn monitor_escapes_bell_and_backspace_as_redis_does() {
    let server = hub();
    let mut monitor = connect(&server);
    monitor.send("MONITOR\r\n").expect("+OK\r\n");
    connect(&server)
        .send("*2\r\n$4\r\nECHO\r\n$4\r\n\x07\x08\t'\r\n")
        .expect("$4\r\n\x07\x08\t'\r\n");
    let shown = Answer::read(&mut monitor).text();
    assert!(shown.ends_with(r#" "ECHO" "\a\b\t'""#), "{shown}");
}

#[test]
fn monitor_ends_with_reset_or_its_connection() {
    let server = hub();
    let mut monitor = connect(&server);
    monitor.send("MONITOR\r\nRESET\r\n").expect("+OK\r\n+RESET\r\n");
    let mut other = connect(&server);
    other.send("ECHO x\r\n").expect("$1\r\nx\r\n");
    monitor.send("PING\r\n").expect("+PONG\r\n");
    monitor.send("MONITOR\r\n").expect("+OK\r\n");
    drop(monitor);
    other.send("ECHO x\r\n".repeat(100)).expect("$1\r\nx\r\n".repeat(100));
}
