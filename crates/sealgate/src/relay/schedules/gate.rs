//! The relay that schedules run through: one a thread, put back to its beginning for each schedule, with a real key database.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use sealgate_core::address::{Address, Domain};
use sealgate_core::envelope::{Envelope, MailParameters, Recipient};
use sealgate_core::inbound::Inbound;
use sealgate_core::message::Message;
use sealgate_core::outbound::Outbound;
use sealgate_core::policy::Sign;
use sealgate_core::step::{Keys, Step};
use sealgate_keys::authority::Algorithm;
use sealgate_keys::database::DatabaseUrl;
use sealgate_keys::owner::Owner;
use sealgate_keys::stores::Stores;
use sqlx::Connection as _;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};

use super::books::{Books, Counts, holds, secret};
use super::chance::Chance;
use super::course::{Course, MAILS_MAX, with_keys};
use super::world::{self, World, complain};
use super::{client, note};
use crate::config::{Config, Limits};
use crate::relay::confirm::CONFIRM_MAX;
use crate::relay::deliver::InsideOffers;
use crate::relay::hops::Hops;
use crate::relay::pool::Pool;
use crate::relay::recipients::Recipients;
use crate::relay::transaction::Transaction;
use crate::relay::{Relay, Settings, route};

/// A relay and where its databases and threads are.
pub(super) struct Gate {
    relay: Arc<Relay>,
    config: Config,
    threads: Runtime,
    database: PathBuf,
    /// No two schedules send the same message.
    runs: u64,
    /// Messages to us, sealed by somebody else, by the number that is theirs in a schedule.
    sealed: Vec<Vec<u8>>,
    _directory: tempfile::TempDir,
}

/// What came of a schedule.
pub(super) struct Outcome {
    pub(super) problems: Vec<String>,
    pub(super) trace: Vec<String>,
    pub(super) counts: Counts,
}

impl Gate {
    pub(super) fn new() -> Self {
        // A database that nobody wants after the test need not reach a disk.
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let directory = tempfile::tempdir_in(place).unwrap();
        let threads = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let file = directory.path().join("sealgate.toml");
        std::fs::write(&file, CONFIGURATION).unwrap();
        let config = Config::load(&file).unwrap();
        let database = directory.path().join("sealgate.db");
        let (relay, sealed) = threads.block_on(async {
            let url = DatabaseUrl::Sqlite(database.clone());
            let domain = Domain::parse("nec.example").unwrap();
            let master_key = directory.path().join("master.key");
            sealgate_keys::administration::establish(&master_key, &url, &domain).await.unwrap();
            let stores = Stores::open(&config.stores).await.unwrap();
            keys(&stores).await;
            let relay = Relay::new(Settings::new(config.clone()).unwrap(), stores).unwrap();
            let mut sealed = Vec::new();
            for number in 0..MAILS_MAX {
                sealed.push(seal(&relay, number).await);
            }
            (relay, sealed)
        });
        Self { relay, config, threads, database, runs: 0, sealed, _directory: directory }
    }

    /// Runs one schedule to its end.
    pub(super) fn run(&mut self, seed: u64, traced: bool) -> Outcome {
        let mut chance = Chance::new(seed);
        let course = Course::new(&mut chance, self.runs, &self.sealed);
        self.take(course, chance, traced)
    }

    /// Runs this one.
    pub(super) fn take(&mut self, course: Course, chance: Chance, traced: bool) -> Outcome {
        self.runs += 1;
        if self.runs.is_multiple_of(CLEAN_EVERY) {
            self.forget_done_records();
        }
        self.begin_anew(&course);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap();
        runtime.block_on(async {
            let began = Instant::now();
            world::begin(World {
                chance,
                books: course.books,
                servers: course.servers,
                trace: traced.then(Vec::new),
                began,
                calm_at: began + course.calm_after,
                threads: self.threads.handle().clone(),
                relay: Arc::clone(&self.relay),
                sessions: Vec::new(),
                connections: 0,
            });
            course.header.iter().for_each(|line| note(|| line.clone()));
            let clients: Vec<_> =
                course.clients.into_iter().map(|plan| tokio::spawn(client::run(plan))).collect();
            let all = async {
                for client in clients {
                    client.await.expect("a client");
                }
                self.look_behind().await;
            };
            if timeout(SCHEDULE_MAX, all).await.is_err() {
                complain("the schedule does not end".to_owned());
            }
        });
        drop(runtime);
        let mut world = world::end();
        self.relay.downstream.pool.clear();
        world.books.judge();
        self.open_sealed(&mut world.books);
        Outcome {
            problems: world.books.problems,
            trace: world.trace.unwrap_or_default(),
            counts: world.books.counts,
        }
    }

    /// What was sealed must be the message.
    fn open_sealed(&self, books: &mut Books) {
        for (message, to, content) in std::mem::take(&mut books.sealed) {
            books.counts.add("sealed copies opened", 1);
            let opened = self.threads.block_on(open(&self.relay, &to, &content));
            if !opened.is_some_and(|text| holds(&text, secret(message).as_bytes())) {
                let problem = format!("m{message}: {to} has what does not open to it");
                books.problems.push(problem);
            }
        }
    }

    /// The relay by itself, with these limits.
    pub(super) fn relay_with(&self, change: impl FnOnce(&mut Limits)) -> Arc<Relay> {
        let mut config = self.config.clone();
        // Nobody is there who could be asked.
        config.inside.check_recipients = false;
        change(&mut config.limits);
        *self.relay.settings.write().unwrap() = Arc::new(Settings::new(config).unwrap());
        Arc::clone(&self.relay)
    }

