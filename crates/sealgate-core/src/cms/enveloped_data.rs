//! EnvelopedData (RFC 5652 §6) and AuthEnvelopedData (RFC 5083): opening what was encrypted to us.
//!
//! In: a ContentInfo, BER or DER; then one recipient, chosen by certificate, and its key. Out: the
//! plaintext, whole and checked, or one uniform failure. Nothing of the plaintext leaves before the
//! tag (or the padding of all of it) was checked. A content-encryption key that cannot be recovered
//! is replaced by a random one, so that what follows is the same work (RFC 3218 §2.3.2).
//!
//! Recipients are never tried one after another (CVE-2019-1563), and attributes are not trusted;
//! originatorInfo is ignored.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use super::CmsError;
use super::algorithm::{
    Algorithm, ContentCipher, DATA, RSA_ENCRYPTION, RSAES_OAEP, oaep_digest, read_version,
    small_integer,
};
use super::content_cipher::{NONCE_BYTES, Sealed, decrypt};
use super::content_info::{ContentInfo, ContentKind, der_of};
use super::element::{
    CONSTRUCTED_0, CONSTRUCTED_1, CONSTRUCTED_2, Element, INTEGER, OCTET_STRING, OID, PRIMITIVE_0,
    Reader, SEQUENCE, SET, tlv,
};
use super::key_agreement::Scheme;
use super::recipient::{Recipient, Way, read_recipients};
use crate::keys::{Certificate, Digest, KeyError, KeyTransport, SecretKey};

/// A parsed EnvelopedData or AuthEnvelopedData.
#[derive(Clone, Debug)]
pub struct EnvelopedData {
    is_authenticated: bool,
    recipients: Vec<Recipient>,
    /// None: an algorithm that is not supported, or parameters that we do not read.
    cipher: Option<ContentCipher>,
    sealed: Sealed,
}

impl EnvelopedData {
    /// Parses a ContentInfo that holds either kind.
    ///
    /// # Errors
    /// [`CmsError`]: malformed, over a limit of REQUIREMENTS K4, or another type.
    pub fn parse(bytes: &[u8]) -> Result<Self, CmsError> {
        let der = der_of(bytes)?;
        let info = ContentInfo::read(&der)?;
        let is_authenticated = match info.kind {
            ContentKind::AuthEnvelopedData => true,
            ContentKind::EnvelopedData => false,
            _ => return Err(CmsError::Unsupported),
        };
        let mut members = info.content.reader();
        read_version(&members.expect(INTEGER)?)?;
        members.optional(CONSTRUCTED_0)?;
        let recipients = read_recipients(&members.expect(SET)?)?;
        let mut content = members.expect(SEQUENCE)?.reader();
        if content.expect(OID)?.body != DATA.as_bytes() {
            // Mail is id-data (RFC 8551 §2.4.3), and this identifier is not authenticated.
            return Err(CmsError::Unsupported);
        }
        let algorithm = Algorithm::next(&mut content)?;
        // The content may be elsewhere in CMS; never in mail.
        let ciphertext = content.expect(PRIMITIVE_0)?.body;
        content.finish()?;
        let attributes = members.optional(CONSTRUCTED_1)?;
        let mut sealed = Sealed { ciphertext: ciphertext.to_vec(), ..Sealed::default() };
        if is_authenticated {
            sealed.tag = members.expect(OCTET_STRING)?.body.to_vec();
            members.optional(CONSTRUCTED_2)?;
            // RFC 5083 §2.2: authAttrs are authenticated under SET's tag.
            if let Some(attributes) = attributes {
                sealed.additional = tlv(SET, &[attributes.body]);
            }
        }
        members.finish()?;
        let cipher = ContentCipher::from_oid(algorithm.oid);
        if cipher.is_some_and(|cipher| cipher.is_authenticated() != is_authenticated) {
            // A mode under the wrong type is an attack or a broken sender (RFC 9709 §1).
            return Err(CmsError::Malformed);
        }
        if let Some(cipher) = cipher {
            read_parameters(cipher, &algorithm, &mut sealed)?;
        }
        // RFC 5084 §3.2 allows other nonces than the 12 octets it recommends; we do not read them.
        let cipher = cipher.filter(|cipher| {
            let is_gcm = matches!(cipher, ContentCipher::Aes128Gcm | ContentCipher::Aes256Gcm);
            !is_gcm || sealed.nonce.len() == NONCE_BYTES
        });
        Ok(Self { is_authenticated, recipients, cipher, sealed })
    }

    /// Whether it is AuthEnvelopedData.
    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// The content's cipher; none if it is not supported.
    pub fn cipher(&self) -> Option<ContentCipher> {
        self.cipher
    }

    /// How many certificates are named as recipients; passwords and shared keys do not count.
    pub fn recipient_count(&self) -> usize {
        self.recipients.len()
    }

