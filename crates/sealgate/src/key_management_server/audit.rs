//! The audit trail: one JSON line for each use of a key and each refusal, on the log and, where a file is configured, in that,
//! octet for octet the same.
//!
//! Where there is a file each line carries the SHA-256 of the line before it, so that a line that is changed or taken out shows
//! ([`verify`]). What is cut off at the beginning or the end shows against a digest that was noted elsewhere, or the log,
//! which goes elsewhere. A line says who, with which key, for whom, and how it ended; never data, plaintext, signatures or
//! keys.
//!
//! Every use of a key is written down. Refusals, of which anybody can cause any number, are so only at a rate; how many
//! were left out is in the next line. A line that was begun and not ended, by a crash or a full disk, is cut off when the file
//! is opened again, and the next line says so. A line is handed to the system before its answer goes out, and not waited for
//! until it is on the disk: a power failure can take the last seconds, of which the log knows.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use sealgate_core::hex;

use super::operations::{LOCATE, REFUSED};
use super::rate::{Rates, Taken};
use crate::observe;

/// What happened.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Event<'a> {
    /// Identity of the client; empty where it is not known.
    pub(crate) client: &'a str,
    /// Network address, or user and process id.
    pub(crate) peer: &'a str,
    /// `sign`, `decrypt`, ...
    pub(crate) operation: &'a str,
    /// Whose key.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) owner: &'a str,
    /// The object's identifier, as the client named it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) key: &'a str,
    /// SHA-256 of the key's certificate.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) certificate: &'a str,
    /// For which originator or recipient the client used it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) used_for: &'a str,
    /// What the key is for.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) purpose: &'a str,
    /// `done`, `failed`, `refused`, or `begun` before a change.
    pub(crate) outcome: &'a str,
    /// Why not.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) reason: &'a str,
}

/// A line.
#[derive(serde::Serialize)]
struct Line<'a> {
    /// SHA-256 of the line before it in the file, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<&'a str>,
    time: String,
    /// Tells it from other lines of the log.
    #[serde(rename = "event")]
    kind: &'static str,
    #[serde(flatten)]
    event: &'a Event<'a>,
    /// Refusals before this line that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<NonZeroU64>,
}

/// The trail.
#[derive(Debug)]
pub(crate) struct Audit {
    trail: Option<Mutex<Trail>>,
    /// How often each client is refused.
    refusals: Rates,
    /// Refusals that were left out since the last line.
    omitted: AtomicU64,
}

#[derive(Debug)]
struct Trail {
    path: PathBuf,
    /// `None` after a failure, until it can be opened again.
    file: Option<File>,
    /// Of the last line, in hexadecimal.
    previous: String,
}

impl Audit {
    /// Opens the file, where there is to be one.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let trail = path.map(|path| {
            let mut trail = Trail { path: path.to_owned(), file: None, previous: FIRST.to_owned() };
            trail.reopen().map(|()| Mutex::new(trail))
        });
        let (refusals, omitted) = (Rates::default(), AtomicU64::new(0));
        Ok(Self { trail: trail.transpose()?, refusals, omitted })
    }

    /// Writes an event down. What it is about must not happen where this fails.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn record(&self, event: &Event<'_>) -> io::Result<()> {
        let event = &event.clipped();
        if event.outcome == REFUSED && !self.is_written_down(event) {
            self.omitted.fetch_add(1, Ordering::AcqRel);
            return Ok(());
        }
        let omitted = self.omitted.swap(0, Ordering::AcqRel);
        let Some(trail) = &self.trail else {
            return line(None, event, omitted).map(|line| observe::write_audit(&line));
        };
        let mut trail = trail.lock().unwrap_or_else(PoisonError::into_inner);
        let written = trail.append(event, omitted);
        if let Err(error) = &written {
            self.omitted.fetch_add(omitted, Ordering::AcqRel);
            // The log has it in any case, as a line that is no part of the chain.
            observe::write_audit(&line(None, event, omitted)?);
            // What was written in part is ended by the next opening.
            trail.file = None;
            tracing::error!(%error, path = %trail.path.display(), "the audit file cannot be written");
        }
        written
    }

    /// Whether there is room for one more refusal of this client. A relay that may use a mailbox's key and not its domain's is
    /// refused the search for that with each mail: these have room of their own, and hide no other refusal.
    fn is_written_down(&self, refused: &Event<'_>) -> bool {
        let kind = if refused.operation == LOCATE { LOCATE } else { "" };
        let taken = self.refusals.take(refused.client, kind, REFUSED_PER_MINUTE, Instant::now());
        taken == Taken::Yes
    }

    /// Opens the file anew: it may have been moved away. The chain goes on.
    pub(crate) fn reopen(&self) {
        if let Some(trail) = &self.trail {
            let mut trail = trail.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = trail.reopen() {
                trail.file = None;
                tracing::error!(%error, path = %trail.path.display(), "the audit file cannot be opened");
            }
        }
    }
}

