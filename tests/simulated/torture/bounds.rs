//! Scripts of deadlines and of limits of memory.

use slabd::connection::Reason;
use slabd::limits::{Limits, SocketOptions};
use slabd::net::sim::End;

use super::scenario::{SECOND, limits, text};
use super::world::World;

pub fn idle_limits() -> Limits {
    Limits { idle_timeout: 5 * SECOND, ..limits() }
}

pub fn idle(world: &mut World) {
    let (client, listener) = (world.join(0), world.join(0));
    world.notices_are_best_effort();
    world.say(listener, "SUBSCRIBE a\r\n");
    world.say(client, "HELLO 3\r\n");
    world.pass(7 * SECOND);
    world.expect((world.closed(Reason::IdleTimeout), world.end(client)), (1, End::Fin));
    world.expect(world.got(client).ends_with("idle-timeout\r\n"), true);
}

pub fn idle_with_output_unacknowledged(world: &mut World) {
    let (client, listener) = (world.join(0), world.join(0));
    world.say(listener, "SUBSCRIBE a\r\n");
    world.say(client, "HELLO 3\r\n");
    world.stop_reading(client, 1000);
    world.say(client, "PING\r\n");
    world.pass(7 * SECOND);
    world.expect((world.closed(Reason::IdleTimeout), world.end(client)), (1, End::Reset));
}

pub fn first_limits() -> Limits {
    Limits { first_message_timeout: 3 * SECOND, max_silent: 2, ..limits() }
}

pub fn no_first_message(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "*1");
    world.say(other, "PING\r\n");
    world.pass(4 * SECOND);
    world.expect((world.closed(Reason::FirstMessageTimeout), world.end(client)), (1, End::Reset));
}

pub fn message_limits() -> Limits {
    Limits { message_timeout: 3 * SECOND, ..limits() }
}

pub fn a_message_is_not_completed(world: &mut World) {
    let (client, deaf, other) = (world.join(0), world.join(0), world.join(0));
    world.notices_are_best_effort();
    world.say(client, "PING\r\n*1\r\n");
    world.stop_reading(deaf, 1000);
    world.say(deaf, "PING\r\n*1\r\n");
    world.say(other, "PING\r\n");
    world.pass(4 * SECOND);
    world.expect(world.closed(Reason::MessageTimeout), 2);
    world.expect((world.end(client), world.end(deaf)), (End::Fin, End::Reset));
    world.expect(world.got(client).ends_with("closing: message-timeout\r\n"), true);
}

pub fn output_limits() -> Limits {
    Limits { output_timeout: 3 * SECOND, ..limits() }
}

pub fn unread_output(world: &mut World) {
    let (client, drips, other) = (world.join(0), world.join(0), world.join(0));
    world.would_block_matters();
    for deaf in [client, drips] {
        world.stop_reading(deaf, 90);
        world.say(deaf, text(150));
    }
    for _ in 0..5 {
        world.take(drips, 10);
        world.pass(SECOND);
    }
    world.say(other, "round");
    world.expect((world.closed(Reason::OutputTimeout), world.end(client)), (1, End::Reset));
    world.expect(world.end(drips), End::Open);
}

pub fn soft_limits() -> Limits {
    Limits { output_soft_limit: 1000, output_soft_time: 3 * SECOND, ..limits() }
}

/// Publishes this many messages of 1,000 bytes. Returns a subscriber that stops reading, one that
/// reads, and the publisher.
fn publish_to_a_slow_subscriber(world: &mut World, messages: usize) -> [usize; 3] {
    let (slow, other, publisher) = (world.join(0), world.join(0), world.join(0));
    world.depends_on(slow, [publisher]);
    world.depends_on(other, [publisher]);
    world.depends_on(publisher, [slow, other]);
    world.send(slow, "SUBSCRIBE a\r\n");
    world.say(other, "SUBSCRIBE a\r\n");
    world.stop_reading(slow, 100);
    for _ in 0..messages {
        world.say(publisher, format!("PUBLISH a {:x>1000}\r\n", ""));
    }
    [slow, other, publisher]
}

pub fn over_the_soft_limit_for_too_long(world: &mut World) {
    let [slow, other, _] = publish_to_a_slow_subscriber(world, 2);
    world.pass(5 * SECOND);
    world.expect((world.closed(Reason::OutputLimit), world.end(slow)), (1, End::Reset));
    world.expect(world.got(other).matches("message").count(), 2);
}

pub fn hard_limits() -> Limits {
    Limits { output_limit: 3000, output_soft_limit: 3000, ..limits() }
}

pub fn over_the_hard_limit(world: &mut World) {
    let [slow, other, _] = publish_to_a_slow_subscriber(world, 4);
    world.expect((world.closed(Reason::OutputLimit), world.end(slow)), (1, End::Reset));
    world.expect(world.got(other).matches("message").count(), 4);
}

/// With these options, a blocked connection counts 64 KiB of kernel buffers and its own.
fn small_buffers() -> SocketOptions {
    SocketOptions { send_buffer: 32 * 1024, receive_buffer: 32 * 1024, ..SocketOptions::default() }
}

pub fn tight_budget() -> Limits {
    Limits { memory_budget: 200_000, high_watermark: 20_000, sockets: small_buffers(), ..limits() }
}

/// The client in the middle has stalled for half a second. The last one holds more, but has only
/// just got it.
pub fn the_most_stalled_is_evicted(world: &mut World) {
    let (small, large, larger) = (world.join(0), world.join(0), world.join(0));
    world.depends_on(larger, [small, large]);
    world.depends_on(large, [small, larger]);
    for (client, length) in [(small, 100), (large, 10_000), (larger, 19_000)] {
        world.stop_reading(client, 10);
        world.say(client, text(length));
    }
    world.expect((world.reactor.stats().evicted, world.end(large)), (1, End::Reset));
    world.expect(world.end(larger), End::Open);
    world.resume_reading(small, 1000);
    world.settle();
    world.expect(world.got(small).len(), 100);
    world.crowded();
}

pub fn tiny_budget() -> Limits {
    Limits { memory_budget: 80_000, max_line: 40_000, sockets: small_buffers(), ..limits() }
}

pub fn no_memory_for_more_input(world: &mut World) {
    let clients: Vec<usize> = (0..4).map(|_| world.join(0)).collect();
    for client in &clients {
        world.depends_on(*client, clients.clone());
        world.say(*client, text(30_000));
    }
    world.expect(world.closed(Reason::MemoryBudget) > 0, true);
    world.crowded();
}
