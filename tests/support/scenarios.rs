//! The scenarios that are tortured: each is short, and what it is named after is asked for in the run in which nothing fails.
//!
//! Where a client's answers depend on another client, the script says so; everybody else must not notice what befalls that one.

use slabd::buffer::BufferMode;
use slabd::connection::Reason;
use slabd::limits::{ACCEPT_FAILURES, Limits, SocketOptions, TOLD_PER_TURN};
use slabd::net::sim::End;

use super::torture::{Kind, MS, SECOND, Scenario, World, limits};

const fn on(name: &'static str, listeners: &'static [Kind], script: fn(&mut World)) -> Scenario {
    Scenario { name, listeners, sockets: &[], buffers: BufferMode::Pooled, limits, script }
}

const fn with(
    name: &'static str,
    listeners: &'static [Kind],
    limits: fn() -> Limits,
    script: fn(&mut World),
) -> Scenario {
    Scenario { name, listeners, sockets: &[], buffers: BufferMode::Pooled, limits, script }
}

const fn datagrams(name: &'static str, kind: &'static [Kind], script: fn(&mut World)) -> Scenario {
    Scenario { name, listeners: kind, sockets: kind, buffers: BufferMode::Pooled, limits, script }
}

pub const SCENARIOS: &[Scenario] = &[
    // Lines and bytes.
    on("a_greeting_and_a_line", &[Kind::Hello], a_greeting_and_a_line),
    on("a_line_in_two_parts", &[Kind::Hello], a_line_in_two_parts),
    on("more_lines_than_a_turn_takes", &[Kind::Hello], more_lines_than_a_turn_takes),
    on("several_clients_at_once", &[Kind::Hello], several_clients_at_once),
    on("echo_of_more_than_a_window", &[Kind::Echo], echo_of_more_than_a_window),
    on("a_slow_reader_is_blocked_and_resumes", &[Kind::Echo], a_slow_reader_is_blocked_and_resumes),
    with("paused_by_backpressure", &[Kind::Echo], narrow, paused_by_backpressure),
    Scenario {
        buffers: BufferMode::Fixed(256),
        ..on("buffers_of_a_fixed_size", &[Kind::Hello], buffers_of_a_fixed_size)
    },
    // Ends.
    on("a_half_close_with_answers_owed", &[Kind::Echo], a_half_close_with_answers_owed),
    on("a_half_close_after_an_unended_line", &[Kind::Hello], a_half_close_after_an_unended_line),
    on("a_reset_in_the_middle_of_a_message", &[Kind::Hello], a_reset_in_the_middle_of_a_message),
    on("a_reset_while_output_waits", &[Kind::Echo], a_reset_while_output_waits),
    on("gone_before_they_are_accepted", &[Kind::Hello], gone_before_they_are_accepted),
    with("a_line_too_long", &[Kind::Hello], short_lines, a_line_too_long),
    with("more_comes_while_it_lingers", &[Kind::Hello], short_lines, more_comes_while_it_lingers),
    with("it_lingers_to_the_end_of_its_time", &[Kind::Hello], short_lines, it_lingers_to_the_end_of_its_time),
    with("owed_and_not_taken_when_closing", &[Kind::Hello], short_lines, owed_and_not_taken_when_closing),
    // Commands.
    on("ping", &[Kind::Hub], ping),
    on("a_pipeline", &[Kind::Hub], a_pipeline),
    on("a_large_answer_to_a_slow_reader", &[Kind::Hub], a_large_answer_to_a_slow_reader),
    on("hello_3", &[Kind::Hub], hello_3),
    on("the_right_password", &[Kind::Locked], the_right_password),
    on("the_wrong_password", &[Kind::Locked], the_wrong_password),
    on("no_password", &[Kind::Locked], no_password),
    on("replies_unread_before_a_password", &[Kind::Locked], replies_unread_before_a_password),
    on("subscribe_publish_unsubscribe", &[Kind::Hub], subscribe_publish_unsubscribe),
    on("fan_out_with_a_slow_one", &[Kind::Hub], fan_out_with_a_slow_one),
    on("a_subscriber_goes_while_messages_wait", &[Kind::Hub], a_subscriber_goes_while_messages_wait),
    on("patterns", &[Kind::Hub], patterns),
    on("monitor", &[Kind::Hub], monitor),
    on("client_list", &[Kind::Hub], client_list),
    on("client_list_over_ipv6", &[Kind::Hub6], client_list_over_ipv6),
    on("client_kill", &[Kind::Hub], client_kill),
    on("client_kill_of_itself", &[Kind::Hub], client_kill_of_itself),
    on("info", &[Kind::Hub], info),
    on("quit", &[Kind::Hub], quit),
    on("reset_command", &[Kind::Hub], reset_command),
    on("bad_multibulk", &[Kind::Hub], bad_multibulk),
    on("an_http_request", &[Kind::Hub], an_http_request),
    on("shutdown_by_command", &[Kind::Hub], shutdown_by_command),
    // Deadlines.
    with("idle", &[Kind::Hub], idle_limits, idle),
    with("idle_with_output_unacknowledged", &[Kind::Hub], idle_limits, idle_with_output_unacknowledged),
    with("the_first_message_does_not_come", &[Kind::Hub], first_limits, the_first_message_does_not_come),
    with("a_message_is_not_completed", &[Kind::Hub], message_limits, a_message_is_not_completed),
    with("output_is_not_taken", &[Kind::Echo], output_limits, output_is_not_taken),
    // Limits.
    with("over_the_soft_limit_for_too_long", &[Kind::Hub], soft_limits, over_the_soft_limit_for_too_long),
    with("over_the_hard_limit", &[Kind::Hub], hard_limits, over_the_hard_limit),
    with("the_largest_makes_way", &[Kind::Echo], tight_budget, the_largest_makes_way),
    with("no_memory_for_more_input", &[Kind::Hello], tiny_budget, no_memory_for_more_input),
    // Admission.
    with("the_oldest_silent_one_makes_way", &[Kind::Hello], few_silent, the_oldest_silent_one_makes_way),
    with("refused_when_full", &[Kind::Hub], few_slots, refused_when_full),
    with("refused_when_full_by_the_dozen", &[Kind::Hub], few_slots, refused_when_full_by_the_dozen),
    with("room_again_after_a_full_house", &[Kind::Hub], few_slots, room_again_after_a_full_house),
    with("refused_for_a_penalty", &[Kind::Hello], penalties, refused_for_a_penalty),
    with("the_operator_gets_in_when_full", &[Kind::Hub, Kind::Operator], ten_slots, the_operator_gets_in_when_full),
    on("out_of_files", &[Kind::Hello], out_of_files),
    on("out_of_memory_for_accepts", &[Kind::Hello], out_of_memory_for_accepts),
    on("accepts_that_fail_for_long", &[Kind::Hello], accepts_that_fail_for_long),
    with("more_newcomers_than_a_turn_accepts", &[Kind::Hello], one_accept_a_turn, more_newcomers_than_a_turn_accepts),
    on("two_listeners", &[Kind::Hello, Kind::Echo], two_listeners),
    // Datagrams.
    datagrams("a_datagram", &[Kind::Hello], a_datagram),
    datagrams("more_datagrams_than_a_batch", &[Kind::Echo], more_datagrams_than_a_batch),
    datagrams("an_answer_to_an_unreachable_source", &[Kind::Echo], an_answer_to_an_unreachable_source),
    datagrams("a_full_send_buffer", &[Kind::Echo], a_full_send_buffer),
    datagrams("an_error_that_icmp_brought", &[Kind::Echo], an_error_that_icmp_brought),
    datagrams("publish_by_datagram", &[Kind::Hub], publish_by_datagram),
    datagrams("two_sockets", &[Kind::Hello, Kind::Echo], two_sockets),
    // Every budget of a turn at its least, so that nearly all work is carried over.
    with("lines_with_least_budgets", &[Kind::Hello], least_budgets, more_lines_than_a_turn_takes),
    with("clients_with_least_budgets", &[Kind::Hello], least_budgets, several_clients_at_once),
    with("echo_with_least_budgets", &[Kind::Echo], least_budgets, echo_of_more_than_a_window),
    with("fan_out_with_least_budgets", &[Kind::Hub], least_budgets, fan_out_with_a_slow_one),
    Scenario {
        limits: least_budgets,
        ..datagrams("a_drain_with_least_budgets", &[Kind::Hello, Kind::Hub], a_drain_with_peers_of_all_states)
    },
    // The operator.
    datagrams("a_drain_with_peers_of_all_states", &[Kind::Hello, Kind::Hub], a_drain_with_peers_of_all_states),
    on("a_drain_to_the_end_of_its_time", &[Kind::Echo], a_drain_to_the_end_of_its_time),
    on("socket_options_change", &[Kind::Hello, Kind::Echo], socket_options_change),
];

