//! The table of settings in docs/run.md, made from the rows of the sources.

use slabd::config::{Config, Setting};

const WIDTH: usize = 100;

/// Returns the table, without the markers around it.
pub fn table() -> String {
    let mut text = String::new();
    let mut settings: Vec<Setting> = Setting::all().collect();
    let mut headings: Vec<&str> = Vec::new();
    for setting in &settings {
        if !headings.contains(&setting.about().heading) {
            headings.push(setting.about().heading);
        }
    }
    settings.sort_by_key(|setting| {
        headings.iter().position(|heading| *heading == setting.about().heading)
    });
    let mut heading = None;
    for setting in settings {
        let about = setting.about();
        if heading != Some(about.heading) {
            heading = Some(about.heading);
            let title = if about.heading.is_empty() { "Connections" } else { about.heading };
            text.push_str(&format!("\n### {title}\n"));
        }
        text.push_str(&format!("\n#### `--{} {}`\n", about.name, about.hint));
        let mut facts = format!("Default: {}.", setting.default());
        if let Some((_, range)) = setting.range(&Config::default()) {
            facts.push_str(&format!(" Accepted: {range}."));
        }
        facts.push_str(match setting {
            Setting::AtStart(_) => " Set at start.",
            Setting::Live(_) => " Can change while running.",
        });
        for paragraph in [facts, format!("{}.", about.help()), about.reason()] {
            push_filled(&mut text, &paragraph);
        }
    }
    text.push('\n');
    text
}

/// Returns the settings that have a default, each with its flag and the default.
pub fn defaults() -> Vec<(String, String)> {
    let all = Setting::all().map(|setting| (setting.name(), setting.default()));
    let given = all.filter(|(_, default)| default != "none");
    given.map(|(name, default)| (format!("`--{name}`"), default)).collect()
}

fn push_filled(text: &mut String, paragraph: &str) {
    let mut length = WIDTH;
    for word in paragraph.split_whitespace() {
        let more = 1 + word.chars().count();
        let fits = length + more <= WIDTH;
        text.push(if fits { ' ' } else { '\n' });
        text.push_str(word);
        length = if fits { length + more } else { more - 1 };
    }
    if !paragraph.is_empty() {
        text.push('\n');
    }
}
