//! Scenarios made from seeds: about thirty random steps. A model of open and full streams keeps
//! them meaningful.

use std::collections::VecDeque;

use fastrand::Rng;

use super::Step::{self, *};
use super::{Answer, Scenario};

/// Number of random choices before the final steps.
const CHOICES: usize = 26;

const BACKLOG: u32 = 2;

type Action = fn(&mut Model);

/// The random actions, each with its weight.
const ACTIONS: &[(u32, Action)] = &[
    (14, |model| model.steps.push(Poll)),
    (4, Model::connect),
    (6, Model::accept),
    (1, Model::shed),
    (2, Model::dial),
    (9, Model::send),
    (6, |model| model.with_client(|model, client| model.take(client))),
    (2, Model::half_close),
    (2, Model::leave),
    (2, Model::abort),
    (6, Model::read),
    (3, |model| model.with_stream(|model, stream| model.steps.push(Drain(stream)))),
    (7, Model::write),
    (1, Model::fill),
    (3, |model| model.with_stream(|model, stream| model.steps.push(Watch(stream)))),
    (3, Model::shut),
    (3, Model::close),
    (1, Model::reset),
    (2, Model::ask),
    (4, Model::exchange_datagrams),
];

/// Returns the scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut model = Model::new(seed);
    let total: u32 = ACTIONS.iter().map(|&(weight, _)| weight).sum();
    for _ in 0..CHOICES {
        let mut at = model.random.u32(..total);
        for &(weight, action) in ACTIONS {
            if at < weight {
                action(&mut model);
                break;
            }
            at -= weight;
        }
    }
    model.wind_up();
    Scenario { name: format!("seed {seed}"), steps: model.steps }
}

struct Model {
    random: Rng,
    steps: Vec<Step>,
    queue: VecDeque<usize>,
    clients: Vec<Client>,
    streams: Vec<Stream>,
    /// Clients that found the accept queue full. Each costs time.
    in_vain: usize,
    /// Streams that were filled. Each costs time.
    fills: usize,
    has_datagrams: bool,
}

#[derive(Default)]
struct Client {
    /// True if the client is in the accept queue or accepted.
    is_in: bool,
    shut: bool,
    gone: bool,
    stream: Option<usize>,
}

#[derive(Default)]
struct Stream {
    client: Option<usize>,
    closed: bool,
    shut: bool,
    full: bool,
    was_full: bool,
    untaken: usize,
}

impl Model {
    fn new(seed: u64) -> Model {
        let mut random = Rng::with_seed(seed);
        let has_datagrams = random.u8(..3) == 0;
        let mut steps = vec![Listen(BACKLOG)];
        if has_datagrams {
            steps.extend([
                Bind("127.0.0.1:0"),
                Bind("127.0.0.1:0"),
                FarBind("127.0.0.1:0"),
                FarBind("127.0.0.1:0"),
            ]);
        }
        let mut model = Model {
            random,
            steps,
            queue: VecDeque::new(),
            clients: Vec::new(),
            streams: Vec::new(),
            in_vain: 0,
            fills: 0,
            has_datagrams,
        };
        // Without a stream at the start, most actions would do nothing.
        model.connect();
        model.accept();
        model
    }

    /// Adds the final steps, which observe all open streams and clients.
    fn wind_up(&mut self) {
        self.steps.push(Poll);
        for stream in 0..self.streams.len() {
            if !self.streams[stream].closed {
                self.steps.extend([Drain(stream), Peer(stream)]);
            }
        }
        for client in 0..self.clients.len() {
            if self.is_here(client) {
                self.take(client);
            }
        }
        self.steps.push(Poll);
    }

    fn is_here(&self, client: usize) -> bool {
        self.clients[client].is_in && !self.clients[client].gone
    }

    fn with_client(&mut self, act: impl FnOnce(&mut Model, usize)) {
        let here: Vec<usize> =
            (0..self.clients.len()).filter(|&client| self.is_here(client)).collect();
        if !here.is_empty() {
            let client = here[self.random.usize(..here.len())];
            act(self, client);
        }
    }

    fn with_stream(&mut self, act: impl FnOnce(&mut Model, usize)) {
        let open: Vec<usize> =
            (0..self.streams.len()).filter(|&stream| !self.streams[stream].closed).collect();
        if !open.is_empty() {
            let stream = open[self.random.usize(..open.len())];
            act(self, stream);
        }
    }

    fn client_of(&self, stream: usize) -> Option<&Client> {
        self.streams[stream].client.map(|client| &self.clients[client])
    }

    /// Has the client take all bytes before both sides end. In the simulation, the client
    /// acknowledges bytes when it takes them, but in Linux its kernel does so earlier.
    fn settle(&mut self, stream: usize) {
        let Stream { client, full, untaken, .. } = self.streams[stream];
        if let Some(client) = client
            && !full
            && untaken > 0
            && self.is_here(client)
        {
            self.take(client);
        }
    }

    fn settle_client(&mut self, client: usize) {
        if let Some(stream) = self.clients[client].stream
            && self.streams[stream].shut
        {
            self.settle(stream);
        }
    }

