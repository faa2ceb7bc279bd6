//! The key stores of a run, and what befalls them: database, directory server and key server are killed, silenced and
//! brought back, their lines break, a file is locked by somebody else, is on a full disk or on one that has become
//! read-only. The name server of a run is among them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::ledger::{Hit, Side};
use super::names::Names;
use super::store_line;
use super::trouble::{Lines, Trouble};
use super::world::World;
use crate::disk::SmallDisk;
use crate::gate::{Gate, set};
use crate::key_server::KeyServer;
use crate::mail;
use crate::pki::Pki;
use crate::postgres::Postgres;
use crate::process::{free_port, loopback};
use crate::slapd::{BASE, Person, Settings, Slapd};

/// Where keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A SQLite file.
    Embedded,
    /// PostgreSQL, OpenLDAP for certificates of others, and a key server for secret keys, each over TLS and a line that breaks.
    Servers,
    /// The same without lines, so that a connection may be refused, and the key server by its unix socket.
    NearServers,
}

/// The stores.
#[derive(Debug)]
pub(super) enum Stores {
    Embedded { database: PathBuf, disk: SmallDisk },
    Servers { postgres: Box<Postgres>, directory: Box<Slapd>, keys: Box<Keys> },
}

/// A key server and where its keys are.
#[derive(Debug)]
pub(super) struct Keys {
    binary: String,
    host: Gate,
    server: Option<KeyServer>,
    at: KeyServerPlace,
}

/// Where the relay finds the key server.
#[derive(Debug)]
enum KeyServerPlace {
    Line(SocketAddr, Box<Pki>),
    Socket(PathBuf),
}

impl Stores {
    /// Stores of this kind, and a gate that uses them.
    pub(super) fn start(
        kind: StoreKind,
        binary: &str,
        domains: &[&str],
        world: &Arc<World>,
    ) -> (Self, Gate) {
        match kind {
            StoreKind::Embedded => {
                let disk = SmallDisk::mount(DISK_OCTETS);
                let database = disk.path().join("sealgate.db");
                let url = format!("sqlite:{}", database.display());
                let gate = Gate::init_with(binary, domains, &["--database", &url]);
                (Self::Embedded { database, disk }, gate)
            }
            StoreKind::Servers | StoreKind::NearServers => {
                let reach = |lines, address| match kind {
                    StoreKind::Servers => store_line::lay(world, lines, address),
                    _ => address,
                };
                let postgres = Box::new(Postgres::start());
                let directory = Box::new(Slapd::start(Settings::default()));
                let at = reach(Lines::Database, postgres.address);
                let url = postgres.url_at(at, &postgres.create_database());
                let root = postgres.root.display();
                let url = format!("{url}?sslmode=verify-full&sslrootcert={root}");
                let gate = Gate::init_with(binary, domains, &["--database", &url]);
                let at = reach(Lines::Directory, directory.tls_address());
                gate.configure(|config| {
                    set(config, &["public_keys", "stores"], vec!["ldap"]);
                    let servers = vec![format!("ldaps://localhost:{}", at.port())];
                    set(config, &["public_keys", "ldap", "servers"], servers);
                    let root = directory.pki.root.to_str().unwrap();
                    set(config, &["public_keys", "ldap", "ca"], root);
                    set(config, &["public_keys", "ldap", "base"], BASE);
                });
                let keys = Box::new(Keys::new(kind, binary, domains, world));
                (Self::Servers { postgres, directory, keys }, gate)
            }
        }
    }

