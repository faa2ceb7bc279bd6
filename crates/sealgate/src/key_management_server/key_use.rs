//! Signing and decrypting with a key that stays here.
//!
//! A key is used only for what its certificate says, for a client that is entitled to its owner and to the operation, and not
//! too often. All decryptions that fail give one answer.

use std::time::Instant;

use sealgate_core::keys::{Digest, KeyKind, KeyTransport, SecretKey, SignatureScheme};
use sealgate_keys::key_ring::{KeyEntry, RingKey};
use sealgate_keys::kmip::enumeration::{
    CryptographicAlgorithm, HashingAlgorithm, PaddingMethod, ResultReason,
};
use sealgate_keys::kmip::request::{KeyUse, Parameters};
use sealgate_keys::kmip::response::{Failure, Response};
use sealgate_keys::secret_key_store::{KeyPurpose, KeyState};
use zeroize::Zeroizing;

use super::audit::Event;
use super::operations::{
    DONE, Desk, FAILED, Found, REFUSED, failure, not_audited, serves, store_failure,
};
use super::rate::Taken;
use crate::config::KeyOperation;
use crate::relay::crypto_threads;

impl Desk<'_> {
    /// Signs a message.
    pub(super) async fn sign(&self, used: KeyUse) -> Result<Response, Failure> {
        let key = self.key("sign", &used, KeyOperation::Sign, KeyPurpose::Sign).await?;
        let kind = key.entry.certificate.key_kind();
        let pss_only = key.entry.certificate.is_pss_only();
        let scheme = scheme(kind, pss_only, &used.parameters).map_err(|text| {
            self.not_so("sign", &key.entry, &used, ResultReason::InvalidField, text)
        })?;
        let work =
            move |key: &dyn SecretKey, data: &[u8]| key.sign(scheme, data).map(Zeroizing::new).ok();
        self.work("sign", key, used, work)
    }

    /// Decrypts a content-encryption key, or agrees on a shared secret.
    pub(super) async fn decrypt(&self, used: KeyUse) -> Result<Response, Failure> {
        let key = self.key("decrypt", &used, KeyOperation::Decrypt, KeyPurpose::Encrypt).await?;
        let way = way(key.entry.certificate.key_kind(), &used.parameters).map_err(|text| {
            self.not_so("decrypt", &key.entry, &used, ResultReason::InvalidField, text)
        })?;
        let work = move |key: &dyn SecretKey, data: &[u8]| key.unwrap(&way.with(data)).ok();
        self.work("decrypt", key, used, work)
    }

    /// The key, where the client may use it so.
    async fn key(
        &self,
        name: &str,
        used: &KeyUse,
        operation: KeyOperation,
        purpose: KeyPurpose,
    ) -> Result<RingKey, Failure> {
        let id = &used.id;
        let Found::Key(entry) = self.find(name, id).await? else {
            let text = "this is a certificate, not a private key";
            return Err(failure(ResultReason::IllegalOperation, text));
        };
        self.entitled(operation, name, &entry)?;
        if !serves(&entry, purpose) {
            let reason = ResultReason::IllegalOperation;
            return Err(self.not_so(name, &entry, used, reason, "this key is not for that"));
        }
        // The relay cannot have mail for one decrypted, or signed, with the key of another.
        self.client.may_use_for(&entry.owner, used.used_for.as_deref()).map_err(|text| {
            self.not_so(name, &entry, used, ResultReason::PermissionDenied, text)
        })?;
        // KMIP 1.4 §3.22: it processes what was protected before, and protects nothing more.
        if purpose == KeyPurpose::Sign && entry.state != KeyState::Active {
            let text = "this key was revoked and signs no more";
            return Err(self.not_so(name, &entry, used, ResultReason::PermissionDenied, text));
        }
        self.take_use(&entry, name)?;
        let key = self.server.ring.key(id).await.map_err(|error| store_failure(&error))?;
        key.ok_or_else(|| failure(ResultReason::ItemNotFound, "no such object"))
    }

    /// Refuses a use, in the same words to the client and in the audit.
    fn not_so(
        &self,
        operation: &str,
        entry: &KeyEntry,
        used: &KeyUse,
        why: ResultReason,
        text: &str,
    ) -> Failure {
        let sha256 = entry.certificate.fingerprint().to_string();
        let (outcome, reason) = (REFUSED, text);
        let used_for = used.used_for.as_deref().unwrap_or_default();
        let event = Event { operation, outcome, reason, used_for, ..self.event_of(entry, &sha256) };
        self.refuse(event, why, text)
    }

    /// Counts one use of a key; too many are audited once.
    pub(super) fn take_use(&self, entry: &KeyEntry, operation: &str) -> Result<(), Failure> {
        let config = &self.settings.config;
        let is_domain = entry.owner.starts_with('@');
        let per_minute =
            if is_domain { config.domain_uses_per_minute } else { config.uses_per_minute };
        let taken =
            self.server.rates.take(&self.client.name, &entry.id, per_minute, Instant::now());
        if taken == Taken::NoMore {
            let sha256 = entry.certificate.fingerprint().to_string();
            let event = Event {
                operation,
                outcome: REFUSED,
                reason: "rate limit",
                ..self.event_of(entry, &sha256)
            };
            self.record(&event)?;
        }
        if taken == Taken::Yes {
            return Ok(());
        }
        let text = format!("rate limit: {per_minute} uses of one key a minute");
        Err(failure(ResultReason::GeneralFailure, text))
    }

    /// Uses the key, on the thread of its connection, and writes down how it went before anybody learns the result.
    fn work(
        &self,
        operation: &'static str,
        key: RingKey,
        used: KeyUse,
        work: impl FnOnce(&dyn SecretKey, &[u8]) -> Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Response, Failure> {
        let KeyUse { id, data, used_for, .. } = used;
        let done = crypto_threads::caught(|| {
            let result = work(key.secret.as_ref(), &data);
            let sha256 = key.entry.certificate.fingerprint().to_string();
            let outcome = if result.is_some() { DONE } else { FAILED };
            let used_for = used_for.as_deref().unwrap_or_default();
            let event =
                Event { operation, outcome, used_for, ..self.event_of(&key.entry, &sha256) };
            self.server.audit.record(&event).map(|()| result)
        });
        let Ok(written) = done else {
            let text = "the key server has an internal error: its log names the place";
            return Err(failure(ResultReason::GeneralFailure, text));
        };
        let result = written.map_err(|_| not_audited())?;
        match result {
            Some(data) => Ok(Response::Result { id, data }),
            // One text for all reasons: the difference would be an oracle.
            None => {
                let text = format!("{operation}: the key operation failed");
                Err(failure(ResultReason::CryptographicFailure, text))
            }
        }
    }
}

