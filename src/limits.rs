//! Every limit in one file: its default, its reason, and how the limits relate.
//!
//! [`Limits`] are set from the configuration, under the same names; most can change while the server runs. The
//! constants are shapes of the code that nobody has needed to turn.

use std::time::Duration;

use crate::admission::Policy;
use crate::networks::Networks;

/// What a peer that has not given its password may send as one command, in bytes, and how many words: enough for any AUTH or HELLO.
pub const UNTRUSTED_INPUT_MAX: usize = 4096;
pub const UNTRUSTED_ARGUMENTS_MAX: usize = 16;

/// What such a peer may be owed, in bytes. Replies that it does not read would else pile up for nothing (CVE-2025-21605).
pub const UNTRUSTED_OUTPUT_MAX: usize = 1024;

/// Longest name of a channel, and longest pattern, in bytes. To match one with the other takes at most their product in steps, a million.
/// They take 1 to 2 ms.
pub const CHANNEL_NAME_MAX: usize = 4096;
pub const PATTERN_MAX: usize = 256;

/// What the confirmations may take up that end all of one session's subscriptions, in bytes: who asks for that at once must not become a
/// slow consumer by it.
pub const CONFIRMATIONS_MAX: usize = OUTPUT_LIMIT / 2;

/// Closed connections that the hub remembers, for CLIENT CLOSED: 88 KiB.
pub const CLOSED_KEPT: usize = 1024;

/// Commands answered with the loop's help in one turn: CLIENT LIST, the dearest, takes some 3 ms.
pub const CONSULTS_PER_TURN: usize = 64;

/// Connections that the kernel is asked about in one turn before commands that ask for more wait: each takes five system calls, some 1.5 us.
pub const FACTS_PER_TURN: usize = 1024;

/// Largest payload of a UDP datagram over IPv6: 65,535 less the UDP header, jumbograms aside (RFC 8200).
pub const DATAGRAM_MAX: usize = 65_527;

/// The same over IPv4, whose header counts as well (RFC 791).
pub const DATAGRAM_MAX_V4: usize = 65_507;

/// Datagrams received by one system call, and answered by one. At 64 the call's own cost is 2 % of the work
/// (recvmmsg(2) takes up to 1,024), and the answers of a batch still fit the processor's cache.
pub const DATAGRAMS_PER_BATCH: usize = 64;

/// Bytes asked for by one read. Redis reads as much (PROTO_IOBUF_LEN); more would only lengthen what one
/// connection can make the loop copy before another has its turn.
pub const READ_CHUNK: usize = 16 * 1024;

/// Largest JSON file of a `slabd stress` run that is read, in bytes: the samples of the longest run take half a megabyte.
pub const RECORD_FILE_MAX: u64 = 16 << 20;

/// Files kept back from connections: listeners, the poll system's own, logs, and room to look at /proc.
pub const FILES_RESERVED: u64 = 64;

/// Events taken from the kernel by one poll. What does not fit is reported by the next poll.
pub const EVENTS_PER_POLL: usize = 1024;

/// Longest `gather`: more would be felt.
pub const GATHER_MAX: Duration = Duration::from_millis(10);

/// After an accept failed for want of files or memory, it is tried again this much later. An edge-triggered
/// listener gets no further event for connections that already wait, not even when a file is freed.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts of a listener that fail in a row, for whatever reason but want of files and memory, before it too waits for that long. 16: more than
/// networks lose at a time, and nothing beside what a turn may cost.
pub const ACCEPT_FAILURES: u32 = 16;

/// After load dropped, memory goes back to the system this much later: once for a whole drop, not for each step.
pub const TRIM_DELAY: Duration = Duration::from_secs(1);

/// A load drop worth giving memory back for: from at least this many bytes in use to a quarter of them, or to no connection
/// while as much is held. Less is not worth the walk that malloc_trim(3) takes over the heap.
pub const TRIM_BYTES: usize = 64 * 1024;
pub const TRIM_FRACTION: usize = 4;

