//! The limits of the server in one place: defaults, reasons and relations.
//!
//! [`Limits`] come from the configuration, under the same names, and can change while the server
//! runs. Their rows are in `table`. The constants are bounds that cannot be configured; those of
//! the hub are in `hub`, those of HTTP in `http`, those of routes in `routes`, those of the link to
//! a broker in `broker`.

mod broker;
mod http;
mod hub;
mod policy;
mod retained;
mod routes;
mod socketio;
mod table;

use std::time::Duration;

pub use broker::*;
pub use http::*;
pub use hub::*;
pub use policy::Policy;
pub use retained::*;
pub use routes::*;
pub use socketio::*;
pub use table::{LIMIT_ROWS, Limits, SOCKET_ROWS, SocketOptions};

/// Time for which metrics use a value read from /proc. Reading the resident memory of a gigabyte
/// takes milliseconds.
pub const READINGS_KEPT: Duration = Duration::from_millis(100);

/// Largest payload of a UDP datagram over IPv6, in bytes: 65,535 less the UDP header. Jumbograms
/// are not supported (RFC 8200).
pub const DATAGRAM_MAX: usize = 65_527;

/// Largest payload of a UDP datagram over IPv4, in bytes. IPv4 counts its own header too (RFC 791).
pub const DATAGRAM_MAX_V4: usize = 65_507;

/// Maximum number of datagrams that one system call receives or sends.
///
/// At 64 the call itself is 2 % of the work, and the answers of a batch still fit the processor's
/// cache. recvmmsg(2) takes up to 1,024.
pub const DATAGRAMS_PER_BATCH: usize = 64;

/// Bytes that one read asks for. A larger read would let one connection delay the others for
/// longer.
pub const READ_CHUNK: usize = 32 * 1024;

/// Largest JSON record of a `slabd stress` run that is read, in bytes. The longest run takes half a
/// megabyte.
pub const RECORD_FILE_MAX: u64 = 16 << 20;

/// Number of files that connections may not use. They serve listeners, epoll, the log and reads of
/// /proc.
pub const FILES_RESERVED: u64 = 64;

/// Maximum number of events that one poll takes from the kernel. The next poll reports the rest.
pub const EVENTS_PER_POLL: usize = 1024;

/// Delay before the server accepts again, after an accept failed for lack of files or memory. An
/// edge-triggered listener reports no further event for waiting connections, not even when a file
/// is freed.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Consecutive accept failures, for other reasons than files and memory, before a listener waits
/// for [`ACCEPT_RETRY`]. A network rarely loses 16 connections at a time, and 16 attempts cost
/// little.
pub const ACCEPT_FAILURES: u32 = 16;

/// Delay from a drop in load until the heap is trimmed, so that a drop in steps trims it once.
pub const TRIM_DELAY: Duration = Duration::from_secs(1);

/// Smallest peak, in bytes in use, after which a drop in load trims the heap. Less is not worth the
/// time that malloc_trim(3) takes.
pub const TRIM_BYTES: usize = 64 * 1024;

/// A drop in load trims the heap when memory in use falls to one part in this many of its peak, or
/// when the last connection closes.
pub const TRIM_FRACTION: usize = 4;

/// Shortest time between two warnings of the same kind, so that a flood does not fill the log.
pub const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// A loop that runs this much later than it meant to shows that the process was stopped, or got no
/// processor time. The loop's clock leaves that time out.
pub const STOPPED_MIN: Duration = Duration::from_millis(100);

/// Longest time for which deadlines wait after the process was stopped, while the loop reads input.
///
/// 5 s suffice for any number of connections at a million messages a second.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// Longest timeout that can be configured. Ticks are compared by distance, and wrap after 397 days.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Maximum number of connections that can be configured. A 32-bit timer id has room for them.
pub const CONNECTIONS_MAX: usize = 1 << 22;

/// Bytes that one connection takes in slab and wheel, in a release build. A test checks the figure.
pub const CONNECTION_BYTES: usize = 44;

/// While publishes wait, input may take one part in this many of the memory budget. Beyond it, the
/// rest of a large message stays in the kernel.
pub const INPUT_SHARE: usize = 4;

/// Maximum number of connections freed in one turn. Closing a socket takes some 10 us.
pub const REAPS_PER_TURN: usize = 256;

/// Maximum number of silent connections evicted for newcomers in one turn. Each keeps its file
/// until the turn ends, so there must be reserved files for all of them.
pub const RECYCLES_PER_TURN: usize = 32;

