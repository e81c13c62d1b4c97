//! The page of `--html` in Chromium: it draws every line in both colour schemes, requests nothing,
//! and shows its measurements without JavaScript. Screenshots are in cargo's folder for test files,
//! `report_page`.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use slabd::report::{Page, Plot, Section, Series, html};
use slabd::stress::record::{
    Bound, Connections, Generator, Latency, Percentile, Probe, Record, Requests, Sample,
    ServerMemory, Trial,
};
use slabd::stress::{compare, page};

use crate::support::programs::{available, bounded, installed, ours, succeeded};

fn latency(us: f64, count: u64) -> Latency {
    let percentiles = [(50.0, 1.0), (90.0, 1.6), (99.0, 4.0), (99.9, 9.0), (99.99, 30.0)];
    let percentiles =
        percentiles.map(|(percent, factor)| Percentile { percent, us: us * factor }).to_vec();
    Latency {
        count,
        corrected: true,
        min_us: us / 3.0,
        mean_us: us * 1.2,
        max_us: us * 55.0,
        percentiles,
    }
}

/// Returns the sample of a half second of a flood of one minute: a ramp, a plateau, a stall, and an
/// end.
fn sample(n: u64) -> Sample {
    let t_s = n as f64 / 2.0;
    let open = (n * 500).min(15_000).min((120 - n) * 1500);
    let stalled = (60..64).contains(&n);
    let wave = 1.0 + 0.1 * (n as f64 / 3.0).sin();
    Sample {
        t_s,
        connecting: if (1..30).contains(&n) { 900 + n % 7 * 40 } else { 0 },
        open,
        failed: n.saturating_sub(20).min(12) * 3,
        closed_by_server: n.saturating_sub(70) * 20,
        rate: if stalled { 0.0 } else { 21_000.0 * wave },
        errors: n.clamp(60, 64) * 25 - 1500,
        p50_us: (!stalled).then_some(180.0 * wave),
        p99_us: (!stalled).then_some(if n == 64 { 1_900_000.0 } else { 900.0 * wave * wave }),
        max_us: (!stalled).then_some(if n == 64 { 2_000_000.0 } else { 4_000.0 * wave }),
        server_rss: Some((9 << 20) + open * 525),
        kernel_bytes: Some(open * 8100),
    }
}

/// Returns the record of that flood.
fn record() -> Record {
    let probe = |phase: &str, answered, us| Probe {
        phase: phase.into(),
        sent: 2534,
        answered,
        latency: Some(latency(us, answered)),
    };
    let trial = |asked_rate: f64, p99_us, held| Trial {
        asked_rate,
        reached_rate: asked_rate * 0.999,
        p99_us,
        held,
    };
    Record {
        format: 1,
        version: "0.1.0".into(),
        started: 1_795_287_600,
        target: "resp://127.0.0.1:6379".into(),
        shape: "silent".into(),
        parameters: [("connections", "15000"), ("rate", "20k"), ("time", "60s")]
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .into(),
        duration_s: 60.2,
        connections: Connections {
            asked: 15_000,
            opened: 15_000,
            open_at_peak: 15_000,
            open_at_end: 14_000,
            closed_by_server: 1000,
            close_codes: [("1013".to_string(), 2)].into(),
            pings: 12,
            reconnects: 900,
            failed: [("refused".to_string(), 24), ("timeout".to_string(), 12)].into(),
        },
        requests: Requests {
            sent: 1_260_100,
            answered: 1_260_000,
            repeated: 0,
            rate: 21_000.4,
            errors: [("timeout".to_string(), 60), ("unanswered at the end".to_string(), 40)].into(),
            bytes_out: 17_641_400,
            bytes_in: 8_820_000,
        },
        latency: Some(latency(180.0, 1_260_000)),
        connect_latency: Some(latency(60.0, 15_000)),
        trials: vec![
            trial(10_000.0, 400.0, true),
            trial(20_000.0, 900.0, true),
            trial(40_000.0, 70_000.0, false),
        ],
        probes: vec![
            probe("before", 2534, 120.0),
            probe("during", 2500, 400.0),
            probe("after", 2534, 125.0),
        ],
        reclaim_s: Some(1.4),
        server: Some(ServerMemory {
            source: "pid 4711 and its children".into(),
            rss_before: 9 << 20,
            rss_at_peak: (9 << 20) + 15_000 * 525,
            peak_at_s: 9.5,
            rss_at_end: 10 << 20,
            connections: 15_000,
            rss_resolution: 16_384,
            user_bytes_per_connection: Some(525.0),
            kernel_bytes_per_connection: Some(4050.0),
            cpu_s: Some(21.5),
        }),
        generator: Generator {
            cpu_s: 57.9,
            cpu_share: 0.965,
            saturated: true,
            rss_at_peak: 31 << 20,
        },
        samples: (0..=120).map(sample).collect(),
        bounds: vec![
            Bound { text: "p99<5ms".into(), measured: Some("0.72 ms".into()), held: true },
            Bound { text: "errors=0".into(), measured: Some("100".into()), held: false },
            Bound { text: "lost=0".into(), measured: None, held: false },
        ],
        notes: vec![
            "A name from elsewhere stays text: <img src=http://127.0.0.1:9/note.png>.".into(),
        ],
        ..Record::default()
    }
}

