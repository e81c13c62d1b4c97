//! Slow readers: watermarks, backpressure, half-close and the memory budget.

use slabd::buffer::BufferMode;
use slabd::clock::Tick;
use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{Limits, SocketOptions, UNTRUSTED_OUTPUT_MAX};
use slabd::net::sim::{ClientId, End, SimNet, SystemCall};
use slabd::service::echo::Echo;
use slabd::service::hello::Hello;
use slabd::service::{Options, Secret};

use crate::sim::{SECOND, Sim, limits};

/// Returns an echo server with low watermarks, and a client whose window is 1,000 bytes.
fn slow_reader() -> (Sim, ClientId) {
    let limits = Limits {
        high_watermark: 4096,
        low_watermark: 1024,
        output_timeout: 5 * SECOND,
        ..limits()
    };
    let mut sim = Sim::new(Box::new(Echo), limits);
    let client = sim.accepted();
    sim.net().set_window(client, 1000);
    (sim, client)
}

#[test]
fn a_peer_that_never_reads_is_paused_bounded_and_closed() {
    let (mut sim, client) = slow_reader();
    for _ in 0..20 {
        sim.send(client, [b'x'; 1000]);
        sim.turns(2);
    }
    let held = sim.reactor.ledger().write_buffers;
    assert!((4096..=8192).contains(&held), "{held} bytes held");
    assert!(sim.reactor.stats().bytes_in < 20_000, "backpressure stops reading from the client");
    sim.pass(5 * SECOND + 3 * Tick::LENGTH);
    assert_eq!((sim.closed(Reason::OutputTimeout), sim.reactor.ledger().write_buffers), (1, 0));
}

#[test]
fn a_slow_reader_loses_nothing_and_its_progress_moves_the_output_deadline() {
    let (mut sim, client) = slow_reader();
    let sent: Vec<u8> = (0..40_000u32).map(|index| (index % 251) as u8).collect();
    sim.send(client, &sent);
    let mut got = Vec::new();
    while got.len() < sent.len() {
        sim.turns(3);
        got.extend(sim.net().client_take(client, 700));
        sim.pass(SECOND);
        assert!(sim.reactor.now().as_secs_f64() < 1000.0, "{} of {} bytes", got.len(), sent.len());
    }
    assert!(got == sent);
    assert_eq!(sim.closed(Reason::OutputTimeout), 0);
    sim.turns(3);
    assert_eq!(sim.reactor.ledger().write_buffers, 0);
}

#[test]
fn reading_stops_at_the_high_watermark() {
    for (sent, paused) in [(4095, false), (4096, true), (4097, true)] {
        let limits = Limits { high_watermark: 4096, low_watermark: 100, ..limits() };
        let mut sim = Sim::new(Box::new(Echo), limits);
        let client = sim.accepted();
        sim.net().set_window(client, 0);
        sim.send(client, vec![b'x'; sent]);
        sim.turns(2);
        sim.send(client, "more");
        sim.turns(2);
        assert_eq!(sim.reactor.stats().bytes_in == sent as u64, paused, "{sent} bytes unsent");
    }
}

#[test]
fn a_half_closed_slow_reader_gets_all_its_output() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    let client = sim.accepted();
    sim.net().set_window(client, 10);
    sim.send(client, [b'x'; 100]);
    sim.net().client_shutdown(client);
    let mut got = Vec::new();
    for _ in 0..100 {
        sim.turn();
        got.extend(sim.net().client_take(client, 7));
    }
    assert_eq!(got, [b'x'; 100]);
    assert_eq!((sim.net().client_saw(client), sim.closed(Reason::PeerClosed)), (End::Fin, 1));
}

#[test]
fn the_longest_stalled_connections_make_way_for_one_that_needs_memory() {
    let mut sim = Sim::new(Box::new(Hello), Limits { memory_budget: 4096, ..limits() });
    let clients: Vec<ClientId> = (0..10).map(|_| sim.accepted()).collect();
    for client in &clients {
        sim.send(*client, [b'x'; 1000]);
        sim.turn();
    }
    // Ten slots use a part of the budget.
    assert_eq!((sim.reactor.connections(), sim.closed(Reason::MemoryBudget)), (3, 7));
    assert_eq!(sim.reactor.ledger().read_buffers, 3072);
    assert!(sim.exchange(clients[9], "\n").starts_with("Hello\r\nHello, xxx"));
}

#[test]
fn fixed_buffers_serve_the_same_and_cost_their_size() {
    let net = SimNet::new(0);
    let mut sim = Sim::on(
        net,
        Box::new(Hello),
        Limits { reads_per_turn: 4, ..limits() },
        BufferMode::Fixed(256),
    );
    let clients: Vec<ClientId> = (0..5).map(|_| sim.accepted()).collect();
    let ledger = sim.reactor.ledger();
    assert_eq!((ledger.read_buffers, ledger.write_buffers), (5 * 256, 5 * 256));
    assert_eq!(sim.exchange(clients[0], "a\nb\npart"), "Hello\r\nHello, a!\r\nHello, b!\r\n");
    // The loop reads 256 bytes at a time, four times per turn.
    sim.send(clients[0], format!("{}\n", "x".repeat(3000)));
    sim.turns(4);
    assert!(sim.received(clients[0]) == format!("Hello, part{}!\r\n", "x".repeat(3000)));
    clients.iter().for_each(|client| sim.net().client_close(*client));
    sim.turns(3);
    let ledger = sim.reactor.ledger();
    assert_eq!((ledger.read_buffers, ledger.write_buffers, sim.reactor.connections()), (0, 0, 0));
}

