//! Answers of the hub: a parser for RESP2, and shorthands for commands that tests often send.

use std::collections::HashMap;
use std::io::Read;

use super::{Client, Server};

/// Starts a hub on a free port.
pub fn hub() -> Server {
    Server::start(&["--listen", "hub=127.0.0.1:0"])
}

pub fn connect(server: &Server) -> Client {
    Client::connect(server.address("hub"))
}

/// Returns the client's own address, as the server sees it.
pub fn address(client: &Client) -> String {
    client.0.local_addr().unwrap().to_string()
}

/// One answer of RESP2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A simple string, a bulk string, or an error with its `-`.
    Text(String),
    Number(i64),
    Array(Vec<Answer>),
    Null,
}

impl Answer {
    pub fn read(client: &mut Client) -> Answer {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            client
                .0
                .read_exact(&mut byte)
                .unwrap_or_else(|error| panic!("{error} after {}", line.escape_ascii()));
            line.push(byte[0]);
        }
        let line = std::str::from_utf8(&line[..line.len() - 2]).unwrap();
        let (kind, rest) = line.split_at(1);
        let length = || rest.parse::<i64>().unwrap_or_else(|_| panic!("{line}"));
        match kind {
            "+" => Answer::Text(rest.into()),
            "-" => Answer::Text(line.into()),
            ":" => Answer::Number(length()),
            "$" | "*" if length() < 0 => Answer::Null,
            "*" => Answer::Array((0..length()).map(|_| Answer::read(client)).collect()),
            "$" => {
                let mut bytes = vec![0; length() as usize + 2];
                client.0.read_exact(&mut bytes).unwrap();
                assert_eq!(bytes.split_off(bytes.len() - 2), b"\r\n");
                Answer::Text(String::from_utf8(bytes).unwrap())
            }
            _ => panic!("{line}"),
        }
    }

    #[track_caller]
    pub fn text(self) -> String {
        let Answer::Text(text) = self else { panic!("{self:?} is not a text") };
        text
    }

    #[track_caller]
    pub fn number(self) -> i64 {
        let Answer::Number(number) = self else { panic!("{self:?} is not a number") };
        number
    }

    #[track_caller]
    pub fn array(self) -> Vec<Answer> {
        let Answer::Array(array) = self else { panic!("{self:?} is not an array") };
        array
    }

    /// Returns the keys and values of an array, in its order.
    #[track_caller]
    pub fn map(self) -> Vec<(String, Answer)> {
        let array = self.array();
        assert!(array.len().is_multiple_of(2), "{array:?}");
        array.chunks(2).map(|pair| (pair[0].clone().text(), pair[1].clone())).collect()
    }
}

/// Sends a command and reads its answer. The words go as an array, so an error closes nothing. A
/// command with quotes goes as a line.
pub fn ask(client: &mut Client, command: &str) -> Answer {
    if command.contains(['"', '\'']) {
        return Answer::read(client.send(format!("{command}\r\n")));
    }
    let words: Vec<&str> = command.split_whitespace().collect();
    let mut sent = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| sent += &format!("${}\r\n{word}\r\n", word.len()));
    Answer::read(client.send(sent))
}

/// Sends CLIENT LIST or CLIENT CLOSED, and returns the fields of each line by name.
#[track_caller]
pub fn lines(client: &mut Client, command: &str) -> Vec<HashMap<String, String>> {
    let text = ask(client, command).text();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    let fields = |line: &str| {
        let pairs = line
            .split(' ')
            .map(|field| field.split_once('=').unwrap_or_else(|| panic!("{field:?} of {line}")));
        pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    text.lines().map(fields).collect()
}

/// Sends INFO and returns its values by "section/name".
pub fn info(client: &mut Client, sections: &str) -> HashMap<String, String> {
    let text = ask(client, format!("INFO {sections}").trim_end()).text();
    let (mut rows, mut title) = (HashMap::new(), String::new());
    for line in text.split("\r\n").filter(|line| !line.is_empty()) {
        match line.split_once(':') {
            Some((name, value)) => _ = rows.insert(format!("{title}/{name}"), value.to_string()),
            None => {
                let heading = line.strip_prefix("# ");
                title = heading.unwrap_or_else(|| panic!("{line:?} in INFO")).to_lowercase();
            }
        }
    }
    rows
}

/// Returns the value of a setting, from CONFIG GET.
#[track_caller]
pub fn setting(client: &mut Client, name: &str) -> String {
    let found = ask(client, &format!("CONFIG GET {name}")).map();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, name);
    found[0].1.clone().text()
}

/// Connects a client and subscribes it to a channel.
pub fn subscribe(server: &Server, channel: &str) -> Client {
    let mut client = connect(server);
    client.send(format!("SUBSCRIBE {channel}\r\n"));
    assert_eq!(Answer::read(&mut client).array()[2], Answer::Number(1));
    client
}

pub fn id(client: &mut Client) -> i64 {
    ask(client, "CLIENT ID").number()
}

/// Returns one number of INFO, from any section.
#[track_caller]
pub fn info_number(client: &mut Client, name: &str) -> u64 {
    let rows = info(client, "");
    let (_, value) = rows
        .iter()
        .find(|(row, _)| row.split('/').nth(1) == Some(name))
        .unwrap_or_else(|| panic!("{name} in {rows:?}"));
    value.parse().unwrap()
}

pub const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";

/// Starts a hub with the password "secret".
pub fn guarded(more: &[&str]) -> Server {
    Server::start(&[&["--listen", "hub=127.0.0.1:0", "--requirepass", "secret"], more].concat())
}

pub fn authenticated(server: &Server) -> Client {
    let mut client = connect(server);
    client.send("AUTH secret\r\n").expect("+OK\r\n");
    client
}
