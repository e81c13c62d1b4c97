//! `slabd lab memory`: the memory of a connection, in the server and in the kernel, as their number
//! grows. Compares buffers from a pool with two fixed buffers per connection.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use super::client::PATIENCE;
use super::server::{Info, ServerProcess};
use super::{Scale, client, row, say, untried, verdict};
use crate::report::figures;
use crate::report::{Page, Plot, Section, Series, Table, Verdict};

const CONNECTIONS: usize = 15_000;
const QUICK: usize = 2000;
const MESSAGES: usize = 3;

/// Maximum user bytes per connection after traffic, in a release build.
const USER_BYTES_MAX: f64 = 96.0;
/// Bytes of each of the two fixed buffers of a naive design, one per direction.
const FIXED: usize = 4096;
/// Points of the plot, as fractions of the largest count.
const STEPS: [(usize, usize); 6] = [(1, 16), (1, 8), (1, 4), (1, 2), (3, 4), (1, 1)];
/// Maximum growth of the cost per connection from a quarter of the connections to all of them.
/// Tables that double in size when full cause at most this much.
const GROWTH_MAX: f64 = 1.25;
/// Bytes that the server may touch for the first time between two measurements, whatever the number
/// of connections: pages of the program and of its heap. With 2,000 connections one page is 2 B
/// each.
const FIRST_TOUCHED_MAX: f64 = 64.0 * 1024.0;

/// The memory of the server with one count of connections, in bytes per connection.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    connections: usize,
    /// Growth of the resident set.
    user: f64,
    /// The server's own account of its memory.
    ledger: f64,
    kernel: Kernel,
}

/// Kernel memory of one end of a connection, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Kernel {
    structures: f64,
    /// False if the kernel does not show it. Then `structures` is a typical figure.
    measured: bool,
    buffers: f64,
}

impl Kernel {
    fn total(&self) -> f64 {
        self.structures + self.buffers
    }
}

pub fn run(scale: &Scale) -> Result<Page> {
    let most = scale.connections.unwrap_or(if scale.quick { QUICK } else { CONNECTIONS });
    let counts = STEPS.map(|(part, of)| (most * part / of).max(1));
    let pooled = measure("pooled", &counts)?;
    let fixed = measure(&format!("fixed:{FIXED}"), &counts)?;
    let mut sections =
        vec![Section::Plot(plot(&pooled, &fixed)), Section::Table(table(&pooled, &fixed))];
    sections.extend(judge(&pooled, &fixed).map(Section::Verdict));
    if cfg!(debug_assertions) {
        let note = "This is a debug build. Its connections are larger; the claim of 96 bytes is \
                    about a release build.";
        sections.push(Section::Paragraph(note.into()));
    }
    Ok(Page {
        title: "slabd lab memory".into(),
        summary: format!(
            "Up to {} connections to a hub. Each has sent {MESSAGES} PINGs and read the answers. \
             User memory is the growth of the server's resident set. The ledger is the server's \
             own account of it. Kernel memory is that of the server's end of a connection: its \
             structures (/proc/slabinfo) and the bytes queued in its socket (SO_MEMINFO).",
            figures::count(most as u64)
        ),
        sections,
    })
}

