//! Looks names up on threads of their own, because getaddrinfo(3) blocks.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

/// The number of a look-up, and its addresses or the reason why there are none.
type NameFound = (u32, io::Result<Vec<SocketAddr>>);

/// Stack of a look-up in bytes. The modules of getaddrinfo(3) keep some answers of 64 KiB on it.
const STACK: usize = 512 * 1024;

/// The look-ups under way, each on a thread that ends with its answer.
pub struct Resolver {
    sender: Sender<NameFound>,
    answers: Receiver<NameFound>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Resolver {
    /// Creates a resolver that calls `wake` when an answer waits.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Resolver {
        let (sender, answers) = mpsc::channel();
        Resolver { sender, answers, wake: Arc::new(wake) }
    }

    /// Looks a name up. Fails if the system has no thread for it.
    pub fn start(&self, number: u32, host: &str, port: u16) -> io::Result<()> {
        let (sender, wake, host) = (self.sender.clone(), self.wake.clone(), host.to_owned());
        let look_up = move || {
            // Without a receiver, the loop has ended.
            if sender.send((number, addresses(&host, port))).is_ok() {
                wake();
            }
        };
        thread::Builder::new().name("lookup".into()).stack_size(STACK).spawn(look_up).map(drop)
    }

    /// Returns the next answer that waits.
    pub fn take(&self) -> Option<NameFound> {
        self.answers.try_recv().ok()
    }
}

/// Returns the addresses of a name. Blocks until a name server has answered.
fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match (host, port).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(described(error)),
    }
}

/// Returns the kind `NotFound` for a name that has no address. The standard library has only the
/// text of gai_strerror(3) for it.
fn described(error: io::Error) -> io::Error {
    let text = error.to_string();
    let reason = text.rsplit(": ").next().unwrap_or_default();
    let is_passing = ["emporary", "ry again", "emory", "System error"];
    match is_passing.iter().any(|part| reason.contains(part)) {
        true => io::Error::other(reason.to_owned()),
        false => io::Error::new(io::ErrorKind::NotFound, reason.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_an_address_is_not_found_and_other_failures_keep_their_text() {
        for (text, kind, reason) in [
            (
                "failed to lookup address information: Name or service not known",
                io::ErrorKind::NotFound,
                "Name or service not known",
            ),
            (
                "failed to lookup address information: Name does not resolve",
                io::ErrorKind::NotFound,
                "Name does not resolve",
            ),
            (
                "failed to lookup address information: Temporary failure in name resolution",
                io::ErrorKind::Other,
                "Temporary failure in name resolution",
            ),
        ] {
            let error = described(io::Error::other(text));
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, reason));
        }
    }

    #[test]
    fn each_look_up_is_answered_under_its_number_and_wakes_its_caller() {
        let (sender, woken) = mpsc::channel();
        let resolver = Resolver::new(move || sender.send(()).unwrap());
        resolver.start(7, "localhost", 6379).unwrap();
        resolver.start(8, "localhost", 6380).unwrap();
        let mut answers: Vec<NameFound> = (0..2)
            .map(|_| {
                woken.recv().unwrap();
                resolver.take().unwrap()
            })
            .collect();
        assert!(resolver.take().is_none());
        answers.sort_by_key(|(number, _)| *number);
        for ((number, found), expected) in answers.into_iter().zip([(7, 6379), (8, 6380)]) {
            let found = found.unwrap();
            assert_eq!((number, found[0].port()), expected);
            assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        }
    }
}
