//! The limits that can change while the server runs. Each row has help, reason, default and range.

use std::time::Duration;

use toml::Value;

use super::*;
use crate::hosts::{Hosts, Origins, UrlPath};
use crate::networks::Networks;
use crate::setting::{Count, Notation, OrZero, one, settings, text, texts};
use crate::units::{Size, Span};

settings! {
    /// The limits of the loop. Sizes are in bytes. A timeout of zero means never.
    pub struct Limits in Limits[] as LIMIT_ROWS {
        "":
        /// Maximum number of connections. When all are taken, the longest idle one that is no
        /// subscriber is closed for a newcomer. If none is idle, the newcomer gets an error.
        ///
        /// Every file that the process may open can be a connection. memory-budget may bound them
        /// first.
        max_connections: Count<usize> = 1024, in |_| 1..=CONNECTIONS_MAX,
            follows "the hard limit on open files, less 64", |limits| limits.max_connections;

        /// Close a silent connection, which has not completed a message, after this time. Applies
        /// while half of --max-silent or of --max-connections is taken. With a password set, a
        /// client that has sent a command, and not the right password, is closed after this time
        /// in any case. 0 means never.
        ///
        /// A client program sends at once, and a person within a few seconds. A pool that connects
        /// early and speaks late harms nobody while there is room: 2,000 such connections were
        /// served after 60 s.
        first_message_timeout: Span = Duration::from_secs(10);

        /// Close a connection that has not completed a message this long after its first byte. 0
        /// means never.
        ///
        /// Further bytes do not extend the time, so a client cannot dribble.
        message_timeout: Span = Duration::from_secs(30);

        /// Close a connection that has completed no message for this long. Subscribers may be idle.
        /// 0 means never.
        ///
        /// As in Redis. Clients keep pools of idle connections, and an idle connection costs 44
        /// bytes. When slots run out, the longest idle makes way.
        idle_timeout: Span = Duration::ZERO;

        /// Close a connection whose peer accepts no byte of its output for this long. 0 means
        /// never.
        ///
        /// The kernel's own timeout, user-timeout, has the same default.
        output_timeout: Span = Duration::from_secs(20);

        /// Time that the peer of a closing connection has to read its output and close. 0 means for
        /// ever.
        ///
        /// The same as nginx's lingering_timeout.
        close_timeout: Span = Duration::from_secs(5);

        /// Time from SIGTERM until the connections that are still open are cut off. 0 is not
        /// accepted.
        ///
        /// Container runtimes kill a process 10 s after SIGTERM. A drain must end.
        drain_timeout: Span = Duration::from_secs(10), in |_| Duration::from_millis(1)..;

        /// Memory for all connections, in bytes, with the kernel's share. Before it runs out, the
        /// connections that hold most for longest are closed.
        ///
        /// It covers slab, wheel and buffers, and the kernel's memory for each connection. A kernel
        /// buffer with unsent output counts at its maximum size. Above seven eighths of the budget,
        /// connections are closed, by the product of the bytes they hold and the time since their
        /// last progress. Beyond the budget, a connection that needs more memory is closed. The
        /// least limit counts: MemTotal, memory.max or memory.high of a control group (version 1:
        /// memory.limit_in_bytes), or what ulimit -v or -d leaves. The other half is for the
        /// kernel's buffers, other programs, and a heap in pieces.
        memory_budget: Size = MEMORY_BUDGET_DEFAULT, in |_| MEMORY_BUDGET_MIN..,
            follows "half of the memory that the machine or its control group offers",
            |limits| limits.memory_budget;

        /// Maximum length of a line to `hello`, in bytes without its line break.
        ///
        /// Longer than any line that a person types. A dribbled line of this length is cheap to
        /// hold.
        max_line: Size = LINE_MAX, in |_| 1..=MAX_LINE_MAX;

        /// Maximum length of a command to `hub`, in bytes with its framing.
        ///
        /// A message is a command. Inline commands have at most 64 KiB, as in Redis. Before AUTH, a
        /// command has at most 4 KiB. Redis's own limit, 512 MB, is for values that it stores.
        max_message: Size = MAX_MESSAGE, in |_| MAX_MESSAGE_MIN..=MAX_MESSAGE_MAX;

        /// Unsent output at which the server stops reading a connection, in bytes.
        ///
        /// 64 KiB keep a fast link busy for a turn.
        high_watermark: Size = HIGH_WATERMARK, in |_| 1..=OUTPUT_BOUND_MAX;

        /// Unsent output at which the server resumes reading the connection, in bytes.
        ///
        /// With a quarter, reading does not stop and start at every write.
        low_watermark: Size = HIGH_WATERMARK / 4, in |limits| 0..=limits.high_watermark - 1,
            follows "a quarter of the high watermark", |limits| limits.high_watermark / 4;

        /// Unsent output at which a connection is closed, in bytes.
        ///
        /// A paused connection still gets published messages, so its output needs a bound. Redis
        /// has the same hard limit for subscribers. The default is worked out at the start: after a
        /// CONFIG SET of max-message, set output-limit to twice its value.
        output_limit: Size = OUTPUT_LIMIT, in |limits| 2 * limits.high_watermark..=OUTPUT_BOUND_MAX,
            follows "32MiB, or twice the high watermark or max-message",
            |limits| OUTPUT_LIMIT.max(2 * limits.high_watermark).max(2 * limits.max_message);

        /// Unsent output above which a connection is closed after --output-soft-time, in bytes.
        ///
        /// It bounds a peer that reads just fast enough to stay within output-timeout.
        output_soft_limit: Size = OUTPUT_LIMIT / 4, in |limits| 1..=limits.output_limit,
            follows "a quarter of the output limit", |limits| limits.output_limit / 4;

        /// Time that a connection may stay above --output-soft-limit, with a precision of a second.
        /// 0 means for ever.
        ///
        /// Enough for a slow but honest peer to read a burst. Redis has the same soft limit for
        /// subscribers, 8 MB for 60 s.
        output_soft_time: Span = Duration::from_secs(60), in |_| Duration::ZERO..=SOFT_TIME_MAX;

        /// Interval of the log line about connections, memory and turns. 0 means never.
        report_every: Span = Duration::ZERO;

        "Admission":
        /// Policy for newcomers when too many connections are silent or no slot is free. recycle
        /// evicts the oldest silent connection, refuse refuses the newcomer, and random-drop
        /// refuses it at random.
        ///
        /// Beside a flood, recycle serves 99.6 % of honest clients, and refuse serves 9.6 %.
        admission: Policy = Policy::Recycle;

        /// Count the decisions of admission without closing a connection.
        ///
        /// It shows the effect of limits before they are in force.
        admission_dry_run: bool = false;

        /// Maximum number of silent connections, which have not completed a message. When it is
        /// reached, --admission decides.
        ///
        /// With 4,096 newcomers a second, each still has one second to speak.
        max_silent: Count<usize> = 4096, in |_| 1..=SILENT_MAX;

        /// Maximum number of silent connections from one source, an IPv4 address or an IPv6 /64. A
        /// further one takes the place of the oldest. It applies while the silent set is more than
        /// half full. A whole IPv6 /48 may have eight times as many.
        ///
        /// Enough for an office behind one address, and too few for a flood.
        max_silent_per_source: Count<usize> = 64, in |_| 1..=SILENT_MAX;

        /// Maximum number of connections from one source, silent or not, and from one IPv6 /48. A
        /// further one takes the place of the longest idle. 0 means seven eighths of
        /// --max-connections.
        ///
        /// No source can take every slot.
        max_connections_per_source: Count<usize> = 0, in |_| 0..=CONNECTIONS_MAX;

        /// Maximum number of connections from one source that have been refused a command because
        /// they have not sent the password. Beyond it, the one with the most wrong passwords is
        /// closed, and of several the oldest.
        ///
        /// A newcomer always gets in, so the right password does. Clients with a wrong password
        /// wait up to 4 s for their answers.
        max_unauthenticated_per_source: Count<usize> = 256, in |_| 1..=UNAUTHENTICATED_MAX;

        /// Time added to a source's penalty for each message that misses its deadline while silent
        /// connections are under pressure. A recycled connection costs a fifth of it. From 15s on,
        /// the source has an eighth of --max-silent-per-source. A connection that speaks takes off
        /// as much as eight recycled ones. 0 means no penalties.
        ///
        /// One or two late messages may be an accident, and three are not. Addresses of this
        /// machine and trusted sources get no penalty.
        penalty: Span = Duration::from_secs(5);

        /// Addresses and networks that are neither capped nor penalised, separated by commas.
        /// Proxies belong here.
        ///
        /// Many clients share the address of a proxy or an address translator. Wrong passwords
        /// still count against it.
        trusted_sources: Networks = Networks::default();

        "Subscriptions":
        /// Memory for channels, patterns and subscriptions, in bytes. A source (an IPv4 address or
        /// an IPv6 /64) may hold seven times what is left free.
        ///
        /// The rest of the budget is for connections and messages. 64 MiB hold 300,000 channels.
        subscription_memory: Size = 64 << 20, in |_| 1..,
            follows "a quarter of the memory budget", |limits| limits.memory_budget / 4;

        /// Maximum number of channels and shard channels. 0 means as many as --subscription-memory
        /// holds. A source may hold seven times what is left free.
        ///
        /// Memory is what channels cost.
        max_channels: Count<usize> = 0, in |_| 0..=CHANNELS_MAX;

        /// Maximum length of a channel's name, in bytes.
        ///
        /// Longer than any name that people use, and short enough to match with patterns.
        max_channel_name: Size = CHANNEL_NAME, in |_| 1..=CHANNEL_NAME_MAX;

        /// Maximum length of a pattern, in bytes.
        ///
        /// A publish takes a step for each 64 characters of a pattern that no index finds.
        max_pattern: Size = PATTERN, in |_| 1..=PATTERN_MAX;

        /// Maximum number of different patterns of the form `text*` or without a wildcard, which an
        /// index finds. A source may hold seven times what is left free.
        ///
        /// A publish does not become slower with their number.
        max_patterns: Count<usize> = PATTERNS, in |_| 0..=PATTERNS_MAX;

        /// Maximum number of different patterns of other forms. A source may hold seven times what
        /// is left free.
        ///
        /// Every publish tries them all: 1,024 take 2 us if they do not match.
        max_other_patterns: Count<usize> = OTHER_PATTERNS, in |_| 0..=PATTERNS_MAX;

        /// Maximum number of patterns of one connection.
        ///
        /// A client library with a pattern for each of its namespaces has some hundreds.
        max_patterns_per_connection: Count<usize> = 1024, in |_| 0..=PATTERNS_MAX;

        /// Memory for retained values, in bytes. Beyond it, the channel that holds most loses the
        /// value that has not changed for longest.
        ///
        /// Enough for a million small values. They count against the memory budget.
        retained_memory: Size = RETAINED_MEMORY, in |_| 0..,
            follows "64MiB, or a quarter of the memory budget if that is less",
            |limits| RETAINED_MEMORY.min(limits.memory_budget / 4);

        "Browsers":
        /// Maximum length of the head of an HTTP request, in bytes with its request line.
        ///
        /// Browsers send heads of one or two KiB, and more with large cookies. nginx accepts 32 KiB
        /// in buffers of 8 KiB, Node 16 KiB.
        max_head: Size = 16 << 10, in |_| HEAD_MIN..=HEAD_MAX;

        /// Maximum number of headers of an HTTP request.
        ///
        /// Browsers send about twenty. Proxies add some.
        max_headers: Count<usize> = 100, in |_| 1..=HEADERS_MAX;

        /// Host names under which browsers reach the server, separated by commas; * for all. An
        /// address and localhost are always accepted. A request with another Host is refused.
        ///
        /// A page on the internet can make its own name point to this machine (DNS rebinding), and
        /// could then read every channel.
        allow_host: Hosts = Hosts::default();

        /// Origins of other pages that may use the server, such as https://example.com, separated
        /// by commas; * for all. The server's own page may always use it.
        ///
        /// A browser sends requests to local addresses for any page. So a page must be named here
        /// before it may publish or listen.
        allow_origin: Origins = Origins::default();

        /// Silence of a WebSocket client after which it is sent a ping. Without an answer it is
        /// closed after the same time again. 0 means never.
        ///
        /// Load balancers cut connections that are idle for 60 s.
        ping_interval: Span = Duration::from_secs(45);

        /// Interval of the comments that keep a stream of server-sent events alive. 0 means never.
        ///
        /// Clients and proxies give up a stream after 30 to 60 s without a byte.
        event_interval: Span = Duration::from_secs(20);

        /// Path at which clients of Socket.IO are served.
        ///
        /// The official client asks there unless told otherwise.
        socketio_path: UrlPath = UrlPath::default();

        /// Time between two pings of a client of Socket.IO. The client takes the connection for
        /// dead without a ping for this time and the timeout together.
        ///
        /// As in the Node server.
        socketio_ping_interval: Span = Duration::from_secs(25), in |_| SOCKETIO_TIME_MIN..;

        /// Time for the answer of a client of Socket.IO to a ping. Without one it is closed.
        ///
        /// As in the Node server.
        socketio_ping_timeout: Span = Duration::from_secs(20), in |_| SOCKETIO_TIME_MIN..;

        /// Time from the handshake of a client of Socket.IO until it must have connected to a
        /// namespace.
        ///
        /// As in the Node server. A client connects at once.
        socketio_connect_timeout: Span = Duration::from_secs(45), in |_| SOCKETIO_TIME_MIN..;

        "Budgets of one turn":
        /// Maximum number of connections accepted in one turn.
        ///
        /// At 20 us each, established connections wait for about a millisecond.
        accepts_per_turn: Count<usize> = 64, in |_| 1..=BUDGET_MAX;

        /// Maximum number of connections served in one turn.
        ///
        /// One poll reports up to 1,024 connections.
        connections_per_turn: Count<usize> = EVENTS_PER_POLL, in |_| 1..=BUDGET_MAX;

        /// Maximum number of messages of one connection served in one turn.
        ///
        /// The rest waits on the carry list.
        messages_per_turn: Count<usize> = 128, in |_| 1..=BUDGET_MAX;

        /// Maximum number of reads of one connection in one turn. A read takes up to 32 KiB.
        ///
        /// A fast sender can hold the loop for 128 KiB.
        reads_per_turn: Count<usize> = 4, in |_| 1..=BUDGET_MAX;

        /// Maximum number of datagrams a second that are taken from one network, an IPv4 /24 or an
        /// IPv6 /56. 0 means any number.
        ///
        /// Enough for a hundred sensors with a hundred messages a second each. A forged flood from
        /// one network stays below a tenth of what one core serves.
        datagram_rate: Count<u32> = DATAGRAM_RATE;

        /// Maximum number of batches received in one turn, from all UDP sockets together. A batch
        /// is up to 64 datagrams.
        ///
        /// A flood of datagrams delays connections by one batch per turn.
        datagram_batches_per_turn: Count<usize> = 1, in |_| 1..=BUDGET_MAX;

        /// Output of one turn after which no more connections are served in it, in bytes. It also
        /// bounds what each service delivers to other connections.
        ///
        /// 1 MiB stays in the processor's cache.
        output_per_turn: Size = OUTPUT_PER_TURN, in |_| 1..=OUTPUT_BOUND_MAX;

        /// Maximum number of writes to other connections in one turn, for each service.
        ///
        /// One write carries everything that waits for a connection. 512 writes take 1 to 3 ms.
        deliveries_per_turn: Count<usize> = 512, in |_| 1..=BUDGET_MAX;

        /// Maximum number of timers that expire in one turn.
        ///
        /// At 0.2 us each, they take less than a millisecond.
        expiries_per_turn: Count<usize> = 1024, in |_| 1..=BUDGET_MAX;

        with sockets: SocketOptions;
    }
}

