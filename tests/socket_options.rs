//! Options of sockets as the kernel has them: at the start, changed by CONFIG SET, by a reload; and what they make a connection cost.

#![forbid(unsafe_code)]

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Client, Server, drill};

/// What the kernel says of the server's socket to this client, in the words of ss(8); `None`, loudly, where ss is missing.
fn kernels_words(server: SocketAddr, client: &Client) -> Option<String> {
    let (from, to) = (format!(":{}", server.port()), format!(":{}", client.0.local_addr().unwrap().port()));
    loop {
        let asked = Command::new("ss").args(["-tmonH", "sport", "=", &from, "and", "dport", "=", &to]).output();
        let Ok(output) = asked else {
            println!("SKIPPED: needs ss (iproute2)");
            return None;
        };
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        // The timer of an answer that is not acknowledged yet hides the one of keepalive.
        if !words.contains("timer:(on,") {
            return Some(words);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The sizes of its receive and send buffer, and whether a keepalive timer runs.
fn kernels_view(server: SocketAddr, client: &Client) -> Option<(usize, usize, bool)> {
    let words = kernels_words(server, client)?;
    let number = |name: &str| {
        let rest = words.split_once(name)?.1;
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    };
    Some((number(",rb")?, number(",tb")?, words.contains("timer:(keepalive,")))
}

#[test]
fn a_change_holds_for_connections_accepted_from_then_on() {
    let folder = std::env::temp_dir().join(format!("slabd-sockets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("slabd.toml");
    let settings = "listen = [\"hub=127.0.0.1:0\"]\nreceive-buffer = \"32KiB\"\n";
    std::fs::write(&file, format!("{settings}send-buffer = \"32KiB\"\n")).unwrap();
    let mut server = Server::start(&["--config", file.to_str().unwrap()]);
    let address = server.address("hub");
    let greeted = |address| {
        let mut client = Client::connect(address);
        client.send("PING\r\n").expect("+PONG\r\n");
        client
    };
    let mut first = greeted(address);
    let Some(view) = kernels_view(address, &first) else { return };
    assert_eq!(view, (32_768, 32_768, true));

    first.send("CONFIG SET send-buffer 65536 receive-buffer 16KiB keepalive 0\r\n").expect("+OK\r\n");
    let second = greeted(address);
    assert_eq!(kernels_view(address, &second), Some((16_384, 65_536, false)));
    assert_eq!(kernels_view(address, &first), Some((32_768, 32_768, true)), "who is in keeps what it came with");
    first.send("CONFIG SET keepalive 500ms\r\n").expect("-ERR ");

    std::fs::write(&file, format!("{settings}send-buffer = \"48KiB\"\n")).unwrap();
    server.signal("HUP");
    server.wait_for_log("what can change is in force");
    let third = greeted(address);
    assert_eq!(kernels_view(address, &third), Some((32_768, 49_152, true)));
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Peers that fill both buffers: they send without end, and read nothing, though they have offered a window of the usual size. Beyond
/// `send-buffer` the kernel fills up the last packet it has begun, of half that window at most.
#[test]
fn who_fills_both_buffers_of_the_kernel_costs_no_more_than_they_hold_and_a_packet() {
    let arguments = ["--listen", "echo=127.0.0.1:0", "--output-timeout", "0", "--user-timeout", "0"];
    let mut server = Server::start(&arguments);
    let mut stuffers = drill::connect_from([127, 0, 0, 78].into(), server.address("echo"), 200, None);
    stuffers.iter_mut().for_each(|stuffer| stuffer.set_nonblocking(true).unwrap());
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        for stuffer in &mut stuffers {
            let _ = stuffer.write(&[b'x'; 65_536]);
        }
    }
    let buffers = server.count("kernel memory, bytes/buffers per connection");
    println!("{buffers} bytes of kernel buffers each");
    assert!((40 * 1024..=96 * 1024).contains(&buffers), "{buffers} bytes of kernel buffers each");
}
