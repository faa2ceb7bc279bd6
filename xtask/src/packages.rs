//! The Debian packages that the tests need, installed where they are missing, without a word and without a server
//! being started.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::root;

/// Every package, with what it is for.
const PACKAGES: &[(&str, &str)] = &[
    ("curl", "a plain mail client"),
    ("default-jdk-headless", "compiles and runs the BouncyCastle peer"),
    ("dovecot-imapd", "mailboxes read over IMAP"),
    ("dovecot-lmtpd", "mailboxes filled over LMTP"),
    ("dovecot-pop3d", "mailboxes read over POP3"),
    ("dpkg-dev", "finds the libraries that the package depends on"),
    ("gpg-agent", "gpgsm's secret keys"),
    ("gpgsm", "peer of the interoperability matrix"),
    ("iproute2", "networks and lines of the tests' own"),
    ("ldap-utils", "fills the directory server"),
    ("ldnsutils", "signs the zones of the tests' own DNS"),
    ("libbcmail-java", "peer of the interoperability matrix"),
    ("libdb5.3", "Exim and OpenSMTPD, which are unpacked aside, need it"),
    ("libevent-2.1-7", "OpenSMTPD needs it"),
    ("libfaketime", "clocks that jump, for one program alone"),
    ("libgnutls-dane0", "Exim needs it"),
    ("libidn12", "Exim needs it"),
    ("libnsl2", "Exim needs it"),
    ("libpcre2-8-0", "Exim needs it"),
    ("mount", "what hosts of the tests' own see of the file system"),
    ("neomutt", "a plain mail client"),
    ("nsd", "the tests' own DNS, with a root of its own"),
    ("opensc", "puts certificates into tokens (pkcs11-tool), and logs calls of a module"),
    ("openssl", "peer of the interoperability matrix, and the tests' certificates"),
    ("p11-kit", "puts a token behind a socket"),
    ("p11-kit-modules", "the client's side of that socket"),
    ("postfix", "the mail server in front of sealgate, and the load generator of the benchmark"),
    ("postgresql", "database of both embedded key stores"),
    ("python3", "runs PyKMIP"),
    ("python3-authres", "reads what dkimpy seals"),
    ("python3-dkim", "verifies and makes DKIM and ARC signatures"),
    ("python3-dnspython", "looks up its keys"),
    ("python3-venv", "keeps PyKMIP apart"),
    ("slapd", "the directory server with certificates"),
    ("socat", "ends of the tests' lines, and clients behind them"),
    ("softhsm2", "a token without hardware"),
    ("swaks", "a plain mail client"),
    ("systemd", "judges the units, and makes users and folders where the package is tried"),
    ("tcpdump", "records what crosses the tests' Internet"),
    ("unbound", "a recursive resolver before the tests' own DNS"),
    (
        "util-linux",
        "hosts of the tests' own: unshare, nsenter; limits of a running program: prlimit",
    ),
];

/// Installs what is missing.
///
/// # Errors
/// What is missing, and why it could not be installed.
pub(crate) fn install() -> Result<(), String> {
    let missing: Vec<&str> =
        PACKAGES.iter().map(|(name, _)| *name).filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("Debian packages missing: {}", missing.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(format!("{what}; no apt-get here to install them with"));
    }
    println!("installing {}", missing.join(" "));
    let no_services = ServicePolicy::forbid();
    let updated = quietly(Command::new("apt-get").args(["-qq", "update"]));
    let installed = quietly(
        Command::new("apt-get")
            .args(["-qq", "-y", "--no-install-recommends", "install"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    );
    drop(no_services);
    updated.and(installed).map_err(|why| format!("{what}; {why}"))?;
    match missing.iter().find(|name| !is_installed(name)) {
        Some(name) => Err(format!("Debian package {name} is still missing after installing it")),
        None => Ok(()),
    }
}

/// Unpacks the mail servers that cannot be installed beside Postfix into `target/aside`, where they are missing.
///
/// # Errors
/// Why they could not be unpacked.
pub(crate) fn unpack_aside() -> Result<(), String> {
    let aside = root().join("target/aside");
    if UNPACKED.iter().all(|(_, program, _)| aside.join(program).exists()) {
        return Ok(());
    }
    let packages = root().join("target/aside-packages");
    std::fs::create_dir_all(&packages).map_err(|why| format!("{}: {why}", packages.display()))?;
    let mut download = Command::new("apt-get");
    download.args(["-qq", "download"]).args(UNPACKED.iter().map(|(name, _, _)| *name));
    quietly(download.current_dir(&packages))?;
    let found = std::fs::read_dir(&packages).map_err(|why| why.to_string())?;
    for package in found.flatten() {
        quietly(Command::new("dpkg-deb").arg("-x").arg(package.path()).arg(&aside))?;
    }
    // No program here runs as root because its file says so.
    quietly(Command::new("chmod").arg("-R").arg("ug-s").arg(&aside))?;
    std::fs::remove_dir_all(&packages).map_err(|why| why.to_string())
}

/// Debian packages that are unpacked and not installed: a program of each, and what it is for.
const UNPACKED: [(&str, &str, &str); 2] = [
    ("exim4-daemon-light", "usr/sbin/exim4", "a mail server in front of sealgate"),
    ("opensmtpd", "usr/sbin/smtpd", "a mail server in front of sealgate"),
];

/// Makes a Python environment of the project's own with PyKMIP, where it is missing.
///
/// # Errors
/// Why it could not be made.
pub(crate) fn install_pykmip() -> Result<(), String> {
    let environment = root().join("target/pykmip");
    let python = environment.join("bin/python");
    let import = || quietly(Command::new(&python).args(["-c", "import kmip.pie.client"]));
    if python.exists() && import().is_ok() {
        return Ok(());
    }
    quietly(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    quietly(Command::new(&python).args(["-m", "pip", "install", "--quiet", PYKMIP]))?;
    import()
}

/// The other implementation of KMIP, as PyPI has it.
const PYKMIP: &str = "PyKMIP==0.11.0";

fn is_installed(name: &str) -> bool {
    let status = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", name])
        .stderr(Stdio::null())
        .output();
    status.is_ok_and(|output| output.stdout == b"installed")
}

/// Runs a command silently; its output is told only where it fails.
fn quietly(command: &mut Command) -> Result<(), String> {
    let name = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|why| format!("{name}: {why}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{name}: {}: {}", output.status, text.trim()))
}

/// `policy-rc.d` that forbids maintainer scripts to start servers, where none was there, until dropped.
struct ServicePolicy {
    ours: bool,
}

impl ServicePolicy {
    const PATH: &str = "/usr/sbin/policy-rc.d";

    fn forbid() -> Self {
        if Path::new(Self::PATH).exists() {
            return Self { ours: false };
        }
        let written = std::fs::write(Self::PATH, "#!/bin/sh\nexit 101\n").is_ok();
        let ours = written && quietly(Command::new("chmod").args(["755", Self::PATH])).is_ok();
        Self { ours }
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_file(Self::PATH);
        }
    }
}
