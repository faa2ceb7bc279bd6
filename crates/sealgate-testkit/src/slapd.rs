//! An OpenLDAP server of its own: configuration, data and authority in a temporary directory, on free loopback ports.
//!
//! Needs Debian's slapd and ldap-utils packages. It serves one tree, [`BASE`], with people in it who have an address and
//! certificates, by `ldap://` with StartTLS and by `ldaps://` as `localhost`. The administrator writes with a password;
//! who shows a certificate of [`Slapd::client_certificate`] may read (SASL EXTERNAL).

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::pki::Pki;
use crate::process::{self, Running};

/// A slapd and its data; the data stays while the server is away.
#[derive(Debug)]
pub struct Slapd {
    /// Where it takes `ldap://`.
    pub plain: SocketAddr,
    /// Where it takes `ldaps://`.
    pub tls: SocketAddr,
    /// The authority of its certificate, which may serve for people too.
    pub pki: Pki,
    dir: TempDir,
    running: Option<Running>,
    people: usize,
}

/// What one slapd is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether who has not bound may read; else such a one does not even see that the tree is there.
    pub is_public: bool,
    /// Entries of one answer; more is sizeLimitExceeded.
    pub entries_max: usize,
    /// Wrong passwords that lock an account, of whoever gives them (ppolicy); `None` where nothing locks one.
    pub wrong_passwords_max: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { is_public: true, entries_max: 500, wrong_passwords_max: None }
    }
}

/// An entry with an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// Value of `mail`.
    pub address: String,
    /// Values of `userCertificate;binary`, DER.
    pub certificates: Vec<Vec<u8>>,
    /// Values of `userSMIMECertificate`; the server takes any BER.
    pub signed_data: Vec<Vec<u8>>,
}

impl Slapd {
    /// Starts one with an empty tree.
    pub fn start(settings: Settings) -> Self {
        let pki = Pki::new("Directory");
        let dir = process::open_temp_dir("slapd");
        fs::create_dir(dir.path().join("db")).unwrap();
        pki.issue_for_tls(
            "server",
            "/CN=localhost",
            "serverAuth",
            "subjectAltName=DNS:localhost\n",
        );
        let [plain, tls] = [(); 2].map(|()| process::loopback(process::free_port()));
        let mut slapd = Self { plain, tls, pki, dir, running: None, people: 0 };
        fs::write(slapd.configuration(), slapd_conf(&slapd, settings)).unwrap();
        let mut tree = format!(
            "dn: {BASE}\nobjectClass: organization\nobjectClass: dcObject\no: NEC\ndc: nec\n\n\
             dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n\n"
        );
        if let Some(most) = settings.wrong_passwords_max {
            let name = POLICY.split(['=', ',']).nth(1).unwrap();
            writeln!(
                tree,
                "dn: {POLICY}\nobjectClass: organizationalRole\nobjectClass: pwdPolicy\ncn: {name}\n\
                 pwdAttribute: userPassword\npwdLockout: TRUE\npwdMaxFailure: {most}\n"
            )
            .unwrap();
        }
        slapd.load(&tree);
        slapd.start_again();
        slapd
    }

