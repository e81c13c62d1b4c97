//! The limits that can change while the server runs, one row each: its help, its reason, its default and its range.

use std::time::Duration;

use toml::Value;

use super::*;
use crate::networks::Networks;
use crate::setting::{Count, Notation, one, or_zero, settings, text, texts};
use crate::units::{Size, Span};

settings! {
    /// What the loop may do and hold. Times are [`Duration`], sizes bytes, zero timeouts mean "never".
    pub struct Limits in Limits[] as LIMIT_ROWS {
        "":
        /// Connections held at once; who comes then is told so and closed.
        ///
        /// As many as the process may open files for, so that the budget of memory is what bounds them.
        max_connections: Count<usize> = 1024, in |_| 1..=CONNECTIONS_MAX,
            follows "the hard limit on open files, less 64", |limits| limits.max_connections;

        /// Close a new connection that completes no message for this long; 0: never.
        ///
        /// A client of any kind speaks at once, and who types by hand has begun by then.
        first_message_timeout: Span = Duration::from_secs(10);

        /// Close a connection that began a message and does not complete it in this time; 0: never.
        ///
        /// It counts from a message's first byte. Further bytes do not push it back, so dribbling
        /// does not help.
        message_timeout: Span = Duration::from_secs(30);

        /// Close a connection that completes no message for this long; 0: never.
        ///
        /// Between nginx (75 s) and "never" (Redis).
        idle_timeout: Span = Duration::from_secs(300);

        /// Close a connection that takes no byte of its output for this long; 0: never.
        ///
        /// TCP_USER_TIMEOUT is usually set to the same.
        output_timeout: Span = Duration::from_secs(20);

        /// Time for a connection that is being closed to take what it is owed, and to close; 0: for
        /// ever.
        ///
        /// The same as nginx's lingering_timeout.
        close_timeout: Span = Duration::from_secs(5);

        /// Time from SIGTERM until whatever is left is closed.
        ///
        /// Container runtimes wait as long before they kill. A drain must end, so this is never 0.
        drain_timeout: Span = Duration::from_secs(10), in |_| Duration::from_millis(1)..;

        /// Memory for connections, the kernel's share included; who holds most is closed before it
        /// is passed.
        ///
        /// It counts slab, wheel and buffers, and what the kernel has for each connection, buffers
        /// at their caps where output is unsent. At seven eighths of it the largest connections are
        /// closed. Beyond it, a connection that needs more memory is closed. 256 MiB are enough for
        /// 20,000 connections, of which 1,400 take nothing of what they are sent.
        memory_budget: Size = 256 << 20, in |_| MEMORY_BUDGET_MIN..;

        /// Longest line that `hello` takes, without its line break; at most 16382 bytes.
        ///
        /// Above any line that a person types, and below what would make a dribbled line expensive
        /// to hold.
        max_line: Size = LINE_MAX, in |_| 1..=MAX_LINE_MAX;

        /// Stop reading a connection while this much of its output is unsent.
        ///
        /// 64 KiB keep a fast link busy for a turn.
        high_watermark: Size = HIGH_WATERMARK, in |_| 1..=OUTPUT_BOUND_MAX;

        /// Read it again once no more than this much is unsent.
        ///
        /// A quarter, so that reading does not start and stop at every write.
        low_watermark: Size = HIGH_WATERMARK / 4, in |limits| 0..=limits.high_watermark - 1,
            follows "a quarter of the high watermark", |limits| limits.high_watermark / 4;

        /// Close a connection when this much of its output is unsent.
        ///
        /// Output for others does not stop when a peer is not read, so it needs a bound of its own.
        /// Redis's hard limit for subscribers is 32 MB.
        output_limit: Size = OUTPUT_LIMIT, in |limits| 2 * limits.high_watermark..=OUTPUT_BOUND_MAX,
            follows "1MiB, or twice the high watermark", |limits| OUTPUT_LIMIT.max(2 * limits.high_watermark);

        /// Close a connection when more than this of its output stays unsent for --output-soft-time.
        ///
        /// A peer that drips just fast enough to defeat the output timeout holds no more for long.
        output_soft_limit: Size = OUTPUT_LIMIT / 4, in |limits| 1..=limits.output_limit,
            follows "a quarter of the output limit", |limits| limits.output_limit / 4;

        /// How long that may last, to the second; 0: for ever.
        ///
        /// Time for a slow but honest peer to take a burst. Redis's soft limit is 8 MB for 60 s.
        output_soft_time: Span = Duration::from_secs(10), in |_| Duration::ZERO..=SOFT_TIME_MAX;

        /// Write a line on connections, memory and turns to the log this often; 0: never.
        report_every: Span = Duration::ZERO;

        "Admission":
        /// What happens to newcomers when too many connections are silent, or all slots taken: the
        /// oldest silent one makes way, or the newcomer is refused, or refused at random.
        ///
        /// To recycle serves 99.6 % of honest clients beside a flood; to refuse serves 9.6 %.
        admission: Policy = Policy::Recycle;

        /// Count what admission would do, and close nothing.
        ///
        /// A way to look at limits before they are in force.
        admission_dry_run: bool = false;

        /// Connections that have not completed a message.
        ///
        /// With 4,096 newcomers a second, each still has one second to speak.
        max_silent: Count<usize> = 4096, in |_| 1..=SILENT_MAX;

        /// Of those, from one source (an IPv4 address, an IPv6 /64), while more than half are taken.
        ///
        /// Enough for an office behind one address, and not for a flood.
        max_silent_per_source: Count<usize> = 64, in |_| 1..=SILENT_MAX;

        /// Connections of one source, silent or not; 0: seven eighths of max-connections.
        ///
        /// Whoever the source is, others get in.
        max_connections_per_source: Count<usize> = 0, in |_| 0..=CONNECTIONS_MAX;

        /// Added to a source's penalty for each message that is late, and a fifth for each of its
        /// silent connections that made way; from 15 s on it is refused until all is over; 0: none.
        ///
        /// Three late messages are no accident.
        penalty: Span = Duration::from_secs(5);

        /// Sources that are counted but neither capped nor penalised, such as proxies: addresses and
        /// networks, with commas between them.
        ///
        /// Many clients are behind a proxy or an address translator. Only wrong passwords count
        /// against it.
        trusted_sources: Networks = Networks::default();

        "Budgets of one turn":
        /// Connections accepted in one turn of the loop.
        ///
        /// At 20 us each, established connections wait a millisecond at most.
        accepts_per_turn: Count<usize> = 64, in |_| 1..=BUDGET_MAX;

        /// Connections served in one turn.
        ///
        /// As many as one poll reports.
        connections_per_turn: Count<usize> = EVENTS_PER_POLL, in |_| 1..=BUDGET_MAX;

        /// Messages of one connection served in one turn.
        ///
        /// The rest waits on the carry list.
        messages_per_turn: Count<usize> = 128, in |_| 1..=BUDGET_MAX;

        /// Reads of one connection in one turn, of up to 32 KiB each.
        ///
        /// A fast sender may hold the loop for 128 KiB.
        reads_per_turn: Count<usize> = 4, in |_| 1..=BUDGET_MAX;

        /// Batches of 64 datagrams received in one turn, from all sockets together.
        datagram_batches_per_turn: Count<usize> = 1, in |_| 1..=BUDGET_MAX;

        /// Output of one turn after which connections wait for the next; each service may deliver as
        /// much, as its receivers' kernels copy it.
        ///
        /// 1 MiB stays in the processor's cache.
        output_per_turn: Size = OUTPUT_PER_TURN, in |_| 1..=OUTPUT_BOUND_MAX;

        /// Writes to other connections in one turn, by each service.
        ///
        /// Whatever waits for a connection is one write. 512 of them take 1 to 3 ms.
        deliveries_per_turn: Count<usize> = 512, in |_| 1..=BUDGET_MAX;

        /// Timers expired in one turn.
        ///
        /// At 0.2 us each, a storm of deadlines stays below a millisecond.
        expiries_per_turn: Count<usize> = 1024, in |_| 1..=BUDGET_MAX;

        with sockets: SocketOptions;
    }
}

