//! Faults on every side of a relay, and the comparison of what every mail server was told with what every sink holds
//! (REQUIREMENTS O1, O2, O8, §5, §6).
//!
//! In: the program and a [`Course`]. Out: a [`Summary`]. Mail servers' queues and Internet clients (`upstream`) hand
//! in mail that is tried again until it is delivered or bounced; sinks (`downstream`) keep copies and misbehave;
//! lines (`line`) between them break; the relay (`keeper`) kills, stops and delays itself at its fail points and is
//! started again. Every copy carries the number of the attempt that it came from (ENVID, RFC 3461), so that each copy
//! too many is laid to the fault that allows it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::gate::Gate;
use crate::pki::Pki;
use crate::process::{free_port, loopback};
use crate::sink::Protocol;

mod chance;
mod channel;
mod downstream;
mod keeper;
mod ledger;
mod line;
mod names;
mod points;
mod stores;
mod summary;
mod upstream;
mod world;

pub use points::points;
pub use stores::StoreKind;
pub use summary::Summary;

use downstream::Downstream;
use keeper::Keeper;
use ledger::Side;
use names::Exchanger;
use stores::Stores;
use upstream::{Doors, GATE, Upstream};
use world::World;

/// What a run does.
#[derive(Clone, Debug)]
pub struct Course {
    /// The program, a debug build.
    pub binary: PathBuf,
    /// Its sources, where the names of the fail points stand.
    pub sources: PathBuf,
    /// Decides every choice.
    pub seed: u64,
    /// Whether each point is to kill the relay once.
    pub every_point: bool,
    /// For how long anything may happen, after that.
    pub random_for: Duration,
    /// What the mail server inside speaks.
    pub mail_server: Protocol,
    /// Where keys are.
    pub stores: StoreKind,
    /// Whether each domain outside has a mail exchanger of its own, found by DNS; else one server takes all.
    pub exchangers: bool,
}

/// Runs it.
///
/// # Panics
/// Where the relay does something that nobody planned: it does not start, ends by itself or does not end.
pub fn run(course: &Course) -> Summary {
    let binary = course.binary.to_str().unwrap();
    let (mut stores, nec) = Stores::start(course.stores, binary, &["nec.example"]);
    let abc = Gate::init(binary, &world::DOMAINS_OUTSIDE);
    let letters = world::make_keys(&nec, &abc, &mut stores);
    let world = Arc::new(World::new(course.seed, letters));
    let tls = Tls::new(&nec);
    let outside = Downstream::start(&world, Protocol::Smtp, false, &tls.server);
    let inside = Downstream::start(&world, course.mail_server, true, &tls.server);
    let doors = configure(&nec, &world, course, inside, &tls);
    lead_out(&nec, &world, course, outside);
    let lines = Doors {
        lmtp: line::lay(&world, Side::Upstream, doors.lmtp),
        smtp: line::lay(&world, Side::Upstream, doors.smtp),
        outside: line::lay(&world, Side::Upstream, doors.outside),
        tls: Arc::clone(&doors.tls),
    };
    let mut keeper = Keeper {
        gate: nec,
        binary: course.binary.clone(),
        world: Arc::clone(&world),
        doors,
        starts: 0,
        start_max: Duration::ZERO,
    };
    let upstream = Upstream::start(&world, lines);
    let points = points(&course.sources);
    let mut not_reached = Vec::new();
    if course.every_point {
        let missed = |point: &&String| !keeper.kill_at(point, POINT_PATIENCE);
        let missed: Vec<&String> = points.iter().filter(missed).collect();
        let again = |point: &&&String| !keeper.kill_at(point, POINT_PATIENCE * 4);
        not_reached = missed.iter().filter(again).map(|point| (**point).clone()).collect();
    }
    let trouble = stores.trouble(&world);
    let until = Instant::now() + course.random_for;
    while Instant::now() < until {
        keeper.live_randomly(&points, until);
    }
    world.chance.calm_down();
    upstream.stop_submitting();
    keeper.live_calmly(CALM_PATIENCE, || world.ledger.progress().1 == 0);
    upstream.end();
    trouble.end();
    let mut summary = world.ledger.judge();
    summary.not_reached = not_reached;
    summary.starts = keeper.starts;
    summary.start_max = keeper.start_max;
    summary
}