/// How a key of this kind signs under these parameters (KMIP 1.4 §3.6).
fn scheme(
    kind: KeyKind,
    pss_only: bool,
    parameters: &Parameters,
) -> Result<SignatureScheme, &'static str> {
    let hashing = parameters.hashing.map(digest).transpose()?;
    if hashing == Some(Digest::Sha1) {
        return Err("nothing is signed with SHA-1: name SHA-256, SHA-384 or SHA-512");
    }
    let curve = |usual| Ok(SignatureScheme::Ecdsa(hashing.unwrap_or(usual)));
    match kind {
        KeyKind::Rsa { .. } => {
            let hashing = hashing.ok_or("name a Hashing Algorithm to sign with an RSA key")?;
            match parameters.padding {
                Some(PaddingMethod::Pss) => Ok(SignatureScheme::RsaPss(hashing)),
                Some(PaddingMethod::Pkcs1) if !pss_only => Ok(SignatureScheme::RsaPkcs1(hashing)),
                _ => Err(
                    "sign with Padding Method PKCS1 v1.5 or PSS, as the key's certificate allows",
                ),
            }
        }
        KeyKind::P256 => curve(Digest::Sha256),
        KeyKind::P384 => curve(Digest::Sha384),
        KeyKind::P521 => curve(Digest::Sha512),
        KeyKind::Ed25519 => Ok(SignatureScheme::Ed25519),
        _ => Err("a key of this kind does not sign"),
    }
}

/// How something is decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ecdh,
    Oaep(Digest),
    Pkcs1,
}

impl Way {
    fn with(self, data: &[u8]) -> KeyTransport<'_> {
        match self {
            Self::Ecdh => KeyTransport::Ecdh { ephemeral: data },
            Self::Oaep(digest) => KeyTransport::RsaOaep { digest, encrypted_key: data },
            Self::Pkcs1 => KeyTransport::RsaPkcs1 { encrypted_key: data },
        }
    }
}

