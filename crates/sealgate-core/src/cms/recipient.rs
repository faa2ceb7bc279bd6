//! RecipientInfo (RFC 5652 §6.2): to whom a content-encryption key was given, and how.
//!
//! In: the members of the recipientInfos SET. Out: one [`Recipient`] for each certificate that is
//! named, key transport and key agreement. Passwords, shared keys and other kinds are passed over
//! (REQUIREMENTS K8). Own bytes of names and serial numbers are compared as they came.

use super::CmsError;
use super::algorithm::{Algorithm, read_version};
use super::element::{
    BIT_STRING, CONSTRUCTED_0, CONSTRUCTED_1, CONSTRUCTED_2, CONSTRUCTED_3, CONSTRUCTED_4, Element,
    INTEGER, OCTET_STRING, PRIMITIVE_0, Reader, SEQUENCE, tlv,
};
use crate::keys::Certificate;

/// How a certificate is named (RFC 5652 §5.3, §6.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyIdentifier {
    /// By the issuer's name (DER) and the serial number (content octets).
    Issuer { issuer: Vec<u8>, serial: Vec<u8> },
    /// By subjectKeyIdentifier.
    Key(Vec<u8>),
}

impl KeyIdentifier {
    /// SignerIdentifier and RecipientIdentifier.
    pub(super) fn read(element: &Element<'_>) -> Result<Self, CmsError> {
        match element.tag {
            SEQUENCE => Self::issuer_and_serial(element),
            PRIMITIVE_0 => Ok(Self::Key(element.body.to_vec())),
            _ => Err(CmsError::Malformed),
        }
    }

    /// IssuerAndSerialNumber, whatever its tag.
    pub(super) fn issuer_and_serial(element: &Element<'_>) -> Result<Self, CmsError> {
        let mut members = element.reader();
        let issuer = members.expect(SEQUENCE)?.whole.to_vec();
        let serial = members.expect(INTEGER)?.body.to_vec();
        members.finish()?;
        Ok(Self::Issuer { issuer, serial })
    }

    /// KeyAgreeRecipientIdentifier (RFC 5652 §6.2.2).
    fn read_agreement(element: &Element<'_>) -> Result<Self, CmsError> {
        match element.tag {
            SEQUENCE => Self::issuer_and_serial(element),
            CONSTRUCTED_0 => {
                let key = element.reader().expect(OCTET_STRING)?;
                Ok(Self::Key(key.body.to_vec()))
            }
            _ => Err(CmsError::Malformed),
        }
    }

    /// Whether this is the certificate.
    pub(super) fn names(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Issuer { issuer, serial } => {
                issuer == certificate.issuer_der() && serial == certificate.serial_bytes()
            }
            Self::Key(key) => certificate.subject_key_identifier() == Some(key.as_slice()),
        }
    }
}

/// One certificate that can open the message.
#[derive(Clone, Debug)]
pub(super) struct Recipient {
    pub(super) identifier: KeyIdentifier,
    pub(super) encrypted_key: Vec<u8>,
    pub(super) way: Way,
}

/// How the key was given.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// KeyAgreeRecipientInfo; what its recipients have in common.
    Agreement(std::sync::Arc<Agreement>),
    /// KeyTransRecipientInfo with its algorithm as DER.
    Transport { algorithm: Vec<u8> },
}

/// What recipients of one KeyAgreeRecipientInfo share.
#[derive(Clone, Debug)]
pub(super) struct Agreement {
    /// The sender's ephemeral key; none for static ones, which are not supported.
    pub(super) ephemeral: Option<Vec<u8>>,
    /// The content of ukm.
    pub(super) user_keying_material: Option<Vec<u8>>,
    /// keyEncryptionAlgorithm as DER.
    pub(super) algorithm: Vec<u8>,
}

