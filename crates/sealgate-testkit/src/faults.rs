//! Faults on every side of a relay, and the comparison of what every mail server was told with what every sink holds
//! (REQUIREMENTS O1, O2, O8, §5, §6).
//!
//! In: the program and a [`Course`]. Out: a [`Summary`]. Mail servers' queues and Internet clients (`upstream`) hand
//! in mail that is tried again until it is delivered or bounced; sinks (`downstream`) keep copies and misbehave;
//! lines between them and to the stores (`line`, `store_line`, `resolver`) break; the relay (`keeper`) kills, stops and
//! delays itself at its fail points and is started again. Every copy carries the number of the attempt that it came from
//! (ENVID, RFC 3461), so that each copy too many is laid to the fault that allows it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::clock::Clock;
use crate::exchanger;
use crate::gate::Gate;
use crate::pki::Pki;
use crate::process::{free_port, loopback};
use crate::sink::Protocol;

mod carriage;
mod chance;
mod channel;
mod downstream;
mod judge;
mod keeper;
mod ledger;
mod line;
mod names;
mod points;
mod resolver;
mod store_line;
mod stores;
mod summary;
mod trouble;
mod upstream;
mod world;

pub use points::points;
pub use stores::StoreKind;
pub use summary::Summary;

use downstream::Downstream;
use keeper::Keeper;
use ledger::Side;
use names::{Exchangers, Names};
use stores::Stores;
use trouble::{Lines, Trouble};
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
    /// For how long anything may happen, after each point killed the relay once, and stopped it once while lines broke.
    pub random_for: Duration,
    /// What the mail server inside speaks.
    pub mail_server: Protocol,
    /// Where keys are.
    pub stores: StoreKind,
    /// Whether each domain outside has mail exchangers of its own, found by DNS; else one server takes all.
    pub exchangers: bool,
    /// Whether the relay's wall clock jumps.
    pub clock_jumps: bool,
}

/// Runs it.
///
/// # Panics
/// Where the relay does something that nobody planned: it does not start, ends by itself or does not end.
pub fn run(course: &Course) -> Summary {
    let binary = course.binary.to_str().unwrap();
    let world = Arc::new(World::new(course.seed));
    let (mut stores, nec) = Stores::start(course.stores, binary, &["nec.example"], &world);
    let abc = Gate::init(binary, &world::DOMAINS_OUTSIDE);
    world.set_letters(world::make_keys(&nec, &abc, &mut stores));
    let tls = Tls::new(&nec);
    let inside = Downstream::inside(&world, &tls.server, course.mail_server).start();
    let doors = configure(&nec, &world, course, inside, &tls);
    let names = lead_out(&nec, &world, course, &tls);
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
        clock: course.clock_jumps.then(Clock::right),
        starts: 0,
        start_max: Duration::ZERO,
    };
    let upstream = Upstream::start(&world, lines);
    let points = points(&course.sources);
    let of_names: &[Lines] = if course.exchangers { &[Lines::Names] } else { &[] };
    let breaks = [&Lines::MAIL, stores.lines(), of_names].concat();
    let mut not_reached = kill_everywhere(&mut keeper, &points);
    not_reached.extend(stop_everywhere(course, &mut keeper, &points, &breaks));
    let at_points = world.ledger.faults();
    let trouble = stores.trouble(&world, names);
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
    summary.at_points = at_points;
    summary.starts = keeper.starts;
    summary.start_max = keeper.start_max;
    summary
}

/// Kills it at each point; where that failed.
fn kill_everywhere(keeper: &mut Keeper, points: &[String]) -> Vec<String> {
    let missed = |point: &&String| !keeper.kill_at(point, POINT_PATIENCE);
    let missed: Vec<&String> = points.iter().filter(missed).collect();
    let again = |point: &&&String| !keeper.kill_at(point, POINT_PATIENCE * 10);
    missed.iter().filter(again).map(|point| (**point).clone()).collect()
}

