//! The limits of the hub: commands, subscriptions, delivery, searches, passwords and MONITOR.

use std::time::Duration;

use super::OUTPUT_PER_TURN;

/// Longest command of a connection that has not authenticated, in bytes. It suffices for AUTH and
/// HELLO. The head of an HTTP request may be longer, up to `max_head`.
pub const UNTRUSTED_INPUT_MAX: usize = 4096;

/// Maximum number of words in a command of a connection that has not authenticated.
pub const UNTRUSTED_ARGUMENTS_MAX: usize = 16;

/// Longest inline command, in bytes: Redis's PROTO_INLINE_MAX_SIZE.
pub const INLINE_MAX: usize = 64 * 1024;

/// Shortest `max_message`, in bytes. A word of [`CHANNEL_NAME_MAX`] bytes and a datagram fit.
pub const MAX_MESSAGE_MIN: usize = 64 * 1024;

/// Longest `max_message`, in bytes: Redis's `proto-max-bulk-len`. Two such messages fit the largest
/// output limit.
pub const MAX_MESSAGE_MAX: usize = 512 << 20;

/// Default of `max_message`, in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Number of words from which an incomplete command keeps a parser of its own. With fewer words,
/// reading the command again from its start costs less than 10 us.
pub const LARGE_COMMAND_WORDS: usize = 1024;

/// Bytes of frame heads that may lie behind the payload of an incomplete WebSocket message, if the
/// payload is shorter. A longer gap is closed. Closing each gap at once would move a payload that
/// comes in tiny frames for every frame.
pub const MESSAGE_GAP_MAX: usize = 4096;

/// Largest memory that the parser keeps for the next command, in bytes. An inline command and its
/// words take 320 KiB at most, and usual commands less than 1 KiB.
pub const SPARE_PARSER_MAX: usize = 64 * 1024;

/// Maximum number of words of a command that does not take names of channels. Such a command runs
/// in one turn, and its reply may be much longer than its words.
pub const COMMAND_WORDS_MAX: usize = 1024;

/// Maximum pending output of a connection that has not authenticated, in bytes. Without this bound,
/// an unauthenticated client that reads no replies could fill the memory with them
/// (CVE-2025-21605).
pub const UNTRUSTED_OUTPUT_MAX: usize = 1024;

/// Longest `max_channel_name`, in bytes. The name of a channel must fit in every command.
pub const CHANNEL_NAME_MAX: usize = 32 * 1024;

/// Default of `max_channel_name`, in bytes.
pub const CHANNEL_NAME: usize = 4096;

/// Longest `max_pattern`, in bytes. Compiling a pattern takes time for its square at worst.
pub const PATTERN_MAX: usize = 1024;

/// Default of `max_pattern`, in bytes.
pub const PATTERN: usize = 256;

/// A source may hold this many times what is left free of the memory, channels and patterns.
/// So one source alone may take seven eighths, and any number of greedy sources leave some.
pub const SHARE: usize = 7;

/// Number of subscriptions of a session to topics of others that are not charged to its source. So
/// most sessions need no entry in the table of shares.
pub const FEW_SUBSCRIPTIONS: usize = 8;

/// Charged to a source for each further subscription, in bytes: both halves and the index.
pub const SUBSCRIPTION_BYTES: usize = 40;

/// Charged to a source for each of its topics, in bytes besides the name.
pub const TOPIC_BYTES: usize = 160;

/// Maximum number of names that one slice of a SUBSCRIBE or UNSUBSCRIBE serves: some 30 us. A
/// command with more is served in several slices, and the loop may stop between them.
pub const SLICE_NAMES: usize = 128;

/// Search steps that one slice counts as: slices of a turn take 1 to 2 ms.
pub const SLICE_STEPS: usize = SEARCHED_MAX / 32;

/// Maximum number of subscriptions that end at once when their session does.
pub const LEAVES_AT_ONCE: usize = 512;

/// Maximum number of subscriptions of ended sessions that end in one turn, in 1 to 2 ms.
pub const LEAVES_PER_TURN: usize = 4096;

/// Maximum number of patterns that one slice serves. Compiling one takes 40 us at worst.
pub const SLICE_PATTERNS: usize = 16;

/// Size of the names, in bytes with their framing, from which a slice takes no further name.
pub const SLICE_BYTES: usize = 16 * 1024;

/// Maximum number of closed connections that the hub remembers for CLIENT CLOSED. They take 88 KiB.
pub const CLOSED_KEPT: usize = 1024;

/// Maximum number of steps per turn that commands such as CLIENT LIST take through the sessions,
/// about 0.1 ms.
///
/// Looking at a session is one step of some 20 ns. Asking the kernel for its address takes 16
/// steps, and describing it 64.
pub const WALK_STEPS_PER_TURN: usize = 2 * 1024;

/// Maximum number of steps per turn that commands about the server take, about 0.1 ms. Beyond it,
/// the others wait for the next turn. One command may go beyond it by its own steps.
///
/// A step is about a nanosecond. However many clients ask, the rest waits little longer.
pub const ASKED_MAX: usize = 1 << 17;