#[test]
fn the_largest_connections_are_evicted_before_the_memory_budget_is_reached() {
    let sockets = SocketOptions {
        send_buffer: 32 * 1024,
        receive_buffer: 32 * 1024,
        ..SocketOptions::default()
    };
    let limits = Limits { memory_budget: 1_400_000, high_watermark: 32_000, sockets, ..limits() };
    let mut sim = Sim::new(Box::new(Echo), limits);
    let clients: Vec<ClientId> = (0..20).map(|_| sim.accepted()).collect();
    clients.iter().for_each(|client| sim.net().set_window(*client, 0));
    let (small, large) = clients.split_at(10);
    small.iter().for_each(|client| sim.send(*client, [b's'; 100]));
    for client in large {
        sim.send(*client, vec![b'l'; 30_000]);
        sim.turns(2);
    }
    let evicted = sim.reactor.stats().evicted;
    // Each blocked client counts 64 KiB of kernel buffers and its own. Five large clients fit
    // beside the small ones.
    assert_eq!(evicted, 5);
    assert_eq!(sim.closed(Reason::MemoryBudget), evicted, "every close is an eviction");
    for client in small {
        sim.net().set_window(*client, 1000);
        sim.turns(3);
        assert_eq!(sim.received(*client), "s".repeat(100));
    }
}

#[test]
fn a_peer_that_does_not_close_is_closed_at_the_close_timeout() {
    let mut sim =
        Sim::new(Box::new(Hello), Limits { max_line: 10, close_timeout: 5 * SECOND, ..limits() });
    let client = sim.accepted();
    sim.send(client, "much longer than ten bytes\n");
    sim.turns(3);
    assert!(sim.received(client).contains("error: line longer than 10 bytes"));
    sim.pass(4 * SECOND);
    assert_eq!(sim.reactor.connections(), 1, "the client has time to read the error and to close");
    sim.pass(2 * SECOND);
    assert_eq!((sim.reactor.connections(), sim.closed(Reason::LineTooLong)), (0, 1));
}

/// No edge follows an interrupted write on a socket whose writable interest is set already. So the
/// loop has to try again.
#[test]
fn an_interrupted_write_is_repeated_without_an_edge() {
    let mut sim = Sim::new(Box::new(Echo), limits());
    let client = sim.accepted();
    sim.net().set_window(client, 10);
    sim.send(client, [b'x'; 20]);
    for _ in 0..2 {
        sim.turns(2);
        assert_eq!(sim.received(client), "x".repeat(10), "the output waits for room and gets it");
    }
    for times in 1..=3 {
        sim.send(client, "y");
        sim.net().fail_next(SystemCall::Write, libc::EINTR, times);
        sim.turns(times as usize + 1);
        assert_eq!(sim.received(client), "y", "interrupted {times} times in a row");
    }
    assert_eq!(sim.reactor.stats().short_writes, 1, "an interrupted write is no short write");
}

#[test]
fn a_stranger_that_reads_nothing_is_closed_above_the_bound_on_its_output() {
    let refusal = "-NOAUTH Authentication required.\r\n".len();
    let commands = UNTRUSTED_OUTPUT_MAX / refusal + 1;
    for (unsent, closed) in [(-1, 0), (0, 0), (1, 1)] {
        let password = Some(Secret(b"secret".to_vec().into()));
        let hub = Hub::new(&Options { password, ..Options::default() });
        let mut sim = Sim::new(Box::new(hub), limits());
        let client = sim.accepted();
        let taken = commands * refusal - UNTRUSTED_OUTPUT_MAX;
        sim.net().set_window(client, taken.saturating_add_signed(-unsent));
        sim.send(client, "PING\r\n".repeat(commands));
        sim.turns(2);
        assert_eq!(sim.closed(Reason::OutputLimit), closed, "{unsent} bytes from the bound");
    }
}

#[test]
fn a_client_with_no_evict_keeps_its_unsent_output_until_reset() {
    for (command, evicted) in
        [("CLIENT NO-EVICT ON", false), ("CLIENT NO-EVICT OFF", true), ("RESET", true)]
    {
        let limits = Limits { memory_budget: 4 << 20, ..limits() };
        let mut sim = crate::sim::hub(limits);
        let clients: Vec<ClientId> = (0..6).map(|_| sim.accepted()).collect();
        sim.exchange(clients[0], "CLIENT NO-EVICT ON\r\n");
        sim.exchange(clients[0], format!("{command}\r\n"));
        for client in &clients {
            sim.net().set_window(*client, 0);
            let text = "x".repeat(700_000);
            sim.send(*client, format!("*2\r\n$4\r\nECHO\r\n$700000\r\n{text}\r\n"));
            sim.pass(SECOND / 10);
        }
        assert!(sim.closed(Reason::MemoryBudget) > 0, "{command}");
        assert_eq!(sim.net().client_saw(clients[0]) == End::Reset, evicted, "{command}");
        assert_eq!(sim.net().client_saw(clients[1]), End::Reset, "{command}");
    }
}
