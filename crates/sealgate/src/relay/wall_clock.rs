//! Whether the wall clock can be believed (REQUIREMENTS O15): it is compared with the monotonic one, which nobody sets.
//!
//! In: both clocks, at each transaction. Out: the time of verification, and whether it is in doubt. A jump of more than
//! [`JUMP_SECS_MIN`] puts it in doubt: what a date alone speaks against then waits, and is not refused. The time given is never
//! behind the one that was right before the jump, at which what has ended would be good again (REQUIREMENTS L14). A machine
//! that slept looks as if its clock had jumped, which costs nothing else. A clock that was wrong from the start is not noticed.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sealgate_core::keys::Timestamp;

/// The wall clock of this process.
#[derive(Debug)]
pub(crate) struct WallClock {
    started: Instant,
    watch: Mutex<Watch>,
}

/// What was seen of it. Its distance is the seconds by which it is ahead of the monotonic clock.
#[derive(Debug)]
struct Watch {
    /// The distance that is taken as right.
    believed_secs: i64,
    /// The distance that it keeps now, and since when.
    kept_secs: i64,
    kept_since: Duration,
    /// When the doubt was last said.
    said: Option<Duration>,
}

/// The time, of a clock that may have jumped: it lies between what the clock says and what it should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    /// To verify at, the later one. Who set a clock right that was in the future waits for an hour, or reloads, as after every
    /// jump.
    pub(crate) now: Timestamp,
    /// To write down, the earlier one: receivers take what lies in their future for forged.
    pub(crate) stamp: Timestamp,
    /// Whether the two differ by more than usual.
    pub(crate) is_doubtful: bool,
}

impl Time {
    fn between(wall_secs: i64, doubt: Option<Doubt>) -> Self {
        let ahead_secs = doubt.map_or(0, |doubt| doubt.ahead_secs);
        let should_be_secs = wall_secs.saturating_sub(ahead_secs);
        Self {
            now: Timestamp(wall_secs.max(should_be_secs)),
            stamp: Timestamp(wall_secs.min(should_be_secs)),
            is_doubtful: doubt.is_some(),
        }
    }
}

/// What to think of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    /// Seconds by which it is ahead of where it should be.
    ahead_secs: i64,
    /// Whether it is time to say so (again).
    is_to_be_said: bool,
}

impl WallClock {
    /// Believes the clock as it is now.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), watch: Mutex::new(Watch::new(now_secs(), Duration::ZERO)) }
    }

    /// What to go by.
    pub(crate) fn look(&self) -> Time {
        let (wall, monotonic) = (now_secs(), self.started.elapsed());
        let doubt = self.watch.lock().unwrap_or_else(PoisonError::into_inner).see(wall, monotonic);
        metrics::gauge!("sealgate_clock_doubtful").set(if doubt.is_some() { 1.0 } else { 0.0 });
        if let Some(Doubt { ahead_secs, is_to_be_said: true }) = doubt {
            tracing::error!(
                ahead_secs,
                "the wall clock has jumped: what is outside its validity waits until the clock is right again, has kept \
                 its pace for an hour, or is confirmed by a reload"
            );
        }
        Time::between(wall, doubt)
    }

    /// The administrator says that it is right now.
    pub(crate) fn confirm(&self) {
        let watch = Watch::new(now_secs(), self.started.elapsed());
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = watch;
    }
}

impl Watch {
    fn new(wall_secs: i64, monotonic: Duration) -> Self {
        let distance = distance_secs(wall_secs, monotonic);
        Self { believed_secs: distance, kept_secs: distance, kept_since: monotonic, said: None }
    }

    fn see(&mut self, wall_secs: i64, monotonic: Duration) -> Option<Doubt> {
        let distance = distance_secs(wall_secs, monotonic);
        if distance.abs_diff(self.kept_secs) > JUMP_SECS_MIN {
            (self.kept_secs, self.kept_since, self.said) = (distance, monotonic, None);
        } else if monotonic.saturating_sub(self.kept_since) >= KEEPS_PACE {
            // It was the start that was wrong, and somebody has set the clock right: mail must not wait for ever. The many
            // small corrections of a long life are taken in here, too.
            *self = Self::new(wall_secs, monotonic);
        }
        let ahead_secs = distance.saturating_sub(self.believed_secs);
        if ahead_secs.unsigned_abs() <= JUMP_SECS_MIN {
            return None;
        }
        let is_to_be_said =
            self.said.is_none_or(|said| monotonic.saturating_sub(said) >= SAY_AGAIN);
        if is_to_be_said {
            self.said = Some(monotonic);
        }
        Some(Doubt { ahead_secs, is_to_be_said })
    }
}

fn distance_secs(wall_secs: i64, monotonic: Duration) -> i64 {
    wall_secs.saturating_sub(i64::try_from(monotonic.as_secs()).unwrap_or(i64::MAX))
}