    /// The lines to them that break.
    pub(super) fn lines(&self) -> &'static [Lines] {
        match self {
            Self::Servers { keys, .. } if matches!(keys.at, KeyServerPlace::Line(..)) => {
                &Lines::STORES
            }
            _ => &[],
        }
    }

    /// Where our secret keys are made.
    pub(super) fn key_host<'s>(&'s self, ours: &'s Gate) -> &'s Gate {
        match self {
            Self::Embedded { .. } => ours,
            Self::Servers { keys, .. } => &keys.host,
        }
    }

    /// Lets our gate use the keys that were made.
    pub(super) fn serve_keys(&mut self, ours: &Gate) {
        let Self::Servers { keys, .. } = self else { return };
        keys.serve();
        ours.configure(|config| {
            let kmip = |name: &'static str| ["secret_keys", "kmip", name];
            set(config, &["secret_keys", "store"], "kmip");
            set(config, &kmip("get"), "never");
            let server = match &keys.at {
                KeyServerPlace::Socket(socket) => format!("unix:{}", socket.display()),
                KeyServerPlace::Line(line, pki) => {
                    let (certificate, key) =
                        pki.issue_for_tls("relay", "/CN=relay", "clientAuth", "");
                    set(config, &kmip("ca"), text(&pki.root));
                    set(config, &kmip("certificate"), text(&certificate));
                    set(config, &kmip("key"), text(&key));
                    format!("localhost:{}", line.port())
                }
            };
            set(config, &kmip("servers"), vec![server]);
        });
        ours.must(&["anchor", "import", keys.host.authority().to_str().unwrap()], b"");
    }

    /// Makes the other one's people known to our gate.
    pub(super) fn introduce(&mut self, ours: &Gate, other: &Gate, addresses: &[&str]) {
        match self {
            Self::Embedded { .. } => ours.trust(other, addresses),
            Self::Servers { directory, .. } => {
                ours.trust(other, &[]);
                for address in addresses {
                    let text = fs::read_to_string(other.certificate(address)).unwrap();
                    let certificates = text
                        .split("-----BEGIN CERTIFICATE-----")
                        .skip(1)
                        .filter_map(|part| part.split("-----END").next())
                        .map(|part| mail::decode_base64(part.as_bytes()))
                        .collect();
                    directory.add_person(&Person {
                        address: (*address).to_owned(),
                        certificates,
                        signed_data: Vec::new(),
                    });
                }
            }
        }
    }

    /// Lets things befall them, and a name server, from now on.
    pub(super) fn trouble(mut self, world: &Arc<World>, mut names: Option<Names>) -> Troubles {
        let ended = Arc::new(AtomicBool::new(false));
        let (world, flag) = (Arc::clone(world), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(50));
                if world.chance.strikes(30) {
                    self.strike(&world);
                    world.database_is_away.store(false, Ordering::SeqCst);
                }
                if let Some(names) = &mut names
                    && world.chance.strikes(60)
                {
                    names.strike(&world);
                }
            }
        });
        Troubles { ended, thread: Some(thread) }
    }

    fn strike(&mut self, world: &World) {
        let lines = self.lines();
        match self {
            Self::Embedded { database, disk } => {
                database_goes(world);
                strike_file(world, database, disk);
            }
            Self::Servers { postgres, directory, keys } => {
                match world.chance.below(if lines.is_empty() { 6 } else { 9 }) {
                    0..2 => {
                        database_goes(world);
                        strike_server(
                            world,
                            (Side::Stores, "database"),
                            &mut **postgres,
                            [|it| it.kill(), |it| it.resume()],
                            [|it| it.signal_all("STOP"), |it| it.signal_all("CONT")],
                        );
                    }
                    2..4 => strike_server(
                        world,
                        (Side::Stores, "key server"),
                        &mut **keys,
                        [Keys::kill, Keys::serve],
                        [|it| it.signal("STOP"), |it| it.signal("CONT")],
                    ),
                    4..6 => strike_server(
                        world,
                        (Side::Stores, "directory"),
                        &mut **directory,
                        [Slapd::kill, Slapd::start_again],
                        [|it| it.pause(), |it| it.resume()],
                    ),
                    _ => strike_lines(world, lines),
                }
            }
        }
    }
}

fn strike_file(world: &World, database: &Path, disk: &mut SmallDisk) {
    match world.chance.below(3) {
        0 => {
            note(world, "database locked");
            lock(database, 100 + world.chance.below(2000));
        }
        1 => {
            note(world, "disk full");
            disk.fill();
            pause(world);
            disk.free();
        }
        _ => {
            note(world, "disk read-only");
            disk.set_read_only(true);
            pause(world);
            disk.set_read_only(false);
        }
    }
}

