//! Measures the cost of a turn with 100 and with 15,000 idle connections. One active connection
//! runs in a closed loop, so each message takes one turn.
//!
//!     cargo bench --bench turn                                      slabd and the C floor
//!     cargo bench --bench turn -- --rounds 15 --messages 50000
//!
//! How to read it: the cost of a turn must follow its events, not the number of connections, so the
//! last ratio should be 1. The C floor (benches/floor/echo.c) keeps nothing per connection and
//! shows the cost of the kernel itself. Each turn here also wakes a sleeping process and puts it to
//! sleep again, which is most of the cost and varies. `--clients 50` keeps the server awake, and
//! several connections share a turn. The two sizes alternate on two processes. Ratios are medians
//! over all rounds.

#![forbid(unsafe_code)]

mod support;

use anyhow::Result;
use support::load::{ClosedLoop, ECHO, Held, Talk};
use support::server::Server;
use support::{Options, Table, median, range};

const FEW: usize = 100;

fn main() -> Result<()> {
    let Some(options) = Options::read(
        &[],
        &[("rounds", 9), ("messages", 30_000), ("clients", 1), ("many", 15_000)],
    )?
    else {
        return Ok(());
    };
    support::prepare()?;
    let many = options.number("many") as usize;
    println!("## Active connections: {}. Server CPU per message, µs\n", options.number("clients"));
    let with_few = format!("{FEW} idle");
    let with_many = format!("{many} idle");
    let mut table = Table::new(&["server", &with_few, &with_many, "many ÷ few", "all rounds"]);
    // One server after the other, because both at once need more files than one process may open.
    if options.includes("C floor") {
        compare("C floor", &Server::floor_echo, &options, &mut table)?;
    }
    if options.includes("slabd") {
        compare("slabd", &|| Server::slabd("echo", &[]), &options, &mut table)?;
    }
    table.print();
    Ok(())
}

fn compare(
    name: &str,
    start: &dyn Fn() -> Result<Server>,
    options: &Options,
    table: &mut Table,
) -> Result<()> {
    let talk =
        Talk { greeting: b"", request: ECHO.request, reply_starts: ECHO.reply, reply_ends: b"" };
    let (few, many) = (start()?, start()?);
    let _held =
        [Held::open(&few, FEW, &talk)?, Held::open(&many, options.number("many") as usize, &talk)?];
    let active = options.number("clients") as usize;
    let mut clients = [
        ClosedLoop::connect(few.address, active, ECHO)?,
        ClosedLoop::connect(many.address, active, ECHO)?,
    ];
    let messages = options.number("messages");
    let mut costs = [Vec::new(), Vec::new()];
    // The first round warms up and does not count.
    for round in 0..=options.number("rounds") {
        for (index, server) in [&few, &many].into_iter().enumerate() {
            let before = server.cpu()?;
            clients[index].run(messages)?;
            let used = server.cpu()?.since(before);
            if round > 0 {
                costs[index].push(used.nanos as f64 / 1e3 / messages as f64);
            }
        }
    }
    let ratios: Vec<f64> = costs[0].iter().zip(&costs[1]).map(|(few, many)| many / few).collect();
    table.row(vec![
        name.into(),
        format!("{:.2}", median(&costs[0])),
        format!("{:.2}", median(&costs[1])),
        format!("{:.3}", median(&ratios)),
        range(&ratios),
    ]);
    Ok(())
}