    /// Everybody has gone: nothing may be left of them.
    async fn look_behind(&self) {
        let sessions = world::with(|world| std::mem::take(&mut world.sessions));
        for session in sessions {
            match timeout(SESSION_MAX, session).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => complain(format!("a session ends with {error}")),
                Err(_) => complain("a session does not end".to_owned()),
            }
        }
        // Confirmations may be at the mail server.
        sleep(CONFIRM_MAX + Duration::from_secs(1)).await;
        let relay = &self.relay;
        if relay.memory.used_bytes() != 0 || relay.connections.total() != 0 {
            complain("memory or connections are not given back".to_owned());
        }
        let server = relay.settings().config.inside.mail_server.clone();
        let hop = route::fixed(&server, crate::relay::transport::Demand::default());
        let hops = &relay.downstream.hops;
        if hops.reserve(&hop, hops.connections_max(), Instant::now()).await.is_err() {
            complain("connections to the mail server are not given back".to_owned());
        }
    }

    /// As after a start, with this course's configuration.
    fn begin_anew(&mut self, course: &Course) {
        let mut config = self.config.clone();
        course.configure(&mut config);
        let relay = Arc::get_mut(&mut self.relay).expect("nothing of the last schedule is left");
        relay.downstream.hops = Hops::new(config.limits.connections_per_next_hop_max);
        relay.downstream.pool = Pool::default();
        if course.asks_for_recipients {
            relay.recipients = Recipients::new();
        }
        relay.downstream.inside_offers = InsideOffers::unknown();
        relay.absence = Default::default();
        relay.memory = Arc::default();
        relay.connections = Default::default();
        relay.settings = RwLock::new(Arc::new(Settings::new(config).unwrap()));
    }

    fn forget_done_records(&self) {
        self.threads.block_on(async {
            let url = format!("sqlite:{}", self.database.display());
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            sqlx::query("DELETE FROM done_records").execute(&mut connection).await.unwrap();
        });
    }
}

/// One for each of our senders and recipients, and one for each of our correspondents.
async fn keys(stores: &Stores) {
    let administration = stores.administration();
    for owner in ["@nec.example", "@abc.example"] {
        let owner: Owner = owner.parse().unwrap();
        let made = administration.generate_secret_keys(&owner, Algorithm::P256).await.unwrap();
        for certificate in made {
            administration.import_public_key(&owner, &certificate, &[]).await.unwrap();
        }
    }
}

/// A message to one of us, as somebody outside seals it.
async fn seal(relay: &Relay, number: usize) -> Vec<u8> {
    let settings = relay.settings();
    let mut context = Transaction::context(relay, &settings).await.unwrap();
    let mut policy = with_keys(&context.policy);
    policy.defaults.sign = Sign::Never;
    context.policy = Arc::new(policy);
    let envelope = Envelope {
        reverse_path: Some(Address::parse("bob@abc.example").unwrap()),
        recipients: vec![Recipient::new(Address::parse("r0@nec.example").unwrap())],
        parameters: MailParameters::default(),
    };
    let head = b"From: <bob@abc.example>\r\nTo: <r0@nec.example>\r\nSubject: x\r\n\r\n";
    let message = Message::new([&head[..], secret(number).as_bytes()].concat().into());
    let mut outbound = Outbound::new(context, "id".to_owned(), envelope, message, Vec::new());
    let mut keys = Keys::default();
    loop {
        match outbound.step(&keys) {
            Step::Want(queries) => relay.stores.answer(&queries, &mut keys).await,
            Step::Done(done) => return done.parcels[0].message.concat(),
            Step::Refused(refused) => panic!("{refused:?}"),
        }
    }
}

/// What somebody outside reads of a message that we sealed for him; `None` where he cannot.
async fn open(relay: &Relay, to: &str, content: &[u8]) -> Option<Vec<u8>> {
    let settings = relay.settings();
    let context = Transaction::context(relay, &settings).await.unwrap();
    let envelope = Envelope {
        reverse_path: Some(Address::parse("alice@nec.example").unwrap()),
        recipients: vec![Recipient::new(Address::parse(to).unwrap())],
        parameters: MailParameters::default(),
    };
    let message = Message::new(content.to_vec().into());
    let mut inbound = Inbound::new(context, "id".to_owned(), envelope, message, Vec::new());
    let mut keys = Keys::default();
    loop {
        match inbound.step(&keys) {
            Step::Want(queries) => relay.stores.answer(&queries, &mut keys).await,
            Step::Done(done) => return Some(done.parcels[0].message.concat()),
            Step::Refused(_) => return None,
        }
    }
}

/// The address of one of the Internet's mail servers.
pub(super) fn exchanger(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 25))
}

const CONFIGURATION: &str = r#"
version = 1
domains = ["nec.example"]
hostname = "gate.nec.example"
[inside]
lmtp = "127.0.0.1:0"
smtp = "127.0.0.1:0"
mail_server = "smtp://192.0.2.100:2526"
[outside]
smtp = "127.0.0.1:0"
next_hop = "mx"
authenticate = false
[database]
url = "sqlite:sealgate.db"
[master_key]
file = "master.key"
[policy]
sign = "never"
encrypt = "never"
[dns]
resolvers = ["192.0.2.53:53"]
dnssec = "off"
"#;
/// Schedules after which the done-records of the earlier ones are deleted.
const CLEAN_EVERY: u64 = 64;
/// Sessions end sooner after their clients have gone.
const SESSION_MAX: Duration = Duration::from_secs(1000);
/// Schedules end sooner, whatever happens.
const SCHEDULE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