/// Maximum number of connections that services may dial at a time, open ones included. A broker
/// takes two, and a change of broker takes two more. They have slots and files of their own, so
/// they take none from clients.
pub const DIALLED_MAX: usize = 8;

/// Slots beyond `max-connections`. A recycled connection keeps its slot until the turn ends, and so
/// does a failed attempt of a dial that tries the next address.
pub const SPARE_SLOTS: usize = RECYCLES_PER_TURN + 2 * DIALLED_MAX;

/// Maximum size of the unsent output of a dialled connection, in bytes. It is what a broker that
/// stands still may cost.
pub const DIALLED_OUTPUT_MAX: usize = 8 << 20;

/// Maximum size of the incomplete input of a dialled connection, in bytes. Redis closes a
/// subscriber that it owes 32 MiB, so no message from it is larger.
pub const DIALLED_INPUT_MAX: usize = 32 << 20;

/// Maximum number of addresses of a name that one dial tries. They share its timeout.
pub const DIAL_ADDRESSES_MAX: usize = 4;

/// Maximum number of names that are looked up at a time. Each takes a thread, which waits for up to
/// half a minute if no name server answers.
pub const LOOKUPS_MAX: usize = 4;

/// Evictions of silent connections that are penalised like one late message.
pub const RECYCLED_PER_PENALTY: u32 = 5;

/// Maximum size of a connection's output in the kernel where the kernel sizes the buffer, in bytes:
/// the last figure of net.ipv4.tcp_wmem by default.
pub const KERNEL_SEND_BUFFER_MAX: usize = 4 << 20;

/// Maximum size of a connection's input in the kernel where the kernel sizes the buffer, in bytes:
/// the last figure of net.ipv4.tcp_rmem by default.
pub const KERNEL_RECEIVE_BUFFER_MAX: usize = 6 << 20;

/// Maximum number of newcomers per turn that get an error because no slot is free. Further ones are
/// reset, because a flood must not cost one answer per connection.
pub const TOLD_PER_TURN: usize = 16;

/// Longest `output_soft_time`. Its time stamp has two bytes, and wraps after nine hours.
pub const SOFT_TIME_MAX: Duration = Duration::from_secs(8 * 3600);

/// Slots reserved for the operator if `--admin` is set.
pub const RESERVED_SLOTS: usize = 8;

/// Largest silent set that can be configured. A source counts its silent connections in two bytes.
pub const SILENT_MAX: usize = u16::MAX as usize;

/// Maximum number of listening addresses. Their index is one byte of a token.
pub const LISTENERS_MAX: usize = 64;

/// Delay before the service manager is told again what its queue had no room for. The queue is
/// shared by all services of the machine, which are never that busy for long.
pub const NOTIFY_RETRY: Duration = Duration::from_millis(100);

/// Longest keepalive time and interval that Linux accepts (MAX_TCP_KEEPIDLE, linux/tcp.h).
pub const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);

/// Maximum number of keepalive probes that Linux accepts (MAX_TCP_KEEPCNT, linux/tcp.h).
pub const KEEPALIVE_PROBES_MAX: u32 = 127;

/// Smallest socket buffer that can be configured, in bytes. Linux raises smaller ones to about 4.5
/// KiB.
pub const SOCKET_BUFFER_MIN: usize = 8 * 1024;

/// Largest socket buffer that can be configured, in bytes. Linux lowers larger ones to twice
/// net.core.wmem_max or rmem_max.
pub const SOCKET_BUFFER_MAX: usize = 1 << 30;

/// Smallest `notsent_lowat`, in bytes. A smaller one would wake the loop for single packets.
pub const NOTSENT_LOWAT_MIN: usize = 4 * 1024;

/// Maximum number of connections that one report samples for their kernel memory.
pub const KERNEL_SAMPLE: usize = 64;

/// Longest count line (`*3`, `$11`), in bytes with its marker and without CRLF. A number has at
/// most 20 digits. Redis allows 64 KiB.
pub const COUNT_LINE_MAX: usize = 32;

/// Maximum number of attempts to find a free port that both TCP and UDP can have.
pub const PORT_ATTEMPTS: usize = 16;

/// Number of files that a process may open, where the kernel does not report it: the usual soft
/// limit of POSIX.
pub const DEFAULT_FILE_LIMIT: u64 = 1024;

/// Receive buffer requested for each UDP socket, in bytes.
pub const UDP_RECEIVE_BUFFER: usize = 1 << 20;

/// Maximum number of sources tracked at a time. A full table takes 1.6 MiB.
pub const SOURCES_MAX: usize = 1 << 16;

