//! The comparison of what the subscribers got with what they must have got.
//!
//! A link is a stream: a node has read a beginning of what the broker sent on it. So each
//! subscriber has an unbroken part of the messages of its name on each link. The part begins at the
//! latest with the first message after the subscription was confirmed. It ends at the earliest with
//! the last message that the node had certainly read before the client asked for the end.

use std::collections::{BTreeMap, HashSet};

use super::super::board::Moment;
use super::super::{Violation, ensure};
use super::names::{is_denied, is_pattern, is_shared, reaches, text};
use super::shadow::{LinkRecord, Shadow, SharedPublish, SubscriptionRecord};

/// The figures of a node, by name.
pub type Figures = BTreeMap<String, u64>;

/// Compares everything. Call it when nothing is under way. The publishes from `first` on were sent
/// when all faults were over. The lives are those of the nodes that serve.
pub fn judge(
    shadow: &Shadow,
    first: usize,
    lives: &[usize],
    figures: &[Figures],
) -> Result<(), Violation> {
    for own in shadow.subscriptions.iter().filter(|own| own.confirmed.is_some()) {
        let whom = || format!("client {} of life {}, {}", own.client, own.life, text(own.name));
        let explained = |what: Violation| Violation::from(format!("{}: {what}", whom()));
        judge_order(shadow, own).map_err(explained)?;
        judge_locals(shadow, own).map_err(explained)?;
        judge_gaps(shadow, own).map_err(explained)?;
    }
    judge_paths(shadow)?;
    judge_numbers(shadow)?;
    for (publish, number) in shadow.publishes.iter().zip(0..).skip(first) {
        let crosses = is_shared(publish.channel, &shadow.plan) || publish.by.is_none();
        let is_expected = match crosses {
            true => is_denied(publish.channel, &shadow.plan) || publish.at_broker.is_some(),
            false => publish.is_local,
        };
        ensure(is_expected, || format!("message {number}, sent after all faults, is lost"))?;
    }
    lives.iter().zip(figures).try_for_each(|(life, figures)| judge_figures(shadow, *life, figures))
}

/// Checks the messages that came from the broker: the order, and that none is missing.
fn judge_order(shadow: &Shadow, own: &SubscriptionRecord) -> Result<(), Violation> {
    let links: Vec<&LinkRecord> =
        shadow.links.iter().filter(|link| link.life == own.life).collect();
    let crossed = own.received.iter().filter(|message| !is_local(shadow, **message));
    // The places in the stream of each link, in the order of the receipts.
    let mut parts: Vec<Vec<usize>> = vec![Vec::new(); links.len()];
    let mut last = 0;
    for message in crossed {
        let newest = (0..links.len())
            .rev()
            .find_map(|link| Some((link, links[link].place(own.name, *message)?)));
        let Some((link, place)) = newest else {
            return Err(format!("message {message} was not sent to the node").into());
        };
        ensure(link >= last, || format!("message {message} of an older link comes late"))?;
        let before = parts[link].last();
        ensure(before.is_none_or(|before| before + 1 == place), || {
            format!("message {message} comes after {before:?} as number {place} of the link")
        })?;
        parts[link].push(place);
        last = link;
    }
    let confirmed = own.confirmed.unwrap_or(Moment::MAX);
    let leaving = own.leaving.unwrap_or(Moment::MAX);
    for (link, part) in links.iter().zip(&parts) {
        let Some(stream) = link.streams.get(&own.name) else { continue };
        let got = part.first().copied().unwrap_or(0)..part.last().map_or(0, |last| last + 1);
        for (place, message) in stream.iter().enumerate().filter(|(place, _)| !got.contains(place))
        {
            let is_new = taken_at(shadow, *message) > confirmed;
            // A message on its way to a client that leaves may be lost.
            let is_due = !own.is_cut && is_new && link.has_read(own.name, *message, leaving);
            ensure(!is_due, || {
                format!("message {message}, number {place} of the link, is missing")
            })?;
        }
    }
    Ok(())
}

fn is_local(shadow: &Shadow, message: u32) -> bool {
    shadow.publishes[message as usize].is_local
}

/// Returns when the broker took a message.
fn taken_at(shadow: &Shadow, message: u32) -> Moment {
    shadow.publishes[message as usize].at_broker.map_or(0, |(at, _)| at)
}

