//! Every limit in one file: its default, its reason, and how the limits relate.
//!
//! [`Limits`] are set from the configuration, under the same names, and can change while the server runs: its
//! rows are in `table`. The constants are bounds that nobody has needed to turn.

mod policy;
mod table;

use std::time::Duration;

pub use policy::Policy;
pub use table::{LIMIT_ROWS, Limits, SOCKET_ROWS, SocketOptions};

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

/// Steps in one turn of the walks over all sessions that CLIENT LIST and the like take. A step looks
/// at a session, some 20 ns; to ask the kernel for its address takes 16, to describe it 64. A
/// millisecond.
pub const WALK_STEPS_PER_TURN: usize = 16 * 1024;

/// What INFO costs, in steps of searching: half a millisecond at most.
pub const INFO_STEPS: usize = SEARCHED_MAX / 2;

/// Largest payload of a UDP datagram over IPv6: 65,535 less the UDP header, jumbograms aside (RFC 8200).
pub const DATAGRAM_MAX: usize = 65_527;

/// The same over IPv4, whose header counts as well (RFC 791).
pub const DATAGRAM_MAX_V4: usize = 65_507;

/// Datagrams received by one system call, and answered by one. At 64 the call's own cost is 2 % of the work
/// (recvmmsg(2) takes up to 1,024), and the answers of a batch still fit the processor's cache.
pub const DATAGRAMS_PER_BATCH: usize = 64;

/// Bytes asked for by one read. A peer that sends all the time is read twice for a full window; more
/// would only lengthen what one connection can make the loop copy before another has its turn.
pub const READ_CHUNK: usize = 32 * 1024;

/// Largest JSON file of a `slabd stress` run that is read, in bytes: the samples of the longest run take half a megabyte.
pub const RECORD_FILE_MAX: u64 = 16 << 20;

/// Files kept back from connections: listeners, the poll system's own, logs, and room to look at /proc.
pub const FILES_RESERVED: u64 = 64;

/// Events taken from the kernel by one poll. What does not fit is reported by the next poll.
pub const EVENTS_PER_POLL: usize = 1024;

/// Bytes of undelivered messages at which publishes wait. Each receiver may be sent all of them in
/// one write, so this is what a reader must be able to take at once.
pub const BACKLOG_MAX: usize = 256 * 1024;

/// Bytes of messages, without their framing, that one receiver is sent at once; a larger message goes
/// alone.
pub const BATCH_MAX: usize = 2 * BACKLOG_MAX;

/// Undelivered messages at which publishes wait, one counted for each topic that it goes to: however
/// small messages are, a walk over them is short.
pub const BACKLOG_POSTS_MAX: usize = 16 * 1024;

/// Steps of searching in one turn, some nanoseconds each: names that a pattern is matched with,
/// topics that a session is looked for among. Then commands that search wait for the next turn. A
/// thousandth of a second.
pub const SEARCHED_MAX: usize = 1 << 20;

/// Steps that one publish may take to find the patterns it matches, some 30 ms at worst: no name of
/// up to 60 bytes needs as many, whatever the patterns are, but 1,024 malicious ones would take two
/// seconds with a name of 4 KiB.
pub const PUBLISH_STEPS_MAX: usize = 16 << 20;

/// Subscribers that fan-out looks at in one turn, most of them in vain: 64 Ki take half a millisecond.
pub const VISITS_PER_TURN: usize = 64 * 1024;

/// And of one topic before the next has its turn: a topic of few subscribers waits for so many of a
/// large one.
pub const VISITS_PER_QUEUE: usize = 256;

/// Free queues of fan-out whose memory is kept, so that a publish allocates nothing once warm.
pub const SPARE_QUEUES_MAX: usize = 16;

/// Capacity up to which a queue, or the memory of messages, is kept for the next publish. What a rare
/// large message has made of them goes back.
pub const SPARE_MESSAGES_MAX: usize = 64 * 1024;

/// Bytes of undelivered messages at which MONITOR shows no more commands: they wait for nothing, and
/// what is shown of them must not pile up behind a large channel.
pub const MONITOR_BACKLOG_MAX: usize = 4 * BACKLOG_MAX;

/// Sessions that wait with a publish and go on in one turn, once there is room again.
pub const RESUMED_PER_TURN: usize = 256;

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

/// The share of the memory budget, one in so many, that input may take while publishes wait. Beyond
/// it, more of a large message is left in the kernel.
pub const INPUT_SHARE: usize = 4;

