//! The audit trail: one JSON line for each use of a key and each refusal, on the log and, where a file is configured, in that.
//!
//! In the file each line carries the SHA-256 of the line before it, so that a line that is changed or taken out shows
//! ([`verify`]). What is cut off at the end shows against the log alone, which goes elsewhere. A line says who, with
//! which key, for whom, and how it ended; never data, plaintext, signatures or keys.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use sealgate_core::hex;

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
    /// What the key is for.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) purpose: &'a str,
    /// `done`, `failed`, `refused`, or `begun` before a change.
    pub(crate) outcome: &'a str,
    /// Why not.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) reason: &'a str,
}

/// A line of the file.
#[derive(serde::Serialize)]
struct Line<'a> {
    previous: &'a str,
    time: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// The trail.
#[derive(Debug)]
pub(crate) struct Audit {
    trail: Option<Mutex<Trail>>,
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
        let Some(path) = path else { return Ok(Self { trail: None }) };
        let mut trail = Trail { path: path.to_owned(), file: None, previous: "0".repeat(64) };
        trail.reopen()?;
        Ok(Self { trail: Some(Mutex::new(trail)) })
    }

    /// Writes an event down. What it is about must not happen where this fails.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn record(&self, event: &Event<'_>) -> io::Result<()> {
        let Event { client, peer, operation, owner, key, certificate, purpose, outcome, reason } =
            event;
        tracing::info!(
            target: "audit", client, peer, operation, owner, key, certificate, purpose, outcome, reason,
            "key use"
        );
        let Some(trail) = &self.trail else { return Ok(()) };
        let mut trail = trail.lock().unwrap_or_else(PoisonError::into_inner);
        let written = trail.append(event);
        if let Err(error) = &written {
            // What was written in part is ended by the next opening.
            trail.file = None;
            tracing::error!(%error, path = %trail.path.display(), "the audit file cannot be written");
        }
        written
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

impl Trail {
    fn append(&mut self, event: &Event<'_>) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("not open"))?;
        let time = jiff::Timestamp::now().to_string();
        let line = Line { previous: &self.previous, time, event };
        let mut line = serde_json::to_vec(&line).map_err(io::Error::other)?;
        let sum = sha256(&line);
        line.push(b'\n');
        file.write_all(&line)?;
        self.previous = sum;
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let length = file.seek(SeekFrom::End(0))?;
        if length > 0 {
            file.seek(SeekFrom::Start(length.saturating_sub(LINE_BYTES_MAX)))?;
            let mut end = Vec::new();
            file.read_to_end(&mut end)?;
            match end.strip_suffix(b"\n") {
                Some(whole) => end = whole.to_vec(),
                None => file.write_all(b"\n")?,
            }
            let last = end.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            self.previous = sha256(last);
        }
        self.file = Some(file);
        Ok(())
    }
}

/// Follows the chain through a file and says how many lines it has. The first line may follow another file's last.
///
/// # Errors
/// The file cannot be read, or the first line that does not follow the one before it.
pub(crate) fn verify(path: &Path) -> Result<u64, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let mut lines = BufReader::new(File::open(path).map_err(failed)?);
    let mut count = 0_u64;
    let mut previous: Option<String> = None;
    loop {
        let mut line = Vec::new();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if read.map_err(failed)? == 0 {
            return Ok(count);
        }
        count = count.saturating_add(1);
        let broken = |why: &str| format!("{}:{count}: {why}", path.display());
        let line = line.strip_suffix(b"\n").ok_or_else(|| broken("the line has no end"))?;
        let value: serde_json::Value =
            serde_json::from_slice(line).map_err(|_| broken("not a line of an audit trail"))?;
        let follows = value.get("previous").and_then(serde_json::Value::as_str);
        let follows = follows.ok_or_else(|| broken("not a line of an audit trail"))?;
        if previous.is_some_and(|previous| previous != follows) {
            let why = "this line does not follow the one before it: one was changed or taken out";
            return Err(broken(why));
        }
        previous = Some(sha256(line));
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::text(digest(&SHA256, bytes).as_ref())
}

/// A line is far shorter: names are bounded by those of mail and TLS.
const LINE_BYTES_MAX: u64 = 16 * 1024;

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
        assert_eq!(verify(&path), Ok(3));
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let [one, two, three] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        std::fs::write(&path, format!("{one}\n{three}\n")).unwrap();
        assert!(verify(&path).unwrap_err().contains(":2: "));
        std::fs::write(&path, format!("{one}\n{}\n{three}\n", two.replace("gate1", "gate2")))
            .unwrap();
        assert!(verify(&path).unwrap_err().contains(":3: "));
    }

    #[test]
    fn the_chain_goes_on_after_a_restart_and_a_rotation() {
        let (_directory, path) = trail();
        let audit = Audit::open(Some(&path)).unwrap();
        audit.record(&event("four")).unwrap();
        assert_eq!(verify(&path), Ok(4));
        let moved = path.with_extension("1");
        std::fs::rename(&path, &moved).unwrap();
        audit.reopen();
        audit.record(&event("five")).unwrap();
        assert_eq!(verify(&path), Ok(1));
        let both = [std::fs::read(&moved).unwrap(), std::fs::read(&path).unwrap()].concat();
        std::fs::write(&path, both).unwrap();
        assert_eq!(verify(&path), Ok(5));
    }

    #[test]
    fn what_cannot_be_written_is_an_error_until_it_can() {
        let audit = Audit::open(Some(Path::new("/dev/full"))).unwrap();
        assert!(audit.record(&event("lost")).is_err());
        assert!(Audit::open(Some(Path::new("/nowhere/audit.log"))).is_err());
        assert!(Audit::open(None).unwrap().record(&event("")).is_ok());
    }
}
