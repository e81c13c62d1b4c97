//! docs/settings.md is made from the rows of the settings: `SLABD_WRITE=1 cargo test --test settings_page` writes it.

use slabd::config::{Config, Setting};

const WIDTH: usize = 100;

#[test]
fn the_page_of_settings_is_what_the_rows_say() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let page = page();
    if std::env::var_os("SLABD_WRITE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/settings.md is out of date: SLABD_WRITE=1 cargo test --test settings_page");
}

fn page() -> String {
    let mut page = String::from("# Settings\n");
    paragraph(
        &mut page,
        "Each is a flag, a key of the TOML file for `--config`, and, if it can change while the server runs, a parameter \
         of CONFIG GET and CONFIG SET. Flags win over the file. `slabd --check` prints all of them as such a file. A \
         SIGHUP reads flags and file again, and takes over what can change. A time without a unit is in seconds, a size \
         in bytes.",
    );
    let mut settings: Vec<Setting> = Setting::all().collect();
    let mut headings: Vec<&str> = Vec::new();
    for setting in &settings {
        if !headings.contains(&setting.about().heading) {
            headings.push(setting.about().heading);
        }
    }
    settings.sort_by_key(|setting| headings.iter().position(|heading| *heading == setting.about().heading));
    let mut heading = "";
    for setting in settings {
        let about = setting.about();
        if about.heading != heading {
            heading = about.heading;
            page.push_str(&format!("\n## {heading}\n"));
        }
        page.push_str(&format!("\n### `--{} {}`\n", about.name, about.hint));
        let mut facts = format!("Default: {}.", setting.default());
        if let Some((_, range)) = setting.range(&Config::default()) {
            facts.push_str(&format!(" Accepted: {range}."));
        }
        facts.push_str(match setting {
            Setting::AtStart(_) => " Set at start.",
            Setting::Live(_) => " Can change while running.",
        });
        for text in [facts, format!("{}.", about.help()), about.reason()] {
            paragraph(&mut page, &text);
        }
    }
    page
}

fn paragraph(page: &mut String, text: &str) {
    let mut length = WIDTH;
    for word in text.split_whitespace() {
        let more = 1 + word.chars().count();
        let fits = length + more <= WIDTH;
        page.push(if fits { ' ' } else { '\n' });
        page.push_str(word);
        length = if fits { length + more } else { more - 1 };
    }
    if !text.is_empty() {
        page.push('\n');
    }
}
