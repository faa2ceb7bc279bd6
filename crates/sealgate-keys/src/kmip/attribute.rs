//! Attributes of managed objects (KMIP 1.4 §2.1.1, §3), those that find and describe keys for mail.

use super::enumeration::{CryptographicAlgorithm, ObjectType, State, tag};
use super::ttlv::{DecodeError, Structure, Writer};

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// What a key is for (§3.4).
    Algorithm(CryptographicAlgorithm),
    /// The key's length in bits (§3.5).
    Length(i32),
    /// The certificate of a private key (§3.35, Certificate Link): its identifier.
    CertificateLink(String),
    /// What an object is found by (§3.2), an uninterpreted text string.
    Name(String),
    /// What an object is (§3.3).
    ObjectType(ObjectType),
    /// Where it is in its life (§3.22).
    State(State),
    /// Bits of [`super::enumeration::usage`] (§3.19).
    UsageMask(i32),
    /// One that we do not read; its name.
    Other(String),
}

impl Attribute {
    /// The attribute's name, as Get Attributes asks for it.
    pub fn name(&self) -> &str {
        match self {
            Self::Algorithm(_) => ALGORITHM,
            Self::CertificateLink(_) => LINK,
            Self::Length(_) => LENGTH,
            Self::Name(_) => NAME,
            Self::ObjectType(_) => OBJECT_TYPE,
            Self::State(_) => STATE,
            Self::UsageMask(_) => USAGE_MASK,
            Self::Other(name) => name,
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.structure(tag::ATTRIBUTE, |writer| {
            writer.text(tag::ATTRIBUTE_NAME, self.name());
            let value = tag::ATTRIBUTE_VALUE;
            match self {
                Self::Algorithm(algorithm) => writer.enumeration(value, *algorithm),
                Self::CertificateLink(id) => writer.structure(value, |writer| {
                    writer.enumeration(tag::LINK_TYPE, CERTIFICATE_LINK);
                    writer.text(tag::LINKED_OBJECT_IDENTIFIER, id);
                }),
                Self::Length(number) | Self::UsageMask(number) => writer.integer(value, *number),
                Self::Name(name) => writer.structure(value, |writer| {
                    writer.text(tag::NAME_VALUE, name);
                    writer.enumeration(tag::NAME_TYPE, UNINTERPRETED);
                }),
                Self::ObjectType(kind) => writer.enumeration(value, *kind),
                Self::State(state) => writer.enumeration(value, *state),
                Self::Other(_) => {}
            }
        });
    }

    pub(super) fn read(attribute: &Structure<'_>) -> Result<Self, DecodeError> {
        let name = attribute.expect(tag::ATTRIBUTE_NAME)?.text()?;
        let value = || attribute.expect(tag::ATTRIBUTE_VALUE);
        Ok(match name {
            ALGORITHM => Self::Algorithm(value()?.enumeration()?.into()),
            LINK => {
                let link = value()?.structure()?;
                match link.expect(tag::LINK_TYPE)?.enumeration()? {
                    CERTIFICATE_LINK => {
                        let id = link.expect(tag::LINKED_OBJECT_IDENTIFIER)?;
                        Self::CertificateLink(id.text()?.to_owned())
                    }
                    _ => Self::Other(name.to_owned()),
                }
            }
            LENGTH => Self::Length(value()?.integer()?),
            NAME => Self::Name(value()?.structure()?.expect(tag::NAME_VALUE)?.text()?.to_owned()),
            OBJECT_TYPE => Self::ObjectType(value()?.enumeration()?.into()),
            STATE => Self::State(value()?.enumeration()?.into()),
            USAGE_MASK => Self::UsageMask(value()?.integer()?),
            other => Self::Other(other.to_owned()),
        })
    }

    /// All attributes of a structure.
    pub(super) fn read_all(structure: &Structure<'_>) -> Result<Vec<Self>, DecodeError> {
        structure.all(tag::ATTRIBUTE).map(|item| Self::read(&item.structure()?)).collect()
    }
}

pub(crate) const ALGORITHM: &str = "Cryptographic Algorithm";
const LENGTH: &str = "Cryptographic Length";
/// Of several links, those that are no Certificate Link are not read.
pub(crate) const LINK: &str = "Link";
pub(crate) const NAME: &str = "Name";
const OBJECT_TYPE: &str = "Object Type";
pub(crate) const STATE: &str = "State";
pub(crate) const USAGE_MASK: &str = "Cryptographic Usage Mask";
/// Link Type (§9.1.3.2.20): Certificate Link.
const CERTIFICATE_LINK: u32 = 0x101;
/// Name Type (§9.1.3.2.11): Uninterpreted Text String.
const UNINTERPRETED: u32 = 1;
