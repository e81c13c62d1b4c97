//! Autobahn's cases against the WebSocket echo. Cases 12 and 13 are left out: they test
//! compression, which the hub does not have.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::Server;
use crate::support::programs::{bounded, installed, succeeded};

/// The cases 1 to 11.
const CASES: usize = 301;
/// Cases that no behaviour can fail. 7.1.6 closes while a large message is on its way, 7.13.1 and
/// 7.13.2 send codes that RFC 6455 does not name.
const INFORMATIONAL: [&str; 3] = ["7.1.6", "7.13.1", "7.13.2"];

#[test]
fn autobahn_finds_no_fault() {
    let Some(base) = installed("autobahn") else { return };
    // The largest message has 16 MiB, and comes in up to 65,536 fragments.
    let server = Server::start(&["--listen", "hub=127.0.0.1:0", "--max-message", "17MiB"]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("autobahn");
    // Without a report of an earlier run, this run must write its own.
    let _ = std::fs::remove_dir_all(folder.join("report"));
    std::fs::create_dir_all(&folder).expect("the folder of test files is writable");
    let specification = json!({
        "options": {"failByDrop": false},
        "outdir": folder.join("report"),
        "servers": [{"agent": "slabd", "url": format!("ws://{}/echo", server.address("hub"))}],
        "cases": ["*"],
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    });
    let file = folder.join("cases.json");
    std::fs::write(&file, specification.to_string()).expect("the folder is writable");
    let mut wstest = bounded(base.join("bin/wstest"));
    wstest.args(["--mode", "fuzzingclient", "--spec"]).arg(&file).env("PYTHONUSERBASE", &base);
    let output = wstest.current_dir(&folder).output().expect("timeout (coreutils) runs");
    succeeded("wstest", &output);

    let report = std::fs::read_to_string(folder.join("report/index.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("the report is JSON");
    let cases = report["slabd"].as_object().expect("the report has this server's cases");
    let mut outcomes: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (case, result) in cases {
        let of = |name: &str| result[name].as_str().unwrap_or("missing");
        outcomes.entry((of("behavior"), of("behaviorClose"))).or_default().push(case);
    }
    let fine = outcomes.remove(&("OK", "OK")).unwrap_or_default();
    let mut informational =
        outcomes.remove(&("INFORMATIONAL", "INFORMATIONAL")).unwrap_or_default();
    informational.sort_unstable();
    assert!(outcomes.is_empty(), "{outcomes:?}; details are in {}", folder.display());
    assert_eq!(informational, INFORMATIONAL);
    assert_eq!(fine.len() + informational.len(), CASES);
    println!("{} cases of Autobahn: {} OK, 3 informational", CASES, fine.len());
}
