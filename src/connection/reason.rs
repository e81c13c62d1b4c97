//! Why a connection ends, and how it leaves the kernel.

use crate::sys::errno;

/// Why a connection ended: a closed set, each counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The peer closed or half-closed, and got what it was owed.
    PeerClosed,
    /// The peer reset the connection, or it broke: ECONNRESET, EPIPE and the like.
    PeerReset,
    /// The kernel gave the peer up: it answered no probe within `keepalive`, or took no data within `user-timeout` (ETIMEDOUT), or
    /// the way to it is gone.
    PeerVanished,
    /// The service said so.
    ServiceClosed,
    /// No complete message within `first-message-timeout`.
    FirstMessageTimeout,
    /// A message was begun and not completed within `message-timeout`.
    MessageTimeout,
    /// No message within `idle-timeout`.
    IdleTimeout,
    /// The peer took no byte of its output within `output-timeout`.
    OutputTimeout,
    /// What was owed could not be sent, or the peer did not close, within `close-timeout`.
    CloseTimeout,
    /// A line longer than `max-line`.
    LineTooLong,
    /// It broke its protocol.
    ProtocolError,
    /// More output was unsent than `output-limit`: a slow consumer.
    OutputLimit,
    /// It needed memory beyond `memory-budget`.
    MemoryBudget,
    /// It had said nothing, was the oldest of those, and made way for another.
    Recycled,
    /// Someone had it closed: CLIENT KILL.
    Killed,
    /// The server is stopping.
    Drain,
    /// The server is stopping, and `drain-timeout` ran out.
    DrainTimeout,
}

impl Reason {
    /// With their names, in the order of the arms.
    pub const ALL: [(Reason, &'static str); 17] = [
        (Reason::PeerClosed, "peer-closed"),
        (Reason::PeerReset, "peer-reset"),
        (Reason::PeerVanished, "peer-vanished"),
        (Reason::ServiceClosed, "service-closed"),
        (Reason::FirstMessageTimeout, "first-message-timeout"),
        (Reason::MessageTimeout, "message-timeout"),
        (Reason::IdleTimeout, "idle-timeout"),
        (Reason::OutputTimeout, "output-timeout"),
        (Reason::CloseTimeout, "close-timeout"),
        (Reason::LineTooLong, "line-too-long"),
        (Reason::ProtocolError, "protocol-error"),
        (Reason::OutputLimit, "output-limit"),
        (Reason::MemoryBudget, "memory-budget"),
        (Reason::Recycled, "recycled"),
        (Reason::Killed, "killed"),
        (Reason::Drain, "drain"),
        (Reason::DrainTimeout, "drain-timeout"),
    ];

    /// What an error of a read or a write says of the peer.
    pub fn of_error(error: &std::io::Error) -> Reason {
        match error.raw_os_error() {
            Some(errno::ETIMEDOUT | errno::EHOSTUNREACH | errno::ENETUNREACH) => Reason::PeerVanished,
            _ => Reason::PeerReset,
        }
    }

    /// How a connection that ends for this reason leaves the kernel.
    pub fn farewell(self) -> Farewell {
        match self {
            // It has had its time or its memory: whatever is still on its way to it would lie in the kernel for as long again.
            Reason::FirstMessageTimeout | Reason::MessageTimeout | Reason::OutputTimeout | Reason::CloseTimeout => {
                Farewell::Reset
            }
            Reason::DrainTimeout | Reason::OutputLimit | Reason::MemoryBudget | Reason::Recycled => Farewell::Reset,
            Reason::IdleTimeout => Farewell::FinIfAcknowledged,
            // Here the peer has got all it was owed, or a time to take it in; or nothing is left of the connection.
            Reason::PeerClosed | Reason::PeerReset | Reason::PeerVanished | Reason::ServiceClosed => Farewell::Fin,
            Reason::LineTooLong | Reason::ProtocolError | Reason::Killed | Reason::Drain => Farewell::Fin,
        }
    }

    /// Whether the peer may still be sending when the connection is closed for this reason. Only after the end of its
    /// stream was read it cannot.
    pub(super) fn leaves_input_unread(self) -> bool {
        self != Reason::PeerClosed
    }

    pub fn name(self) -> &'static str {
        Reason::ALL[self as usize].1
    }
}

/// How the kernel is to end a connection. After a FIN it goes on sending what the peer has not acknowledged, for minutes where the peer takes
/// nothing, with a socket and buffers that nobody here counts any more (FIN_WAIT1). A reset forgets it all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    Fin,
    /// A reset where something is unacknowledged.
    FinIfAcknowledged,
    Reset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_ran_out_of_time_or_memory_is_reset() {
        let resets: Vec<Reason> = Reason::ALL
            .map(|(reason, _)| reason)
            .into_iter()
            .filter(|reason| reason.farewell() == Farewell::Reset)
            .collect();
        let expected = [
            Reason::FirstMessageTimeout,
            Reason::MessageTimeout,
            Reason::OutputTimeout,
            Reason::CloseTimeout,
            Reason::OutputLimit,
            Reason::MemoryBudget,
            Reason::Recycled,
            Reason::DrainTimeout,
        ];
        assert_eq!(resets, expected);
        assert_eq!(Reason::IdleTimeout.farewell(), Farewell::FinIfAcknowledged);
    }

    #[test]
    fn a_peer_that_the_kernel_gave_up_has_vanished() {
        let of = |errno| Reason::of_error(&std::io::Error::from_raw_os_error(errno));
        assert_eq!([errno::ETIMEDOUT, errno::EHOSTUNREACH, errno::ENETUNREACH].map(of), [Reason::PeerVanished; 3]);
        assert_eq!([errno::ECONNRESET, errno::EPIPE].map(of), [Reason::PeerReset; 2]);
    }

    #[test]
    fn reasons_are_listed_once_in_order_and_named_apart() {
        for (index, (reason, name)) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(Reason::ALL.iter().filter(|other| other.1 == name).count(), 1);
        }
    }
}
