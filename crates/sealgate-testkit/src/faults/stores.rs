//! The key stores of a run, and what befalls them: database, directory server and key server are killed, silenced and
//! brought back, a file is locked by somebody else, is on a full disk or on one that has become read-only. The name server
//! of a run is among them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use super::ledger::{Hit, Side};
use super::names::Names;
use super::world::World;
use crate::disk::SmallDisk;
use crate::gate::{Gate, set};
use crate::key_server::KeyServer;
use crate::mail;
use crate::postgres::Postgres;
use crate::slapd::{BASE, Person, Settings, Slapd};

/// Where keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A SQLite file.
    Embedded,
    /// PostgreSQL, OpenLDAP for certificates of others, and a key server for secret keys.
    Servers,
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
}

impl Stores {
    /// Stores of this kind, and a gate that uses them.
    pub(super) fn start(kind: StoreKind, binary: &str, domains: &[&str]) -> (Self, Gate) {
        match kind {
            StoreKind::Embedded => {
                let disk = SmallDisk::mount(DISK_OCTETS);
                let database = disk.path().join("sealgate.db");
                let url = format!("sqlite:{}", database.display());
                let gate = Gate::init_with(binary, domains, &["--database", &url]);
                (Self::Embedded { database, disk }, gate)
            }
            StoreKind::Servers => {
                let postgres = Box::new(Postgres::start());
                let directory = Box::new(Slapd::start(Settings::default()));
                let url = postgres.url(&postgres.create_database());
                let gate = Gate::init_with(binary, domains, &["--database", &url]);
                gate.configure(|config| {
                    set(config, &["public_keys", "stores"], vec!["ldap"]);
                    set(config, &["public_keys", "ldap", "servers"], vec![directory.tls_url()]);
                    let root = directory.pki.root.to_str().unwrap();
                    set(config, &["public_keys", "ldap", "ca"], root);
                    set(config, &["public_keys", "ldap", "base"], BASE);
                });
                let host = Gate::init(binary, domains);
                let keys = Box::new(Keys { binary: binary.to_owned(), host, server: None });
                (Self::Servers { postgres, directory, keys }, gate)
            }
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
        let socket = keys.socket();
        ours.configure(|config| {
            set(config, &["secret_keys", "store"], "kmip");
            let servers = vec![format!("unix:{}", socket.display())];
            set(config, &["secret_keys", "kmip", "servers"], servers);
            set(config, &["secret_keys", "kmip", "get"], "never");
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
    pub(super) fn trouble(mut self, world: &Arc<World>, mut names: Option<Names>) -> Trouble {
        let ended = Arc::new(AtomicBool::new(false));
        let (world, flag) = (Arc::clone(world), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(50));
                if world.chance.strikes(30) {
                    world.stores_are_away.store(true, Ordering::SeqCst);
                    self.strike(&world);
                    world.stores_are_away.store(false, Ordering::SeqCst);
                }
                if let Some(names) = &mut names
                    && world.chance.strikes(60)
                {
                    names.strike(&world);
                }
            }
        });
        Trouble { ended, thread: Some(thread) }
    }

    fn strike(&mut self, world: &World) {
        let pause = || sleep(Duration::from_millis(100 + world.chance.below(2500)));
        let note = |kind: &str| world.ledger.struck(Side::Stores, kind, Hit::Anybody);
        match self {
            Self::Embedded { database, disk } => match world.chance.below(3) {
                0 => {
                    note("database locked");
                    lock(database, 100 + world.chance.below(2000));
                }
                1 => {
                    note("disk full");
                    disk.fill();
                    pause();
                    disk.free();
                }
                _ => {
                    note("disk read-only");
                    disk.set_read_only(true);
                    pause();
                    disk.set_read_only(false);
                }
            },
            Self::Servers { postgres, directory, keys } => match world.chance.below(6) {
                0 => {
                    note("database killed");
                    postgres.kill();
                    pause();
                    postgres.resume();
                }
                1 => {
                    note("database silent");
                    postgres.signal_all("STOP");
                    pause();
                    postgres.signal_all("CONT");
                }
                2 => {
                    note("key server killed");
                    keys.server.take().unwrap().kill();
                    pause();
                    keys.serve();
                }
                3 => {
                    note("key server silent");
                    keys.server.as_ref().unwrap().signal("STOP");
                    pause();
                    keys.server.as_ref().unwrap().signal("CONT");
                }
                4 => {
                    note("directory killed");
                    directory.kill();
                    pause();
                    directory.start_again();
                }
                _ => {
                    note("directory silent");
                    directory.pause();
                    pause();
                    directory.resume();
                }
            },
        }
    }
}

impl Keys {
    fn socket(&self) -> PathBuf {
        self.host.dir().join("keys.sock")
    }

    /// For processes of the user who runs this, who may sign and decrypt for everybody.
    fn serve(&mut self) {
        let uid = fs::metadata(self.host.dir()).unwrap().uid();
        let mut relay = toml::Table::new();
        set(&mut relay, &["uid"], i64::from(uid));
        set(&mut relay, &["keys"], vec!["*"]);
        set(&mut relay, &["operations"], vec!["sign", "decrypt"]);
        self.host.configure(|config| {
            set(config, &["key_server", "socket"], self.socket().to_str().unwrap());
            set(config, &["key_server", "relay"], vec![toml::Value::Table(relay)]);
        });
        self.server = Some(KeyServer::start(&self.binary, &self.host.configuration()));
    }
}

/// What befalls the stores, until it is ended.
#[derive(Debug)]
pub(super) struct Trouble {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trouble {
    /// The stores are there again, and go when this returns.
    pub(super) fn end(mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Trouble {
    /// Where the run failed: what was mounted and started must not stay.
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Of the disk: many times what the database needs.
const DISK_OCTETS: usize = 32 << 20;

/// Another process has the file for itself.
fn lock(database: &std::path::Path, milliseconds: u64) {
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
