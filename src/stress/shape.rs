//! The shapes of load: each decides what to dial, to send and to close, and never sees a socket.
//!
//! The driver calls [`Shape::act`] once per turn, and the other methods when something happens. A
//! shape acts through the [`World`].

pub mod churn;
pub mod datagram;
pub mod fanout;
pub mod flood;
pub mod hold;
pub mod ping;
pub mod probes;
pub mod search;

use super::answer::WRONG;
use super::args::ShapeName;
use super::pace::Next;
use super::plan::Plan;
use super::record::Record;
use super::target::Scheme;
use super::world::World;
use crate::clock::Time;
use crate::net::Net;

/// A shape of load, called by the driver.
pub trait Shape<N: Net> {
    /// Does what is due, and returns when to act next.
    fn act(&mut self, world: &mut World<N>) -> Next;

    /// Called when a connection is established and authenticated.
    fn opened(&mut self, world: &mut World<N>, slot: u32);

    /// Called when all requests of a connection are answered. Unless it `goes_on`, the server
    /// closes the connection now.
    fn answered(&mut self, _world: &mut World<N>, _slot: u32, _goes_on: bool) {}

    /// Called with requests of a connection that the server closed in order before it answered
    /// them. The shape sends them again, and returns true; or they count as errors.
    fn repeats(&mut self, _count: u32, _due: Time) -> bool {
        false
    }

    /// Called with a message that answers no request. Returns false if the connection is closed.
    fn message(&mut self, world: &mut World<N>, slot: u32, message: &[u8], is_error: bool) -> bool {
        self.unasked(world, slot, message, is_error)
    }

    /// Takes a message that no shape expects. Returns false if the connection is closed.
    fn unasked(&mut self, world: &mut World<N>, slot: u32, message: &[u8], is_error: bool) -> bool {
        if world.wire.is_pushed_to() {
            return true;
        }
        // A server may give its reason before it closes a connection.
        if is_error {
            world.meter.refused(message);
            return true;
        }
        world.meter.error(WRONG, 1);
        world.close(slot);
        self.ended(world, slot);
        false
    }

    /// Called at the moment that the shape asked for with [`World::wake`].
    fn woken(&mut self, _world: &mut World<N>, _slot: u32) {}

    /// Called when a connection has ended or a connect has failed. The slot is free after this
    /// turn.
    fn ended(&mut self, world: &mut World<N>, slot: u32);

    /// Ends the load after a signal. Requests that are due and unanswered count with their wait so
    /// far.
    fn stop(&mut self, _world: &mut World<N>) {}

    /// Adds to the record the results that only this shape has.
    fn finish(&mut self, _world: &mut World<N>, _record: &mut Record) {}

    /// Called when one of the shape's sockets may have datagrams to receive.
    fn datagrams(&mut self, _world: &mut World<N>, _socket: u8) {}
}

/// Returns the shape of a plan.
pub fn build<N: Net + 'static>(plan: &Plan, now: Time) -> Box<dyn Shape<N>> {
    match plan.shape {
        ShapeName::Ping if plan.target.scheme == Scheme::Udp => {
            Box::new(datagram::DatagramPing::new(plan))
        }
        ShapeName::Ping => Box::new(ping::Ping::new(plan, now)),
        ShapeName::Hold => Box::new(hold::Hold::new(plan, now)),
        ShapeName::Search => Box::new(search::Search::new(plan, now)),
        ShapeName::Fanout => Box::new(fanout::FanoutShape::new(plan, now)),
        ShapeName::Churn => Box::new(churn::Churn::new(plan, now)),
        flood => Box::new(flood::Flood::new(plan, flood, now)),
    }
}
