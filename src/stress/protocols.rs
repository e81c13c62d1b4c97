//! The shapes of load that the protocol of a target can have.

use serde_json::value::RawValue;

use super::args::{ShapeName, TransportName};
use super::target::{Scheme, Target};

/// Fails on a shape that the protocol of the target cannot have.
pub fn check(
    shape: ShapeName,
    target: &Target,
    transport: TransportName,
    send: Option<&[u8]>,
) -> Result<(), String> {
    use Scheme::{Events, Http, Resp, SocketIo, WebSocket};
    let (name, scheme, host) = (shape.name(), target.scheme, &target.host);
    if scheme == SocketIo {
        check_socketio(shape, host, transport, send)?;
    } else if matches!(shape, ShapeName::Sids | ShapeName::Unpolled | ShapeName::HalfUpgrade) {
        return Err(format!(
            "{name} needs the sessions of Socket.IO; expected a target such as socketio://{host}"
        ));
    }
    if scheme == Scheme::Udp && shape != ShapeName::Ping {
        return Err(format!(
            "{name} needs connections, and udp:// has none; \
             expected a target such as tcp://{host}, or the shape ping"
        ));
    }
    if scheme == Events && !matches!(shape, ShapeName::Hold | ShapeName::Fanout) {
        return Err(format!(
            "{name} needs more than a stream of events; expected the shape hold or fanout, or \
             a target such as http://{host}"
        ));
    }
    if shape == ShapeName::Fanout && !matches!(scheme, Resp | WebSocket | SocketIo | Events) {
        return Err(format!(
            "fanout subscribes and publishes, which {}:// cannot; \
             expected a target such as resp://{host} or ws://{host}/ws/CHANNEL",
            scheme.name()
        ));
    }
    if shape == ShapeName::Announce && !matches!(scheme, Resp | Http | WebSocket | SocketIo) {
        return Err(format!(
            "announce needs a protocol that announces lengths, and {}:// does not; \
             expected a target such as resp://{host} or http://{host}",
            scheme.name()
        ));
    }
    Ok(())
}

/// Fails on a shape that Socket.IO or its transport cannot have, and on a request that is no event.
fn check_socketio(
    shape: ShapeName,
    host: &str,
    transport: TransportName,
    send: Option<&[u8]>,
) -> Result<(), String> {
    match (shape, transport) {
        (ShapeName::SlowRead | ShapeName::ZeroWindow, _) => Err(format!(
            "{} needs large answers, and an acknowledgement is short; expected a target such as \
             ws://{host}/echo",
            shape.name()
        )),
        (ShapeName::Unpolled | ShapeName::HalfUpgrade, TransportName::WebSocket) => {
            Err(format!("{} needs clients that poll; expected --transport polling", shape.name()))
        }
        _ => send.map_or(Ok(()), check_event),
    }
}

/// Fails unless the bytes of `--send` are an event: a JSON array that begins with its name.
fn check_event(bytes: &[u8]) -> Result<(), String> {
    let parts: Option<Vec<&RawValue>> = serde_json::from_slice(bytes).ok();
    let name = parts.and_then(|parts| Some(parts.first()?.get().starts_with('"')));
    match name {
        Some(true) => Ok(()),
        _ => {
            Err("--send: over socketio:// it is an event; expected a JSON array that begins with \
                  its name, such as '[\"chat\",\"hi\"]'"
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_an_array_that_begins_with_its_name() {
        for (text, is_event) in [
            ("[\"hi\"]", true),
            ("[\"hi\",{\"a\":[1]},2]", true),
            ("[]", false),
            ("[1]", false),
            ("{}", false),
            ("[\"hi\"", false),
            ("hi", false),
        ] {
            assert_eq!(check_event(text.as_bytes()).is_ok(), is_event, "{text}");
        }
    }
}
