//! The limits of the link to a broker: its times, its queue, and the replies that it reads.

use std::time::Duration;

use super::{COUNT_LINE_MAX, MAX_MESSAGE, MAX_MESSAGE_MAX};

/// Longest time to connect to a broker. A server that does not answer within it is as good as down,
/// and another may be tried.
pub const BROKER_CONNECT_TIME: Duration = Duration::from_secs(1);

/// Longest time until the broker replies to a command, or sends anything else meanwhile. A command
/// of another client may keep Redis busy for a second.
pub const BROKER_REPLY_TIME: Duration = Duration::from_secs(4);

/// Shortest wait before the link dials again. Many servers lose the same broker at the same moment.
pub const BROKER_BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest wait before the link dials again. So the link is up within two seconds of the broker.
pub const BROKER_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Time from one probe to the next. The broker gets six small messages a minute from each server.
pub const BROKER_PROBE_EVERY: Duration = Duration::from_secs(10);

/// Time for which a name stays subscribed at the broker after its last subscriber has left. Clients
/// that reload a page cost the broker nothing.
pub const BROKER_LINGER: Duration = Duration::from_secs(5);

/// Maximum number of names in one SUBSCRIBE or UNSUBSCRIBE to the broker. Other clients of the
/// broker wait while it serves one command, for about a tenth of a millisecond.
pub const BROKER_BATCH_NAMES: usize = 512;

/// Size of the names, in bytes, from which such a command takes no further name.
pub const BROKER_BATCH_BYTES: usize = 64 * 1024;

/// While the link restores its subscriptions, it writes no further command once this many bytes
/// wait to be sent.
pub const BROKER_RESTORE_BYTES: usize = 2 * BROKER_BATCH_BYTES;

/// Maximum size of the commands that wait to be sent to the broker, in bytes. Beyond it, publishes
/// are dropped and counted.
pub const BROKER_QUEUE_MAX: usize = 8 << 20;

/// Memory that an empty queue of commands keeps, in bytes.
pub const BROKER_SPARE_QUEUE: usize = 64 * 1024;

/// Maximum number of events of the link that wait to be collected. Beyond it, refusals are only
/// counted.
pub const BROKER_EVENTS_MAX: usize = 64;

/// Maximum number of brokers, or Sentinels of a broker, to fail over to.
pub const BROKER_HOSTS_MAX: usize = 16;

/// Longest name of a host (RFC 1035), in bytes.
pub const HOST_NAME_MAX: usize = 253;

/// Longest prefix of names at the broker, in bytes.
pub const BROKER_PREFIX_MAX: usize = 128;

/// Maximum number of patterns that say which channels are shared. Each publish is compared with
/// them.
pub const BROKER_PATTERNS_MAX: usize = 64;

/// Highest number of a database that a URL may name. Redis has 16 by default.
pub const BROKER_DATABASE_MAX: u32 = 65_535;

/// Longest line of a reply, in bytes with its marker. Errors quote up to 128 bytes of a command.
pub const REPLY_LINE_MAX: usize = 4096;

/// Maximum depth of the aggregates of a reply. The answer to HELLO has four levels.
pub const REPLY_DEPTH_MAX: usize = 8;

/// Maximum number of items of a reply. Each takes 12 bytes.
pub const REPLY_ITEMS_MAX: usize = 16 * 1024;

/// Longest reply that a broker may announce, in bytes: the longest string of Redis, and its names.
/// A longer one can only be an error.
pub const REPLY_MAX: usize = MAX_MESSAGE_MAX + (1 << 20);

const _: () = {
    // A reply is addressed with 32 bits.
    assert!(REPLY_MAX <= u32::MAX as usize);
    assert!(COUNT_LINE_MAX <= REPLY_LINE_MAX);
    assert!(BROKER_BACKOFF_MIN.as_millis() < BROKER_BACKOFF_MAX.as_millis());
    assert!(BROKER_RESTORE_BYTES < BROKER_QUEUE_MAX);
    // A probe must be back before the next one is due.
    assert!(BROKER_REPLY_TIME.as_millis() < BROKER_PROBE_EVERY.as_millis());
};