fn judge(pooled: &[Point], fixed: &[Point]) -> [Verdict; 4] {
    let last = |points: &[Point]| points.last().copied();
    let (many, naive) = (last(pooled), last(fixed));
    let quarter =
        many.and_then(|many| pooled.iter().find(|point| point.connections * 4 >= many.connections));
    let claims = [
        "An idle connection costs the server at most 96 bytes, even after traffic, because it \
         holds a buffer only while it needs one.",
        "A fixed buffer costs its full size even when idle: two of 4,096 bytes cost more than \
         8 KiB per connection.",
        "The cost per connection does not grow with the number of connections.",
        "The kernel's share is larger than the server's, and no server can avoid it: about 4 KiB \
         for each end of a TCP connection.",
    ];
    let (Some(many), Some(naive), Some(quarter)) = (many, naive, quarter) else {
        return claims.map(|claim| untried(claim, "nothing was measured".into()));
    };
    let count = figures::count(many.connections as u64);
    [
        verdict(
            claims[0],
            format!("{:.1} bytes per connection with {count} connections", many.user),
            many.user <= USER_BYTES_MAX,
        ),
        verdict(
            claims[1],
            format!(
                "{} bytes per connection, {:.0} times as much",
                figures::count(naive.user as u64),
                naive.user / many.user.max(1.0)
            ),
            naive.user >= 2.0 * FIXED as f64,
        ),
        verdict(
            claims[2],
            format!(
                "{:.1} bytes per connection with {} of them, {:.1} with {count}",
                quarter.user,
                figures::count(quarter.connections as u64),
                many.user
            ),
            many.user <= GROWTH_MAX * quarter.user + FIRST_TOUCHED_MAX / many.connections as f64,
        ),
        match many.kernel {
            kernel if kernel.measured => {
                let (total, times) = (kernel.total(), kernel.total() / many.user.max(1.0));
                verdict(
                    claims[3],
                    format!(
                        "{} bytes, {times:.0} times the server's",
                        figures::count(total as u64)
                    ),
                    (2000.0..8000.0).contains(&total) && times > 1.0,
                )
            }
            kernel => untried(
                claims[3],
                format!(
                    "only root may read /proc/slabinfo; {:.0} bytes are typical",
                    kernel.structures
                ),
            ),
        },
    ]
}

fn measure(buffers: &str, counts: &[usize]) -> Result<Vec<Point>> {
    say(&format!(
        "buffers {buffers}: up to {} connections",
        figures::count(counts.last().copied().unwrap_or_default() as u64)
    ));
    // With these settings the server keeps all connections, whatever their buffers cost.
    let listen = [
        "--listen",
        "hub=127.0.0.1:0",
        "--buffers",
        buffers,
        "--idle-timeout",
        "0",
        "--memory-budget",
        "64GiB",
    ];
    let mut server = ServerProcess::start(&listen)?;
    let hub = server.address("hub")?;
    // The first connections touch memory that later ones share, so they are not measured.
    for _ in 0..WARM_UP {
        talk(&mut client::connect(Ipv4Addr::LOCALHOST, hub)?)?;
    }
    wait_until_held(&mut server, 1)?;
    let before = (server.resident_bytes()?, server.info()?.number(LEDGER)?);
    let mut clients: Vec<TcpStream> = Vec::new();
    let mut points = Vec::new();
    for count in counts {
        while clients.len() < *count {
            clients.push(join(clients.len(), hub)?);
        }
        points.push(look(&mut server, clients.len(), before)?);
    }
    Ok(points)
}

/// Number of connections before the first measurement.
const WARM_UP: usize = 16;
const LEDGER: &str = "user_memory_bytes/ledger_without_fixed";

fn join(index: usize, hub: SocketAddr) -> Result<TcpStream> {
    let mut stream = client::connect(client::source(index), hub)
        .with_context(|| format!("connection {}", index + 1))?;
    talk(&mut stream).with_context(|| format!("connection {}", index + 1))?;
    Ok(stream)
}

fn talk(stream: &mut TcpStream) -> Result<()> {
    for _ in 0..MESSAGES {
        client::ask(stream, b"PING\r\n", b"+PONG\r\n")?;
    }
    Ok(())
}

fn look(server: &mut ServerProcess, count: usize, (resident, ledger): (u64, u64)) -> Result<Point> {
    let info = server.info()?;
    let each = |now: u64, before: u64| (now as f64 - before as f64) / count as f64;
    let held = info.number("connections/held")?;
    // The count includes the connection for INFO.
    ensure!(
        held == count as u64 + 1,
        "the server holds {held} connections instead of {count} and the one for INFO"
    );
    Ok(Point {
        connections: count,
        user: each(server.resident_bytes()?, resident),
        ledger: each(info.number(LEDGER)?, ledger),
        kernel: kernel(&info)?,
    })
}