/// Steps that one INFO or MEMORY counts as. It takes 0.3 ms at most.
pub const INFO_STEPS: usize = ASKED_MAX;

/// Steps that one CONFIG GET counts as, beside those of its patterns. Writing all settings takes
/// some 50 us.
pub const CONFIG_STEPS: usize = ASKED_MAX / 2;

/// Steps that one CLIENT INFO counts as. It makes several system calls, of 5 us together.
pub const CLIENT_INFO_STEPS: usize = ASKED_MAX / 16;

/// Steps that each line of CLIENT CLOSED counts as. A full list takes a quarter of a millisecond.
pub const CLOSED_LINE_STEPS: usize = 2 * ASKED_MAX / CLOSED_KEPT;

/// Maximum number of waiting commands about the server that are read again in one turn. Few of them
/// fit a turn, and each costs a microsecond to read.
pub const ASKERS_RESUMED: usize = 8;

/// Size of the undelivered messages at which publishes wait, in bytes. One write may carry all of
/// them to a subscriber, so every subscriber must be able to take this much at once.
pub const BACKLOG_MAX: usize = 256 * 1024;

/// Payloads of this many bytes are large. Their receivers share one copy, and each publish to a
/// channel waits for earlier large messages to it. Smaller ones cost less to copy than to share.
pub const LARGE_PAYLOAD: usize = 64 * 1024;

/// Bytes of large messages to a channel that may be undelivered before a publish of a large message
/// to it waits. With one more message, a receiver stays below the output limit.
pub const IN_FLIGHT_MAX: usize = 8 << 20;

/// Publishes of large messages stop waiting for an earlier message if its receivers together take
/// less than one copy of it in this time.
///
/// A receiver that reads all the time takes 8 MiB in less, and one that stalls delays others only
/// for this long.
pub const IN_FLIGHT_TIME: Duration = Duration::from_secs(1);

/// Maximum number of large messages in flight that one turn looks at.
pub const IN_FLIGHT_PER_TURN: usize = 64;

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

/// Maximum number of steps that one publish takes to match its channel's name with the patterns
/// that no index finds, some 0.3 ms. A publish that would take more is refused before the first.
///
/// A name of up to 256 bytes never needs more beside the default number of patterns of up to 63
/// characters; a name of up to 51 bytes never needs more, whatever the patterns are.
pub const PUBLISH_STEPS_MAX: usize = 256 * 1024;

/// Search steps that one step of matching counts as. Then all publishes of a turn match for some
/// 0.3 ms, and one more publish.
pub const MATCH_STEP: usize = 4;

/// Search steps that compiling a pattern counts as. It takes 40 us at worst.
pub const COMPILE_STEPS: usize = 16 * 1024;

/// Maximum number of subscribers that fan-out looks at in one turn, whether or not it delivers to
/// them: half a millisecond.
pub const VISITS_PER_TURN: usize = 64 * 1024;

/// Maximum number of subscribers of one topic that fan-out looks at before it turns to the next
/// topic. A small topic never waits for more than this many subscribers of a large one.
pub const VISITS_PER_QUEUE: usize = 256;

/// Maximum number of free fan-out queues whose memory is kept, so that a publish allocates nothing
/// once warm.
pub const SPARE_QUEUES_MAX: usize = 16;

/// Largest capacity, in bytes, that the outbox keeps for the next turn: a usual turn's output, and
/// as much again.
pub const SPARE_OUTBOX_MAX: usize = 4 * OUTPUT_PER_TURN;

/// Largest capacity, in bytes, that a free queue or message store keeps for the next publish. The
/// memory of a rare large message is freed.
pub const SPARE_MESSAGES_MAX: usize = 64 * 1024;

/// Size of the undelivered messages at which MONITOR skips commands, in bytes. MONITOR applies no
/// backpressure, so its output must not pile up behind a large channel.
pub const MONITOR_BACKLOG_MAX: usize = 4 * BACKLOG_MAX;

/// Size of the lines of MONITOR that are published together, in bytes.
pub const FEED_LINES_MAX: usize = 64 * 1024;

/// Maximum number of waiting publishers that resume in one turn, once there is room again.
pub const RESUMED_PER_TURN: usize = 256;

/// Maximum number of bytes of a client's word that an error message quotes, as in Redis.
pub const SHOWN_MAX: usize = 128;

/// Longest first word of a connection's first line, in bytes. It has room for every command and for
/// every registered method of HTTP, so that a longer word is judged at once.
pub const FIRST_WORD_MAX: usize = 32;

/// Maximum number of bytes of blank lines before a connection's first command. A person may press
/// Enter some times; the signature of PROXY protocol version 2 begins with two blank lines.
pub const LEADING_BLANKS_MAX: usize = 64;

/// Maximum number of results of walks kept until their commands run again. A command whose result
/// was dropped starts a new walk.
pub const WALKS_KEPT: usize = 4;