/// Reads the recipientInfos SET.
pub(super) fn read_recipients(set: &Element<'_>) -> Result<Vec<Recipient>, CmsError> {
    let mut recipients = Vec::new();
    let mut members = 0;
    for info in set.reader() {
        let info = info?;
        members += 1;
        match info.tag {
            SEQUENCE => recipients.push(read_transport(&info)?),
            CONSTRUCTED_1 => read_agreement(&info, &mut recipients)?,
            CONSTRUCTED_2 | CONSTRUCTED_3 | CONSTRUCTED_4 => {}
            _ => return Err(CmsError::Malformed),
        }
        if recipients.len() > RECIPIENTS_MAX || members > RECIPIENTS_MAX {
            return Err(CmsError::OverLimit);
        }
    }
    Ok(recipients)
}

/// IssuerAndSerialNumber of a certificate under a tag.
pub(super) fn write_issuer_and_serial(tag: u8, certificate: &Certificate) -> Vec<u8> {
    let serial = tlv(INTEGER, &[certificate.serial_bytes()]);
    tlv(tag, &[certificate.issuer_der(), &serial])
}

/// KeyTransRecipientInfo (RFC 5652 §6.2.1).
fn read_transport(info: &Element<'_>) -> Result<Recipient, CmsError> {
    let mut members = info.reader();
    read_version(&members.expect(INTEGER)?)?;
    let identifier = KeyIdentifier::read(&members.element()?)?;
    let algorithm = Algorithm::next(&mut members)?.whole.to_vec();
    let encrypted_key = members.expect(OCTET_STRING)?.body.to_vec();
    members.finish()?;
    Ok(Recipient { identifier, encrypted_key, way: Way::Transport { algorithm } })
}

/// KeyAgreeRecipientInfo (RFC 5652 §6.2.2).
fn read_agreement(info: &Element<'_>, recipients: &mut Vec<Recipient>) -> Result<(), CmsError> {
    let mut members = info.reader();
    read_version(&members.expect(INTEGER)?)?;
    let originator = members.expect(CONSTRUCTED_0)?;
    let ephemeral = read_originator(&originator)?;
    let user_keying_material = match members.optional(CONSTRUCTED_1)? {
        Some(explicit) => Some(Reader::only(explicit.body, OCTET_STRING)?.body.to_vec()),
        None => None,
    };
    let algorithm = Algorithm::next(&mut members)?.whole.to_vec();
    let agreement = std::sync::Arc::new(Agreement { ephemeral, user_keying_material, algorithm });
    for key in members.expect(SEQUENCE)?.reader() {
        let key = key?;
        if key.tag != SEQUENCE {
            return Err(CmsError::Malformed);
        }
        let mut key = key.reader();
        let identifier = KeyIdentifier::read_agreement(&key.element()?)?;
        let encrypted_key = key.expect(OCTET_STRING)?.body.to_vec();
        key.finish()?;
        if recipients.len() >= RECIPIENTS_MAX {
            return Err(CmsError::OverLimit);
        }
        let way = Way::Agreement(agreement.clone());
        recipients.push(Recipient { identifier, encrypted_key, way });
    }
    members.finish()
}

/// OriginatorIdentifierOrKey; the key, if it is one.
fn read_originator(explicit: &Element<'_>) -> Result<Option<Vec<u8>>, CmsError> {
    let mut reader = explicit.reader();
    let originator = reader.element()?;
    reader.finish()?;
    match originator.tag {
        CONSTRUCTED_1 => {
            let mut members = originator.reader();
            Algorithm::next(&mut members)?;
            let key = match members.expect(BIT_STRING)?.body {
                [0, key @ ..] => key.to_vec(),
                _ => return Err(CmsError::Malformed),
            };
            members.finish()?;
            Ok(Some(key))
        }
        SEQUENCE | PRIMITIVE_0 => Ok(None),
        _ => Err(CmsError::Malformed),
    }
}

/// Recipients of one message at most, those that are passed over included (REQUIREMENTS K4).
pub(super) const RECIPIENTS_MAX: usize = 500;