/// Returns the paths of the browser and its driver. If one is missing, prints SKIPPED and returns
/// `None`.
fn browser() -> Option<(String, PathBuf)> {
    let driver = installed("node_modules/playwright-core");
    let chromium = available("chromium", "chromium") && available("node", "nodejs");
    Some(("/usr/bin/chromium".to_string(), driver.filter(|_| chromium)?))
}

/// Opens the pages in the browser, and returns its findings for each page.
fn look(folder: &str, pages: &[(&str, String)]) -> Option<Vec<Value>> {
    let (chromium, driver) = browser()?;
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).expect("cargo's folder for tests' files is writable");
    for (name, html) in pages {
        fs::write(folder.join(format!("{name}.html")), html).expect("the page is written");
    }
    let names: Vec<&str> = pages.iter().map(|(name, _)| *name).collect();
    fs::write(folder.join("names.json"), Value::from(names).to_string())
        .expect("the list is written");
    let modules = driver.parent().expect("the package is in node_modules");
    let mut node = bounded("node");
    node.arg(ours("report_page.js"))
        .args([&chromium, &folder.display().to_string()])
        .env("NODE_PATH", modules);
    let output = node.stdin(Stdio::null()).output().expect("timeout (coreutils) runs");
    let text = succeeded("report_page.js", &output);
    println!("screenshots are in {}", folder.display());
    Some(text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect())
}