    fn connect(&mut self) {
        let is_in = self.queue.len() <= BACKLOG as usize;
        if !is_in && self.in_vain == 1 {
            return;
        }
        if is_in {
            self.queue.push_back(self.clients.len());
            self.steps.push(Connect(0));
        } else {
            self.in_vain += 1;
            self.steps.push(ConnectInVain(0));
        }
        self.clients.push(Client { is_in, ..Client::default() });
    }

    fn accept(&mut self) {
        self.steps.push(Accept(0));
        if let Some(client) = self.queue.pop_front() {
            self.clients[client].stream = Some(self.streams.len());
            self.streams.push(Stream { client: Some(client), ..Stream::default() });
        }
    }

    fn shed(&mut self) {
        self.queue.pop_front();
        self.steps.push(Shed(0));
    }

    fn dial(&mut self) {
        let answer = if self.random.u8(..3) == 0 { Answer::Refuses } else { Answer::Accepts };
        let accepts = answer == Answer::Accepts;
        self.steps.push(Dial(answer));
        let client = Some(self.clients.len()).filter(|_| accepts);
        self.clients.push(Client {
            is_in: accepts,
            stream: Some(self.streams.len()),
            ..Client::default()
        });
        self.streams.push(Stream { client, ..Stream::default() });
    }

    fn send(&mut self) {
        self.with_client(|model, client| {
            if !model.clients[client].shut {
                let length = model.random.usize(1..300);
                model.steps.push(Send(client, length));
            }
        });
    }

    fn take(&mut self, client: usize) {
        self.steps.push(Take(client));
        if let Some(stream) = self.clients[client].stream {
            let stream = &mut self.streams[stream];
            (stream.full, stream.untaken) = (false, 0);
        }
    }

    fn half_close(&mut self) {
        self.with_client(|model, client| {
            if !std::mem::replace(&mut model.clients[client].shut, true) {
                model.settle_client(client);
                model.steps.push(HalfClose(client));
            }
        });
    }

    fn leave(&mut self) {
        self.with_client(|model, client| {
            model.settle_client(client);
            model.clients[client].gone = true;
            model.steps.push(Leave(client));
        });
    }

    fn abort(&mut self) {
        self.with_client(|model, client| {
            model.settle_client(client);
            model.clients[client].gone = true;
            model.steps.push(Abort(client));
        });
    }

    fn read(&mut self) {
        self.with_stream(|model, stream| {
            let most = [1, 10, 100, 1000][model.random.usize(..4)];
            model.steps.push(Read(stream, most));
        });
    }

    fn write(&mut self) {
        self.with_stream(|model, number| {
            let length = model.random.usize(1..300);
            let is_read = model.client_of(number).is_some_and(|client| !client.gone);
            let stream = &mut model.streams[number];
            // Any segment of the client can make a little room in a full stream.
            if stream.full || stream.untaken > 3000 {
                return;
            }
            stream.untaken += if is_read && !stream.shut { length } else { 0 };
            model.steps.push(Write(number, length));
        });
    }

    fn fill(&mut self) {
        self.with_stream(|model, number| {
            let is_read = model.client_of(number).is_some_and(|client| !client.gone);
            let stream = &mut model.streams[number];
            if is_read && !stream.shut && !stream.full && model.fills < 2 {
                (stream.full, stream.was_full) = (true, true);
                model.fills += 1;
                model.steps.extend([Poll, Fill(number)]);
            }
        });
    }

    fn shut(&mut self) {
        self.with_stream(|model, stream| {
            model.settle(stream);
            model.streams[stream].shut = true;
            model.steps.push(Shut(stream));
        });
    }

    fn close(&mut self) {
        self.with_stream(|model, stream| {
            if model.streams[stream].shut {
                model.settle(stream);
            }
            model.streams[stream].closed = true;
            model.steps.push(Close(stream));
        });
    }

    fn reset(&mut self) {
        self.with_stream(|model, stream| {
            if model.streams[stream].shut {
                model.settle(stream);
            }
            model.streams[stream].closed = true;
            model.steps.push(Reset(stream));
        });
    }

    fn ask(&mut self) {
        self.with_stream(|model, stream| {
            let Stream { untaken, was_full, .. } = model.streams[stream];
            let question = match model.random.u8(..3) {
                0 => Peer(stream),
                1 => Connected(stream),
                _ if untaken > 0 || was_full => Queue(0),
                _ => Unacknowledged(stream),
            };
            model.steps.push(question);
        });
    }

    fn exchange_datagrams(&mut self) {
        if !self.has_datagrams {
            return;
        }
        let mut any = || self.random.usize(..2);
        let (socket, far) = (any(), any());
        let step = match self.random.u8(..8) {
            0..3 => FarSend(far, socket, self.random.usize(..1500)),
            3..5 => Receive(socket),
            5 => Step::Answer(socket, far, &[0, 40, 3]),
            6 => Tell(socket, 1 - socket),
            _ => FarReceive(far),
        };
        self.steps.push(step);
    }
}
