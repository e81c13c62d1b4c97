//! The commands about the server: INFO, MEMORY, TIME, COMMAND and SHUTDOWN.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::hub_answers::{Answer, ask, connect, hub, id, info, lines};

#[test]
fn info_returns_the_requested_sections() {
    let server = hub();
    let mut client = connect(&server);
    let all = info(&mut client, "");
    for row in [
        "server/redis_version",
        "clients/connected_clients",
        "pubsub/published_messages",
        "connections/held",
        "connections/accept_gate",
        "closed_by_reason/killed",
        "closed_by_reason/peer_closed",
        "user_memory_bytes/slab",
        "user_memory_bytes/wheel",
        "user_memory_bytes/write_buffers",
        "user_memory_bytes/resident_set",
        "timers/armed",
        "timers/fired",
        "loop/turns",
        "loop/longest_turn_us",
        "datagrams/in",
    ] {
        assert!(all.contains_key(row), "{row} in {all:?}");
    }
    assert!(all.keys().any(|row| row.starts_with("accept_queues/")));
    assert_eq!((&*all["clients/connected_clients"], &*all["connections/held"]), ("1", "1"));
    assert_eq!(all["server/process_id"], server.process_id().to_string());
    assert!(all["loop/turns"].parse::<u64>().unwrap() > 0 && all["timers/armed"] == "1");
    let mut names = |sections: &str| {
        let rows = info(&mut client, sections);
        let mut names: Vec<String> =
            rows.keys().map(|row| row.split('/').next().unwrap().to_string()).collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(names("loop"), ["loop"]);
    assert_eq!(names("TIMERS loop"), ["loop", "timers"]);
    assert_eq!(names("closed_by_reason"), ["closed_by_reason"]);
    assert_eq!(names("accept_queues"), ["accept_queues"]);
    assert_eq!(names("user_memory_bytes"), ["user_memory_bytes"]);
    assert_eq!(names("Memory replication CPU"), ["cpu", "memory", "replication"]);
    assert_eq!(names("nope server everything").len(), names("").len());
    assert_eq!(names("nope"), [""; 0]);
    let everything = names("");
    assert!(everything.len() > 8);
    assert!(["all", "everything", "default"].iter().all(|name| names(name) == everything));
}

#[test]
fn config_resetstat_sets_counters_to_zero() {
    let server = hub();
    let mut client = connect(&server);
    client.send("PUBLISH x y\r\n".repeat(50)).expect(":0\r\n".repeat(50));
    let before = info(&mut client, "");
    assert_eq!(
        (&*before["pubsub/published_messages"], &*before["stats/total_commands_processed"]),
        ("50", "51")
    );
    assert_eq!(ask(&mut client, "CONFIG RESETSTAT").text(), "OK");
    let after = info(&mut client, "");
    assert_eq!(
        (&*after["pubsub/published_messages"], &*after["stats/total_commands_processed"]),
        ("0", "1")
    );
    let number = |rows: &HashMap<String, String>, row: &str| rows[row].parse::<u64>().unwrap();
    for row in ["loop/messages", "loop/bytes_in", "loop/reads"] {
        assert!(
            number(&after, row) < number(&before, row),
            "{row} was {} and is {}",
            before[row],
            after[row]
        );
    }
    assert_eq!(after["connections/accepted"], "1");
    assert!(ask(&mut client, "CONFIG RESETSTAT x").text().starts_with("-ERR "));
}

#[test]
fn memory_commands_report_the_server_and_one_connection() {
    let server = hub();
    let mut client = connect(&server);
    let stats: HashMap<String, Answer> =
        ask(&mut client, "MEMORY STATS").map().into_iter().collect();
    for row in [
        "slab",
        "wheel",
        "read-buffers",
        "write-buffers",
        "services",
        "resident-set",
        "ledger-without-fixed",
    ] {
        assert!(matches!(stats.get(row), Some(Answer::Number(0..))), "{row} in {stats:?}");
    }
    let own_id = id(&mut client);
    let used = ask(&mut client, &format!("MEMORY USAGE {own_id}")).number();
    let line = &lines(&mut client, &format!("CLIENT LIST ID {own_id}"))[0];
    assert_eq!(used.to_string(), line["user-mem"]);
    // The hub's memory for a client's subscriptions counts.
    let mut subscriber = connect(&server);
    let subscriber_id = id(&mut subscriber);
    let plain = ask(&mut client, &format!("MEMORY USAGE {subscriber_id}")).number();
    subscriber.send("SUBSCRIBE a b c\r\nPING\r\n");
    (0..4).for_each(|_| _ = Answer::read(&mut subscriber));
    assert!(ask(&mut client, &format!("MEMORY USAGE {subscriber_id}")).number() > plain);
    for nobody in ["999", "0", "-1", "x", "99999999999999999999"] {
        assert_eq!(ask(&mut client, &format!("MEMORY USAGE {nobody}")), Answer::Null, "{nobody}");
    }
    let text = ask(&mut client, "MEMORY DOCTOR").text();
    assert!(text.starts_with("slabd uses ") && text.lines().count() > 1, "{text}");
    assert!(ask(&mut client, "MEMORY nope").text().starts_with("-ERR unknown subcommand 'nope'"));
}

#[test]
fn time_returns_the_time_of_day() {
    let server = hub();
    let mut client = connect(&server);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = now();
    let answer = ask(&mut client, "TIME").array();
    let after = now();
    let parts: Vec<u64> = answer.into_iter().map(|part| part.text().parse().unwrap()).collect();
    assert!(parts.len() == 2 && parts[1] < 1_000_000, "{parts:?}");
    let told = Duration::from_secs(parts[0]) + Duration::from_micros(parts[1]);
    // The answer is the time of the turn, from a monotonic clock, so it can differ a little.
    let second = Duration::from_secs(1);
    assert!(
        before <= told + second && told <= after + second,
        "{told:?}, between {before:?} and {after:?}"
    );
}

#[test]
fn shutdown_drains_and_exits_with_0() {
    for command in ["SHUTDOWN", "shutdown nosave", "SHUTDOWN NOW FORCE"] {
        let mut server = hub();
        let (mut asker, mut other) = (connect(&server), connect(&server));
        other.send("PING\r\n").expect("+PONG\r\n");
        assert_eq!(ask(&mut asker, "SHUTDOWN nope").text(), "-ERR syntax error");
        asker.send(format!("{command}\r\n")).expect_end();
        other.expect_end();
        drop((asker, other));
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn command_count_list_docs_and_info_agree() {
    let server = hub();
    let mut client = connect(&server);
    let count = ask(&mut client, "COMMAND COUNT").number() as usize;
    let names: Vec<String> =
        ask(&mut client, "COMMAND LIST").array().into_iter().map(Answer::text).collect();
    let entries = ask(&mut client, "COMMAND").array();
    let docs = ask(&mut client, "COMMAND DOCS").map();
    assert_eq!((names.len(), entries.len(), docs.len()), (count, count, count));
    let listed = |entries: &[Answer]| -> Vec<String> {
        entries.iter().map(|entry| entry.clone().array()[0].clone().text()).collect()
    };
    assert_eq!(listed(&entries), names);
    assert_eq!(docs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
    for (name, documented) in &docs {
        let fields: HashMap<String, Answer> = documented.clone().map().into_iter().collect();
        assert!(!fields["summary"].clone().text().is_empty(), "{name}");
        assert_eq!(
            ask(&mut client, &format!("COMMAND DOCS {name}")).map(),
            [(name.clone(), documented.clone())]
        );
    }
    assert_eq!(ask(&mut client, &format!("COMMAND INFO {}", names.join(" "))).array(), entries);
    assert_eq!(ask(&mut client, "COMMAND INFO PING nope").array()[1], Answer::Null);
    assert_eq!(ask(&mut client, "COMMAND DOCS nope PING").map()[0].0, "ping");
    // The hub checks the arity that COMMAND shows.
    for entry in &entries {
        let entry = entry.clone().array();
        let (name, arity) = (entry[0].clone().text(), entry[1].clone().number());
        assert!(arity != 0, "{name}");
        if arity != -1 && arity != 1 {
            let error = format!("-ERR wrong number of arguments for '{name}' command");
            assert_eq!(ask(&mut client, &name).text(), error);
        }
    }
}

/// Redis does the same.
#[test]
fn command_info_without_names_describes_all_commands() {
    let server = hub();
    let mut client = connect(&server);
    assert_eq!(ask(&mut client, "COMMAND INFO"), ask(&mut client, "COMMAND"));
}
