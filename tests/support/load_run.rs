//! Runs of `slabd stress` with their results, and small servers for them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::spawn;

use serde_json::Value;

use super::run;

/// Runs `slabd stress` with these words. Returns its exit code, its record and its output.
pub fn stress(words: &str) -> (Option<i32>, Value, String) {
    let words: Vec<&str> = words.split_whitespace().collect();
    stress_with(&words)
}

/// Does the same with words that can contain spaces.
pub fn stress_with(words: &[&str]) -> (Option<i32>, Value, String) {
    let file = json_file();
    let mut arguments = vec!["stress", "--json", file.to_str().expect("the path is UTF-8")];
    arguments.extend(words);
    let (code, output, error) = run(&arguments);
    (code, record_in(&file), output + &error)
}

/// Reads the record that a run wrote to this file, and removes the file.
pub fn record_in(file: &PathBuf) -> Value {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let _ = std::fs::remove_file(file);
    serde_json::from_str(&text).unwrap_or_default()
}

/// Returns the path of a new file for a record.
pub fn json_file() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("slabd-stress-{}-{number}.json", std::process::id()))
}

/// Returns a percentile of a record's latency, in microseconds.
pub fn percentile(latency: &Value, percent: f64) -> f64 {
    let found = latency["percentiles"]
        .as_array()
        .expect("the record has percentiles")
        .iter()
        .find(|one| one["percent"] == percent);
    found.expect("the record has this percentile")["us"].as_f64().expect("a time")
}

pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a count"))
}

/// Starts a server that calls `each` for every connection, with the connection's number.
pub fn serve(each: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    serve_at("127.0.0.1:0", each)
}

pub fn serve_at(
    address: &str,
    each: impl Fn(usize, TcpStream) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a port is free");
    let address = listener.local_addr().expect("an address");
    let each = Arc::new(each);
    spawn(move || {
        for (index, stream) in listener.incoming().flatten().enumerate() {
            let each = each.clone();
            spawn(move || each(index, stream));
        }
    });
    address
}

/// Sends a signal to a process. The name is without SIG, such as STOP.
pub fn signal(pid: &str, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), pid]).status();
    assert!(status.expect("kill runs").success());
}

/// Checks that a run of the shape fanout delivered every message, at least 5,000, in order.
#[track_caller]
pub fn expect_all_delivered(record: &Value, said: &str) {
    let delivery = &record["delivery"];
    assert_eq!(delivery["delivered"], delivery["expected"], "{said}");
    assert_eq!((number(&delivery["lost"]), number(&delivery["out_of_order"])), (0, 0), "{said}");
    assert!(number(&delivery["delivered"]) >= 5000, "{said}");
}
