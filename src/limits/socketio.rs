//! Fixed limits of Socket.IO.

use std::time::Duration;

/// Time from the start of an upgrade to WebSocket until its end. Engine.IO has the same.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients that poll and are woken in one turn, at most. Each may be pinged or ended.
pub const POLL_WAKES_PER_TURN: usize = 256;

/// Part of the memory budget that events may hold whose attachments have not all arrived: an
/// eighth. Most memory is for what is read and sent.
pub const PARTIALS_SHARE: usize = 8;

/// Part of the memory budget that output may hold which waits for polls: an eighth.
pub const POLLS_SHARE: usize = 8;

/// Clients that are looked at together, for one with much output, or for one that has not polled
/// for long. As in Redis, a sample finds one that is large or old enough.
pub const POLLS_LOOKED_AT: usize = 64;

/// Clients that are ended in one turn because the output of all holds too much.
pub const POLLS_ENDED_PER_TURN: usize = 16;

/// Complete events that the list of those may have before it is cleared of them.
pub const SPARE_PARTIALS: usize = 64;

/// Rooms of a socket that CLIENT LIST shows.
pub const ROOMS_SHOWN: usize = 8;

/// Packets of one request that are served in one turn. Each costs about a microsecond, so others
/// wait about a millisecond.
pub const PACKETS_PER_TURN: usize = 1000;

/// Messages about sockets that have ended, which wait for the backlog. Beyond it, further ones are
/// dropped and counted. All clients of a server may end at once.
pub const DEPARTURES_MAX: usize = 1 << 16;

/// Longest text that is kept of the `auth` of a socket, for its routes, in bytes.
pub const AUTH_KEPT_MAX: usize = 1024;

/// Shortest time between pings, for their answers, and to connect.
pub const SOCKETIO_TIME_MIN: Duration = Duration::from_millis(50);

/// Maximum number of rooms that an event of a cluster names, and as many exceptions. Each of its
/// receivers is compared with all of them.
pub const CLUSTER_ROOMS_MAX: usize = 1024;
