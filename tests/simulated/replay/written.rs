//! Scenarios written by hand, each named after the rule of the kernel that it shows.

use super::Step::{self, *};
use super::{Answer, Scenario};

/// A listener and one accepted stream without pending events.
const OPEN: &[Step] = &[Listen(8), Connect(0), Poll, Accept(0), Poll];

/// The same with writable interest.
const WATCHED: &[Step] = &[Listen(8), Connect(0), Poll, Accept(0), Watch(0), Poll];

/// A stream that is full.
const FULL: &[Step] =
    &[Listen(8), Connect(0), Accept(0), Watch(0), Poll, Fill(0), Write(0, 1), Poll];

const LISTENING: &[Step] = &[Listen(8)];

/// Makes a table of scenarios: the name, the first steps, and the steps that matter. The formatter
/// leaves macros in braces alone.
macro_rules! scenarios {
    ($($name:literal: $before:expr, $($step:expr),*;)*) => {
        vec![$(($name, $before as &[Step], &[$($step),*] as &[Step])),*]
    };
}

pub fn scenarios() -> Vec<Scenario> {
    let parts = [accepting(), reading(), writing(), ending(), resetting(), dialling(), datagrams()];
    named(parts.concat())
}

/// Returns the scenarios that use up the files of the process.
pub fn without_files() -> Vec<Scenario> {
    named(scenarios! {
        "without a free file, accept fails even with an empty queue": LISTENING,
            LeaveFiles(0), Accept(0), Poll, Accept(0);
        "a client without a file is announced once, and a freed file raises no edge": OPEN,
            Connect(0), Connect(0), LeaveFiles(0), Poll, Accept(0), Poll, Queue(0), Close(0), Poll,
            Accept(0), Poll, Accept(0), Poll;
        "a newcomer without a file is announced, and shedding needs no free file": OPEN,
            Connect(0), Connect(0), LeaveFiles(0), Poll, Shed(0), Take(1), Accept(0), Close(0),
            Accept(0), Send(2, 5), Poll, Read(1, 9);
        "without a free file, nothing is dialled, bound or listened on": LISTENING,
            LeaveFiles(0), Listen(8), Bind("127.0.0.1:0"), Poll;
    })
}

fn named(all: Vec<(&str, &[Step], &[Step])>) -> Vec<Scenario> {
    all.into_iter()
        .map(|(name, before, steps)| Scenario {
            name: name.into(),
            steps: [before, steps].concat(),
        })
        .collect()
}

