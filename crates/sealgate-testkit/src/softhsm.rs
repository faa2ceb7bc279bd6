//! A token without hardware: SoftHSM 2, with its objects in a directory of its own, also at the other end of a socket.
//!
//! The module reads `SOFTHSM2_CONF` from the environment of the process that loads it, and p11-kit's client module
//! `P11_KIT_SERVER_ADDRESS`: whoever uses the token needs [`SoftHsm::environment`] or [`Remoting::environment`].

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::disk::ReadOnly;
use crate::pki::Identity;
use crate::process::{self, Running};

/// A token with a user PIN.
#[derive(Debug)]
pub struct SoftHsm {
    directory: PathBuf,
    _owned: Option<TempDir>,
}

impl SoftHsm {
    /// A new token in a directory that goes with it.
    pub fn new() -> Self {
        let owned = process::open_temp_dir("softhsm");
        let mut token = Self::at(owned.path());
        token._owned = Some(owned);
        token
    }

    /// A new token in this directory.
    pub fn at(directory: &Path) -> Self {
        let token = Self { directory: directory.to_owned(), _owned: None };
        fs::create_dir_all(token.directory.join("tokens")).unwrap();
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            token.directory.join("tokens").display()
        );
        fs::write(configuration_file(directory), configuration).unwrap();
        token.write_pin(PIN);
        let mut command = token.command("softhsm2-util");
        command.args(["--init-token", "--free", "--label", TOKEN]);
        command.args(["--pin", PIN, "--so-pin", "87654321"]);
        process::run(&mut command, b"").expect_ok("softhsm2-util --init-token");
        token
    }

    /// What a process needs in its environment to use the token in this directory.
    pub fn environment_at(directory: &Path) -> Vec<(String, OsString)> {
        vec![("SOFTHSM2_CONF".to_owned(), configuration_file(directory).into_os_string())]
    }

    /// What a process needs in its environment to use the token.
    pub fn environment(&self) -> Vec<(String, OsString)> {
        Self::environment_at(&self.directory)
    }

    /// The shared object.
    pub fn module(&self) -> PathBuf {
        PathBuf::from("/usr/lib/softhsm/libsofthsm2.so")
    }

    /// A file with the PIN, readable by its owner only.
    pub fn pin_file(&self) -> PathBuf {
        self.directory.join("pin")
    }

    /// Writes another PIN into that file; the token's stays.
    pub fn write_pin(&self, pin: &str) {
        fs::write(self.pin_file(), format!("{pin}\n")).unwrap();
        process::set_mode(&self.pin_file(), 0o600);
    }

    /// Takes in somebody's secret key and certificate under a label and an id in hexadecimal.
    pub fn import(&self, identity: &Identity, label: &str, id: &str) {
        self.import_key(&identity.key, label, id);
        self.import_certificate(&identity.certificate, label, id);
    }

    /// Takes in a secret key (PKCS#8 PEM) for all uses of its kind, not extractable.
    pub fn import_key(&self, pem: &Path, label: &str, id: &str) {
        let der = self.directory.join("key.der");
        fs::write(&der, crate::pki::pem_body(pem)).unwrap();
        let der = der.to_str().unwrap();
        let mut arguments = vec!["--write-object", der, "--type", "privkey"];
        arguments.extend(["--label", label, "--id", id, "--sensitive"]);
        arguments.extend(["--usage-sign", "--usage-decrypt", "--usage-derive"]);
        self.tool(&arguments);
    }

    /// Takes in a certificate (PEM).
    pub fn import_certificate(&self, pem: &Path, label: &str, id: &str) {
        let der = self.directory.join("certificate.der");
        fs::write(&der, crate::pki::pem_body(pem)).unwrap();
        let der = der.to_str().unwrap();
        self.tool(&["--write-object", der, "--type", "cert", "--label", label, "--id", id]);
    }

    /// Runs `pkcs11-tool` logged in; its standard output.
    pub fn tool(&self, arguments: &[&str]) -> String {
        let mut command = self.command("pkcs11-tool");
        command.arg("--module").arg(self.module());
        command.args(["--token-label", TOKEN, "--login", "--pin", PIN]).args(arguments);
        let stdout = process::run(&mut command, b"").expect_ok("pkcs11-tool");
        String::from_utf8(stdout).unwrap()
    }

    /// Hides the token's objects, as if the token were pulled, and brings them back.
    pub fn set_present(&self, is_present: bool) {
        let [inside, outside] = ["tokens", "pulled"].map(|name| self.directory.join(name));
        if is_present {
            fs::remove_dir(&inside).unwrap();
            fs::rename(&outside, &inside).unwrap();
        } else {
            fs::rename(&inside, &outside).unwrap();
            fs::create_dir(&inside).unwrap();
        }
    }

    /// Keeps everybody from writing to the token's objects, as a hardened unit does.
    pub fn write_protected(&self) -> ReadOnly {
        ReadOnly::make(&self.directory.join("tokens"))
    }

    /// Puts the token behind a socket, as one on another machine.
    pub fn serve(&self) -> Remoting {
        let mut remoting = Remoting {
            socket: socket(&self.directory),
            environment: self.environment(),
            provider: self.module(),
            server: None,
        };
        remoting.start();
        remoting
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment());
        command
    }
}

