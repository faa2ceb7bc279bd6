//! A file system that is small, full or read-only when a test wants it so.
//!
//! In go its size and what is to befall it; out comes a directory. It is a tmpfs of its own, mounted over a temporary
//! directory and unmounted when the value is dropped. Needs root and Debian's mount package.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process;

/// The file system.
#[derive(Debug)]
pub struct SmallDisk {
    dir: TempDir,
    read_only: Option<ReadOnly>,
}

/// A directory that nobody can write to, root included, as long as this is held.
#[derive(Debug)]
pub struct ReadOnly {
    directory: PathBuf,
}

impl SmallDisk {
    /// An empty one for so many octets.
    pub fn mount(octets: usize) -> Self {
        let dir = process::open_temp_dir("disk");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={octets},mode=0755"), "tmpfs"]);
        process::run(command.arg(dir.path()), b"").expect_ok("mount (this needs root)");
        Self { dir, read_only: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves no room on it, up to the last page.
    pub fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.ballast()).unwrap();
        loop {
            match file.write_all(&[0; PAGE_OCTETS]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{}: {error}", self.path().display()),
            }
        }
    }

    /// Gives back the room that was filled, at the latest when no process has it open: one that another thread was starting
    /// while [`SmallDisk::fill`] ran has, for a moment.
    pub fn free(&self) {
        if let Err(error) = fs::remove_file(self.ballast()) {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }

    /// From now on nobody can open anything on it for writing, or everybody again. Whoever has opened it before, writes on.
    pub fn set_read_only(&mut self, is_read_only: bool) {
        if is_read_only && self.read_only.is_none() {
            self.read_only = Some(ReadOnly::make(self.path()));
        } else if !is_read_only {
            self.read_only = None;
        }
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.read_only = None;
        unmount(self.path());
    }
}

impl ReadOnly {
    /// From now on nobody can open anything there for writing. Whoever has opened it before, writes on.
    pub fn make(directory: &Path) -> Self {
        // Whoever opens something for writing between the two keeps it from becoming read-only: then once more.
        let script = "for try in 1 2 3 4 5 6 7 8 9; do mount --bind \"$0\" \"$0\" || exit 1; \
                      mount -o remount,bind,ro \"$0\" && exit 0; umount -l \"$0\"; done; exit 1";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(directory);
        process::run(&mut command, b"").expect_ok(script);
        Self { directory: directory.to_owned() }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        unmount(&self.directory);
    }
}

/// Lazily: who opened something for reading meanwhile keeps it.
fn unmount(directory: &Path) {
    let ran = process::run(Command::new("umount").arg("-l").arg(directory), b"");
    if !ran.ok() {
        println!("umount {}: {}", directory.display(), ran.stderr);
    }
}

/// What a tmpfs gives out at a time.
const PAGE_OCTETS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_until_it_is_freed_and_read_only_until_it_is_not() {
        let mut disk = SmallDisk::mount(1 << 20);
        let (file, other) = (disk.path().join("file"), disk.path().join("other"));
        fs::write(&file, b"x").unwrap();
        disk.fill();
        assert_eq!(fs::write(&other, b"x").unwrap_err().kind(), ErrorKind::StorageFull);
        disk.free();
        process::await_that("there is room", || fs::write(&other, b"x").is_ok());
        disk.set_read_only(true);
        assert_eq!(fs::write(&other, b"x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(fs::read(&file).unwrap(), b"x");
        disk.set_read_only(false);
        fs::write(&other, b"y").unwrap();
    }
}
