//! Connections of clients that the tests cannot run, replayed from `replay.txt`.

use std::io::Read;

use crate::hub;
use crate::support::Client;
use crate::support::hub_answers::connect;
use crate::support::programs::ours;

/// Reads one reply of RESP2 or RESP3, and returns its bytes.
pub fn read_reply(stream: &mut impl Read) -> Vec<u8> {
    let mut reply = Vec::new();
    let mut wanted = 1;
    while wanted > 0 {
        wanted -= 1;
        let start = reply.len();
        while !reply[start..].ends_with(b"\r\n") {
            let mut byte = [0];
            let got = stream.read_exact(&mut byte);
            assert!(got.is_ok(), "{got:?} after {}", reply.escape_ascii());
            reply.push(byte[0]);
        }
        let number = std::str::from_utf8(&reply[start + 1..reply.len() - 2]).unwrap_or("");
        let number = number.parse().unwrap_or(-1).max(-1);
        match reply[start] {
            b'$' | b'=' if number >= 0 => {
                let mut bulk = vec![0; number as usize + 2];
                stream.read_exact(&mut bulk).expect("a bulk string is complete");
                reply.extend(bulk);
            }
            b'*' | b'~' | b'>' => wanted += number.max(0),
            b'%' => wanted += 2 * number.max(0),
            _ => {}
        }
    }
    reply
}

/// Returns a command as a client library sends it.
pub fn multibulk(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    let bulks: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{bulks}", words.len()).into_bytes()
}

#[test]
fn clients_that_connect_get_the_replies_they_need() {
    let server = hub();
    let lines = std::fs::read_to_string(ours("replay.txt")).expect("the file is readable");
    let (mut client, mut name): (Option<Client>, &str) = (None, "");
    let mut commands = 0;
    for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            (client, name) = (Some(connect(&server)), line);
            continue;
        }
        let (command, expected) = line.split_once(" => ").unwrap_or_else(|| panic!("{line}"));
        let stream = &mut client.as_mut().expect("a line in brackets comes first").0;
        std::io::Write::write_all(stream, &multibulk(command)).expect("the hub reads");
        let reply = read_reply(stream).escape_ascii().to_string();
        let fits = match expected.strip_prefix("$ ") {
            Some(part) => reply.starts_with(['$', '=']) && reply.contains(part),
            None => reply.starts_with(expected),
        };
        assert!(fits, "{name} {line}\n{reply}");
        commands += 1;
    }
    println!("{commands} commands have the replies that clients need");
    assert!(commands > 80);
}