/// Penalty from which a source may have only a part of its share of the silent set. OpenSSH's
/// PerSourcePenalties begin at the same bound.
pub const PENALTY_MIN: Duration = Duration::from_secs(15);

/// Penalty from which the silent connections of a source are recycled before those of others. By
/// default, two of its connections were recycled within half a second. At three, a flood of 24,000
/// connections a second cost 0.7 % of the honest clients, while its sources were not yet known.
pub const PENALTY_NOTED: Duration = Duration::from_millis(1500);

/// Longest penalty. Further penalties add nothing, so a source that speaks again is soon forgiven.
pub const PENALTY_MAX: Duration = Duration::from_secs(60);

/// A penalised source has one part in this many of `max-silent-per-source`.
pub const PENALISED_SHARE: usize = 8;

/// Recycled connections of a source that one connection which speaks makes up for. An office whose
/// eight connections were recycled starts anew as soon as one of them gets through.
pub const FORGIVEN_PER_MESSAGE: u32 = 8;

/// An IPv6 /48 has this many times the share of the silent set that one of its /64 has.
pub const NETWORK_SHARE: usize = 8;

/// Sources of one IPv6 /48 that are tracked one by one, 1/256 of the table. Further ones count as
/// one source.
pub const NETWORK_SOURCES_MAX: usize = 256;

/// An idle connection makes way for a newcomer only after this time without a message. A client
/// that is in use sends more often, so a churn of newcomers does not evict it.
pub const IDLE_MIN: Duration = Duration::from_secs(2);

/// While fewer than one slot in this many is silent, the longest idle connection makes way rather
/// than a silent one of less than [`IDLE_MIN`]. So newcomers have time to speak, and a silent flood
/// evicts only a part of the idle.
pub const NEWCOMERS_SHARE: usize = 8;

/// Idle connections among which one is chosen to make way. A table of at most this many slots is
/// searched as a whole, in some 5 us.
pub const IDLE_SAMPLE: usize = 256;

/// Entries of the silent set that a search for a connection of one source looks at, some 10 us. A
/// search that finds one early stops there.
pub const SILENT_SAMPLE: usize = 1024;

/// Stale entries that the queue of silent connections may hold before admission removes them.
pub const STALE_MIN: usize = 1024;

/// Admission chooses which silent connection to evict among this many of the oldest.
pub const LOOK_AHEAD: usize = 64;

/// A full accept gate opens again when one slot in this many is free, and at least one.
pub const GATE_REOPENS: usize = 32;

/// Evictions keep one part in this many of the memory budget free for what one turn may add.
pub const EVICTION_MARGIN: usize = 8;

/// Connections that are exempt from eviction may hold one part in this many of the memory budget.
/// Beyond it, they are evicted like others.
pub const EXEMPT_SHARE: usize = 4;

/// Maximum size of the free buffers that the pool keeps for reuse, in bytes. They let a busy turn
/// run without allocating.
pub const SPARE_BUFFERS_MAX: usize = 1 << 20;

/// Maximum number of networks whose datagrams are counted at a time, at 24 bytes each.
pub const COUNTED_NETWORKS_MAX: usize = 4096;

/// Maximum number of sources watched for loops of datagrams at a time, at 24 bytes each.
pub const LOOP_SOURCES_MAX: usize = 4096;

/// Number of times that a source may send one of our answers back before an answer is dropped. A
/// loop of one datagram takes 20 ms for them on one machine. A client that repeats its datagram
/// loses one answer in a thousand, fewer than a busy network loses.
pub const LOOP_RETURNS_MAX: u16 = 1000;

/// Datagrams from a source after which another answer is watched, if none of them was the answer
/// watched before. No two sockets hold more datagrams between them.
pub const LOOP_MISSES_MAX: u16 = 8192;

/// A source that was silent for this long is no part of a loop: no round trip takes longer.
pub const LOOP_IDLE: Duration = Duration::from_secs(5);

/// Ports below this are system ports (RFC 6335): echo, DNS, NTP and others answer whatever comes.
/// No client of ours sends from there.
pub const SYSTEM_PORTS: u16 = 1024;

/// Further ports whose services answer datagrams, in ascending order: MS-SQL, RADIUS, SSDP, STUN,
/// WS-Discovery, NAT-PMP, SIP, mDNS, CoAP, memcached, game servers.
pub const RESPONDER_PORTS: [u16; 16] = [
    1194, 1434, 1812, 1813, 1900, 3478, 3702, 4500, 5060, 5351, 5353, 5683, 11_211, 19_132, 27_015,
    27_960,
];

