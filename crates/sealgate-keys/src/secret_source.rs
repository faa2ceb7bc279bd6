//! Where a small secret is: the master key, a token's PIN, a directory's password. Never in the configuration itself.
//!
//! In: a file that nobody but its owner may read, or a systemd credential. Out: its bytes, wiped when dropped.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::StoreError;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A systemd credential (`LoadCredential=`, `LoadCredentialEncrypted=`).
    Credential(String),
    /// A file with mode 0600 or less.
    File(PathBuf),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(name) => write!(f, "credential {name}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl SecretSource {
    /// The bytes as they stand there, `SECRET_BYTES_MAX` of them at most.
    ///
    /// # Errors
    /// [`StoreError::Secret`] where it is missing, longer or readable by others.
    pub fn read(&self) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        match self {
            Self::Credential(name) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    self.error(
                        "$CREDENTIALS_DIRECTORY is not set: systemd sets it for the unit; run a command with `systemd-run -P -p \
                         User=sealgate -p LoadCredentialEncrypted=NAME:FILE sealgate ...`",
                    )
                })?;
                // systemd guards its credentials with an access list, which shows in the mode's group bits.
                self.read_file(&Path::new(&directory).join(name), OTHERS_ONLY)
            }
            Self::File(path) => self.read_file(path, GROUP_AND_OTHERS),
        }
    }

    /// The text as it stands there, without the line's end: a password or PIN.
    ///
    /// # Errors
    /// [`StoreError::Secret`] as [`Self::read`], and where it is empty or no text.
    pub fn read_line(&self) -> Result<Zeroizing<String>, StoreError> {
        let bytes = self.read()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| self.error("not UTF-8 text"))?;
        // A byte order mark is an editor's, and no secret's.
        let line = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
        if line.is_empty() || line.contains('\n') {
            return Err(self.error("write the secret into it, as one line"));
        }
        Ok(Zeroizing::new(line.to_owned()))
    }

    /// Where the next secret lies before it takes this one's place.
    pub fn successor(&self) -> Self {
        self.beside(".new")
    }

    /// Where the one before this lies.
    pub(crate) fn former(&self) -> Self {
        self.beside(".old")
    }

    /// All that are kept from before this one, the last first.
    pub(crate) fn formers(&self) -> impl Iterator<Item = Self> {
        let numbered = (1..=FORMERS_MAX).map(|number| self.beside(&format!(".old.{number}")));
        std::iter::once(self.former()).chain(numbered)
    }

    /// The same name with an ending; beside the file itself where a link leads to it.
    fn beside(&self, ending: &str) -> Self {
        match self {
            Self::Credential(name) => Self::Credential(format!("{name}{ending}")),
            Self::File(path) => {
                let mut name =
                    path.canonicalize().unwrap_or_else(|_| path.clone()).into_os_string();
                name.push(ending);
                Self::File(PathBuf::from(name))
            }
        }
    }

    fn read_file(&self, path: &Path, forbidden: u32) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let file = File::open(path).map_err(|error| self.error(&error.to_string()))?;
        let metadata = file.metadata().map_err(|error| self.error(&error.to_string()))?;
        if metadata.mode() & forbidden != 0 {
            let mode = metadata.mode() & 0o777;
            let path = path.display();
            return Err(
                self.error(&format!("others may read it (mode {mode:04o}): chmod 600 {path}"))
            );
        }
        // One more shows that there is more; nothing is left behind by a vector that grows.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX.saturating_add(1)));
        let limit = u64::try_from(SECRET_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).map_err(|error| self.error(&error.to_string()))?;
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(self.error(&format!("longer than {SECRET_BYTES_MAX} octets")));
        }
        Ok(bytes)
    }

    pub(crate) fn error(&self, why: &str) -> StoreError {
        StoreError::Secret { source: self.to_string(), why: why.to_owned() }
    }
}

/// A master key has at most 64 digits and white space; a password is not longer.
const SECRET_BYTES_MAX: usize = 256;
/// Former secrets that are kept under numbers.
pub(crate) const FORMERS_MAX: u32 = 999;
const GROUP_AND_OTHERS: u32 = 0o077;
const OTHERS_ONLY: u32 = 0o007;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_without_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        let source = SecretSource::File(path.clone());
        assert!(source.read_line().is_err(), "missing");
        for (text, line) in [
            ("1234\n", Some("1234")),
            (" 1 \r\n", Some(" 1 ")),
            ("\u{feff}1234\n", Some("1234")),
            ("\n", None),
            ("\u{feff}\n", None),
            ("a\nb\n", None),
        ] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .unwrap();
            let read = source.read_line().ok();
            assert_eq!(read.as_ref().map(|read| read.as_str()), line, "{text:?}");
        }
    }

    #[test]
    fn a_secret_that_is_too_long_is_refused_and_not_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let source = SecretSource::File(path.clone());
        let longest = "x".repeat(SECRET_BYTES_MAX);
        std::fs::write(&path, &longest).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        assert_eq!(source.read_line().unwrap().as_str(), longest);
        std::fs::write(&path, format!("{longest}x")).unwrap();
        let text = source.read_line().unwrap_err().to_string();
        assert!(text.ends_with("longer than 256 octets"), "{text}");
        assert!(!text.contains('x'.to_string().repeat(9).as_str()), "{text}");
    }
}
