//! Scripts of the hub's commands.

use slabd::connection::Reason;
use slabd::net::sim::End;

use super::scenario::{MS, text};
use super::world::World;

pub fn ping(world: &mut World) {
    let clients = [world.join(0), world.join(0)];
    world.say(clients[0], "PING\r\n");
    world.say(clients[1], "*1\r\n$4\r\nPING\r\n");
    clients.iter().for_each(|client| world.expect(world.got(*client).as_str(), "+PONG\r\n"));
}

pub fn a_pipeline(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "PING\r\n".repeat(300));
    world.say(other, "PING\r\n");
    world.expect(world.got(client).len(), 300 * 7);
}

pub fn a_large_answer_to_a_slow_reader(world: &mut World) {
    let client = world.join(0);
    world.stop_reading(client, 5000);
    let text = text(30_000);
    world.say(
        client,
        [format!("*2\r\n$4\r\nECHO\r\n${}\r\n", text.len()).as_bytes(), &text, b"\r\nPING\r\n"]
            .concat(),
    );
    world.take(client, 4000);
    world.settle();
    world.resume_reading(client, 20_000);
    world.settle();
    world.expect(world.got(client).ends_with("\r\n+PONG\r\n"), true);
}

pub fn hello_3(world: &mut World) {
    let client = world.join(0);
    world.say(client, "HELLO 3 SETNAME ada\r\nCLIENT GETNAME\r\n");
    world.expect(world.got(client).ends_with("$3\r\nada\r\n"), true);
}

pub fn the_right_password(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    // The answer to HELLO has the client's id.
    world.depends_on(other, [client]);
    world.say(client, "AUTH sesame\r\nPING\r\n");
    world.say(other, "HELLO 3 AUTH default sesame\r\n");
    world.expect(world.got(client).as_str(), "+OK\r\n+PONG\r\n");
}

pub fn the_wrong_password(world: &mut World) {
    let client = world.join(0);
    world.say(client, "AUTH open\r\n");
    world.say(client, "AUTH sesame\r\n");
    world.expect(world.got(client).ends_with("+OK\r\n"), true);
}

pub fn no_password(world: &mut World) {
    let client = world.join(0);
    world.say(client, "PING\r\nPUBLISH a 1\r\n");
    world.say(client, "QUIT\r\n");
    world.expect(world.got(client).contains("NOAUTH"), true);
}

pub fn replies_unread_before_a_password(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.stop_reading(client, 10);
    world.say(client, "PING\r\n".repeat(50));
    world.say(other, "AUTH sesame\r\n");
    world.expect(world.closed(Reason::OutputLimit), 1);
}

pub fn subscribe_publish_unsubscribe(world: &mut World) {
    let (subscriber, publisher) = (world.join(0), world.join(0));
    world.depends_on(subscriber, [publisher]);
    world.depends_on(publisher, [subscriber]);
    world.say(subscriber, "SUBSCRIBE a\r\n");
    world.say(publisher, "PUBLISH a 1\r\n");
    world.say(subscriber, "UNSUBSCRIBE a\r\n");
    world.say(publisher, "PUBLISH a 2\r\n");
    world.expect(world.got(publisher).as_str(), ":1\r\n:0\r\n");
    world.expect(world.got(subscriber).ends_with("unsubscribe\r\n$1\r\na\r\n:0\r\n"), true);
}

pub fn fan_out_with_a_slow_subscriber(world: &mut World) {
    let subscribers = [world.join(0), world.join(0), world.join(0)];
    let publisher = world.join(0);
    subscribers.iter().for_each(|subscriber| world.depends_on(*subscriber, [publisher]));
    world.depends_on(publisher, subscribers);
    subscribers.iter().for_each(|subscriber| world.send(*subscriber, "SUBSCRIBE a\r\n"));
    world.settle();
    world.stop_reading(subscribers[1], 50);
    for message in 0..4 {
        world.say(publisher, format!("PUBLISH a {message:0>30}\r\n"));
    }
    world.resume_reading(subscribers[1], 1000);
    world.settle();
    world.say(publisher, "PUBLISH a last\r\n");
    for subscriber in subscribers {
        world.expect(world.got(subscriber).matches("message").count(), 5);
    }
}

pub fn a_subscriber_resets_with_pending_messages(world: &mut World) {
    let (leaver, stayer, publisher) = (world.join(0), world.join(0), world.join(0));
    world.depends_on(stayer, [publisher]);
    world.depends_on(leaver, [publisher]);
    world.depends_on(publisher, [leaver, stayer]);
    world.opaque(publisher);
    world.send(leaver, "SUBSCRIBE a b\r\n");
    world.send(stayer, "SUBSCRIBE a\r\n");
    world.settle();
    world.stop_reading(leaver, 20);
    world.say(publisher, "PUBLISH a 1\r\n");
    world.send(publisher, "PUBLISH a 2\r\n");
    world.reset(leaver);
    world.settle();
    world.say(publisher, "PUBLISH a 3\r\n");
    world.expect(world.got(publisher).ends_with(":1\r\n"), true);
    world.expect(world.got(stayer).matches("message").count(), 3);
}