    /// Octets of the encrypted content.
    pub fn ciphertext_bytes(&self) -> usize {
        self.sealed.ciphertext.len()
    }

    /// Which recipient this certificate is, by issuer and serial number or key identifier.
    pub fn recipient_for(&self, certificate: &Certificate) -> Option<usize> {
        self.recipients.iter().position(|recipient| recipient.identifier.names(certificate))
    }

    /// The name of the key management algorithm in reports.
    pub fn key_name(&self, recipient: usize) -> &'static str {
        match self.recipients.get(recipient).map(|recipient| &recipient.way) {
            Some(Way::Transport { algorithm }) => match transport(algorithm) {
                Ok(Transport::Pkcs1) => "rsa-pkcs1",
                Ok(Transport::Oaep(Digest::Sha1)) => "rsa-oaep-sha1",
                Ok(Transport::Oaep(Digest::Sha256)) => "rsa-oaep-sha256",
                Ok(Transport::Oaep(Digest::Sha384)) => "rsa-oaep-sha384",
                Ok(Transport::Oaep(Digest::Sha512)) => "rsa-oaep-sha512",
                Err(_) => "unknown",
            },
            // The length of an uncompressed point tells the curve (SEC 1 §2.3.3).
            Some(Way::Agreement(shared)) => match shared.ephemeral.as_ref().map(Vec::len) {
                Some(32) => "ecdh-x25519",
                Some(65) => "ecdh-p256",
                Some(97) => "ecdh-p384",
                Some(133) => "ecdh-p521",
                _ => "unknown",
            },
            None => "unknown",
        }
    }

    /// Whether the content-encryption key came to this recipient under RSAES-PKCS1-v1_5.
    pub fn is_pkcs1(&self, recipient: usize) -> bool {
        match self.recipients.get(recipient).map(|recipient| &recipient.way) {
            Some(Way::Transport { algorithm }) => {
                matches!(transport(algorithm), Ok(Transport::Pkcs1))
            }
            _ => false,
        }
    }

    /// Whether the way in which the content-encryption key came to this recipient is one that is not supported, as everybody can see.
    pub fn is_unsupported(&self, recipient: usize) -> bool {
        let fault = match self.recipients.get(recipient).map(|recipient| &recipient.way) {
            Some(Way::Transport { algorithm }) => transport(algorithm).err().map(public_fault),
            Some(Way::Agreement(shared)) if shared.ephemeral.is_none() => {
                Some(OpenFault::Unsupported)
            }
            Some(Way::Agreement(shared)) => Scheme::read(&shared.algorithm).err().map(public_fault),
            None => None,
        };
        fault == Some(OpenFault::Unsupported)
    }

    /// Decrypts for one recipient with its key.
    ///
    /// # Errors
    /// [`OpenFault`]. Whatever is wrong with key or content gives the one [`OpenFault::Failed`].
    pub fn open(
        &self,
        recipient: usize,
        certificate: &Certificate,
        key: &dyn SecretKey,
    ) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
        let access = Access { recipient, certificate, key };
        self.open_together(&access, &[]).map(|(content, _)| content)
    }

    /// Decrypts for the first, and says of each of the others whether the same content-encryption key was given to him: to
    /// be named as a recipient proves nothing, since nothing authenticates the names (RFC 5083 §2.2). All keys are used
    /// before the content is looked at, so that it takes the same time whatever that is.
    ///
    /// # Errors
    /// As [`Self::open`]; for one of the others only [`OpenFault::Unavailable`].
    pub fn open_together(
        &self,
        first: &Access<'_>,
        others: &[Access<'_>],
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<bool>), OpenFault> {
        let cipher = self.cipher.ok_or(OpenFault::Unsupported)?;
        let content_key = self.content_key(cipher, first)?;
        let mut have_it = Vec::with_capacity(others.len());
        for other in others {
            have_it.push(match self.content_key(cipher, other) {
                Ok(theirs) => verify_slices_are_equal(&theirs, &content_key).is_ok(),
                Err(OpenFault::Unavailable(why)) => return Err(OpenFault::Unavailable(why)),
                Err(OpenFault::Failed | OpenFault::Unsupported) => false,
            });
        }
        let content = decrypt(cipher, &content_key, &self.sealed).ok_or(OpenFault::Failed)?;
        Ok((content, have_it))
    }

    /// What was given to a recipient, or a random key where that cannot be told.
    fn content_key(
        &self,
        cipher: ContentCipher,
        access: &Access<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
        let recipient = self.recipients.get(access.recipient).ok_or(OpenFault::Failed)?;
        if !recipient.identifier.names(access.certificate) {
            return Err(OpenFault::Failed);
        }
        // Drawn before it is known whether it is needed: the same work in every case.
        let mut content_key = Zeroizing::new(vec![0; cipher.key_bytes()]);
        aws_lc_rs::rand::fill(&mut content_key).map_err(|_| OpenFault::Failed)?;
        let recovered = recover(recipient, access.key)?;
        if let Some(recovered) = recovered
            && recovered.len() == content_key.len()
        {
            content_key = recovered;
        }
        Ok(content_key)
    }
}

