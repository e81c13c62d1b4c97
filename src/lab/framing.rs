//! `slabd lab framing`: a TCP stream does not keep the boundaries of writes. One write can arrive
//! in several reads, and several writes in one. Both ends need a rule, such as a line break, to
//! find the messages. A datagram arrives whole or not at all.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::client::{self, PATIENCE};
use super::server::{Info, ServerProcess};
use super::{Scale, row, verdict};
use crate::report::figures;
use crate::report::{Page, Section, Table, Verdict};
use crate::sys;

const LINES: usize = 10;
/// Bytes of one large write: more than one read of the server takes.
const BLOCK: usize = 100_000;
const PIECES: [&str; 4] = ["one ", "line ", "in ", "pieces\n"];
const SIZES: [usize; 10] = [1, 2, 10, 100, 500, 1000, 1472, 5000, 9000, 20_000];

/// The effect of one way of writing on the other end.
#[derive(Clone, Debug, PartialEq)]
struct WriteResult {
    what: String,
    writes: u64,
    bytes: u64,
    /// Reads that returned at least one byte, or datagrams received.
    reads: u64,
    messages: u64,
}

/// The sizes of datagrams as sent and as received back.
type Sizes = (Vec<usize>, Vec<usize>);

pub fn run(_: &Scale) -> Result<Page> {
    let listen = [
        "--listen",
        "hello=127.0.0.1:0",
        "--listen",
        "discard=127.0.0.1:0",
        "--listen",
        "echo=127.0.0.1:0",
    ];
    let mut server = ServerProcess::start(&listen)?;
    let results = [many_writes(&mut server)?, one_write(&mut server)?, pieces(&mut server)?];
    let (datagrams, sizes) = datagrams(&mut server)?;
    let rows = results.iter().chain([&datagrams]).map(|result| {
        row([
            &result.what,
            &result.writes,
            &figures::count(result.bytes),
            &result.reads,
            &result.messages,
        ])
    });
    let table = Table::new(
        "Writes of the client and reads of the server",
        " | writes | bytes | reads | messages",
        rows,
    );
    let mut sections = vec![Section::Table(table)];
    sections.extend(judge(&results, &datagrams, &sizes).map(Section::Verdict));
    Ok(Page {
        title: "slabd lab framing".into(),
        summary: "A client writes in four ways. The server's own counters show how often it read \
                  and how many messages it found. For the service `hello` a message is a line, \
                  for `discard` it is the bytes of one read, and for `echo` by UDP it is a \
                  datagram. While the server is stopped (SIGSTOP), its kernel goes on receiving."
            .into(),
        sections,
    })
}

fn judge(
    [lines, block, pieces]: &[WriteResult; 3],
    datagrams: &WriteResult,
    (sent, received): &Sizes,
) -> [Verdict; 4] {
    [
        verdict(
            "Many writes can arrive in one read: a stream keeps the order of bytes, but not the \
             end of each write.",
            format!(
                "{} writes arrived in {}; the server split them by line into {} messages",
                lines.writes,
                counted(lines.reads, "read"),
                lines.messages
            ),
            lines.reads < lines.writes && lines.messages == lines.writes,
        ),
        verdict(
            "One write can arrive in many reads: a read takes the bytes that have arrived, up to \
             the size of its buffer.",
            format!(
                "one write of {} bytes arrived in {}",
                figures::count(block.bytes),
                counted(block.reads, "read")
            ),
            block.writes == 1 && block.reads > 1,
        ),
        verdict(
            "A reader must assemble messages: it keeps the first part of a message until the \
             rest has arrived.",
            format!(
                "{} writes arrived in {}; the server put them together into {}",
                pieces.writes,
                counted(pieces.reads, "read"),
                counted(pieces.messages, "message")
            ),
            pieces.reads > 1 && pieces.messages == 1,
        ),
        verdict(
            "A datagram has boundaries: it arrives whole and alone, or not at all.",
            format!(
                "{} datagrams of 1 to {} bytes arrived as {}, and came back with {sizes}",
                datagrams.writes,
                figures::count(sent.iter().copied().max().unwrap_or(0) as u64),
                datagrams.reads,
                sizes = if sent == received {
                    "the same sizes".to_string()
                } else {
                    format!("the sizes {received:?}")
                }
            ),
            datagrams.reads == datagrams.writes && sent == received,
        ),
    ]
}

/// Returns a count with its noun: `1 read`, `2 reads`.
fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Writes ten lines, each by its own call, while the server is stopped.
fn many_writes(server: &mut ServerProcess) -> Result<WriteResult> {
    let mut client = greeted(server)?;
    let before = settled(server)?;
    server.freeze()?;
    let mut bytes = 0;
    for number in 0..LINES {
        bytes += client.write(format!("{number}\n").as_bytes())? as u64;
    }
    wait_until_taken(&client)?;
    server.thaw()?;
    for number in 0..LINES {
        client::expect(&mut client, format!("Hello, {number}!\r\n").as_bytes())?;
    }
    write_result(
        "10 lines, one write each, to a stopped server",
        LINES as u64,
        bytes,
        server,
        &before,
    )
}

/// Writes 100,000 bytes by one call. The call blocks until the kernels have taken the last byte.
fn one_write(server: &mut ServerProcess) -> Result<WriteResult> {
    let mut client = client::connect(Ipv4Addr::LOCALHOST, server.address("discard")?)?;
    let before = settled(server)?;
    let bytes = client.write(&vec![b'x'; BLOCK])? as u64;
    ensure!(bytes == BLOCK as u64, "the kernel took only {bytes} bytes of one write");
    wait_for(server, &before, "loop/bytes_in", bytes)?;
    write_result("one write of 100,000 bytes", 1, bytes, server, &before)
}

