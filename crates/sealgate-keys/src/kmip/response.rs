//! What a server answers (KMIP 1.4 §4), one operation of a batch.

use std::fmt;

use zeroize::Zeroizing;

use super::attribute::Attribute;
use super::enumeration::{Operation, ResultReason, tag};
use super::message::Version;
use super::object::Object;
use super::ttlv::{DecodeError, Structure, Writer};

/// What was done.
#[derive(Clone, PartialEq, Eq)]
pub enum Response {
    /// To Get Attributes.
    Attributes {
        /// The object.
        id: String,
        /// What was asked for and it has.
        attributes: Vec<Attribute>,
    },
    /// To Activate, Destroy, Register and Revoke.
    Done {
        /// The object.
        id: String,
    },
    /// To Get.
    Got {
        /// The object's identifier.
        id: String,
        /// The object.
        object: Object,
    },
    /// To Locate.
    Located(Vec<String>),
    /// To Query.
    Query {
        /// The operations that the server has.
        operations: Vec<Operation>,
        /// Who it is.
        vendor: Option<String>,
    },
    /// To Decrypt and Sign: plaintext, shared secret or signature.
    Result {
        /// The key.
        id: String,
        /// The octets.
        data: Zeroizing<Vec<u8>>,
    },
    /// To Discover Versions, the best first.
    Versions(Vec<Version>),
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attributes { id, attributes } => write!(f, "Attributes({id}, {attributes:?})"),
            Self::Done { id } => write!(f, "Done({id})"),
            Self::Got { id, object } => write!(f, "Got({id}, {object:?})"),
            Self::Located(ids) => write!(f, "Located({ids:?})"),
            Self::Query { operations, vendor } => write!(f, "Query({operations:?}, {vendor:?})"),
            Self::Result { id, data } => write!(f, "Result({id}, {} bytes)", data.len()),
            Self::Versions(versions) => write!(f, "Versions({versions:?})"),
        }
    }
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason from the list.
    pub reason: ResultReason,
    /// The server's words.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Words from elsewhere, which go to a log.
        let printable = self.message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX);
        write!(f, "{:?}: {}", self.reason, printable.collect::<String>())
    }
}

impl Response {
    pub(super) fn write(&self, operation: Operation, writer: &mut Writer) {
        let id_tag = tag::UNIQUE_IDENTIFIER;
        match self {
            Self::Attributes { id, attributes } => {
                writer.text(id_tag, id);
                attributes.iter().for_each(|attribute| attribute.write(writer));
            }
            Self::Done { id } => writer.text(id_tag, id),
            Self::Got { id, object } => {
                writer.enumeration(tag::OBJECT_TYPE, object.object_type());
                writer.text(id_tag, id);
                object.write(writer);
            }
            Self::Located(ids) => ids.iter().for_each(|id| writer.text(id_tag, id)),
            Self::Query { operations, vendor } => {
                operations.iter().for_each(|one| writer.enumeration(tag::OPERATION, *one));
                if let Some(vendor) = vendor {
                    writer.text(tag::VENDOR_IDENTIFICATION, vendor);
                }
            }
            Self::Result { id, data } => {
                writer.text(id_tag, id);
                writer.bytes(result_tag(operation), data);
            }
            Self::Versions(versions) => versions.iter().for_each(|version| version.write(writer)),
        }
    }

    pub(super) fn read(operation: Operation, payload: &Structure<'_>) -> Result<Self, DecodeError> {
        let id = || -> Result<String, DecodeError> {
            Ok(payload.expect(tag::UNIQUE_IDENTIFIER)?.text()?.to_owned())
        };
        Ok(match operation {
            Operation::Activate | Operation::Destroy | Operation::Register | Operation::Revoke => {
                Self::Done { id: id()? }
            }
            Operation::Decrypt | Operation::Sign => {
                let data = payload.expect(result_tag(operation))?.bytes()?;
                Self::Result { id: id()?, data: Zeroizing::new(data.to_vec()) }
            }
            Operation::DiscoverVersions => {
                let versions = payload.all(tag::PROTOCOL_VERSION);
                let versions = versions.map(|item| Version::read(&item.structure()?));
                Self::Versions(versions.collect::<Result<_, _>>()?)
            }
            Operation::Get => Self::Got { id: id()?, object: Object::read(payload)? },
            Operation::GetAttributes => {
                Self::Attributes { id: id()?, attributes: Attribute::read_all(payload)? }
            }
            Operation::Locate => {
                let ids = payload.all(tag::UNIQUE_IDENTIFIER);
                let ids = ids.map(|item| item.text().map(str::to_owned));
                Self::Located(ids.collect::<Result<_, _>>()?)
            }
            Operation::Query => {
                let operations = payload.all(tag::OPERATION);
                let operations = operations.map(|item| item.enumeration().map(Into::into));
                let vendor = payload.find(tag::VENDOR_IDENTIFICATION);
                Self::Query {
                    operations: operations.collect::<Result<_, _>>()?,
                    vendor: vendor.map(|item| item.text().map(str::to_owned)).transpose()?,
                }
            }
            Operation::Other(code) => {
                return Err(DecodeError(format!("an answer to operation {code:#x}")));
            }
        })
    }
}

fn result_tag(operation: Operation) -> super::ttlv::Tag {
    if operation == Operation::Sign { tag::SIGNATURE_DATA } else { tag::DATA }
}

/// Of a server's words that go to a log.
const MESSAGE_CHARS_MAX: usize = 200;