/// One recipient with the means to open.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// As [`EnvelopedData::recipient_for`] found it.
    pub recipient: usize,
    /// The certificate by which it was found.
    pub certificate: &'a Certificate,
    /// Its secret key.
    pub key: &'a dyn SecretKey,
}

/// Why nothing was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenFault {
    /// It does not open; no reason is given, because the reason is an oracle.
    Failed,
    /// The key's keeper is away: try again later.
    Unavailable(String),
    /// An algorithm that is not supported, as everybody can see.
    Unsupported,
}

/// The content-encryption key; none for every reason that lies in the message.
fn recover(
    recipient: &Recipient,
    key: &dyn SecretKey,
) -> Result<Option<Zeroizing<Vec<u8>>>, OpenFault> {
    let encrypted_key = recipient.encrypted_key.as_slice();
    match &recipient.way {
        Way::Transport { algorithm } => {
            let transport = match transport(algorithm) {
                Ok(Transport::Pkcs1) => KeyTransport::RsaPkcs1 { encrypted_key },
                Ok(Transport::Oaep(digest)) => KeyTransport::RsaOaep { digest, encrypted_key },
                Err(fault) => return Err(public_fault(fault)),
            };
            ask(key, &transport)
        }
        Way::Agreement(shared) => {
            let scheme = Scheme::read(&shared.algorithm).map_err(public_fault)?;
            let ephemeral = shared.ephemeral.as_deref().ok_or(OpenFault::Unsupported)?;
            let z = ask(key, &KeyTransport::Ecdh { ephemeral })?;
            let ukm = shared.user_keying_material.as_deref();
            Ok(z.and_then(|z| scheme.unwrap(&z, ukm, encrypted_key)))
        }
    }
}

/// Asks the key; what it refuses is no error yet.
fn ask(
    key: &dyn SecretKey,
    transport: &KeyTransport<'_>,
) -> Result<Option<Zeroizing<Vec<u8>>>, OpenFault> {
    match key.unwrap(transport) {
        Ok(secret) => Ok(Some(secret)),
        Err(KeyError::Unavailable(why)) => Err(OpenFault::Unavailable(why)),
        Err(_) => Ok(None),
    }
}

/// Faults that anybody can see in the message, before a key is used.
fn public_fault(fault: CmsError) -> OpenFault {
    match fault {
        CmsError::Unsupported => OpenFault::Unsupported,
        CmsError::Malformed | CmsError::OverLimit => OpenFault::Failed,
    }
}

/// RSA key transport (RFC 3370 §4.2.1, RFC 3560).
enum Transport {
    Oaep(Digest),
    Pkcs1,
}

fn transport(algorithm: &[u8]) -> Result<Transport, CmsError> {
    let algorithm = Algorithm::read(&Reader::only(algorithm, SEQUENCE)?)?;
    if algorithm.is(RSA_ENCRYPTION) {
        Ok(Transport::Pkcs1)
    } else if algorithm.is(RSAES_OAEP) {
        oaep_digest(&algorithm).map(Transport::Oaep)
    } else {
        Err(CmsError::Unsupported)
    }
}

/// IV, or nonce and tag length (RFC 3370 §5.1, RFC 3565 §4.1, RFC 5084 §3.2, RFC 8103 §3).
fn read_parameters(
    cipher: ContentCipher,
    algorithm: &Algorithm<'_>,
    sealed: &mut Sealed,
) -> Result<(), CmsError> {
    let parameters: Element<'_> = algorithm.parameters.ok_or(CmsError::Malformed)?;
    match cipher {
        ContentCipher::Aes128Gcm | ContentCipher::Aes256Gcm => {
            if parameters.tag != SEQUENCE {
                return Err(CmsError::Malformed);
            }
            let mut members = parameters.reader();
            sealed.nonce = members.expect(OCTET_STRING)?.body.to_vec();
            sealed.tag_bytes = match members.optional(INTEGER)? {
                // What is no length of a tag at all fails as a wrong one does (F4): for whom it is.
                Some(length) => small_integer(length.body).map_or(0, usize::from),
                None => TAG_BYTES_DEFAULT,
            };
            members.finish()?;
        }
        _ => {
            if parameters.tag != OCTET_STRING {
                return Err(CmsError::Malformed);
            }
            sealed.nonce = parameters.body.to_vec();
            sealed.tag_bytes = TAG_BYTES_FULL;
        }
    }
    Ok(())
}

/// aes-ICVlen's default (RFC 5084 §3.2).
const TAG_BYTES_DEFAULT: usize = 12;
/// A whole tag.
const TAG_BYTES_FULL: usize = 16;