/// Runs after runs until the time is up, each in a world of its own: another seed, another protocol of the mail server,
/// another kind of key stores. Each is printed; the sum of all is returned.
///
/// # Panics
/// As [`run`].
pub fn torture(first: &Course, time: Duration) -> Summary {
    let end = Instant::now() + time;
    let mut total = Summary::default();
    for round in 0.. {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let course = Course {
            seed: first.seed.wrapping_add(round),
            every_point: round % 4 < 2,
            random_for: left.min(ROUND),
            mail_server: if round % 2 == 0 { Protocol::Lmtp } else { Protocol::Smtp },
            stores: if round % 4 < 2 { StoreKind::Embedded } else { StoreKind::Servers },
            ..first.clone()
        };
        let summary = run(&course);
        let Course { seed, mail_server, stores, .. } = course;
        println!(
            "--- round {round}: seed {seed}, {mail_server:?} inside, {stores:?} stores\n{summary}"
        );
        total.add(summary);
    }
    println!("--- all rounds, from seed {} on", first.seed);
    total
}

/// Both sides' TLS.
struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// A certificate for the relay, which the sinks use as well.
    fn new(gate: &Gate) -> Self {
        let pki = Pki::new("Faults");
        let names = format!("subjectAltName=DNS:{GATE}\n");
        let subject = format!("/CN={GATE}");
        let (certificate, key) = pki.issue_for_tls("gate", &subject, "serverAuth", &names);
        for (name, path) in [("certificate", &certificate), ("key", &key)] {
            let copy = gate.dir().join(format!("tls-{name}.pem"));
            fs::copy(path, &copy).unwrap();
            gate.set(&["tls", name], copy.to_str().unwrap());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = vec![CertificateDer::from_pem_file(&certificate).unwrap()];
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&pki.root).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { server: Arc::new(server), client: Arc::new(client) }
    }
}

/// The relay between its lines; where its doors are.
fn configure(
    gate: &Gate,
    world: &Arc<World>,
    course: &Course,
    inside: SocketAddr,
    tls: &Tls,
) -> Doors {
    let inside = line::lay(world, Side::Downstream, inside);
    let scheme = if course.mail_server == Protocol::Lmtp { "lmtp" } else { "smtp" };
    let [lmtp, smtp, outer] = [(); 3].map(|()| loopback(free_port()));
    gate.set(&["hostname"], GATE);
    gate.set(&["inside", "lmtp"], lmtp.to_string());
    gate.set(&["inside", "smtp"], smtp.to_string());
    gate.set(&["outside", "smtp"], outer.to_string());
    gate.set(&["inside", "mail_server"], format!("{scheme}://{inside}"));
    for (limit, value) in [
        ("delivery_secs_max", 10),
        ("drain_secs_max", 3),
        ("lookup_secs_max", 3),
        ("connections_per_address_max", 500),
    ] {
        gate.set(&["limits", limit], value);
    }
    Doors { lmtp, smtp, outside: outer, tls: Arc::clone(&tls.client) }
}

/// The random part of one run of a long one.
const ROUND: Duration = Duration::from_secs(150);
/// The way out: a line to the sink outside, or one for each domain and a name server that knows them.
fn lead_out(gate: &Gate, world: &Arc<World>, course: &Course, outside: SocketAddr) {
    if !course.exchangers {
        let outside = line::lay(world, Side::Downstream, outside);
        return gate.set(&["outside", "next_hop"], format!("smtp://{outside}"));
    }
    let exchangers = Exchanger::for_each(&world::DOMAINS_OUTSIDE);
    let names = names::serve(world, &exchangers);
    for exchanger in exchangers {
        line::lay_from(exchanger.listener, world, Side::Downstream, outside);
    }
    gate.set(&["outside", "next_hop"], "mx");
    gate.set(&["dns", "resolvers"], vec![names.to_string()]);
}

/// How long a point may take to be reached.
const POINT_PATIENCE: Duration = Duration::from_secs(4);
/// How long everything that is open may take once nothing breaks any more.
const CALM_PATIENCE: Duration = Duration::from_secs(90);
