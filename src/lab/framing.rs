//! `slabd lab framing`: a stream has no boundaries. What was written at once is read in parts, what was written in parts is read at
//! once, and only a rule that both ends know tells messages apart. A datagram arrives as it was sent, or not at all.

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
/// Larger than the server's socket may hold, and than one of its reads may take.
const BLOCK: usize = 100_000;
const PIECES: [&str; 4] = ["one ", "line ", "in ", "pieces\n"];
const SIZES: [usize; 10] = [1, 2, 10, 100, 500, 1000, 1472, 5000, 9000, 20_000];

/// What one way to write did on the other end.
#[derive(Clone, Debug, PartialEq)]
struct WriteResult {
    what: String,
    writes: u64,
    bytes: u64,
    /// Reads, or datagrams received, that took at least a byte.
    reads: u64,
    messages: u64,
}

/// Sizes of datagrams as sent, and as they came back.
type Sizes = (Vec<usize>, Vec<usize>);

pub fn run(_: &Scale) -> Result<Page> {
    let listen = ["--listen", "hello=127.0.0.1:0", "--listen", "discard=127.0.0.1:0", "--listen", "echo=127.0.0.1:0"];
    let mut server = ServerProcess::start(&listen)?;
    let results = [many_writes(&mut server)?, one_write(&mut server)?, pieces(&mut server)?];
    let (datagrams, sizes) = datagrams(&mut server)?;
    let rows = results.iter().chain([&datagrams]).map(|result| {
        row([&result.what, &result.writes, &figures::count(result.bytes), &result.reads, &result.messages])
    });
    let table = Table::new("What was written, and what the server read", " | writes | bytes | reads | messages", rows);
    let mut sections = vec![Section::Table(table)];
    sections.extend(judge(&results, &datagrams, &sizes).map(Section::Verdict));
    Ok(Page {
        title: "slabd lab framing".into(),
        summary: "A client writes in various ways, and the server's own counters tell how often it read and how many messages \
                  it found. `hello` takes a line for a message, `discard` whatever one read brings, `echo` by UDP a datagram. \
                  While it is stopped (SIGSTOP) the kernel goes on receiving for it."
            .into(),
        sections,
    })
}

fn judge([lines, block, pieces]: &[WriteResult; 3], datagrams: &WriteResult, (sent, received): &Sizes) -> [Verdict; 4] {
    [
        verdict(
            "Many writes can arrive as one read: a stream keeps the order of bytes, and forgets where a write ended.",
            format!(
                "{} writes arrived as {}; the rule that a line is a message found {} in them",
                lines.writes,
                times(lines.reads),
                lines.messages
            ),
            lines.reads < lines.writes && lines.messages == lines.writes,
        ),
        verdict(
            "One write can arrive as many reads: a read takes what is there, and what there is room for.",
            format!("one write of {} bytes arrived as {}", figures::count(block.bytes), times(block.reads)),
            block.writes == 1 && block.reads > 1,
        ),
        verdict(
            "Who reads must put messages together: a part of one is kept until the rest is there.",
            format!(
                "{} writes arrived as {}, and were {} message",
                pieces.writes,
                times(pieces.reads),
                pieces.messages
            ),
            pieces.reads > 1 && pieces.messages == 1,
        ),
        verdict(
            "A datagram has boundaries: it arrives whole and alone, or not at all.",
            format!(
                "{} datagrams of 1 to {} bytes arrived as {}, and came back as {sizes}",
                datagrams.writes,
                figures::count(sent.iter().copied().max().unwrap_or(0) as u64),
                datagrams.reads,
                sizes = if sent == received { "they were sent".to_string() } else { format!("{received:?}") }
            ),
            datagrams.reads == datagrams.writes && sent == received,
        ),
    ]
}

fn times(reads: u64) -> String {
    if reads == 1 { "1 read".into() } else { format!("{reads} reads") }
}

