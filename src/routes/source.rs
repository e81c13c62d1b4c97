//! Writes the `[socketio]` section as a configuration file, with its keys in the order of the file.

use toml::de::DeValue;

use super::table::FileValue;

/// Returns the section. Equal sections have equal texts, whatever their comments and spaces.
pub fn section(section: &FileValue<'_>) -> String {
    let mut text = String::from("\n[socketio]\n");
    let mut routes = String::new();
    for (key, value) in sorted(section) {
        match (key, value.get_ref()) {
            ("on" | "from", DeValue::Array(tables)) => {
                for table in tables.iter() {
                    routes.push_str(&format!("\n[[socketio.{key}]]\n"));
                    lines(&mut routes, table);
                }
            }
            _ => line(&mut text, key, value),
        }
    }
    text + &routes
}

fn lines(out: &mut String, table: &FileValue<'_>) {
    sorted(table).into_iter().for_each(|(key, value)| line(out, key, value));
}

fn line(out: &mut String, key: &str, value: &FileValue<'_>) {
    out.push_str(&format!("{} = ", shown_key(key)));
    inline(out, value);
    out.push('\n');
}

fn sorted<'a>(table: &'a FileValue<'a>) -> Vec<(&'a str, &'a FileValue<'a>)> {
    let table = table.get_ref().as_table();
    let mut keys: Vec<_> = table.into_iter().flatten().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    keys.into_iter().map(|(key, value)| (&**key.get_ref(), value)).collect()
}

fn shown_key(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !key.is_empty() && key.chars().all(is_bare) {
        true => key.into(),
        false => one_line(key),
    }
}

/// Appends a value on one line.
fn inline(out: &mut String, value: &FileValue<'_>) {
    match value.get_ref() {
        DeValue::String(text) => out.push_str(&one_line(text)),
        DeValue::Integer(number) => out.push_str(&number.to_string()),
        DeValue::Float(number) => out.push_str(&number.to_string()),
        DeValue::Boolean(on) => out.push_str(&on.to_string()),
        DeValue::Datetime(time) => out.push_str(&time.to_string()),
        DeValue::Array(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                inline(out, value);
            }
            out.push(']');
        }
        DeValue::Table(_) => {
            let fields = sorted(value);
            out.push('{');
            for (at, (key, value)) in fields.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { " " });
                out.push_str(&format!("{} = ", shown_key(key)));
                inline(out, value);
            }
            out.push_str(if fields.is_empty() { "}" } else { " }" });
        }
    }
}

/// Returns a string in quotes, with line ends escaped.
fn one_line(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
