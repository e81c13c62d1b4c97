//! The settings of a running server: its limits by name, and how they change.

use serde::Deserialize;

use super::{ConfigError, Settings};
use crate::limits::{FILES_RESERVED, Limits, SocketOptions};
use crate::sys;
use crate::units::{Size, Span};

/// Limits as settings: each of them named.
pub(super) fn limits_as_settings(limits: &Limits) -> Settings {
    let Limits {
        max_connections,
        admission,
        admission_dry_run,
        max_silent,
        max_silent_per_source,
        max_connections_per_source,
        penalty,
        ref trusted_sources,
        first_message_timeout,
        message_timeout,
        idle_timeout,
        output_timeout,
        close_timeout,
        drain_timeout,
        max_line,
        high_watermark,
        low_watermark,
        memory_budget,
        gather,
        accepts_per_turn,
        connections_per_turn,
        messages_per_turn,
        reads_per_turn,
        datagram_batches_per_turn,
        output_per_turn,
        output_limit,
        output_soft_limit,
        output_soft_time,
        deliveries_per_turn,
        expiries_per_turn,
        sockets,
    } = *limits;
    let SocketOptions { keepalive, keepalive_interval, keepalive_probes, user_timeout, send_buffer, receive_buffer } =
        sockets;
    Settings {
        max_connections: Some(max_connections),
        admission: Some(admission),
        admission_dry_run: Some(admission_dry_run),
        max_silent: Some(max_silent),
        max_silent_per_source: Some(max_silent_per_source),
        max_connections_per_source: Some(max_connections_per_source),
        penalty: Some(Span(penalty)),
        trusted_sources: Some(trusted_sources.clone()),
        idle_timeout: Some(Span(idle_timeout)),
        first_message_timeout: Some(Span(first_message_timeout)),
        message_timeout: Some(Span(message_timeout)),
        output_timeout: Some(Span(output_timeout)),
        close_timeout: Some(Span(close_timeout)),
        drain_timeout: Some(Span(drain_timeout)),
        memory_budget: Some(Size(memory_budget)),
        max_line: Some(Size(max_line)),
        high_watermark: Some(Size(high_watermark)),
        low_watermark: Some(Size(low_watermark)),
        gather: Some(Span(gather)),
        accepts_per_turn: Some(accepts_per_turn),
        connections_per_turn: Some(connections_per_turn),
        messages_per_turn: Some(messages_per_turn),
        reads_per_turn: Some(reads_per_turn),
        datagram_batches_per_turn: Some(datagram_batches_per_turn),
        output_per_turn: Some(Size(output_per_turn)),
        output_limit: Some(Size(output_limit)),
        output_soft_limit: Some(Size(output_soft_limit)),
        output_soft_time: Some(Span(output_soft_time)),
        deliveries_per_turn: Some(deliveries_per_turn),
        expiries_per_turn: Some(expiries_per_turn),
        keepalive: Some(Span(keepalive)),
        keepalive_interval: Some(Span(keepalive_interval)),
        keepalive_probes: Some(keepalive_probes),
        user_timeout: Some(Span(user_timeout)),
        send_buffer: Some(Size(send_buffer)),
        receive_buffer: Some(Size(receive_buffer)),
        ..Settings::default()
    }
}

/// The limits by the names of their flags, as texts: what can change while the server runs.
pub fn limits_as_texts(limits: &Limits) -> Vec<(String, String)> {
    let table = toml::Table::try_from(limits_as_settings(limits)).unwrap_or_default();
    let text = |value: toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    table.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// The limits with some of them changed, checked as a whole.
pub fn with_changes(limits: &Limits, changes: &[(String, String)]) -> Result<Limits, ConfigError> {
    let known = limits_as_texts(limits);
    let mut table = toml::Table::new();
    for (name, text) in changes {
        if !known.iter().any(|(known, _)| known == name) {
            let exists = toml::Table::from_iter([(name.clone(), toml::Value::Array(Vec::new()))]);
            // A name that is not known is a fault of its own, told before that of the value.
            let is_unknown =
                Settings::deserialize(exists).is_err_and(|error| error.message().contains("unknown field"));
            return Err(ConfigError(match is_unknown {
                true => format!("{name}: there is no setting of that name"),
                false => format!("{name}: can only be set at start"),
            }));
        }
        let is_switch = known.iter().any(|(known, value)| known == name && matches!(value.as_str(), "true" | "false"));
        // The way Redis writes them is understood too.
        let text = match text.to_ascii_lowercase().as_str() {
            "yes" | "on" if is_switch => &"true".to_string(),
            "no" | "off" if is_switch => &"false".to_string(),
            _ => text,
        };
        let plain = text.parse().map(toml::Value::Integer).or_else(|_| text.parse().map(toml::Value::Boolean));
        let value = plain.unwrap_or_else(|_| toml::Value::String(text.clone()));
        // Each by itself first, so that the error tells which.
        let alone = toml::Table::from_iter([(name.clone(), value.clone())]);
        if let Err(error) = Settings::deserialize(alone) {
            return Err(ConfigError(format!("{name}: {}", error.message().trim().replace('\n', "; "))));
        }
        if table.insert(name.clone(), value).is_some() {
            return Err(ConfigError(format!("{name}: duplicate parameter")));
        }
    }
    let changed = Settings::deserialize(table).map_err(|error| ConfigError(error.message().into()))?;
    let lowers = changed.max_connections.is_some();
    let file_limit = sys::raise_file_limit().unwrap_or(limits.max_connections as u64 + FILES_RESERVED);
    let config = changed.over(limits_as_settings(limits)).resolve(file_limit)?;
    match config.warnings.iter().find(|warning| lowers && warning.starts_with("max-connections")) {
        Some(warning) => Err(ConfigError(warning.clone())),
        None => Ok(config.limits),
    }
}
