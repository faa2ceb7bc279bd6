//! What a machine does wrong, each thing alone: a full disk, a file system that becomes read-only, no descriptors left, a
//! wall clock that jumps, a process stopped for longer than its limits, a DNS that is away. Mail waits or flows, none is
//! lost, and everything goes on by itself (docs/RELIABILITY.md; `faults.rs` does the same at random).
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sealgate_testkit::clock::{Clock, NOTICED_SECS};
use sealgate_testkit::disk::SmallDisk;
use sealgate_testkit::dns_line::{self, Trouble};
use sealgate_testkit::exchanger::{Exchanger, Offer};
use sealgate_testkit::gate::{Gate, set};
use sealgate_testkit::nsd::{Nsd, Zone};
use sealgate_testkit::process;
use sealgate_testkit::session::{Reply, Session, send_smtp};
use sealgate_testkit::sink::{Protocol, Sink, Stage};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sealgate");
const ALICE: &str = "alice@nec.example";
const BOB: &str = "bob@abc.example";

/// Passes mail on to the sink as it is.
fn before(gate: &Gate, sink: &Sink) {
    gate.set(&["outside", "next_hop"], format!("smtp://{}", sink.address));
    gate.set(&["policy", "sign"], "never");
    gate.set(&["policy", "encrypt"], "never");
}

fn mail(number: usize) -> Vec<u8> {
    format!("From: {ALICE}\r\nTo: {BOB}\r\nMessage-ID: <n{number}@nec.example>\r\n\r\nnumber {number};\r\n")
        .into_bytes()
}

fn send(gate: &Gate, number: usize) -> Reply {
    send_smtp(gate.ready().inside_smtp.unwrap(), ALICE, &[BOB], &mail(number))
}

/// How often the sink has this one.
fn copies(sink: &Sink, number: usize) -> usize {
    let words = format!("number {number};");
    let has = |content: &[u8]| sealgate_testkit::mail::contains(content, &words);
    sink.received().iter().filter(|one| has(&one.content)).count()
}

/// A counter of `/metrics`.
fn counted(gate: &Gate, name: &str) -> u64 {
    let mut stream = TcpStream::connect(gate.ready().observe.unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |number| number.parse().unwrap())
}

const WRITTEN: &str = "sealgate_done_records_total";

/// A relay that writes every recipient down before it says 250, on a disk of its own.
fn on(disk: &SmallDisk, sink: &Sink) -> Gate {
    let url = format!("sqlite:{}", disk.path().join("sealgate.db").display());
    let mut gate = Gate::init_with(PROGRAM, &["nec.example"], &["--database", &url]);
    before(&gate, sink);
    gate.set(&["delivery", "done_record"], "always");
    // The log is on the same disk.
    symlink(disk.path().join("relay.log"), gate.dir().join("relay.log")).unwrap();
    gate.start();
    gate
}