impl Audit {
    /// Says how many refusals were left out since the last line. Nothing is recorded afterwards.
    pub(crate) fn close(&self) {
        if self.omitted.load(Ordering::Acquire) > 0 {
            let reason = "the last refusals were left out";
            // Where it cannot be written, the log has it.
            let _ = self.record(&Event { reason, ..Event::of_the_trail() });
        }
    }
}

/// Whether [`Audit::open`] would open the file, without making it or going on with it.
///
/// # Errors
/// What the system says.
pub(crate) fn look(path: Option<&Path>) -> io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    match OpenOptions::new().read(true).append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => directory_of(path),
        other => other.map(drop),
    }
}

/// Whether a file can be made there, as far as its directory goes.
///
/// # Errors
/// Where there is no such directory, and who might make it.
pub(super) fn directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    if directory.is_dir() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "its directory is not there: make it (the unit of the package makes its own when it starts)",
    ))
}

impl<'a> Event<'a> {
    fn of_the_trail() -> Self {
        Self { operation: "audit", outcome: "done", ..Self::default() }
    }

    /// With every text cut to a length that keeps a line below [`LINE_BYTES_MAX`].
    fn clipped(&self) -> Self {
        let clip =
            |text: &'a str| text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text);
        Self {
            client: clip(self.client),
            peer: clip(self.peer),
            operation: clip(self.operation),
            owner: clip(self.owner),
            key: clip(self.key),
            certificate: clip(self.certificate),
            used_for: clip(self.used_for),
            purpose: clip(self.purpose),
            outcome: clip(self.outcome),
            reason: clip(self.reason),
        }
    }
}

impl Trail {
    fn append(&mut self, event: &Event<'_>, omitted: u64) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("not open"))?;
        let mut line = line(Some(&self.previous), event, omitted)?;
        let sum = sha256(line.as_bytes());
        line.push('\n');
        file.write_all(line.as_bytes())?;
        observe::write_audit(&line);
        self.previous = sum;
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let cut = self.take_up(&mut file)?;
        self.file = Some(file);
        if cut > 0 {
            let reason = format!("{cut} bytes of a line without an end were cut off");
            tracing::warn!(path = %self.path.display(), reason, "the audit file is gone on with");
            self.append(&Event { reason: &reason, ..Event::of_the_trail() }, 0)?;
        }
        Ok(())
    }

    /// Goes on from the last line of the file, and says how many bytes of an unfinished one behind it were cut off.
    fn take_up(&mut self, file: &mut File) -> io::Result<usize> {
        let length = file.seek(SeekFrom::End(0))?;
        if length == 0 {
            return Ok(0);
        }
        let start = length.saturating_sub(LINE_BYTES_MAX.saturating_mul(2));
        file.seek(SeekFrom::Start(start))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        let whole =
            end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        let (lines, unfinished) = end.split_at_checked(whole).unwrap_or((&end, &[]));
        if !unfinished.is_empty() {
            // Another file, named by mistake, must not lose anything.
            let is_ours = unfinished.starts_with(LINE_START) || LINE_START.starts_with(unfinished);
            if !is_ours || (lines.is_empty() && start > 0) {
                return Err(io::Error::other("this is no audit file"));
            }
            file.set_len(length.saturating_sub(u64::try_from(unfinished.len()).unwrap_or(0)))?;
        }
        if let Some(lines) = lines.strip_suffix(b"\n") {
            let last = sha256(lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default());
            if self.previous == FIRST || self.previous == last {
                self.previous = last;
            } else {
                // The next line goes on from the one that was written last, so that the trail shows what is gone.
                let path = self.path.display();
                tracing::error!(%path, missing = self.previous, "lines were taken out of the audit file");
            }
        }
        Ok(unfinished.len())
    }
}

/// Without its end.
fn line(previous: Option<&str>, event: &Event<'_>, omitted: u64) -> io::Result<String> {
    let time = jiff::Timestamp::now().to_string();
    let omitted = NonZeroU64::new(omitted);
    let line = Line { previous, time, kind: KIND, event, omitted };
    serde_json::to_string(&line).map_err(io::Error::other)
}

/// What a file holds whose every line follows the one before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// How many lines.
    pub(crate) lines: u64,
    /// The digest that the first line goes on from, 64 zeros where the trail began; empty where there is no line.
    pub(crate) follows: String,
    /// The digest of the last line.
    pub(crate) last: String,
}

