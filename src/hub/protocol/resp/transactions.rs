//! Transactions: MULTI, EXEC, DISCARD, WATCH and UNWATCH.
//!
//! Between MULTI and EXEC, the commands of a session are checked and queued. EXEC runs them one
//! after the other and replies with one array. Its publishes reach each subscriber in order, and no
//! other session publishes between them. An EXEC that takes long pauses until a later turn: it
//! keeps its replies so far, and the client's EXEC is read again.

use std::collections::BTreeMap;

use super::rows::{self, CommandRow, DENY_BLOCKING, PUBLISHES, SEARCHES, SUBSCRIBED};
use super::{Call, MUTE, RespState};
use crate::clock::Tick;
use crate::codec::resp::{self, Command, CommandLimits, Parser};
use crate::hub::Shared;
use crate::hub::sessions::SessionId;
use crate::limits::{EXEC_HOLD_MAX, EXEC_REPLY_MAX, EXEC_STEPS_PER_TURN, QUEUED_SHARE};
use crate::service::Output;

/// The limits of a queued command. Those of its session were checked when it came.
const QUEUED_LIMITS: CommandLimits =
    CommandLimits { arguments_max: usize::MAX, bytes_max: usize::MAX, inline_max: 0 };

const ABORTED: &[u8] = b"EXECABORT Transaction discarded because of previous errors.";
const OUT_OF_MEMORY: &[u8] =
    b"EXECABORT Transaction discarded because all transactions together queue too many bytes.";

/// The transactions of all sessions that have sent MULTI.
#[derive(Default)]
pub struct Transactions {
    /// By slot of the session.
    open: BTreeMap<u32, Transaction>,
    /// Transactions with queued commands: their age, and the slot of the session. When all together
    /// queue too much, the oldest is aborted.
    by_age: BTreeMap<u64, u32>,
    /// Number of transactions so far.
    seen: u64,
    /// Memory of the queues and of kept replies, in bytes.
    held: usize,
    /// The session whose EXEC has paused between its publishes, and when it began. All other
    /// publishes wait, for at most [`EXEC_HOLD_MAX`].
    holder: Option<(SessionId, Tick)>,
    /// Commands run by EXEC in this turn.
    steps: usize,
    parser: Parser,
}

/// The transaction of one session.
struct Transaction {
    age: u64,
    /// The queued commands, each as a multibulk command.
    queue: Vec<u8>,
    /// The row of each queued command.
    rows: Vec<&'static CommandRow>,
    /// The flags of all queued commands.
    flags: u16,
    /// Why EXEC will be refused, if it will.
    aborted: Option<&'static [u8]>,
    /// Once EXEC has begun: what it has done so far.
    begun: Option<Begun>,
}

/// An EXEC that has begun.
struct Begun {
    since: Tick,
    /// Number of bytes of the queue that have run.
    at: usize,
    /// Number of commands that have run.
    count: usize,
    /// The replies while EXEC pauses.
    reply: Vec<u8>,
}

impl Transaction {
    /// Memory of a transaction without its queue, with its entries in the two trees.
    const BYTES: usize = size_of::<Transaction>() + 2 * size_of::<u32>() + size_of::<u64>();

    /// Returns the memory of the queue and of the kept replies, in bytes.
    fn bytes(&self) -> usize {
        let begun = self.begun.as_ref();
        let rows = self.rows.capacity() * size_of::<&CommandRow>();
        self.queue.capacity() + rows + begun.map_or(0, |begun| begun.reply.capacity())
    }

    /// Makes EXEC fail, and frees the queue.
    fn abort(&mut self, why: &'static [u8]) {
        self.aborted = Some(why);
        (self.queue, self.rows) = (Vec::new(), Vec::new());
    }
}

