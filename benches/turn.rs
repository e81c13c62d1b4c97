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
use support::load::{ClosedLoop, ECHO, Held, NOTHING};
use support::rounds::{Contender, alternate};
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
    let (few, many) = (start()?, start()?);
    let _held = [
        Held::open(&few, FEW, &NOTHING)?,
        Held::open(&many, options.number("many") as usize, &NOTHING)?,
    ];
    let (active, messages) = (options.number("clients") as usize, options.number("messages"));
    let mut contenders = Vec::new();
    for server in [&few, &many] {
        let mut clients = ClosedLoop::connect(server.address, active, ECHO)?;
        contenders.push(Contender::new(name, server, move || clients.run(messages)));
    }
    alternate(&mut contenders, options.number("rounds"))?;
    let costs = [contenders[0].costs(), contenders[1].costs()];
    let ratios = contenders[1].ratios(&contenders[0]);
    table.row(vec![
        name.into(),
        format!("{:.2}", median(&costs[0])),
        format!("{:.2}", median(&costs[1])),
        format!("{:.3}", median(&ratios)),
        range(&ratios),
    ]);
    Ok(())
}