impl Default for SoftHsm {
    fn default() -> Self {
        Self::new()
    }
}

/// A token at the other end of a socket (`p11-kit server`). It has what that protocol has: RSA without PSS, no curves.
#[derive(Debug)]
pub struct Remoting {
    socket: PathBuf,
    environment: Vec<(String, OsString)>,
    provider: PathBuf,
    server: Option<Running>,
}

impl Remoting {
    /// What a process needs in its environment to use a token that is served in this directory.
    pub fn environment_at(directory: &Path) -> Vec<(String, OsString)> {
        let address = format!("unix:path={}", socket(directory).display());
        vec![("P11_KIT_SERVER_ADDRESS".to_owned(), OsString::from(address))]
    }

    /// What a process needs in its environment to use the token.
    pub fn environment(&self) -> Vec<(String, OsString)> {
        Self::environment_at(self.socket.parent().unwrap())
    }

    /// The shared object of the client's side.
    pub fn module(&self) -> PathBuf {
        PathBuf::from(format!(
            "/usr/lib/{}-linux-gnu/pkcs11/p11-kit-client.so",
            std::env::consts::ARCH
        ))
    }

    /// Ends the server and what it started, as when the other machine goes down.
    pub fn kill(&mut self) {
        let children = self.children();
        let Some(mut server) = self.server.take() else { return };
        server.signal("KILL");
        let _ = server.child().wait();
        for child in children {
            send_signal(child, "KILL");
            let is_gone = || !process::is_running(child);
            assert!(process::holds_within(PATIENCE, is_gone), "process {child} does not end");
        }
        let _ = fs::remove_file(&self.socket);
    }

    /// Sends a signal to the server and what it started: `STOP` makes the token hang, `CONT` go on.
    pub fn signal(&self, signal: &str) {
        let server = self.server.as_ref().map(Running::id);
        server.into_iter().chain(self.children()).for_each(|id| send_signal(id, signal));
    }

    /// A process of its own serves each client.
    fn children(&self) -> Vec<u32> {
        let Some(server) = &self.server else { return Vec::new() };
        let path = format!("/proc/{0}/task/{0}/children", server.id());
        let children = fs::read_to_string(path).unwrap();
        children.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    /// Starts the server, again after [`Self::kill`].
    pub fn start(&mut self) {
        let mut command = Command::new("p11-kit");
        command.args(["server", "-f", "-n"]).arg(&self.socket);
        command.arg("--provider").arg(&self.provider).arg("pkcs11:");
        command
            .envs(self.environment.clone())
            .env("XDG_RUNTIME_DIR", self.socket.parent().unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.server = Some(Running::start("p11-kit server", &mut command));
        process::await_that("the token's server listens", || process::listens_at(&self.socket));
    }
}

impl Drop for Remoting {
    fn drop(&mut self) {
        self.kill();
    }
}

/// To a process that is not our child.
fn send_signal(id: u32, signal: &str) {
    let script = format!("kill -{signal} {id}");
    let status = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
    assert!(status.is_ok(), "no shell to send SIG{signal} to {id}");
}

fn configuration_file(directory: &Path) -> PathBuf {
    directory.join("softhsm2.conf")
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("token.socket")
}

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// The token's label.
pub const TOKEN: &str = "sealgate";

/// The user PIN.
pub const PIN: &str = "12345678";
