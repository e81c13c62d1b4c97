//! A page as text for a terminal, with aligned tables and a line of block characters per series.

use super::{Outcome, Page, Plot, Section, Table, Verdict};
use crate::report::figures;

/// Maximum number of characters per line of a paragraph. Tables may be wider.
const WIDTH: usize = 100;

/// Maximum number of characters of a series.
const SPARK_WIDTH: usize = 40;
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Returns the page as text. Control characters in it are replaced.
pub fn text(page: &Page) -> String {
    let mut text = String::new();
    text.push_str(&printable(&page.title));
    text.push('\n');
    paragraph(&mut text, &page.summary);
    let mut after_verdict = false;
    for section in &page.sections {
        // Consecutive verdicts form a list without empty lines.
        let is_verdict = matches!(section, Section::Verdict(_));
        if !(is_verdict && after_verdict) {
            text.push('\n');
        }
        after_verdict = is_verdict;
        match section {
            Section::Heading(heading) => {
                let heading = printable(heading);
                let line = "─".repeat(heading.chars().count());
                text.push_str(&format!("{heading}\n{line}\n"));
            }
            Section::Paragraph(sentences) => paragraph(&mut text, sentences),
            Section::Table(table) => text.push_str(&aligned(table)),
            Section::Plot(plot) => text.push_str(&sparklines(plot)),
            Section::Verdict(verdict) => text.push_str(&verdict_line(verdict)),
        }
    }
    text
}

/// Replaces control characters. A text may come from a server or a file, and must not control the
/// terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn paragraph(text: &mut String, sentences: &str) {
    wrapped(text, sentences, 0);
}

/// Wraps sentences into lines indented by `indent` spaces. The first continues the current line.
fn wrapped(text: &mut String, sentences: &str, indent: usize) {
    let mut column = indent;
    for word in sentences.split_whitespace().map(printable) {
        let length = word.chars().count();
        if column > indent && column + 1 + length > WIDTH {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        }
        if column > indent {
            text.push(' ');
            column += 1;
        }
        text.push_str(&word);
        column += length;
    }
    if column > indent {
        text.push('\n');
    }
}

/// Returns a table with its first column aligned left and the others right.
fn aligned(table: &Table) -> String {
    let rows: Vec<Vec<String>> = std::iter::once(&table.columns)
        .chain(&table.rows)
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width_of).collect();
    let mut text = String::new();
    if !table.title.is_empty() {
        text.push_str(&format!("{}\n", printable(&table.title)));
    }
    // A head without names would print as an empty line.
    let head = usize::from(rows.first().is_some_and(|head| head.iter().all(String::is_empty)));
    for row in &rows[head..] {
        let mut line = String::from("  ");
        for (column, cell) in row.iter().enumerate() {
            let fill = " ".repeat(widths[column] - cell.chars().count());
            if column == 0 {
                line.extend([cell.as_str(), &fill])
            } else {
                line.extend(["  ", &fill, cell])
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns `holds    p99<5ms: 4.2 ms`. If the claim is a sentence, the measurement is below it.
fn verdict_line(verdict: &Verdict) -> String {
    let (claim, measured) = (printable(&verdict.claim), printable(&verdict.measured));
    let colon = if measured.is_empty() { "" } else { ": " };
    let word = outcome(verdict.outcome);
    let line = format!("{word:<VERDICT_WIDTH$} {claim}{colon}{measured}\n");
    if !claim.ends_with('.') && line.chars().count() <= WIDTH + 1 {
        return line;
    }
    let mut text = format!("{word:<VERDICT_WIDTH$} ");
    wrapped(&mut text, &claim, VERDICT_WIDTH + 1);
    text.extend(std::iter::repeat_n(' ', VERDICT_WIDTH + 1));
    wrapped(&mut text, &format!("measured: {measured}"), VERDICT_WIDTH + 1);
    text
}

/// Width of the outcome of a verdict.
const VERDICT_WIDTH: usize = 8;

/// Returns the outcome in one word, for the text and for the HTML page.
pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Holds => "holds",
        Outcome::Fails => "fails",
        Outcome::Untried => "untried",
    }
}

/// Returns each series as a line of block characters, with its least and greatest value.
fn sparklines(plot: &Plot) -> String {
    let rows = plot.series.iter().map(|series| {
        let values = series.values.iter().flatten().copied().filter(|value| value.is_finite());
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| {
            (least.min(v), most.max(v))
        });
        let range = match (least.is_finite(), least == most) {
            (false, _) => "no values".to_string(),
            (true, true) => figures::three_digits(least),
            _ => format!("{} to {}", figures::three_digits(least), figures::three_digits(most)),
        };
        vec![
            format!("{}  {}", series.name, sparkline(&series.values, plot.y_is_logarithmic)),
            range,
        ]
    });
    let scale = if plot.y_is_logarithmic { ", logarithmic" } else { "" };
    let title = format!("{} ({} over {}{scale})", plot.title, plot.y_label, plot.x_label);
    // All names get the same width, so that the lines start in the same column.
    let longest =
        plot.series.iter().map(|series| printable(&series.name).chars().count()).max().unwrap_or(0);
    let rows = rows.zip(&plot.series).map(|(mut row, series)| {
        let fill = " ".repeat(longest - printable(&series.name).chars().count());
        row[0].insert_str(series.name.len(), &fill);
        row
    });
    aligned(&Table { title, columns: Vec::new(), rows: rows.collect() })
}