/// At most one warning of its kind in this time, so that a flood of causes is no flood of lines.
pub const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// A timer overdue by more than this means that the process was stopped, or the machine too busy to run it.
pub const STOPPED_MIN: Duration = Duration::from_secs(1);

/// After that, for at most this long, no deadline is looked at while there is input that arrived meanwhile. 5 s: at a million messages a
/// second that is enough for any number of connections.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// Longest timeout that can be configured. Ticks are compared by distance and wrap after 397 days.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Most connections that can be configured: two million and a bit, with room in a 32-bit timer id.
pub const CONNECTIONS_MAX: usize = 1 << 22;

/// What one connection takes up in slab and wheel in a release build, in bytes; a test pins it.
pub const CONNECTION_BYTES: usize = 44;

/// Silent connections closed in one turn to make way for others: each keeps its file until the turn ends, and so many are kept back.
pub const RECYCLES_PER_TURN: usize = 32;

/// Silent connections of a source that make way for others count together as much as one late message, if they are so many.
pub const RECYCLED_PER_PENALTY: u32 = 5;

/// What the kernel may hold for one connection in both directions where it is left to itself, in bytes: the last figures of
/// net.ipv4.tcp_wmem and tcp_rmem by default.
pub const KERNEL_BUFFERS_MAX: usize = (4 << 20) + (6 << 20);

/// Newcomers that find no slot and are told so in one turn; more are reset. A flood of them must not be answered one by one.
pub const TOLD_PER_TURN: usize = 16;

/// Longest `output_soft_time`: its time stamp has two bytes, and wraps after nine hours.
pub const SOFT_TIME_MAX: Duration = Duration::from_secs(8 * 3600);

/// Slots kept for the operator where there is a listener for one.
pub const RESERVED_SLOTS: usize = 8;

/// Largest silent set that can be configured: a source counts its own in two bytes.
pub const SILENT_MAX: usize = u16::MAX as usize;

/// Listening addresses: their index is one byte of a token.
pub const LISTENERS_MAX: usize = 64;

