//! Greets with `Hello`, and answers every line `Hello, <line>!`.

use log::debug;

use super::server::Server;
use super::{Reply, Service, Taken, receive_line};
use crate::codec::line;

pub struct Hello;

impl Service for Hello {
    fn connected(&mut self, reply: &mut Reply<'_>) {
        reply.send(b"Hello\r\n");
    }

    fn full(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"error: max connections reached\r\n");
    }

    fn receive(&mut self, input: &mut [u8], scanned: usize, reply: &mut Reply<'_>, server: &mut dyn Server) -> Taken {
        receive_line(input, scanned, reply, server, greet)
    }

    /// The end of the stream ends a last line, too.
    fn ended(&mut self, rest: &mut [u8], reply: &mut Reply<'_>) -> bool {
        if !rest.is_empty() {
            greet(line::strip_cr(rest), reply);
        }
        !rest.is_empty()
    }

    /// Tools that send what was typed send its line break too: the answer then ends as the question did.
    fn datagram(&mut self, datagram: &[u8], reply: &mut Reply<'_>, _server: &mut dyn Server) {
        debug!("hello: datagram of {} bytes: {}", datagram.len(), datagram.escape_ascii());
        let name = line::strip_cr(datagram.strip_suffix(b"\n").unwrap_or(datagram));
        let name = if datagram.ends_with(b"\n") { name } else { datagram };
        answer(name, &datagram[name.len()..], reply);
    }
}

fn greet(line: &[u8], reply: &mut Reply<'_>) {
    debug!("hello: {} bytes: {}", line.len(), line.escape_ascii());
    answer(line, b"\r\n", reply);
}

fn answer(name: &[u8], ending: &[u8], reply: &mut Reply<'_>) {
    reply.send(b"Hello, ");
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
    fn lines_and_datagrams_are_answered_as_bytes() {
        let (stream, datagram) = answers(&mut Hello, b"Ada");
        assert_eq!((&stream[..], datagram.as_deref()), (&b"Hello, Ada!\r\n"[..], Some(&b"Hello, Ada!"[..])));
        let (stream, datagram) = answers(&mut Hello, b"\0\xff");
        assert_eq!((&stream[..], datagram.as_deref()), (&b"Hello, \0\xff!\r\n"[..], Some(&b"Hello, \0\xff!"[..])));
        let (stream, datagram) = answers(&mut Hello, b"");
        assert_eq!((&stream[..], datagram.as_deref()), (&b"Hello, !\r\n"[..], Some(&b"Hello, !"[..])));
    }

    #[test]
    fn a_datagrams_line_break_ends_the_answer_too() {
        assert_eq!(answers(&mut Hello, b"Ada\n").1.unwrap(), b"Hello, Ada!\n");
        assert_eq!(answers(&mut Hello, b"Ada\r\n").1.unwrap(), b"Hello, Ada!\r\n");
        assert_eq!(answers(&mut Hello, b"Ada\r").1.unwrap(), b"Hello, Ada\r!");
        assert_eq!(answers(&mut Hello, b"A\nB").1.unwrap(), b"Hello, A\nB!");
    }

    #[test]
    fn a_connection_is_greeted() {
        let mut bytes = Vec::new();
        Hello.connected(&mut Reply::to(ConnectionId(1), Time::ZERO, &mut bytes));
        assert_eq!(bytes, b"Hello\r\n");
    }
}