fn a_greeting_and_a_line(world: &mut World) {
    let client = world.join(0);
    world.say(client, "Ada\n");
    world.expect(world.got(client).as_str(), "Hello\r\nHello, Ada!\r\n");
}

fn a_line_in_two_parts(world: &mut World) {
    let clients = [world.join(0), world.join(0)];
    clients.iter().for_each(|client| world.send(*client, "A"));
    world.settle();
    clients.iter().for_each(|client| world.say(*client, "da\nB"));
    world.say(clients[0], "ob\n");
    world.expect(world.got(clients[0]).ends_with("Ada!\r\nHello, Bob!\r\n"), true);
    world.expect(world.reactor.ledger().read_buffers, 64);
}

fn more_lines_than_a_turn_takes(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "x\n".repeat(300));
    world.say(other, "Bob\n");
    world.expect(world.got(client).matches("Hello, x!").count(), 300);
}

fn several_clients_at_once(world: &mut World) {
    let clients: Vec<usize> = (0..5).map(|_| world.arrive(0)).collect();
    clients.iter().for_each(|client| world.send(*client, format!("{client}\n")));
    world.settle();
    for client in clients {
        world.expect(world.got(client), format!("Hello\r\nHello, {client}!\r\n"));
    }
}

/// Text whose parts cannot be taken for one another.
fn text(length: usize) -> Vec<u8> {
    (0..length).map(|index| b'a' + (index % 23) as u8).collect()
}

