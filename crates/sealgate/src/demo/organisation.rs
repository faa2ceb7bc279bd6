//! One organisation of the demonstration: a folder with its own key stores, and a relay run as a child.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sealgate_core::smtp::Protocol;
use tempfile::TempDir;

/// An organisation; its relay ends and its folder goes with it.
pub(super) struct Organisation {
    domain: &'static str,
    folder: TempDir,
    relay: Option<Child>,
}

/// Where a relay listens.
pub(super) struct Doors {
    /// For its mail server.
    pub(super) inside: (Protocol, SocketAddr),
    /// For the Internet.
    pub(super) outside: (Protocol, SocketAddr),
}

impl Organisation {
    /// `init`, `secret-key generate` and a configuration.
    pub(super) fn found(
        domain: &'static str,
        person: &str,
        mail_server: SocketAddr,
        internet: SocketAddr,
    ) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|error| format!("no scratch folder: {error}"))?;
        let one = Self { domain, folder, relay: None };
        one.run(&["init", "--domain", domain, "--dir", &one.text("")], false)?;
        let config = format!(
            "version = 1\ndomains = [\"{domain}\"]\nhostname = \"gate.{domain}\"\n\
             [inside]\nlmtp = \"127.0.0.1:0\"\nmail_server = \"smtp://{mail_server}\"\n\
             [outside]\nsmtp = \"127.0.0.1:0\"\nauthenticate = false\nnext_hop = \"smtp://{internet}\"\n\
             [database]\nurl = \"sqlite:sealgate.db\"\n[master_key]\nfile = \"master.key\"\n\
             [policy]\norder = \"sign-then-encrypt\"\n[observe]\nlisten = \"127.0.0.1:0\"\n"
        );
        std::fs::write(one.path("sealgate.toml"), config)
            .map_err(|error| format!("{domain}: {error}"))?;
        one.run(&["secret-key", "generate", person], true)?;
        Ok(one)
    }

    /// Takes over the other's authority and the certificate of one of its people.
    pub(super) fn get_to_know(&self, other: &Self, person: &str) -> Result<(), String> {
        for (command, name) in [
            (&["ca", "certificate"][..], "authority.pem"),
            (&["secret-key", "certificate", person], "person.pem"),
        ] {
            let pem = other.run(command, true)?;
            std::fs::write(self.path(name), pem)
                .map_err(|error| format!("{}: {error}", self.domain))?;
        }
        self.run(&["anchor", "import", &self.text("authority.pem")], true)?;
        self.run(&["public-key", "import", "--address", person, &self.text("person.pem")], true)?;
        Ok(())
    }

    /// Starts the relay and waits until it listens.
    pub(super) fn start(&mut self) -> Result<Doors, String> {
        let log =
            std::fs::File::create(self.path("relay.log")).map_err(|error| error.to_string())?;
        let mut child = Command::new(program()?)
            .args(["relay", "--config", &self.text("sealgate.toml")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start the relay: {error}"))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        self.relay = Some(child);
        let door = |name: &str| {
            let value = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            value.and_then(|address| address.parse().ok())
        };
        match (door("inside-lmtp="), door("outside-smtp=")) {
            (Some(inside), Some(outside)) => {
                Ok(Doors { inside: (Protocol::Lmtp, inside), outside: (Protocol::Smtp, outside) })
            }
            _ => Err(format!(
                "{}: the relay did not get ready: {}",
                self.domain,
                std::fs::read_to_string(self.path("relay.log")).unwrap_or_default()
            )),
        }
    }

    /// Runs one command of this program and returns what it printed.
    fn run(&self, arguments: &[&str], with_config: bool) -> Result<Vec<u8>, String> {
        let mut command = Command::new(program()?);
        command.args(arguments).stdin(Stdio::null());
        if with_config {
            command.args(["--config", &self.text("sealgate.toml")]);
        }
        let output = command.output().map_err(|error| format!("cannot run sealgate: {error}"))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{}: sealgate {}: {said}", self.domain, arguments.join(" ")))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

impl Drop for Organisation {
    fn drop(&mut self) {
        if let Some(relay) = &mut self.relay {
            // Its folder goes next; there is nothing it could still save.
            let _gone = relay.kill().and_then(|()| relay.wait());
        }
    }
}

fn program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("where is this program? {error}"))
}
