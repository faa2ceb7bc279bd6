//! The file of the next master key: made beside the present one, durable before the database depends on it, and put in its
//! place by one rename.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::MasterKey;
use crate::error::StoreError;
use crate::secret_source::{FORMERS_MAX, SecretSource};

/// The next key. Its file is locked, so that only one process of this machine rotates.
#[derive(Debug)]
pub(crate) struct Successor {
    path: PathBuf,
    key: MasterKey,
    lock: File,
}

impl Successor {
    /// Takes up the file where it is there, whole and ours, else makes it: mode 0600, for the owner of `present`.
    ///
    /// # Errors
    /// [`StoreError::Secret`] where it cannot be made, holds something else, or another process has it.
    pub(crate) fn take_up(path: &Path, present: Option<&Path>) -> Result<Self, StoreError> {
        let source = SecretSource::File(path.to_owned());
        let failed = |error: io::Error| source.error(&error.to_string());
        let (mut lock, mut is_new) = match make(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (File::options().read(true).write(true).open(path).map_err(failed)?, false)
            }
            other => (other.map_err(failed)?, true),
        };
        take(&lock, path, &source)?;
        // Made by a process that ended before it wrote the key, which nothing is sealed under then; or by anybody, who may have
        // it open. No key is written into what was not made for it.
        if !is_new && lock.metadata().map_err(failed)?.len() == 0 {
            if !fs::symlink_metadata(path).map_err(failed)?.is_file() {
                return Err(source.error("no file of its own: name another"));
            }
            fs::remove_file(path).map_err(failed)?;
            lock = make(path).map_err(failed)?;
            take(&lock, path, &source)?;
            is_new = true;
        }
        if is_new {
            Self::write(&lock, path, present).map_err(failed)?;
        }
        Ok(Self { key: MasterKey::read(&source)?, path: path.to_owned(), lock })
    }

    /// The key.
    pub(crate) fn key(&self) -> &MasterKey {
        &self.key
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the key in place of the present one, which stays as `former`. What lay there stays too, under the name that this
    /// returns: copies of the database need it.
    ///
    /// # Errors
    /// [`StoreError::Secret`] with what the system says; then it can be done again.
    pub(crate) fn swap(self, present: &Path, former: &Path) -> Result<Option<PathBuf>, StoreError> {
        let swap = || {
            let mut earlier = None;
            if present.exists() && !is_one_file(present, former) {
                earlier = make_room(former)?;
                fs::hard_link(present, former)?;
            }
            fs::rename(&self.path, present)?;
            sync_directory(present)?;
            Ok(earlier)
        };
        let source = SecretSource::File(present.to_owned());
        swap().map_err(|error: io::Error| source.error(&error.to_string()))
    }

    fn write(mut file: &File, path: &Path, present: Option<&Path>) -> io::Result<()> {
        if let Some(present) = present {
            let (of, ours) = (fs::metadata(present)?, file.metadata()?);
            if (of.uid(), of.gid()) != (ours.uid(), ours.gid()) {
                fchown(file, Some(of.uid()), Some(of.gid()))?;
            }
        }
        let text = super::new_key_text().map_err(io::Error::other)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_directory(path)
    }
}

impl Drop for Successor {
    /// Closing would leave the lock to whatever process was forked meanwhile, until that runs its program.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// Makes a file that only its owner reads; it must not be there.
fn make(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Keeps other processes out for as long as the file is open.
fn take(file: &File, path: &Path, source: &SecretSource) -> Result<(), StoreError> {
    match file.try_lock() {
        Ok(()) if is_still(file, path) => Ok(()),
        Ok(()) | Err(TryLockError::WouldBlock) => {
            Err(source.error("another rotation of the master key is going on"))
        }
        Err(TryLockError::Error(error)) => Err(source.error(&error.to_string())),
    }
}

/// Whether a file has its name still: another process may have put it in place or removed it before it was locked.
fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Gives what is at a path the first name behind it that is free, and says which.
fn make_room(path: &Path) -> io::Result<Option<PathBuf>> {
    for number in 1..=FORMERS_MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        let kept = PathBuf::from(name);
        match fs::hard_link(path, &kept) {
            Ok(()) => {
                fs::remove_file(path)?;
                return Ok(Some(kept));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let why = format!("more than {FORMERS_MAX} former keys beside it: remove old ones");
    Err(io::Error::other(why))
}

fn is_one_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// A name is durable when its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