fn echo_of_more_than_a_window(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, text(150_000));
    world.say(other, "round");
    world.expect(world.got(client).len(), 150_000);
}

fn a_slow_reader_is_blocked_and_resumes(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.deafen(client, 300);
    world.say(client, text(1000));
    for _ in 0..6 {
        world.take(client, 200);
        world.say(other, "round");
    }
    world.send(client, text(500));
    world.listen_up(client, 1000);
    world.settle();
    world.expect(world.got(client).len(), 1500);
}

fn narrow() -> Limits {
    Limits { high_watermark: 4096, low_watermark: 1024, ..limits() }
}

fn paused_by_backpressure(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.deafen(client, 500);
    for _ in 0..4 {
        world.say(client, text(3000));
    }
    world.expect(world.reactor.stats().bytes_in < 12_000, true);
    world.say(other, "round");
    world.listen_up(client, 2000);
    world.settle();
    world.expect(world.got(client).len(), 12_000);
}

fn buffers_of_a_fixed_size(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.say(client, "a\npart");
    world.send(client, format!("{}\n", "x".repeat(600)));
    world.say(other, "b\n");
    world.expect(world.got(client).ends_with("xxx!\r\n"), true);
}

fn a_half_close_with_answers_owed(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.deafen(client, 30);
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

fn a_half_close_after_an_unended_line(world: &mut World) {
    let client = world.join(0);
    world.send(client, "a\nlast");
    world.shut(client);
    world.settle();
    world.expect((world.got(client).ends_with("last!\r\n"), world.closed(Reason::PeerClosed)), (true, 1));
}

fn a_reset_in_the_middle_of_a_message(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.say(client, "half");
    world.reset(client);
    world.say(other, "Bob\n");
    world.expect(world.closed(Reason::PeerReset), 1);
}

fn a_reset_while_output_waits(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.deafen(client, 10);
    world.say(client, text(1000));
    world.reset(client);
    world.say(other, "round");
    world.expect(world.closed(Reason::PeerReset), 1);
}

fn gone_before_they_are_accepted(world: &mut World) {
    let clients = [world.arrive(0), world.arrive(0), world.arrive(0)];
    world.reset(clients[0]);
    world.close(clients[1]);
    world.say(clients[2], "Ada\n");
    world.expect(world.reactor.connections(), 1);
}

fn short_lines() -> Limits {
    Limits { max_line: 8, ..limits() }
}

fn a_line_too_long(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "123456789");
    world.pass(100 * MS);
    world.expect((world.got(client).contains("longer than 8"), world.end(client)), (true, End::Fin));
    world.expect(world.reactor.connections(), 2);
    world.close(client);
    world.say(other, "Bob\n");
    world.expect(world.closed(Reason::LineTooLong), 1);
}

fn more_comes_while_it_lingers(world: &mut World) {
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

fn it_lingers_to_the_end_of_its_time(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "123456789");
    world.pass(1500 * MS);
    world.say(other, "Bob\n");
    world.expect((world.closed(Reason::LineTooLong), world.end(client)), (1, End::Fin));
}

fn owed_and_not_taken_when_closing(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.deafen(client, 4);
    world.send(client, "123456789");
    world.pass(1500 * MS);
    world.say(other, "Bob\n");
    world.expect((world.closed(Reason::CloseTimeout), world.end(client)), (1, End::Reset));
}

fn ping(world: &mut World) {
    let clients = [world.join(0), world.join(0)];
    world.say(clients[0], "PING\r\n");
    world.say(clients[1], "*1\r\n$4\r\nPING\r\n");
    clients.iter().for_each(|client| world.expect(world.got(*client).as_str(), "+PONG\r\n"));
}

fn a_pipeline(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "PING\r\n".repeat(300));
    world.say(other, "PING\r\n");
    world.expect(world.got(client).len(), 300 * 7);
}

fn a_large_answer_to_a_slow_reader(world: &mut World) {
    let client = world.join(0);
    world.deafen(client, 5000);
    let text = text(30_000);
    world.say(client, [format!("*2\r\n$4\r\nECHO\r\n${}\r\n", text.len()).as_bytes(), &text, b"\r\nPING\r\n"].concat());
    world.take(client, 4000);
    world.settle();
    world.listen_up(client, 20_000);
    world.settle();
    world.expect(world.got(client).ends_with("\r\n+PONG\r\n"), true);
}