/// So many at once: the database's connections are not enough, and it opens new ones.
fn send_at_once(gate: &Gate, numbers: std::ops::Range<usize>) -> Vec<Reply> {
    let send = |number| move || send(gate, number);
    thread::scope(|scope| {
        let threads: Vec<_> = numbers.map(|number| scope.spawn(send(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Every mail passes, in whatever state the disk is, and is written down again once it is as it was.
fn survives(disk: &mut SmallDisk, strike: fn(&mut SmallDisk), mend: fn(&mut SmallDisk)) {
    let sink = Sink::smtp();
    let gate = on(disk, &sink);
    assert_eq!(send(&gate, 0).code, 250);
    assert_eq!(counted(&gate, WRITTEN), 1);
    strike(disk);
    for reply in send_at_once(&gate, 1..9) {
        assert_eq!(reply.code, 250, "{reply:?}\n{}", gate.log());
    }
    mend(disk);
    let mut next = 9..;
    process::await_that("what is delivered is written down again", || {
        let before = counted(&gate, WRITTEN);
        let round = next.by_ref().take(8);
        let round: Vec<usize> = round.collect();
        let replies = send_at_once(&gate, round[0]..round[7] + 1);
        assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
        counted(&gate, WRITTEN) - before == 8
    });
    for number in 0..next.start {
        assert_eq!(copies(&sink, number), 1, "{number}");
    }
    assert!(!gate.log().contains("panic"), "{}", gate.log());
}

#[test]
fn a_full_disk_under_database_and_log_stops_no_mail() {
    let fill = |disk: &mut SmallDisk| {
        disk.fill();
        // The rest of the last page: the next line of the log finds no room.
        let mut log = File::options().append(true).open(disk.path().join("relay.log")).unwrap();
        while log.write_all(b" ").is_ok() {}
    };
    survives(&mut SmallDisk::mount(16 << 20), fill, |disk| disk.free());
}

#[test]
fn a_database_on_a_disk_that_becomes_read_only_stops_no_mail() {
    let mut disk = SmallDisk::mount(16 << 20);
    survives(&mut disk, |disk| disk.set_read_only(true), |disk| disk.set_read_only(false));
}

#[test]
fn a_relay_without_descriptors_defers_and_goes_on() {
    let sink = Sink::smtp();
    let mut gate = Gate::init(PROGRAM, &["nec.example"]);
    before(&gate, &sink);
    let ready = gate.start();
    let entrance = ready.inside_smtp.unwrap();
    let (mut session, _) = Session::connect(entrance);
    session.command("EHLO client.example");
    let mut attempt = |number| {
        for line in [format!("MAIL FROM:<{ALICE}>"), format!("RCPT TO:<{BOB}>"), "DATA".to_owned()]
        {
            let reply = session.command(&line);
            assert!(reply.code < 400, "{line}: {reply:?}");
        }
        session.content(&mail(number));
        session.reply()
    };
    process::limit_descriptors(gate.id(), 0);
    // Who is in already hears what is wrong; who comes now waits.
    let reply = attempt(1);
    assert_eq!((reply.code / 100, copies(&sink, 1)), (4, 0), "{reply:?}");
    let mut late = Session::connect_silently(entrance);
    process::await_that("nobody can come in", || gate.log().contains("cannot accept"));
    process::limit_descriptors(gate.id(), 1024);
    assert_eq!(late.reply().code, 220);
    let again = process::holds_within(process::PATIENCE, || attempt(1).code == 250);
    assert!(again, "{}", gate.log());
    assert_eq!(copies(&sink, 1), 1);
    assert_eq!(send(&gate, 2).code, 250);
}

/// Waits until this much time is over: what is tested is time.
fn elapse(secs: u64) {
    let began = Instant::now();
    process::await_that("time passes", || began.elapsed() >= Duration::from_secs(secs));
}

#[test]
fn a_clock_that_jumps_breaks_no_time_limit_and_loses_no_mail() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| match stage {
        Stage::Dot(to) if to.contains("silent@") => {
            count.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_secs(2 * ANSWER_SECS));
            Some(String::new())
        }
        _ => None,
    });
    let abc = Gate::init(PROGRAM, &["abc.example"]);
    let mut gate = Gate::init(PROGRAM, &["nec.example"]);
    abc.generate_key(BOB, "p256");
    gate.generate_key(ALICE, "p256");
    gate.trust(&abc, &[BOB]);
    before(&gate, &sink);
    let mut rule = toml::Table::new();
    set(&mut rule, &["to"], vec![BOB]);
    set(&mut rule, &["sign"], "always");
    set(&mut rule, &["encrypt"], "require");
    gate.set(&["rule"], vec![toml::Value::Table(rule)]);
    gate.set(&["limits", "answer_secs_max"], i64::try_from(ANSWER_SECS).unwrap());
    let clock = Clock::right();
    gate.set_environment(clock.environment());
    let entrance = gate.start().inside_smtp.unwrap();
    let (mut idle, _) = Session::connect(entrance);
    for (number, secs) in JUMPS_SECS.into_iter().enumerate() {
        // In the midst of a wait for an answer, which lasts as long as it may.
        let silent = thread::spawn(move || {
            let began = Instant::now();
            let reply = send_smtp(entrance, ALICE, &["silent@abc.example"], &mail(100 + number));
            (reply, began.elapsed())
        });
        process::await_that("the silent one is asked", || asked.load(Ordering::SeqCst) > number);
        let before_this = sink.received().len();
        clock.jump(secs);
        elapse(NOTICED_SECS);
        let (reply, took) = silent.join().unwrap();
        assert_eq!(reply.code, 451, "{secs}: {reply:?}");
        let limits = Duration::from_secs(ANSWER_SECS)..Duration::from_secs(2 * ANSWER_SECS);
        assert!(limits.contains(&took), "{secs}: {took:?}");
        // Certificates that are good now are good on a clock that went back, too: the time before the jump counts.
        let reply = send(&gate, number);
        let sealed = sink.received().len();
        assert_eq!(reply.status(), "250 2.0.0", "{secs}: {reply:?}");
        assert_eq!((sealed - before_this, copies(&sink, number)), (1, 0), "{secs}");
        assert_eq!(idle.command("NOOP").code, 250, "{secs}");
        let alarms = gate.log().matches("the wall clock has jumped").count();
        assert_eq!(alarms, number + 1, "one for each jump:\n{}", gate.log());
    }
    // A clock that is right again, and one that the administrator calls right.
    clock.jump(0);
    elapse(NOTICED_SECS);
    assert_eq!(send(&gate, 10).status(), "250 2.0.0");
    clock.jump(-172_800);
    elapse(NOTICED_SECS);
    gate.signal("HUP");
    process::await_that("it is reloaded", || gate.log().contains("configuration reloaded"));
    assert_eq!(send(&gate, 11).status(), "550 5.7.3");
}

/// Else a second attempt would make a duplicate.
#[test]
fn a_clock_that_jumps_ahead_has_no_done_record_forgotten() {
    let sink = Sink::smtp();
    let mut gate = Gate::init(PROGRAM, &["nec.example"]);
    before(&gate, &sink);
    gate.set(&["delivery", "done_record"], "always");
    let clock = Clock::right();
    gate.set_environment(clock.environment());
    let started = Instant::now();
    gate.start();
    assert_eq!((send(&gate, 1).code, copies(&sink, 1)), (250, 1));
    // Before the first sweep, five seconds after the start.
    clock.jump(10 * 86_400);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(4), "too slow to prove anything: {took:?}");
    elapse(5 + 2 * NOTICED_SECS);
    assert!(!gate.log().contains("old done-records deleted"), "{}", gate.log());
    clock.jump(0);
    elapse(NOTICED_SECS);
    assert_eq!((send(&gate, 1).code, copies(&sink, 1)), (250, 1), "served once");
}

const ANSWER_SECS: u64 = 2;
const JUMPS_SECS: [i64; 4] = [3600, 172_800, -172_800, -3000];

#[test]
fn a_relay_stopped_for_longer_than_its_limit_delivers_nothing_late() {
    let sink = Sink::smtp();
    let mut gate = Gate::init(PROGRAM, &["nec.example"]);
    before(&gate, &sink);
    gate.set(&["limits", "delivery_secs_max"], 1);
    // The signal to itself may come a moment late: not later than the delay.
    let plan = OsString::from("fanout.content=stop@1,fanout.content=delay:100@1");
    gate.set_environment(vec![("SEALGATE_FAILPOINTS".to_owned(), plan)]);
    let entrance = gate.start().inside_smtp.unwrap();
    let sender = thread::spawn(move || send_smtp(entrance, ALICE, &[BOB], &mail(1)));
    process::await_that("the relay stops", || gate.log().contains("failpoint fanout.content"));
    elapse(2);
    gate.signal("CONT");
    let reply = sender.join().unwrap();
    assert_eq!((reply.code, copies(&sink, 1)), (451, 0), "{reply:?}");
    assert_eq!((send(&gate, 1).code, copies(&sink, 1)), (250, 1));
}

#[test]
fn mail_waits_while_dns_is_away() {
    let exchanger = Exchanger::start(&Offer::default());
    let records = format!("@ MX 10 mx\nmx A {}\n", exchanger.address);
    let domains = ["one.example", "two.example", "three.example"];
    let zones = domains.map(|name| Zone::signed(name, &records));
    let mut dns = Nsd::start_with_ttl(&zones, 1);
    let mut gate = through_exchangers(dns.address, &dns, 3);
    gate.start();
    let send = |to: &[&str]| send_smtp(gate.ready().inside_smtp.unwrap(), ALICE, to, &mail(1));
    let flows =
        || process::holds_within(process::PATIENCE, || send(&["b@one.example"]).code == 250);
    assert!(flows(), "{}", gate.log());
    let taken = || exchanger.taken().len();
    let before = taken();
    for is_killed in [true, false] {
        if is_killed {
            dns.kill();
        } else {
            dns.signal("STOP");
        }
        let began = Instant::now();
        let reply = send(&["b@two.example", "b@three.example"]);
        assert_eq!(reply.code, 451, "{reply:?}");
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        if is_killed {
            dns.start_again();
        } else {
            dns.signal("CONT");
        }
    }
    assert_eq!(taken(), before);
    let reply = || send(&["b@two.example", "b@three.example"]);
    process::await_that("mail flows again", || reply().code == 250);
    // One mail, two next hops.
    assert_eq!(taken(), before + 2, "{:?}", exchanger.taken());
}

/// What is done to every DNS answer.
static SPOILED: Mutex<Option<Trouble>> = Mutex::new(None);

fn spoil(trouble: Option<Trouble>) {
    *SPOILED.lock().unwrap() = trouble;
}

#[test]
fn whatever_is_done_to_dns_answers_no_mail_is_bounced_or_sent_elsewhere() {
    let [exchanger, other] = [(); 2].map(|()| Exchanger::start(&Offer::default()));
    let troubles = [
        Trouble::Denied,
        Trouble::DeniedByAnother,
        Trouble::Emptied,
        Trouble::EmptiedByAnother,
        Trouble::Failing,
        Trouble::Short,
        Trouble::Truncated,
        // The response code; then somewhere in records, signatures and denials.
        Trouble::Garbled(8 * 3),
        Trouble::Garbled(8 * 3 + 1),
        Trouble::Garbled(8 * 7),
        Trouble::Garbled(8 * 60 + 4),
        Trouble::Garbled(8 * 150),
    ];
    // Whoever believes that there are no MX records sends to the other one.
    let own = |name: &str| format!("{name} MX 10 mx\n{name} A {}\n", other.address);
    let mut records = format!("mx A {}\n{}", exchanger.address, own("@"));
    records.extend((0..troubles.len()).map(|number| own(&format!("d{number}"))));
    let zones = [
        Zone::signed("one.example", &records),
        Zone::hashed("two.example", &records),
        Zone::unsigned(dns_line::UNSIGNED_ZONE, ""),
    ];
    let dns = Nsd::start_with_ttl(&zones, u32::try_from(TTL.as_secs()).unwrap());
    let line = dns_line::lay(dns.address, |_| *SPOILED.lock().unwrap());
    let mut gate = through_exchangers(line, &dns, 1);
    gate.start();
    let send = |gate: &Gate, to: &[&str]| {
        send_smtp(gate.ready().inside_smtp.unwrap(), ALICE, to, &mail(1))
    };
    for (number, trouble) in troubles.into_iter().enumerate() {
        let fresh = ["one", "two"].map(|zone| format!("b@d{number}.{zone}.example"));
        for to in [&["b@one.example", "b@two.example"], &[&*fresh[0], &*fresh[1]]] {
            spoil(Some(trouble));
            // Nothing is known in the first round; in the second one all but these names.
            let reply = send(&gate, to);
            assert!([250, 451].contains(&reply.code), "{trouble:?}: {reply:?}\n{}", gate.log());
            let is_passed = reply.code == 250;
            let may_pass = matches!(trouble, Trouble::Garbled(_));
            assert!(!is_passed || may_pass, "{trouble:?}: {reply:?}");
            spoil(None);
            // At the latest when what was garbled is forgotten.
            let flows = process::holds_within(process::PATIENCE, || send(&gate, to).code == 250);
            assert!(flows, "{trouble:?}, {to:?}: {:?}", send(&gate, to));
        }
        assert!(gate.stop().success());
        gate.start();
    }
    assert_eq!(other.taken(), []);
    assert!(exchanger.taken().len() >= 4 * troubles.len());
}

/// Of every record.
const TTL: Duration = Duration::from_secs(20);

/// A relay that asks this name server about its next hops and has so many seconds for each mail.
fn through_exchangers(resolver: SocketAddr, dns: &Nsd, delivery_secs: i64) -> Gate {
    let gate = Gate::init(PROGRAM, &["nec.example"]);
    gate.set(&["policy", "sign"], "never");
    gate.set(&["policy", "encrypt"], "never");
    gate.set(&["dns", "resolvers"], vec![resolver.to_string()]);
    gate.set(&["dns", "trust_anchor"], dns.trust_anchor().to_str().unwrap());
    gate.set(&["outside", "next_hop"], "mx");
    gate.set(&["limits", "delivery_secs_max"], delivery_secs);
    gate
}