/// Follows the chain through a file. The first line may follow another file's last, so what was cut off before it, or
/// behind the last, shows only by `expect`: a digest that was noted earlier, of a line that must be in the file, or that the
/// file goes on from.
///
/// # Errors
/// The file cannot be read, the first line that does not follow the one before it, or the expected one is missing.
pub(crate) fn verify(path: &Path, expect: Option<&str>) -> Result<Verified, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut found = Verified { lines: 0, follows: String::new(), last: String::new() };
    let mut is_there = expect.is_none();
    loop {
        let mut line = Vec::new();
        let read = file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.map_err(failed)? == 0 {
            break;
        }
        found.lines = found.lines.saturating_add(1);
        let broken = |why: &str| format!("{}:{}: {why}", path.display(), found.lines);
        let line = line.strip_suffix(b"\n").ok_or_else(|| {
            broken("the line has no end; a key server that opens the file cuts it off")
        })?;
        let value: serde_json::Value =
            serde_json::from_slice(line).map_err(|_| broken("not a line of an audit trail"))?;
        let follows = value.get("previous").and_then(serde_json::Value::as_str);
        let follows = follows.ok_or_else(|| broken("not a line of an audit trail"))?;
        if found.lines == 1 {
            found.follows = follows.to_owned();
            is_there |= expect == Some(follows);
        } else if found.last != follows {
            let why = "this line does not follow the one before it: one was changed or taken out";
            return Err(broken(why));
        }
        found.last = sha256(line);
        is_there |= expect == Some(found.last.as_str());
    }
    if is_there {
        return Ok(found);
    }
    let why = "no line has the expected digest: lines were cut off, or this is another file";
    Err(format!("{}: {why}", path.display()))
}

/// In hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::text(digest(&SHA256, bytes).as_ref())
}