fn hello_3(world: &mut World) {
    let client = world.join(0);
    world.say(client, "HELLO 3 SETNAME ada\r\nCLIENT GETNAME\r\n");
    world.expect(world.got(client).ends_with("$3\r\nada\r\n"), true);
}

fn the_right_password(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    // It is told its number.
    world.heeds(other, [client]);
    world.say(client, "AUTH sesame\r\nPING\r\n");
    world.say(other, "HELLO 3 AUTH default sesame\r\n");
    world.expect(world.got(client).as_str(), "+OK\r\n+PONG\r\n");
}

fn the_wrong_password(world: &mut World) {
    let client = world.join(0);
    world.say(client, "AUTH open\r\n");
    world.say(client, "AUTH sesame\r\n");
    world.expect(world.got(client).ends_with("+OK\r\n"), true);
}

fn no_password(world: &mut World) {
    let client = world.join(0);
    world.say(client, "PING\r\nPUBLISH a 1\r\n");
    world.say(client, "QUIT\r\n");
    world.expect(world.got(client).contains("NOAUTH"), true);
}

fn replies_unread_before_a_password(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.deafen(client, 10);
    world.say(client, "PING\r\n".repeat(50));
    world.say(other, "AUTH sesame\r\n");
    world.expect(world.closed(Reason::OutputLimit), 1);
}

fn subscribe_publish_unsubscribe(world: &mut World) {
    let (subscriber, publisher) = (world.join(0), world.join(0));
    world.heeds(subscriber, [publisher]);
    world.heeds(publisher, [subscriber]);
    world.say(subscriber, "SUBSCRIBE a\r\n");
    world.say(publisher, "PUBLISH a 1\r\n");
    world.say(subscriber, "UNSUBSCRIBE a\r\n");
    world.say(publisher, "PUBLISH a 2\r\n");
    world.expect(world.got(publisher).as_str(), ":1\r\n:0\r\n");
    world.expect(world.got(subscriber).ends_with("unsubscribe\r\n$1\r\na\r\n:0\r\n"), true);
}

fn fan_out_with_a_slow_one(world: &mut World) {
    let subscribers = [world.join(0), world.join(0), world.join(0)];
    let publisher = world.join(0);
    subscribers.iter().for_each(|subscriber| world.heeds(*subscriber, [publisher]));
    world.heeds(publisher, subscribers);
    subscribers.iter().for_each(|subscriber| world.send(*subscriber, "SUBSCRIBE a\r\n"));
    world.settle();
    world.deafen(subscribers[1], 50);
    for message in 0..4 {
        world.say(publisher, format!("PUBLISH a {message:0>30}\r\n"));
    }
    world.listen_up(subscribers[1], 1000);
    world.settle();
    world.say(publisher, "PUBLISH a last\r\n");
    for subscriber in subscribers {
        world.expect(world.got(subscriber).matches("message").count(), 5);
    }
}

fn a_subscriber_goes_while_messages_wait(world: &mut World) {
    let (leaver, stayer, publisher) = (world.join(0), world.join(0), world.join(0));
    world.heeds(stayer, [publisher]);
    world.heeds(leaver, [publisher]);
    world.heeds(publisher, [leaver, stayer]);
    world.opaque(publisher);
    world.send(leaver, "SUBSCRIBE a b\r\n");
    world.send(stayer, "SUBSCRIBE a\r\n");
    world.settle();
    world.deafen(leaver, 20);
    world.say(publisher, "PUBLISH a 1\r\n");
    world.send(publisher, "PUBLISH a 2\r\n");
    world.reset(leaver);
    world.settle();
    world.say(publisher, "PUBLISH a 3\r\n");
    world.expect(world.got(publisher).ends_with(":1\r\n"), true);
    world.expect(world.got(stayer).matches("message").count(), 3);
}

fn patterns(world: &mut World) {
    let (subscriber, both, publisher) = (world.join(0), world.join(0), world.join(0));
    world.heeds(subscriber, [publisher]);
    world.heeds(both, [publisher]);
    world.heeds(publisher, [subscriber, both]);
    world.say(subscriber, "PSUBSCRIBE a*\r\n");
    world.say(both, "PSUBSCRIBE *b\r\nSUBSCRIBE ab\r\n");
    world.say(publisher, "PUBLISH ab 1\r\n");
    world.say(subscriber, "PUNSUBSCRIBE\r\n");
    world.say(publisher, "PUBLISH ab 2\r\nPUBSUB NUMPAT\r\n");
    world.expect(world.got(publisher).as_str(), ":3\r\n:2\r\n:1\r\n");
}

