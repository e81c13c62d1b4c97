//! The limits of the server in one file: defaults, reasons and relations.
//!
//! [`Limits`] come from the configuration, under the same names, and can change while the server
//! runs. Their rows are in `table`. The constants are bounds that cannot be configured.

mod policy;
mod table;

use std::time::Duration;

pub use policy::Policy;
pub use table::{LIMIT_ROWS, Limits, SOCKET_ROWS, SocketOptions};

/// Longest command of a connection that has not authenticated, in bytes. It suffices for AUTH and
/// HELLO.
pub const UNTRUSTED_INPUT_MAX: usize = 4096;

/// Maximum number of words in a command of a connection that has not authenticated.
pub const UNTRUSTED_ARGUMENTS_MAX: usize = 16;

/// Maximum pending output of a connection that has not authenticated, in bytes. Without this bound,
/// an unauthenticated client that reads no replies could fill the memory with them
/// (CVE-2025-21605).
pub const UNTRUSTED_OUTPUT_MAX: usize = 1024;

/// Longest name of a channel, in bytes. Matching a name with a pattern takes at most the product of
/// their lengths in steps: a million, or 1 to 2 ms.
pub const CHANNEL_NAME_MAX: usize = 4096;

/// Longest pattern, in bytes.
pub const PATTERN_MAX: usize = 256;

/// Maximum size in bytes of the replies that would end all subscriptions of a session. A session
/// that ends them with one command must not become a slow consumer.
pub const CONFIRMATIONS_MAX: usize = OUTPUT_LIMIT / 2;

/// Maximum number of closed connections that the hub remembers for CLIENT CLOSED. They take 88 KiB.
pub const CLOSED_KEPT: usize = 1024;

/// Maximum number of steps per turn that commands such as CLIENT LIST take through the sessions,
/// about 1 ms.
///
/// Looking at a session is one step of some 20 ns. Asking the kernel for its address takes 16
/// steps, and describing it 64.
pub const WALK_STEPS_PER_TURN: usize = 16 * 1024;

/// Search steps that one INFO counts as. INFO takes half a millisecond at most.
pub const INFO_STEPS: usize = SEARCHED_MAX / 2;

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

/// Size of the undelivered messages at which publishes wait, in bytes. One write may carry all of
/// them to a subscriber, so every subscriber must be able to take this much at once.
pub const BACKLOG_MAX: usize = 256 * 1024;

/// Maximum size of the messages that one write carries to a subscriber, in bytes without their
/// framing. A larger message is sent alone.
pub const BATCH_MAX: usize = 2 * BACKLOG_MAX;

/// Number of undelivered messages at which publishes wait. A message counts once for each topic it
/// goes to. This keeps walks over the messages short, however small the messages are.
pub const BACKLOG_POSTS_MAX: usize = 16 * 1024;

/// Maximum number of search steps in one turn, about 1 ms. Beyond it, commands that search wait for
/// the next turn.
///
/// Matching a name with a pattern is a step, and so is looking for a session in a topic.
pub const SEARCHED_MAX: usize = 1 << 20;

/// Maximum number of search steps that one publish takes to find the patterns it matches, some 30
/// ms at worst.
///
/// A name of up to 60 bytes never needs more, whatever the patterns are. Without this bound, 1,024
/// malicious patterns and a name of 4 KiB would take two seconds.
pub const PUBLISH_STEPS_MAX: usize = 16 << 20;

/// Maximum number of subscribers that fan-out looks at in one turn, whether or not it delivers to
/// them: half a millisecond.
pub const VISITS_PER_TURN: usize = 64 * 1024;

/// Maximum number of subscribers of one topic that fan-out looks at before it turns to the next
/// topic. A small topic never waits for more than this many subscribers of a large one.
pub const VISITS_PER_QUEUE: usize = 256;

/// Maximum number of free fan-out queues whose memory is kept, so that a publish allocates nothing
/// once warm.
pub const SPARE_QUEUES_MAX: usize = 16;

/// Largest capacity, in bytes, that a free queue or message store keeps for the next publish. The
/// memory of a rare large message is freed.
pub const SPARE_MESSAGES_MAX: usize = 64 * 1024;

/// Size of the undelivered messages at which MONITOR skips commands, in bytes. MONITOR applies no
/// backpressure, so its output must not pile up behind a large channel.
pub const MONITOR_BACKLOG_MAX: usize = 4 * BACKLOG_MAX;

/// Maximum number of waiting publishers that resume in one turn, once there is room again.
pub const RESUMED_PER_TURN: usize = 256;

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

/// A timer overdue by more than this shows that the process was stopped or got no processor time.
pub const STOPPED_MIN: Duration = Duration::from_secs(1);

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

/// Evictions of silent connections that are penalised like one late message. A source is penalised
/// only while it has more than one silent connection.
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

/// Penalty from which a source is refused, until all of it has expired. OpenSSH's
/// PerSourcePenalties have the same bounds.
pub const PENALTY_MIN: Duration = Duration::from_secs(15);