impl Transactions {
    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.held + self.open.len() * Transaction::BYTES + self.parser.bytes()
    }

    /// Returns true if an EXEC has paused between its publishes.
    pub fn has_holder(&self) -> bool {
        self.holder.is_some()
    }

    /// Returns true if the publishes of a session wait for the EXEC of another.
    pub fn holds_up(&self, session: SessionId) -> bool {
        self.holder.is_some_and(|(holder, _)| holder != session)
    }

    /// Resumes the EXEC that has paused between its publishes. It waits like others once it has
    /// held these up for too long: its client may not read, and then its session is not served.
    pub fn collect(&mut self, shared: &mut Shared, output: &mut Output<'_>) {
        self.steps = 0;
        let Some((holder, since)) = self.holder else { return };
        if has_held_too_long(since, output.now.tick()) {
            self.holder = None;
            shared.publishers.must_wait(&mut shared.sessions, holder, true);
        } else if !shared.fanout.is_backlogged() {
            let connection = shared.sessions.get(holder).connection();
            connection.into_iter().for_each(|connection| output.resume(connection));
        }
    }

    /// Drops the transaction of a session: it has ended, or sends RESET or DISCARD.
    pub fn close(&mut self, session: SessionId) {
        self.take(session);
        self.release(session);
    }

    /// Lets other sessions publish again.
    pub fn release(&mut self, session: SessionId) {
        self.holder = self.holder.filter(|(holder, _)| *holder != session);
    }

    /// Returns the number of queued commands, or `None` if the session has sent no MULTI.
    pub fn count(&self, session: SessionId) -> Option<usize> {
        self.open.get(&session.index).map(|own| own.rows.len())
    }

    /// Returns the slots of the sessions with a transaction.
    pub fn sessions(&self) -> impl Iterator<Item = u32> {
        self.open.keys().copied()
    }

    fn take(&mut self, session: SessionId) -> Option<Transaction> {
        let own = self.open.remove(&session.index)?;
        self.held -= own.bytes();
        self.by_age.remove(&own.age);
        Some(own)
    }

    fn put(&mut self, session: SessionId, own: Transaction) {
        self.held += own.bytes();
        if !own.queue.is_empty() {
            self.by_age.insert(own.age, session.index);
        }
        self.open.insert(session.index, own);
    }

    /// Panics if the counts do not match the transactions. For tests.
    pub fn check_invariants(&self) {
        let held: usize = self.open.values().map(Transaction::bytes).sum();
        assert_eq!(self.held, held, "the bytes of the transactions are counted wrong");
        let queues = self.open.values().filter(|own| !own.queue.is_empty()).count();
        assert_eq!(self.by_age.len(), queues, "the ages and the queues disagree");
        assert!(
            self.by_age.iter().all(|(age, index)| self.open[index].age == *age),
            "a transaction has two ages"
        );
    }
}

pub fn multi(_shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    let Transactions { open, seen, .. } = call.transactions;
    if open.contains_key(&call.session.index) {
        return call.error("ERR MULTI calls can not be nested");
    }
    *seen += 1;
    let (age, queue, rows) = (*seen, Vec::new(), Vec::new());
    let own = Transaction { age, queue, rows, flags: 0, aborted: None, begun: None };
    call.transactions.put(call.session, own);
    resp::simple(call.out(), "OK");
}

pub fn discard(_shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    match call.transactions.take(call.session) {
        Some(_) => resp::simple(call.out(), "OK"),
        None => call.error("ERR DISCARD without MULTI"),
    }
}

/// There are no keys, so none can change before EXEC.
pub fn watch(_shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    match call.transactions.count(call.session) {
        Some(_) => call.error("ERR WATCH inside MULTI is not allowed"),
        None => resp::simple(call.out(), "OK"),
    }
}

pub fn unwatch(_shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    resp::simple(call.out(), "OK");
}

/// Queues a command that has been checked. If the session or all sessions together queue too much,
/// EXEC will be refused.
pub fn queue(
    shared: &Shared,
    row: &'static CommandRow,
    words: Command<'_>,
    call: &mut Call<'_, '_>,
) {
    let limits = call.server.limits();
    let most = limits.memory_budget / QUEUED_SHARE;
    // A growing queue may have twice the capacity that it needs.
    let own_most = limits.max_message.min(most / 2);
    let Some(mut own) = call.transactions.take(call.session) else { return };
    if own.aborted.is_none() {
        resp::array(&mut own.queue, words.len());
        words.iter().for_each(|word| resp::bulk(&mut own.queue, word));
        if own.queue.len() > own_most {
            call.error(&format!(
                "ERR the transaction has {} bytes; accepted: up to {own_most} bytes \
                 (--max-message)",
                own.queue.len()
            ));
            own.abort(ABORTED);
            return call.transactions.put(call.session, own);
        }
        own.rows.push(row);
        own.flags |= row.flags;
    }
    call.transactions.put(call.session, own);
    call.transactions.make_room(shared, most, call.session);
    resp::simple(call.out(), "QUEUED");
}

