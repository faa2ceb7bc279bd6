//! Where the configuration is: the file that `--config` names, or the first of the usual places.
//!
//! A configuration decides what is run: root must not take that of whoever happened to lay one into the working directory. So
//! `./sealgate.toml` counts only where nobody but root and the user himself can have written it (CWE-427); a file that was named, and
//! the one in /etc, are the administrator's affair.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// Finds the configuration.
///
/// # Errors
/// [`ConfigError::NotFound`] where there is none.
pub(crate) fn find(given: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let [here, system] = USUAL_PLACES.map(Path::new);
    first_of(here, system, [0, rustix::process::geteuid().as_raw()])
}

/// The file in the working directory where it is theirs, else the system's. One that may be somebody else's is not used; nor is
/// the system's in its place, because a command would remove the keys of another installation than its user sees.
fn first_of(here: &Path, system: &Path, trusted: [u32; 2]) -> Result<PathBuf, ConfigError> {
    if here.exists() && !is_same(here, system) {
        return match doubt(here, trusted) {
            Some(why) => Err(ConfigError::NotFound { passed_over: Some(why) }),
            None => Ok(here.to_owned()),
        };
    }
    match system.try_exists() {
        Ok(false) => Err(ConfigError::NotFound { passed_over: None }),
        // One whose directory is closed to this user is there, and reading it says so.
        Ok(true) | Err(_) => Ok(system.to_owned()),
    }
}

/// Why a file may be somebody else's, where it may. Whose the link and the directory are counts as well: they decide which
/// file it is, and relative paths in it start there.
fn doubt(path: &Path, trusted: [u32; 2]) -> Option<String> {
    let advice = |why: String| {
        let path = path.display();
        format!("{path} is not taken: {why}; where it is the right one, give --config {path}")
    };
    let directory = path.parent().unwrap_or(path);
    let found = [path.symlink_metadata(), path.metadata(), directory.metadata()];
    let [link, file, directory] = found.map(Result::ok);
    let owner = |what: &str, of: &Option<Metadata>| {
        let uid = of.as_ref()?.uid();
        let is_foreign = !trusted.contains(&uid);
        is_foreign.then(|| format!("{what} belongs to the user with id {uid}"))
    };
    let foreign = owner("it", &link).or_else(|| owner("what it links to", &file));
    let foreign = foreign.or_else(|| owner("its directory", &directory));
    let writable = || {
        let file = file.as_ref()?;
        let mode = file.mode();
        // A group of the user's own number is his alone: who has one usually has umask 002 too.
        let others = if file.gid() == file.uid() { EVERYBODY } else { GROUP | EVERYBODY };
        let is_writable = mode & others != 0;
        is_writable.then(|| format!("others may write it (mode {:04o}; chmod go-w)", mode & 0o7777))
    };
    foreign.or_else(writable).map(advice)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    identity(one).is_some() && identity(one) == identity(other)
}

/// Where a configuration is looked for without `--config`.
pub(super) const USUAL_PLACES: [&str; 2] = ["./sealgate.toml", "/etc/sealgate/sealgate.toml"];
/// Of a file's mode: its group may write it.
const GROUP: u32 = 0o020;
/// Of a file's mode: everybody may write it.
const EVERYBODY: u32 = 0o002;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    struct Bed {
        _directory: tempfile::TempDir,
        here: PathBuf,
        system: PathBuf,
        own: [u32; 2],
    }

    fn bed() -> Bed {
        let directory = tempfile::tempdir().unwrap();
        let [here, system] = ["here", "system"].map(|name| {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path.join("sealgate.toml")
        });
        write(&here, 0o644);
        write(&system, 0o666);
        let uid = here.metadata().unwrap().uid();
        Bed { _directory: directory, here, system, own: [uid, uid] }
    }

    fn write(path: &Path, mode: u32) {
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// No user has it.
    const NOBODY: [u32; 2] = [u32::MAX; 2];

    #[test]
    fn a_file_of_ones_own_in_the_working_directory_comes_first() {
        let Bed { here, system, own, _directory } = &bed();
        let first = || first_of(here, system, *own);
        assert_eq!(first().unwrap(), *here);
        std::fs::remove_file(here).unwrap();
        assert_eq!(first().unwrap(), *system);
        symlink(system, here).unwrap();
        assert_eq!(first().unwrap(), *system, "it is the system's own");
        std::fs::remove_file(here).unwrap();
        std::fs::remove_file(system).unwrap();
        let error = first().unwrap_err().to_string();
        assert!(error.contains("sealgate init") && error.contains("--config"), "{error}");
    }

    /// To advise `sealgate init` would be wrong where it is there and this user may not look.
    #[test]
    fn a_file_that_cannot_be_looked_for_is_not_taken_for_none() {
        let Bed { here, system, own, _directory } = &bed();
        std::fs::remove_file(here).unwrap();
        // Whoever runs this may look into every directory: one that is none cannot be looked into either.
        let closed = system.join("sealgate.toml");
        assert_eq!(first_of(here, &closed, *own).unwrap(), closed);
    }

    #[test]
    fn neither_a_file_of_another_user_nor_the_systems_in_its_place_is_used() {
        let Bed { here, system, own, _directory } = &bed();
        let error = first_of(here, system, NOBODY).unwrap_err().to_string();
        let owner = format!("user with id {}", own[0]);
        let name = here.display().to_string();
        assert!(error.contains(&owner) && error.contains(&format!("--config {name}")), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert_eq!(find(Some(here)).unwrap(), *here);
    }

    #[test]
    fn a_file_that_others_may_write_is_not_used() {
        let Bed { here, system, own, _directory } = &bed();
        let uid = own[0];
        let foreign = uid.wrapping_add(1);
        for (mode, gid) in [(0o646, uid), (0o666, uid), (0o664, foreign)] {
            write(here, mode);
            // Only root may give a file to a group that he is not in.
            if std::os::unix::fs::chown(here, None, Some(gid)).is_err() {
                assert_ne!(uid, 0, "root may");
                continue;
            }
            let error = first_of(here, system, *own).unwrap_err().to_string();
            assert!(error.contains(&format!("0{mode:o}")) && error.contains("go-w"), "{error}");
        }
        // A private group's number is its user's.
        if uid == here.metadata().unwrap().gid() || uid == 0 {
            write(here, 0o664);
            std::os::unix::fs::chown(here, None, Some(uid)).unwrap();
            assert_eq!(first_of(here, system, *own).unwrap(), *here);
        }
    }
}
