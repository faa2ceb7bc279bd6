//! What a run came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What was told and what is held, compared.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Messages given to the mail servers' queues.
    pub messages: usize,
    /// Their recipients.
    pub recipients: usize,
    /// Attempts to hand them over.
    pub attempts: usize,
    /// Recipients for whom 250 was said.
    pub delivered: usize,
    /// Recipients who were refused for good.
    pub bounced: usize,
    /// Recipients for whom 250 was said and a notification was sent (O9).
    pub notified: usize,
    /// Recipients for whom 250 was said and nothing is held: must be none (O1).
    pub lost: Vec<String>,
    /// Recipients whose messages never came to an end: must be none.
    pub open: Vec<String>,
    /// Copies too many, by the window of REQUIREMENTS §5 that allows them.
    pub duplicated: BTreeMap<&'static str, usize>,
    /// Copies too many outside every window: must be none (O2).
    pub unexplained: Vec<String>,
    /// Copies held although the same attempt was told that there is none: must be none.
    pub contradicted: Vec<String>,
    /// Recipients who were refused for good, and nothing says why: must be none.
    pub refused: Vec<String>,
    /// Where plain text was found that must not be there: must be none.
    pub leaked: Vec<String>,
    /// Mail that came to a wrong server, or was bounced because of what DNS did: must be none.
    pub misrouted: Vec<String>,
    /// What mail servers were told of a recipient, by code and status.
    pub replies: BTreeMap<String, u64>,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Those of them that were injected while every fail point had its turn, before anything befell stores and machine at random.
    pub at_points: BTreeMap<String, u64>,
    /// How often the relay was started.
    pub starts: usize,
    /// The longest time from a start to the first connection taken.
    pub start_max: Duration,
    /// Fail points that were to kill or stop the relay and were not reached: must be none.
    pub not_reached: Vec<String>,
}

impl Summary {
    /// Whether every promise was kept.
    pub fn is_good(&self) -> bool {
        let extra: usize = self.duplicated.values().sum();
        let nothing = [
            &self.lost,
            &self.open,
            &self.unexplained,
            &self.contradicted,
            &self.refused,
            &self.leaked,
            &self.misrouted,
            &self.not_reached,
        ];
        nothing.into_iter().all(Vec::is_empty)
            && u64::try_from(extra).is_ok_and(|extra| extra <= self.fault_count())
    }

    /// Takes another run's into this one.
    pub fn add(&mut self, other: Self) {
        for (sum, more) in [
            (&mut self.messages, other.messages),
            (&mut self.recipients, other.recipients),
            (&mut self.attempts, other.attempts),
            (&mut self.delivered, other.delivered),
            (&mut self.bounced, other.bounced),
            (&mut self.notified, other.notified),
            (&mut self.starts, other.starts),
        ] {
            *sum += more;
        }
        self.start_max = self.start_max.max(other.start_max);
        self.lost.extend(other.lost);
        self.open.extend(other.open);
        self.unexplained.extend(other.unexplained);
        self.contradicted.extend(other.contradicted);
        self.refused.extend(other.refused);
        self.leaked.extend(other.leaked);
        self.misrouted.extend(other.misrouted);
        self.not_reached.extend(other.not_reached);
        for (window, count) in other.duplicated {
            *self.duplicated.entry(window).or_default() += count;
        }
        for (reply, count) in other.replies {
            *self.replies.entry(reply).or_default() += count;
        }
        for (sum, more) in
            [(&mut self.faults, other.faults), (&mut self.at_points, other.at_points)]
        {
            for (kind, count) in more {
                *sum.entry(kind).or_default() += count;
            }
        }
    }

    /// How many faults of this side, `stores` say, were injected at random.
    pub fn at_random(&self, side: &str) -> u64 {
        let of_side = |faults: &BTreeMap<String, u64>| -> u64 {
            let counts = faults.iter().filter(|(kind, _)| kind.split(':').next() == Some(side));
            counts.map(|(_, count)| count).sum()
        };
        of_side(&self.faults) - of_side(&self.at_points)
    }

    /// All faults.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra: usize = self.duplicated.values().sum();
        writeln!(
            f,
            "messages {}, recipients {}, attempts {}, faults injected {}, lost {}, duplicated {extra}, \
             leaked {}",
            self.messages,
            self.recipients,
            self.attempts,
            self.fault_count(),
            self.lost.len(),
            self.leaked.len(),
        )?;
        writeln!(
            f,
            "delivered {}, bounced {}, notified {}, left open {}, contradicted {}, refused without cause {}, \
             misrouted {}, relay started \
             {} times (the slowest start {} ms)",
            self.delivered,
            self.bounced,
            self.notified,
            self.open.len(),
            self.contradicted.len(),
            self.refused.len(),
            self.misrouted.len(),
            self.starts,
            self.start_max.as_millis(),
        )?;
        for (window, count) in &self.duplicated {
            writeln!(f, "  duplicated in window {window}: {count}")?;
        }
        for (reply, count) in &self.replies {
            writeln!(f, "  told {reply}: {count}")?;
        }
        for (kind, count) in &self.faults {
            writeln!(f, "  fault {kind}: {count}")?;
        }
        let bad = [
            ("LOST", &self.lost),
            ("OPEN", &self.open),
            ("DUPLICATED OUTSIDE EVERY WINDOW", &self.unexplained),
            ("CONTRADICTED", &self.contradicted),
            ("REFUSED WITHOUT CAUSE", &self.refused),
            ("LEAKED", &self.leaked),
            ("MISROUTED", &self.misrouted),
            ("NOT REACHED", &self.not_reached),
        ];
        for (what, lines) in bad {
            for line in lines.iter().take(LINES_MAX) {
                writeln!(f, "  {what}: {line}")?;
            }
        }
        Ok(())
    }
}

/// Shown of each kind of failure.
const LINES_MAX: usize = 20;