    /// Starts it where it is not running, on the same ports and with the same data.
    pub fn start_again(&mut self) {
        if self.running.is_some() {
            return;
        }
        let urls = format!("ldap://{}/ ldaps://{}/", self.plain, self.tls);
        let output = fs::File::create(self.dir.path().join("output")).unwrap();
        let mut command = Command::new(SLAPD);
        command.args(["-d", "0", "-h", &urls, "-f"]).arg(self.configuration());
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        self.running = Some(Running::start("slapd", &mut command));
        process::await_that("slapd listens", || {
            let ended = self.running.as_mut().and_then(Running::ended);
            assert!(ended.is_none(), "slapd: {ended:?}: {}", self.output());
            [self.plain, self.tls].iter().all(|address| {
                std::net::TcpStream::connect_timeout(address, Duration::from_millis(200)).is_ok()
            })
        });
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.stop(process::PATIENCE);
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.signal("KILL");
            process::await_that("slapd is gone", || running.ended().is_some());
        }
    }

    /// Makes it hang: connections are still taken by the kernel, nothing is answered.
    pub fn pause(&self) {
        self.signal("STOP");
        let id = self.running.as_ref().map(Running::id).unwrap_or_default();
        process::await_that("slapd has stopped", || {
            let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
            tasks.flatten().all(|task| {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                status.contains("State:\tT")
            })
        });
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// The `ldaps://` URL with the name that its certificate has.
    pub fn tls_url(&self) -> String {
        format!("ldaps://localhost:{}", self.tls.port())
    }

    /// Where it speaks TLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.tls
    }

    /// The `ldap://` URL with the name that its certificate has.
    pub fn plain_url(&self) -> String {
        format!("ldap://localhost:{}", self.plain.port())
    }

    /// Certificate and key, PEM, of somebody who may read by SASL EXTERNAL and nothing else.
    pub fn client_certificate(&self) -> (PathBuf, PathBuf) {
        self.pki.issue_for_tls("relay", "/O=NEC/CN=relay", "clientAuth", "")
    }

    /// Adds an entry while it runs; gives its distinguished name.
    pub fn add_person(&mut self, person: &Person) -> String {
        self.people += 1;
        let name = person_name(self.people);
        self.change("ldapadd", &ldif(&name, person));
        name
    }

    /// Adds many entries, ending it for that time.
    pub fn add_people(&mut self, people: &[Person]) {
        self.stop();
        let mut text = String::new();
        for person in people {
            self.people += 1;
            text.push_str(&ldif(&person_name(self.people), person));
        }
        self.load(&text);
        self.start_again();
    }

    /// Gives the entry of this name a password to bind with.
    pub fn set_password(&self, name: &str, password: &str) {
        let change = "changetype: modify\nreplace: userPassword\nuserPassword";
        self.change("ldapmodify", &format!("dn: {name}\n{change}: {password}\n"));
    }

    /// Runs `ldapadd` or `ldapmodify` as the administrator.
    pub fn change(&self, program: &str, ldif: &str) {
        let mut command = Command::new(program);
        command.args(["-x", "-D", ADMIN, "-w", ADMIN_PASSWORD, "-H"]);
        command.arg(format!("ldap://{}", self.plain));
        process::run(&mut command, ldif.as_bytes()).expect_ok(program);
    }

    /// What it wrote to its standard output and error.
    pub fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        self.running.as_ref().expect("a running slapd").signal(signal);
    }

    fn configuration(&self) -> PathBuf {
        self.dir.path().join("slapd.conf")
    }

    fn load(&self, ldif: &str) {
        let mut command = Command::new(SLAPADD);
        command.arg("-q").arg("-f").arg(self.configuration());
        process::run(&mut command, ldif.as_bytes()).expect_ok("slapadd");
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            // A stopped process does not hear SIGTERM.
            running.signal("CONT");
        }
    }
}

fn slapd_conf(slapd: &Slapd, settings: Settings) -> String {
    let schemas: String = ["core", "cosine", "inetorgperson"]
        .map(|name| format!("include /etc/ldap/schema/{name}.schema\n"))
        .concat();
    let [root, certificate, key] =
        ["root.pem", "server.pem", "server.key"].map(|name| slapd.pki.path(name));
    let [root, certificate, key] = [&root, &certificate, &key].map(|path| path.display());
    let dir = slapd.dir.path().display();
    let everybody = if settings.is_public { "read" } else { "none" };
    let entries_max = settings.entries_max;
    let [load, policy] = match settings.wrong_passwords_max {
        None => [String::new(), String::new()],
        Some(_) => [
            "moduleload ppolicy\n".to_owned(),
            format!("overlay ppolicy\nppolicy_default \"{POLICY}\"\n"),
        ],
    };
    format!(
        "\
{schemas}modulepath /usr/lib/ldap
moduleload back_mdb
{load}pidfile {dir}/pid
argsfile {dir}/args
TLSCACertificateFile {root}
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
TLSVerifyClient try
authz-regexp \"^cn=relay,o=nec$\" \"cn=relay,{BASE}\"
sizelimit {entries_max}
database mdb
suffix \"{BASE}\"
rootdn \"{ADMIN}\"
rootpw {ADMIN_PASSWORD}
directory {dir}/db
maxsize 1073741824
index objectClass,mail eq
access to * by users read by * {everybody}
{policy}"
    )
}

fn person_name(number: usize) -> String {
    format!("uid={number},{PEOPLE}")
}

fn ldif(name: &str, person: &Person) -> String {
    let mut text = format!("dn: {name}\nobjectClass: inetOrgPerson\ncn: Somebody\nsn: Somebody\n");
    let mail = [person.address.as_bytes().to_vec()];
    for (attribute, values) in [
        ("mail", &mail[..]),
        ("userCertificate;binary", &person.certificates),
        ("userSMIMECertificate", &person.signed_data),
    ] {
        for value in values {
            let value = base64_simd::STANDARD.encode_to_string(value);
            writeln!(text, "{attribute}:: {value}").unwrap();
        }
    }
    text.push('\n');
    text
}

/// The tree that it serves.
pub const BASE: &str = "dc=nec,dc=example";
/// Where people are.
pub const PEOPLE: &str = "ou=people,dc=nec,dc=example";
/// Who may write.
pub const ADMIN: &str = "cn=admin,dc=nec,dc=example";
/// What locks accounts, where something does; the administrator's never is.
const POLICY: &str = "cn=policy,dc=nec,dc=example";
/// The password of [`ADMIN`].
pub const ADMIN_PASSWORD: &str = "directory-canary-password";

/// Not in everybody's search path.
const SLAPD: &str = "/usr/sbin/slapd";
const SLAPADD: &str = "/usr/sbin/slapadd";