/// Checks that each plot of the page has a line for each series, and a grid and axes.
#[track_caller]
fn assert_drawn(page: &Page, seen: &Value, how: &str) {
    let plots: Vec<_> = page
        .sections
        .iter()
        .filter_map(|section| match section {
            Section::Plot(plot) => Some(plot),
            _ => None,
        })
        .collect();
    let drawn = seen[how].as_array().expect("the finding is a list of plots");
    assert_eq!(drawn.len(), plots.len(), "{how}");
    for (plot, drawn) in plots.iter().zip(drawn) {
        let title = format!("{}, {how}: {drawn}", plot.title);
        let names: Vec<&str> = plot.series.iter().map(|series| series.name.as_str()).collect();
        let series = drawn["series"].as_array().unwrap_or_else(|| panic!("no canvas in {title}"));
        let drawn_names: Vec<&str> = series.iter().filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(drawn_names, names, "{title}");
        for one in series {
            assert!(one["pixels"].as_u64() > Some(30), "{} is not drawn in {title}", one["name"]);
        }
        // Grid, axes and their numbers have colours of their own.
        assert!(drawn["colours"].as_u64() > Some(names.len() as u64 + 10), "{title}");
        let legend: Vec<&str> =
            drawn["legend"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(legend[1..], names, "{title}");
    }
}

/// Checks that the page requested only its own file and logged no error.
#[track_caller]
fn assert_quiet(seen: &Value) {
    for how in ["light_seen", "dark_seen"] {
        assert_eq!(seen[how]["requests"], Value::from(vec![seen["file"].clone()]), "{how}");
        assert_eq!(seen[how]["complaints"], Value::from(Vec::<String>::new()), "{how}");
    }
}

/// Returns the record of a slower server, with samples at other times.
fn slower() -> Record {
    let mut record = record();
    record.target = "resp://127.0.0.1:9999".into();
    record.latency = Some(latency(240.0, 1_000_000));
    record.trials.pop();
    for sample in &mut record.samples {
        sample.t_s = sample.t_s * 1.07 + 0.2;
        sample.rate *= 0.7;
        sample.open = sample.open * 9 / 10;
        sample.connecting *= 2;
        sample.failed *= 60;
        sample.closed_by_server *= 3;
        sample.errors *= 2;
        sample.p50_us = sample.p50_us.map(|us| us * 2.2);
        sample.p99_us = sample.p99_us.map(|us| us * 2.2);
        sample.max_us = sample.max_us.map(|us| us * 2.2);
        sample.server_rss = sample.server_rss.map(|bytes| bytes * 3);
        sample.kernel_bytes = sample.kernel_bytes.map(|bytes| bytes * 3 / 4);
    }
    record.trials.iter_mut().for_each(|trial| trial.p99_us *= 3.0);
    record
}

#[test]
fn pages_draw_every_series_and_request_nothing() {
    let (run, other) = (record(), slower());
    let pages = [
        ("run", page::page(&run)),
        ("compare", compare::compare("a.json", &run, "b.json", &other)),
    ];
    let written = pages.each_ref().map(|(name, page)| (*name, html::html(page)));
    let Some(seen) = look("report_page", &written) else { return };
    for ((_, page), seen) in pages.iter().zip(&seen) {
        for how in ["light", "dark", "narrow"] {
            assert_drawn(page, seen, how);
        }
        assert_quiet(seen);
        assert_eq!(seen["sideways"], 0, "a narrow window scrolls sideways");
    }
    let seen = &seen[0];
    assert_ne!(seen["light_background"], seen["dark_background"]);
    let text = seen["without_script"].as_str().expect("the finding is a text");
    for part in [
        "slabd stress silent",
        "fails",
        "holds",
        "p99.99",
        "14,000",
        "<img src=",
        "Plots need JavaScript.",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

/// The plots have no series, no values, one value or equal values.
#[test]
fn plots_with_few_or_no_values_are_drawn_without_errors() {
    let mut plots = Vec::new();
    for y_is_logarithmic in [false, true] {
        for values in [
            vec![],
            vec![None; 3],
            vec![Some(5.0)],
            vec![Some(0.0); 3],
            vec![Some(7.0); 3],
            vec![Some(-3.0), Some(-2.0)],
        ] {
            let x: Vec<f64> = (0..values.len()).map(|at| at as f64).collect();
            let series = vec![Series { name: format!("{values:?}"), values }];
            let (title, x_label, y_label) = ("Edge".into(), "seconds".into(), "values".into());
            plots.push(Section::Plot(Plot {
                title,
                x_label,
                y_label,
                y_is_logarithmic,
                x,
                series,
            }));
        }
        // A plot without series.
        plots.push(Section::Plot(Plot { y_is_logarithmic, x: vec![1.0], ..Plot::default() }));
    }
    let page = Page { sections: plots, ..Page::default() };
    let pages = [("edges", html::html(&page)), ("nothing", html::html(&Page::default()))];
    let Some(seen) = look("report_page_edges", &pages) else { return };
    seen.iter().for_each(assert_quiet);
    let drawn = seen[0]["light"].as_array().expect("the finding is a list of plots");
    assert_eq!(drawn.len(), page.sections.len());
    assert!(drawn.iter().all(|plot| !plot.is_null()), "{drawn:?}");
    // Equal values are a line, on a linear and on a logarithmic axis.
    for at in [4, 11] {
        assert!(drawn[at]["series"][0]["pixels"].as_u64() > Some(30), "{}", drawn[at]);
    }
}

/// Pages with these faults show that the tests above would notice them.
#[test]
fn the_browser_check_notices_requests_errors_and_missing_lines() {
    let whole = html::html(&page::page(&record()));
    let policy = whole
        .lines()
        .find(|line| line.contains("Content-Security-Policy"))
        .expect("the page has a policy");
    let image = "<img src=\"http://127.0.0.1:9/x.png\">";
    let with_image = whole.replace("<footer>", &format!("{image}<footer>"));
    let pages = [
        ("asks", with_image.replace(policy, "")),
        ("forbidden", with_image),
        ("undrawn", whole.replace("\"values\":[", "\"values\":[null],\"lost\":[")),
        ("broken", whole.replace("id=\"plots\">[", "id=\"plots\">{[")),
    ];
    let Some(seen) = look("report_page_faults", &pages) else { return };
    let requests = |at: usize| {
        seen[at]["light_seen"]["requests"].as_array().expect("the finding is a list").len()
    };
    let complaints = |at: usize| {
        seen[at]["light_seen"]["complaints"].as_array().expect("the finding is a list").len()
    };
    assert!(requests(0) == 2, "{}", seen[0]["light_seen"]);
    // The page's policy blocks the request and logs a message.
    assert!(requests(1) == 1 && complaints(1) > 0, "{}", seen[1]["light_seen"]);
    assert_eq!(seen[2]["light"][0]["series"][0]["pixels"], 0);
    assert!(complaints(3) > 0 && seen[3]["light"].is_null(), "{}", seen[3]);
}