impl Transactions {
    /// Aborts the oldest transactions that have not begun, until all together hold at most `most`
    /// bytes. The caller's is the last to go.
    fn make_room(&mut self, shared: &Shared, most: usize, caller: SessionId) {
        while self.held > most {
            let waits = |index: &u32| *index != caller.index && self.open[index].begun.is_none();
            let index = self.by_age.values().copied().find(waits).unwrap_or(caller.index);
            let session = shared.sessions.at(index);
            let Some(mut own) = self.take(session) else { return };
            own.abort(OUT_OF_MEMORY);
            self.put(session, own);
            if session == caller {
                return;
            }
        }
    }
}

/// Notes that a command was refused before it could be queued: EXEC will fail. A refused EXEC
/// discards the transaction, and says so. The error starts at `start` of the reply.
pub fn refused(is_exec: bool, start: usize, call: &mut Call<'_, '_>) {
    let own = call.transactions.take(call.session);
    if is_exec {
        let error = call.reply.bytes()[start..].to_vec();
        let why = error.strip_prefix(b"-").unwrap_or(&error);
        let why = why.strip_prefix(b"ERR ").unwrap_or(why);
        call.reply.truncate(start);
        call.reply.send(b"-EXECABORT Transaction discarded because of: ");
        call.reply.send(why);
    } else if let Some(mut own) = own {
        own.abort(ABORTED);
        call.transactions.put(call.session, own);
    }
}

pub fn exec(shared: &mut Shared, _words: Command<'_>, call: &mut Call<'_, '_>) {
    let Some(mut own) = call.transactions.take(call.session) else {
        return call.error("ERR EXEC without MULTI");
    };
    if let Some(why) = own.aborted {
        return resp::error(call.out(), why);
    }
    let flags = own.begun.as_ref().map_or(own.flags, |begun| own.rows[begun.count].flags);
    if must_wait(shared, flags, call) {
        call.transactions.put(call.session, own);
        return call.wait();
    }
    let mut begun = own.begun.take().unwrap_or_else(|| {
        let mut reply = Vec::new();
        resp::array(&mut reply, own.rows.len());
        Begun { since: call.reply.now.tick(), at: 0, count: 0, reply }
    });
    let is_new = begun.at == 0;
    call.reply.send(&std::mem::take(&mut begun.reply));
    if is_new {
        drop_if_muted(shared, 0, call);
    }
    // A queued command is served at once, not in slices.
    call.length = 0;
    // Messages for the session itself, because no message may stand inside the array.
    let mut messages = Vec::new();
    let mut parser = std::mem::take(&mut call.transactions.parser);
    run_queue(shared, &own, &mut begun, &mut messages, &mut parser, call);
    parser.release();
    call.transactions.parser = parser;
    if call.waits {
        begun.reply = call.reply.bytes().to_vec();
        own.begun = Some(begun);
        call.transactions.put(call.session, own);
        // The replies follow later, and further messages must not overtake these.
        call.reply.truncate(0);
    } else {
        call.transactions.release(call.session);
    }
    call.reply.send(&messages);
    call.keep();
}

/// Returns true if EXEC must wait before it begins or goes on with a command of these flags.
fn must_wait(shared: &mut Shared, flags: u16, call: &Call<'_, '_>) -> bool {
    let is_spent = call.transactions.steps >= EXEC_STEPS_PER_TURN;
    match call.transactions.holder.is_some_and(|(holder, _)| holder == call.session) {
        // `Transactions::collect` has resumed it.
        true => is_spent || shared.fanout.is_backlogged(),
        false => rows::must_wait(shared, flags, is_spent, call),
    }
}

