//! The shapes of load: each says what is dialled, asked and closed, and never sees a socket.
//!
//! The driver calls [`Shape::act`] once a turn, and the other methods as things happen. A shape acts through the [`World`].

pub mod churn;
pub mod datagram;
pub mod fanout;
pub mod flood;
pub mod hold;
pub mod ping;
pub mod probes;
pub mod search;

use super::args::ShapeName;
use super::pace::Next;
use super::plan::Plan;
use super::record::Record;
use super::target::Scheme;
use super::world::World;
use crate::clock::Time;
use crate::net::Net;

pub trait Shape<N: Net> {
    /// What is to be done now, if anything.
    fn act(&mut self, world: &mut World<N>) -> Next;

    /// A connection is established, and let in.
    fn opened(&mut self, world: &mut World<N>, slot: u32);

    /// All that a connection had asked is answered. Unless it `goes_on`, the server closes it now.
    fn answered(&mut self, _world: &mut World<N>, _slot: u32, _goes_on: bool) {}

    /// A message that was not asked for. False when the connection is to be read no further.
    fn message(&mut self, world: &mut World<N>, slot: u32, message: &[u8], is_error: bool) -> bool {
        // A reason given before it closes is no wrong answer.
        if is_error {
            world.meter.refused(message);
            return true;
        }
        world.meter.error("wrong answer", 1);
        world.close(slot);
        self.ended(world, slot);
        false
    }

    /// The moment that it asked for has come.
    fn woken(&mut self, _world: &mut World<N>, _slot: u32) {}

    /// A connection has ended, or could not be established; its slot is free at the end of the turn.
    fn ended(&mut self, world: &mut World<N>, slot: u32);

    /// The run was interrupted: what was due and is not answered counts with the time it has waited.
    fn stop(&mut self, _world: &mut World<N>) {}

    /// Adds to the record what only this shape knows.
    fn finish(&mut self, _world: &mut World<N>, _record: &mut Record) {}

    /// Datagrams may have arrived at this socket of its.
    fn datagrams(&mut self, _world: &mut World<N>, _socket: u8) {}
}

/// The shape that a plan asks for.
pub fn build<N: Net + 'static>(plan: &Plan, now: Time) -> Box<dyn Shape<N>> {
    match plan.shape {
        ShapeName::Ping if plan.target.scheme == Scheme::Udp => Box::new(datagram::DatagramPing::new(plan)),
        ShapeName::Ping => Box::new(ping::Ping::new(plan, now)),
        ShapeName::Hold => Box::new(hold::Hold::new(plan, now)),
        ShapeName::Search => Box::new(search::Search::new(plan, now)),
        ShapeName::Fanout => Box::new(fanout::FanoutShape::new(plan, now)),
        ShapeName::Churn => Box::new(churn::Churn::new(plan, now)),
        flood => Box::new(flood::Flood::new(plan, flood, now)),
    }
}
