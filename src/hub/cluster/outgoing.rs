//! The event that a publish here is for the other servers of a cluster.

use serde_json::value::RawValue;

use crate::codec::socketio::adapter::{self, ClusterAddress};
use crate::codec::socketio::python::{self, PythonArguments};
use crate::hub::encoding::EventForm;
use crate::hub::json;

/// Appends a message for Node servers. Returns false if its JSON is no text.
pub fn write_node(
    out: &mut Vec<u8>,
    to: &ClusterAddress<'_>,
    form: EventForm<'_>,
    channel: &[u8],
    payload: &[u8],
) -> bool {
    let mut is_event = true;
    adapter::write(out, to, |out| is_event = write_data(out, form, channel, payload));
    is_event
}

/// Appends an event and its arguments. Returns false if its JSON is no text.
fn write_data(out: &mut Vec<u8>, form: EventForm<'_>, channel: &[u8], payload: &[u8]) -> bool {
    match form {
        EventForm::Own(data) => return adapter::value(out, data),
        EventForm::Named(event) => {
            adapter::array(out, 2);
            adapter::text(out, event);
        }
        EventForm::Text(_) | EventForm::Bytes => {
            adapter::array(out, 3);
            adapter::text(out, "message");
            adapter::text(out, &String::from_utf8_lossy(channel));
        }
    }
    let Ok(text) = std::str::from_utf8(payload) else {
        adapter::bytes(out, payload);
        return true;
    };
    let mut value = Vec::new();
    match form {
        EventForm::Named(_) => json::any_value(&mut value, text),
        _ => json::value(&mut value, text),
    }
    std::str::from_utf8(&value).is_ok_and(|value| adapter::value(out, value))
}

/// Appends a message for servers of Python.
pub fn write_python(
    out: &mut Vec<u8>,
    to: &ClusterAddress<'_>,
    form: EventForm<'_>,
    channel: &[u8],
    payload: &[u8],
) {
    let (mut event, mut before) = (Vec::new(), Vec::new());
    match form {
        EventForm::Own(data) => {
            let (event, arguments) = split_event(data);
            let arguments = PythonArguments::Json(arguments.as_bytes());
            return python::write(out, to, event.as_bytes(), &arguments);
        }
        EventForm::Named(name) => json::string(&mut event, name),
        EventForm::Text(_) | EventForm::Bytes => {
            json::string(&mut event, "message");
            json::string(&mut before, &String::from_utf8_lossy(channel));
        }
    }
    let Ok(text) = std::str::from_utf8(payload) else {
        return python::write(out, to, &event, &PythonArguments::Attached(&before, payload));
    };
    match form {
        EventForm::Named(_) => json::any_value(&mut before, text),
        _ => {
            before.push(b',');
            json::value(&mut before, text);
        }
    }
    python::write(out, to, &event, &PythonArguments::Json(&before));
}

/// Splits the JSON of an event into that of its name and those of its arguments.
fn split_event(data: &str) -> (&str, &str) {
    let inner = data.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or_default();
    let mut values = serde_json::Deserializer::from_str(inner).into_iter::<&RawValue>();
    let name = values.next().and_then(Result::ok).map_or("", RawValue::get);
    let rest = inner[values.byte_offset()..].trim_start();
    (name, rest.strip_prefix(',').unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_the_same_event_for_servers_of_python_as_here() {
        let to =
            ClusterAddress { sender: "slabd", namespace: "/", room: Some("c"), volatile: false };
        for (form, payload, expected) in [
            (EventForm::Own(r#"["e"]"#), "", r#"["e"]"#),
            (EventForm::Own(r#"[ "e\"," , [1,"]"],2 ]"#), "", r#"["e\",",[1,"]"],2]"#),
            (EventForm::Text("x"), "x", r#"["message","c","x"]"#),
            (EventForm::Text("5"), "5", r#"["message","c",5]"#),
            (EventForm::Named("n"), r#"{"a":1}"#, r#"["n",{"a":1}]"#),
        ] {
            let mut out = Vec::new();
            write_python(&mut out, &to, form, b"c", payload.as_bytes());
            let event = python::read(&out, "other", 1000).unwrap().unwrap();
            let data = String::from_utf8(event.data).unwrap();
            assert_eq!(data, expected);
            assert_eq!((&event.rooms[..], event.attachments.len()), (&["c".into()][..], 0));
        }
        for (form, expected) in
            [(EventForm::Bytes, r#"["message","c",P]"#), (EventForm::Named("n"), r#"["n",P]"#)]
        {
            let mut out = Vec::new();
            write_python(&mut out, &to, form, b"c", b"\xff");
            let event = python::read(&out, "other", 1000).unwrap().unwrap();
            let placeholder = r#"{"_placeholder":true,"num":0}"#;
            assert_eq!(event.data, expected.replace('P', placeholder).as_bytes());
            assert_eq!(event.attachments, [&b"\xff"[..]]);
        }
    }
}
