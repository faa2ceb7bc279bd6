//! Keeps the relay under test running: starts it with a plan of failures, resumes it when it stopped itself, notes what
//! it did to itself, and starts it anew on the same data when it is dead.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::downstream::CANARY;
use super::ledger::{Hit, Side};
use super::trouble::{Lines, Trouble};
use super::upstream::Doors;
use super::world::World;
use crate::clock::Clock;
use crate::gate::Gate;
use crate::process::{self, Running};

/// The relay and its lives.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) gate: Gate,
    pub(super) binary: PathBuf,
    pub(super) world: Arc<World>,
    /// The relay's own, without lines before them.
    pub(super) doors: Doors,
    /// What the relay goes by, where it jumps.
    pub(super) clock: Option<Clock>,
    pub(super) starts: usize,
    pub(super) start_max: Duration,
}

/// From one start to one end.
#[derive(Debug)]
struct Life {
    running: Running,
    log: PathBuf,
    /// Octets of the log that were read already.
    read: usize,
    resume_at: Option<Instant>,
    /// For how long it stops at its points; else as chance has it.
    stop_time: Option<Duration>,
    /// When it gets its descriptors back.
    descriptors_at: Option<Instant>,
    /// When its clock is right again.
    clock_right_at: Option<Instant>,
    began: Instant,
    /// It was listening once.
    has_started: bool,
    /// The database was away meanwhile: a relay that starts then ends by itself.
    without_database: bool,
    /// Points at which something happened.
    reached: Vec<String>,
}