/// Writes one line by four calls. Each waits until the server has read the previous part.
fn pieces(server: &mut ServerProcess) -> Result<WriteResult> {
    let mut client = greeted(server)?;
    let before = settled(server)?;
    let mut bytes = 0;
    for piece in PIECES {
        bytes += client.write(piece.as_bytes())? as u64;
        wait_for(server, &before, "loop/bytes_in", bytes)?;
    }
    client::expect(&mut client, b"Hello, one line in pieces!\r\n")?;
    write_result(
        "one line in 4 writes, each after a read of the last",
        PIECES.len() as u64,
        bytes,
        server,
        &before,
    )
}

/// Sends ten datagrams of different sizes to a stopped server, so all of them wait for it together.
fn datagrams(server: &mut ServerProcess) -> Result<(WriteResult, Sizes)> {
    let socket = client::datagrams(server.address("echo")?)?;
    let before = settled(server)?;
    server.freeze()?;
    let mut bytes = 0;
    for size in SIZES {
        bytes += socket.send(&vec![b'x'; size])? as u64;
    }
    server.thaw()?;
    let (mut received, mut buffer) = (Vec::new(), vec![0; 65_536]);
    for _ in SIZES {
        received.push(socket.recv(&mut buffer)?);
    }
    let after = server.info()?;
    let reads = after.growth(&before, "datagrams/in")?;
    let what = "10 datagrams, to a stopped server".to_string();
    let result = WriteResult { what, writes: SIZES.len() as u64, bytes, reads, messages: reads };
    Ok((result, (SIZES.to_vec(), received)))
}

fn greeted(server: &ServerProcess) -> Result<std::net::TcpStream> {
    let mut client = client::connect(Ipv4Addr::LOCALHOST, server.address("hello")?)?;
    client::expect(&mut client, b"Hello\r\n")?;
    Ok(client)
}

/// Returns the counters of the server once it is idle. From then on, only INFO itself adds to them:
/// one read of six bytes.
fn settled(server: &mut ServerProcess) -> Result<Info> {
    let mut last = server.info()?;
    for _ in 0..1000 {
        sleep(Duration::from_millis(1));
        let next = server.info()?;
        if next.growth(&last, "loop/reads")? == 1 && next.growth(&last, "loop/bytes_in")? == ASKING
        {
            return Ok(next);
        }
        last = next;
    }
    anyhow::bail!("the server does not become idle")
}

/// Bytes of one INFO command: `INFO` and a line break.
const ASKING: u64 = 6;

/// Waits until a counter has grown by `bytes`. The bytes of the INFO commands themselves do not
/// count.
fn wait_for(server: &mut ServerProcess, before: &Info, name: &str, bytes: u64) -> Result<()> {
    client::wait_until(PATIENCE, "the server does not read the bytes sent to it", || {
        let info = server.info()?;
        let asked = info.growth(before, "Stats/total_commands_processed")?;
        Ok(info.growth(before, name)? - asked * ASKING >= bytes)
    })
}

/// Returns the growth of the counters, less the read and the message of each INFO command.
fn write_result(
    what: &str,
    writes: u64,
    bytes: u64,
    server: &mut ServerProcess,
    before: &Info,
) -> Result<WriteResult> {
    let after = server.info()?;
    let asked = after.growth(before, "Stats/total_commands_processed")?;
    Ok(WriteResult {
        what: what.into(),
        writes,
        bytes,
        reads: after.growth(before, "loop/reads")? - asked,
        messages: after.growth(before, "loop/messages")? - asked,
    })
}

/// Waits until the other end's kernel has acknowledged every byte.
fn wait_until_taken(client: &std::net::TcpStream) -> Result<()> {
    let wrong = "the server's kernel does not take the bytes sent to it";
    client::wait_until(PATIENCE, wrong, || Ok(sys::unacknowledged(client.as_fd())? == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    fn write_result(writes: u64, reads: u64, messages: u64) -> WriteResult {
        WriteResult { what: String::new(), writes, bytes: 100, reads, messages }
    }

    fn outcomes(results: [WriteResult; 3], datagrams: WriteResult, sizes: Sizes) -> [Outcome; 4] {
        judge(&results, &datagrams, &sizes).map(|verdict| verdict.outcome)
    }

    #[test]
    fn a_stream_that_keeps_boundaries_fails_each_claim() {
        use Outcome::{Fails, Holds};
        let good = || [write_result(10, 1, 10), write_result(1, 7, 7), write_result(4, 4, 1)];
        let sizes = || (vec![1, 2], vec![1, 2]);
        assert_eq!(outcomes(good(), write_result(2, 2, 2), sizes()), [Holds; 4]);
        let bad = [write_result(10, 10, 10), write_result(1, 1, 1), write_result(4, 4, 4)];
        assert_eq!(outcomes(bad, write_result(2, 1, 1), sizes()), [Fails; 4]);
        let bad = [write_result(10, 1, 1), write_result(1, 1, 1), write_result(4, 1, 1)];
        assert_eq!(outcomes(bad, write_result(2, 2, 2), (vec![1, 2], vec![3])), [Fails; 4]);
    }
}
