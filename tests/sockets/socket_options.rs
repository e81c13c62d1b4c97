//! Socket options and the memory of a connection, as the kernel reports them at the start, after
//! CONFIG SET and after a reload.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Client, Server, drill};

/// Returns the output of ss(8) for the server's socket to this client. If ss is missing, prints
/// SKIPPED and returns `None`.
fn kernels_words(server: SocketAddr, client: &Client) -> Option<String> {
    let (from, to) =
        (format!(":{}", server.port()), format!(":{}", client.0.local_addr().unwrap().port()));
    loop {
        let asked = Command::new("ss")
            .args(["-tmonH", "sport", "=", &from, "and", "dport", "=", &to])
            .output();
        let Ok(output) = asked else {
            println!("SKIPPED: needs ss (iproute2)");
            return None;
        };
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        // While an answer is not acknowledged, its timer hides the keepalive timer.
        if !words.contains("timer:(on,") {
            return Some(words);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the sizes of the socket's receive and send buffers, and true if its keepalive timer
/// runs.
fn kernels_view(server: SocketAddr, client: &Client) -> Option<(usize, usize, bool)> {
    let words = kernels_words(server, client)?;
    let number = |name: &str| {
        let rest = words.split_once(name)?.1;
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    };
    Some((number(",rb")?, number(",tb")?, words.contains("timer:(keepalive,")))
}

#[test]
fn changed_socket_options_apply_to_new_connections_only() {
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

    first
        .send("CONFIG SET send-buffer 65536 receive-buffer 16KiB keepalive 0\r\n")
        .expect("+OK\r\n");
    let second = greeted(address);
    assert_eq!(kernels_view(address, &second), Some((16_384, 65_536, false)));
    assert_eq!(
        kernels_view(address, &first),
        Some((32_768, 32_768, true)),
        "an open connection keeps its options"
    );
    first.send("CONFIG SET keepalive 500ms\r\n").expect("-ERR ");

    std::fs::write(&file, format!("{settings}send-buffer = \"48KiB\"\n")).unwrap();
    server.signal("HUP");
    server.wait_for_log("the new limits are in force");
    let third = greeted(address);
    assert_eq!(kernels_view(address, &third), Some((32_768, 49_152, true)));
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The peers send all the time and never read, so both buffers of the kernel are full. The kernel
/// exceeds `send-buffer` by a packet that it has begun, at most half of the peer's window.
#[test]
fn kernel_buffers_of_a_peer_that_never_reads_stay_within_their_limits() {
    let arguments =
        ["--listen", "echo=127.0.0.1:0", "--output-timeout", "0", "--user-timeout", "0"];
    let mut server = Server::start(&arguments);
    let mut stuffers =
        drill::connect_from([127, 0, 0, 78].into(), server.address("echo"), 200, None);
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
