//! What a client asks (KMIP 1.4 §4), one operation of a batch.

use std::fmt;

use zeroize::Zeroizing;

use super::attribute::Attribute;
use super::enumeration::{
    CryptographicAlgorithm, HashingAlgorithm, KeyFormat, Operation, PaddingMethod, QueryFunction,
    RevocationReason, tag,
};
use super::object::Object;
use super::ttlv::{DecodeError, Structure, Writer};

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// From now on an object may be used (§4.19).
    Activate {
        /// The object.
        id: String,
    },
    /// Decrypt (§4.30); for ECDH keys the data is the ephemeral point, and the answer the shared secret.
    Decrypt(KeyUse),
    /// Forget an object (§4.21).
    Destroy {
        /// The object.
        id: String,
    },
    /// Which versions the server speaks (§4.26).
    DiscoverVersions,
    /// Hand out an object (§4.11).
    Get {
        /// The object.
        id: String,
        /// How a key is to be written.
        format: Option<KeyFormat>,
    },
    /// Tell attributes (§4.12), all of them where none is named.
    GetAttributes {
        /// The object.
        id: String,
        /// Their names.
        names: Vec<String>,
    },
    /// Find objects that have all of these (§4.9).
    Locate {
        /// What they have.
        attributes: Vec<Attribute>,
        /// No more than these.
        maximum: Option<i32>,
    },
    /// What the server can do (§4.25).
    Query(Vec<QueryFunction>),
    /// Take in an object (§4.3).
    Register {
        /// The object.
        object: Object,
        /// Its attributes.
        attributes: Vec<Attribute>,
    },
    /// An object may be used no longer (§4.20).
    Revoke {
        /// The object.
        id: String,
        /// Why.
        reason: RevocationReason,
    },
    /// Sign (§4.31): the data is the message, not its digest.
    Sign(KeyUse),
    /// An operation that we do not have.
    Unsupported(Operation),
}

/// A use of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// The key.
    pub id: String,
    /// How.
    pub parameters: Parameters,
    /// On what.
    pub data: Zeroizing<Vec<u8>>,
    /// The originator who signs, or the recipient who reads: an address, or `@domain`. It goes into a Message Extension
    /// of ours (§6.16), which is not critical.
    pub used_for: Option<String>,
}

impl fmt::Debug for KeyUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} ({} bytes)", self.id, self.parameters, self.data.len())
    }
}

/// Cryptographic Parameters (§3.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// How a block is filled.
    pub padding: Option<PaddingMethod>,
    /// The digest, that of OAEP and PSS and of their MGF1 too.
    pub hashing: Option<HashingAlgorithm>,
    /// What the key does.
    pub algorithm: Option<CryptographicAlgorithm>,
}

impl Request {
    /// The use of a key that it is.
    pub(super) fn key_use(&self) -> Option<&KeyUse> {
        match self {
            Self::Decrypt(used) | Self::Sign(used) => Some(used),
            _ => None,
        }
    }

    pub(super) fn key_use_mut(&mut self) -> Option<&mut KeyUse> {
        match self {
            Self::Decrypt(used) | Self::Sign(used) => Some(used),
            _ => None,
        }
    }