/// How a key of this kind decrypts under these parameters.
fn way(kind: KeyKind, parameters: &Parameters) -> Result<Way, &'static str> {
    let agrees = parameters.algorithm == Some(CryptographicAlgorithm::Ecdh);
    match (kind, parameters.padding) {
        (KeyKind::Rsa { .. }, _) if agrees => Err("an RSA key does no ECDH"),
        (KeyKind::Rsa { .. }, Some(PaddingMethod::Pkcs1)) => Ok(Way::Pkcs1),
        (KeyKind::Rsa { .. }, Some(PaddingMethod::Oaep)) => {
            // Without one it is SHA-1 (KMIP 1.4 §3.6, RFC 8017 appendix A.2.1).
            Ok(Way::Oaep(parameters.hashing.map_or(Ok(Digest::Sha1), digest)?))
        }
        (KeyKind::Rsa { .. }, _) => Err("decrypt with Padding Method PKCS1 v1.5 or OAEP"),
        _ if agrees => Ok(Way::Ecdh),
        _ => Err("decrypt with Cryptographic Algorithm ECDH: the data is the ephemeral point"),
    }
}

fn digest(hashing: HashingAlgorithm) -> Result<Digest, &'static str> {
    match hashing {
        HashingAlgorithm::Sha1 => Ok(Digest::Sha1),
        HashingAlgorithm::Sha256 => Ok(Digest::Sha256),
        HashingAlgorithm::Sha384 => Ok(Digest::Sha384),
        HashingAlgorithm::Sha512 => Ok(Digest::Sha512),
        HashingAlgorithm::Other(_) => Err("a Hashing Algorithm that is not used here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(padding: Option<PaddingMethod>, hashing: Option<HashingAlgorithm>) -> Parameters {
        Parameters { padding, hashing, algorithm: None }
    }

    #[test]
    fn parameters_say_how_to_sign() {
        let rsa = KeyKind::Rsa { bits: 3072 };
        let sha256 = Some(HashingAlgorithm::Sha256);
        let pkcs1 = parameters(Some(PaddingMethod::Pkcs1), sha256);
        let pss = parameters(Some(PaddingMethod::Pss), sha256);
        assert_eq!(scheme(rsa, false, &pkcs1), Ok(SignatureScheme::RsaPkcs1(Digest::Sha256)));
        assert_eq!(scheme(rsa, true, &pss), Ok(SignatureScheme::RsaPss(Digest::Sha256)));
        assert!(scheme(rsa, true, &pkcs1).is_err(), "a PSS key");
        assert!(scheme(rsa, false, &parameters(Some(PaddingMethod::Pss), None)).is_err());
        assert!(scheme(rsa, false, &parameters(None, sha256)).is_err());
        let sha1 = parameters(Some(PaddingMethod::Pss), Some(HashingAlgorithm::Sha1));
        assert!(scheme(rsa, false, &sha1).is_err());
        let none = Parameters::default();
        let of_curve = SignatureScheme::Ecdsa(Digest::Sha384);
        assert_eq!(scheme(KeyKind::P384, false, &none), Ok(of_curve));
        assert_eq!(scheme(KeyKind::Ed25519, false, &none), Ok(SignatureScheme::Ed25519));
        assert!(scheme(KeyKind::X25519, false, &none).is_err());
    }

    #[test]
    fn parameters_say_how_to_decrypt() {
        let rsa = KeyKind::Rsa { bits: 3072 };
        let of = |padding, hashing| way(rsa, &parameters(padding, hashing));
        assert_eq!(of(Some(PaddingMethod::Pkcs1), None), Ok(Way::Pkcs1));
        assert_eq!(of(Some(PaddingMethod::Oaep), None), Ok(Way::Oaep(Digest::Sha1)));
        let sha512 = Some(HashingAlgorithm::Sha512);
        assert_eq!(of(Some(PaddingMethod::Oaep), sha512), Ok(Way::Oaep(Digest::Sha512)));
        assert!(of(None, None).is_err() && of(Some(PaddingMethod::Pss), None).is_err());
        let ecdh =
            Parameters { algorithm: Some(CryptographicAlgorithm::Ecdh), ..Parameters::default() };
        assert_eq!(way(KeyKind::P256, &ecdh), Ok(Way::Ecdh));
        assert!(way(rsa, &ecdh).is_err() && way(KeyKind::P256, &Parameters::default()).is_err());
    }
}