settings! {
    /// Socket options of the listeners. Every socket accepted later inherits them without a system
    /// call. Zero leaves an option to the kernel.
    #[derive(Copy)]
    pub struct SocketOptions in Limits[.sockets] as SOCKET_ROWS {
        "Sockets":
        /// Silence after which the kernel probes a peer, in whole seconds. 0 means never.
        ///
        /// Before most address translators forget a connection.
        keepalive: Seconds = Duration::from_secs(60),
            in |_| OrZero(Duration::from_secs(1)..=KEEPALIVE_MAX);

        /// Time between two keepalive probes, in whole seconds.
        ///
        /// Three probes span the reboot of a router.
        keepalive_interval: Seconds = Duration::from_secs(15),
            in |_| Duration::from_secs(1)..=KEEPALIVE_MAX;

        /// Number of unanswered keepalive probes that end a connection. It applies only where
        /// --user-timeout is 0.
        ///
        /// With a user timeout, Linux counts no probes. It gives up after a probe interval if the
        /// peer has been silent for longer than the user timeout (tcp_keepalive_timer). By default
        /// that is after 75 s, where three probes would take 105 s.
        keepalive_probes: Count<u32> = 3, in |_| 1..=KEEPALIVE_PROBES_MAX;

        /// Time after which the kernel gives up a peer that acknowledges or accepts no data. 0
        /// means the kernel's own retries.
        ///
        /// The same as output-timeout. Linux's own 15 retransmissions take about 15 minutes
        /// (TCP_USER_TIMEOUT, RFC 5482).
        user_timeout: Span = Duration::from_secs(20);

        /// Kernel memory for the output of a connection, in bytes, as `ss -m` shows it in tb. 0
        /// means that the kernel chooses.
        ///
        /// It includes packet overhead. Linux doubles the number given to setsockopt(2), so slabd
        /// gives it half. A fixed size also bounds the data in flight to a peer that reads all the
        /// time. notsent-lowat bounds only data that waits.
        send_buffer: Size = 0,
            in |_| OrZero(SOCKET_BUFFER_MIN..=SOCKET_BUFFER_MAX);

        /// Output of a connection that the kernel accepts before it has sent it, in bytes. 0 means
        /// any amount.
        ///
        /// TCP_NOTSENT_LOWAT, tcp(7). The kernel may have as much data in flight as the peer reads.
        /// A peer that reads nothing holds no more than this. A peer that stops acknowledging may
        /// hold the data in flight, up to net.ipv4.tcp_wmem, until user-timeout.
        notsent_lowat: Size = 16 * 1024,
            in |_| OrZero(NOTSENT_LOWAT_MIN..=SOCKET_BUFFER_MAX);

        /// Kernel memory for the unread input of a connection, in bytes, as `ss -m` shows it in rb.
        /// 0 means that the kernel chooses.
        ///
        /// Half of it is the largest window offered to a peer. This size does not slow down a peer
        /// that sends all the time. A peer that sends and never reads costs no more than this.
        receive_buffer: Size = 76 * 1024,
            in |_| OrZero(SOCKET_BUFFER_MIN..=SOCKET_BUFFER_MAX);
    }
}

impl Limits {
    /// Returns the cap on connections of one source: the configured one, or the default.
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
    "HOST,…" Hosts;
    "PATH" UrlPath;
    "ORIGIN,…" Origins;
}

impl Notation for Span {
    type Value = Duration;
    const HINT: &'static str = "TIME";

    fn read(texts: &[String]) -> Result<Duration, String> {
        let Span(time) = one(texts)?;
        match time > TIMEOUT_MAX {
            true => Err(format!("expected a time of at most {}", Span(TIMEOUT_MAX))),
            false => Ok(time),
        }
    }

    fn write(value: &Duration) -> Option<Value> {
        text(Span(*value))
    }
}

/// A time in whole seconds, because the kernel counts it in seconds.
pub struct Seconds;

impl Notation for Seconds {
    type Value = Duration;
    const HINT: &'static str = "TIME";

    fn read(texts: &[String]) -> Result<Duration, String> {
        let Span(time) = one(texts)?;
        match time.subsec_nanos() {
            0 => Ok(time),
            _ => Err("expected whole seconds, such as 30s".into()),
        }
    }

    fn write(value: &Duration) -> Option<Value> {
        text(Span(*value))
    }
}
