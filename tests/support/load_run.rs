//! Runs of `slabd stress`: what they measured, and servers made by hand for them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::spawn;

use serde_json::Value;

use super::run;

/// Runs `slabd stress` with these words: its exit code, what it measured, and what it said.
pub fn stress(words: &str) -> (Option<i32>, Value, String) {
    let words: Vec<&str> = words.split_whitespace().collect();
    stress_with(&words)
}

/// The same with words that may hold spaces.
pub fn stress_with(words: &[&str]) -> (Option<i32>, Value, String) {
    let file = json_file();
    let mut arguments = vec!["stress", "--json", file.to_str().expect("a plain path")];
    arguments.extend(words);
    let (code, output, error) = run(&arguments);
    (code, record_in(&file), output + &error)
}

/// What a run wrote to its file, which is then removed.
pub fn record_in(file: &PathBuf) -> Value {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let _ = std::fs::remove_file(file);
    serde_json::from_str(&text).unwrap_or_default()
}

pub fn json_file() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("slabd-stress-{}-{number}.json", std::process::id()))
}

pub fn percentile(latency: &Value, percent: f64) -> f64 {
    let found = latency["percentiles"].as_array().expect("percentiles").iter().find(|one| one["percent"] == percent);
    found.expect("that percentile")["us"].as_f64().expect("a time")
}

pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// A server that listens, and does this with each connection.
pub fn serve(each: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    serve_at("127.0.0.1:0", each)
}

pub fn serve_at(address: &str, each: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a free port");
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
