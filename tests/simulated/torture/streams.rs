//! Scripts of lines and bytes, and of the ends of streams.

use slabd::connection::Reason;
use slabd::limits::Limits;
use slabd::net::sim::End;

use super::scenario::{MS, limits, text};
use super::world::World;

pub fn a_greeting_and_a_line(world: &mut World) {
    let client = world.join(0);
    world.say(client, "Ada\n");
    world.expect(world.got(client).as_str(), "Hello\r\nHello, Ada!\r\n");
}

pub fn a_line_in_two_parts(world: &mut World) {
    let clients = [world.join(0), world.join(0)];
    clients.iter().for_each(|client| world.send(*client, "A"));
    world.settle();
    clients.iter().for_each(|client| world.say(*client, "da\nB"));
    world.say(clients[0], "ob\n");
    world.expect(world.got(clients[0]).ends_with("Ada!\r\nHello, Bob!\r\n"), true);
    world.expect(world.reactor.ledger().read_buffers, 64);
}

pub fn more_lines_than_a_turn_takes(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "x\n".repeat(300));
    world.say(other, "Bob\n");
    world.expect(world.got(client).matches("Hello, x!").count(), 300);
}

pub fn several_clients_at_once(world: &mut World) {
    let clients: Vec<usize> = (0..5).map(|_| world.arrive(0)).collect();
    clients.iter().for_each(|client| world.send(*client, format!("{client}\n")));
    world.settle();
    for client in clients {
        world.expect(world.got(client), format!("Hello\r\nHello, {client}!\r\n"));
    }
}

pub fn echo_of_more_than_a_window(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, text(150_000));
    world.say(other, "round");
    world.expect(world.got(client).len(), 150_000);
}

pub fn a_slow_reader_is_blocked_and_resumes(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.stop_reading(client, 300);
    world.say(client, text(1000));
    for _ in 0..6 {
        world.take(client, 200);
        world.say(other, "round");
    }
    world.send(client, text(500));
    world.resume_reading(client, 1000);
    world.settle();
    world.expect(world.got(client).len(), 1500);
}

pub fn narrow() -> Limits {
    Limits { high_watermark: 4096, low_watermark: 1024, ..limits() }
}

pub fn paused_by_backpressure(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.stop_reading(client, 500);
    for _ in 0..4 {
        world.say(client, text(3000));
    }
    world.expect(world.reactor.stats().bytes_in < 12_000, true);
    world.say(other, "round");
    world.resume_reading(client, 2000);
    world.settle();
    world.expect(world.got(client).len(), 12_000);
}

pub fn buffers_of_a_fixed_size(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.say(client, "a\npart");
    world.send(client, format!("{}\n", "x".repeat(600)));
    world.say(other, "b\n");
    world.expect(world.got(client).ends_with("xxx!\r\n"), true);
}

pub fn a_half_close_with_pending_answers(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.stop_reading(client, 30);
    world.send(client, text(100));
    world.shut(client);
    world.pass(150 * MS);
    for _ in 0..4 {
        world.take(client, 30);
        world.pass(150 * MS);
    }
    world.say(other, "round");
    world.expect((world.got(client).len(), world.end(client)), (100, End::Fin));
}

pub fn a_half_close_after_an_unended_line(world: &mut World) {
    let client = world.join(0);
    world.send(client, "a\nlast");
    world.shut(client);
    world.settle();
    world.expect(
        (world.got(client).ends_with("last!\r\n"), world.closed(Reason::PeerClosed)),
        (true, 1),
    );
}

pub fn a_reset_in_the_middle_of_a_message(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.say(client, "half");
    world.reset(client);
    world.say(other, "Bob\n");
    world.expect(world.closed(Reason::PeerReset), 1);
}

pub fn a_reset_with_pending_output(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.stop_reading(client, 10);
    world.say(client, text(1000));
    world.reset(client);
    world.say(other, "round");
    world.expect(world.closed(Reason::PeerReset), 1);
}

pub fn clients_gone_before_the_accept(world: &mut World) {
    let clients = [world.arrive(0), world.arrive(0), world.arrive(0)];
    world.reset(clients[0]);
    world.close(clients[1]);
    world.say(clients[2], "Ada\n");
    world.expect(world.reactor.connections(), 1);
}

pub fn short_lines() -> Limits {
    Limits { max_line: 8, ..limits() }
}

pub fn a_line_too_long(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "123456789");
    world.pass(100 * MS);
    world
        .expect((world.got(client).contains("longer than 8"), world.end(client)), (true, End::Fin));
    world.expect(world.reactor.connections(), 2);
    world.close(client);
    world.say(other, "Bob\n");
    world.expect(world.closed(Reason::LineTooLong), 1);
}

pub fn input_while_lingering(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "123456789");
    world.pass(100 * MS);
    for _ in 0..3 {
        world.send(client, text(70_000));
        world.pass(50 * MS);
    }
    world.say(other, "Bob\n");
    world.expect(world.end(client), End::Fin);
}

pub fn lingering_until_the_close_timeout(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "123456789");
    world.pass(1500 * MS);
    world.say(other, "Bob\n");
    world.expect((world.closed(Reason::LineTooLong), world.end(client)), (1, End::Fin));
}

pub fn closing_with_unread_output(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.stop_reading(client, 4);
    world.send(client, "123456789");
    world.pass(1500 * MS);
    world.say(other, "Bob\n");
    world.expect((world.closed(Reason::CloseTimeout), world.end(client)), (1, End::Reset));
}