/// Seconds of Unix time, as the wall clock has it.
pub(super) fn now_secs() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

/// REQUIREMENTS L14: more than five minutes.
const JUMP_SECS_MIN: u64 = 300;
/// A clock that runs on like this for so long after a jump is taken as right.
const KEEPS_PACE: Duration = Duration::from_secs(3600);
/// How often the alarm is raised while the doubt lasts.
const SAY_AGAIN: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_800_000_000;

    fn see(watch: &mut Watch, secs: i64, ahead: i64) -> Option<Doubt> {
        let monotonic = Duration::from_secs(u64::try_from(secs).unwrap());
        watch.see(START + secs + ahead, monotonic)
    }

    #[test]
    fn a_jump_is_doubted_until_it_is_undone() {
        for jump in [-315_360_000, -86_400, -301, 301, 86_400, 315_360_000] {
            let mut watch = Watch::new(START, Duration::ZERO);
            assert_eq!(see(&mut watch, 10, 0), None);
            let told = Doubt { ahead_secs: jump, is_to_be_said: true };
            assert_eq!(see(&mut watch, 20, jump), Some(told));
            let silent = Doubt { is_to_be_said: false, ..told };
            assert_eq!(see(&mut watch, 21, jump), Some(silent), "said once");
            assert_eq!(see(&mut watch, 320, jump), Some(told), "and again");
            assert_eq!(see(&mut watch, 330, 0), None);
        }
    }

    #[test]
    fn a_little_off_is_no_jump_however_long_it_adds_up() {
        let mut watch = Watch::new(START, Duration::ZERO);
        for hour in 1..50 {
            assert_eq!(see(&mut watch, hour * 3600, hour * 200), None, "{hour}");
        }
    }

    #[test]
    fn a_clock_that_keeps_its_new_pace_for_an_hour_is_believed() {
        let mut watch = Watch::new(START, Duration::ZERO);
        let jumped = 86_400;
        assert!(see(&mut watch, 10, jumped).is_some());
        assert!(see(&mut watch, 3609, jumped).is_some());
        assert_eq!(see(&mut watch, 3610, jumped), None);
        assert!(see(&mut watch, 3620, 0).is_some(), "what was right once is now the jump");
    }

    #[test]
    fn one_that_jumps_again_is_not_believed_for_its_first_jump() {
        let mut watch = Watch::new(START, Duration::ZERO);
        assert!(see(&mut watch, 10, 86_400).is_some());
        assert!(see(&mut watch, 3600, -86_400).is_some());
        assert!(see(&mut watch, 3620, -86_400).is_some());
    }

    /// REQUIREMENTS L14.
    #[test]
    fn a_clock_that_jumped_back_gives_the_time_that_it_should_have() {
        let time = |watch: &mut Watch, secs, ahead| {
            let wall = START + secs + ahead;
            Time::between(wall, see(watch, secs, ahead)).now.0
        };
        let mut watch = Watch::new(START, Duration::ZERO);
        assert_eq!(time(&mut watch, 20, -86_400), START + 20);
        assert_eq!(time(&mut watch, 30, 86_400), START + 30 + 86_400);
        assert_eq!(time(&mut watch, 40, -301), START + 40);
        assert_eq!(time(&mut watch, 50, 0), START + 50);
        // The start was in the future, and the clock was put right: that is believed after an hour.
        assert_eq!(time(&mut watch, 60, -86_400), START + 60);
        assert_eq!(time(&mut watch, 3659, -86_400), START + 3659);
        assert_eq!(time(&mut watch, 3660, -86_400), START + 3660 - 86_400);
    }

    #[test]
    fn one_look_is_never_behind_what_was_believed() {
        let clock = WallClock::new();
        clock.watch.lock().unwrap().believed_secs += 86_400;
        let Time { now, stamp, is_doubtful } = clock.look();
        assert!(is_doubtful && now.0 >= now_secs() + 86_390, "{now:?}");
        assert!(stamp.0 <= now_secs(), "{stamp:?}");
        clock.confirm();
        let Time { now, stamp, is_doubtful } = clock.look();
        assert!(!is_doubtful && now.0 <= now_secs() && stamp == now, "{now:?}");
        // Ahead: what should be is what is written down.
        clock.watch.lock().unwrap().believed_secs -= 86_400;
        let Time { now, stamp, .. } = clock.look();
        assert!(now.0 - stamp.0 >= 86_390, "{now:?} {stamp:?}");
    }

    #[test]
    fn a_reload_confirms_it() {
        let clock = WallClock::new();
        clock.watch.lock().unwrap().believed_secs -= 86_400;
        assert!(clock.look().is_doubtful);
        clock.confirm();
        assert!(!clock.look().is_doubtful);
    }
}