pub fn patterns(world: &mut World) {
    let (subscriber, both, publisher) = (world.join(0), world.join(0), world.join(0));
    world.depends_on(subscriber, [publisher]);
    world.depends_on(both, [publisher]);
    world.depends_on(publisher, [subscriber, both]);
    world.say(subscriber, "PSUBSCRIBE a*\r\n");
    world.say(both, "PSUBSCRIBE *b\r\nSUBSCRIBE ab\r\n");
    world.say(publisher, "PUBLISH ab 1\r\n");
    world.say(subscriber, "PUNSUBSCRIBE\r\n");
    world.say(publisher, "PUBLISH ab 2\r\nPUBSUB NUMPAT\r\n");
    world.expect(world.got(publisher).as_str(), ":3\r\n:2\r\n:1\r\n");
}

pub fn monitor(world: &mut World) {
    let (monitor, client) = (world.join(0), world.join(0));
    world.opaque(monitor);
    world.depends_on(monitor, [client]);
    world.say(monitor, "MONITOR\r\n");
    world.say(client, "PING\r\n");
    world.say(client, "PUBLISH a 1\r\n");
    world.say(monitor, "RESET\r\n");
    world.say(client, "PING\r\n");
    world.expect(world.got(monitor).lines().count(), 4);
}

pub fn client_list(world: &mut World) {
    let clients = [world.join(0), world.join(0), world.join(0)];
    world.opaque(clients[0]);
    world.depends_on(clients[0], [clients[1], clients[2]]);
    world.stop_reading(clients[1], 10);
    world.say(clients[1], "SUBSCRIBE a\r\n");
    world.say(clients[0], "CLIENT LIST\r\n");
    world.close(clients[1]);
    world.settle();
    world.say(clients[0], "CLIENT CLOSED\r\n");
    world.say(clients[0], "CLIENT INFO\r\n");
    world.say(clients[2], "PING\r\n");
    world.expect(world.got(clients[0]).matches("addr=127.0.0.1").count(), 5);
}

pub fn client_list_over_ipv6(world: &mut World) {
    let clients = [world.join(0), world.join(0)];
    world.opaque(clients[0]);
    world.depends_on(clients[0], [clients[1]]);
    world.say(clients[0], "CLIENT LIST\r\n");
    world.close(clients[1]);
    world.settle();
    world.say(clients[0], "CLIENT CLOSED\r\n");
    world.expect(world.got(clients[0]).matches("addr=[::1]").count(), 3);
}

pub fn client_kill(world: &mut World) {
    let clients = [world.join(0), world.join(0), world.join(0)];
    world.depends_on(clients[0], clients);
    world.depends_on(clients[1], [clients[0]]);
    world.say(clients[1], "SUBSCRIBE a\r\n");
    world.say(clients[0], "CLIENT KILL TYPE pubsub\r\n");
    world.say(clients[0], "PUBLISH a 1\r\n");
    world.say(clients[2], "PING\r\n");
    world.expect(
        (world.got(clients[0]).as_str(), world.closed(Reason::Killed)),
        (":1\r\n:0\r\n", 1),
    );
}

pub fn client_kill_of_itself(world: &mut World) {
    let client = world.join(0);
    world.say(client, "CLIENT KILL ID 1 SKIPME no\r\n");
    world.expect((world.got(client).as_str(), world.end(client)), (":1\r\n", End::Fin));
}

pub fn info(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.opaque(client);
    world.stop_reading(other, 10);
    world.say(other, "PING\r\nPING\r\n");
    world.say(client, "INFO accept_queues\r\nINFO kernel_memory\r\n");
    world.expect(world.got(client).contains("waiting_of_128:0"), true);
}

pub fn quit(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "PING\r\nQUIT\r\nPING\r\n");
    world.pass(100 * MS);
    world.close(client);
    world.say(other, "PING\r\n");
    world.expect((world.got(client).as_str(), world.end(client)), ("+PONG\r\n+OK\r\n", End::Fin));
}

pub fn reset_command(world: &mut World) {
    let (client, publisher) = (world.join(0), world.join(0));
    world.depends_on(client, [publisher]);
    world.depends_on(publisher, [client]);
    world.say(client, "HELLO 3\r\nSUBSCRIBE a\r\nPSUBSCRIBE a\r\n");
    world.say(client, "RESET\r\n");
    world.say(publisher, "PUBLISH a 1\r\n");
    world.expect(world.got(publisher).as_str(), ":0\r\n");
}

pub fn bad_multibulk(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "*1\r\n$x\r\n");
    world.pass(100 * MS);
    world.say(other, "PING\r\n");
    world.close(client);
    world.expect(
        (world.got(client).contains("Protocol error"), world.end(client)),
        (true, End::Fin),
    );
}

pub fn shutdown_by_command(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.depends_on(other, [client]);
    world.say(other, "SUBSCRIBE a\r\n");
    world.say(client, "SHUTDOWN\r\n");
    world.expect(world.reactor.is_draining(), true);
}