/// Publishers wait while this many bytes or more wait to be sent to the broker. So a publisher
/// takes the pace of the broker, and nothing is dropped.
pub const BROKER_QUEUE_HIGH: usize = 1 << 20;

const _: () = assert!(BROKER_QUEUE_HIGH < BROKER_QUEUE_MAX);

/// Maximum number of bytes that one turn hands to a connection of the link.
pub const BROKER_WRITE_MAX: usize = 256 * 1024;

/// Replies of the broker that the link reads before the loop looks at its budgets again.
pub const BROKER_READS_PER_CALL: usize = 64;

/// Places in the table of topics that one turn looks at to tell their subscribers of a gap.
pub const GAPS_PER_TURN: usize = 256;

/// Publishes that leave out their sender and have not come back from the broker. Beyond it, a
/// sender gets its own message.
pub const OWN_MESSAGES_MAX: usize = 65_536;

/// Size of the undelivered messages at which further ones from the broker are dropped, in bytes.
/// The link is read whatever waits, and one read may bring several long messages.
pub const BROKER_BACKLOG_MAX: usize = 64 << 20;

const _: () = assert!(BROKER_BACKLOG_MAX >= 4 * MAX_MESSAGE);

/// Longest time until the value of a message that somebody else has published is written to the
/// broker. All servers do so, and each message of the key meanwhile saves a script.
pub const ADOPT_WITHIN: Duration = Duration::from_millis(160);

/// Maximum number of such values that wait, for all channels together, some 5 MB. Those beyond it
/// stay on the servers.
pub const FOREIGN_KEYS_MAX: usize = 16 * 1024;

/// The part of it that a channel has at least.
pub const FOREIGN_KEYS_MIN: usize = 64;

/// Keys heard while values are read back that are remembered, for all channels together, some 5 MB.
/// When more are heard, reading begins anew.
pub const HEARD_KEYS_MAX: usize = 256 * 1024;

/// The part of it that a channel has at least.
pub const HEARD_KEYS_MIN: usize = 1024;

/// Maximum number of values in one script. Other clients of the broker wait while it runs, for some
/// 0.3 ms.
pub const VALUES_BATCH_KEYS: usize = 256;

/// Size of the values, in bytes, from which such a script takes no further one.
pub const VALUES_BATCH_BYTES: usize = 128 * 1024;

/// Number of values that the first script looks at when they are read back. The broker copies all
/// of them, with up to 1 MiB each, and other clients wait meanwhile.
pub const VALUES_READ_FIRST: usize = 16;

/// Maximum number of values that a later one looks at. It is twice that of the script before it if
/// all those values had room in the reply, and half of it otherwise.
pub const VALUES_READ_COUNT: usize = 512;

/// Maximum size of the values that it returns, in bytes. Larger ones are read one by one.
pub const VALUES_READ_BYTES: usize = 256 * 1024;

/// Changes from the time without a link that one turn publishes.
pub const PUSHES_PER_TURN: usize = 64;

/// Such publishes without a reply. The others wait.
pub const PUSHES_UNANSWERED: u32 = 1024;

/// Numbers of writes are below this one: the scripts print larger ones with an exponent. At 1,000
/// writes a second, they last for 3,000 years.
pub const WRITE_NUMBERS: u64 = 100_000_000_000_000;

/// Time after which a hub opens the values of a channel anew, if the broker has refused a script
/// for now: it has no memory left, runs a long script, or cannot write to its disk.
pub const REOPEN_AFTER: Duration = Duration::from_secs(10);

/// Shortest time after which values are read once more when the link is up; the longest is twice
/// that. Messages from before the link was up are at the broker by then.
pub const REREAD_AFTER: Duration = Duration::from_secs(1);

const _: () = {
    assert!(2 * ADOPT_WITHIN.as_millis() < REREAD_AFTER.as_millis());
    // Fields and values are items of a reply.
    assert!(2 * VALUES_READ_COUNT < REPLY_ITEMS_MAX);
};

/// Time after which the log tells again of a host that still fails. A broker that is away for a day
/// writes some 1,400 lines.
pub const LINK_FAILURE_LOG: Duration = Duration::from_secs(60);