/// Connections freed in one turn: to close a socket takes some 10 us.
pub const REAPS_PER_TURN: usize = 256;

/// Silent connections closed in one turn to make way for others: each keeps its file until the turn ends, and so many are kept back.
pub const RECYCLES_PER_TURN: usize = 32;

/// Silent connections of a source that make way for others count together as much as one late message, if they are so many.
pub const RECYCLED_PER_PENALTY: u32 = 5;

/// What the kernel may hold of a connection's output and of its input where it is left to itself, in
/// bytes: the last figures of net.ipv4.tcp_wmem and tcp_rmem by default.
pub const KERNEL_SEND_BUFFER_MAX: usize = 4 << 20;
pub const KERNEL_RECEIVE_BUFFER_MAX: usize = 6 << 20;

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

/// Longest times and most probes that Linux takes for keepalive (MAX_TCP_KEEPIDLE and its like in linux/tcp.h).
pub const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);
pub const KEEPALIVE_PROBES_MAX: u32 = 127;

/// Smallest and largest socket buffer that can be configured. Linux takes no less than about 4.5 KiB, and no more than
/// twice net.core.wmem_max and rmem_max.
pub const SOCKET_BUFFER_MIN: usize = 8 * 1024;
pub const SOCKET_BUFFER_MAX: usize = 1 << 30;

/// Smallest bound on output that the kernel has not sent: less would wake the loop for single packets.
pub const NOTSENT_LOWAT_MIN: usize = 4 * 1024;

/// Connections whose kernel memory is asked for in one report.
pub const KERNEL_SAMPLE: usize = 64;

/// The longest count line (`*3`, `$11`), in bytes with its marker and without CRLF. Redis allows 64 KiB, but a
/// number takes 20 bytes at most.
pub const COUNT_LINE_MAX: usize = 32;

/// Attempts to find a free port that both TCP and UDP can have.
pub const PORT_ATTEMPTS: usize = 16;

/// Files that a process may open, should the kernel not tell: POSIX's usual soft limit.
pub const DEFAULT_FILE_LIMIT: u64 = 1024;

/// Receive buffer asked of the kernel for each UDP socket, in bytes.
pub const UDP_RECEIVE_BUFFER: usize = 1 << 20;

/// Sources tracked at a time: 1.6 MiB where all sets are in use.
pub const SOURCES_MAX: usize = 1 << 16;

/// From so much penalty on, a source is refused until all of it is over. OpenSSH's PerSourcePenalties have the same bounds.
pub const PENALTY_MIN: Duration = Duration::from_secs(15);

/// Penalties do not add up beyond this.
pub const PENALTY_MAX: Duration = Duration::from_secs(600);

/// Entries of the silent set that may be out of date before admission looks for them.
pub const STALE_MIN: usize = 1024;

/// The oldest silent connections, so many, are candidates to make way for a newcomer.
pub const LOOK_AHEAD: usize = 64;

/// The share of all slots that must be free for a full accept gate to open again: one in so many, and one at least.
pub const GATE_REOPENS: usize = 32;

/// The share of the memory budget, one in so many, that evictions keep free for what one turn may
/// add.
pub const EVICTION_MARGIN: usize = 8;

/// Free buffers that the pool keeps for reuse, in bytes. Enough that a busy turn allocates nothing, too little to matter.
pub const SPARE_BUFFERS_MAX: usize = 1 << 20;

/// Bytes of a peer's word that an error shows, as in Redis.
pub const SHOWN_MAX: usize = 128;

/// Answers of walks that wait for their askers to come again: further ones are forgotten, and their
/// walks made anew.
pub const WALKS_KEPT: usize = 4;

/// Longest CLIENT LIST and longest PUBSUB CHANNELS, in bytes, so that asking for it does not make the
/// asker a slow consumer.
pub const LIST_MAX: usize = 512 * 1024;

/// Steps that one PUBSUB CHANNELS may take: all the channels there can be, with a few hundred each. Some 30 ms at worst.
pub const LIST_STEPS_MAX: usize = 16 << 20;

/// Patterns of one session. Every publish is matched against every pattern, so a peer must not have many; clients
/// in practice have one to three.
pub const PATTERNS_PER_SESSION_MAX: usize = 16;

/// Different patterns in all: what one publish may have to be matched against. At 9 ns for one that shares the channel's prefix this adds 9 µs.
pub const PATTERNS_MAX: usize = 1024;

/// Different channels and shard channels together, by default: 65,536 of them hold about 12 MB with short names.
/// This also bounds the subscriptions of one session.
pub const CHANNELS_MAX: usize = 1 << 16;

