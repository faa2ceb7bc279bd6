//! Processor time and peak memory of processes, from /proc.

use std::fs;

/// What some processes have used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// User and system time, of children that have ended too.
    pub(super) cpu_ticks: u64,
    /// The sum of VmHWM.
    pub(super) memory_kib: u64,
}

impl Usage {
    /// One process and what has ended below it.
    pub(super) fn of_process(id: u32) -> Result<Self, String> {
        let read = |name: &str| {
            let path = format!("/proc/{id}/{name}");
            fs::read_to_string(&path).map_err(|why| format!("{path}: {why}"))
        };
        let stat = Stat::parse(&read("stat")?).ok_or(format!("/proc/{id}/stat: unreadable"))?;
        Ok(Self { cpu_ticks: stat.ticks, memory_kib: peak_kib(&read("status")?).unwrap_or(0) })
    }

    /// A process and its children, those that have ended too.
    pub(super) fn of_family(id: u32) -> Result<Self, String> {
        let mut usage = Self::of_process(id)?;
        for child in children(id) {
            // One that has ended since is in its parent's account; that was read a moment ago, so read it again.
            let Ok(one) = Self::of_process(child) else { return Self::of_family(id) };
            usage.cpu_ticks += one.cpu_ticks;
            usage.memory_kib += one.memory_kib;
        }
        Ok(usage)
    }
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id| {
            fs::read_to_string(format!("/proc/{id}/stat"))
                .ok()
                .and_then(|text| Stat::parse(&text))
                .is_some_and(|stat| stat.parent == parent)
        })
        .collect()
}

/// The fields of /proc/PID/stat that matter here (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may hold anything, parentheses too.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        // Field 3 of proc(5), the state, is the first here: utime, stime, cutime and cstime are 14 to 17.
        let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
        Some(Self { parent: fields.get(1)?.parse().ok()?, ticks })
    }
}

fn peak_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// USER_HZ is 100 on every Linux (time(7)).
pub(super) const TICK_MS: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_a_name_with_parentheses() {
        let text = "42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 7, ticks: 100 }));
        assert_eq!(Stat::parse("42 (short) S 7"), None);
    }

    #[test]
    fn reads_the_peak() {
        assert_eq!(peak_kib("Name:\tx\nVmHWM:\t  1234 kB\n"), Some(1234));
        assert_eq!(peak_kib("Name:\tx\n"), None);
    }
}
