//! Measures the cost of a message of the web: the server's processor time for a WebSocket echo
//! beside uWebSockets, for a small HTTP response beside nginx, and for the visit of a Socket.IO
//! client beside Socket.IO's own server.
//!
//!     cargo bench --bench web_cpu                                   everything, two minutes
//!     cargo bench --bench web_cpu -- echo --rounds 15               one section
//!     cargo bench --bench web_cpu -- --skip nginx                   without nginx
//!
//! Sections:
//! - `echo`: 64 bytes on 50 WebSocket connections. Each sends when it has its echo. The server on
//!   uWebSockets is benches/peers/uwebsockets.js. It calls JavaScript for each message.
//! - `health`: `GET /healthz` by wrk on 50 connections that are kept alive. nginx is one process
//!   without an access log, and answers with the same body by `return 200`.
//! - `socketio`: 50 clients of Socket.IO at a time, over WebSocket. Each connects, joins a room,
//!   sends an event that is acknowledged, and disconnects. `slabd stress churn` makes the load.
//!
//! How to read it: the servers take turns, one round each (A B A B …), and each round gives one
//! ratio between neighbours in time. The tables show the medians of these ratios. Compare ratios,
//! not microseconds, which differ between machines and hours. benches/hub_cpu.rs explains the
//! columns. Each run of wrk opens 50 new connections, which is part of the cost of both servers.

#![forbid(unsafe_code)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use support::load::{ClosedLoop, Exchange, STALL_TIMEOUT};
use support::rounds::{Contender, alternate, report};
use support::server::{self, Server};
use support::{Options, generators, web};

const CLIENTS: usize = 50;
const PAYLOAD: [u8; 64] = [b'x'; 64];
const HEALTH: &str = "/healthz";

/// Maximum ratio of slabd's processor time to that of uWebSockets.
const ECHO_TARGET: f64 = 1.0;
/// Maximum ratio of slabd's processor time to that of Node's Socket.IO.
const SOCKETIO_TARGET: f64 = 0.1;
/// Maximum ratio of slabd's processor time to that of nginx.
const HEALTH_TARGET: f64 = 0.9;

fn main() -> Result<()> {
    let numbers = [("rounds", 9), ("messages", 200_000), ("seconds", 2), ("visits", 4000)];
    let Some(options) = Options::read(&["echo", "health", "socketio"], &numbers)? else {
        return Ok(());
    };
    support::prepare()?;
    server::print_versions(&["node", "nginx", "wrk"])?;
    if options.wants("echo") {
        echo(&options)?;
    }
    if options.wants("health") && server::check_installed("wrk", "wrk") {
        health(&options)?;
    }
    if options.wants("socketio") {
        socketio(&options)?;
    }
    Ok(())
}

/// Returns the peer, which is the base of the ratios, and slabd.
fn servers(
    options: &Options,
    peer: &'static str,
    start: impl FnOnce() -> Result<Option<Server>>,
) -> Result<Vec<(&'static str, Server)>> {
    let mut servers = Vec::new();
    if options.includes(peer) {
        servers.extend(start()?.map(|server| (peer, server)));
    }
    if options.includes("slabd") {
        servers.push(("slabd", Server::slabd_for_web()?));
    }
    Ok(servers)
}

fn echo(options: &Options) -> Result<()> {
    let (messages, bytes) = (options.number("messages"), PAYLOAD.len());
    println!("## WebSocket echo of {bytes} bytes, {CLIENTS} clients: server CPU per message\n");
    let servers = servers(options, "uWebSockets", Server::uwebsockets)?;
    let exchange = Exchange {
        request: web::from_client(&PAYLOAD).leak(),
        reply: web::from_server(&PAYLOAD).leak(),
    };
    let mut contenders = Vec::new();
    for (label, server) in &servers {
        let clients = ClosedLoop::connect_with(server.address, CLIENTS, &web::TO_ECHO, exchange);
        let mut clients = clients.with_context(|| format!("cannot connect to {label}"))?;
        contenders.push(Contender::new(label, server, move || clients.run(messages)));
    }
    alternate(&mut contenders, options.number("rounds"))?;
    report(&contenders, "msg", Some(ECHO_TARGET));
    Ok(())
}

fn health(options: &Options) -> Result<()> {
    let seconds = options.number("seconds");
    println!("## GET {HEALTH}, {CLIENTS} connections: server CPU per request\n");
    let servers = servers(options, "nginx", Server::nginx)?;
    let mut contenders = Vec::new();
    for (label, server) in &servers {
        println!("{label} answers with {} bytes", response(server)?.len());
        contenders.push(Contender::new(label, server, move || {
            Ok(generators::wrk(server.address, HEALTH, CLIENTS as u64, seconds)?.requests)
        }));
    }
    println!();
    alternate(&mut contenders, options.number("rounds"))?;
    report(&contenders, "req", Some(HEALTH_TARGET));
    Ok(())
}

fn socketio(options: &Options) -> Result<()> {
    let visits = options.number("visits");
    println!("## Socket.IO: connect, join, one event, disconnect: server CPU per visit\n");
    let servers = servers(options, "socket.io", Server::socketio)?;
    let mut contenders = Vec::new();
    for (label, server) in &servers {
        contenders.push(Contender::new(label, server, move || {
            generators::stress_churn(&format!("socketio://{}", server.address), CLIENTS, visits)
        }));
    }
    alternate(&mut contenders, options.number("rounds"))?;
    report(&contenders, "visit", Some(SOCKETIO_TARGET));
    Ok(())
}

/// Returns the response to one request, because wrk checks only its status.
fn response(server: &Server) -> Result<String> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_read_timeout(Some(STALL_TIMEOUT))?;
    write!(stream, "GET {HEALTH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let is_right = response.starts_with("HTTP/1.1 200 OK\r\n")
        && response.ends_with("\r\n\r\n{\"status\":\"ok\"}\n");
    ensure!(is_right, "{} gives a wrong response:\n{response}", server.name);
    Ok(response)
}