    /// Its operation.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Activate { .. } => Operation::Activate,
            Self::Decrypt(_) => Operation::Decrypt,
            Self::Destroy { .. } => Operation::Destroy,
            Self::DiscoverVersions => Operation::DiscoverVersions,
            Self::Get { .. } => Operation::Get,
            Self::GetAttributes { .. } => Operation::GetAttributes,
            Self::Locate { .. } => Operation::Locate,
            Self::Query(_) => Operation::Query,
            Self::Register { .. } => Operation::Register,
            Self::Revoke { .. } => Operation::Revoke,
            Self::Sign(_) => Operation::Sign,
            Self::Unsupported(operation) => *operation,
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let id_tag = tag::UNIQUE_IDENTIFIER;
        match self {
            Self::Activate { id } | Self::Destroy { id } => writer.text(id_tag, id),
            Self::Decrypt(used) | Self::Sign(used) => {
                writer.text(id_tag, &used.id);
                writer.structure(tag::CRYPTOGRAPHIC_PARAMETERS, |writer| {
                    used.parameters.write(writer);
                });
                writer.bytes(tag::DATA, &used.data);
            }
            Self::DiscoverVersions | Self::Unsupported(_) => {}
            Self::Get { id, format } => {
                writer.text(id_tag, id);
                if let Some(format) = format {
                    writer.enumeration(tag::KEY_FORMAT_TYPE, *format);
                }
            }
            Self::GetAttributes { id, names } => {
                writer.text(id_tag, id);
                names.iter().for_each(|name| writer.text(tag::ATTRIBUTE_NAME, name));
            }
            Self::Locate { attributes, maximum } => {
                if let Some(maximum) = maximum {
                    writer.integer(tag::MAXIMUM_ITEMS, *maximum);
                }
                attributes.iter().for_each(|attribute| attribute.write(writer));
            }
            Self::Query(functions) => {
                functions.iter().for_each(|one| writer.enumeration(tag::QUERY_FUNCTION, *one));
            }
            Self::Register { object, attributes } => {
                writer.enumeration(tag::OBJECT_TYPE, object.object_type());
                writer.structure(tag::TEMPLATE_ATTRIBUTE, |writer| {
                    attributes.iter().for_each(|attribute| attribute.write(writer));
                });
                object.write(writer);
            }
            Self::Revoke { id, reason } => {
                writer.text(id_tag, id);
                writer.structure(tag::REVOCATION_REASON, |writer| {
                    writer.enumeration(tag::REVOCATION_REASON_CODE, *reason);
                });
            }
        }
    }

    pub(super) fn read(operation: Operation, payload: &Structure<'_>) -> Result<Self, DecodeError> {
        let id = || -> Result<String, DecodeError> {
            Ok(payload.expect(tag::UNIQUE_IDENTIFIER)?.text()?.to_owned())
        };
        Ok(match operation {
            Operation::Activate => Self::Activate { id: id()? },
            Operation::Decrypt => Self::Decrypt(KeyUse::read(id()?, payload)?),
            Operation::Destroy => Self::Destroy { id: id()? },
            Operation::DiscoverVersions => Self::DiscoverVersions,
            Operation::Get => {
                let format = payload.find(tag::KEY_FORMAT_TYPE);
                let format = format.map(|item| item.enumeration().map(Into::into)).transpose()?;
                Self::Get { id: id()?, format }
            }
            Operation::GetAttributes => {
                let names = payload.all(tag::ATTRIBUTE_NAME);
                let names = names.map(|item| item.text().map(str::to_owned));
                Self::GetAttributes { id: id()?, names: names.collect::<Result<_, _>>()? }
            }
            Operation::Locate => {
                let maximum = payload.find(tag::MAXIMUM_ITEMS);
                Self::Locate {
                    attributes: Attribute::read_all(payload)?,
                    maximum: maximum.map(|item| item.integer()).transpose()?,
                }
            }
            Operation::Query => {
                let functions = payload.all(tag::QUERY_FUNCTION);
                let functions = functions.map(|item| item.enumeration().map(Into::into));
                Self::Query(functions.collect::<Result<_, _>>()?)
            }
            Operation::Register => {
                let template = payload.find(tag::TEMPLATE_ATTRIBUTE);
                let attributes = template
                    .map(|item| Attribute::read_all(&item.structure()?))
                    .transpose()?
                    .unwrap_or_default();
                Self::Register { object: Object::read(payload)?, attributes }
            }
            Operation::Revoke => {
                let code = payload.expect(tag::REVOCATION_REASON)?.structure()?;
                let code = code.expect(tag::REVOCATION_REASON_CODE)?.enumeration()?;
                Self::Revoke { id: id()?, reason: code.into() }
            }
            Operation::Sign => Self::Sign(KeyUse::read(id()?, payload)?),
            other @ Operation::Other(_) => Self::Unsupported(other),
        })
    }
}

impl KeyUse {
    fn read(id: String, payload: &Structure<'_>) -> Result<Self, DecodeError> {
        let parameters = payload.find(tag::CRYPTOGRAPHIC_PARAMETERS);
        let parameters = parameters
            .map(|item| Parameters::read(&item.structure()?))
            .transpose()?
            .unwrap_or_default();
        let data = Zeroizing::new(payload.expect(tag::DATA)?.bytes()?.to_vec());
        Ok(Self { id, parameters, data, used_for: None })
    }
}

impl Parameters {
    fn write(&self, writer: &mut Writer) {
        if let Some(padding) = self.padding {
            writer.enumeration(tag::PADDING_METHOD, padding);
        }
        if let Some(hashing) = self.hashing {
            writer.enumeration(tag::HASHING_ALGORITHM, hashing);
        }
        if let Some(algorithm) = self.algorithm {
            writer.enumeration(tag::CRYPTOGRAPHIC_ALGORITHM, algorithm);
        }
    }

    fn read(parameters: &Structure<'_>) -> Result<Self, DecodeError> {
        let find = |tag| parameters.find(tag).map(|item| item.enumeration()).transpose();
        Ok(Self {
            padding: find(tag::PADDING_METHOD)?.map(Into::into),
            hashing: find(tag::HASHING_ALGORITHM)?.map(Into::into),
            algorithm: find(tag::CRYPTOGRAPHIC_ALGORITHM)?.map(Into::into),
        })
    }
}
