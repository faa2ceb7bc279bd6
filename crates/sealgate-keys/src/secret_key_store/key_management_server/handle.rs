//! The handle of a key at a key management server: it asks the server to sign and to decrypt.

use std::fmt;
use std::sync::{Arc, OnceLock};

use sealgate_core::keys::{
    Certificate, Digest, KeyError, KeyTransport, SecretKey, SignatureScheme, SoftwareKey,
};
use zeroize::Zeroizing;

use super::{Keeper, KmipGet};
use crate::error::StoreError;
use crate::kmip::client::CallError;
use crate::kmip::enumeration::{
    CryptographicAlgorithm, HashingAlgorithm, Operation, PaddingMethod, ResultReason,
};
use crate::kmip::request::{KeyUse, Parameters, Request};
use crate::kmip::response::Response;
use crate::secret_key_store::{NewSecretKey, proof};

/// The handle.
pub(super) struct KmipKey {
    server: Arc<Keeper>,
    id: String,
    certificate: Arc<Certificate>,
    /// The key itself, where the server cannot use it.
    fetched: OnceLock<SoftwareKey>,
}

impl fmt::Debug for KmipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmipKey({})", self.id)
    }
}

impl KmipKey {
    pub(super) fn new(
        server: Arc<Keeper>,
        id: String,
        certificate: Arc<Certificate>,
        fetched: Option<SoftwareKey>,
    ) -> Self {
        let fetched = fetched.map_or_else(OnceLock::new, OnceLock::from);
        Self { server, id, certificate, fetched }
    }

    /// Lets the server do it; [`Remote::Cannot`] where it does not do such things.
    fn remotely(
        &self,
        operation: Operation,
        parameters: Parameters,
        data: &[u8],
    ) -> Result<Remote, KeyError> {
        if !self.server.can(operation).map_err(|error| away(&error))? {
            return Ok(Remote::Cannot(format!("the server has no {operation:?}")));
        }
        let used = KeyUse { id: self.id.clone(), parameters, data: Zeroizing::new(data.to_vec()) };
        let request =
            if operation == Operation::Sign { Request::Sign(used) } else { Request::Decrypt(used) };
        match self.server.client.call(request) {
            Ok(Response::Result { data, .. }) => Ok(Remote::Done(data)),
            Ok(other) => Err(KeyError::Unavailable(format!("an odd answer: {other:?}"))),
            Err(CallError::Refused(failure)) => match failure.reason {
                ResultReason::CryptographicFailure => Err(KeyError::Failed),
                // The key may be back, or its handle forgotten, when the mail is tried again.
                ResultReason::GeneralFailure
                | ResultReason::ItemNotFound
                | ResultReason::AuthenticationNotSuccessful => {
                    Err(KeyError::Unavailable(failure.to_string()))
                }
                _ => Ok(Remote::Cannot(failure.to_string())),
            },
            Err(error) => Err(away(&error)),
        }
    }

    /// The key itself, fetched once.
    fn fetched(&self, why: String) -> Result<&SoftwareKey, KeyError> {
        if let Some(key) = self.fetched.get() {
            return Ok(key);
        }
        if self.server.get == KmipGet::Never {
            return Err(KeyError::Unavailable(why));
        }
        let fetch = self.server.fetch(&self.id);
        let key = fetch.map_err(|error| KeyError::Unavailable(format!("{why}; {error}")))?;
        if key.public_key_bytes() != self.certificate.public_key_bytes() {
            let why = format!("object {}: not the key of its certificate", self.id);
            return Err(KeyError::Unavailable(why));
        }
        Ok(self.fetched.get_or_init(|| key))
    }
}

enum Remote {
    Cannot(String),
    Done(Zeroizing<Vec<u8>>),
}

impl SecretKey for KmipKey {
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if let Some(key) = self.fetched.get() {
            return key.sign(scheme, message);
        }
        match self.remotely(Operation::Sign, for_signing(scheme), message)? {
            Remote::Done(signature) => Ok(signature.to_vec()),
            Remote::Cannot(why) => self.fetched(why)?.sign(scheme, message),
        }
    }

    fn unwrap(&self, transport: &KeyTransport<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        if let Some(key) = self.fetched.get() {
            return key.unwrap(transport);
        }
        let Some((parameters, data)) = for_decrypting(transport) else {
            return Err(KeyError::Failed);
        };
        match self.remotely(Operation::Decrypt, parameters, data)? {
            Remote::Done(plain) => Ok(plain),
            Remote::Cannot(why) => self.fetched(why)?.unwrap(transport),
        }
    }
}

fn for_signing(scheme: SignatureScheme) -> Parameters {
    let (algorithm, padding, digest) = match scheme {
        SignatureScheme::Ecdsa(digest) => (CryptographicAlgorithm::Ecdsa, None, Some(digest)),
        SignatureScheme::Ed25519 => return Parameters::default(),
        SignatureScheme::RsaPkcs1(digest) => {
            (CryptographicAlgorithm::Rsa, Some(PaddingMethod::Pkcs1), Some(digest))
        }
        SignatureScheme::RsaPss(digest) => {
            (CryptographicAlgorithm::Rsa, Some(PaddingMethod::Pss), Some(digest))
        }
        _ => return Parameters::default(),
    };
    Parameters { padding, hashing: digest.map(hashing), algorithm: Some(algorithm) }
}

fn for_decrypting<'a>(transport: &KeyTransport<'a>) -> Option<(Parameters, &'a [u8])> {
    let rsa = Some(CryptographicAlgorithm::Rsa);
    match transport {
        KeyTransport::Ecdh { ephemeral } => {
            let algorithm = Some(CryptographicAlgorithm::Ecdh);
            Some((Parameters { algorithm, ..Parameters::default() }, ephemeral))
        }
        KeyTransport::RsaOaep { digest, encrypted_key } => {
            let padding = Some(PaddingMethod::Oaep);
            let hashing = Some(hashing(*digest));
            Some((Parameters { padding, hashing, algorithm: rsa }, encrypted_key))
        }
        KeyTransport::RsaPkcs1 { encrypted_key } => {
            let padding = Some(PaddingMethod::Pkcs1);
            Some((Parameters { padding, hashing: None, algorithm: rsa }, encrypted_key))
        }
        _ => None,
    }
}

fn hashing(digest: Digest) -> HashingAlgorithm {
    match digest {
        Digest::Sha1 => HashingAlgorithm::Sha1,
        Digest::Sha256 => HashingAlgorithm::Sha256,
        Digest::Sha384 => HashingAlgorithm::Sha384,
        Digest::Sha512 => HashingAlgorithm::Sha512,
    }
}

fn away(error: &CallError) -> KeyError {
    KeyError::Unavailable(error.to_string())
}

/// Whether a key that was just taken in is the one that it should be.
pub(super) fn prove(handle: &KmipKey, key: &NewSecretKey) -> Result<(), StoreError> {
    proof::prove(handle, key).map_err(|why| {
        StoreError::Input(format!("{}: the key management server: {why}", key.owner))
    })
}