/// By default, the memory budget is one part in this many of the memory that the machine or its
/// control group offers. The rest is for the kernel's buffers, other programs, and a heap in
/// pieces.
pub const OFFER_SHARE: u64 = 2;

/// The memory budget where the machine does not show its memory, in bytes. It suffices for 20,000
/// connections, even if 1,400 of them read none of their output.
pub const MEMORY_BUDGET_DEFAULT: usize = 256 << 20;

/// Smallest memory budget, in bytes. It holds one connection with a message and an answer of the
/// usual size.
pub const MEMORY_BUDGET_MIN: usize = 64 * 1024;

/// Largest budget of a turn, in the unit of that budget. No useful budget is near it.
pub const BUDGET_MAX: usize = 1 << 20;

/// Largest bound on output, in bytes. No useful bound is near it.
pub const OUTPUT_BOUND_MAX: usize = 1 << 30;

/// Length of the accept queue by default. A burst of connections survives a busy turn.
pub const ACCEPT_QUEUE_DEFAULT: u32 = 4096;

/// Longest accept queue. The kernel counts it in an int.
pub const ACCEPT_QUEUE_MAX: u32 = i32::MAX as u32;

/// Datagrams a second from one network by default: a hundred sensors with a hundred messages a
/// second each.
pub const DATAGRAM_RATE: u32 = 10_000;

/// Smallest fixed buffer, in bytes: the smallest class of the pool.
pub const FIXED_BUFFER_MIN: usize = 64;

/// Largest fixed buffer, in bytes: the largest class of the pool.
pub const FIXED_BUFFER_MAX: usize = 1 << 20;

/// Largest config file, in bytes. All settings take 2 KiB.
pub const CONFIG_FILE_MAX: u64 = 1 << 20;

/// Largest file with a password on its first line, in bytes.
pub const PASSWORD_FILE_MAX: u64 = 64 * 1024;

/// Longest password, in bytes. AUTH must fit in [`UNTRUSTED_INPUT_MAX`].
pub const PASSWORD_MAX: usize = 512;

const LINE_MAX: usize = 4096;
const HIGH_WATERMARK: usize = 64 * 1024;
const OUTPUT_LIMIT: usize = 32 << 20;
const OUTPUT_PER_TURN: usize = 1 << 20;

/// Longest line that can be configured, in bytes. A line and its line break must fit into one read.
/// So a connection never holds back more than a line and a read.
pub const MAX_LINE_MAX: usize = 16 * 1024 - 2;

const _: () = {
    assert!(LINE_MAX <= MAX_LINE_MAX);
    assert!(MAX_LINE_MAX <= READ_CHUNK - 2);
    // One read's worth of output must not stop a connection from being read.
    assert!(READ_CHUNK < HIGH_WATERMARK);
    // One connection at its watermark must not use up a turn's output.
    assert!(HIGH_WATERMARK < OUTPUT_PER_TURN);
    // A connection that is not read because of its watermark must not be closed for its own
    // answers.
    assert!(2 * HIGH_WATERMARK < OUTPUT_LIMIT);
    // A publish to a name of 51 bytes finds its patterns, whatever they are by default.
    assert!(OTHER_PATTERNS * (PATTERN / 64 + 1) * 51 <= PUBLISH_STEPS_MAX);
    assert!(CHANNEL_NAME <= CHANNEL_NAME_MAX && PATTERN <= PATTERN_MAX);
    assert!(PATTERN_MAX <= u16::MAX as usize);
    assert!(DATAGRAMS_PER_BATCH <= 1024);
    assert!(CHANNEL_NAME_MAX < MAX_MESSAGE_MIN && DATAGRAM_MAX <= MAX_MESSAGE_MIN);
    assert!(INLINE_MAX <= MAX_MESSAGE_MIN);
    assert!(2 * MAX_MESSAGE_MAX <= OUTPUT_BOUND_MAX);
    // A message in flight and one more stay below the output limit.
    assert!(IN_FLIGHT_MAX + MAX_MESSAGE < OUTPUT_LIMIT && 2 * MAX_MESSAGE <= OUTPUT_LIMIT);
    // A datagram is never large, because it cannot wait.
    assert!(DATAGRAM_MAX < LARGE_PAYLOAD && LARGE_PAYLOAD < BACKLOG_MAX);
    assert!(SPARE_SLOTS < FILES_RESERVED as usize);
    // All names that are dialled at a time can be looked up by half of the dials.
    assert!(2 * LOOKUPS_MAX <= DIALLED_MAX);
    assert!(LISTENERS_MAX <= u8::MAX as usize);
    assert!(CONNECTIONS_MAX < u32::MAX as usize / 2);
};