fn monitor(world: &mut World) {
    let (monitor, client) = (world.join(0), world.join(0));
    world.opaque(monitor);
    world.heeds(monitor, [client]);
    world.say(monitor, "MONITOR\r\n");
    world.say(client, "PING\r\n");
    world.say(client, "PUBLISH a 1\r\n");
    world.say(monitor, "RESET\r\n");
    world.say(client, "PING\r\n");
    world.expect(world.got(monitor).lines().count(), 4);
}

fn client_list(world: &mut World) {
    let clients = [world.join(0), world.join(0), world.join(0)];
    world.opaque(clients[0]);
    world.heeds(clients[0], [clients[1], clients[2]]);
    world.deafen(clients[1], 10);
    world.say(clients[1], "SUBSCRIBE a\r\n");
    world.say(clients[0], "CLIENT LIST\r\n");
    world.close(clients[1]);
    world.settle();
    world.say(clients[0], "CLIENT CLOSED\r\n");
    world.say(clients[0], "CLIENT INFO\r\n");
    world.say(clients[2], "PING\r\n");
    world.expect(world.got(clients[0]).matches("addr=127.0.0.1").count(), 5);
}

fn client_list_over_ipv6(world: &mut World) {
    let clients = [world.join(0), world.join(0)];
    world.opaque(clients[0]);
    world.heeds(clients[0], [clients[1]]);
    world.say(clients[0], "CLIENT LIST\r\n");
    world.close(clients[1]);
    world.settle();
    world.say(clients[0], "CLIENT CLOSED\r\n");
    world.expect(world.got(clients[0]).matches("addr=[::1]").count(), 3);
}

fn client_kill(world: &mut World) {
    let clients = [world.join(0), world.join(0), world.join(0)];
    world.heeds(clients[0], clients);
    world.heeds(clients[1], [clients[0]]);
    world.say(clients[1], "SUBSCRIBE a\r\n");
    world.say(clients[0], "CLIENT KILL TYPE pubsub\r\n");
    world.say(clients[0], "PUBLISH a 1\r\n");
    world.say(clients[2], "PING\r\n");
    world.expect((world.got(clients[0]).as_str(), world.closed(Reason::Killed)), (":1\r\n:0\r\n", 1));
}

fn client_kill_of_itself(world: &mut World) {
    let client = world.join(0);
    world.say(client, "CLIENT KILL ID 1 SKIPME no\r\n");
    world.expect((world.got(client).as_str(), world.end(client)), (":1\r\n", End::Fin));
}

fn info(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.opaque(client);
    world.deafen(other, 10);
    world.say(other, "PING\r\nPING\r\n");
    world.say(client, "INFO accept_queues\r\nINFO kernel_memory\r\n");
    world.expect(world.got(client).contains("waiting_of_128:0"), true);
}

fn quit(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "PING\r\nQUIT\r\nPING\r\n");
    world.pass(100 * MS);
    world.close(client);
    world.say(other, "PING\r\n");
    world.expect((world.got(client).as_str(), world.end(client)), ("+PONG\r\n+OK\r\n", End::Fin));
}

fn reset_command(world: &mut World) {
    let (client, publisher) = (world.join(0), world.join(0));
    world.heeds(client, [publisher]);
    world.heeds(publisher, [client]);
    world.say(client, "HELLO 3\r\nSUBSCRIBE a\r\nPSUBSCRIBE a\r\n");
    world.say(client, "RESET\r\n");
    world.say(publisher, "PUBLISH a 1\r\n");
    world.expect(world.got(publisher).as_str(), ":0\r\n");
}

fn bad_multibulk(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "*1\r\n$x\r\n");
    world.pass(100 * MS);
    world.say(other, "PING\r\n");
    world.close(client);
    world.expect((world.got(client).contains("Protocol error"), world.end(client)), (true, End::Fin));
}

fn an_http_request(world: &mut World) {
    let client = world.join(0);
    world.send(client, "POST / HTTP/1.1\r\nHost: a\r\n\r\nPUBLISH a 1\r\n");
    world.pass(100 * MS);
    world.close(client);
    world.expect((world.got(client).starts_with("HTTP/1.1 501"), world.end(client)), (true, End::Fin));
}

fn shutdown_by_command(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.heeds(other, [client]);
    world.say(other, "SUBSCRIBE a\r\n");
    world.say(client, "SHUTDOWN\r\n");
    world.expect(world.reactor.is_draining(), true);
}

fn idle_limits() -> Limits {
    Limits { idle_timeout: 5 * SECOND, ..limits() }
}

fn idle(world: &mut World) {
    let (client, listener) = (world.join(0), world.join(0));
    world.tells_by_best_effort();
    world.say(listener, "SUBSCRIBE a\r\n");
    world.say(client, "HELLO 3\r\n");
    world.pass(7 * SECOND);
    world.expect((world.closed(Reason::IdleTimeout), world.end(client)), (1, End::Fin));
    world.expect(world.got(client).ends_with("idle-timeout\r\n"), true);
}

