//! Scripts of HTTP, WebSocket and server-sent events.

use slabd::codec::websocket::{Opcode, encode, encode_close, encode_masked};
use slabd::net::sim::End;

use super::scenario::{MS, text};
use super::world::World;

const MASK: [u8; 4] = [1, 2, 3, 4];

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_masked(&mut out, opcode, payload, MASK);
    out
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, opcode, payload);
    out
}

/// Returns true if the bytes behind the head of the answer are these.
fn has_got(world: &World, client: usize, expected: &[u8]) -> bool {
    let got = world.bytes(client);
    let head = got.windows(4).position(|window| window == b"\r\n\r\n");
    head.is_some_and(|head| &got[head + 4..] == expected)
}

pub fn an_http_request(world: &mut World) {
    let client = world.join(0);
    world.send(client, "POST / HTTP/1.1\r\nHost: a\r\n\r\nPUBLISH a 1\r\n");
    world.pass(100 * MS);
    world.close(client);
    world.expect(
        (world.got(client).starts_with("HTTP/1.1 411"), world.end(client)),
        (true, End::Fin),
    );
}

pub fn requests_on_one_connection(world: &mut World) {
    let client = world.join(0);
    world.send(client, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3));
    world.say(client, "POST /publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhe");
    world.say(client, "llo");
    let got = world.got(client);
    world.expect(
        (got.matches("HTTP/1.1 200").count(), got.ends_with("{\"receivers\":0}\n")),
        (4, true),
    );
}

pub fn a_message_over_websocket(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.depends_on(client, [other]);
    world.depends_on(other, [client]);
    world.say(client, upgrade("/ws/news"));
    world.say(other, "PUBLISH news hello\r\n");
    world.say(client, masked(Opcode::Ping, b"p"));
    let expected = [frame(Opcode::Text, b"hello"), frame(Opcode::Pong, b"p")].concat();
    world.expect((has_got(world, client, &expected), world.got(other).as_str()), (true, ":1\r\n"));
}

pub fn a_message_in_fragments(world: &mut World) {
    let client = world.join(0);
    world.say(client, upgrade("/echo"));
    let mut first = masked(Opcode::Text, b"he");
    first[0] &= 0x7f;
    let mut second = masked(Opcode::Text, b"llo");
    second[0] &= 0xf0;
    world.say(client, &first);
    world.say(client, masked(Opcode::Ping, b""));
    world.say(client, &second);
    world.say(client, masked(Opcode::Close, b"\x03\xe8"));
    world.close(client);
    let mut expected = [frame(Opcode::Pong, b""), frame(Opcode::Text, b"hello")].concat();
    encode_close(&mut expected, 1000, "");
    world.expect((has_got(world, client, &expected), world.end(client)), (true, End::Fin));
}

pub fn a_slow_reader_of_websocket(world: &mut World) {
    let client = world.join(0);
    world.say(client, upgrade("/echo"));
    world.stop_reading(client, 1000);
    let payload = text(20_000);
    world.say(client, masked(Opcode::Text, &payload));
    world.resume_reading(client, 30_000);
    world.settle();
    world.expect(has_got(world, client, &frame(Opcode::Text, &payload)), true);
}

pub fn server_sent_events(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.depends_on(client, [other]);
    world.depends_on(other, [client]);
    world.say(client, "GET /events/news HTTP/1.1\r\nHost: localhost\r\n\r\n");
    world.say(other, "PUBLISH news hello\r\n");
    let expected = b"retry: 2000\n\n:\n\ndata: hello\n\n";
    world.expect((has_got(world, client, expected), world.got(other).as_str()), (true, ":1\r\n"));
}