/// Runs the rest of the queue, or pauses.
fn run_queue(
    shared: &mut Shared,
    own: &Transaction,
    begun: &mut Begun,
    messages: &mut Vec<u8>,
    parser: &mut Parser,
    call: &mut Call<'_, '_>,
) {
    let mut is_first = true;
    // The replies that all paused transactions keep have a bound together, too.
    let left = call.server.limits().memory_budget / QUEUED_SHARE;
    let reply_max = EXEC_REPLY_MAX.min(left.saturating_sub(call.transactions.held));
    for row in &own.rows[begun.count..] {
        let parsed = parser.parse_multibulk(&own.queue[begun.at..], &QUEUED_LIMITS);
        let Ok(Some((words, length))) = parsed else { return };
        if !is_first && pauses(shared, own, row.flags, begun.since, call) {
            return call.wait();
        }
        is_first = false;
        if rows::must_pace(shared, row, words, call.session) {
            call.transactions.release(call.session);
            return call.wait();
        }
        let start = call.reply.len();
        if row.flags & SUBSCRIBED != 0 {
            shared.deliver_now(call.session, messages);
        }
        if row.flags & DENY_BLOCKING != 0 {
            let name = row.name.to_ascii_uppercase();
            call.error(&format!("ERR {name} isn't allowed for a DENY BLOCKING client"));
        } else if start > reply_max && row.flags & PUBLISHES == 0 {
            call.error("ERR the replies of the transaction are too long; the command was not run");
        } else {
            rows::perform(shared, row, words, call);
        }
        if call.waits {
            return call.reply.truncate(start);
        }
        drop_if_muted(shared, start, call);
        begun.at += length;
        begun.count += 1;
        call.transactions.steps += 1;
        // A transaction that closes its own connection ends there.
        if call.reply.closes_for().is_some() {
            return;
        }
    }
}

/// Returns true if EXEC pauses before a command of the flags `next`. Between publishes, it keeps
/// other sessions from publishing, for a bounded time.
fn pauses(
    shared: &mut Shared,
    own: &Transaction,
    next: u16,
    since: Tick,
    call: &mut Call<'_, '_>,
) -> bool {
    let is_spent = call.transactions.steps >= EXEC_STEPS_PER_TURN;
    let is_busy = match next & (PUBLISHES | SEARCHES) {
        0 => false,
        SEARCHES => shared.has_asked_enough(),
        _ => shared.fanout.is_backlogged(),
    };
    if !is_spent && !is_busy {
        return false;
    }
    let holds = own.flags & PUBLISHES != 0 && next & SEARCHES == 0;
    let may_hold = !has_held_too_long(since, call.reply.now.tick());
    if holds && may_hold && !call.transactions.holds_up(call.session) {
        call.transactions.holder = Some((call.session, since));
        return true;
    }
    call.transactions.release(call.session);
    rows::must_wait(shared, next, true, call)
}

/// Returns true if an EXEC that began at `since` may not keep other sessions from publishing.
fn has_held_too_long(since: Tick, now: Tick) -> bool {
    Tick::LENGTH * now.distance_from(since).max(0) as u32 >= EXEC_HOLD_MAX
}

