//! Named points of a transaction at which a test lets this process fail; a release build holds none of it
//! (REQUIREMENTS M8, O8).
//!
//! `failpoint!("session.rcpt")` stands where something could happen, `failpoint!(blocking "pool.take")` where nothing
//! can be awaited. What is to happen is said once, in the environment of the process:
//! `SEALGATE_FAILPOINTS="deliver.dot=kill@3,session.data=stop"`. Actions are `kill` and `stop` (SIGKILL and SIGSTOP
//! to itself), `delay:MILLISECONDS` and `panic`; `@N` acts at the Nth passage only, without it every passage counts.
//! Each action is told on standard error before it happens.

/// A point at which this process may fail; nothing at all in a release build.
macro_rules! failpoint {
    (blocking $name:literal) => {
        #[cfg(debug_assertions)]
        $crate::failpoint::reach_blocking($name);
    };
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::failpoint::reach($name).await;
    };
}

#[cfg(debug_assertions)]
mod armed {
    use std::io::Write as _;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    /// Passes a point where something can be awaited.
    pub(crate) async fn reach(name: &str) {
        if let Some(pause) = pass(name) {
            tokio::time::sleep(pause).await;
        }
    }

    /// Passes a point where nothing can be awaited: a delay holds up the thread.
    pub(crate) fn reach_blocking(name: &str) {
        if let Some(pause) = pass(name) {
            std::thread::sleep(pause);
        }
    }

    /// What happens at a point.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Action {
        Delay(Duration),
        Kill,
        Panic,
        Stop,
    }

    /// One point with its action.
    #[derive(Debug)]
    pub(super) struct Plan {
        pub(super) name: String,
        pub(super) action: Action,
        /// The passage at which it acts; every one without.
        pub(super) at: Option<u64>,
        passed: AtomicU64,
    }

    impl Plan {
        /// `NAME=ACTION` or `NAME=ACTION@N`.
        pub(super) fn parse(text: &str) -> Option<Self> {
            let (name, what) = text.trim().split_once('=')?;
            let (action, at) = match what.split_once('@') {
                Some((action, at)) => (action, Some(at.parse().ok()?)),
                None => (what, None),
            };
            let action = match action.split_once(':') {
                Some(("delay", ms)) => Action::Delay(Duration::from_millis(ms.parse().ok()?)),
                None if action == "kill" => Action::Kill,
                None if action == "panic" => Action::Panic,
                None if action == "stop" => Action::Stop,
                _ => return None,
            };
            Some(Self { name: name.to_owned(), action, at, passed: AtomicU64::new(0) })
        }

        /// Whether it acts at this passage.
        pub(super) fn is_due(&self) -> bool {
            let passage = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
            self.at.is_none_or(|at| at == passage)
        }
    }

    static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        let words = text.split(',').filter(|word| !word.is_empty());
        words
            .filter_map(|word| {
                let plan = Plan::parse(word);
                if plan.is_none() {
                    tell(&format!("{VARIABLE}: `{word}` is not NAME=ACTION or NAME=ACTION@N"));
                }
                plan
            })
            .collect()
    });

    /// Does what is planned; a pause is the caller's to make.
    fn pass(name: &str) -> Option<Duration> {
        let mut pause = None;
        for plan in PLANS.iter().filter(|plan| plan.name == name) {
            if !plan.is_due() {
                continue;
            }
            tell(&format!("failpoint {name} {:?}", plan.action));
            match plan.action {
                Action::Delay(time) => pause = Some(time),
                Action::Kill => send(Signal::KILL),
                Action::Stop => send(Signal::STOP),
                Action::Panic => panic_as_planned(name),
            }
        }
        pause
    }

    #[expect(clippy::panic, reason = "as a bug would, the panic hook included")]
    fn panic_as_planned(name: &str) {
        panic!("as planned at {name}");
    }

    fn send(signal: Signal) {
        if let Err(error) = kill_process(getpid(), signal) {
            tell(&format!("failpoint: no signal to ourselves: {error}"));
        }
    }

    fn tell(line: &str) {
        // One write, before whatever happens next.
        let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
    }

    /// Where the plans are read from.
    const VARIABLE: &str = "SEALGATE_FAILPOINTS";
}
#[cfg(debug_assertions)]
pub(crate) use armed::{reach, reach_blocking};

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::armed::{Action, Plan};

    #[test]
    fn a_plan_names_a_point_an_action_and_a_passage() {
        let plan = Plan::parse("deliver.dot=kill@3").unwrap();
        assert_eq!(
            (plan.name.as_str(), plan.action, plan.at),
            ("deliver.dot", Action::Kill, Some(3))
        );
        assert_eq!(
            [plan.is_due(), plan.is_due(), plan.is_due(), plan.is_due()],
            [false, false, true, false]
        );
        let plan = Plan::parse("connect.start=delay:500").unwrap();
        assert_eq!(plan.action, Action::Delay(Duration::from_millis(500)));
        assert!(plan.is_due() && plan.is_due());
        for wrong in ["", "x", "x=explode", "x=kill@soon", "x=delay", "x=kill:3"] {
            assert!(Plan::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn every_point_has_a_name_of_its_own_and_there_are_forty_at_least() {
        let mut names = BTreeSet::new();
        for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
            if path.ends_with("failpoint.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for (at, _) in text.match_indices("failpoint!(") {
                let name = text[at..].split('"').nth(1).unwrap().to_owned();
                assert!(names.insert(name.clone()), "{name} stands twice");
            }
        }
        assert!(names.len() >= 40, "{}", names.len());
    }

    fn sources(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                found.extend(sources(&path));
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
        found
    }
}
