//! The operator's listener: it keeps a slot for a newcomer, and operators' commands are its own.

use slabd::connection::Reason;
use slabd::hub::Hub;
use slabd::limits::{Limits, RESERVED_SLOTS};
use slabd::net::sim::ClientId;
use slabd::service::{Options, Secret};

use crate::sim::{SECOND, Sim, limits};

/// A hub with a listener for the operator.
struct Door {
    sim: Sim,
    address: std::net::SocketAddr,
}

impl Door {
    fn new(options: Options, limits: Limits) -> Door {
        let mut sim = Sim::new(Box::new(Hub::new(&options)), limits);
        let address =
            sim.reactor.listen_for_operator("127.0.0.1:0".parse().unwrap(), 64, 0).unwrap();
        Door { sim, address }
    }

    fn guarded() -> Door {
        let password = Some(Secret(b"secret"[..].into()));
        Door::new(Options { password, operators_by_door: true, ..Options::default() }, limits())
    }

    /// Returns a hub without a password, whose operators' commands are the door's alone or not.
    fn open(operators_by_door: bool) -> Door {
        Door::new(Options { operators_by_door, ..Options::default() }, limits())
    }

    fn operator(&mut self) -> ClientId {
        let client = self.sim.reactor.net_mut().client(self.address).unwrap();
        self.sim.turns(2);
        client
    }

    fn operators(&mut self, say: &str) -> Vec<ClientId> {
        (0..RESERVED_SLOTS)
            .map(|_| {
                let client = self.operator();
                self.sim.exchange(client, say);
                self.sim.pass(SECOND);
                client
            })
            .collect()
    }
}

#[test]
fn a_newcomer_at_the_door_gets_a_slot_whatever_holds_the_others() {
    for says in ["", "PING\r\n", "SUBSCRIBE a\r\n", "MONITOR\r\n", "PART", "QUIT\r\nPING\r\n"] {
        let mut door = Door::open(true);
        let held = door.operators(says);
        // A busy client speaks again and again.
        if says.starts_with("PING") {
            held.iter().for_each(|client| drop(door.sim.exchange(*client, says)));
        }
        for _ in 0..3 * RESERVED_SLOTS {
            let newcomer = door.operator();
            assert_eq!(door.sim.exchange(newcomer, "PING\r\n"), "+PONG\r\n", "{says:?}");
            assert!(door.sim.reactor.connections() <= RESERVED_SLOTS, "{says:?}");
        }
        assert!(held.iter().all(|client| door.sim.is_ended(*client)), "{says:?}");
    }
}

#[test]
fn many_newcomers_at_once_leave_the_last_eight() {
    let mut door = Door::open(true);
    let clients: Vec<ClientId> =
        (0..60).map(|_| door.sim.reactor.net_mut().client(door.address).unwrap()).collect();
    door.sim.turns(4);
    assert_eq!(door.sim.reactor.connections(), RESERVED_SLOTS);
    for client in &clients[clients.len() - RESERVED_SLOTS..] {
        assert_eq!(door.sim.exchange(*client, "PING\r\n"), "+PONG\r\n");
    }
}

#[test]
fn at_the_door_the_unauthenticated_make_way_before_the_operator() {
    let mut door = Door::guarded();
    let operator = door.operator();
    assert_eq!(door.sim.exchange(operator, "AUTH secret\r\n"), "+OK\r\n");
    for says in ["", "PING\r\n", "AUTH guess\r\n", "*2\r\n$4\r\nAU"] {
        for _ in 0..20 {
            let client = door.operator();
            door.sim.exchange(client, says);
            door.sim.pass(SECOND / 50);
        }
        assert_eq!(door.sim.exchange(operator, "PING\r\n"), "+PONG\r\n", "{says:?}");
        let newcomer = door.operator();
        assert_eq!(door.sim.exchange(newcomer, "AUTH secret\r\n"), "+OK\r\n", "{says:?}");
        door.sim.net().client_close(newcomer);
        door.sim.turns(2);
    }
}

#[test]
fn of_the_operators_the_one_idle_for_longest_makes_way() {
    let mut door = Door::open(true);
    let held = door.operators("PING\r\n");
    for client in [0, 2, 3] {
        door.sim.exchange(held[client], "PING\r\n");
        door.sim.pass(SECOND);
    }
    for expected in [1, 4, 5, 6, 7, 0] {
        let newcomer = door.operator();
        door.sim.exchange(newcomer, "PING\r\n");
        door.sim.pass(SECOND);
        assert!(door.sim.is_ended(held[expected]), "{expected}");
    }
    assert_eq!(door.sim.closed(Reason::Recycled), 6);
}

