//! Scripts of admission, of failing accepts and of several listeners.

use std::time::Duration;

use slabd::connection::Reason;
use slabd::limits::{ACCEPT_FAILURES, Limits, TOLD_PER_TURN};
use slabd::net::sim::End;

use super::scenario::{SECOND, limits};
use super::world::World;

pub fn few_silent() -> Limits {
    Limits { max_silent: 2, ..limits() }
}

pub fn the_oldest_silent_client_is_evicted(world: &mut World) {
    world.delays_matter();
    let clients: Vec<usize> = (0..4).map(|_| world.join(0)).collect();
    clients.iter().for_each(|client| world.depends_on(*client, clients.clone()));
    world.say(clients[2], "Ada\n");
    world.say(clients[3], "Bob\n");
    world.expect((world.closed(Reason::Recycled), world.end(clients[0])), (2, End::Reset));
    world.expect(world.got(clients[3]).ends_with("Bob!\r\n"), true);
}

pub fn few_slots() -> Limits {
    Limits { max_connections: 2, ..limits() }
}

/// Fills the two slots with active clients, and returns these.
fn full_server(world: &mut World) -> [usize; 2] {
    let inside = [world.join(0), world.join(0)];
    inside.iter().for_each(|client| world.say(*client, "PING\r\n"));
    world.notices_are_best_effort();
    inside
}

pub fn refused_when_full(world: &mut World) {
    let inside = full_server(world);
    let outside = world.join(0);
    world.depends_on(outside, inside);
    world.say(inside[0], "PING\r\n");
    world.expect(world.got(outside).contains("max number of clients"), true);
    world.crowded();
}

pub fn many_refused_when_full(world: &mut World) {
    let inside = full_server(world);
    world.delays_matter();
    let outside: Vec<usize> = (0..TOLD_PER_TURN + 2).map(|_| world.arrive(0)).collect();
    for client in &outside {
        world.depends_on(*client, inside);
        world.depends_on(*client, outside.clone());
    }
    world.settle();
    world.say(inside[0], "PING\r\n");
    let told = outside
        .iter()
        .filter(|client| world.got(**client).contains("max number of clients"))
        .count();
    world.expect(told, TOLD_PER_TURN);
    world.crowded();
}

pub fn room_after_a_full_server(world: &mut World) {
    let inside = full_server(world);
    let outside = world.join(0);
    world.close(inside[0]);
    world.settle();
    let later = world.join(0);
    world.depends_on(outside, inside);
    world.depends_on(later, inside);
    world.say(later, "PING\r\n");
    world.expect(world.got(later).as_str(), "+PONG\r\n");
    world.crowded();
}

pub fn small_share() -> Limits {
    Limits {
        max_silent: 4,
        max_silent_per_source: 1,
        first_message_timeout: Duration::ZERO,
        ..limits()
    }
}

/// The source is at its share, so its newcomer takes the place of its own silent connection.
pub fn a_source_at_its_share(world: &mut World) {
    let oldest = world.join_from(0, 1);
    let others = [world.join_from(0, 2), world.join_from(0, 3)];
    let newcomer = world.join_from(0, 1);
    world.depends_on(oldest, [others[0], others[1], newcomer]);
    world.depends_on(newcomer, [others[0], others[1], oldest]);
    world.say(newcomer, "Ada\n");
    world.say(others[0], "Bob\n");
    world.expect((world.closed(Reason::Recycled), world.end(oldest)), (1, End::Reset));
    world.expect(world.got(newcomer).ends_with("Ada!\r\n"), true);
}

pub fn the_longest_idle_makes_way(world: &mut World) {
    let inside = full_server(world);
    world.pass(3 * SECOND);
    world.say(inside[1], "PING\r\n");
    let newcomer = world.join(0);
    world.depends_on(newcomer, inside);
    world.depends_on(inside[0], [inside[1], newcomer]);
    world.depends_on(inside[1], [inside[0], newcomer]);
    world.say(newcomer, "PING\r\n");
    world.expect((world.closed(Reason::IdleEvicted), world.end(inside[0])), (1, End::Fin));
    world.expect(world.got(newcomer).as_str(), "+PONG\r\n");
    world.crowded();
}

pub fn ten_slots() -> Limits {
    Limits { max_connections: 10, ..limits() }
}

pub fn the_operator_gets_a_slot_when_full(world: &mut World) {
    let inside = full_server(world);
    let outside = world.join(0);
    let operator = world.join(1);
    world.depends_on(outside, inside);
    world.opaque(operator);
    world.depends_on(operator, [inside[0], inside[1], outside]);
    world.say(operator, "CLIENT LIST\r\n");
    world.expect(world.got(outside).contains("max number of clients"), true);
    world.expect(world.got(operator).matches("addr=").count(), 6);
    world.crowded();
}

pub fn out_of_files(world: &mut World) {
    let client = world.join(0);
    world.net().fail_accepts(libc::EMFILE, 2);
    let waiting = [world.arrive(0), world.arrive(0)];
    world.settle();
    let later = world.join(0);
    world.delays_matter();
    world.say(later, "Bob\n");
    world.say(client, "Ada\n");
    world.expect((world.end(waiting[0]), world.reactor.stats().accept_shed), (End::Reset, 2));
    world.expect(world.got(later).ends_with("Bob!\r\n"), true);
}

pub fn out_of_memory_for_accepts(world: &mut World) {
    let client = world.join(0);
    world.net().fail_accepts(libc::ENOBUFS, 2);
    let waiting = world.arrive(0);
    world.say(client, "Ada\n");
    world.say(waiting, "Bob\n");
    world.expect(world.got(waiting).ends_with("Bob!\r\n"), true);
}

pub fn accepts_that_fail_for_long(world: &mut World) {
    let client = world.join(0);
    world.net().fail_accepts(libc::EPERM, ACCEPT_FAILURES as usize + 2);
    let waiting = world.arrive(0);
    world.say(client, "Ada\n");
    world.say(waiting, "Bob\n");
    world.expect(world.got(waiting).ends_with("Bob!\r\n"), true);
}

pub fn one_accept_a_turn() -> Limits {
    Limits { accepts_per_turn: 1, ..limits() }
}

pub fn more_newcomers_than_a_turn_accepts(world: &mut World) {
    let clients: Vec<usize> = (0..4).map(|_| world.arrive(0)).collect();
    world.settle();
    world.say(clients[3], "Bob\n");
    world.expect(world.got(clients[3]).ends_with("Bob!\r\n"), true);
}

pub fn two_listeners(world: &mut World) {
    let clients = [world.arrive(0), world.arrive(1), world.arrive(0), world.arrive(1)];
    clients.iter().for_each(|client| world.send(*client, "Ada\n"));
    world.settle();
    world.expect(world.got(clients[0]).as_str(), "Hello\r\nHello, Ada!\r\n");
    world.expect(world.got(clients[3]).as_str(), "Ada\n");
}