/// What the loop may do and hold. Times are [`Duration`], sizes bytes, zero timeouts mean "never".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections held at once; who comes then is told so and closed. Set from the file limit by default.
    pub max_connections: usize,

    /// What happens to newcomers when the silent set or the slab is full. To recycle: it serves 99.6 % of honest clients beside a
    /// flood where to refuse serves 9.6 %.
    pub admission: Policy,
    /// Count what admission would do, and close nothing.
    pub admission_dry_run: bool,
    /// Connections that have not completed a message. 4,096: with 4,096 newcomers a second, each still has one second to speak.
    pub max_silent: usize,
    /// Of one source, while more than half of those are taken. 64: an office behind one address, not a flood.
    pub max_silent_per_source: usize,
    /// Connections of one source, silent or not; 0: seven eighths of all, so that whoever it is, others get in.
    pub max_connections_per_source: usize,
    /// Added to a source's penalty for each deadline of a message that it lets pass; from 15 s on it is refused until all is over. 5 s:
    /// three are no accident.
    pub penalty: Duration,
    /// Sources that are counted, but neither capped nor penalised: proxies and address translators, behind which many are. None by default.
    pub trusted_sources: Networks,

    /// From accept to the first complete message. 10 s: a client of any kind speaks at once, and who types by hand has begun by then.
    pub first_message_timeout: Duration,
    /// From a message's first byte to its last. Bytes do not push it back, so dribbling does not help. 30 s.
    pub message_timeout: Duration,
    /// Between complete messages. 5 min: between nginx (75 s) and "never" (Redis).
    pub idle_timeout: Duration,
    /// Unsent output that the peer takes no byte of. 20 s, as TCP_USER_TIMEOUT is usually set.
    pub output_timeout: Duration,
    /// From deciding to close until the peer has what it is owed and has closed too. 5 s, nginx's lingering_timeout.
    pub close_timeout: Duration,
    /// From SIGTERM to exit. 10 s: what container runtimes wait before they kill.
    pub drain_timeout: Duration,

    /// Longest line without its line break; longer is an error. 4 KiB, above any line a person types, below
    /// what would make a dribbled line expensive to hold.
    pub max_line: usize,
    /// Unsent output at which a connection is no longer read. 64 KiB keeps a fast link busy for a turn.
    pub high_watermark: usize,
    /// Unsent output at which it is read again: a quarter, so that reading does not start and stop at every write.
    pub low_watermark: usize,
    /// Memory for connections, user and kernel, in bytes: slab, wheel and buffers, and what the kernel has for each connection, buffers at
    /// their caps where output is unsent. At seven eighths of it the largest are closed; past it, who asks for more is. 256 MiB: 20,000 connections,
    /// of which 1,400 take nothing of what they are sent.
    pub memory_budget: usize,

    /// How long the loop lets events [gather](crate::gather) under load; 0: not at all. 50 us: less brings too few, and after much more the
    /// clients have fallen asleep and must be woken.
    pub gather: Duration,
    /// Connections accepted per turn. 64: at 20 µs each, established connections wait a millisecond at most.
    pub accepts_per_turn: usize,
    /// Connections served per turn. As many as one poll reports.
    pub connections_per_turn: usize,
    /// Messages taken from one connection per turn; the rest waits on the carry list.
    pub messages_per_turn: usize,
    /// Reads of one connection per turn, each of up to 16 KiB. 4: 64 KiB is what a fast sender may hold the loop for.
    pub reads_per_turn: usize,
    /// Batches of 64 datagrams taken from all UDP sockets per turn.
    pub datagram_batches_per_turn: usize,
    /// Bytes that services may put out per turn before serving stops until they are sent, and that each may deliver, as its receivers' kernels copy
    /// them. 1 MiB stays in the
    /// processor's cache.
    pub output_per_turn: usize,
    /// Unsent output at which a connection is closed. 1 MiB: output for others does not stop when a peer is not read, so it needs a
    /// bound of its own; Redis's hard one for subscribers is 32 MB.
    pub output_limit: usize,
    /// Unsent output that may not last longer than `output_soft_time`, then the connection is closed. 256 KiB: a peer that drips just fast
    /// enough to defeat the output timeout holds no more for long.
    pub output_soft_limit: usize,
    /// 10 s, time for a burst to be taken by a slow but honest peer. Redis's are 8 MB and 60 s.
    pub output_soft_time: Duration,
    /// Deliveries that one service may make per turn: receivers of a publish, say. 1,024 writes take some 2 ms.
    pub deliveries_per_turn: usize,
    /// Timers expired per turn. 1,024 at 0.2 µs keep a storm of deadlines under a millisecond.
    pub expiries_per_turn: usize,

    /// What the kernel does for each connection by itself.
    pub sockets: SocketOptions,
}

/// Options of listeners, which every socket accepted from then on inherits without a system call of its own. Zero leaves one to
/// the kernel: off for the timeouts, its own size for the buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Silence after which the kernel asks the peer for a sign of life, in whole seconds. 60 s: well within `idle_timeout`, and before most
    /// address translators forget a connection.
    pub keepalive: Duration,
    /// Between such probes. 15 s, so that three of them span the reboot of a router.
    pub keepalive_interval: Duration,
    /// Probes without an answer after which the peer is given up. While `user_timeout` is set Linux asks that instead, and gives up at the first
    /// interval after a probe at which the peer has been silent for longer (tcp_keepalive_timer): 75 s by default, where three probes take 105.
    pub keepalive_probes: u32,
    /// How long data may stay unacknowledged, or a window closed, before the kernel gives the peer up (TCP_USER_TIMEOUT, RFC 5482). 20 s, like
    /// `output_timeout`; Linux's own 15 retransmissions take as many minutes.
    pub user_timeout: Duration,
    /// Most kernel memory for unacknowledged output, packet overhead included: what `ss -m` calls `tb`, and twice the number that goes to
    /// setsockopt(2), because Linux doubles that. 32 KiB: unsent output belongs in our own buffers, where it is counted.
    pub send_buffer: usize,
    /// The same for input that has not been read: `rb`. Half of it is the largest window that a peer is offered, here one read's worth.
    pub receive_buffer: usize,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions {
            keepalive: Duration::from_secs(60),
            keepalive_interval: Duration::from_secs(15),
            keepalive_probes: 3,
            user_timeout: Duration::from_secs(20),
            send_buffer: 32 * 1024,
            receive_buffer: 2 * READ_CHUNK,
        }
    }
}