/// All transactions together may queue one part in this many of the memory budget. Beyond it, the
/// oldest is aborted.
pub const QUEUED_SHARE: usize = 4;

/// Maximum number of commands that all EXECs together run in one turn, about 1 ms.
pub const EXEC_STEPS_PER_TURN: usize = 4096;

/// Longest time for which an EXEC that publishes for several turns keeps others from publishing.
/// One that takes longer lets them publish in between.
pub const EXEC_HOLD_MAX: Duration = Duration::from_millis(100);

/// Size of the replies of one EXEC from which it runs publishes only, in bytes. One reply must not
/// make its client a slow consumer.
pub const EXEC_REPLY_MAX: usize = 512 * 1024;

/// Maximum number of prefixes of one session in CLIENT TRACKING. Clients in practice have a few.
pub const PREFIXES_MAX: usize = 64;

/// Longest prefix in CLIENT TRACKING, in bytes.
pub const PREFIX_MAX: usize = 256;

/// Longest reply to CLIENT LIST and PUBSUB CHANNELS, in bytes. A longer one could make its client a
/// slow consumer.
pub const LIST_MAX: usize = 512 * 1024;

/// Maximum number of search steps that one PUBSUB CHANNELS takes, some 30 ms at worst. With 65,536
/// channels, that is 256 steps for each.
pub const LIST_STEPS_MAX: usize = 16 << 20;

/// Default of `max_patterns`: patterns that an index finds.
pub const PATTERNS: usize = 1 << 16;

/// Default of `max_other_patterns`. A publish looks at each of them for 1 or 2 ns.
pub const OTHER_PATTERNS: usize = 1024;

/// Largest number of patterns that can be configured, in all and for one connection.
pub const PATTERNS_MAX: usize = 1 << 20;

/// Largest number of channels that can be configured.
pub const CHANNELS_MAX: usize = 1 << 28;

/// Number of wrong passwords of one source that are answered in a second. A person types a few; at
/// this rate, a random password of eight letters and digits lasts 50,000 years.
pub const GUESSES_PER_SECOND: u32 = 64;

/// Delays of the answers to the first and to each further wrong password of one connection. Three
/// typing errors cost a person less than half a second. Within `first-message-timeout`, a program
/// has some eight guesses on each connection.
pub const WRONG_DELAYS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(125),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// Places in each table of sources that guess, at 16 bytes each. Sources with the same place share
/// the answers to their wrong passwords; the right password never depends on the table.
pub const GUESS_PLACES: usize = 4096;

/// Maximum number of wrong passwords whose late answers are given in one turn.
pub const ANSWERED_PER_TURN: usize = 256;

/// Largest `max_unauthenticated_per_source`. A wrong password looks for its connection among these.
pub const UNAUTHENTICATED_MAX: usize = 4096;

/// Longest name of a connection or library, in bytes.
pub const LABEL_MAX: usize = 128;

/// Maximum number of different library names and versions remembered at a time, and of different
/// User-Agents. Further texts are accepted and not remembered. A text number is one byte, and 0
/// means no text.
pub const TEXTS_MAX: usize = 255;

/// Maximum number of patterns of one CONFIG GET. Matching one with the names of all settings takes
/// at most a third of a million steps.
pub const PATTERNS_AT_ONCE: usize = 16;

/// Longest reason in an error of CONFIG SET, in bytes. It may quote the client's value.
pub const WHY_MAX: usize = 512;

/// Maximum number of sessions that monitor at a time. Each makes every command more expensive.
pub const MONITORS_MAX: usize = 16;

/// Longest line of MONITOR, in bytes.
pub const MONITOR_LINE_MAX: usize = 4096;

/// Deepest JSON, in levels of arrays and objects, that is taken as JSON. Deeper texts overflow the
/// stacks of careless clients.
pub const JSON_DEPTH_MAX: usize = 64;

/// Maximum number of channels and patterns of one request for server-sent events, or of one message
/// to `/ws`.
pub const NAMES_AT_ONCE_MAX: usize = 1024;

/// Maximum number of patterns among these. Compiling one may take 40 us, and they are not served in
/// slices.
pub const WEB_PATTERNS_MAX: usize = 64;

/// Maximum number of arguments of a Socket.IO event. One event may subscribe to as many channels as
/// one message to `/ws`.
pub const EVENT_ARGUMENTS_MAX: usize = NAMES_AT_ONCE_MAX;

/// Maximum number of attachments of a Socket.IO packet, as in the official server.
pub const ATTACHMENTS_MAX: usize = 10;

/// Time after which a client of server-sent events connects again, in milliseconds.
pub const EVENTS_RETRY: u64 = 2000;

/// Spreads the pings of sessions that began together over an eighth of `ping_interval`: a large odd
/// number, which takes consecutive sessions far apart (Knuth's multiplicative hash).
pub const PING_SPREAD: u32 = 0x9e37_79b1;

/// Interval in which slow consumers that miss messages are looked at, so that they are told how
/// many.
pub const MISSED_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum number of slow consumers told in one turn.
pub const MISSED_PER_TURN: usize = 64;
