//! Scripts of datagrams, and of the operator's drains and settings.

use slabd::connection::Reason;
use slabd::limits::{Limits, SocketOptions};
use slabd::net::sim::End;

use super::scenario::{MS, SECOND, limits, text};
use super::world::World;

pub fn a_datagram(world: &mut World) {
    let client = world.join(0);
    world.datagram(0, 1, "Ada");
    world.settle();
    world.datagram(0, 2, "Bob");
    world.say(client, "Cy\n");
    world.expect(world.reactor.stats().datagrams_out, 2);
}

pub fn more_datagrams_than_a_batch(world: &mut World) {
    (0..70).for_each(|number| world.datagram(0, 1, format!("number {number}")));
    world.settle();
    world.expect(world.reactor.stats().datagrams_out, 70);
}

pub fn an_answer_to_an_unreachable_source(world: &mut World) {
    world.net().fail_sends(libc::ENETUNREACH, 1);
    (0..3).for_each(|host| world.datagram(0, host, "round"));
    world.settle();
    world.datagram(0, 9, "round");
    world.settle();
    world.expect(
        (world.reactor.stats().datagrams_out, world.reactor.stats().datagram_errors),
        (3, 1),
    );
}

pub fn a_full_send_buffer(world: &mut World) {
    world.net().fail_sends(libc::EAGAIN, 1);
    (0..3).for_each(|host| world.datagram(0, host, "round"));
    world.settle();
    world.datagram(0, 9, "round");
    world.settle();
    world.expect(world.reactor.stats().datagrams_dropped_full, 3);
}

pub fn an_icmp_error(world: &mut World) {
    world.net().fail_receives(libc::ECONNREFUSED, 2);
    world.datagram(0, 1, "round");
    world.settle();
    world.datagram(0, 2, "round");
    world.settle();
    world.expect(world.reactor.stats().datagrams_out, 2);
}

pub fn publish_by_datagram(world: &mut World) {
    let subscribers = [world.join(0), world.join(0)];
    subscribers.iter().for_each(|subscriber| world.say(*subscriber, "SUBSCRIBE a\r\n"));
    world.answers_vary();
    world.datagram(0, 1, "PUBLISH a 1");
    world.settle();
    world.datagram(0, 1, "PUBLISH a 2");
    world.settle();
    subscribers.iter().for_each(|subscriber| {
        world.expect(world.got(*subscriber).matches("message").count(), 2);
    });
}

pub fn two_sockets(world: &mut World) {
    (0..3).for_each(|host| {
        world.datagram(0, host, "Ada");
        world.datagram(1, host + 10, "round");
    });
    world.settle();
    world.expect(world.reactor.stats().datagrams_out, 6);
}

pub fn a_drain_with_peers_of_all_states(world: &mut World) {
    let (silent, open, partial) = (world.join(0), world.join(0), world.join(0));
    let (resp3, deaf, lingers) = (world.join(1), world.join(1), world.join(1));
    world.would_block_matters();
    world.say(open, "Ada\n");
    world.say(partial, "part");
    world.say(resp3, "HELLO 3\r\nSUBSCRIBE a\r\n");
    world.stop_reading(deaf, 10);
    world.say(deaf, "PING\r\nPING\r\n");
    world.send(lingers, "*x\r\n");
    world.pass(100 * MS);
    // The drain resets a client in the accept queue.
    world.arrive(0);
    world.datagram(0, 1, "Ada");
    world.send(open, "last\n");
    world.reactor.drain();
    world.settle();
    world.expect((world.end(silent), world.end(lingers)), (End::Fin, End::Fin));
    world.expect(world.got(open).ends_with("last!\r\n"), true);
    world.expect(world.got(resp3).ends_with("drain\r\n"), true);
}

pub fn a_drain_until_its_timeout(world: &mut World) {
    let (deaf, open) = (world.join(0), world.join(0));
    world.stop_reading(deaf, 10);
    world.say(deaf, text(100));
    world.reactor.set_limits(Limits { close_timeout: 30 * SECOND, ..limits() });
    world.reactor.drain();
    world.pass(4 * SECOND);
    world.expect(
        (world.closed(Reason::DrainTimeout), world.end(deaf), world.end(open)),
        (1, End::Reset, End::Fin),
    );
}

pub fn socket_options_change(world: &mut World) {
    let client = world.join(0);
    let sockets = SocketOptions { user_timeout: 7 * SECOND, ..SocketOptions::default() };
    world.reactor.set_limits(Limits { sockets, ..limits() });
    let later = world.join(1);
    world.say(later, "round");
    world.say(client, "Ada\n");
    world.expect(world.reactor.net().socket_options().user_timeout, 7 * SECOND);
}
