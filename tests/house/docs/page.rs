//! The pages of documentation as the tests read them: text, fenced blocks, and the notes before a
//! block.

use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md or a file of `docs/`.
pub struct Page {
    /// Its path from the root of the repository.
    pub name: String,
    pub text: String,
}

/// A fenced block.
pub struct Block {
    /// Line of its opening fence, from 1.
    pub line: usize,
    pub language: String,
    /// Texts of the HTML comments right before the block.
    pub notes: Vec<String>,
    pub lines: Vec<String>,
}

/// Reads all pages, the README first.
pub fn pages() -> Vec<Page> {
    let mut names = vec!["README.md".to_string()];
    let mut folder: Vec<String> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    folder.sort();
    names.append(&mut folder);
    let read = |name: String| Page { text: fs::read_to_string(root().join(&name)).unwrap(), name };
    names.into_iter().map(read).collect()
}

/// Reads one page.
pub fn page(name: &str) -> Page {
    let found = pages().into_iter().find(|page| page.name == name);
    found.unwrap_or_else(|| panic!("there is no page {name}"))
}

impl Page {
    pub fn path(&self) -> PathBuf {
        root().join(&self.name)
    }

    /// Returns the fenced blocks in order.
    pub fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut notes) = (Vec::new(), Vec::new());
        let mut lines = self.text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let note = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
            if let Some(note) = note {
                notes.push(note.to_string());
                continue;
            }
            if let Some(language) = line.strip_prefix("```") {
                let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
                blocks.push(Block {
                    line: index + 1,
                    language: language.to_string(),
                    notes: std::mem::take(&mut notes),
                    lines: inside.map(str::to_string).collect(),
                });
            }
            notes.clear();
        }
        blocks
    }

    /// Returns the lines outside fenced blocks and HTML comments, with their numbers from 1.
    pub fn prose(&self) -> Vec<(usize, &str)> {
        let (mut found, mut fenced) = (Vec::new(), false);
        for (index, line) in self.text.lines().enumerate() {
            if line.starts_with("```") {
                fenced = !fenced;
            } else if !fenced && !line.starts_with("<!--") {
                found.push((index + 1, line));
            }
        }
        found
    }

    /// Returns the inline code spans, with their line numbers from 1. A span may continue on the
    /// next line.
    pub fn spans(&self) -> Vec<(usize, String)> {
        let prose = self.prose();
        let (mut found, mut open) = (Vec::new(), None::<(usize, String)>);
        for (number, line) in prose {
            if line.is_empty() {
                assert!(open.is_none(), "{}:{number}: a code span does not end", self.name);
            }
            for (part, text) in line.split('`').enumerate() {
                if part > 0 {
                    match open.take() {
                        Some(span) => found.push(span),
                        None => open = Some((number, String::new())),
                    }
                }
                if let Some((_, span)) = &mut open {
                    span.push_str(text);
                }
            }
            if let Some((_, span)) = &mut open {
                span.push(' ');
            }
        }
        found
    }

    /// Returns the anchors of its headings, as GitHub makes them.
    pub fn anchors(&self) -> Vec<String> {
        let prose = self.prose();
        let headings = prose.iter().filter(|(_, line)| line.starts_with('#'));
        headings
            .map(|(_, line)| {
                let title = line.trim_start_matches('#').trim().to_lowercase();
                let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
                kept.map(|c| if c == ' ' { '-' } else { c }).collect()
            })
            .collect()
    }
}

/// Returns true if lines match a pattern. In the pattern, a line of only `…` stands for any lines,
/// `…` within a line for any text, and spaces for any spaces.
pub fn lines_match(pattern: &[String], lines: &[&str]) -> bool {
    let segments: Vec<&[String]> = pattern.split(|line| line.trim() == "…").collect();
    let fits = |segment: &[String], at: usize| {
        segment.len() <= lines.len() - at.min(lines.len())
            && segment.iter().zip(&lines[at..]).all(|(pattern, line)| line_matches(pattern, line))
    };
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    if segments.len() == 1 {
        return first.len() == lines.len() && fits(first, 0);
    }
    if !fits(first, 0) {
        return false;
    }
    let mut at = first.len();
    for segment in &segments[1..segments.len() - 1] {
        match (at..=lines.len()).find(|at| fits(segment, *at)) {
            Some(found) => at = found + segment.len(),
            None => return false,
        }
    }
    lines.len() >= at + last.len() && fits(last, lines.len() - last.len())
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (pattern, line) = (plain(pattern), plain(line));
    let parts: Vec<&str> = pattern.split('…').map(str::trim).collect();
    if parts.len() == 1 {
        return pattern == line;
    }
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in &parts[1..parts.len() - 1] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ellipsis_stands_for_any_text_or_any_lines() {
        let fits = |pattern: &str, text: &str| {
            let pattern: Vec<String> = pattern.lines().map(str::to_string).collect();
            lines_match(&pattern, &text.lines().collect::<Vec<_>>())
        };
        for (pattern, text) in [
            ("a\nb", "a\nb"),
            ("", ""),
            ("p50  … ms", "p50 12.5 ms"),
            ("[… INFO …] ready", "[2026 INFO slabd] ready"),
            ("a\n…\nd", "a\nb\nc\nd"),
            ("a\n…\nd", "a\nd"),
            ("…\nc\n…", "a\nb\nc\nd"),
            ("…", ""),
        ] {
            assert!(fits(pattern, text), "{pattern:?} is to fit {text:?}");
        }
        for (pattern, text) in [
            ("a", "a\nb"),
            ("a\nb", "a"),
            ("", "a"),
            ("p50 … ms", "p50 12.5 us"),
            ("a\n…\nd", "a\nb\nc"),
            ("a\n…\na", "a"),
            ("…\nc", "c\nd"),
        ] {
            assert!(!fits(pattern, text), "{pattern:?} is not to fit {text:?}");
        }
    }
}
