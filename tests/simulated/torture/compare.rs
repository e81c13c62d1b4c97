//! Compares a run with the one in which nothing failed: no client may notice what happens to
//! another.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use slabd::net::sim::{End, SystemCall};

use super::scenario::Failure;

/// The fate of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub(super) received: Vec<u8>,
    /// The end of the stream as the client sees it.
    pub(super) end: End,
    /// True if the loop has accepted the connection and not closed it.
    pub(super) is_held: bool,
}

/// The outcome of a run.
pub struct Outcome {
    /// The fate of each client before it closed.
    pub(super) peers: Vec<Seen>,
    pub(super) mail: BTreeMap<SocketAddr, Vec<Vec<u8>>>,
    pub(super) services_bytes: usize,
    pub(super) depends_on: Vec<(usize, usize)>,
    pub(super) delays_matter: bool,
    pub(super) best_effort: bool,
    pub(super) would_block_matters: bool,
    /// Clients that were shed because files ran out.
    pub(super) shed: Vec<usize>,
    /// The calls of the run without a failure, each with its client if the trace has it.
    pub calls: Vec<(SystemCall, Option<usize>)>,
    pub(super) marks: [u64; 2],
    pub hash: u64,
}

impl Outcome {
    /// Returns the numbers of the calls to fail: those of the script, and those while the clients
    /// close.
    pub fn calls_to_fail(&self) -> impl Iterator<Item = u64> {
        let [script, probe] = self.marks;
        (0..script).chain(probe..self.calls.len() as u64)
    }
}

/// Compares a run with the quiet one, in which nothing failed. Fails with the rule that it broke.
pub fn compare(quiet: &Outcome, run: &Outcome, failure: Failure) -> Result<(), String> {
    let (call, client) = quiet.calls[failure.at as usize];
    // Several failures in a row may each cost another client something, so only the general rules
    // apply. But no client may notice a transient failure, not even the client that it hit.
    let matters = quiet.would_block_matters && failure.errno == libc::EAGAIN;
    let is_transient = is_transient(call, failure.errno) && !matters;
    if failure.times > A_FEW || failure.times > 1 && !is_transient {
        return Ok(());
    }
    compare_services(quiet, run)?;
    compare_mail(quiet, run, call, failure)?;
    let is_about_listeners = matches!(
        call,
        SystemCall::Accept
            | SystemCall::Shed
            | SystemCall::Listen
            | SystemCall::Bind
            | SystemCall::Configure
    );
    if quiet.delays_matter && is_about_listeners {
        return Ok(());
    }
    let differ: Vec<usize> = (0..quiet.peers.len())
        .filter(|index| run.peers.get(*index) != Some(&quiet.peers[*index]))
        .collect();
    let follows =
        |peer: usize, victim: usize| peer == victim || quiet.depends_on.contains(&(peer, victim));
    let is_hit = |peer: usize| Some(peer) == client || failure.times > 1;
    let ended = |peer: usize| quiet.peers[peer].end != End::Open;
    let are_excused = |victim: Option<usize>| {
        let is_excused =
            |peer: &usize| victim.iter().chain(&run.shed).any(|victim| follows(*peer, *victim));
        differ.iter().all(is_excused)
    };
    let is_fine = match client {
        _ if is_transient => {
            differ.iter().all(|peer| quiet.best_effort && ended(*peer) && is_hit(*peer))
        }
        Some(_) => are_excused(client),
        // The trace does not have the client, so it may be any one, or none.
        None => (0..=quiet.peers.len()).any(|victim| are_excused(Some(victim))),
    };
    // The loop must not hold a connection that lost something by an error.
    let is_about_the_stream = matches!(
        call,
        SystemCall::Accept | SystemCall::Read | SystemCall::Write | SystemCall::WatchWritable
    );
    let is_stuck = |peer: &usize| {
        let lost = client == Some(*peer) && is_about_the_stream && !is_transient;
        lost && run.peers.get(*peer).is_some_and(|seen| seen.is_held)
    };
    if is_fine && !differ.iter().any(is_stuck) {
        return Ok(());
    }
    let seen = |outcome: &Outcome, peer: usize| match outcome.peers.get(peer) {
        Some(Seen { received, end, is_held }) => {
            let tail = &received[received.len().saturating_sub(60)..];
            let held = if *is_held { "held" } else { "not held" };
            format!("{} bytes, …{}, {end:?}, {held}", received.len(), tail.escape_ascii())
        }
        None => "nothing".into(),
    };
    let texts = differ.iter().map(|peer| {
        format!("client {peer} got {} instead of {}", seen(run, *peer), seen(quiet, *peer))
    });
    Err(format!("a failure that hit client {client:?}: {}", texts.collect::<Vec<_>>().join("; ")))
}

/// Number of transient failures in a row that no client may notice.
pub const A_FEW: u32 = 3;

/// Returns true if the failure is transient: the loop only has to repeat the call.
fn is_transient(call: SystemCall, errno: i32) -> bool {
    match call {
        SystemCall::Read | SystemCall::Write => matches!(errno, libc::EAGAIN | libc::EINTR),
        SystemCall::Accept => {
            !matches!(errno, libc::ECONNABORTED | libc::ENOSPC | libc::EMFILE | libc::ENFILE)
        }
        SystemCall::Listen | SystemCall::Bind | SystemCall::Configure | SystemCall::Receive => true,
        SystemCall::Send | SystemCall::Shed => true,
        SystemCall::WatchWritable | SystemCall::Shutdown | SystemCall::Unacknowledged => false,
        SystemCall::Connect => false,
        SystemCall::BufferBytes | SystemCall::PeerAddress | SystemCall::AcceptQueue => false,
    }
}

/// Bytes that the hub holds per session slot. A failure may cause more sessions at a time.
const BYTES_PER_SLOT: usize = 28;

/// Checks that services hold no more bytes than in the quiet run.
fn compare_services(quiet: &Outcome, run: &Outcome) -> Result<(), String> {
    let slots = (run.peers.len() + quiet.peers.len()) * BYTES_PER_SLOT;
    match run.services_bytes <= quiet.services_bytes + slots {
        true => Ok(()),
        false => {
            Err(format!("services hold {} bytes, not {}", run.services_bytes, quiet.services_bytes))
        }
    }
}

/// Checks the answers to datagrams. A send error may cost its datagram, and a full send buffer the
/// rest of the batch.
fn compare_mail(
    quiet: &Outcome,
    run: &Outcome,
    call: SystemCall,
    failure: Failure,
) -> Result<(), String> {
    let mut missing = 0;
    for (from, answers) in &quiet.mail {
        let mut rest = run.mail[from].iter();
        let mut next = rest.next();
        for answer in answers {
            match next == Some(answer) {
                true => next = rest.next(),
                false => missing += 1,
            }
        }
        if next.is_some() {
            return Err(format!(
                "{from} got an answer that the quiet run did not send: {:?}",
                run.mail[from]
            ));
        }
    }
    let most = match call {
        SystemCall::Send if failure.errno == libc::EAGAIN => slabd::limits::DATAGRAMS_PER_BATCH,
        SystemCall::Send => 1,
        _ => 0,
    };
    match missing <= most * failure.times as usize {
        true => Ok(()),
        false => Err(format!("{missing} answers to datagrams are missing")),
    }
}
