//! What the simulation does with an honest client, whichever protocol it speaks.

use super::{Scene, Violation};
use crate::net::sim::ClientId;

/// An honest client. It checks what it receives.
pub trait HonestClient {
    /// Returns its open streams.
    fn ids(&self) -> Vec<ClientId>;

    /// Sets the maximum number of bytes that it receives at a time.
    fn set_appetite(&mut self, bytes: usize);

    /// Sends something at random.
    fn act(&mut self, scene: &mut Scene<'_>);

    /// Takes bytes from the server, and checks each answer and message.
    fn receive(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation>;

    /// Closes or resets its streams in any state.
    fn leave(&mut self, scene: &mut Scene<'_>);

    /// Notes the start of a drain. The loop must answer all that has arrived by now.
    fn drain_begins(&mut self, scene: &mut Scene<'_>);

    /// True if the client has all its answers, or its connection has ended.
    fn is_satisfied(&self) -> bool;

    /// False if something may be under way to the client that its streams do not show.
    fn is_quiet(&self) -> bool {
        true
    }

    /// True if the client is finished and the loop has freed its connections.
    fn is_over(&self) -> bool;

    /// Returns what the client waits for as text.
    fn waits_for(&self) -> String;
}