/// Stops it at each point, and breaks lines there; where it never came, and which lines never broke.
fn stop_everywhere(
    course: &Course,
    keeper: &mut Keeper,
    points: &[String],
    lines: &[Lines],
) -> Vec<String> {
    // Neighbours are of different lines.
    let of_all = |trouble| lines.iter().map(move |line| (*line, trouble));
    let orders: Vec<(Lines, Trouble)> = Trouble::ALL.into_iter().flat_map(of_all).collect();
    // From another one by each seed of a kind of rounds, so that in time each point has had each trouble of all lines.
    let turn = usize::try_from(course.seed / 4).unwrap() % orders.len();
    let mut not_reached = Vec::new();
    for (point, order) in points.iter().zip(orders.iter().cycle().skip(turn)) {
        let stopped = keeper.stop_at(point, *order, POINT_PATIENCE)
            || keeper.stop_at(point, *order, POINT_PATIENCE * 10);
        not_reached.extend((!stopped).then(|| format!("{point}, to stop there")));
    }
    // At some points, the start among them, there is no line that carries anything.
    let obeyed = keeper.world.orders.obeyed();
    println!("lines broke at points: {obeyed:?}");
    let never = lines.iter().filter(|lines| !obeyed.contains_key(lines));
    not_reached.extend(never.map(|lines| format!("any point, with a line of {lines} to break")));
    not_reached
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
        let seed = first.seed.wrapping_add(round);
        // By the seed and not by the round, so that a seed repeats a round wherever it was.
        let kind = seed % 4;
        let course = Course {
            seed,
            random_for: left.min(ROUND),
            mail_server: if kind % 2 == 0 { Protocol::Lmtp } else { Protocol::Smtp },
            stores: match kind {
                0 | 1 => StoreKind::Embedded,
                2 => StoreKind::Servers,
                _ => StoreKind::NearServers,
            },
            exchangers: matches!(kind, 1 | 2),
            clock_jumps: kind % 2 == 0,
            ..first.clone()
        };
        let summary = run(&course);
        let Course { mail_server, stores, exchangers, clock_jumps, .. } = course;
        println!(
            "--- round {round}: seed {seed}, {mail_server:?} inside, {stores:?} stores, exchangers {exchangers}, \
             clock jumps {clock_jumps}\n{summary}"
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
    /// The servers', in a file.
    certificate: PathBuf,
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
        let server = exchanger::tls(&certificate, &key);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&pki.root).unwrap()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let certificate = gate.dir().join("tls-certificate.pem");
        Self { server, client: Arc::new(client), certificate }
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
        ("delivery_secs_max", DELIVERY_SECS),
        ("answer_secs_max", 2 * DELIVERY_SECS),
        ("idle_secs_max", DELIVERY_SECS),
        ("drain_secs_max", 3),
        ("lookup_secs_max", 3),
        ("connections_per_address_max", 500),
    ] {
        gate.set(&["limits", limit], i64::try_from(value).unwrap());
    }
    Doors { lmtp, smtp, outside: outer, tls: Arc::clone(&tls.client) }
}

/// The random part of one run of a long one.
const ROUND: Duration = Duration::from_secs(150);
/// The way out: a line to the sink outside, or lines to those of each domain and a name server that knows them.
fn lead_out(gate: &Gate, world: &Arc<World>, course: &Course, tls: &Tls) -> Option<Names> {
    let sink = || Downstream::outside(world, &tls.server);
    if !course.exchangers {
        let outside = line::lay(world, Side::Downstream, sink().start());
        gate.set(&["outside", "next_hop"], format!("smtp://{outside}"));
        return None;
    }
    let exchangers = Exchangers::for_each_domain();
    let names = Names::start(&exchangers, &tls.certificate);
    for Exchangers { domain, listeners, dane } in exchangers {
        let address = sink().of(domain, dane).start();
        for listener in listeners {
            line::lay_from(listener, world, Side::Downstream, address);
        }
    }
    gate.set(&["outside", "next_hop"], "mx");
    gate.set(&["dns", "resolvers"], vec![resolver::lay(world, names.address()).to_string()]);
    gate.set(&["dns", "trust_anchor"], names.trust_anchor().to_str().unwrap());
    Some(names)
}

/// Up to the relay's dot: shorter than a long stop, so that those trip it.
const DELIVERY_SECS: u64 = 5;
/// How long a point may take to be reached.
const POINT_PATIENCE: Duration = Duration::from_secs(4);
/// How long everything that is open may take once nothing breaks any more.
const CALM_PATIENCE: Duration = Duration::from_secs(90);