impl Keeper {
    /// A life that is to end at this point; whether it did.
    pub(super) fn kill_at(&mut self, point: &str, patience: Duration) -> bool {
        let mut life = self.launch_for(point, "kill");
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(status) = self.poll(&mut life) {
                let killed = status.signal() == Some(9);
                self.bury(&mut life, status);
                return killed && life.reached.iter().any(|reached| reached == point);
            }
            sleep(POLL);
        }
        self.kill(life);
        false
    }

    /// A life that stops at this point, and finds all these lines in this trouble from then on; whether it came there.
    pub(super) fn stop_at(
        &mut self,
        point: &str,
        order: (Lines, Trouble),
        patience: Duration,
    ) -> bool {
        let came = self.stop_and_order(point, order, patience);
        // The next life is to find none of it.
        self.world.orders.withdraw();
        came
    }

    fn stop_and_order(
        &mut self,
        point: &str,
        (lines, trouble): (Lines, Trouble),
        patience: Duration,
    ) -> bool {
        let mut life = self.launch_for(point, "stop");
        let mut end = Instant::now() + patience;
        let mut has_stopped = false;
        while Instant::now() < end || life.resume_at.is_some() {
            if let Some(status) = self.poll(&mut life) {
                // Within a drain it ends as it should.
                self.bury(&mut life, status);
                return life.reached.iter().any(|reached| reached == point);
            }
            if !has_stopped && life.reached.iter().any(|reached| reached == point) {
                has_stopped = true;
                let resume_at = Instant::now() + STOP_AT_POINT;
                life.resume_at = Some(resume_at);
                end = resume_at + AFTER_STOP;
                self.world.orders.give(lines, trouble, end);
            }
            sleep(POLL);
        }
        self.kill(life);
        has_stopped
    }

    /// A life in which this happens at a point's first passage.
    fn launch_for(&mut self, point: &str, action: &str) -> Life {
        let mut life = self.launch(&format!("{point}={action}@1"));
        life.stop_time = Some(STOP_AT_POINT);
        if point.starts_with("drain.") {
            sleep(Duration::from_millis(100));
            life.running.signal("TERM");
        }
        life
    }

    /// A life with a few failures of any kind at any points, and an end of any kind.
    pub(super) fn live_randomly(&mut self, points: &[String], until: Instant) {
        let world = Arc::clone(&self.world);
        let plan = random_plan(&world, points);
        let mut life = self.launch(&plan);
        let natural_end = Instant::now() + Duration::from_millis(800 + world.chance.below(4000));
        // Whoever is stopped for long is not killed before he goes on.
        while Instant::now() < natural_end.min(until) || life.resume_at.is_some() {
            if let Some(status) = self.poll(&mut life) {
                return self.bury(&mut life, status);
            }
            self.strike(&mut life);
            sleep(POLL);
        }
        if world.chance.one_in(2) {
            return self.kill(life);
        }
        world.ledger.struck(Side::Relay, "terminated", Hit::Anybody);
        life.running.signal("TERM");
        let end = Instant::now() + DRAIN_PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.poll(&mut life) {
                return self.bury(&mut life, status);
            }
            sleep(POLL);
        }
        panic!("the relay does not end on SIGTERM:\n{}", tail(&life.log));
    }

    /// What may befall a relay from outside at any moment.
    fn strike(&self, life: &mut Life) {
        let chance = &self.world.chance;
        let note = |kind: &str| self.world.ledger.struck(Side::Relay, kind, Hit::Anybody);
        if life.resume_at.is_some() {
            return;
        }
        if chance.one_in(300) {
            let time = stop_time(&self.world);
            note(&format!("stopped from outside{}", how_long(time)));
            life.running.signal("STOP");
            life.resume_at = Some(Instant::now() + time);
        } else if chance.one_in(500) {
            note("reloaded");
            life.running.signal("HUP");
        } else if life.began.elapsed() > STARTED
            && life.descriptors_at.is_none()
            && chance.one_in(300)
        {
            note("no descriptors left");
            let id = life.running.id();
            process::limit_descriptors(id, process::descriptors(id).min(chance.below(60)));
            let time = Duration::from_millis(100 + chance.below(900));
            life.descriptors_at = Some(Instant::now() + time);
        } else if let Some(clock) = &self.clock
            && chance.one_in(200)
            && life.clock_right_at.is_none()
        {
            let secs = chance.pick(&JUMPS_SECS);
            note(&format!("clock {:+} minutes off", secs / 60));
            clock.jump(secs);
            let time = Duration::from_millis(1000 + chance.below(2000));
            life.clock_right_at = Some(Instant::now() + time);
        }
    }

    /// A life without failures, until the condition holds; whether it came to hold.
    pub(super) fn live_calmly(&mut self, patience: Duration, done: impl Fn() -> bool) -> bool {
        let mut life = self.launch("");
        let end = Instant::now() + patience;
        while !done() && Instant::now() < end {
            if let Some(status) = self.poll(&mut life) {
                // Only where the last trouble of the database was not over yet.
                self.bury(&mut life, status);
                life = self.launch("");
            }
            sleep(POLL);
        }
        self.kill(life);
        done()
    }

    fn launch(&mut self, plan: &str) -> Life {
        self.starts += 1;
        self.set_clock_right();
        let log = self.gate.dir().join(format!("relay-{}.log", self.starts));
        let began = Instant::now();
        let mut command = Command::new(&self.binary);
        command.arg("relay").arg("--config").arg(self.gate.configuration());
        command.current_dir(self.gate.dir()).env("SEALGATE_FAILPOINTS", plan);
        command.envs(self.clock.iter().flat_map(Clock::environment));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(&log).unwrap());
        let running = Running::start("sealgate relay", &mut command);
        let mut life = Life {
            running,
            log,
            read: 0,
            resume_at: None,
            stop_time: None,
            descriptors_at: None,
            clock_right_at: None,
            began,
            has_started: false,
            without_database: self.world.database_is_away.load(Ordering::SeqCst),
            reached: Vec::new(),
        };
        // The door that is opened last.
        while TcpStream::connect(self.doors.outside).is_err() {
            // Killed before anybody saw it listening: the caller notices.
            if life.running.ended().is_some() {
                return life;
            }
            assert!(
                began.elapsed() < START_PATIENCE,
                "the relay does not start:\n{}",
                tail(&life.log)
            );
            self.poll(&mut life);
            sleep(Duration::from_millis(2));
        }
        self.start_max = self.start_max.max(began.elapsed());
        life.has_started = true;
        life
    }

    /// Notes what happened and resumes what stopped; the status where it has ended.
    fn poll(&self, life: &mut Life) -> Option<ExitStatus> {
        self.read_log(life);
        life.without_database |= self.world.database_is_away.load(Ordering::SeqCst);
        if life.resume_at.is_some_and(|at| at <= Instant::now()) {
            life.resume_at = None;
            life.running.signal("CONT");
        }
        if life.descriptors_at.is_some_and(|at| at <= Instant::now()) {
            life.descriptors_at = None;
            process::limit_descriptors(life.running.id(), DESCRIPTORS);
        }
        if life.clock_right_at.is_some_and(|at| at <= Instant::now()) {
            life.clock_right_at = None;
            self.set_clock_right();
        }
        life.running.ended()
    }

    fn set_clock_right(&self) {
        if let Some(clock) = &self.clock {
            clock.jump(0);
        }
    }

    fn read_log(&self, life: &mut Life) {
        let text = fs::read(&life.log).unwrap_or_default();
        let Some(end) = text.iter().rposition(|octet| *octet == b'\n') else { return };
        let new = text.get(life.read..=end).unwrap_or_default();
        for line in String::from_utf8_lossy(new).lines() {
            if line.contains(FORGOT) {
                self.world.ledger.forgot();
            }
            let Some(event) = line.strip_prefix("failpoint ") else { continue };
            let (point, action) = event.split_once(' ').unwrap_or((event, ""));
            let action = action.split('(').next().unwrap_or_default();
            life.reached.push(point.to_owned());
            let mut kind = format!("point {action}");
            if action == "Stop" {
                let time = life.stop_time.unwrap_or_else(|| stop_time(&self.world));
                kind.push_str(how_long(time));
                life.resume_at = Some(Instant::now() + time);
            }
            self.world.ledger.struck(Side::Relay, &kind, Hit::Anybody);
        }
        life.read = end + 1;
    }

    fn kill(&self, mut life: Life) {
        self.world.ledger.struck(Side::Relay, "killed from outside", Hit::Anybody);
        life.running.signal("KILL");
        loop {
            if let Some(status) = life.running.ended() {
                return self.bury(&mut life, status);
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// What is left of a life must hold no plain text, and must be an end that somebody wanted.
    fn bury(&self, life: &mut Life, status: ExitStatus) {
        self.read_log(life);
        let log = fs::read_to_string(&life.log).unwrap_or_default();
        if log.contains(CANARY) {
            self.world.ledger.leaked("the relay's log");
        }
        let could_not_start = life.without_database && !life.has_started;
        let wanted = status.signal() == Some(9) || status.success() || could_not_start;
        assert!(wanted, "the relay ended by itself, {status}:\n{}", tail(&life.log));
        if let (Some(folder), Some(name)) = (std::env::var_os(LOGS), life.log.file_name()) {
            fs::create_dir_all(&folder).unwrap();
            fs::copy(&life.log, PathBuf::from(folder).join(name)).unwrap();
        }
        let _ = fs::remove_file(&life.log);
    }
}

/// Stops, delays and panics, and in every second life a kill.
fn random_plan(world: &World, points: &[String]) -> String {
    let chance = &world.chance;
    let mut plan = Vec::new();
    for _ in 0..1 + chance.below(5) {
        let point = chance.pick(points);
        let passage = 1 + chance.below(15);
        // A panic is contained where a message is; those who only accept or drain hold none.
        let may_panic = !point.starts_with("listener.") && !point.starts_with("drain.");
        let action = match chance.below(3) {
            0 if may_panic => "panic".to_owned(),
            1 => "stop".to_owned(),
            _ => format!("delay:{}", 20 + chance.below(1500)),
        };
        plan.push(format!("{point}={action}@{passage}"));
    }
    if chance.one_in(2) {
        plan.push(format!("{}=kill@{}", chance.pick(points), 1 + chance.below(20)));
    }
    plan.join(",")
}

/// Short mostly, and now and then longer than any limit of the relay.
fn stop_time(world: &World) -> Duration {
    match world.chance.below(10) {
        0 => Duration::from_millis(LIMITS_MS + world.chance.below(2000)),
        _ => Duration::from_millis(50 + world.chance.below(700)),
    }
}

fn how_long(stop: Duration) -> &'static str {
    if stop > STOP_SHORT { ", for longer than its limits" } else { "" }
}

fn tail(log: &std::path::Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Names a folder in which the logs of all lives are kept; those of one round are written over by those of the next.
const LOGS: &str = "SEALGATE_TORTURE_LOGS";
/// What the relay says where it could not use its done-record (`alarm` in crates/sealgate/src/relay/done.rs).
const FORGOT: &str = "the done-record is away";
/// Longer than [`super::DELIVERY_SECS`], in which everything up to the dot must be done.
const LIMITS_MS: u64 = 1000 * super::DELIVERY_SECS + 500;
/// A relay that finds no descriptors while it starts ends and says so; for this long it may be starting.
const STARTED: Duration = Duration::from_secs(1);
/// For how long it stops where every point is come to.
const STOP_AT_POINT: Duration = Duration::from_millis(100);
/// How long it goes on after that: what is held up comes, and is judged, before its end.
const AFTER_STOP: Duration = Duration::from_millis(1200);
/// What is no long stop.
const STOP_SHORT: Duration = Duration::from_secs(1);
/// What the relay has usually.
const DESCRIPTORS: u64 = 1024;
/// How wrong a clock is for a while. Where it is behind, certificates and the signatures of DNS are not valid yet: mail waits,
/// and after two days' jump back it is refused, so quickly that this one comes seldom.
const JUMPS_SECS: [i64; 7] = [3600, 3600, 172_800, 172_800, -1800, -3600, -172_800];
/// How often the relay is looked after.
const POLL: Duration = Duration::from_millis(10);
/// A relay that was started.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// A relay that was told to end: its own limit and some.
const DRAIN_PATIENCE: Duration = Duration::from_secs(15);
