//! The allocations of a warm PING and PUBLISH. The loop runs in this process on real sockets, with
//! a counting allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use slabd::buffer::BufferMode;
use slabd::hub::Hub;
use slabd::limits::Limits;
use slabd::net::mio::MioNet;
use slabd::reactor::Reactor;
use slabd::service::Options;
use slabd::services::SERVICES;

/// The system's allocator with a counter, which counts calls while `COUNTS` is set.
struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

fn count() {
    if COUNTS.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: likewise.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: likewise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Loop {
    reactor: Reactor<MioNet>,
    address: SocketAddr,
}

impl Loop {
    fn start() -> Loop {
        assert!(SERVICES.iter().any(|(name, _)| *name == "hub"));
        let mut reactor =
            Reactor::new(MioNet::new().unwrap(), Limits::default(), BufferMode::Pooled);
        let service = reactor.add_service(Box::new(Hub::new(&Options::default())));
        let address = reactor.listen("127.0.0.1:0".parse().unwrap(), 128, service).unwrap();
        Loop { reactor, address }
    }

    fn connect(&mut self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_nodelay(true).unwrap();
        let accepted = self.reactor.connections() + 1;
        while self.reactor.connections() < accepted {
            self.reactor.turn().unwrap();
        }
        client
    }

    /// Sends a request and turns the loop until it has sent `bytes_out` bytes more. Returns the
    /// number of allocations in these turns.
    fn serve(&mut self, client: &mut TcpStream, request: &[u8], bytes_out: usize) -> u64 {
        client.write_all(request).unwrap();
        let (sent, before) = (self.reactor.stats().bytes_out, ALLOCATIONS.load(Ordering::Relaxed));
        COUNTS.store(true, Ordering::Relaxed);
        while self.reactor.stats().bytes_out < sent + bytes_out as u64 {
            self.reactor.turn().unwrap();
        }
        COUNTS.store(false, Ordering::Relaxed);
        ALLOCATIONS.load(Ordering::Relaxed) - before
    }
}

fn read(client: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

/// This program has only one test, because the counter belongs to the process.
#[test]
fn a_warm_ping_and_a_warm_publish_allocate_nothing() {
    let mut server = Loop::start();
    let mut client = server.connect();
    let mut subscribers: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    // Connecting and subscribing allocate, so the counter must be above zero here.
    let confirmation = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    let mut subscribing = 0;
    for subscriber in &mut subscribers {
        subscribing += server.serve(subscriber, b"SUBSCRIBE news\r\n", confirmation.len());
        read(subscriber, confirmation);
    }
    assert!(subscribing > 0, "the counter counts no allocation of a SUBSCRIBE");

    let message = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n";
    let mut total = [0; 4];
    for round in 0..1000 {
        let warm = round >= 10;
        let mut note =
            |index: usize, allocations: u64| total[index] += if warm { allocations } else { 0 };
        note(0, server.serve(&mut client, b"*1\r\n$4\r\nPING\r\n", 7));
        read(&mut client, b"+PONG\r\n");
        note(1, server.serve(&mut client, b"PING\r\n", 7));
        read(&mut client, b"+PONG\r\n");
        note(2, server.serve(&mut client, &b"*1\r\n$4\r\nPING\r\n".repeat(32), 7 * 32));
        read(&mut client, &b"+PONG\r\n".repeat(32));
        let publish = b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$5\r\nhello\r\n";
        note(3, server.serve(&mut client, publish, 5 + 50 * message.len()));
        read(&mut client, b":50\r\n");
        subscribers.iter_mut().for_each(|subscriber| read(subscriber, message));
    }
    println!(
        "allocations of 990 warm rounds for PING, inline PING, 32 PINGs, PUBLISH to 50: {total:?}"
    );
    assert_eq!(total, [0; 4]);
}
