//! Listening sockets that the service manager opened, handed over by systemd's own tool.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sealgate_testkit::gate::Gate;
use sealgate_testkit::process;

/// A relay that is started by the first connection to a socket which somebody else opened.
struct Activated {
    child: Child,
    port: u16,
    _gate: Gate,
}

impl Activated {
    fn new(name: &str, configured: Option<&str>) -> Self {
        let gate = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
        gate.configure(|config| {
            let outside = config["outside"].as_table_mut().unwrap();
            outside.remove("smtp");
            if let Some(address) = configured {
                outside.insert("smtp".to_owned(), address.into());
            }
        });
        let port = process::free_port();
        let child = Command::new("systemd-socket-activate")
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg(format!("--fdname={name}"))
            .args([env!("CARGO_BIN_EXE_sealgate"), "relay", "--config"])
            .arg(gate.configuration())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        process::await_listener("systemd-socket-activate", process::loopback(port));
        Self { child, port, _gate: gate }
    }

    /// How it failed; it must.
    fn failure(mut self) -> String {
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(78), "{status}");
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_socket_named_as_an_entrance_is_served() {
    let mut relay = Activated::new("outside-smtp", Some("0.0.0.0:0"));
    let mut ready = String::new();
    let mut output = BufReader::new(relay.child.stdout.take().unwrap());
    output.read_line(&mut ready).unwrap();
    assert!(ready.contains(&format!(" outside-smtp=127.0.0.1:{}", relay.port)), "{ready}");

    let mut client = TcpStream::connect(process::loopback(relay.port)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut greeting = String::new();
    BufReader::new(&client).read_line(&mut greeting).unwrap();
    assert!(greeting.starts_with("220 "), "{greeting}");
    client.write_all(b"QUIT\r\n").unwrap();
}

#[test]
fn a_socket_of_another_name_is_refused() {
    let said = Activated::new("smtp", None).failure();
    assert!(said.contains("FileDescriptorName="), "{said}");
    assert!(said.contains("outside-smtp"), "{said}");
}

/// It would take the Internet's mail although nobody has said so, and where that goes.
#[test]
fn a_socket_for_an_entrance_that_is_not_configured_is_refused() {
    let said = Activated::new("outside-smtp", None).failure();
    assert!(
        said.contains("`[outside] smtp`") && said.contains("systemctl mask --now sealgate.socket"),
        "{said}"
    );
}

#[test]
fn a_socket_at_another_port_than_configured_is_refused() {
    let said = Activated::new("outside-smtp", Some("127.0.0.1:1")).failure();
    assert!(said.contains("make them agree"), "{said}");
}