const FOR_OPERATORS: [&str; 10] = [
    "CONFIG SET max-silent 7",
    "config resetstat",
    "CONFIG REWRITE",
    "SHUTDOWN NOSAVE",
    "CLIENT LIST",
    "CLIENT LIST ID 1",
    "CLIENT CLOSED",
    "CLIENT KILL TYPE normal",
    "MONITOR",
    "MEMORY DOCTOR",
];

#[test]
fn operators_commands_are_served_at_the_door_alone() {
    for command in FOR_OPERATORS {
        let mut door = Door::open(true);
        let client = door.sim.accepted();
        let answer = door.sim.exchange(client, format!("{command}\r\n"));
        let name = command.to_lowercase();
        let name = name.split(' ').take(2).collect::<Vec<_>>().join("|");
        let name = if name.starts_with("shutdown") { "shutdown" } else { &name };
        assert!(
            answer.starts_with(&format!(
                "-NOPERM this user has no permissions to run the '{name}' command"
            )),
            "{command}: {answer}"
        );
        let operator = door.operator();
        let answer = door.sim.exchange(operator, format!("{command}\r\n"));
        assert!(!answer.starts_with("-NOPERM"), "{command}: {answer}");
    }
}

#[test]
fn without_a_door_or_with_its_setting_off_all_clients_may_run_operators_commands() {
    for command in FOR_OPERATORS {
        let mut door = Door::open(false);
        let client = door.sim.accepted();
        let answer = door.sim.exchange(client, format!("{command}\r\n"));
        assert!(!answer.starts_with("-NOPERM"), "{command}: {answer}");
    }
}

#[test]
fn a_client_may_end_itself_and_no_other_and_ask_about_itself() {
    let mut door = Door::open(true);
    let (client, other) = (door.sim.accepted(), door.sim.accepted());
    for command in ["CLIENT ID", "CLIENT INFO", "CLIENT GETNAME", "INFO server", "CONFIG GET save"]
    {
        let answer = door.sim.exchange(client, format!("{command}\r\n"));
        assert!(!answer.starts_with('-'), "{command}: {answer}");
    }
    for filter in [
        "ID 2",
        "ID 1 2",
        "ID 99",
        "TYPE normal",
        "ADDR 127.0.0.1:1025",
        "LADDR 127.0.0.1:1 SKIPME no",
        "MAXAGE 0",
        "127.0.0.1:1025",
    ] {
        let answer = door.sim.exchange(client, format!("CLIENT KILL {filter}\r\n"));
        assert!(answer.starts_with("-NOPERM"), "{filter}: {answer}");
    }
    let info = door.sim.exchange(client, "CLIENT INFO\r\n");
    let own = info.split(' ').find_map(|field| field.strip_prefix("addr=")).unwrap().to_string();
    assert_eq!(door.sim.exchange(client, "CLIENT KILL ID 1 SKIPME no\r\n"), ":1\r\n");
    assert!(door.sim.is_ended(client));
    let info = door.sim.exchange(other, "CLIENT INFO\r\n");
    let address = info.split(' ').find_map(|field| field.strip_prefix("addr=")).unwrap();
    assert_ne!(address, own);
    assert_eq!(door.sim.exchange(other, format!("CLIENT KILL {address}\r\n")), "+OK\r\n");
    assert!(door.sim.is_ended(other));
}

#[test]
fn nobody_outside_the_door_kills_an_operator() {
    for kills in [
        "CLIENT KILL TYPE normal",
        "CLIENT KILL ID 1",
        "CLIENT KILL ID 1 2 SKIPME no",
        "CLIENT KILL USER default",
    ] {
        let mut door = Door::open(false);
        let operator = door.operator();
        let (killer, victim) = (door.sim.accepted(), door.sim.accepted());
        door.sim.exchange(killer, format!("{kills}\r\n"));
        assert_eq!(door.sim.exchange(operator, "PING\r\n"), "+PONG\r\n", "{kills}");
        // The operator may end anybody.
        door.sim.exchange(operator, "CLIENT KILL TYPE normal\r\n");
        assert!(door.sim.is_ended(victim));
        assert_eq!(door.sim.exchange(operator, "PING\r\n"), "+PONG\r\n", "SKIPME is the default");
    }
}

#[test]
fn clients_by_the_door_subscribe_and_publish_as_others_do() {
    let mut door = Door::open(true);
    let (operator, client) = (door.operator(), door.sim.accepted());
    door.sim.exchange(operator, "SUBSCRIBE a\r\n");
    assert_eq!(door.sim.exchange(client, "PUBLISH a 1\r\n"), ":1\r\n");
    assert!(door.sim.received(operator).contains("message"));
}