/// Checks the messages that stayed on the node: the order, and that none is missing.
fn judge_locals(shadow: &Shadow, own: &SubscriptionRecord) -> Result<(), Violation> {
    let reaches = |message: &&u32| reaches(shadow.publishes[**message as usize].channel, own.name);
    let all: Vec<u32> = shadow.lives[own.life].locals.iter().filter(reaches).copied().collect();
    let mut got: Vec<u32> =
        own.received.iter().filter(|message| is_local(shadow, **message)).copied().collect();
    if own.is_cut {
        // A node that stops may have closed its witness before.
        got.retain(|message| all.contains(message));
    }
    let start = match got.first() {
        Some(first) => all.iter().position(|message| message == first),
        None => Some(0),
    };
    let Some(start) = start else {
        return Err(format!("the witness lacks message {:?}", got.first()).into());
    };
    let end = start + got.len();
    ensure(all.get(start..end) == Some(&got[..]), || {
        format!("the messages of the node are {got:?} instead of {:?}", all.get(start..))
    })?;
    let confirmed = own.confirmed.unwrap_or(Moment::MAX);
    let leaving = own.leaving.unwrap_or(Moment::MAX);
    for message in all[..start].iter().chain(&all[end..]) {
        let publish = &shadow.publishes[*message as usize];
        let is_new = publish.sent > confirmed;
        let is_due = is_new && publish.answered.is_some_and(|at| at < leaving) && !own.is_cut;
        ensure(!is_due, || format!("message {message} of the node is missing"))?;
    }
    Ok(())
}

/// Checks that each message missed is followed by a gap, and that no gap is told without an outage.
fn judge_gaps(shadow: &Shadow, own: &SubscriptionRecord) -> Result<(), Violation> {
    if !own.tells_gaps {
        return ensure(own.gaps.is_empty(), || "there is no form for a gap".into());
    }
    let links: Vec<&LinkRecord> =
        shadow.links.iter().filter(|link| link.life == own.life).collect();
    let proved: Vec<&&LinkRecord> = links.iter().filter(|link| link.proved.is_some()).collect();
    // The first time, there may be nothing to tell of.
    let stayed = shadow.publishes.iter().filter(|publish| {
        publish.by == Some(own.life) && publish.is_local && is_shared(publish.channel, &shadow.plan)
    });
    let skipped = usize::from(stayed.count() == 0 && !shadow.lives[own.life].begins_late);
    // The last link that has ended before may come up late at the node.
    let is_over = |link: &&&&LinkRecord| link.closed.is_some_and(|closed| closed < own.asked);
    let over = proved.iter().skip(skipped).filter(is_over).count();
    let most = proved.len() - skipped.min(proved.len()) - over.saturating_sub(1);
    ensure(own.gaps.len() <= most, || {
        format!("{} gaps are told after {most} outages", own.gaps.len())
    })?;
    let told = |since: Moment| own.gaps.last().is_some_and(|at| *at > since);
    let confirmed = own.confirmed.unwrap_or(Moment::MAX);
    if own.leaving.is_some() {
        return Ok(());
    }
    let is_shared_name = is_pattern(own.name) || is_shared(own.name, &shadow.plan);
    for link in proved.iter().skip(1).filter(|link| link.closed.is_none()) {
        let is_due = is_shared_name && link.opened > confirmed;
        let since = link.proved.unwrap_or(0);
        ensure(!is_due || told(since), || format!("no gap is told after {since}"))?;
    }
    let base = subscribed_since(&links, own, confirmed);
    let got: HashSet<u32> = own.received.iter().copied().collect();
    for message in &shadow.log {
        let publish = &shadow.publishes[*message as usize];
        let at = taken_at(shadow, *message);
        let is_meant =
            reaches(publish.channel, own.name) && is_shared(publish.channel, &shadow.plan);
        // A node subscribes at the broker before it publishes there.
        let is_own = publish.by == Some(own.life) && publish.sent > confirmed;
        let is_due = is_own || base.is_some_and(|base| at > base);
        let is_missed = is_meant && is_due && !got.contains(message);
        ensure(!is_missed || told(at), || {
            format!("message {message}, taken at {at}, is missed, and no gap is told after it")
        })?;
    }
    Ok(())
}

/// Returns since when the broker has known of a subscription, for as long as there were links.
fn subscribed_since(
    links: &[&LinkRecord],
    own: &SubscriptionRecord,
    confirmed: Moment,
) -> Option<Moment> {
    let spans = links.iter().flat_map(|link| {
        let spans = link.spans.get(&own.name).into_iter().flatten();
        spans.map(|(start, end)| (*start, *end, link.closed))
    });
    // An UNSUBSCRIBE may have been on its way when the client came.
    let lasts = |(_, end, closed): &(Moment, Option<Moment>, Option<Moment>)| {
        end.is_none_or(|end| end > confirmed && *closed == Some(end))
    };
    let mut starts = spans.filter(lasts).map(|(start, ..)| start.max(confirmed));
    starts.next()
}

