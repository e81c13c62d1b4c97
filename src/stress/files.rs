//! The files of a run: `--json` to compare it with others, `--hdr` for HdrHistogram's plotters.

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use hdrhistogram::Histogram;
use serde::Deserialize;

use super::record::{FORMAT, Record};
use crate::limits::RECORD_FILE_MAX;

/// The fields that every version of the file has.
#[derive(Deserialize)]
struct Header {
    format: u32,
    version: Option<String>,
}

/// Fails if a file for the flag cannot be created, so that the results of a run are not lost.
pub fn check_writable(flag: &str, file: Option<&Path>) -> Result<(), String> {
    let Some(file) = file else { return Ok(()) };
    let example = "expected a file in a folder that exists, such as";
    if file.as_os_str().is_empty() {
        return Err(format!("--{flag}: the file has no name; {example} run.{flag}"));
    }
    if file.is_dir() || file.file_name().is_none() {
        return Err(format!("--{flag}: {} is a folder; {example} run.{flag}", file.display()));
    }
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(format!(
            "--{flag}: the folder {} does not exist; {example} run.{flag}",
            folder.display()
        )),
        _ => Ok(()),
    }
}

/// Writes the file of `--json`. Fails, and writes nothing, if a figure is not a finite number.
pub fn write_record(path: &Path, record: &Record) -> Result<()> {
    let mut text = serde_json::to_string_pretty(record)
        .with_context(|| format!("cannot write {}", path.display()))?;
    text.push('\n');
    // JSON has neither infinity nor NaN. Such a figure becomes null, which cannot be read back.
    if let Err(error) = serde_json::from_str::<Record>(&text) {
        bail!("cannot write {}: a figure is not a number ({error})", path.display());
    }
    write(path, &text)
}

/// Reads a file that [`write_record`] wrote. Every error names the file.
pub fn read_record(path: &Path) -> Result<Record> {
    let name = path.display();
    let file = fs::File::open(path).map_err(|why| {
        anyhow!("cannot read {name}: {why}; expected a file of slabd stress --json")
    })?;
    let mut text = Vec::new();
    file.take(RECORD_FILE_MAX + 1)
        .read_to_end(&mut text)
        .with_context(|| format!("cannot read {name}"))?;
    if text.len() as u64 > RECORD_FILE_MAX {
        bail!(
            "{name} was not written by slabd stress --json: it is larger than {} MiB",
            RECORD_FILE_MAX >> 20
        );
    }
    let value: serde_json::Value = match serde_json::from_slice(&text) {
        Ok(value) => value,
        Err(error) => {
            bail!("{name} was not written by slabd stress --json: it is not JSON ({error})")
        }
    };
    let header = match Header::deserialize(&value) {
        Ok(header) => header,
        Err(error) => bail!("{name} was not written by slabd stress --json: {error}"),
    };
    if header.format != FORMAT {
        let writer =
            header.version.map(|version| format!(" by slabd {version}")).unwrap_or_default();
        let reader = env!("CARGO_PKG_VERSION");
        bail!(
            "{name} was written{writer} in format {}; slabd {reader} reads format {FORMAT} only",
            header.format
        );
    }
    // Parses the text again, because errors of a parsed value have no line numbers.
    serde_json::from_slice(&text).with_context(|| format!("{name} is not complete"))
}

/// Writes the file of `--hdr`: nanoseconds as a percentile distribution in milliseconds.
pub fn write_distribution(path: &Path, nanoseconds: &Histogram<u64>) -> Result<()> {
    write(path, &distribution(nanoseconds))
}

/// Lines for each halving of the distance to 100 %, as in wrk2 and HdrHistogram's tools.
const TICKS_PER_HALF: u32 = 5;

