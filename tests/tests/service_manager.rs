//! What a service manager is told, in the way of systemd: a program says that it is ready when it listens, and that it is
//! ending when it was told to.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;
use tidegate_tests::process::Launch;
use tidegate_tests::programs;
use xtask::ports::free_port;

const TIMEOUT: Duration = Duration::from_mins(1);

/// Starts a program that listens on `listens`, stops it, and checks what it told.
fn is_told(launch: Launch, listens: SocketAddr, dir: &Path) {
    let socket = dir.join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(TIMEOUT)).unwrap();
    let told = || {
        let mut message = [0; 64];
        let octets = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..octets].to_vec()).unwrap()
    };
    let mut process = launch.env("NOTIFY_SOCKET", &socket).start(dir).unwrap();
    assert_eq!(told(), "READY=1\n");
    TcpStream::connect(listens).unwrap();
    process.stop(TIMEOUT).unwrap();
    assert_eq!(told(), "STOPPING=1\n");
}

#[test]
fn the_server_tells() {
    let dir = tempfile::tempdir().unwrap();
    let [control, ops] = [loopback(), loopback()];
    let config = dir.path().join("tidegate.toml");
    let log = dir.path().join("log");
    let text = format!(
        "[log]\nkind = \"embedded\"\ndirectory = {log:?}\n[control]\nlisten = \"{control}\"\n[ops]\nlisten = \"{ops}\"\n\
         [history]\nenabled = false\n"
    );
    fs::write(&config, text).unwrap();
    let launch = Launch::new("server", programs::tidegate().unwrap()).args(["serve", "--config"]).arg(&config);
    is_told(launch, control, dir.path());
}

#[test]
fn the_edge_tells_also_without_control() {
    let dir = tempfile::tempdir().unwrap();
    let [milter, nobody, ops] = [loopback(), loopback(), loopback()];
    let (config, state) = (dir.path().join("edge.toml"), dir.path().join("state"));
    fs::create_dir(&state).unwrap();
    let text = format!(
        "node = \"mx1\"\nsite = \"ams\"\nstate_directory = {state:?}\n[milter]\nlisten = [\"inet:{milter}\"]\n\
         [control]\nendpoint = \"http://{nobody}\"\n[ops]\nlisten = \"{ops}\"\n"
    );
    fs::write(&config, text).unwrap();
    let launch = Launch::new("edge", programs::tidegate_edge().unwrap()).arg("--config").arg(&config);
    is_told(launch, milter, dir.path());
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()))
}