/// Ten lines, each a write of its own, to a server that is stopped meanwhile.
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
    write_result("10 lines, each a write; the server stopped meanwhile", LINES as u64, bytes, server, &before)
}

/// A hundred thousand bytes in one write. It blocks until the server's kernel has room for the last of them.
fn one_write(server: &mut ServerProcess) -> Result<WriteResult> {
    let mut client = client::connect(Ipv4Addr::LOCALHOST, server.address("discard")?)?;
    let before = settled(server)?;
    let bytes = client.write(&vec![b'x'; BLOCK])? as u64;
    ensure!(bytes == BLOCK as u64, "the kernel took {bytes} bytes of one write");
    wait_for(server, &before, "loop/bytes_in", bytes)?;
    write_result("one write of 100,000 bytes", 1, bytes, server, &before)
}

/// One line in four writes, each after the server has read the one before.
fn pieces(server: &mut ServerProcess) -> Result<WriteResult> {
    let mut client = greeted(server)?;
    let before = settled(server)?;
    let mut bytes = 0;
    for piece in PIECES {
        bytes += client.write(piece.as_bytes())? as u64;
        wait_for(server, &before, "loop/bytes_in", bytes)?;
    }
    client::expect(&mut client, b"Hello, one line in pieces!\r\n")?;
    write_result("one line in 4 writes, each once the one before was read", PIECES.len() as u64, bytes, server, &before)
}

/// Ten datagrams of various sizes to a server that is stopped meanwhile, so that they all wait for it together.
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
    let what = "10 datagrams; the server stopped meanwhile".to_string();
    let result = WriteResult { what, writes: SIZES.len() as u64, bytes, reads, messages: reads };
    Ok((result, (SIZES.to_vec(), received)))
}

fn greeted(server: &ServerProcess) -> Result<std::net::TcpStream> {
    let mut client = client::connect(Ipv4Addr::LOCALHOST, server.address("hello")?)?;
    client::expect(&mut client, b"Hello\r\n")?;
    Ok(client)
}

/// The counters once the server has nothing more to do: INFO itself is one read of six bytes and one message, then.
fn settled(server: &mut ServerProcess) -> Result<Info> {
    let mut last = server.info()?;
    for _ in 0..1000 {
        sleep(Duration::from_millis(1));
        let next = server.info()?;
        if next.growth(&last, "loop/reads")? == 1 && next.growth(&last, "loop/bytes_in")? == ASKING {
            return Ok(next);
        }
        last = next;
    }
    anyhow::bail!("the server does not come to rest")
}

/// Bytes of a question for the counters: `INFO` and a line break.
const ASKING: u64 = 6;

/// Waits until a counter of bytes has grown by so much, the questions for it not counted.
fn wait_for(server: &mut ServerProcess, before: &Info, name: &str, bytes: u64) -> Result<()> {
    client::wait_until(PATIENCE, "the server does not read what was sent", || {
        let info = server.info()?;
        let asked = info.growth(before, "server/total_commands_processed")?;
        Ok(info.growth(before, name)? - asked * ASKING >= bytes)
    })
}

/// What the counters say of it, less what asking for them has added: a read and a message each time.
fn write_result(what: &str, writes: u64, bytes: u64, server: &mut ServerProcess, before: &Info) -> Result<WriteResult> {
    let after = server.info()?;
    let asked = after.growth(before, "server/total_commands_processed")?;
    Ok(WriteResult {
        what: what.into(),
        writes,
        bytes,
        reads: after.growth(before, "loop/reads")? - asked,
        messages: after.growth(before, "loop/messages")? - asked,
    })
}

/// Waits until the other end's kernel has all that was written.
fn wait_until_taken(client: &std::net::TcpStream) -> Result<()> {
    let wrong = "the server's kernel does not take what was sent";
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
    fn a_stream_that_kept_boundaries_would_fail_each_claim() {
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