fn kernel(info: &Info) -> Result<Kernel> {
    const STRUCTURES: &str = "kernel_memory_bytes/structures_per_connection";
    let measured = info.number_if_reported(STRUCTURES);
    let structures = match measured {
        Some(bytes) => bytes,
        None => info.number(&format!("{STRUCTURES}_assumed"))?,
    };
    let buffers = info.number("kernel_memory_bytes/buffers_per_connection")?;
    Ok(Kernel {
        structures: structures as f64,
        measured: measured.is_some(),
        buffers: buffers as f64,
    })
}

/// Waits until the server holds `count` connections, including the one for INFO.
fn wait_until_held(server: &mut ServerProcess, count: u64) -> Result<()> {
    client::wait_until(PATIENCE, "the server does not free closed connections", || {
        Ok(server.info()?.number("connections/held")? == count)
    })
}

fn plot(pooled: &[Point], fixed: &[Point]) -> Plot {
    let series = |name: &str, points: &[Point], value: fn(&Point) -> f64| Series {
        name: name.into(),
        // A logarithmic axis has no place for zero.
        values: points
            .iter()
            .map(|point| Some(value(point)).filter(|value| *value > 0.0))
            .collect(),
    };
    Plot {
        title: "Bytes per connection".into(),
        x_label: "connections".into(),
        y_label: "bytes".into(),
        y_is_logarithmic: true,
        x: pooled.iter().map(|point| point.connections as f64).collect(),
        series: vec![
            series("user, pooled", pooled, |point| point.user),
            series(&format!("user, fixed:{FIXED}"), fixed, |point| point.user),
            series("kernel", pooled, |point| point.kernel.total()),
        ],
    }
}

fn table(pooled: &[Point], fixed: &[Point]) -> Table {
    let rows = pooled.iter().zip(fixed).map(|(pooled, fixed)| {
        row([
            &figures::count(pooled.connections as u64),
            &format!("{:.1}", pooled.user),
            &format!("{:.1}", pooled.ledger),
            &figures::three_digits(fixed.user),
            &figures::three_digits(pooled.kernel.structures),
            &figures::three_digits(pooled.kernel.buffers),
        ])
    });
    Table::new(
        "Bytes per connection",
        "connections | user, pooled | ledger, pooled | user, fixed | kernel structures | \
         kernel buffers",
        rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    const KERNEL: Kernel = Kernel { structures: 3900.0, measured: true, buffers: 0.0 };

    fn point(connections: usize, user: f64) -> Point {
        Point { connections, user, ledger: user, kernel: KERNEL }
    }

    fn outcomes(pooled: &[Point], fixed: &[Point]) -> [Outcome; 4] {
        judge(pooled, fixed).map(|verdict| verdict.outcome)
    }

    #[test]
    fn each_claim_holds_at_its_bound_and_fails_past_it() {
        use Outcome::{Fails, Holds, Untried};
        let fixed = [point(1000, 8192.0)];
        assert_eq!(outcomes(&[point(250, 90.0), point(1000, 96.0)], &fixed), [Holds; 4]);
        assert_eq!(
            outcomes(&[point(250, 90.0), point(1000, 96.1)], &fixed),
            [Fails, Holds, Holds, Holds]
        );
        // 65,536 B more are 4.4 B for each of 15,000.
        let grown = |user| outcomes(&[point(3750, 60.0), point(15_000, user)], &fixed);
        assert_eq!(grown(79.3), [Holds; 4]);
        assert_eq!(grown(79.5), [Holds, Holds, Fails, Holds]);
        assert_eq!(
            outcomes(&[point(250, 60.0), point(1000, 60.0)], &[point(1000, 8191.0)]),
            [Holds, Fails, Holds, Holds]
        );
        let small = Kernel { structures: 50.0, ..KERNEL };
        let small = [point(250, 60.0), Point { kernel: small, ..point(1000, 60.0) }];
        assert_eq!(outcomes(&small, &fixed), [Holds, Holds, Holds, Fails]);
        let unknown = Kernel { measured: false, ..KERNEL };
        let unknown = [point(250, 60.0), Point { kernel: unknown, ..point(1000, 60.0) }];
        assert_eq!(outcomes(&unknown, &fixed), [Holds, Holds, Holds, Untried]);
        assert_eq!(outcomes(&[], &fixed), [Untried; 4]);
    }
}
