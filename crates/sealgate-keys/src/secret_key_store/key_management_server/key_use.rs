//! One use of a key: what is to be done, how KMIP says it (KMIP 1.4 §3.6, §4.30, §4.31), and how the key itself does it.

use sealgate_core::keys::{
    Digest, KeyError, KeyTransport, SecretKey as _, SignatureScheme, SoftwareKey,
};
use zeroize::Zeroizing;

use super::keeper::{Fault, There, unavailable};
use crate::kmip::client::CallError;
use crate::kmip::enumeration::{
    CryptographicAlgorithm, HashingAlgorithm, Operation, PaddingMethod, ResultReason,
};
use crate::kmip::request::{KeyUse, Parameters, Request};
use crate::kmip::response::{Failure, Response};

/// What is to be done.
#[derive(Clone, Copy)]
pub(super) enum Act<'a> {
    Sign(SignatureScheme, &'a [u8]),
    Unwrap(&'a KeyTransport<'a>),
}

/// Why a server did not do it.
#[derive(Debug)]
pub(super) enum NotDone {
    /// The server, or the way to it.
    Fault(Fault),
    /// It does no such thing, with no key.
    Never(String),
    /// It refuses.
    Refused(Failure),
}

impl NotDone {
    /// Whether a server may say so of a padding that is wrong, as well as of something else: PyKMIP says General Failure of
    /// whatever it did not foresee, others Operation Not Supported. Three are plain: a cryptographic failure is the
    /// ciphertext's, a key that is not there and a stranger have nothing to do with it.
    pub(super) fn may_mean_the_ciphertext(&self) -> bool {
        match self {
            Self::Fault(_) => false,
            Self::Never(_) => true,
            Self::Refused(failure) => !matches!(
                failure.reason,
                ResultReason::AuthenticationNotSuccessful
                    | ResultReason::CryptographicFailure
                    | ResultReason::ItemNotFound
            ),
        }
    }
}

impl From<Fault> for NotDone {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Act<'_> {
    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Sign(..) => Operation::Sign,
            Self::Unwrap(_) => Operation::Decrypt,
        }
    }

    /// With the key itself.
    pub(super) fn locally(&self, key: &SoftwareKey) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match *self {
            Self::Sign(scheme, message) => key.sign(scheme, message).map(Zeroizing::new),
            Self::Unwrap(transport) => key.unwrap(transport),
        }
    }

    /// `None` where KMIP cannot say it.
    fn in_kmip(&self) -> Option<(Parameters, &[u8])> {
        match self {
            Self::Sign(scheme, message) => Some((for_signing(*scheme), message)),
            Self::Unwrap(transport) => for_decrypting(transport),
        }
    }

    /// Lets a server do it with its key of this identifier, for this address.
    pub(super) fn at(
        &self,
        there: &There<'_>,
        id: &str,
        address: &str,
    ) -> Result<Zeroizing<Vec<u8>>, NotDone> {
        let operation = self.operation();
        let abilities = there.abilities()?;
        if !abilities.has(operation) {
            return Err(NotDone::Never(format!("the server has no {operation:?}")));
        }
        let Some((parameters, data)) = self.in_kmip() else {
            let message = "KMIP has no word for it".to_owned();
            let reason = ResultReason::FeatureNotSupported;
            return Err(NotDone::Refused(Failure { reason, message }));
        };
        let used = KeyUse {
            id: id.to_owned(),
            parameters,
            data: Zeroizing::new(data.to_vec()),
            used_for: abilities.is_ours().then(|| address.to_owned()),
        };
        let request =
            if operation == Operation::Sign { Request::Sign(used) } else { Request::Decrypt(used) };
        match there.visit.call(&request) {
            Ok(Response::Result { data, .. }) => Ok(data),
            Ok(other) => Err(super::keeper::odd(&other).into()),
            Err(CallError::Unavailable(why)) => Err(Fault::Away(why).into()),
            Err(CallError::Refused(failure)) => {
                if failure.reason == ResultReason::OperationNotSupported {
                    return Err(NotDone::Never(failure.to_string()));
                }
                // A rate limit, an audit that cannot be written, a store that failed: a probe would only be one more use.
                if failure.reason == ResultReason::GeneralFailure && abilities.is_ours() {
                    return Err(Fault::Said(unavailable(failure.to_string())).into());
                }
                Err(NotDone::Refused(failure))
            }
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