fn idle_with_output_unacknowledged(world: &mut World) {
    let (client, listener) = (world.join(0), world.join(0));
    world.say(listener, "SUBSCRIBE a\r\n");
    world.say(client, "HELLO 3\r\n");
    world.deafen(client, 1000);
    world.say(client, "PING\r\n");
    world.pass(7 * SECOND);
    world.expect((world.closed(Reason::IdleTimeout), world.end(client)), (1, End::Reset));
}

fn first_limits() -> Limits {
    Limits { first_message_timeout: 3 * SECOND, ..limits() }
}

fn the_first_message_does_not_come(world: &mut World) {
    let (client, other) = (world.join(0), world.join(0));
    world.send(client, "*1");
    world.say(other, "PING\r\n");
    world.pass(4 * SECOND);
    world.expect((world.closed(Reason::FirstMessageTimeout), world.end(client)), (1, End::Reset));
}

fn message_limits() -> Limits {
    Limits { message_timeout: 3 * SECOND, ..limits() }
}

fn a_message_is_not_completed(world: &mut World) {
    let (client, deaf, other) = (world.join(0), world.join(0), world.join(0));
    world.tells_by_best_effort();
    world.say(client, "PING\r\n*1\r\n");
    world.deafen(deaf, 1000);
    world.say(deaf, "PING\r\n*1\r\n");
    world.say(other, "PING\r\n");
    world.pass(4 * SECOND);
    world.expect(world.closed(Reason::MessageTimeout), 2);
    world.expect((world.end(client), world.end(deaf)), (End::Fin, End::Reset));
    world.expect(world.got(client).ends_with("closing: message-timeout\r\n"), true);
}

fn output_limits() -> Limits {
    Limits { output_timeout: 3 * SECOND, ..limits() }
}

