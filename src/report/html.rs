//! A page as one HTML file. It contains uPlot to draw its plots, and makes no request.
//!
//! Every text of the page is escaped, because it may come from a server or from a foreign file. In
//! addition, the page's Content-Security-Policy forbids all requests, so that an injected element
//! could not load or send anything.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::text::outcome;
use super::{Page, Plot, Section, Table, Verdict};

const UPLOT: &str = include_str!("uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("uplot/uPlot.min.css");
/// The licence requires this text in every copy.
const UPLOT_LICENSE: &str = include_str!("uplot/LICENSE");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page's Content-Security-Policy: only the page's own content is allowed.
const POLICY: &str = include_str!("policy.txt").trim_ascii();

/// Writes the file of `--html`. The error names the file.
pub fn write(path: &Path, page: &Page) -> Result<()> {
    std::fs::write(path, html(page)).with_context(|| format!("cannot write {}", path.display()))
}

/// Returns the page as a complete HTML document.
pub fn html(page: &Page) -> String {
    let (title, summary) = (escaped(&page.title), escaped(&page.summary));
    let (body, plots) = sections(&page.sections);
    let version = env!("CARGO_PKG_VERSION");
    // The empty icon keeps browsers from requesting one.
    format!(
        "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>{title}</title>
<link rel=\"icon\" href=\"data:,\">
<style>{UPLOT_STYLE}</style>
<style>
{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
<p class=\"summary\">{summary}</p>
</header>
{body}<footer>Written by slabd {version}. uPlot draws the plots; this file contains it and loads
nothing from elsewhere.</footer>
</main>
<script type=\"application/json\" id=\"plots\">{}</script>
<script>
/*
{UPLOT_LICENSE}*/
{UPLOT}
</script>
<script>
{SCRIPT}</script>
</body>
</html>
",
        embedded(&plots)
    )
}

/// Escapes a text for an element or a quoted attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // HTML does not allow this character.
            '\0' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Returns JSON for a script element. `</script` would end the element and `<!--` would change its
/// parsing. Both need a `<`, which JSON has only in strings, where it can be escaped.
fn embedded(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

/// Returns the tags around consecutive sections of one kind; `None` for a kind that has none.
fn group(section: &Section) -> Option<(&'static str, &'static str)> {
    match section {
        Section::Verdict(_) => Some(("<ul class=\"verdicts\">\n", "</ul>\n")),
        Section::Table(_) => Some(("<div class=\"tables\">\n", "</div>\n")),
        Section::Plot(_) => Some(("<div class=\"plots\">\n", "</div>\n")),
        Section::Heading(_) | Section::Paragraph(_) => None,
    }
}

/// Returns the markup of the sections, and the data of their plots in order.
fn sections(sections: &[Section]) -> (String, Value) {
    let (mut body, mut plots) = (String::new(), Vec::new());
    let mut open = None;
    for section in sections {
        let group = group(section);
        if group != open {
            open.into_iter().for_each(|(_, end)| body.push_str(end));
            group.into_iter().for_each(|(start, _)| body.push_str(start));
            open = group;
        }
        // Writing to a String does not fail.
        let _ = match section {
            Section::Heading(heading) => writeln!(body, "<h2>{}</h2>", escaped(heading)),
            Section::Paragraph(sentences) => writeln!(body, "<p>{}</p>", escaped(sentences)),
            Section::Verdict(verdict) => writeln!(body, "{}", verdict_item(verdict)),
            Section::Table(table) => writeln!(body, "{}", table_element(table)),
            Section::Plot(plot) => {
                plots.push(plot_data(plot));
                writeln!(body, "{}", plot_place(plot))
            }
        };
    }
    open.into_iter().for_each(|(_, end)| body.push_str(end));
    (body, Value::Array(plots))
}

fn verdict_item(verdict: &Verdict) -> String {
    let word = outcome(verdict.outcome);
    let (claim, measured) = (escaped(&verdict.claim), escaped(&verdict.measured));
    format!(
        "<li class=\"{word}\"><b>{word}</b><span>{claim}</span>\
         <span class=\"measured\">{measured}</span></li>"
    )
}

fn table_element(table: &Table) -> String {
    let mut text = String::from("<div class=\"table\"><table>");
    if !table.title.is_empty() {
        let _ = write!(text, "<caption>{}</caption>", escaped(&table.title));
    }
    if table.columns.iter().any(|column| !column.is_empty()) {
        let cells = table
            .columns
            .iter()
            .map(|column| format!("<th scope=\"col\">{}</th>", escaped(column)));
        let _ = write!(text, "<thead><tr>{}</tr></thead>", cells.collect::<String>());
    }
    text.push_str("<tbody>\n");
    for row in &table.rows {
        let cells = row.iter().enumerate().map(|(at, cell)| match at {
            0 => format!("<th scope=\"row\">{}</th>", escaped(cell)),
            _ => format!("<td>{}</td>", escaped(cell)),
        });
        let _ = writeln!(text, "<tr>{}</tr>", cells.collect::<String>());
    }
    text.push_str("</tbody></table></div>");
    text
}

fn plot_place(plot: &Plot) -> String {
    let (title, y, x) = (escaped(&plot.title), escaped(&plot.y_label), escaped(&plot.x_label));
    let scale = if plot.y_is_logarithmic { " <span>logarithmic</span>" } else { "" };
    format!(
        "<figure><figcaption>{title}{scale}</figcaption>\
         <div class=\"plot\" role=\"img\" aria-label=\"{title}: {y} over {x}\">\
         <noscript>Plots need JavaScript.</noscript></div></figure>"
    )
}

/// Returns the data of a plot. JSON has no NaN or infinity; such a value becomes a gap.
fn plot_data(plot: &Plot) -> Value {
    let series = plot.series.iter().map(|series| {
        // A logarithmic axis has no zero.
        let drawn = |value: &f64| value.is_finite() && (*value > 0.0 || !plot.y_is_logarithmic);
        let values: Vec<Option<f64>> =
            series.values.iter().map(|value| value.filter(drawn)).collect();
        json!({ "name": series.name, "values": values })
    });
    json!({
        "x_label": plot.x_label,
        "y_label": plot.y_label,
        "log": plot.y_is_logarithmic,
        "x": plot.x,
        "series": series.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Outcome, Series};
    use super::*;

    fn page(sections: Vec<Section>) -> Page {
        Page { title: "A page".into(), summary: "Of tests.".into(), sections }
    }

    fn plot(name: &str) -> Plot {
        Plot {
            title: name.into(),
            x_label: name.into(),
            y_label: name.into(),
            y_is_logarithmic: true,
            x: vec![0.0, 1.0, 2.0, 3.0],
            series: vec![Series {
                name: name.into(),
                values: vec![Some(1.5), None, Some(f64::NAN), Some(0.0)],
            }],
        }
    }

    /// Returns the data for the page's script.
    fn data(html: &str) -> Value {
        let (_, rest) = html.split_once("id=\"plots\">").unwrap();
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    }

    #[test]
    fn no_text_becomes_markup() {
        let evil = "</script><script>alert(1)</script><!--<img src=x onerror='alert(2)'>\"&\0";
        let table = Table {
            title: evil.into(),
            columns: vec![evil.into()],
            rows: vec![vec![evil.into(), evil.into()]],
        };
        let verdict =
            Verdict { claim: evil.into(), measured: evil.into(), outcome: Outcome::Untried };
        let sections = vec![
            Section::Heading(evil.into()),
            Section::Paragraph(evil.into()),
            Section::Verdict(verdict),
            Section::Table(table),
            Section::Plot(plot(evil)),
        ];
        let plain = html(&Page::default());
        let html = html(&Page { title: evil.into(), summary: evil.into(), sections });
        for markup in ["alert(1)</script", "<img", "<!--"] {
            assert!(!html.contains(markup), "{markup}");
        }
        // The texts open and close no scripts.
        for tag in ["<script", "</script"] {
            assert_eq!(html.matches(tag).count(), plain.matches(tag).count());
        }
        let escaped = "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;!--\
            &lt;img src=x onerror=&#39;alert(2)&#39;&gt;&quot;&amp;\u{fffd}";
        assert_eq!(html.matches(escaped).count(), 15);
        // The script gets the text unchanged.
        assert_eq!(data(&html)[0]["series"][0]["name"], evil);
    }

    #[test]
    fn embedded_files_do_not_end_their_element() {
        for (element, text) in
            [("script", UPLOT), ("script", UPLOT_LICENSE), ("script", SCRIPT), ("style", STYLE)]
        {
            assert!(
                !text.to_lowercase().contains(&format!("</{element}")) && !text.contains("<!--")
            );
        }
        assert!(!UPLOT_STYLE.contains('<') && !UPLOT_LICENSE.contains("*/"));
    }

    #[test]
    fn the_file_refers_to_nothing_outside() {
        let html = html(&page(vec![Section::Plot(plot("p"))]));
        assert!(
            POLICY.starts_with("default-src 'none'; ")
                && !POLICY.contains("http")
                && !POLICY.contains('*')
        );
        assert!(
            html.contains(&format!("http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\""))
        );
        for reference in
            ["src=", "@import", "url(", "fetch(", "XMLHttpRequest", "WebSocket", "import("]
        {
            assert!(!html.contains(reference), "{reference}");
        }
        assert_eq!(html.matches("href=").count(), html.matches("href=\"data:,\"").count());
    }

    #[test]
    fn consecutive_sections_of_one_kind_share_an_element() {
        let verdict = |claim: &str, outcome| {
            Section::Verdict(Verdict { claim: claim.into(), measured: "4 ms".into(), outcome })
        };
        let table = Table {
            title: "T".into(),
            columns: vec![String::new(), "n".into()],
            rows: vec![vec!["a".into(), "1".into()]],
        };
        let headless =
            Table { columns: vec![String::new(); 2], title: String::new(), ..table.clone() };
        let (body, plots) = sections(&[
            verdict("c", Outcome::Holds),
            verdict("d", Outcome::Fails),
            Section::Heading("H".into()),
            Section::Table(table),
            Section::Table(headless),
            Section::Paragraph("P".into()),
            Section::Plot(plot("p")),
            Section::Plot(plot("q")),
        ]);
        let expected = "<ul class=\"verdicts\">
<li class=\"holds\"><b>holds</b><span>c</span><span class=\"measured\">4 ms</span></li>
<li class=\"fails\"><b>fails</b><span>d</span><span class=\"measured\">4 ms</span></li>
</ul>
<h2>H</h2>
<div class=\"tables\">
<div class=\"table\"><table><caption>T</caption><thead><tr><th scope=\"col\"></th>\
<th scope=\"col\">n</th></tr></thead><tbody>
<tr><th scope=\"row\">a</th><td>1</td></tr>
</tbody></table></div>
<div class=\"table\"><table><tbody>
<tr><th scope=\"row\">a</th><td>1</td></tr>
</tbody></table></div>
</div>
<p>P</p>
<div class=\"plots\">
";
        assert_eq!(body[..expected.len()], *expected);
        assert_eq!(body.matches("class=\"plot\"").count(), 2);
        assert!(body.ends_with("</div></figure>\n</div>\n"));
        assert_eq!(
            (plots[0]["series"][0]["name"].as_str(), plots[1]["x_label"].as_str()),
            (Some("p"), Some("q"))
        );
    }

    #[test]
    fn gaps_and_values_outside_the_axis_are_null() {
        let logarithmic = plot_data(&plot("p"));
        assert_eq!(logarithmic["series"][0]["values"], json!([1.5, null, null, null]));
        assert_eq!(logarithmic["log"], true);
        let linear = plot_data(&Plot { y_is_logarithmic: false, ..plot("p") });
        assert_eq!(linear["series"][0]["values"], json!([1.5, null, null, 0.0]));
    }
}
