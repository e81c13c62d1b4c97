//! Scenarios written by hand, each named after what it shows.

use super::Step::{self, *};
use super::{Answer, Scenario};

/// A listener, and one stream accepted of it, with nothing pending.
const OPEN: &[Step] = &[Listen(8), Connect(0), Poll, Accept(0), Poll];

/// The same, watched for room too.
const WATCHED: &[Step] = &[Listen(8), Connect(0), Poll, Accept(0), Watch(0), Poll];

/// A stream that takes no more.
const FULL: &[Step] = &[Listen(8), Connect(0), Accept(0), Watch(0), Poll, Fill(0), Write(0, 1), Poll];

const LISTENING: &[Step] = &[Listen(8)];

/// A table: name, steps before those that matter, and those. In braces, which the formatter leaves as they are.
macro_rules! scenarios {
    ($($name:literal: $before:expr, $($step:expr),*;)*) => { vec![$(($name, $before as &[Step], &[$($step),*] as &[Step])),*] };
}

pub fn scenarios() -> Vec<Scenario> {
    let parts = [accepting(), reading(), writing(), ending(), resetting(), dialling(), datagrams()];
    named(parts.concat())
}

/// Those that use up the files of the process.
pub fn without_files() -> Vec<Scenario> {
    named(scenarios! {
        "without a free file accept fails, even with an empty queue": LISTENING,
            LeaveFiles(0), Accept(0), Poll, Accept(0);
        "who waits while files are short is announced once, and a freed file raises no edge": OPEN,
            Connect(0), Connect(0), LeaveFiles(0), Poll, Accept(0), Poll, Queue(0), Close(0), Poll, Accept(0),
            Poll, Accept(0), Poll;
        "one who comes while files are short is announced, and shedding needs no free file": OPEN,
            Connect(0), Connect(0), LeaveFiles(0), Poll, Shed(0), Take(1), Accept(0), Close(0), Accept(0),
            Send(2, 5), Poll, Read(1, 9);
        "without a free file nothing is dialled, bound or listened on": LISTENING,
            LeaveFiles(0), Listen(8), Bind("127.0.0.1:0"), Poll;
    })
}

fn named(all: Vec<(&str, &[Step], &[Step])>) -> Vec<Scenario> {
    all.into_iter()
        .map(|(name, before, steps)| Scenario { name: name.into(), steps: [before, steps].concat() })
        .collect()
}