fn output_is_not_taken(world: &mut World) {
    let (client, drips, other) = (world.join(0), world.join(0), world.join(0));
    world.would_block_tells();
    for deaf in [client, drips] {
        world.deafen(deaf, 90);
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

fn soft_limits() -> Limits {
    Limits { output_soft_limit: 1000, output_soft_time: 3 * SECOND, ..limits() }
}

/// A subscriber, one who publishes so many messages of 1,000 bytes to it, and another subscriber, who takes them.
fn publish_to_a_slow_one(world: &mut World, messages: usize) -> [usize; 3] {
    let (slow, other, publisher) = (world.join(0), world.join(0), world.join(0));
    world.heeds(slow, [publisher]);
    world.heeds(other, [publisher]);
    world.heeds(publisher, [slow, other]);
    world.send(slow, "SUBSCRIBE a\r\n");
    world.say(other, "SUBSCRIBE a\r\n");
    world.deafen(slow, 100);
    for _ in 0..messages {
        world.say(publisher, format!("PUBLISH a {:x>1000}\r\n", ""));
    }
    [slow, other, publisher]
}

fn over_the_soft_limit_for_too_long(world: &mut World) {
    let [slow, other, _] = publish_to_a_slow_one(world, 2);
    world.pass(5 * SECOND);
    world.expect((world.closed(Reason::OutputLimit), world.end(slow)), (1, End::Reset));
    world.expect(world.got(other).matches("message").count(), 2);
}

fn hard_limits() -> Limits {
    Limits { output_limit: 3000, output_soft_limit: 3000, ..limits() }
}

fn over_the_hard_limit(world: &mut World) {
    let [slow, other, _] = publish_to_a_slow_one(world, 4);
    world.expect((world.closed(Reason::OutputLimit), world.end(slow)), (1, End::Reset));
    world.expect(world.got(other).matches("message").count(), 4);
}

/// Each blocked one counts with 64 KiB of kernel buffers beside its own.
fn small_buffers() -> SocketOptions {
    SocketOptions { send_buffer: 32 * 1024, receive_buffer: 32 * 1024, ..SocketOptions::default() }
}

fn tight_budget() -> Limits {
    Limits { memory_budget: 200_000, high_watermark: 20_000, sockets: small_buffers(), ..limits() }
}

fn the_largest_makes_way(world: &mut World) {
    let (small, large, larger) = (world.join(0), world.join(0), world.join(0));
    world.heeds(larger, [small, large]);
    world.heeds(large, [small, larger]);
    for (client, length) in [(small, 100), (large, 10_000), (larger, 19_000)] {
        world.deafen(client, 10);
        world.say(client, text(length));
    }
    world.expect((world.reactor.stats().evicted, world.end(larger)), (1, End::Reset));
    world.listen_up(small, 1000);
    world.settle();
    world.expect(world.got(small).len(), 100);
    world.crowded();
}

fn tiny_budget() -> Limits {
    Limits { memory_budget: 80_000, max_line: 40_000, sockets: small_buffers(), ..limits() }
}

fn no_memory_for_more_input(world: &mut World) {
    let clients: Vec<usize> = (0..4).map(|_| world.join(0)).collect();
    for client in &clients {
        world.heeds(*client, clients.clone());
        world.say(*client, text(30_000));
    }
    world.expect(world.closed(Reason::MemoryBudget) > 0, true);
    world.crowded();
}

fn few_silent() -> Limits {
    Limits { max_silent: 2, ..limits() }
}

fn the_oldest_silent_one_makes_way(world: &mut World) {
    world.delays_matter();
    let clients: Vec<usize> = (0..4).map(|_| world.join(0)).collect();
    clients.iter().for_each(|client| world.heeds(*client, clients.clone()));
    world.say(clients[2], "Ada\n");
    world.say(clients[3], "Bob\n");
    world.expect((world.closed(Reason::Recycled), world.end(clients[0])), (2, End::Reset));
    world.expect(world.got(clients[3]).ends_with("Bob!\r\n"), true);
}

fn few_slots() -> Limits {
    Limits { max_connections: 2, ..limits() }
}

/// Two clients that have spoken and take all slots.
fn full_house(world: &mut World) -> [usize; 2] {
    let inside = [world.join(0), world.join(0)];
    inside.iter().for_each(|client| world.say(*client, "PING\r\n"));
    world.tells_by_best_effort();
    inside
}

fn refused_when_full(world: &mut World) {
    let inside = full_house(world);
    let outside = world.join(0);
    world.heeds(outside, inside);
    world.say(inside[0], "PING\r\n");
    world.expect(world.got(outside).contains("max number of clients"), true);
    world.crowded();
}

fn refused_when_full_by_the_dozen(world: &mut World) {
    let inside = full_house(world);
    world.delays_matter();
    let outside: Vec<usize> = (0..TOLD_PER_TURN + 2).map(|_| world.arrive(0)).collect();
    for client in &outside {
        world.heeds(*client, inside);
        world.heeds(*client, outside.clone());
    }
    world.settle();
    world.say(inside[0], "PING\r\n");
    let told = outside.iter().filter(|client| world.got(**client).contains("max number of clients")).count();
    world.expect(told, TOLD_PER_TURN);
    world.crowded();
}

fn room_again_after_a_full_house(world: &mut World) {
    let inside = full_house(world);
    let outside = world.join(0);
    world.close(inside[0]);
    world.settle();
    let later = world.join(0);
    world.heeds(outside, inside);
    world.heeds(later, inside);
    world.say(later, "PING\r\n");
    world.expect(world.got(later).as_str(), "+PONG\r\n");
    world.crowded();
}

fn penalties() -> Limits {
    Limits { first_message_timeout: 2 * SECOND, penalty: 20 * SECOND, ..limits() }
}

fn refused_for_a_penalty(world: &mut World) {
    let silent = world.join_from(0, 1);
    world.pass(3 * SECOND);
    let (refused, other) = (world.join_from(0, 1), world.join_from(0, 2));
    world.heeds(refused, [silent]);
    world.say(other, "Bob\n");
    world.expect((world.got(refused).as_str(), world.end(refused)), ("", End::Reset));
    world.expect(world.got(other).ends_with("Bob!\r\n"), true);
}

fn ten_slots() -> Limits {
    Limits { max_connections: 10, ..limits() }
}

fn the_operator_gets_in_when_full(world: &mut World) {
    let inside = full_house(world);
    let outside = world.join(0);
    let operator = world.join(1);
    world.heeds(outside, inside);
    world.opaque(operator);
    world.heeds(operator, [inside[0], inside[1], outside]);
    world.say(operator, "CLIENT LIST\r\n");
    world.expect(world.got(outside).contains("max number of clients"), true);
    world.expect(world.got(operator).matches("addr=").count(), 6);
    world.crowded();
}

fn out_of_files(world: &mut World) {
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

fn out_of_memory_for_accepts(world: &mut World) {
    let client = world.join(0);
    world.net().fail_accepts(libc::ENOBUFS, 2);
    let waiting = world.arrive(0);
    world.say(client, "Ada\n");
    world.say(waiting, "Bob\n");
    world.expect(world.got(waiting).ends_with("Bob!\r\n"), true);
}

fn accepts_that_fail_for_long(world: &mut World) {
    let client = world.join(0);
    world.net().fail_accepts(libc::EPERM, ACCEPT_FAILURES as usize + 2);
    let waiting = world.arrive(0);
    world.say(client, "Ada\n");
    world.say(waiting, "Bob\n");
    world.expect(world.got(waiting).ends_with("Bob!\r\n"), true);
}

fn one_accept_a_turn() -> Limits {
    Limits { accepts_per_turn: 1, ..limits() }
}

fn more_newcomers_than_a_turn_accepts(world: &mut World) {
    let clients: Vec<usize> = (0..4).map(|_| world.arrive(0)).collect();
    world.settle();
    world.say(clients[3], "Bob\n");
    world.expect(world.got(clients[3]).ends_with("Bob!\r\n"), true);
}

fn two_listeners(world: &mut World) {
    let clients = [world.arrive(0), world.arrive(1), world.arrive(0), world.arrive(1)];
    clients.iter().for_each(|client| world.send(*client, "Ada\n"));
    world.settle();
    world.expect(world.got(clients[0]).as_str(), "Hello\r\nHello, Ada!\r\n");
    world.expect(world.got(clients[3]).as_str(), "Ada\n");
}

fn a_datagram(world: &mut World) {
    let client = world.join(0);
    world.datagram(0, 1, "Ada");
    world.settle();
    world.datagram(0, 2, "Bob");
    world.say(client, "Cy\n");
    world.expect(world.reactor.stats().datagrams_out, 2);
}

fn more_datagrams_than_a_batch(world: &mut World) {
    (0..70).for_each(|number| world.datagram(0, 1, format!("number {number}")));
    world.settle();
    world.expect(world.reactor.stats().datagrams_out, 70);
}

fn an_answer_to_an_unreachable_source(world: &mut World) {
    world.net().fail_sends(libc::ENETUNREACH, 1);
    (0..3).for_each(|host| world.datagram(0, host, "round"));
    world.settle();
    world.datagram(0, 9, "round");
    world.settle();
    world.expect((world.reactor.stats().datagrams_out, world.reactor.stats().datagram_errors), (3, 1));
}

fn a_full_send_buffer(world: &mut World) {
    world.net().fail_sends(libc::EAGAIN, 1);
    (0..3).for_each(|host| world.datagram(0, host, "round"));
    world.settle();
    world.datagram(0, 9, "round");
    world.settle();
    world.expect(world.reactor.stats().datagrams_dropped_full, 3);
}

fn an_error_that_icmp_brought(world: &mut World) {
    world.net().fail_receives(libc::ECONNREFUSED, 2);
    world.datagram(0, 1, "round");
    world.settle();
    world.datagram(0, 2, "round");
    world.settle();
    world.expect(world.reactor.stats().datagrams_out, 2);
}

fn publish_by_datagram(world: &mut World) {
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

fn least_budgets() -> Limits {
    Limits {
        accepts_per_turn: 1,
        connections_per_turn: 1,
        messages_per_turn: 8,
        reads_per_turn: 1,
        deliveries_per_turn: 1,
        expiries_per_turn: 1,
        ..limits()
    }
}

fn two_sockets(world: &mut World) {
    (0..3).for_each(|host| {
        world.datagram(0, host, "Ada");
        world.datagram(1, host + 10, "round");
    });
    world.settle();
    world.expect(world.reactor.stats().datagrams_out, 6);
}

fn a_drain_with_peers_of_all_states(world: &mut World) {
    let (silent, open, partial) = (world.join(0), world.join(0), world.join(0));
    let (resp3, deaf, lingers) = (world.join(1), world.join(1), world.join(1));
    world.would_block_tells();
    world.say(open, "Ada\n");
    world.say(partial, "part");
    world.say(resp3, "HELLO 3\r\nSUBSCRIBE a\r\n");
    world.deafen(deaf, 10);
    world.say(deaf, "PING\r\nPING\r\n");
    world.send(lingers, "*x\r\n");
    world.pass(100 * MS);
    // One who waits to be accepted is reset.
    world.arrive(0);
    world.datagram(0, 1, "Ada");
    world.send(open, "last\n");
    world.reactor.drain();
    world.settle();
    world.expect((world.end(silent), world.end(lingers)), (End::Fin, End::Fin));
    world.expect(world.got(open).ends_with("last!\r\n"), true);
    world.expect(world.got(resp3).ends_with("drain\r\n"), true);
}

fn a_drain_to_the_end_of_its_time(world: &mut World) {
    let (deaf, open) = (world.join(0), world.join(0));
    world.deafen(deaf, 10);
    world.say(deaf, text(100));
    world.reactor.set_limits(Limits { close_timeout: 30 * SECOND, ..limits() });
    world.reactor.drain();
    world.pass(4 * SECOND);
    world.expect((world.closed(Reason::DrainTimeout), world.end(deaf), world.end(open)), (1, End::Reset, End::Fin));
}

fn socket_options_change(world: &mut World) {
    let client = world.join(0);
    let sockets = SocketOptions { user_timeout: 7 * SECOND, ..SocketOptions::default() };
    world.reactor.set_limits(Limits { sockets, ..limits() });
    let later = world.join(1);
    world.say(later, "round");
    world.say(client, "Ada\n");
    world.expect(world.reactor.net().socket_options().user_timeout, 7 * SECOND);
}