/// Returns one character for each part of the axis: its greatest value, or a space for a gap.
fn sparkline(values: &[Option<f64>], logarithmic: bool) -> String {
    let height = |value: &f64| if logarithmic { value.ln() } else { *value };
    let heights: Vec<Option<f64>> = values
        .iter()
        .map(|value| value.as_ref().map(height).filter(|height| height.is_finite()))
        .collect();
    let least = heights.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    let most = heights.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let width = SPARK_WIDTH.min(heights.len());
    let part = |at: usize| &heights[at * heights.len() / width..(at + 1) * heights.len() / width];
    let spark = |part: &[Option<f64>]| match part.iter().flatten().copied().reduce(f64::max) {
        None => ' ',
        // A constant is drawn at half height, because at the bottom it would look like zero.
        Some(height) if least == most && (logarithmic || height > 0.0) => {
            SPARKS[SPARKS.len() / 2 - 1]
        }
        Some(_) if least == most => SPARKS[0],
        Some(height) => {
            SPARKS[((height - least) / (most - least) * (SPARKS.len() - 1) as f64).round() as usize]
        }
    };
    (0..width).map(|at| spark(part(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Series;
    use super::*;

    fn cells(row: &[&str]) -> Vec<String> {
        row.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_long_claim_is_wrapped_with_its_measurement_below() {
        let (claim, measured) = ("what is claimed ".repeat(8), "what was measured ".repeat(7));
        let text = verdict_line(&Verdict { claim, measured, outcome: Outcome::Fails });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("fails    what is claimed"), "{text}");
        let indented = |line: &&str| line.len() - line.trim_start().len() == VERDICT_WIDTH + 1;
        assert!(lines[1..].iter().all(indented), "{text}");
        assert!(
            lines.iter().all(|line| line.chars().count() <= WIDTH && line.trim_end() == *line),
            "{text}"
        );
        assert_eq!(
            lines.iter().filter(|line| line.starts_with("         measured: what was")).count(),
            1,
            "{text}"
        );
        assert_eq!(text.split_whitespace().count(), 1 + 3 * 8 + 1 + 3 * 7, "no word is lost");
        let verdict =
            Verdict { claim: "It is so.".into(), measured: "yes".into(), outcome: Outcome::Holds };
        assert_eq!(verdict_line(&verdict), "holds    It is so.\n         measured: yes\n");
    }

    #[test]
    fn the_text_has_the_sections_of_the_page_in_order() {
        let verdict = |claim: &str, measured: &str, outcome| {
            Section::Verdict(Verdict { claim: claim.into(), measured: measured.into(), outcome })
        };
        let page = Page {
            title: "slabd stress ping".into(),
            summary: "Ran 10 s.".into(),
            sections: vec![
                Section::Heading("Bounds".into()),
                verdict("p99<5ms", "4.2 ms", Outcome::Holds),
                verdict("errors=0", "3", Outcome::Fails),
                verdict("honest>99%", "", Outcome::Untried),
                Section::Paragraph("A sentence.".into()),
                Section::Table(Table {
                    title: "Connections".into(),
                    columns: cells(&["", "number"]),
                    rows: vec![cells(&["asked for", "15,000"]), cells(&["µs", "7"])],
                }),
                Section::Plot(Plot {
                    title: "Rate".into(),
                    x_label: "seconds".into(),
                    y_label: "a second".into(),
                    y_is_logarithmic: false,
                    x: vec![0.0, 1.0, 2.0],
                    series: vec![
                        Series { name: "a".into(), values: vec![Some(0.0), None, Some(7000.0)] },
                        Series { name: "long".into(), values: vec![Some(2.0); 3] },
                    ],
                }),
            ],
        };
        let expected = "\
slabd stress ping
Ran 10 s.

Bounds
──────

holds    p99<5ms: 4.2 ms
fails    errors=0: 3
untried  honest>99%

A sentence.

Connections
             number
  asked for  15,000
  µs              7

Rate (a second over seconds)
  a     ▁ █  0.00 to 7,000
  long  ▄▄▄           2.00
";
        assert_eq!(text(&page), expected);
    }

    #[test]
    fn long_sentences_are_wrapped_between_words() {
        let mut broken = String::new();
        paragraph(&mut broken, &"word ".repeat(45));
        let lengths: Vec<usize> = broken.lines().map(str::len).collect();
        assert_eq!(lengths, [99, 99, 24]);
        let mut one = String::new();
        paragraph(&mut one, &"x".repeat(WIDTH + 1));
        assert_eq!(one.lines().count(), 1);
    }

    #[test]
    fn no_text_contains_control_characters() {
        let evil = "a\u{1b}[2Jb\r\n\u{9b}c\u{7f}";
        let table =
            Table { title: evil.into(), columns: cells(&[evil]), rows: vec![cells(&[evil])] };
        let plot = Plot {
            title: evil.into(),
            x_label: evil.into(),
            y_label: evil.into(),
            series: vec![Series { name: evil.into(), values: vec![Some(1.0)] }, Series::default()],
            ..Plot::default()
        };
        let verdict =
            Verdict { claim: evil.into(), measured: evil.into(), outcome: Outcome::Fails };
        let sections = vec![
            Section::Heading(evil.into()),
            Section::Paragraph(evil.into()),
            Section::Table(table),
            Section::Plot(plot),
            Section::Verdict(verdict),
        ];
        let text = text(&Page { title: evil.into(), summary: evil.into(), sections });
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    #[test]
    fn a_sparkline_shows_the_greatest_value_of_each_part_on_its_scale() {
        let values = |numbers: &[f64]| numbers.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(
            sparkline(&values(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), false),
            "▁▂▃▄▅▆▇█"
        );
        assert_eq!(sparkline(&values(&[1.0, 10.0, 100.0, 1e7]), true), "▁▂▃█");
        assert_eq!(sparkline(&values(&[1.0, 10.0, 100.0, 1e7]), false), "▁▁▁█");
        // A logarithmic scale has no zero.
        assert_eq!(sparkline(&values(&[0.0, 1.0, 10.0]), true), " ▁█");
        assert_eq!(sparkline(&values(&[100.0, 100.0]), false), "▄▄");
        assert_eq!(sparkline(&values(&[0.0, 0.0]), false), "▁▁");
        assert_eq!(sparkline(&[], false), "");
        assert_eq!(sparkline(&[None, None], false), "  ");
        let mut long = vec![Some(0.0); 1000];
        long[500] = Some(1.0);
        assert_eq!(sparkline(&long, false), format!("{}█{}", "▁".repeat(20), "▁".repeat(19)));
    }
}
