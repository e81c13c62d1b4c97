//! Why a connection ends, and how the kernel ends it: by a FIN or a reset.

use crate::sys::errno;

/// The reason why a connection ended. The server counts connections per reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The peer closed or half-closed the connection, and has been sent all its output.
    PeerClosed,
    /// The peer reset the connection, or the connection broke (ECONNRESET, EPIPE).
    PeerReset,
    /// The kernel gave up on the peer: no answer to probes within `keepalive`, no data taken within
    /// `user-timeout` (ETIMEDOUT), or no route.
    PeerVanished,
    /// The service closed the connection.
    ServiceClosed,
    /// The client completed no message within `first-message-timeout`.
    FirstMessageTimeout,
    /// The client sent messages, but not the password within `first-message-timeout`.
    LoginTimeout,
    /// The client began a message and did not complete it within `message-timeout`.
    MessageTimeout,
    /// The client completed no further message within `idle-timeout`.
    IdleTimeout,
    /// The peer took no byte of its output within `output-timeout`.
    OutputTimeout,
    /// The client did not answer a ping within `ping-interval`.
    PingTimeout,
    /// Pending output could not be sent, or the peer did not close, within `close-timeout`.
    CloseTimeout,
    /// The client sent a line longer than `max-line`.
    LineTooLong,
    /// The client broke its protocol.
    ProtocolError,
    /// A slow consumer: its unsent output exceeded `output-limit`.
    OutputLimit,
    /// The connection was evicted or refused memory because of `memory-budget`.
    MemoryBudget,
    /// The slot went to a newcomer. The connection was the oldest silent one, or of the operator's
    /// connections the longest idle one.
    Recycled,
    /// Its source has more unauthenticated connections than `max-unauthenticated-per-source`.
    Unauthenticated,
    /// The connection was the longest idle, and its slot went to a newcomer.
    IdleEvicted,
    /// A client closed it with CLIENT KILL.
    Killed,
    /// The server is draining.
    Drain,
    /// The server was draining, and `drain-timeout` ran out.
    DrainTimeout,
}

impl Reason {
    /// All reasons with their names, in the order of the arms.
    pub const ALL: [(Reason, &'static str); 21] = [
        (Reason::PeerClosed, "peer-closed"),
        (Reason::PeerReset, "peer-reset"),
        (Reason::PeerVanished, "peer-vanished"),
        (Reason::ServiceClosed, "service-closed"),
        (Reason::FirstMessageTimeout, "first-message-timeout"),
        (Reason::LoginTimeout, "login-timeout"),
        (Reason::MessageTimeout, "message-timeout"),
        (Reason::IdleTimeout, "idle-timeout"),
        (Reason::OutputTimeout, "output-timeout"),
        (Reason::PingTimeout, "ping-timeout"),
        (Reason::CloseTimeout, "close-timeout"),
        (Reason::LineTooLong, "line-too-long"),
        (Reason::ProtocolError, "protocol-error"),
        (Reason::OutputLimit, "output-limit"),
        (Reason::MemoryBudget, "memory-budget"),
        (Reason::Recycled, "recycled"),
        (Reason::Unauthenticated, "unauthenticated"),
        (Reason::IdleEvicted, "idle-evicted"),
        (Reason::Killed, "killed"),
        (Reason::Drain, "drain"),
        (Reason::DrainTimeout, "drain-timeout"),
    ];

    /// Returns the reason that an error of a read or a write stands for.
    pub fn of_error(error: &std::io::Error) -> Reason {
        match error.raw_os_error() {
            Some(errno::ETIMEDOUT | errno::EHOSTUNREACH | errno::ENETUNREACH) => {
                Reason::PeerVanished
            }
            _ => Reason::PeerReset,
        }
    }

    /// Returns how the kernel ends a connection that closes for this reason.
    pub fn farewell(self) -> Farewell {
        match self {
            // The connection has used up its time or memory. A FIN would keep its unsent data in
            // the kernel.
            Reason::FirstMessageTimeout
            | Reason::LoginTimeout
            | Reason::MessageTimeout
            | Reason::OutputTimeout
            | Reason::PingTimeout
            | Reason::CloseTimeout => Farewell::Reset,
            Reason::DrainTimeout
            | Reason::OutputLimit
            | Reason::MemoryBudget
            | Reason::Recycled
            | Reason::Unauthenticated => Farewell::Reset,
            Reason::IdleTimeout | Reason::IdleEvicted => Farewell::FinIfAcknowledged,
            // The peer has been sent everything and may still take it, or the connection is broken
            // already.
            Reason::PeerClosed
            | Reason::PeerReset
            | Reason::PeerVanished
            | Reason::ServiceClosed => Farewell::Fin,
            Reason::LineTooLong | Reason::ProtocolError | Reason::Killed | Reason::Drain => {
                Farewell::Fin
            }
        }
    }

    /// Returns whether input may be unread when the connection closes for this reason. Only the end
    /// of the peer's stream rules that out.
    pub(super) fn leaves_input_unread(self) -> bool {
        self != Reason::PeerClosed
    }

    /// Returns the reason's name in metrics and logs, such as `peer-closed`.
    pub fn name(self) -> &'static str {
        Reason::ALL[self as usize].1
    }
}

/// How the kernel ends a connection. After a FIN, the kernel keeps the socket and its
/// unacknowledged data, for minutes if the peer takes nothing (FIN_WAIT1). No budget of the server
/// counts that memory. A reset frees it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    Fin,
    /// A FIN if the peer has acknowledged all output, otherwise a reset.
    FinIfAcknowledged,
    Reset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ran_out_of_time_or_memory_is_reset() {
        let resets: Vec<Reason> = Reason::ALL
            .map(|(reason, _)| reason)
            .into_iter()
            .filter(|reason| reason.farewell() == Farewell::Reset)
            .collect();
        let expected = [
            Reason::FirstMessageTimeout,
            Reason::LoginTimeout,
            Reason::MessageTimeout,
            Reason::OutputTimeout,
            Reason::PingTimeout,
            Reason::CloseTimeout,
            Reason::OutputLimit,
            Reason::MemoryBudget,
            Reason::Recycled,
            Reason::Unauthenticated,
            Reason::DrainTimeout,
        ];
        assert_eq!(resets, expected);
        assert_eq!(Reason::IdleTimeout.farewell(), Farewell::FinIfAcknowledged);
    }

    #[test]
    fn a_timeout_of_the_kernel_means_that_the_peer_vanished() {
        let of = |errno| Reason::of_error(&std::io::Error::from_raw_os_error(errno));
        assert_eq!(
            [errno::ETIMEDOUT, errno::EHOSTUNREACH, errno::ENETUNREACH].map(of),
            [Reason::PeerVanished; 3]
        );
        assert_eq!([errno::ECONNRESET, errno::EPIPE].map(of), [Reason::PeerReset; 2]);
    }

    #[test]
    fn the_list_of_reasons_is_in_order_and_names_are_unique() {
        for (index, (reason, name)) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(Reason::ALL.iter().filter(|other| other.1 == name).count(), 1);
        }
    }
}
