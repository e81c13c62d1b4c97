//! Wrong passwords at 1,000 a second for 10 s, and right ones from the same address beside them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::hub_answers::guarded;
use crate::support::{Client, all_files};

const RATE: u64 = 1000;
const LASTS: Duration = Duration::from_secs(5);
/// Time within which a right password must be accepted, connecting included.
const AT_ONCE: Duration = Duration::from_millis(50);
/// The address of the guesser and of the honest clients.
const SOURCE: u8 = 77;

/// Guesses at [`RATE`] on this many connections; with 0, each guess has a connection of its own.
/// Returns the number of answers.
fn guess(address: SocketAddr, kept: usize, guesses: &AtomicU64, stops: &AtomicBool) -> usize {
    let (began, mut answers, mut open) = (Instant::now(), 0, Vec::<TcpStream>::new());
    while !stops.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * RATE as f64) as u64;
        while guesses.load(Ordering::Relaxed) < due {
            let number = guesses.fetch_add(1, Ordering::Relaxed);
            if kept == 0 || open.len() < kept {
                let Ok(Client(stream)) = Client::connect_from(SOURCE, address) else { continue };
                stream.set_nonblocking(true).unwrap();
                open.push(stream);
            }
            let at = if kept == 0 { open.len() - 1 } else { number as usize % open.len() };
            // The server may have closed the connection.
            let _ = open[at].write(format!("AUTH guess{number}\r\n").as_bytes());
        }
        open.retain_mut(|stream| {
            let mut bytes = [0; 4096];
            match stream.read(&mut bytes) {
                Ok(length) => {
                    answers += String::from_utf8_lossy(&bytes[..length]).matches("WRONG").count();
                    length > 0
                }
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        });
        sleep(Duration::from_millis(1));
    }
    answers
}

#[test]
fn right_passwords_are_accepted_at_once_beside_1000_wrong_ones_a_second() {
    let _all_files = all_files();
    for (kept, name) in [(100, "100 connections"), (0, "a connection for each guess")] {
        let server = guarded(&[]);
        let address = server.address("hub");
        let (stops, guesses) = (AtomicBool::new(false), AtomicU64::new(0));
        let (mut waits, mut answers) = (Vec::new(), 0);
        std::thread::scope(|scope| {
            let guesser = scope.spawn(|| guess(address, kept, &guesses, &stops));
            let began = Instant::now();
            while began.elapsed() < LASTS {
                let asked = Instant::now();
                let mut client = Client::connect_from(SOURCE, address).unwrap();
                client.send("AUTH secret\r\n").expect("+OK\r\n");
                waits.push(asked.elapsed());
                sleep(Duration::from_millis(5));
            }
            stops.store(true, Ordering::Relaxed);
            answers = guesser.join().unwrap();
        });
        waits.sort_unstable();
        let at_once = waits.iter().filter(|wait| **wait <= AT_ONCE).count();
        let share = 100.0 * at_once as f64 / waits.len() as f64;
        let (tries, guesses) = (waits.len(), guesses.into_inner());
        println!(
            "drill passwords, {name}: {guesses} wrong ones, {answers} answered; {tries} right \
             ones, {share:.2} % accepted within {AT_ONCE:?}, the slowest in {:?}",
            waits[tries - 1]
        );
        assert!(guesses as f64 >= 0.9 * (RATE * LASTS.as_secs()) as f64, "{guesses}");
        assert!(share >= 99.9, "{share} % of the right passwords were accepted at once");
        assert!(answers <= 66 * LASTS.as_secs() as usize, "{answers} answers");
    }
}
