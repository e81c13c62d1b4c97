//! A service for trying the loop: greets with `Hello`, and answers each line with `Hello, <line>!`.

use log::debug;

use super::server::Server;
use super::{Reply, Service, Taken, receive_line};
use crate::codec::line;
use crate::escape;

pub struct Hello;

/// The front of each answer.
const GREETING: &[u8] = b"Hello, ";

impl Service for Hello {
    fn connected(&mut self, reply: &mut Reply<'_>) {
        reply.send(b"Hello\r\n");
    }

    fn full(&self, limit: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("error: {} reached\r\n", limit.replace('-', " ")).as_bytes());
    }

    fn receive(
        &mut self,
        input: &mut [u8],
        scanned: usize,
        reply: &mut Reply<'_>,
        server: &mut dyn Server,
    ) -> Taken {
        receive_line(input, scanned, reply, server, greet)
    }

    /// Answers the rest as a line, because the end of the stream ends a line too.
    fn ended(&mut self, rest: &mut [u8], reply: &mut Reply<'_>) -> bool {
        if !rest.is_empty() {
            greet(line::strip_cr(rest), reply);
        }
        !rest.is_empty()
    }

    /// Answers a datagram. Tools such as nc send the line break that ended the input. The answer
    /// then ends with the same line break.
    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>, _server: &mut dyn Server) {
        debug!("hello: datagram of {} bytes: {}", datagram.len(), escape::bytes(datagram));
        // A greeting is another server's answer. Greeting it back would never end, and each answer
        // would be longer than the one before.
        if datagram.starts_with(GREETING) {
            return;
        }
        let name = line::strip_cr(datagram.strip_suffix(b"\n").unwrap_or(datagram));
        let name = if datagram.ends_with(b"\n") { name } else { datagram };
        answer(name, &datagram[name.len()..], reply);
    }
}

fn greet(line: &[u8], reply: &mut Reply<'_>) {
    debug!("hello: {} bytes: {}", line.len(), escape::bytes(line));
    answer(line, b"\r\n", reply);
}

fn answer(name: &[u8], ending: &[u8], reply: &mut Reply<'_>) {
    reply.send(GREETING);
    reply.send(name);
    reply.send(b"!");
    reply.send(ending);
}

#[cfg(test)]
mod tests {
    use super::super::ConnectionId;
    use super::super::tests::answers;
    use super::*;
    use crate::clock::Time;

    #[test]
    fn the_hello_service_answers_lines_and_datagrams_of_any_bytes() {
        let (stream, datagram) = answers(&mut Hello, b"Ada");
        assert_eq!(
            (&stream[..], datagram.as_deref()),
            (&b"Hello, Ada!\r\n"[..], Some(&b"Hello, Ada!"[..]))
        );
        let (stream, datagram) = answers(&mut Hello, b"\0\xff");
        assert_eq!(
            (&stream[..], datagram.as_deref()),
            (&b"Hello, \0\xff!\r\n"[..], Some(&b"Hello, \0\xff!"[..]))
        );
        let (stream, datagram) = answers(&mut Hello, b"");
        assert_eq!(
            (&stream[..], datagram.as_deref()),
            (&b"Hello, !\r\n"[..], Some(&b"Hello, !"[..]))
        );
    }

    #[test]
    fn the_answer_to_a_datagram_ends_with_its_line_break() {
        assert_eq!(answers(&mut Hello, b"Ada\n").1.unwrap(), b"Hello, Ada!\n");
        assert_eq!(answers(&mut Hello, b"Ada\r\n").1.unwrap(), b"Hello, Ada!\r\n");
        assert_eq!(answers(&mut Hello, b"Ada\r").1.unwrap(), b"Hello, Ada\r!");
        assert_eq!(answers(&mut Hello, b"A\nB").1.unwrap(), b"Hello, A\nB!");
    }

    #[test]
    fn a_greeting_in_a_datagram_gets_no_answer() {
        assert_eq!(answers(&mut Hello, b"Hello, Ada!").1, None);
        assert_eq!(answers(&mut Hello, b"Hello, ").1, None);
        assert_eq!(answers(&mut Hello, b"Hello,").1.unwrap(), b"Hello, Hello,!");
    }

    #[test]
    fn a_new_connection_gets_a_greeting() {
        let mut bytes = Vec::new();
        Hello.connected(&mut Reply::to(ConnectionId(1), Time::ZERO, &mut bytes));
        assert_eq!(bytes, b"Hello\r\n");
    }
}