type Written = (&'static str, &'static [Step], &'static [Step]);

fn accepting() -> Vec<Written> {
    scenarios! {
        "a listener without clients raises no event": LISTENING,
            Poll, Accept(0), Queue(0), Poll;
        "waiting clients are announced once": LISTENING,
            Connect(0), Connect(0), Poll, Poll, Queue(0), Accept(0), Poll, Accept(0), Accept(0);
        "a later client raises an event while others wait": LISTENING,
            Connect(0), Poll, Connect(0), Poll, Accept(0), Accept(0), Accept(0), Poll;
        "a client accepted before the poll raises no event": LISTENING,
            Connect(0), Accept(0), Poll;
        "an accept queue takes one client more than its backlog": &[],
            Listen(2), Connect(0), Connect(0), Connect(0), ConnectInVain(0), Queue(0), Poll,
            Accept(0), Queue(0), Poll, Connect(0), Poll, ConnectInVain(0);
        "a backlog of one lets two clients in": &[],
            Listen(1), Connect(0), Connect(0), ConnectInVain(0), Queue(0), Accept(0), Accept(0),
            Accept(0);
        "bytes sent before the accept are reported at registration": LISTENING,
            Connect(0), Send(0, 5), Accept(0), Poll, Read(0, 99), Poll;
        "a client half-closes before the accept": LISTENING,
            Connect(0), Send(0, 5), HalfClose(0), Poll, Accept(0), Poll, Read(0, 99), Read(0, 99),
            Write(0, 3), Take(0);
        "a client closes before the accept": LISTENING,
            Connect(0), Leave(0), Poll, Accept(0), Poll, Read(0, 9), Write(0, 3), Poll, Write(0, 3);
        "a client that resets before the accept is accepted": LISTENING,
            Connect(0), Abort(0), Poll, Queue(0), Accept(0), Poll, Peer(0), Read(0, 9), Read(0, 9),
            Write(0, 3);
        "a client sends data and resets before the accept": LISTENING,
            Connect(0), Send(0, 9), Abort(0), Accept(0), Poll, Read(0, 4), Read(0, 9), Read(0, 9),
            Read(0, 9);
        "shedding resets the oldest waiting client": LISTENING,
            Shed(0), Connect(0), Connect(0), Poll, Shed(0), Take(0), Queue(0), Accept(0), Poll,
            Shed(0), Send(1, 4), Poll;
        "closing a listener resets waiting clients and leaves accepted ones": LISTENING,
            Connect(0), Accept(0), Connect(0), Connect(0), Send(2, 3), CloseListener(0), Take(1),
            Take(2), ConnectInVain(0), Send(0, 4), Poll, Read(0, 9);
        "closing a listener with a waiting half-closed client": LISTENING,
            Connect(0), HalfClose(0), CloseListener(0), Take(0);
        "an address has one listener, and another after it closed": LISTENING,
            ListenAgain(0), CloseListener(0), ListenAgain(0), Connect(0), Poll;
        "two listeners have separate clients": LISTENING,
            Listen(4), Connect(1), Connect(0), Poll, Accept(1), Accept(0), Accept(1), Peer(0),
            Peer(1);
        "the next stream gets the file number of a closed one": OPEN,
            Connect(0), Connect(0), Accept(0), Close(0), Accept(0), SameFile(0, 2), SameFile(1, 2);
        "events of a closed stream do not reach the next one with its file": OPEN,
            Connect(0), Send(0, 5), Close(0), Accept(0), SameFile(0, 1), Poll, Send(1, 5), Poll,
            Take(0);
    }
}

fn reading() -> Vec<Written> {
    scenarios! {
        "an edge comes once": OPEN,
            Send(0, 5), Poll, Poll, Read(0, 99), Poll, Read(0, 99);
        "two arrivals raise one event": OPEN,
            Send(0, 5), Send(0, 6), Poll, Read(0, 99), Poll;
        "new data raises an event, unread data does not": OPEN,
            Send(0, 9), Poll, Read(0, 4), Poll, Send(0, 1), Poll, Read(0, 99), Poll;
        "data read before the poll is not reported": OPEN,
            Send(0, 9), Read(0, 99), Poll;
        "a short read drains the stream": OPEN,
            Send(0, 50), Poll, Read(0, 64), Read(0, 64), Poll;
        "a read that fills its buffer may leave more": OPEN,
            Send(0, 50), Poll, Read(0, 50), Read(0, 50), Send(0, 50), Poll, Read(0, 20),
            Read(0, 20), Read(0, 20), Read(0, 20);
        "a half-close comes with the last data": OPEN,
            Send(0, 5), HalfClose(0), Poll, Read(0, 99), Read(0, 99), Read(0, 99), Poll;
        "a half-close without data": OPEN,
            HalfClose(0), Poll, Poll, Read(0, 9), Write(0, 5), Poll, Take(0);
        "a half-close after unread data": OPEN,
            Send(0, 5), Poll, HalfClose(0), Poll, Read(0, 3), Poll, Read(0, 9), Read(0, 9);
        "watching for room reports input that is ready": OPEN,
            Send(0, 5), Poll, Watch(0), Poll, Poll;
        "an event of a watched stream reports its whole state": WATCHED,
            Send(0, 5), Poll, Read(0, 9), Send(0, 5), Poll, Poll;
        "watching twice reports twice": WATCHED,
            Watch(0), Poll, Watch(0), Poll, Poll;
        "watching after a half-close": OPEN,
            HalfClose(0), Poll, Watch(0), Poll, Poll;
        "two streams have their own events and bytes": OPEN,
            Connect(0), Accept(0), Send(1, 5), Send(0, 6), Poll, Read(1, 9), Read(0, 9),
            Write(0, 3), Write(1, 4), Take(0), Take(1);
    }
}

fn writing() -> Vec<Written> {
    scenarios! {
        "written bytes arrive and raise no event": OPEN,
            Write(0, 5), Write(0, 500), Take(0), Poll, Unacknowledged(0), Take(0);
        "nothing is unacknowledged before a write": OPEN,
            Unacknowledged(0), Peer(0);
        "a full stream has no event until there is room": FULL,
            Poll, Take(0), Poll, Poll, Write(0, 5), Take(0);
        "a little room raises no event": FULL,
            TakeOne(0), Poll, Take(0), Poll;
        "room is announced once each time the stream was full": FULL,
            Take(0), Poll, Take(0), Poll, Fill(0), Poll, Take(0), Poll;
        "a stream without writable interest reports no room": OPEN,
            Fill(0), Poll, Take(0), Poll, Write(0, 5), Watch(0), Poll, Take(0);
        "a full stream watched later reports room when there is some": OPEN,
            Fill(0), Watch(0), Poll, Take(0), Poll;
        "input of a full stream reports no room": FULL,
            Send(0, 5), Poll, Read(0, 9), Take(0), Poll;
        "room and input come together": FULL,
            Send(0, 5), Take(0), Poll, Read(0, 9), Poll;
        "the client of a full stream half-closes": FULL,
            HalfClose(0), Poll, Read(0, 9), Take(0), Poll, Write(0, 3), Take(0);
        "closing a full stream loses nothing": FULL,
            Close(0), Take(0);
        "shutting a full stream loses nothing, and its acknowledgement raises an event": FULL,
            Shut(0), Poll, Take(0), Poll, Poll;
        "shutting a full stream without writable interest": OPEN,
            Fill(0), Poll, Shut(0), Poll, Take(0), Poll;
        "shutting a full stream without writable interest, with unread input": OPEN,
            Fill(0), Send(0, 5), Poll, Poll, Shut(0), Poll, Take(0), Poll, Read(0, 9), Poll;
        "the client of a full stream resets": FULL,
            Abort(0), Poll, Read(0, 9), Read(0, 9), Write(0, 1);
        "a client that closes with data unread resets a full stream": FULL,
            Leave(0), Poll, Write(0, 1), Write(0, 1), Read(0, 9);
        "both sides shut a full stream, then the client resets": FULL,
            HalfClose(0), Poll, Shut(0), Poll, Abort(0), Poll, Read(0, 9), Write(0, 5), Write(0, 5);
        "the loop shuts a full stream, the client half-closes, then resets": FULL,
            Shut(0), Poll, HalfClose(0), Poll, Abort(0), Poll, Read(0, 9), Write(0, 5), Write(0, 5);
        "both sides shut a full stream, and the client takes all": FULL,
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
        "a shut stream refuses writes and still reads": OPEN,
            Shut(0), Write(0, 3), Send(0, 5), Poll, Read(0, 9), Write(0, 3), Poll;
        "both sides shut, the client first, which is a hang-up": OPEN,
            HalfClose(0), Poll, Shut(0), Poll, Poll, Read(0, 9), Write(0, 3), Take(0);
        "both sides shut, the loop first, which is a hang-up": OPEN,
            Shut(0), Poll, HalfClose(0), Poll, Poll, Read(0, 9), Write(0, 3), Take(0);
        "a stream that both sides shut has no peer": OPEN,
            HalfClose(0), Shut(0), Poll, Peer(0), Shut(0), Poll, Unacknowledged(0), Close(0),
            Take(0);
        "the loop shuts, then the client closes": OPEN,
            Write(0, 4), Shut(0), Take(0), Leave(0), Poll, Peer(0), Shut(0), Poll;
        "the loop shuts, then the client resets": OPEN,
            Shut(0), Poll, Abort(0), Poll, Read(0, 9), Read(0, 9), Write(0, 3);
        "the loop shuts, then the client resets, which a write reports": OPEN,
            Shut(0), Poll, Abort(0), Poll, Write(0, 3), Write(0, 3), Read(0, 9);
        "a close after both sides shut raises no event": OPEN,
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
        "closing with unread input after both sides shut resets nothing": OPEN,
            Send(0, 5), HalfClose(0), Write(0, 3), Shut(0), Take(0), Close(0), Take(0);
        "resetting after both sides shut resets nothing": OPEN,
            HalfClose(0), Shut(0), Take(0), Reset(0), Take(0);
        "resetting a shut stream": OPEN,
            Shut(0), Take(0), Reset(0), Take(0);
        "resetting an open stream": OPEN,
            Write(0, 5), Reset(0), Take(0), Send(0, 3);
        "resetting a half-closed stream": OPEN,
            HalfClose(0), Poll, Reset(0), Take(0);
        "resetting a full stream": FULL,
            Reset(0), Take(0);
        "a client that sends to a closed stream is reset": OPEN,
            Close(0), Take(0), Send(0, 3), Take(0), Send(0, 3);
        "a client cannot send twice to a closed stream": OPEN,
            Close(0), Send(0, 3), Send(0, 3), Take(0);
        "a client that closes after the loop did": OPEN,
            Close(0), Take(0), Leave(0), Poll;
    }
}

fn resetting() -> Vec<Written> {
    scenarios! {
        "a reset gives the data first, then an error, then the end": OPEN,
            Send(0, 5), Abort(0), Poll, Read(0, 3), Read(0, 9), Read(0, 9), Read(0, 9), Write(0, 3),
            Poll;
        "a reset reported to a write is not reported again": OPEN,
            Abort(0), Poll, Write(0, 3), Write(0, 3), Read(0, 9), Poll;
        "a reset reported by SO_ERROR is not reported again": OPEN,
            Abort(0), Poll, Connected(0), Connected(0), Read(0, 9), Write(0, 9);
        "a reset behind data that the poll reported": OPEN,
            Send(0, 5), Poll, Abort(0), Poll, Drain(0), Drain(0);
        "watching a reset stream reports a hang-up": OPEN,
            Abort(0), Poll, Read(0, 9), Watch(0), Poll, Poll;
        "shutdown, peer and output queue of a reset stream": OPEN,
            Abort(0), Poll, Shut(0), Poll, Peer(0), Unacknowledged(0), Read(0, 9);
        "a reset after a half-close gives EPIPE": OPEN,
            HalfClose(0), Poll, Abort(0), Poll, Read(0, 9), Write(0, 3), Write(0, 3);
        "a reset after data and a half-close": OPEN,
            Send(0, 5), HalfClose(0), Abort(0), Poll, Drain(0), Connected(0), Connected(0);
        "a write to a closed client succeeds once, then gives EPIPE": OPEN,
            Leave(0), Poll, Write(0, 5), Poll, Write(0, 5), Write(0, 5), Read(0, 9), Poll;
        "the unacknowledged bytes of a write to a closed client": OPEN,
            Leave(0), Poll, Unacknowledged(0), Write(0, 5), Unacknowledged(0);
        "a client that closes with data unread resets": OPEN,
            Write(0, 5), Leave(0), Poll, Read(0, 9), Read(0, 9), Write(0, 3);
        "a client sends data and closes with data unread": OPEN,
            Send(0, 7), Write(0, 5), Leave(0), Poll, Drain(0), Read(0, 9);
        "a half-closed client closes with data unread": OPEN,
            HalfClose(0), Write(0, 5), Poll, Leave(0), Poll, Read(0, 9), Write(0, 3);
        "the loop writes to a half-closed client that closed": OPEN,
            HalfClose(0), Poll, Leave(0), Poll, Write(0, 5), Poll, Write(0, 3);
        "closing a reset stream": OPEN,
            Send(0, 5), Abort(0), Poll, Close(0), Poll;
    }
}

fn dialling() -> Vec<Written> {
    scenarios! {
        "an accepted connect is writable": &[],
            Dial(Answer::Accepts), Poll, Connected(0), Peer(0), Write(0, 5), Take(0), Send(0, 4),
            Poll, Read(0, 9), Poll;
        "SO_ERROR reports a refused connect once": &[],
            Dial(Answer::Refuses), Poll, Connected(0), Connected(0), Read(0, 9), Write(0, 3),
            Peer(0);
        "a read reports a refused connect": &[],
            Dial(Answer::Refuses), Poll, Read(0, 9), Read(0, 9), Connected(0), Write(0, 3);
        "a write reports a refused connect": &[],
            Dial(Answer::Refuses), Poll, Write(0, 9), Write(0, 9), Read(0, 9);
        "a connect that hangs raises no event": &[],
            Dial(Answer::Hangs), Poll, Connected(0), Read(0, 9), Write(0, 3), Unacknowledged(0),
            Poll, Close(0), Poll;
        "a connect that hangs has no peer yet": &[],
            Dial(Answer::Hangs), Peer(0), Reset(0), Poll;
        "a dialled peer closes": &[],
            Dial(Answer::Accepts), Poll, Send(0, 5), Leave(0), Poll, Drain(0), Write(0, 3), Poll,
            Write(0, 3);
        "a dialled peer resets": &[],
            Dial(Answer::Accepts), Poll, Abort(0), Poll, Connected(0), Connected(0);
        "a dialled stream is filled and drained": &[],
            Dial(Answer::Accepts), Poll, Fill(0), Poll, Take(0), Poll, Close(0), Take(0);
    }
}

fn datagrams() -> Vec<Written> {
    const BOUND: &[Step] = &[Bind("127.0.0.1:0"), FarBind("127.0.0.1:0")];
    const BOUND_6: &[Step] = &[Bind("[::1]:0"), FarBind("[::1]:0")];
    const BOUND_TO_ALL: &[Step] = &[Bind("0.0.0.0:0"), FarBind("127.0.0.1:0")];
    scenarios! {
        "a socket without datagrams raises no event": BOUND,
            Poll, Receive(0), Poll;
        "datagrams keep their order and their lengths": BOUND,
            FarSend(0, 0, 1), FarSend(0, 0, 700), FarSend(0, 0, 2), Poll, Poll, Receive(0),
            Receive(0), Poll;
        "an empty datagram is received": BOUND,
            FarSend(0, 0, 0), Poll, Receive(0), Receive(0);
        "new datagrams raise an event, those left do not": BOUND,
            FarSendMany(0, 0, 65, 3), Poll, Receive(0), Poll, FarSend(0, 0, 5), Poll, Receive(0),
            Receive(0);
        "a batch of 63 datagrams": BOUND,
            FarSendMany(0, 0, 63, 3), Poll, Receive(0), Receive(0);
        "a batch of 64 datagrams": BOUND,
            FarSendMany(0, 0, 64, 3), Poll, Receive(0), Receive(0);
        "the largest datagram arrives whole": BOUND,
            FarSend(0, 0, 65_507), Poll, Receive(0), Receive(0);
        "datagrams have their senders": BOUND,
            FarBind("127.0.0.1:0"), FarSend(1, 0, 3), FarSend(0, 0, 4), FarSend(1, 0, 5), Poll,
            Receive(0);
        "two sockets have their own datagrams": BOUND,
            Bind("127.0.0.1:0"), FarSend(0, 1, 3), FarSend(0, 0, 4), Poll, Receive(1), Receive(0),
            Answer(1, 0, &[6]), FarReceive(0);
        "a batch is answered in order, with empty answers": BOUND,
            Answer(0, 0, &[1, 0, 700, 3]), FarReceive(0), Poll;
        "a datagram that is too large fails and does not stop the others": BOUND,
            Answer(0, 0, &[5, 65_508, 6, 7]), FarReceive(0);
        "a datagram larger than its length field": BOUND,
            Answer(0, 0, &[65_536, 6]), FarReceive(0);
        "a datagram of the largest size is sent": BOUND,
            Answer(0, 0, &[65_507]), FarReceive(0);
        "a datagram to port 0 fails": BOUND,
            SendTo(0, "127.0.0.1:0"), Poll, Answer(0, 0, &[3]), FarReceive(0);
        "a datagram to the other address family fails": BOUND,
            SendTo(0, "[::1]:9"), Poll, Answer(0, 0, &[3]), FarReceive(0);
        "an unconnected socket gets no error of a closed port": BOUND,
            FarUnbind(0), Answer(0, 0, &[3, 4]), Poll, Answer(0, 0, &[5]), Receive(0), Poll;
        "a socket of the loop sends to another of the loop": BOUND,
            Bind("127.0.0.1:0"), Tell(0, 1), Poll, Receive(1), Tell(1, 1), Poll, Receive(1);
        "the datagrams and events of an unbound socket are gone": BOUND,
            FarSend(0, 0, 3), Unbind(0), Poll, FarSend(0, 0, 3), Bind("127.0.0.1:0"), Poll,
            Receive(1);
        "datagrams over IPv6": BOUND_6,
            FarSend(0, 0, 3), Poll, Receive(0), Answer(0, 0, &[4, 65_527, 65_528]), FarReceive(0);
        "an IPv6 datagram to the other family and to port 0 fails": BOUND_6,
            SendTo(0, "127.0.0.1:9"), SendTo(0, "[::1]:0");
        "a socket bound to all addresses is reached on each": BOUND_TO_ALL,
            Poll, FarSend(0, 0, 3), Poll, Receive(0), Answer(0, 0, &[9]), FarReceive(0);
    }
}
