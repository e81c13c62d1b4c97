//! Settings of sockets: what they resolve to, and what Linux accepts.

use std::time::Duration;

use super::{ConfigError, Settings, within};
use crate::limits::{KEEPALIVE_MAX, KEEPALIVE_PROBES_MAX, SOCKET_BUFFER_MAX, SOCKET_BUFFER_MIN, SocketOptions};
use crate::units::{Size, Span};

impl Settings {
    pub(super) fn socket_options(&self) -> Result<SocketOptions, ConfigError> {
        let defaults = SocketOptions::default();
        let span = |given: Option<Span>, default: Duration| given.map_or(default, |Span(time)| time);
        let bytes = |given: Option<Size>, default: usize| given.map_or(default, |Size(bytes)| bytes);
        let options = SocketOptions {
            keepalive: span(self.keepalive, defaults.keepalive),
            keepalive_interval: span(self.keepalive_interval, defaults.keepalive_interval),
            keepalive_probes: self.keepalive_probes.unwrap_or(defaults.keepalive_probes),
            user_timeout: span(self.user_timeout, defaults.user_timeout),
            send_buffer: bytes(self.send_buffer, defaults.send_buffer),
            receive_buffer: bytes(self.receive_buffer, defaults.receive_buffer),
        };
        if !options.keepalive.is_zero() {
            whole_seconds("keepalive", options.keepalive)?;
        }
        whole_seconds("keepalive-interval", options.keepalive_interval)?;
        within("keepalive-probes", options.keepalive_probes as usize, 1, KEEPALIVE_PROBES_MAX)?;
        for (name, size) in [("send-buffer", options.send_buffer), ("receive-buffer", options.receive_buffer)] {
            if size != 0 {
                within(name, size, SOCKET_BUFFER_MIN, SOCKET_BUFFER_MAX)?;
            }
        }
        Ok(options)
    }
}

/// The kernel counts these in seconds.
fn whole_seconds(name: &str, time: Duration) -> Result<(), ConfigError> {
    let fits = time.subsec_nanos() == 0 && (Duration::from_secs(1)..=KEEPALIVE_MAX).contains(&time);
    if fits {
        return Ok(());
    }
    let (given, most) = (Span(time), KEEPALIVE_MAX.as_secs());
    Err(ConfigError(format!("{name} is {given}: accepted are whole seconds, 1s to {most}s")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(toml: &str) -> Result<SocketOptions, ConfigError> {
        toml::from_str::<Settings>(toml).map_err(|error| ConfigError(error.message().into()))?.socket_options()
    }

    #[test]
    fn options_at_their_bounds_one_below_and_one_above() {
        for (toml, fits) in [
            ("keepalive = 0", true),
            ("keepalive = \"999ms\"", false),
            ("keepalive = \"1s\"", true),
            ("keepalive = \"1500ms\"", false),
            ("keepalive = \"32767s\"", true),
            ("keepalive = \"32768s\"", false),
            ("keepalive-interval = 0", false),
            ("keepalive-interval = \"1s\"", true),
            ("keepalive-interval = \"32768s\"", false),
            ("keepalive-probes = 0", false),
            ("keepalive-probes = 1", true),
            ("keepalive-probes = 127", true),
            ("keepalive-probes = 128", false),
            ("user-timeout = 0", true),
            ("user-timeout = \"1ms\"", true),
            ("send-buffer = 0", true),
            ("send-buffer = 8191", false),
            ("send-buffer = 8192", true),
            ("receive-buffer = \"1GiB\"", true),
            ("receive-buffer = 1073741825", false),
        ] {
            assert_eq!(resolve(toml).is_ok(), fits, "{toml}");
        }
        assert_eq!(resolve("").unwrap(), SocketOptions::default());
    }
}