/// Longest times and most probes that Linux takes for keepalive (MAX_TCP_KEEPIDLE and its like in linux/tcp.h).
pub const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);
pub const KEEPALIVE_PROBES_MAX: usize = 127;

/// Smallest and largest socket buffer that can be configured. Linux takes no less than about 4.5 KiB, and no more than
/// twice net.core.wmem_max and rmem_max.
pub const SOCKET_BUFFER_MIN: usize = 8 * 1024;
pub const SOCKET_BUFFER_MAX: usize = 1 << 30;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 1024,
            admission: Policy::Recycle,
            admission_dry_run: false,
            max_silent: 4096,
            max_silent_per_source: 64,
            max_connections_per_source: 0,
            penalty: Duration::from_secs(5),
            trusted_sources: Networks::default(),
            first_message_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(300),
            output_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
            max_line: LINE_MAX,
            high_watermark: HIGH_WATERMARK,
            low_watermark: HIGH_WATERMARK / 4,
            memory_budget: 256 << 20,
            gather: Duration::from_micros(50),
            accepts_per_turn: 64,
            connections_per_turn: EVENTS_PER_POLL,
            messages_per_turn: 128,
            reads_per_turn: 4,
            datagram_batches_per_turn: 1,
            output_per_turn: OUTPUT_PER_TURN,
            output_limit: OUTPUT_LIMIT,
            output_soft_limit: OUTPUT_LIMIT / 4,
            output_soft_time: Duration::from_secs(10),
            deliveries_per_turn: 1024,
            expiries_per_turn: 1024,
            sockets: SocketOptions::default(),
        }
    }
}

impl Limits {
    /// The cap on connections of one source that is in force.
    pub fn connections_per_source(&self) -> usize {
        match self.max_connections_per_source {
            0 => (self.max_connections - self.max_connections.div_ceil(8)).max(1),
            cap => cap,
        }
    }
}

const LINE_MAX: usize = 4096;
const HIGH_WATERMARK: usize = 64 * 1024;
const OUTPUT_LIMIT: usize = 1 << 20;
const OUTPUT_PER_TURN: usize = 1 << 20;

/// Longest line that can be configured: a whole line must fit into one read beside its line break, so that
/// what a connection holds back is never more than a line and a read.
pub const MAX_LINE_MAX: usize = READ_CHUNK - 2;

const _: () = {
    assert!(LINE_MAX <= MAX_LINE_MAX);
    // One read's worth of output must not stop a connection from being read.
    assert!(READ_CHUNK < HIGH_WATERMARK);
    // One connection at its watermark must not use up a turn's output.
    assert!(HIGH_WATERMARK < OUTPUT_PER_TURN);
    // Who is not read because of its watermark must not be closed for its own answers.
    assert!(2 * HIGH_WATERMARK < OUTPUT_LIMIT);
    assert!(DATAGRAMS_PER_BATCH <= 1024);
    assert!(RECYCLES_PER_TURN < FILES_RESERVED as usize);
    assert!(LISTENERS_MAX <= u8::MAX as usize);
    assert!(CONNECTIONS_MAX < u32::MAX as usize / 2);
};
