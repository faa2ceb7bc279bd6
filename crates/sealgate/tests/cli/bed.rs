//! A folder with a configuration of its own, and what is asked of every command.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sealgate_testkit::{nameless, process};

/// A folder with a configuration of its own.
pub(super) struct Bed(pub(super) tempfile::TempDir);

impl Bed {
    pub(super) fn new() -> Self {
        let bed = Self(tempfile::tempdir().unwrap());
        bed.good(&["init", "--domain", "nec.example", "--domain", "smime.example", "--dir", "."]);
        bed
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        name.to_owned()
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(super) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealgate"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails early does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    pub(super) fn good_with(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run_with(arguments, input);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
        assert!(error.is_empty(), "{arguments:?}: {error}");
        output.stdout
    }

    pub(super) fn good(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.good_with(arguments, b"")).unwrap()
    }

    /// Runs a command that must fail with a status and one line on standard error.
    pub(super) fn bad_with(&self, arguments: &[&str], input: &[u8], status: i32) -> String {
        let output = self.run_with(arguments, input);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
        error
    }

    pub(super) fn bad(&self, arguments: &[&str], status: i32) -> String {
        self.bad_with(arguments, b"", status)
    }

    pub(super) fn openssl(&self, arguments: &str) -> String {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split(' ')).current_dir(self.0.path());
        let output = process::run(&mut openssl, b"").expect_ok(&format!("openssl {arguments}"));
        String::from_utf8_lossy(&output).into_owned()
    }
}

pub(super) fn fixture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/rfc9216");
    let path = Path::new(folder).join(name);
    assert!(path.exists(), "{}: these tests need the shared fixtures", path.display());
    path.to_str().unwrap().to_owned()
}

pub(super) const MAIL: &str = "From: alice@nec.example\nTo: bob@nec.example\nSubject: a secret plan\n\
    Date: Mon, 23 Nov 2026 07:00:00 +0000\nMessage-ID: <1@nec.example>\n\nattack at dawn\n";

/// Alice and Bob with keys of our authority.
pub(super) fn bed_with_keys() -> Bed {
    let bed = Bed::new();
    for address in ["alice@nec.example", "bob@nec.example"] {
        bed.good(&["secret-key", "generate", address, "--algorithm", "p256"]);
    }
    bed
}

/// A mail server that takes connections, as long as it is kept, and resolvers that answer.
pub(super) fn lay_servers(bed: &Bed) -> std::net::TcpListener {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let configuration = bed.read("sealgate.toml").replace("2526", &port.to_string());
    let resolver = nameless::start();
    let resolvers = format!("\n[dns]\nresolvers = [\"{resolver}\"]\n");
    bed.write("sealgate.toml", configuration + &resolvers);
    server
}

/// The exit status of `check`, and what it says of one thing.
pub(super) fn checked(bed: &Bed, what: &str) -> (i32, bool, String) {
    let output = bed.run_with(&["check", "--json"], b"");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["checks"].as_array().unwrap();
    let row = rows.iter().find(|row| row["check"] == what);
    let row = row.unwrap_or_else(|| panic!("{what}: {report}"));
    let detail = row["detail"].as_str().unwrap().to_owned();
    (output.status.code().unwrap(), row["ok"].as_bool().unwrap(), detail)
}