/// Returns the `.hgrm` text that HdrHistogram's plotters read, with the columns `Value`,
/// `Percentile`, `TotalCount` and `1/(1-Percentile)`.
fn distribution(nanoseconds: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let milliseconds = |nanoseconds: f64| nanoseconds / 1e6;
    let mut total = 0;
    for step in nanoseconds.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let value = milliseconds(step.value_iterated_to() as f64);
        let quantile = step.quantile_iterated_to();
        let inverse =
            if quantile < 1.0 { format!("{:.2}", 1.0 / (1.0 - quantile)) } else { "inf".into() };
        let _ = writeln!(text, "{value:12.3} {quantile:14.12} {total:10} {inverse:>14}");
    }
    // As in HdrHistogram: the smallest power of two that distinguishes this many digits.
    let sub_buckets = (2 * 10u64.pow(nanoseconds.sigfig().into())).next_power_of_two();
    let (mean, deviation) = (milliseconds(nanoseconds.mean()), milliseconds(nanoseconds.stdev()));
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let max = milliseconds(nanoseconds.max() as f64);
    let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {:12}]", nanoseconds.len());
    let _ = writeln!(
        text,
        "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]",
        nanoseconds.buckets()
    );
    text
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::record::{Bound, Sample};
    use super::*;

    /// A file that is removed at the end of the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            Scratch(std::env::temp_dir().join(format!("slabd-files-{}-{name}", std::process::id())))
        }

        fn with(name: &str, text: &str) -> Scratch {
            let file = Scratch::new(name);
            fs::write(&file.0, text).unwrap();
            file
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn record() -> Record {
        Record {
            format: FORMAT,
            version: "0.1.0".into(),
            target: "resp://127.0.0.1:6379".into(),
            duration_s: 1.5,
            samples: vec![Sample {
                t_s: 0.5,
                p99_us: Some(12.25),
                server_rss: None,
                ..Sample::default()
            }],
            bounds: vec![Bound {
                text: "p99<5ms".into(),
                measured: Some("4.2 ms".into()),
                held: true,
            }],
            ..Record::default()
        }
    }

    #[test]
    fn a_record_survives_writing_and_reading() {
        let file = Scratch::new("whole.json");
        write_record(&file.0, &record()).unwrap();
        assert_eq!(read_record(&file.0).unwrap(), record());
    }

    #[test]
    fn the_error_for_an_unreadable_file_names_it_and_the_reason() {
        let whole = serde_json::to_value(record()).unwrap();
        let without = |field: &str| {
            let mut value = whole.clone();
            value.as_object_mut().unwrap().remove(field);
            value.to_string()
        };
        let newer =
            whole.to_string().replace("\"format\":1", "\"format\":2").replace("0.1.0", "9.9.9");
        for (name, text, reasons) in [
            ("words.json", "no json\n".to_string(), vec!["not JSON", "line 1"]),
            ("cut.json", whole.to_string()[..99].to_string(), vec!["not JSON", "EOF"]),
            ("empty.json", String::new(), vec!["not JSON", "EOF"]),
            ("list.json", "[1, 2]".to_string(), vec!["was not written by slabd stress --json"]),
            (
                "other.json",
                "{\"a\": 1}".to_string(),
                vec!["was not written by slabd stress --json", "`format`"],
            ),
            ("newer.json", newer, vec!["by slabd 9.9.9 in format 2", "reads format 1"]),
            ("lacking.json", without("samples"), vec!["is not complete", "`samples`"]),
        ] {
            let file = Scratch::with(name, &text);
            let error = format!("{:#}", read_record(&file.0).unwrap_err());
            assert!(error.contains(name), "{error}");
            reasons.iter().for_each(|reason| assert!(error.contains(reason), "{name}: {error}"));
        }
        let error = format!("{:#}", read_record(Path::new("/nonexistent/a.json")).unwrap_err());
        assert_eq!(
            error,
            "cannot read /nonexistent/a.json: No such file or directory (os error 2); \
             expected a file of slabd stress --json"
        );
    }

    #[test]
    fn a_file_in_a_missing_folder_is_refused_before_the_run() {
        for (file, reason) in [
            ("/nonexistent/run.html", "--html: the folder /nonexistent does not exist; expected"),
            (
                "/",
                "--html: / is a folder; expected a file in a folder that exists, such as run.html",
            ),
            ("..", "--html: .. is a folder"),
            ("", "--html: the file has no name; expected a file in a folder that exists, such as"),
        ] {
            let error = check_writable("html", Some(Path::new(file))).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
        for file in [None, Some("run.html"), Some("./run.html"), Some("/tmp/run.html")] {
            assert_eq!(check_writable("html", file.map(Path::new)), Ok(()));
        }
    }

    #[test]
    fn a_file_may_have_the_largest_size_and_not_one_byte_more() {
        let text = serde_json::to_string(&record()).unwrap();
        let padding = " ".repeat(RECORD_FILE_MAX as usize - text.len());
        let file = Scratch::with("large.json", &format!("{text}{padding}"));
        assert_eq!(read_record(&file.0).unwrap(), record());
        fs::write(&file.0, format!("{text}{padding} ")).unwrap();
        assert!(read_record(&file.0).unwrap_err().to_string().contains("larger than 16 MiB"));
    }

    #[test]
    fn a_figure_that_is_not_a_number_is_an_error_and_writes_no_file() {
        let file = Scratch::new("nan.json");
        let error =
            write_record(&file.0, &Record { duration_s: f64::NAN, ..record() }).unwrap_err();
        assert!(error.to_string().contains("not a number"), "{error}");
        assert!(!file.0.exists());
        assert!(write_record(Path::new("/nonexistent/a.json"), &record()).is_err());
    }

    #[test]
    fn a_distribution_has_the_columns_for_plotters() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=1000).for_each(|n| histogram.record(n * 1_000_000).unwrap());
        let file = Scratch::new("run.hgrm");
        write_distribution(&file.0, &histogram).unwrap();
        let text = fs::read_to_string(&file.0).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
        );
        let rows: Vec<Vec<&str>> = lines[2..]
            .iter()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert!(rows.iter().all(|row| row.len() == 4), "{text}");
        let half = rows.iter().find(|row| row[1] == "0.500000000000").unwrap();
        let value: f64 = half[0].parse().unwrap();
        assert!((value - 500.0).abs() < 0.5, "{value} ms of 500");
        assert_eq!(half[2..], ["500", "2.00"]);
        let last = rows.last().unwrap();
        assert_eq!(last[1..], ["1.000000000000", "1000", "inf"]);
        // The histogram rounds up to three digits.
        let max: f64 = last[0].parse().unwrap();
        assert!((1000.0..1001.0).contains(&max), "{max}");
        assert!(
            text.contains("Total count    =         1000]")
                && text.contains("SubBuckets     =         2048]")
        );
        assert!(text.contains("#[Mean    =      500."), "{text}");
    }

    #[test]
    fn a_distribution_without_values_has_no_rows() {
        let text = distribution(&Histogram::<u64>::new(2).unwrap());
        assert!(text.contains("Total count    =            0]"), "{text}");
        assert!(text.contains("SubBuckets     =          256]"), "{text}");
    }
}
