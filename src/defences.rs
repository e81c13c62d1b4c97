//! One switch for each defence, so that a test build can take it out and show that its test then fails.
//!
//! With the feature `removable-defences` the environment variable SLABD_WITHOUT names the defence to leave out; `tests/defences` goes through
//! all of them. Without the feature every switch is the constant `true`, and no trace is left.

macro_rules! defences {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What can be taken out, by the name in SLABD_WITHOUT.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Defence {
            $($(#[$doc])* $name,)*
        }

        impl Defence {
            pub const ALL: &[(Defence, &str)] = &[$((Defence::$name, $text),)*];
        }
    };
}

defences! {
    /// The silent set is bounded.
    SilentSet = "silent-set",
    /// The oldest silent connection makes way.
    Recycling = "recycling",
    /// A source with several silent connections makes way first.
    FairRecycling = "fair-recycling",
    /// Silent connections of one source.
    SourceSilent = "source-silent",
    /// Connections of one source.
    SourceConnections = "source-connections",
    /// Sources that let deadlines pass are refused.
    Penalty = "penalty",
    /// Slots kept for the operator.
    ReservedSlots = "reserved-slots",
    /// A full gate opens only when a few slots are free.
    GateHysteresis = "gate-hysteresis",
    /// Those who wait are told when files run out.
    Shedding = "shedding",
    /// Accept is tried again by timer.
    AcceptRetry = "accept-retry",
    /// The deadline of the first message.
    FirstMessage = "first-message",
    /// The deadline of a whole message.
    WholeMessage = "whole-message",
    Idle = "idle",
    /// Output that the peer takes nothing of.
    UnreadOutput = "unread-output",
    /// Much output that lasts.
    SoftLimit = "soft-limit",
    HardLimit = "hard-limit",
    /// A peer with much unsent output is not read.
    Backpressure = "backpressure",
    /// Closing takes no longer than its deadline.
    Closing = "closing",
    Draining = "draining",
    /// Who ran out of time is reset.
    Resets = "resets",
    /// Keepalive, user timeout and capped buffers on listeners.
    SocketOptions = "socket-options",
    /// The largest are closed before the memory budget is passed.
    Eviction = "eviction",
    /// And who asks for more than there is.
    Budget = "budget",
    /// Answers to datagrams from our own ports.
    DatagramLoops = "datagram-loops",
    /// An event for a slot's previous owner misses.
    Generations = "generations",
    /// Who has undrained input comes again.
    Carry = "carry",
    /// A timer that fires before its deadline is armed again.
    Rearm = "rearm",
    /// After a stop of the process, input comes before deadlines.
    CatchingUp = "catching-up",
    /// A session that ends is subscribed to nothing any more.
    Membership = "membership",
    /// What waits in the kernel's accept queue is taken in a later turn.
    AcceptCarry = "accept-carry",
    /// After a write cut short by a signal, the rest is written in the next turn.
    InterruptedWrites = "interrupted-writes",
    /// A subscriber in a drain gets what was published to it first.
    DrainDelivers = "drain-delivers",
    /// A message misses who has taken over the number of its receiver.
    ReceiverIds = "receiver-ids",
    /// Messages of one connection in a turn.
    MessageBudget = "message-budget",
    AcceptBudget = "accept-budget",
    ExpiryBudget = "expiry-budget",
    DeliveryBudget = "delivery-budget",
    /// Commands that ask the kernel, in a turn.
    ConsultBudget = "consult-budget",
    /// No input while much waits for delivery.
    Backlog = "backlog",
    /// Steps of a publish through the patterns.
    PatternSteps = "pattern-steps",
    /// What the names of all subscriptions take up.
    HeldNames = "held-names",
    /// What the end of all subscriptions of a session takes up.
    Confirmations = "confirmations",
    /// What a peer may send before its password.
    UntrustedInput = "untrusted-input",
    /// And be owed.
    UntrustedOutput = "untrusted-output",
    /// The wait between guesses of the password.
    Guesses = "guesses",
    /// Without a password, this machine alone is served.
    ProtectedMode = "protected-mode",
    /// Datagrams of one network.
    DatagramRate = "datagram-rate",
    /// The answer to a datagram is not longer than it.
    ShortAnswers = "short-answers",
}

/// Whether a defence is in place: always, but in a test build that takes it out.
#[cfg(not(feature = "removable-defences"))]
pub const fn stands(_defence: Defence) -> bool {
    true
}

#[cfg(feature = "removable-defences")]
pub fn stands(defence: Defence) -> bool {
    static REMOVED: std::sync::LazyLock<Option<Defence>> = std::sync::LazyLock::new(|| {
        let name = std::env::var("SLABD_WITHOUT").ok()?;
        let found = Defence::ALL.iter().find(|(_, text)| *text == name);
        Some(found.expect("SLABD_WITHOUT names a defence").0)
    });
    *REMOVED != Some(defence)
}

/// A budget of a turn, or as good as none where its defence is taken out.
pub fn budget(limit: usize, defence: Defence) -> usize {
    if stands(defence) { limit } else { usize::MAX / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script goes through the list; a defence that is not in it would never be missed.
    #[test]
    fn each_has_its_test_in_the_list() {
        let script = include_str!("../tests/defences");
        for (_, name) in Defence::ALL {
            assert!(
                script.lines().any(|line| line.split(' ').next() == Some(name)),
                "tests/defences has no row for {name}"
            );
        }
    }
}
