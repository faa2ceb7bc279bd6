//! Files that commands read and write.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sealgate_keys::StoreError;
use sealgate_keys::import::{FILE_BYTES_MAX, Material};
use zeroize::Zeroizing;

use super::Failure;

/// Reads a file with keys or certificates, bounded.
pub(crate) fn read_material(path: &Path, password: Option<&str>) -> Result<Material, Failure> {
    let bytes = read_bounded(path, FILE_BYTES_MAX)?;
    Material::read(&bytes, password).map_err(|error| of_file(path, &error))
}

/// Reads a password file: its first line.
pub(crate) fn read_password(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = read_bounded(path, PASSWORD_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::Data(format!("{}: the password is not UTF-8", path.display())))?;
    // A byte order mark is an editor's, and no password's.
    let text = text.trim_start_matches('\u{feff}');
    let first = text.split(['\r', '\n']).next().unwrap_or_default();
    Ok(Zeroizing::new(first.to_owned()))
}

/// An error about a file's content.
pub(crate) fn of_file(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Data(format!("{}: {error}", path.display()))
}

/// A store's refusal of a file's content, with the file's name before it.
pub(crate) fn store_refusal(path: &Path, error: StoreError) -> Failure {
    match error {
        StoreError::Input(why) | StoreError::Exists(why) => of_file(path, &why),
        other => Failure::from(other),
    }
}

/// Writes a new file, which must not exist.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let written = options.open(path).and_then(|mut file| {
        // A part of it would be in the way of the next attempt.
        file.write_all(bytes).inspect_err(|_| drop(std::fs::remove_file(path)))
    });
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Data(format!("{}: exists already and is left alone", path.display()))
        }
        _ => Failure::file(path, &error),
    })
}

/// Writes a file, replacing what is there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| Failure::file(path, &error))
}

fn read_bounded(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::file(path, &error))?;
    // One more than allowed, so that the reader of the bytes can tell.
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit).read_to_end(&mut bytes).map_err(|error| Failure::file(path, &error))?;
    Ok(bytes)
}

const PASSWORD_BYTES_MAX: usize = 4096;
