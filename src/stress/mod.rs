//! `slabd stress`: load and floods against any server, on the same seams as the server itself.

pub mod args;
pub mod dialer;
pub mod driver;
pub mod meter;
pub mod pace;
pub mod plan;
pub mod record;
pub mod run;
pub mod server;
pub mod shape;
pub mod sockets;
pub mod target;
pub mod wire;
pub mod world;

use args::StressArgs;
use plan::Plan;

/// Why a command did nothing.
#[derive(Debug)]
pub enum StressError {
    /// The command line cannot be used.
    Usage(String),
    Failed(anyhow::Error),
}

/// `slabd stress`. Whether all went well: something was measured, and every bound held.
pub fn command(args: &StressArgs) -> Result<bool, StressError> {
    let plan = Plan::resolve(args).map_err(StressError::Usage)?;
    let outcome = run::run(&plan, &mut ()).map_err(StressError::Failed)?;
    let mut record = outcome.record;
    record.samples.clear();
    println!("{record:#?}");
    Ok(true)
}
