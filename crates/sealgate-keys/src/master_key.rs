//! The master key: 32 bytes outside the database, under which every secret key in it is wrapped.
//!
//! In: a [`SecretSource`] with 32 raw bytes, or their hexadecimal or base64 text. Out: a [`MasterKey`] that wraps and unwraps
//! with AES-256-GCM (NIST SP 800-38D), a random 96-bit nonce a row, and table, id and owner of the row as associated
//! data, so that a row that was moved or given to another owner is refused. A wrapped value is version, nonce,
//! ciphertext, tag.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use sealgate_core::hex;
use zeroize::{Zeroize, Zeroizing};

use crate::error::StoreError;
use crate::secret_source::SecretSource;

pub(crate) mod held;
pub(crate) mod successor;

/// The key itself.
pub struct MasterKey {
    key: RandomizedNonceKey,
}

impl MasterKey {
    /// Reads the key.
    ///
    /// # Errors
    /// [`StoreError::Secret`] where it is missing, readable by others, or no key.
    pub fn read(source: &SecretSource) -> Result<Self, StoreError> {
        let bytes = source.read()?;
        Self::parse(&bytes).ok_or_else(|| {
            source.error("not a master key: 32 bytes, or 64 hexadecimal digits, or 44 of base64")
        })
    }

    /// Makes a new key and writes it to a file that must not exist, mode 0600.
    ///
    /// # Errors
    /// [`StoreError::Secret`] where the file exists or cannot be written.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let source = SecretSource::File(path.to_owned());
        let text = new_key_text().map_err(|why| source.error(why))?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let made = options.open(path).map_err(|error| source.error(&error.to_string()));
        let mut file = made?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let written = written.map_err(|error| source.error(&error.to_string()));
        let read = written.and_then(|()| Self::read(&source));
        if read.is_err() {
            // A part of a key would be in the way of the next attempt.
            let _ = std::fs::remove_file(path);
        }
        read
    }

    /// Wraps a secret for one row.
    ///
    /// # Errors
    /// [`StoreError::Secret`] when the cryptographic library fails.
    pub fn wrap(&self, row: &Row<'_>, secret: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut sealed = secret.to_vec();
        let Ok(nonce) = self.key.seal_in_place_append_tag(row.associated_data(), &mut sealed)
        else {
            sealed.zeroize();
            let why = "the cryptographic library failed".to_owned();
            return Err(StoreError::Secret { source: String::new(), why });
        };
        let mut wrapped = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        wrapped.push(VERSION);
        wrapped.extend_from_slice(nonce.as_ref());
        wrapped.extend_from_slice(&sealed);
        Ok(wrapped)
    }

    /// Unwraps what [`Self::wrap`] made for the same row.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for another row, another key or changed bytes.
    pub fn unwrap(&self, row: &Row<'_>, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let corrupt = || StoreError::Corrupt { table: row.table, owner: row.owner.to_owned() };
        let (version, rest) = wrapped.split_first().ok_or_else(corrupt)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or_else(corrupt)?;
        if *version != VERSION {
            return Err(corrupt());
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| corrupt())?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let plain_bytes = self
            .key
            .open_in_place(nonce, row.associated_data(), &mut buffer)
            .map_err(|_| corrupt())?
            .len();
        buffer.truncate(plain_bytes);
        Ok(buffer)
    }

    /// Whether two are one key.
    ///
    /// # Errors
    /// [`StoreError::Secret`] when the cryptographic library fails.
    pub(crate) fn is_same(&self, other: &Self) -> Result<bool, StoreError> {
        let row = Row { table: "comparison", id: "", owner: "" };
        Ok(self.unwrap(&row, &other.wrap(&row, b"")?).is_ok())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() == KEY_BYTES {
            return Self::from_bytes(bytes);
        }
        let text = std::str::from_utf8(bytes).ok()?.trim();
        let key = Zeroizing::new(if text.len() == 2 * KEY_BYTES {
            hex::read(text)?
        } else {
            decode_base64(text)?
        });
        Self::from_bytes(&key)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != KEY_BYTES {
            return None;
        }
        Some(Self { key: RandomizedNonceKey::new(&AES_256_GCM, bytes).ok()? })
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// The row that a wrapped secret belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The table.
    pub table: &'static str,
    /// The row's id.
    pub id: &'a str,
    /// Address or domain.
    pub owner: &'a str,
}

impl Row<'_> {
    /// Each part with its length before it, so that no two rows give the same bytes.
    fn associated_data(&self) -> Aad<Vec<u8>> {
        let mut data = Vec::new();
        for part in [self.table, self.id, self.owner] {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(part.as_bytes());
        }
        Aad::from(data)
    }
}

/// What a new key's file holds: hexadecimal digits and the line's end.
fn new_key_text() -> Result<Zeroizing<String>, &'static str> {
    let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice())
        .map_err(|_| "the random number generator failed")?;
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
    hex::write(&mut text, bytes.as_slice());
    text.push('\n');
    Ok(text)
}

/// RFC 4648 §4, for the one length that a key has.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_suffix('=').filter(|digits| digits.len() == BASE64_DIGITS)?;
    let mut bits: u32 = 0;
    let mut held: u32 = 0;
    let mut bytes = Vec::with_capacity(KEY_BYTES + 1);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

const KEY_BYTES: usize = 32;
/// Base64 digits of a key without the one `=`.
const BASE64_DIGITS: usize = 43;
/// Of the format of wrapped values.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ROW: Row<'_> = Row { table: "secret_keys", id: "1", owner: "alice@nec.example" };

    fn key() -> MasterKey {
        MasterKey::from_bytes(&[7; KEY_BYTES]).unwrap()
    }

    #[test]
    fn what_is_wrapped_is_unwrapped_for_its_row_only() {
        let wrapped = key().wrap(&ROW, b"secret").unwrap();
        assert_eq!(key().unwrap(&ROW, &wrapped).unwrap().as_slice(), b"secret");
        for row in [
            Row { table: "own_authorities", ..ROW },
            Row { id: "2", ..ROW },
            Row { owner: "bob@nec.example", ..ROW },
            Row { id: "1a", owner: "lice@nec.example", ..ROW },
        ] {
            assert!(key().unwrap(&row, &wrapped).is_err(), "{row:?}");
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let wrapped = key().wrap(&ROW, b"secret").unwrap();
        for index in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[index] ^= 1;
            assert!(key().unwrap(&ROW, &changed).is_err(), "byte {index}");
            assert!(key().unwrap(&ROW, &wrapped[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(key().wrap(&ROW, b"secret").unwrap(), key().wrap(&ROW, b"secret").unwrap());
    }

    #[test]
    fn three_forms_of_a_key_file_are_one_key() {
        let raw: Vec<u8> = (0..32).collect();
        let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
        let base64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
        let wrapped = MasterKey::parse(&raw).unwrap().wrap(&ROW, b"secret").unwrap();
        for form in [hex.as_bytes(), base64.as_bytes()] {
            let plain = MasterKey::parse(form).unwrap().unwrap(&ROW, &wrapped).unwrap();
            assert_eq!(plain.as_slice(), b"secret");
        }
        for form in [&b""[..], b"short", &hex.as_bytes()[1..], &base64.as_bytes()[1..], &raw[1..]] {
            assert!(MasterKey::parse(form).is_none());
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        MasterKey::create(&path).unwrap();
        assert!(MasterKey::create(&path).is_err(), "an existing key must not be overwritten");
        let source = SecretSource::File(path.clone());
        assert!(MasterKey::read(&source).is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = source.read().unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }
}