type Written = (&'static str, &'static [Step], &'static [Step]);

fn accepting() -> Vec<Written> {
    scenarios! {
        "a listener with nobody is silent": LISTENING,
            Poll, Accept(0), Queue(0), Poll;
        "those who wait are announced once": LISTENING,
            Connect(0), Connect(0), Poll, Poll, Queue(0), Accept(0), Poll, Accept(0), Accept(0);
        "one who comes later is news, though others wait": LISTENING,
            Connect(0), Poll, Connect(0), Poll, Accept(0), Accept(0), Accept(0), Poll;
        "who was accepted before the poll is no news": LISTENING,
            Connect(0), Accept(0), Poll;
        "an accept queue takes one more than its backlog": &[],
            Listen(2), Connect(0), Connect(0), Connect(0), ConnectInVain(0), Queue(0), Poll, Accept(0),
            Queue(0), Poll, Connect(0), Poll, ConnectInVain(0);
        "a backlog of one lets two in": &[],
            Listen(1), Connect(0), Connect(0), ConnectInVain(0), Queue(0), Accept(0), Accept(0), Accept(0);
        "what was sent before the accept is reported at registration": LISTENING,
            Connect(0), Send(0, 5), Accept(0), Poll, Read(0, 99), Poll;
        "half-closed before the accept": LISTENING,
            Connect(0), Send(0, 5), HalfClose(0), Poll, Accept(0), Poll, Read(0, 99), Read(0, 99),
            Write(0, 3), Take(0);
        "closed before the accept": LISTENING,
            Connect(0), Leave(0), Poll, Accept(0), Poll, Read(0, 9), Write(0, 3), Poll, Write(0, 3);
        "reset before the accept: accepted all the same": LISTENING,
            Connect(0), Abort(0), Poll, Queue(0), Accept(0), Poll, Peer(0), Read(0, 9), Read(0, 9),
            Write(0, 3);
        "reset before the accept, with data": LISTENING,
            Connect(0), Send(0, 9), Abort(0), Accept(0), Poll, Read(0, 4), Read(0, 9), Read(0, 9), Read(0, 9);
        "shedding resets the oldest": LISTENING,
            Shed(0), Connect(0), Connect(0), Poll, Shed(0), Take(0), Queue(0), Accept(0), Poll, Shed(0),
            Send(1, 4), Poll;
        "closing a listener resets those who wait and leaves those who are in": LISTENING,
            Connect(0), Accept(0), Connect(0), Connect(0), Send(2, 3), CloseListener(0), Take(1), Take(2),
            ConnectInVain(0), Send(0, 4), Poll, Read(0, 9);
        "closing a listener with a half-closed client that waits": LISTENING,
            Connect(0), HalfClose(0), CloseListener(0), Take(0);
        "an address is listened on once, and anew after closing": LISTENING,
            ListenAgain(0), CloseListener(0), ListenAgain(0), Connect(0), Poll;
        "two listeners tell their clients apart": LISTENING,
            Listen(4), Connect(1), Connect(0), Poll, Accept(1), Accept(0), Accept(1), Peer(0), Peer(1);
        "a closed file's number is the next stream's": OPEN,
            Connect(0), Connect(0), Accept(0), Close(0), Accept(0), SameFile(0, 2), SameFile(1, 2);
        "events of a closed stream are gone, and do not reach the one that takes its file": OPEN,
            Connect(0), Send(0, 5), Close(0), Accept(0), SameFile(0, 1), Poll, Send(1, 5), Poll, Take(0);
    }
}

fn reading() -> Vec<Written> {
    scenarios! {
        "an edge comes once": OPEN,
            Send(0, 5), Poll, Poll, Read(0, 99), Poll, Read(0, 99);
        "two arrivals, one event": OPEN,
            Send(0, 5), Send(0, 6), Poll, Read(0, 99), Poll;
        "unread data is no news, new data is": OPEN,
            Send(0, 9), Poll, Read(0, 4), Poll, Send(0, 1), Poll, Read(0, 99), Poll;
        "what was read before the poll is not reported": OPEN,
            Send(0, 9), Read(0, 99), Poll;
        "a short read drains": OPEN,
            Send(0, 50), Poll, Read(0, 64), Read(0, 64), Poll;
        "a read that fills its buffer may leave more": OPEN,
            Send(0, 50), Poll, Read(0, 50), Read(0, 50), Send(0, 50), Poll, Read(0, 20), Read(0, 20),
            Read(0, 20), Read(0, 20);
        "a half-close comes with the last data": OPEN,
            Send(0, 5), HalfClose(0), Poll, Read(0, 99), Read(0, 99), Read(0, 99), Poll;
        "a half-close alone": OPEN,
            HalfClose(0), Poll, Poll, Read(0, 9), Write(0, 5), Poll, Take(0);
        "a half-close after data that is not read yet": OPEN,
            Send(0, 5), Poll, HalfClose(0), Poll, Read(0, 3), Poll, Read(0, 9), Read(0, 9);
        "watching for room reports what is ready already": OPEN,
            Send(0, 5), Poll, Watch(0), Poll, Poll;
        "who watches for room is told the whole state": WATCHED,
            Send(0, 5), Poll, Read(0, 9), Send(0, 5), Poll, Poll;
        "watching twice reports twice": WATCHED,
            Watch(0), Poll, Watch(0), Poll, Poll;
        "watching after a half-close": OPEN,
            HalfClose(0), Poll, Watch(0), Poll, Poll;
        "two streams have their own events and bytes": OPEN,
            Connect(0), Accept(0), Send(1, 5), Send(0, 6), Poll, Read(1, 9), Read(0, 9), Write(0, 3),
            Write(1, 4), Take(0), Take(1);
    }
}

fn writing() -> Vec<Written> {
    scenarios! {
        "what is written arrives, and raises no event": OPEN,
            Write(0, 5), Write(0, 500), Take(0), Poll, Unacknowledged(0), Take(0);
        "nothing is unacknowledged before a write": OPEN,
            Unacknowledged(0), Peer(0);
        "a full stream has no event until there is room": FULL,
            Poll, Take(0), Poll, Poll, Write(0, 5), Take(0);
        "a little room is not worth an event": FULL,
            TakeOne(0), Poll, Take(0), Poll;
        "room is announced once, and again when it was filled again": FULL,
            Take(0), Poll, Take(0), Poll, Fill(0), Poll, Take(0), Poll;
        "who does not watch for room is told of none": OPEN,
            Fill(0), Poll, Take(0), Poll, Write(0, 5), Watch(0), Poll, Take(0);
        "who asks for room when full is told once there is some": OPEN,
            Fill(0), Watch(0), Poll, Take(0), Poll;
        "input while full tells of no room": FULL,
            Send(0, 5), Poll, Read(0, 9), Take(0), Poll;
        "room and input come together": FULL,
            Send(0, 5), Take(0), Poll, Read(0, 9), Poll;
        "a half-close while full": FULL,
            HalfClose(0), Poll, Read(0, 9), Take(0), Poll, Write(0, 3), Take(0);
        "closing while full loses nothing": FULL,
            Close(0), Take(0);
        "shutting while full loses nothing, and its acknowledgement is an event": FULL,
            Shut(0), Poll, Take(0), Poll, Poll;
        "shutting while full, not watched": OPEN,
            Fill(0), Poll, Shut(0), Poll, Take(0), Poll;
        "shutting while full, not watched, with unread input": OPEN,
            Fill(0), Send(0, 5), Poll, Poll, Shut(0), Poll, Take(0), Poll, Read(0, 9), Poll;
        "a full stream is reset by its client": FULL,
            Abort(0), Poll, Read(0, 9), Read(0, 9), Write(0, 1);
        "a client leaves what it has not received: that resets": FULL,
            Leave(0), Poll, Write(0, 1), Write(0, 1), Read(0, 9);
        "both sides shut while full, then a reset": FULL,
            HalfClose(0), Poll, Shut(0), Poll, Abort(0), Poll, Read(0, 9), Write(0, 5), Write(0, 5);
        "shut while full, half-closed later, then a reset": FULL,
            Shut(0), Poll, HalfClose(0), Poll, Abort(0), Poll, Read(0, 9), Write(0, 5), Write(0, 5);
        "both sides shut while full, and all is taken": FULL,
            HalfClose(0), Shut(0), Poll, Take(0), Poll, Peer(0), Shut(0), Poll;
    }
}

fn ending() -> Vec<Written> {
    scenarios! {
        "shutting raises an event": OPEN,
            Shut(0), Poll, Poll, Take(0);
        "shutting a watched stream raises an event": WATCHED,
            Shut(0), Poll, Poll, Take(0);
        "shutting twice": WATCHED,
            Shut(0), Poll, Shut(0), Poll, Take(0);
        "shutting with unread input reports that input": OPEN,
            Send(0, 5), Poll, Shut(0), Poll, Read(0, 9), Poll;
        "a shut stream takes no more and still reads": OPEN,
            Shut(0), Write(0, 3), Send(0, 5), Poll, Read(0, 9), Write(0, 3), Poll;
        "both sides shut, the client first: a hang-up": OPEN,
            HalfClose(0), Poll, Shut(0), Poll, Poll, Read(0, 9), Write(0, 3), Take(0);
        "both sides shut, the loop first: a hang-up": OPEN,
            Shut(0), Poll, HalfClose(0), Poll, Poll, Read(0, 9), Write(0, 3), Take(0);
        "both sides shut: nobody is at the other end any more": OPEN,
            HalfClose(0), Shut(0), Poll, Peer(0), Shut(0), Poll, Unacknowledged(0), Close(0), Take(0);
        "the loop shuts, then the client leaves": OPEN,
            Write(0, 4), Shut(0), Take(0), Leave(0), Poll, Peer(0), Shut(0), Poll;
        "the loop shuts, then the client resets": OPEN,
            Shut(0), Poll, Abort(0), Poll, Read(0, 9), Read(0, 9), Write(0, 3);
        "the loop shuts, then the client resets: a write is told of it": OPEN,
            Shut(0), Poll, Abort(0), Poll, Write(0, 3), Write(0, 3), Read(0, 9);
        "both sides shut, then the client leaves: no event": OPEN,
            HalfClose(0), Shut(0), Poll, Take(0), Leave(0), Poll;
        "closing without unread input ends the stream in order": OPEN,
            Send(0, 5), Read(0, 9), Write(0, 7), Close(0), Take(0), Poll;
        "closing with unread input resets": OPEN,
            Send(0, 5), Poll, Close(0), Take(0), Send(0, 1);
        "closing with a part of the input unread resets": OPEN,
            Send(0, 5), Read(0, 4), Write(0, 4), Close(0), Take(0);
        "closing a half-closed stream with unread input resets": OPEN,
            Send(0, 5), HalfClose(0), Poll, Close(0), Take(0);
        "closing a half-closed stream that is read": OPEN,
            Send(0, 5), HalfClose(0), Read(0, 9), Write(0, 3), Close(0), Take(0);
        "closing a shut stream with unread input resets": OPEN,
            Send(0, 5), Shut(0), Take(0), Close(0), Take(0);
        "closing with unread input after both sides shut: all is over, nobody is reset": OPEN,
            Send(0, 5), HalfClose(0), Write(0, 3), Shut(0), Take(0), Close(0), Take(0);
        "resetting after both sides shut: all is over, nobody is reset": OPEN,
            HalfClose(0), Shut(0), Take(0), Reset(0), Take(0);
        "resetting a shut stream": OPEN,
            Shut(0), Take(0), Reset(0), Take(0);
        "resetting an open stream": OPEN,
            Write(0, 5), Reset(0), Take(0), Send(0, 3);
        "resetting a half-closed stream": OPEN,
            HalfClose(0), Poll, Reset(0), Take(0);
        "resetting a full stream": FULL,
            Reset(0), Take(0);
        "who sends to a closed stream is reset": OPEN,
            Close(0), Take(0), Send(0, 3), Take(0), Send(0, 3);
        "who sent once to a closed stream cannot send again": OPEN,
            Close(0), Send(0, 3), Send(0, 3), Take(0);
        "a client that closes after the loop did": OPEN,
            Close(0), Take(0), Leave(0), Poll;
    }
}

fn resetting() -> Vec<Written> {
    scenarios! {
        "a reset gives the data first, then an error, then the end": OPEN,
            Send(0, 5), Abort(0), Poll, Read(0, 3), Read(0, 9), Read(0, 9), Read(0, 9), Write(0, 3), Poll;
        "a reset told to a write is not told again": OPEN,
            Abort(0), Poll, Write(0, 3), Write(0, 3), Read(0, 9), Poll;
        "a reset told to SO_ERROR is not told again": OPEN,
            Abort(0), Poll, Connected(0), Connected(0), Read(0, 9), Write(0, 9);
        "a reset behind data that was polled for": OPEN,
            Send(0, 5), Poll, Abort(0), Poll, Drain(0), Drain(0);
        "a reset stream: watching reports a hang-up": OPEN,
            Abort(0), Poll, Read(0, 9), Watch(0), Poll, Poll;
        "a reset stream: shutting, peer and output queue": OPEN,
            Abort(0), Poll, Shut(0), Poll, Peer(0), Unacknowledged(0), Read(0, 9);
        "a half-close, then a reset: EPIPE": OPEN,
            HalfClose(0), Poll, Abort(0), Poll, Read(0, 9), Write(0, 3), Write(0, 3);
        "data and a half-close, then a reset": OPEN,
            Send(0, 5), HalfClose(0), Abort(0), Poll, Drain(0), Connected(0), Connected(0);
        "writing to a client that left: taken once, then EPIPE": OPEN,
            Leave(0), Poll, Write(0, 5), Poll, Write(0, 5), Write(0, 5), Read(0, 9), Poll;
        "writing to a client that left: what is unacknowledged": OPEN,
            Leave(0), Poll, Unacknowledged(0), Write(0, 5), Unacknowledged(0);
        "a client that leaves with data unread resets": OPEN,
            Write(0, 5), Leave(0), Poll, Read(0, 9), Read(0, 9), Write(0, 3);
        "a client that leaves with data unread, having sent some": OPEN,
            Send(0, 7), Write(0, 5), Leave(0), Poll, Drain(0), Read(0, 9);
        "a half-closed client leaves with data unread": OPEN,
            HalfClose(0), Write(0, 5), Poll, Leave(0), Poll, Read(0, 9), Write(0, 3);
        "a half-closed client leaves, and is written to": OPEN,
            HalfClose(0), Poll, Leave(0), Poll, Write(0, 5), Poll, Write(0, 3);
        "closing a stream that is reset": OPEN,
            Send(0, 5), Abort(0), Poll, Close(0), Poll;
    }
}

fn dialling() -> Vec<Written> {
    scenarios! {
        "a connect that is accepted is writable": &[],
            Dial(Answer::Accepts), Poll, Connected(0), Peer(0), Write(0, 5), Take(0), Send(0, 4), Poll,
            Read(0, 9), Poll;
        "a connect that is refused: told once by SO_ERROR": &[],
            Dial(Answer::Refuses), Poll, Connected(0), Connected(0), Read(0, 9), Write(0, 3), Peer(0);
        "a connect that is refused: told to a read": &[],
            Dial(Answer::Refuses), Poll, Read(0, 9), Read(0, 9), Connected(0), Write(0, 3);
        "a connect that is refused: told to a write": &[],
            Dial(Answer::Refuses), Poll, Write(0, 9), Write(0, 9), Read(0, 9);
        "a connect that hangs is silent": &[],
            Dial(Answer::Hangs), Poll, Connected(0), Read(0, 9), Write(0, 3), Unacknowledged(0), Poll,
            Close(0), Poll;
        "a connect that hangs has no peer yet": &[],
            Dial(Answer::Hangs), Peer(0), Reset(0), Poll;
        "a dialled peer leaves": &[],
            Dial(Answer::Accepts), Poll, Send(0, 5), Leave(0), Poll, Drain(0), Write(0, 3), Poll, Write(0, 3);
        "a dialled peer resets": &[],
            Dial(Answer::Accepts), Poll, Abort(0), Poll, Connected(0), Connected(0);
        "a dialled stream is filled and drained": &[],
            Dial(Answer::Accepts), Poll, Fill(0), Poll, Take(0), Poll, Close(0), Take(0);
    }
}

fn datagrams() -> Vec<Written> {
    const BOUND: &[Step] = &[Bind("127.0.0.1:0"), FarBind("127.0.0.1:0")];
    const BOUND_6: &[Step] = &[Bind("[::1]:0"), FarBind("[::1]:0")];
    scenarios! {
        "a socket with nothing is silent": BOUND,
            Poll, Receive(0), Poll;
        "datagrams keep their order and their bounds": BOUND,
            FarSend(0, 0, 1), FarSend(0, 0, 700), FarSend(0, 0, 2), Poll, Poll, Receive(0), Receive(0), Poll;
        "an empty datagram is one": BOUND,
            FarSend(0, 0, 0), Poll, Receive(0), Receive(0);
        "datagrams that were left are no news, new ones are": BOUND,
            FarSendMany(0, 0, 65, 3), Poll, Receive(0), Poll, FarSend(0, 0, 5), Poll, Receive(0), Receive(0);
        "a batch ends at 64: one less": BOUND,
            FarSendMany(0, 0, 63, 3), Poll, Receive(0), Receive(0);
        "a batch ends at 64: just so many": BOUND,
            FarSendMany(0, 0, 64, 3), Poll, Receive(0), Receive(0);
        "the largest datagram arrives whole": BOUND,
            FarSend(0, 0, 65_507), Poll, Receive(0), Receive(0);
        "senders are told apart": BOUND,
            FarBind("127.0.0.1:0"), FarSend(1, 0, 3), FarSend(0, 0, 4), FarSend(1, 0, 5), Poll, Receive(0);
        "two sockets have their own datagrams": BOUND,
            Bind("127.0.0.1:0"), FarSend(0, 1, 3), FarSend(0, 0, 4), Poll, Receive(1), Receive(0),
            Answer(1, 0, &[6]), FarReceive(0);
        "a batch is answered in order, empty ones too": BOUND,
            Answer(0, 0, &[1, 0, 700, 3]), FarReceive(0), Poll;
        "one that is too large fails and does not stop the others": BOUND,
            Answer(0, 0, &[5, 65_508, 6, 7]), FarReceive(0);
        "one that is too large to be counted": BOUND,
            Answer(0, 0, &[65_536, 6]), FarReceive(0);
        "one of the largest size is sent": BOUND,
            Answer(0, 0, &[65_507]), FarReceive(0);
        "port 0 cannot be sent to": BOUND,
            SendTo(0, "127.0.0.1:0"), Poll, Answer(0, 0, &[3]), FarReceive(0);
        "another family cannot be sent to": BOUND,
            SendTo(0, "[::1]:9"), Poll, Answer(0, 0, &[3]), FarReceive(0);
        "that a port is closed is not told to a socket that is not connected": BOUND,
            FarUnbind(0), Answer(0, 0, &[3, 4]), Poll, Answer(0, 0, &[5]), Receive(0), Poll;
        "a socket of the loop sends to another of its own": BOUND,
            Bind("127.0.0.1:0"), Tell(0, 1), Poll, Receive(1), Tell(1, 1), Poll, Receive(1);
        "an unbound socket's datagrams and events are gone": BOUND,
            FarSend(0, 0, 3), Unbind(0), Poll, FarSend(0, 0, 3), Bind("127.0.0.1:0"), Poll, Receive(1);
        "datagrams over IPv6": BOUND_6,
            FarSend(0, 0, 3), Poll, Receive(0), Answer(0, 0, &[4, 65_527, 65_528]), FarReceive(0);
        "the other family, from IPv6": BOUND_6,
            SendTo(0, "127.0.0.1:9"), SendTo(0, "[::1]:0");
        "a socket bound everywhere is reached on any address": &[Bind("0.0.0.0:0"), FarBind("127.0.0.1:0")],
            Poll, FarSend(0, 0, 3), Poll, Receive(0), Answer(0, 0, &[9]), FarReceive(0);
    }
}