/// Removes the reply from `start` on if the client has turned replies off, and keeps the rest.
fn drop_if_muted(shared: &Shared, start: usize, call: &mut Call<'_, '_>) {
    if call.muted || RespState::of(&shared.sessions.get(call.session)).flags & MUTE != 0 {
        call.reply.truncate(start.max(call.kept));
    }
    call.keep();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::hub::Hub;
    use crate::hub::channels::Kind;
    use crate::hub::tests::{disconnect, exchange, hub, subscribe, turn};
    use crate::limits::{BACKLOG_MAX, Limits, WALK_STEPS_PER_TURN};
    use crate::outbox::Outbox;
    use crate::service::server::NoServer;
    use crate::service::{ConnectionId, Output, Reply, Service, Taken};
    use std::time::Duration;

    /// Sends commands on connection 0, each as a line. Returns all replies.
    fn replies(hub: &mut Hub, lines: &[&str]) -> String {
        let send = |line: &&str| exchange(hub, 0, format!("{line}\r\n").as_bytes()).0;
        let replies: Vec<u8> = lines.iter().flat_map(send).collect();
        hub.check_invariants();
        String::from_utf8(replies).unwrap()
    }

    /// Sends EXEC on a connection and runs turns until it is done. Returns the replies and the
    /// number of turns it waited.
    fn exec_over_turns(hub: &mut Hub, connection: u32) -> (String, usize) {
        for turns in 0.. {
            let (reply, taken) = exchange(hub, connection, b"EXEC\r\n");
            hub.check_invariants();
            if taken != Taken::Later {
                return (String::from_utf8(reply).unwrap(), turns);
            }
            turn(hub, 1 << 20, 1 << 30);
        }
        unreachable!()
    }

    /// Redis 7.0.15 gave these replies.
    #[test]
    fn a_transaction_has_the_replies_of_redis() {
        let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
        for (lines, expected) in [
            (&["MULTI", "PUBLISH a 1", "PING x", "EXEC"][..], "*2\r\n:0\r\n$1\r\nx\r\n"),
            (&["MULTI", "EXEC"], "*0\r\n"),
            (&["MULTI", "PING", "DISCARD"], "+OK\r\n"),
            (&["EXEC"], "-ERR EXEC without MULTI\r\n"),
            (&["DISCARD"], "-ERR DISCARD without MULTI\r\n"),
            (&["MULTI", "PING", "DISCARD", "EXEC"], "-ERR EXEC without MULTI\r\n"),
            (&["MULTI", "MULTI"], "-ERR MULTI calls can not be nested\r\n"),
            (&["MULTI", "WATCH k"], "-ERR WATCH inside MULTI is not allowed\r\n"),
            (&["MULTI", "MULTI", "WATCH k", "PING", "EXEC"], "*1\r\n+PONG\r\n"),
            (&["WATCH k l", "MULTI", "UNWATCH", "EXEC"], "*1\r\n+OK\r\n"),
            (&["MULTI", "NOSUCH", "PING", "EXEC"], aborted),
            (&["MULTI", "PUBLISH a", "EXEC"], aborted),
            (&["MULTI", "CLIENT NOSUCH", "EXEC"], aborted),
            (&["MULTI", "CLIENT ID x", "EXEC"], aborted),
            (&["MULTI", "CONFIG GET", "EXEC"], aborted),
            (&["MULTI", "WATCH", "EXEC"], aborted),
            (&["MULTI", "DISCARD x", "EXEC"], aborted),
            (&["MULTI", "MULTI x", "EXEC"], aborted),
            (&["MULTI", "SHUTDOWN"], "-ERR Command not allowed inside a transaction\r\n"),
            (&["MULTI", "SHUTDOWN", "EXEC"], aborted),
            (&["MULTI", "ECHO", "DISCARD", "MULTI", "PING", "EXEC"], "*1\r\n+PONG\r\n"),
            (
                &["MULTI", "EXEC x"],
                "-EXECABORT Transaction discarded because of: wrong number of arguments for \
                 'exec' command\r\n",
            ),
            (&["MULTI", "PING", "EXEC x", "EXEC"], "-ERR EXEC without MULTI\r\n"),
            (&["MULTI", "PING", "RESET"], "+RESET\r\n"),
            (&["MULTI", "PING", "RESET", "EXEC"], "-ERR EXEC without MULTI\r\n"),
            (&["MULTI", "PING", "QUIT"], "+OK\r\n"),
            (
                &["MULTI", "SUBSCRIBE a", "PING", "UNSUBSCRIBE", "PING", "EXEC"],
                "*4\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n\
                 *3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n+PONG\r\n",
            ),
            (
                &["MULTI", "MONITOR", "PING", "EXEC"],
                "*2\r\n-ERR MONITOR isn't allowed for a DENY BLOCKING client\r\n+PONG\r\n",
            ),
            (
                &["MULTI", "SELECT 99", "PING", "EXEC"],
                "*2\r\n-ERR DB index is out of range\r\n+PONG\r\n",
            ),
            (&["MULTI", "PING", "CLIENT REPLY OFF", "PING", "EXEC"], "*3\r\n+PONG\r\n"),
            (&["MULTI", "PING", "CLIENT REPLY SKIP", "PING", "EXEC"], "*3\r\n+PONG\r\n+PONG\r\n"),
            (&["MULTI", "CLIENT REPLY SKIP", "EXEC", "PING"], ""),
            (
                &["CLIENT REPLY OFF", "MULTI", "PING", "CLIENT REPLY ON", "PING", "EXEC"],
                "+OK\r\n+PONG\r\n",
            ),
            (&["MULTI", "PING", "CLIENT REPLY OFF", "EXEC", "PING"], ""),
        ] {
            let mut hub = hub(1);
            let (last, first) = lines.split_last().unwrap();
            let before = replies(&mut hub, first);
            assert_eq!(replies(&mut hub, &[*last]), expected, "{lines:?} after {before}");
        }
    }

    #[test]
    fn the_hub_publishes_at_exec_and_not_before() {
        let mut hub = hub(2);
        subscribe(&mut hub, 1, Kind::Channel, b"a");
        replies(&mut hub, &["MULTI", "PUBLISH a 1", "PUBLISH a 2"]);
        assert!(turn(&mut hub, 10, 1 << 20).is_empty());
        replies(&mut hub, &["NOSUCH", "EXEC", "MULTI", "PUBLISH a 3", "DISCARD", "PING"]);
        assert!(
            turn(&mut hub, 10, 1 << 20).is_empty(),
            "aborted and discarded commands do not run"
        );
        let lines = ["MULTI", "PUBLISH a 4", "PUBLISH a 5", "EXEC"];
        assert_eq!(replies(&mut hub, &lines), "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:1\r\n");
        let message = |text| format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n{text}\r\n");
        let delivered = turn(&mut hub, 10, 1 << 20);
        assert_eq!(delivered, [(1, (message(4) + &message(5)).into_bytes())]);
    }

    /// Redis 7.2 has this order. Redis 7.0 puts the message inside the array.
    #[test]
    fn a_message_to_the_session_itself_follows_the_replies_of_exec() {
        let mut hub = hub(1);
        replies(&mut hub, &["MULTI", "SUBSCRIBE a", "PUBLISH a 1", "UNSUBSCRIBE a"]);
        assert_eq!(
            replies(&mut hub, &["EXEC"]),
            "*3\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n:1\r\n\
             *3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n\
             *3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n1\r\n"
        );
        assert!(turn(&mut hub, 10, 1 << 20).is_empty());
    }

    #[test]
    fn an_exec_that_publishes_waits_while_the_backlog_is_full_and_publishes_once() {
        let mut hub = hub(3);
        subscribe(&mut hub, 1, Kind::Channel, b"a");
        replies(&mut hub, &["MULTI", "PUBLISH a 1", "PUBLISH a 2"]);
        hub.shared.publish(b"a", &vec![b'x'; BACKLOG_MAX]).ok();
        for _ in 0..3 {
            assert_eq!(exchange(&mut hub, 0, b"EXEC\r\n"), (Vec::new(), Taken::Later));
        }
        turn(&mut hub, 10, 1 << 20);
        assert_eq!(exec_over_turns(&mut hub, 0).0, "*2\r\n:1\r\n:1\r\n");
        let delivered = turn(&mut hub, 10, 1 << 20);
        assert_eq!(String::from_utf8_lossy(&delivered[0].1).matches("message").count(), 2);
        // Others may publish again.
        assert_eq!(exchange(&mut hub, 2, b"PUBLISH a 3\r\n").0, b":1\r\n");
    }

    /// A large EXEC takes several turns. Nobody publishes between its messages.
    #[test]
    fn a_large_exec_pauses_and_stays_in_one_piece() {
        let mut hub = hub(3);
        subscribe(&mut hub, 1, Kind::Channel, b"a");
        let count = 2 * EXEC_STEPS_PER_TURN + 10;
        replies(&mut hub, &["MULTI"]);
        (0..count)
            .for_each(|n| drop(exchange(&mut hub, 0, format!("PUBLISH a {n}\r\n").as_bytes())));
        let (mut delivered, mut turns) = (Vec::new(), 0);
        let answer = loop {
            let (answer, taken) = exchange(&mut hub, 0, b"EXEC\r\n");
            if taken != Taken::Later {
                break answer;
            }
            assert_eq!(exchange(&mut hub, 2, b"PUBLISH a other\r\n").1, Taken::Later);
            delivered.extend(turn(&mut hub, 1 << 20, 1 << 30));
            turns += 1;
        };
        assert_eq!((turns, answer.len()), (2, format!("*{count}\r\n").len() + 4 * count));
        let publish = |hub: &mut Hub| exchange(hub, 2, b"PUBLISH a other\r\n").1;
        if publish(&mut hub) == Taken::Later {
            delivered.extend(turn(&mut hub, 1 << 20, 1 << 30));
            assert_ne!(publish(&mut hub), Taken::Later);
        }
        delivered.extend(turn(&mut hub, 1 << 20, 1 << 30));
        let text: Vec<u8> = delivered.into_iter().flat_map(|(_, bytes)| bytes).collect();
        let text = String::from_utf8(text).unwrap();
        let payloads: Vec<&str> = text.split("\r\n").skip(6).step_by(7).collect();
        let expected = (0..count).map(|n| n.to_string()).chain(["other".to_string()]);
        assert!(payloads.into_iter().eq(expected.collect::<Vec<_>>().iter().map(String::as_str)));
    }

    #[test]
    fn a_long_exec_lets_others_publish_in_between() {
        let mut hub = hub(3);
        subscribe(&mut hub, 1, Kind::Channel, b"a");
        replies(&mut hub, &["MULTI"]);
        let publish = format!("PUBLISH a {}\r\n", "x".repeat(BACKLOG_MAX / 2));
        (0..20).for_each(|_| drop(exchange(&mut hub, 0, &multibulk(&publish))));
        let at = |hub: &mut Hub, connection, command: &[u8], milliseconds: u64| {
            let now = Time::ZERO + std::time::Duration::from_millis(milliseconds);
            let mut answer = Vec::new();
            let mut reply = Reply::to(ConnectionId(connection), now, &mut answer);
            hub.receive(&mut command.to_vec(), 0, &mut reply, &mut NoServer::default())
        };
        assert_eq!(at(&mut hub, 0, b"EXEC\r\n", 0), Taken::Later);
        assert_eq!(at(&mut hub, 2, b"PUBLISH a x\r\n", 0), Taken::Later);
        turn(&mut hub, 1 << 20, 1 << 30);
        // The clock of this hub runs 40 ms in each turn.
        let mut between = None;
        for turns in 1.. {
            if between.is_none() && at(&mut hub, 2, b"PUBLISH a x\r\n", 40 * turns) != Taken::Later
            {
                between = Some(turns);
            }
            if at(&mut hub, 0, b"EXEC\r\n", 40 * turns) != Taken::Later {
                break;
            }
            turn(&mut hub, 1 << 20, 1 << 30);
        }
        assert!((3..9).contains(&between.expect("the other publish ran first")), "{between:?}");
    }

    fn multibulk(line: &str) -> Vec<u8> {
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let mut out = Vec::new();
        resp::array(&mut out, words.len());
        words.iter().for_each(|word| resp::bulk(&mut out, word.as_bytes()));
        out
    }

    #[test]
    fn a_walk_inside_exec_takes_its_turns_and_nothing_runs_twice() {
        let mut hub = hub(WALK_STEPS_PER_TURN as u32 + 10);
        subscribe(&mut hub, 1, Kind::Channel, b"a");
        let lines = [
            "MULTI",
            "PUBLISH a 1",
            "CLIENT KILL ID 9999999",
            "PUBLISH a 2",
            "CLIENT KILL ID 8888888",
        ];
        replies(&mut hub, &lines);
        let (reply, turns) = exec_over_turns(&mut hub, 0);
        assert_eq!(reply, "*4\r\n:1\r\n:0\r\n:1\r\n:0\r\n");
        assert!(turns > 1, "{turns}");
        assert_eq!(hub.shared.fanout.published, 2);
    }

    #[test]
    fn a_session_that_ends_leaves_no_transaction() {
        let mut hub = hub(4);
        subscribe(&mut hub, 3, Kind::Channel, b"a");
        let before = hub.bytes();
        // One ends while it queues, one while its EXEC waits, one while its EXEC has paused.
        replies(&mut hub, &["MULTI"]);
        (0..EXEC_STEPS_PER_TURN + 1).for_each(|_| drop(replies(&mut hub, &["PUBLISH a 1"])));
        for connection in [1, 2] {
            exchange(&mut hub, connection, b"MULTI\r\n");
            exchange(&mut hub, connection, b"PUBLISH a 1\r\n");
        }
        assert!(hub.bytes() > before + 20 * EXEC_STEPS_PER_TURN, "the queue is counted");
        assert_eq!(exchange(&mut hub, 0, b"EXEC\r\n").1, Taken::Later);
        assert_eq!(exchange(&mut hub, 1, b"EXEC\r\n").1, Taken::Later);
        assert!(hub.protocols.resp.transactions.has_holder());
        for connection in [2, 1, 0] {
            disconnect(&mut hub, connection);
            hub.check_invariants();
        }
        assert!(!hub.protocols.resp.transactions.has_holder());
        assert_eq!(
            hub.protocols.resp.transactions.bytes()
                - hub.protocols.resp.transactions.parser.bytes(),
            0
        );
    }

    /// Queues an ECHO of this many bytes on a connection of a server with a small budget.
    fn queue_bytes(hub: &mut Hub, connection: u32, bytes: usize, budget: usize) -> String {
        let limits = Limits { memory_budget: budget, ..Limits::default() };
        let mut server = NoServer { limits, ..NoServer::default() };
        let mut answer = Vec::new();
        let mut reply = Reply::to(ConnectionId(connection), Time::ZERO, &mut answer);
        // *2 $4 ECHO $NNNN and the text, each with its line break.
        let text = "x".repeat(bytes - 4 - 10 - 7 - 2);
        hub.receive(&mut multibulk(&format!("ECHO {text}")), 0, &mut reply, &mut server);
        hub.check_invariants();
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn an_exec_whose_client_does_not_read_holds_others_up_for_a_bounded_time() {
        let mut hub = hub(2);
        subscribe(&mut hub, 1, Kind::Channel, b"a");
        let text = "x".repeat(BACKLOG_MAX / 2);
        let publish = format!("PUBLISH a {text}\r\n").into_bytes();
        exchange(&mut hub, 0, b"MULTI\r\n");
        // An inline command has 64 KiB, and this one has more.
        let publish = multibulk(std::str::from_utf8(&publish).unwrap().trim_end());
        (0..4).for_each(|_| drop(exchange(&mut hub, 0, &publish)));
        assert_eq!(exchange(&mut hub, 0, b"EXEC\r\n").1, Taken::Later);
        let collect = |hub: &mut Hub, after: Duration| {
            let (mut outbox, mut server) = (Outbox::default(), NoServer::default());
            let now = Time::ZERO + after;
            hub.collect(&mut Output::new(now, &mut server, &mut outbox, 1 << 20, 1 << 30));
            hub.check_invariants();
            hub.protocols.resp.holds_publishers()
        };
        assert!(collect(&mut hub, EXEC_HOLD_MAX - 2 * Tick::LENGTH));
        assert!(!collect(&mut hub, EXEC_HOLD_MAX + Tick::LENGTH));
        let (told, _) = exec_over_turns(&mut hub, 0);
        assert_eq!(told, "*4\r\n:1\r\n:1\r\n:1\r\n:1\r\n");
    }

    #[test]
    fn a_transaction_one_byte_too_large_is_aborted() {
        let budget = 64 * 1024;
        let most = budget / QUEUED_SHARE / 2;
        for (bytes, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
            let mut hub = hub(1);
            replies(&mut hub, &["MULTI"]);
            let error = format!(
                "-ERR the transaction has {bytes} bytes; accepted: up to {most} bytes \
                 (--max-message)\r\n"
            );
            let expected = if fits { "+QUEUED\r\n" } else { &error };
            assert_eq!(queue_bytes(&mut hub, 0, bytes, budget), expected);
            assert_eq!(replies(&mut hub, &["EXEC"]).starts_with("-EXECABORT"), !fits, "{bytes}");
        }
    }

    #[test]
    fn the_oldest_is_aborted_when_all_queue_too_much() {
        let (mut hub, budget) = (hub(9), 64 * 1024);
        for connection in 0..9 {
            exchange(&mut hub, connection, b"MULTI\r\n");
            assert_eq!(queue_bytes(&mut hub, connection, 4000, budget), "+QUEUED\r\n");
        }
        let aborted = |hub: &mut Hub, c| exchange(hub, c, b"EXEC\r\n").0.starts_with(b"-EXECABORT");
        let all: Vec<bool> = (0..9).map(|connection| aborted(&mut hub, connection)).collect();
        assert_eq!(all, [true, true, true, true, true, false, false, false, false]);
    }

    #[test]
    fn long_replies_stop_all_commands_but_publishes() {
        let mut hub = hub(2);
        subscribe(&mut hub, 1, Kind::Channel, b"a");
        replies(&mut hub, &["MULTI"]);
        let echo = format!("ECHO {}", "x".repeat(5000));
        (0..300).for_each(|_| drop(replies(&mut hub, &[&echo, "PUBLISH a 1"])));
        let (reply, _) = exec_over_turns(&mut hub, 0);
        assert_eq!(hub.shared.fanout.published, 300);
        assert_eq!(reply.matches("\r\n:1\r\n").count(), 300, "each publish has its reply");
        assert!(reply.contains("-ERR the replies of the transaction are too long"));
        assert!(reply.len() < EXEC_REPLY_MAX + 50_000, "{}", reply.len());
    }
}