/// Something is killed and started again, or silenced and goes on.
pub(super) fn strike_server<S>(
    world: &World,
    (side, name): (Side, &str),
    server: &mut S,
    [kill, start]: [fn(&mut S); 2],
    [silence, resume]: [fn(&mut S); 2],
) {
    let (befell, away, back) = match world.chance.one_in(2) {
        true => ("killed", kill, start),
        false => ("silent", silence, resume),
    };
    world.ledger.struck(side, &format!("{name} {befell}"), Hit::Anybody);
    away(server);
    pause(world);
    back(server);
}

/// The lines that obey note it.
fn strike_lines(world: &World, among: &[Lines]) {
    let lines = world.chance.pick(among);
    if lines == Lines::Database {
        database_goes(world);
    }
    let trouble = world.chance.pick(&Trouble::ALL);
    world.orders.give(lines, trouble, Instant::now() + LINES_BREAK_FOR);
    sleep(LINES_BREAK_FOR);
}

fn note(world: &World, kind: &str) {
    world.ledger.struck(Side::Stores, kind, Hit::Anybody);
}

fn pause(world: &World) {
    sleep(Duration::from_millis(100 + world.chance.below(2500)));
}

/// A relay that is started now may find that it cannot.
fn database_goes(world: &World) {
    world.database_is_away.store(true, Ordering::SeqCst);
}

impl Keys {
    /// For one relay, which may sign and decrypt for everybody.
    fn new(kind: StoreKind, binary: &str, domains: &[&str], world: &Arc<World>) -> Self {
        let host = Gate::init(binary, domains);
        let mut relay = toml::Table::new();
        set(&mut relay, &["keys"], vec!["*"]);
        set(&mut relay, &["operations"], vec!["sign", "decrypt"]);
        let mut server = toml::Table::new();
        let at = if kind == StoreKind::NearServers {
            let socket = host.dir().join("keys.sock");
            let uid = fs::metadata(host.dir()).unwrap().uid();
            set(&mut relay, &["uid"], i64::from(uid));
            set(&mut server, &["socket"], text(&socket));
            KeyServerPlace::Socket(socket)
        } else {
            let (pki, address) = (Box::new(Pki::new("Keys")), loopback(free_port()));
            let names = "subjectAltName=DNS:localhost\n";
            let (certificate, key) = pki.issue_for_tls("keys", "/CN=keys", "serverAuth", names);
            set(&mut relay, &["identity"], "relay");
            set(&mut server, &["listen"], address.to_string());
            set(&mut server, &["certificate"], text(&certificate));
            set(&mut server, &["key"], text(&key));
            set(&mut server, &["client_ca"], text(&pki.root));
            KeyServerPlace::Line(store_line::lay(world, Lines::KeyServer, address), pki)
        };
        set(&mut server, &["relay"], vec![toml::Value::Table(relay)]);
        host.set(&["key_server"], server);
        Self { binary: binary.to_owned(), host, server: None, at }
    }

    fn kill(&mut self) {
        self.server.take().unwrap().kill();
    }

    fn signal(&self, signal: &str) {
        self.server.as_ref().unwrap().signal(signal);
    }

    fn serve(&mut self) {
        self.server = Some(KeyServer::start(&self.binary, &self.host.configuration()));
    }
}

/// What befalls the stores, until it is ended.
#[derive(Debug)]
pub(super) struct Troubles {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Troubles {
    /// The stores are there again, and go when this returns.
    pub(super) fn end(mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Troubles {
    /// Where the run failed: what was mounted and started must not stay.
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Long enough to be met by somebody.
const LINES_BREAK_FOR: Duration = Duration::from_millis(1500);
/// Of the disk: many times what the database needs.
const DISK_OCTETS: usize = 32 << 20;

/// Another process has the file for itself.
fn lock(database: &Path, milliseconds: u64) {
    let script = format!(
        "import sqlite3, sys, time\n\
         c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)\n\
         c.execute('BEGIN EXCLUSIVE')\n\
         time.sleep({milliseconds} / 1000)\n\
         c.execute('ROLLBACK')\n"
    );
    let mut command = Command::new("python3");
    command.args(["-c", &script]).arg(database).stdin(Stdio::null()).stderr(Stdio::null());
    // Where the relay was faster and keeps it for itself there is no lock to be had: no failure.
    let _ = command.status();
}