/// What the first line of a trail goes on from.
const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// What every line says it is.
const KIND: &str = "key-use";
/// Of each text of an event: ten of them, every byte escaped in six, stay below a line.
const TEXT_BYTES_MAX: usize = 256;
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// What every line begins with.
const LINE_START: &[u8] = b"{\"previous\":\"";
/// Lines about refusals of one client, and as many about what it may not look for; as many at once.
const REFUSED_PER_MINUTE: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(reason: &str) -> Event<'_> {
        Event { client: "gate1", operation: "sign", outcome: "done", reason, ..Event::default() }
    }

    fn trail() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::open(Some(&path)).unwrap();
        for reason in ["one", "two", "three\n"] {
            audit.record(&event(reason)).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn a_removed_or_changed_line_shows() {
        let (_directory, path) = trail();
        let whole = verify(&path, None).unwrap();
        assert_eq!((whole.lines, whole.follows), (3, "0".repeat(64)));
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let [one, two, three] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        std::fs::write(&path, format!("{one}\n{three}\n")).unwrap();
        assert!(verify(&path, None).unwrap_err().contains(":2: "));
        std::fs::write(&path, format!("{one}\n{}\n{three}\n", two.replace("gate1", "gate2")))
            .unwrap();
        assert!(verify(&path, None).unwrap_err().contains(":3: "));
    }

    #[test]
    fn the_chain_goes_on_after_a_restart_and_a_rotation() {
        let (_directory, path) = trail();
        let audit = Audit::open(Some(&path)).unwrap();
        audit.record(&event("four")).unwrap();
        assert_eq!(verify(&path, None).unwrap().lines, 4);
        let moved = path.with_extension("1");
        std::fs::rename(&path, &moved).unwrap();
        audit.reopen();
        audit.record(&event("five")).unwrap();
        assert_eq!(verify(&path, None).unwrap().lines, 1);
        let both = [std::fs::read(&moved).unwrap(), std::fs::read(&path).unwrap()].concat();
        std::fs::write(&path, both).unwrap();
        assert_eq!(verify(&path, None).unwrap().lines, 5);
    }

    /// Rotation opens the file anew each day: that must not close the gap.
    #[test]
    fn lines_taken_out_while_it_runs_show_after_the_file_was_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::open(Some(&path)).unwrap();
        for reason in ["one", "two", "three"] {
            audit.record(&event(reason)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let (first, _) = text.split_once('\n').unwrap();
        std::fs::write(&path, format!("{first}\n")).unwrap();
        audit.reopen();
        audit.record(&event("four")).unwrap();
        let why = verify(&path, None).unwrap_err();
        assert!(why.contains(":2: ") && why.contains("taken out"), "{why}");
    }

    #[test]
    fn what_cannot_be_written_is_an_error_until_it_can() {
        let audit = Audit::open(Some(Path::new("/dev/full"))).unwrap();
        assert!(audit.record(&event("lost")).is_err());
        assert!(Audit::open(Some(Path::new("/nowhere/audit.log"))).is_err());
        assert!(Audit::open(None).unwrap().record(&event("")).is_ok());
    }

    #[test]
    fn lines_that_were_cut_off_show_by_a_digest_that_was_noted() {
        let (_directory, path) = trail();
        let noted = verify(&path, None).unwrap().last;
        Audit::open(Some(&path)).unwrap().record(&event("four")).unwrap();
        assert_eq!(verify(&path, Some(&noted)).unwrap().lines, 4);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        // The tail is cut off, then the head.
        std::fs::write(&path, lines[..2].concat()).unwrap();
        assert_eq!(verify(&path, None).unwrap().lines, 2);
        assert!(verify(&path, Some(&noted)).unwrap_err().contains("cut off"));
        std::fs::write(&path, lines[3..].concat()).unwrap();
        let rotated = verify(&path, Some(&noted)).unwrap();
        assert_eq!((rotated.lines, rotated.follows), (1, noted.clone()));
        std::fs::write(&path, "").unwrap();
        assert!(verify(&path, Some(&noted)).is_err());
    }

    #[test]
    fn a_line_without_an_end_is_cut_off_and_the_chain_says_so() {
        let (_directory, path) = trail();
        let whole = std::fs::read(&path).unwrap();
        for unfinished in [&b"{\"prev"[..], b"{\"previous\":\"0123", &whole[..whole.len() / 4]] {
            let mut bytes = whole.clone();
            bytes.extend_from_slice(unfinished);
            std::fs::write(&path, bytes).unwrap();
            assert!(verify(&path, None).unwrap_err().contains(":4: "));
            let audit = Audit::open(Some(&path)).unwrap();
            audit.record(&event("five")).unwrap();
            assert_eq!(verify(&path, None).unwrap().lines, 5);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with(std::str::from_utf8(&whole).unwrap()), "nothing else is cut");
            let said = format!("{} bytes of a line", unfinished.len());
            assert!(text.lines().nth(3).unwrap().contains(&said), "{text}");
        }
        // A first line that was never whole, and a file that is not ours.
        std::fs::write(&path, "{\"previous\":\"0").unwrap();
        drop(Audit::open(Some(&path)).unwrap());
        assert_eq!(verify(&path, None).unwrap().follows, "0".repeat(64));
        std::fs::write(&path, "version = 1").unwrap();
        assert!(Audit::open(Some(&path)).unwrap_err().to_string().contains("no audit file"));
        assert_eq!(std::fs::read(&path).unwrap(), b"version = 1");
    }

    #[test]
    fn refusals_are_written_at_a_rate_and_counted_and_uses_always() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::open(Some(&path)).unwrap();
        let refused = Event { outcome: REFUSED, ..event("no") };
        for _ in 0..1000 {
            audit.record(&refused).unwrap();
        }
        let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
        let written = lines();
        assert!((60..100).contains(&written), "{written}");
        for _ in 0..200 {
            audit.record(&event("use")).unwrap();
        }
        assert_eq!(lines(), written + 200);
        let text = std::fs::read_to_string(&path).unwrap();
        let next: serde_json::Value =
            serde_json::from_str(text.lines().nth(written).unwrap()).unwrap();
        let told: u64 = text
            .lines()
            .filter_map(|line| {
                serde_json::from_str::<serde_json::Value>(line).ok()?["omitted"].as_u64()
            })
            .sum();
        assert!(next["omitted"].as_u64().is_some(), "{next}");
        assert_eq!(told + u64::try_from(written).unwrap(), 1000);
        audit.record(&refused).unwrap();
        audit.close();
        assert_eq!(verify(&path, None).unwrap().lines, u64::try_from(lines()).unwrap());
        assert!(lines() == written + 201, "the last is told when the trail is closed");
    }

    #[test]
    fn refused_searches_leave_room_for_other_refusals() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::open(Some(&path)).unwrap();
        let search = Event { outcome: REFUSED, operation: LOCATE, ..event("no") };
        for _ in 0..1000 {
            audit.record(&search).unwrap();
        }
        let refused = Event { outcome: REFUSED, ..event("another's") };
        audit.record(&refused).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().last().unwrap().contains("another's"), "{text}");
        assert!((60..100).contains(&text.lines().count()), "{}", text.lines().count());
    }

    #[test]
    fn names_of_any_length_keep_a_line_readable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::open(Some(&path)).unwrap();
        let long = "\u{1}ä".repeat(100_000);
        let [client, peer, owner, key, used_for, reason] = [long.as_str(); 6];
        let event = Event { client, peer, owner, key, used_for, reason, ..event("") };
        audit.record(&event).unwrap();
        audit.record(&event).unwrap();
        assert_eq!(verify(&path, None).unwrap().lines, 2);
    }
}