/// What topics and subscriptions may hold together, in bytes: names are up to a peer, and there may be many subscribers to each. 64 MiB are
/// two million subscriptions to a channel or two each.
pub const HELD_MAX: usize = 64 << 20;

/// Wrong passwords that one source may send before each further guess must wait [`GUESS_PENALTY`]: people mistype, programs guess.
pub const FREE_GUESSES: u32 = 5;

/// The wait from one guess to the next, past that.
pub const GUESS_PENALTY: Duration = Duration::from_secs(5);

/// A source that has not guessed for so long starts anew.
pub const GUESSES_FORGIVEN: Duration = Duration::from_secs(600);

/// Sources whose guesses are remembered: some 3 MB. Then the stalest is forgotten first, as far as a look at some finds it.
pub const GUESSERS_MAX: usize = 1 << 16;

/// Networks whose datagrams are counted at a time, each 24 bytes.
pub const COUNTED_NETWORKS_MAX: usize = 4096;

/// Longest name of a connection or library, in bytes: names are for people.
pub const LABEL_MAX: usize = 128;

/// Different texts about libraries that are kept while a connection has them; more are taken and forgotten. A number is one byte, and 0 is
/// none.
pub const LIBRARY_TEXTS_MAX: usize = 255;

/// Patterns of one CONFIG GET: each is matched with every setting's name, by at most a third of a million steps.
pub const PATTERNS_AT_ONCE: usize = 16;

/// Longest reason that CONFIG SET gives, in bytes: the peer's own value may be part of it.
pub const WHY_MAX: usize = 512;

/// Sessions that may monitor at a time: each makes every command dearer.
pub const MONITORS_MAX: usize = 16;

/// Longest line of MONITOR, in bytes: what is shown is for people.
pub const MONITOR_LINE_MAX: usize = 4096;

/// Smallest memory budget: less would not hold one connection with a message and an answer of the usual size.
pub const MEMORY_BUDGET_MIN: usize = 64 * 1024;

/// Largest budget of a turn, in whatever it counts, and largest bound on output in bytes: far more
/// than either makes sense for.
pub const BUDGET_MAX: usize = 1 << 20;
pub const OUTPUT_BOUND_MAX: usize = 1 << 30;

/// Length of the accept queue, by default and at most. A burst of connections survives a busy turn.
/// The kernel counts in an int.
pub const ACCEPT_QUEUE_DEFAULT: u32 = 4096;
pub const ACCEPT_QUEUE_MAX: u32 = i32::MAX as u32;

/// Datagrams a second of one network by default: a hundred sensors at a hundred messages a second.
pub const DATAGRAM_RATE: u32 = 10_000;

/// Smallest and largest fixed buffer: what the pool's smallest and largest classes hold.
pub const FIXED_BUFFER_MIN: usize = 64;
pub const FIXED_BUFFER_MAX: usize = 1 << 20;

/// Longest password: AUTH must fit into what a peer may send before it.
pub const PASSWORD_MAX: usize = 512;

const LINE_MAX: usize = 4096;
const HIGH_WATERMARK: usize = 64 * 1024;
const OUTPUT_LIMIT: usize = 1 << 20;
const OUTPUT_PER_TURN: usize = 1 << 20;

/// Longest line that can be configured: a whole line must fit into one read beside its line break, so that
/// what a connection holds back is never more than a line and a read.
pub const MAX_LINE_MAX: usize = 16 * 1024 - 2;

const _: () = {
    assert!(LINE_MAX <= MAX_LINE_MAX);
    assert!(MAX_LINE_MAX <= READ_CHUNK - 2);
    // One read's worth of output must not stop a connection from being read.
    assert!(READ_CHUNK < HIGH_WATERMARK);
    // One connection at its watermark must not use up a turn's output.
    assert!(HIGH_WATERMARK < OUTPUT_PER_TURN);
    // Who is not read because of its watermark must not be closed for its own answers.
    assert!(2 * HIGH_WATERMARK < OUTPUT_LIMIT);
    // A publish to a name of 60 bytes finds its patterns, whatever they are.
    assert!(PATTERNS_MAX * PATTERN_MAX * (60 + 1) <= PUBLISH_STEPS_MAX);
    assert!(DATAGRAMS_PER_BATCH <= 1024);
    assert!(RECYCLES_PER_TURN < FILES_RESERVED as usize);
    assert!(LISTENERS_MAX <= u8::MAX as usize);
    assert!(CONNECTIONS_MAX < u32::MAX as usize / 2);
};