/// Longest penalty. Further penalties add nothing.
pub const PENALTY_MAX: Duration = Duration::from_secs(600);

/// Stale entries that the queue of silent connections may hold before admission removes them.
pub const STALE_MIN: usize = 1024;

/// Admission chooses which silent connection to evict among this many of the oldest.
pub const LOOK_AHEAD: usize = 64;

/// A full accept gate opens again when one slot in this many is free, and at least one.
pub const GATE_REOPENS: usize = 32;

/// Evictions keep one part in this many of the memory budget free for what one turn may add.
pub const EVICTION_MARGIN: usize = 8;

/// Maximum size of the free buffers that the pool keeps for reuse, in bytes. They let a busy turn
/// run without allocating.
pub const SPARE_BUFFERS_MAX: usize = 1 << 20;

/// Maximum number of bytes of a client's word that an error message quotes, as in Redis.
pub const SHOWN_MAX: usize = 128;

/// Maximum number of results of walks kept until their commands run again. A command whose result
/// was dropped starts a new walk.
pub const WALKS_KEPT: usize = 4;

/// Longest reply to CLIENT LIST and PUBSUB CHANNELS, in bytes. A longer one could make its client a
/// slow consumer.
pub const LIST_MAX: usize = 512 * 1024;

/// Maximum number of search steps that one PUBSUB CHANNELS takes, some 30 ms at worst. With
/// [`CHANNELS_MAX`] channels, that is 256 steps for each.
pub const LIST_STEPS_MAX: usize = 16 << 20;

/// Maximum number of patterns of one session. Every publish is matched with every pattern. Clients
/// in practice have one to three.
pub const PATTERNS_PER_SESSION_MAX: usize = 16;

/// Maximum number of different patterns in total. A pattern that shares the channel's prefix costs
/// a publish 9 ns, so 1,024 of them cost it 9 us.
pub const PATTERNS_MAX: usize = 1024;

/// Maximum number of different channels and shard channels together. With short names, 65,536 of
/// them take about 12 MB. This also bounds the subscriptions of one session.
pub const CHANNELS_MAX: usize = 1 << 16;

/// Maximum memory of topics and subscriptions together, in bytes. 64 MiB hold some two million
/// subscriptions.
pub const HELD_MAX: usize = 64 << 20;

/// Number of wrong passwords that a source may send before each further guess waits for
/// [`GUESS_PENALTY`]. A person mistypes a few times; a program guesses without end.
pub const FREE_GUESSES: u32 = 5;

/// Delay between two guesses of a source, after [`FREE_GUESSES`].
pub const GUESS_PENALTY: Duration = Duration::from_secs(5);

/// A source that has not guessed for this long gets its free guesses again.
pub const GUESSES_FORGIVEN: Duration = Duration::from_secs(600);

/// Maximum number of sources whose guesses are remembered, some 3 MB. A full table forgets the one
/// of a sample whose last guess is the oldest.
pub const GUESSERS_MAX: usize = 1 << 16;

/// Maximum number of networks whose datagrams are counted at a time, at 24 bytes each.
pub const COUNTED_NETWORKS_MAX: usize = 4096;

/// Longest name of a connection or library, in bytes.
pub const LABEL_MAX: usize = 128;

/// Maximum number of different library names and versions remembered at a time. CLIENT SETINFO
/// accepts further texts without remembering them. A text number is one byte, and 0 means no text.
pub const LIBRARY_TEXTS_MAX: usize = 255;

/// Maximum number of patterns of one CONFIG GET. Matching one with the names of all settings takes
/// at most a third of a million steps.
pub const PATTERNS_AT_ONCE: usize = 16;

/// Longest reason in an error of CONFIG SET, in bytes. It may quote the client's value.
pub const WHY_MAX: usize = 512;

/// Maximum number of sessions that monitor at a time. Each makes every command more expensive.
pub const MONITORS_MAX: usize = 16;

/// Longest line of MONITOR, in bytes.
pub const MONITOR_LINE_MAX: usize = 4096;

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

/// Longest password, in bytes. AUTH must fit in [`UNTRUSTED_INPUT_MAX`].
pub const PASSWORD_MAX: usize = 512;

const LINE_MAX: usize = 4096;
const HIGH_WATERMARK: usize = 64 * 1024;
const OUTPUT_LIMIT: usize = 1 << 20;
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
    // A publish to a name of 60 bytes finds its patterns, whatever they are.
    assert!(PATTERNS_MAX * PATTERN_MAX * (60 + 1) <= PUBLISH_STEPS_MAX);
    assert!(DATAGRAMS_PER_BATCH <= 1024);
    assert!(RECYCLES_PER_TURN < FILES_RESERVED as usize);
    assert!(LISTENERS_MAX <= u8::MAX as usize);
    assert!(CONNECTIONS_MAX < u32::MAX as usize / 2);
};
