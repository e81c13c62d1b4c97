//! The settings of a running server: its limits by name, for CONFIG GET and CONFIG SET.

use super::capacity::{connections_possible, too_many_connections};
use super::{Config, ConfigError, Setting};
use crate::limits::{FILES_RESERVED, Limits, OFFER_SHARE};
use crate::setting::shown;
use crate::sys;
use crate::units::Size;

/// Returns the names and values of all limits, sorted by name.
pub fn limits_as_texts(limits: &Limits) -> Vec<(String, String)> {
    let config = Config { limits: limits.clone(), ..Config::default() };
    let live = Setting::all().filter(|setting| matches!(setting, Setting::Live(_)));
    let mut texts: Vec<_> =
        live.map(|setting| (setting.name().to_string(), shown(setting.get(&config)))).collect();
    texts.sort();
    texts
}

/// Returns the limits with these changes. Fails, and names the setting, if the result cannot be
/// used.
pub fn with_changes(limits: &Limits, changes: &[(String, String)]) -> Result<Limits, ConfigError> {
    let mut changed = Config { limits: limits.clone(), ..Config::default() };
    for (at, (name, text)) in changes.iter().enumerate() {
        let refused = |why: &str| Err(ConfigError(format!("{name}: {why}")));
        match Setting::named(name) {
            None => return refused("there is no setting of that name"),
            Some(Setting::AtStart(_)) => return refused("can only be set at start"),
            Some(setting) => {
                if let Err(why) = setting.set(&mut changed, std::slice::from_ref(text)) {
                    return refused(&format!("invalid value '{text}': {why}"));
                }
            }
        }
        if changes[..at].iter().any(|(before, _)| before == name) {
            return refused("duplicate parameter");
        }
    }
    changed.check()?;
    let wanted = changed.limits.max_connections;
    if changes.iter().any(|(name, _)| name == "max-connections") {
        let file_limit =
            sys::raise_file_limit().unwrap_or(limits.max_connections as u64 + FILES_RESERVED);
        if wanted > connections_possible(file_limit) {
            return Err(ConfigError(too_many_connections(wanted, file_limit)));
        }
    }
    let budget = changed.limits.memory_budget;
    if let Some(most) = sys::memory_limits().into_iter().flatten().min()
        && changes.iter().any(|(name, _)| name == "memory-budget")
        && budget as u64 > most / OFFER_SHARE
    {
        let (budget, most) = (Size(budget), most / OFFER_SHARE);
        return Err(ConfigError(format!(
            "memory-budget is {budget}; accepted: up to {most} bytes, half of ulimit -v or -d"
        )));
    }
    Ok(changed.limits)
}