/// Checks the path of each publish: by the broker while the link is up.
fn judge_paths(shadow: &Shadow) -> Result<(), Violation> {
    for (index, link) in shadow.links.iter().enumerate() {
        let by_link = |publish: &&SharedPublish| {
            publish.at_broker.is_some_and(|(_, from)| from == Some(index))
        };
        let all: Vec<&SharedPublish> = shadow.publishes.iter().filter(by_link).collect();
        // The link was up from its first publish to its last one.
        let first = all.iter().filter_map(|publish| publish.at_broker).map(|(at, _)| at).min();
        let last = all.iter().map(|publish| publish.sent).max();
        let (Some(first), Some(last)) = (first, last) else { continue };
        for (publish, number) in shadow.publishes.iter().zip(0..) {
            let is_meant = publish.by == Some(link.life)
                && is_shared(publish.channel, &shadow.plan)
                && !is_denied(publish.channel, &shadow.plan)
                && publish.sent > first
                && publish.answered.is_some_and(|at| at < last)
                && publish.receivers.is_some();
            let has_crossed = publish.at_broker.is_some() || publish.is_refused;
            ensure(!is_meant || has_crossed, || {
                format!("message {number} does not reach the broker, though the link is up")
            })?;
        }
        let mut latest = BTreeMap::new();
        let in_order = shadow.log.iter().map(|message| &shadow.publishes[*message as usize]);
        for publish in in_order.filter(by_link) {
            let before = latest.insert(publish.client, publish.sent).unwrap_or(0);
            ensure(before < publish.sent, || {
                format!("the publishes of client {} change their order", publish.client)
            })?;
        }
    }
    Ok(())
}

/// Checks that each publish was answered with the number of subscribers on its node.
fn judge_numbers(shadow: &Shadow) -> Result<(), Violation> {
    for (publish, number) in shadow.publishes.iter().zip(0..) {
        let (Some(life), Some(answered), Some(receivers)) =
            (publish.by, publish.answered, publish.receivers)
        else {
            continue;
        };
        let own = shadow.subscriptions.iter();
        let own = own.filter(|own| own.life == life && reaches(publish.channel, own.name));
        let (mut least, mut most) = (0, 0);
        for own in own {
            let is_there = own.confirmed.is_some_and(|at| at < publish.sent)
                && own.leaving.is_none_or(|at| at > answered);
            let may_be_there = own.asked < answered && own.left.is_none_or(|at| at > publish.sent);
            least += i64::from(is_there);
            most += i64::from(may_be_there);
        }
        ensure((least..=most).contains(&receivers), || {
            format!("message {number} has {receivers} receivers instead of {least} to {most}")
        })?;
    }
    Ok(())
}

/// Checks that the counters of a node add up.
fn judge_figures(shadow: &Shadow, life: usize, figures: &Figures) -> Result<(), Violation> {
    let figure = |name: &str| figures.get(&format!("broker_{name}")).copied().unwrap_or(u64::MAX);
    let own = shadow
        .publishes
        .iter()
        .filter(|publish| publish.by == Some(life) && is_shared(publish.channel, &shadow.plan));
    let [mut local, mut crossed, mut refused, mut full, mut nowhere, mut open] = [0; 6];
    for publish in own {
        let count = match publish {
            SharedPublish { is_local: true, .. } => &mut local,
            SharedPublish { is_refused: true, .. } => &mut refused,
            SharedPublish { at_broker: Some(_), .. } => &mut crossed,
            SharedPublish { answered: None, .. } => &mut open,
            SharedPublish { receivers: None, .. } => &mut full,
            _ => &mut nowhere,
        };
        *count += 1;
    }
    let links = || shadow.links.iter().filter(|link| link.life == life);
    let read: u64 = links().map(|link| link.read_by(Moment::MAX) as u64).sum();
    let sent: u64 = links().map(|link| link.sent.len() as u64 + link.useless).sum();
    let proved = links().filter(|link| link.proved.is_some()).count() as u64;
    let published = crossed + refused + nowhere;
    let settled = figure("lost").saturating_add(figure("refused"));
    for (name, least, most) in [
        ("local", local, local),
        ("published", published, published + open),
        ("dropped", full, full + open),
        ("lost", nowhere, published + open),
        ("refused", 0, refused),
        ("received", read, sent),
        ("ups", 1, proved),
        ("queued_bytes", 0, 0),
        ("too_long", 0, 0),
        ("overrun", 0, 0),
    ] {
        let found = figure(name);
        ensure((least..=most).contains(&found), || {
            format!("broker_{name} of life {life} is {found} instead of {least} to {most}")
        })?;
    }
    ensure(settled >= refused + nowhere, || {
        format!(
            "{refused} refused and {nowhere} lost publishes of life {life} are counted as {settled}"
        )
    })
}