settings! {
    /// What the kernel does for each connection by itself: options of listeners, which every socket
    /// accepted from then on inherits without a system call of its own. Zero leaves one to the
    /// kernel: off for the timeouts, its own size for the buffers.
    #[derive(Copy)]
    pub struct SocketOptions in Limits[.sockets] as SOCKET_ROWS {
        "Sockets":
        /// Have the kernel probe a peer that was silent for this long, in whole seconds; 0: never.
        ///
        /// Well within the idle timeout, and before most address translators forget a connection.
        keepalive: Seconds = Duration::from_secs(60),
            in |limits| or_zero(limits.sockets.keepalive, Duration::from_secs(1)..=KEEPALIVE_MAX);

        /// Time between such probes, in whole seconds.
        ///
        /// Three of them span the reboot of a router.
        keepalive_interval: Seconds = Duration::from_secs(15), in |_| Duration::from_secs(1)..=KEEPALIVE_MAX;

        /// Probes without answer that end a connection, where --user-timeout is 0; else the first
        /// interval after a probe does.
        ///
        /// With a user timeout Linux counts no probes. It gives up at the first interval after a
        /// probe at which the peer has been silent for longer than that timeout
        /// (tcp_keepalive_timer): after 75 s by default, where three probes take 105.
        keepalive_probes: Count<u32> = 3, in |_| 1..=KEEPALIVE_PROBES_MAX;

        /// Have the kernel give up a peer that acknowledges no data, or takes none, for this long;
        /// 0: its own retries.
        ///
        /// As long as the output timeout; Linux's own 15 retransmissions take as many minutes
        /// (TCP_USER_TIMEOUT, RFC 5482).
        user_timeout: Span = Duration::from_secs(20);

        /// Kernel memory for output of a connection, as `ss -m` counts it in tb; 0: the kernel's
        /// choice.
        ///
        /// It counts packet overhead, and is twice the number that goes to setsockopt(2), because
        /// Linux doubles that. A fixed size would also bound what is on its way to a peer that reads
        /// all the time; notsent-lowat bounds only what waits.
        send_buffer: Size = 0,
            in |limits| or_zero(limits.sockets.send_buffer, SOCKET_BUFFER_MIN..=SOCKET_BUFFER_MAX);

        /// Output not yet sent to the peer that the kernel takes before a write waits; 0: any amount.
        ///
        /// TCP_NOTSENT_LOWAT, tcp(7). It leaves the kernel free to have as much on its way as the peer
        /// reads, and holds a peer that reads nothing to this much. A peer that stops acknowledging may
        /// hold what was on its way, up to net.ipv4.tcp_wmem, until the user timeout.
        notsent_lowat: Size = 16 * 1024,
            in |limits| or_zero(limits.sockets.notsent_lowat, NOTSENT_LOWAT_MIN..=SOCKET_BUFFER_MAX);

        /// Kernel memory for unread input, as `ss -m` counts it in rb; 0: the kernel's choice.
        ///
        /// Half of it is the largest window that a peer is offered. A peer that sends all the time keeps
        /// its rate with this much; one that sends and never reads costs no more.
        receive_buffer: Size = 76 * 1024,
            in |limits| or_zero(limits.sockets.receive_buffer, SOCKET_BUFFER_MIN..=SOCKET_BUFFER_MAX);
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

texts! {
    "SIZE" Size(usize);
    "recycle|refuse|random-drop" Policy;
    "ADDR[/PREFIX],…" Networks;
}

impl Notation for Span {
    type Value = Duration;
    const HINT: &'static str = "TIME";

    fn read(texts: &[String]) -> Result<Duration, String> {
        let Span(time) = one(texts)?;
        if time > TIMEOUT_MAX { Err(format!("at most {}", Span(TIMEOUT_MAX))) } else { Ok(time) }
    }

    fn write(value: &Duration) -> Option<Value> {
        text(Span(*value))
    }
}

/// A time that the kernel counts in seconds.
pub struct Seconds;

impl Notation for Seconds {
    type Value = Duration;
    const HINT: &'static str = "TIME";

    fn read(texts: &[String]) -> Result<Duration, String> {
        let Span(time) = one(texts)?;
        if time.subsec_nanos() > 0 { Err("expected whole seconds".into()) } else { Ok(time) }
    }

    fn write(value: &Duration) -> Option<Value> {
        text(Span(*value))
    }
}
