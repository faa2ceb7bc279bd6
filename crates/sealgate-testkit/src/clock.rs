//! A wall clock that jumps, for one process alone.
//!
//! In go seconds; out comes the environment of a program that is dynamically linked, whose `CLOCK_REALTIME` is as many
//! seconds off. Its monotonic clock stays right, as that of every machine does whose administrator sets the time.
//! Needs Debian's libfaketime package.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::process;

/// The clock.
#[derive(Debug)]
pub struct Clock {
    dir: TempDir,
}

impl Clock {
    /// A clock that is right.
    pub fn right() -> Self {
        assert!(Path::new(LIBRARY).exists(), "{LIBRARY}: Debian's libfaketime is missing");
        let clock = Self { dir: process::open_temp_dir("clock") };
        clock.jump(0);
        clock
    }

    /// From now on it is so many seconds ahead, or behind; programs notice within [`NOTICED_SECS`].
    pub fn jump(&self, secs: i64) {
        // In one step: a program never reads half of it.
        let (path, new) = (self.dir.path().join("time"), self.dir.path().join("new"));
        fs::write(&new, format!("{secs:+}\n")).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// What a program needs in its environment to go by this clock.
    pub fn environment(&self) -> Vec<(String, OsString)> {
        let variable = |name: &str, value: &str| (name.to_owned(), OsString::from(value));
        vec![
            variable("LD_PRELOAD", LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE".to_owned(), self.dir.path().join("time").into()),
            variable("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            variable("FAKETIME_CACHE_DURATION", &NOTICED_SECS.to_string()),
        ]
    }
}

/// For how long a program goes by the time that it was told before.
pub const NOTICED_SECS: u64 = 1;
/// For programs with threads.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_program_goes_by_the_clock_that_it_is_given() {
        let clock = Clock::right();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        for (secs, expected) in [(0, now), (7200, now + 7200), (-172_800, now - 172_800)] {
            clock.jump(secs);
            let mut date = Command::new("date");
            let out =
                process::run(date.arg("+%s").envs(clock.environment()), b"").expect_ok("date");
            let told: u64 = String::from_utf8(out).unwrap().trim().parse().unwrap();
            assert!(told.abs_diff(expected) < 60, "{told} for {expected}");
        }
    }
}
