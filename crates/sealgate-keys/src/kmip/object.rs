//! Managed objects (KMIP 1.4 §2.2): certificates and private keys.

use std::fmt;

use zeroize::Zeroizing;

use super::enumeration::{CryptographicAlgorithm, KeyFormat, ObjectType, tag};
use super::ttlv::{DecodeError, Structure, Writer};

/// One object.
#[derive(Clone, PartialEq, Eq)]
pub enum Object {
    /// An X.509 certificate, DER.
    Certificate(Vec<u8>),
    /// A private key.
    PrivateKey(PrivateKey),
}

/// A private key (§2.2.4) in a Key Block (§2.1.3) that is not wrapped.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey {
    /// How the material is written.
    pub format: KeyFormat,
    /// What it is for; a server may leave it out.
    pub algorithm: Option<CryptographicAlgorithm>,
    /// Its length in bits; a server may leave it out.
    pub bits: Option<i32>,
    /// DER.
    pub material: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?}, {:?}, {:?})", self.format, self.algorithm, self.bits)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(der) => write!(f, "Certificate({} bytes)", der.len()),
            Self::PrivateKey(key) => key.fmt(f),
        }
    }
}

impl Object {
    /// What it is.
    pub fn object_type(&self) -> ObjectType {
        match self {
            Self::Certificate(_) => ObjectType::Certificate,
            Self::PrivateKey(_) => ObjectType::PrivateKey,
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Self::Certificate(der) => writer.structure(tag::CERTIFICATE, |writer| {
                writer.enumeration(tag::CERTIFICATE_TYPE, X509);
                writer.bytes(tag::CERTIFICATE_VALUE, der);
            }),
            Self::PrivateKey(key) => writer.structure(tag::PRIVATE_KEY, |writer| {
                writer.structure(tag::KEY_BLOCK, |writer| key.write_block(writer));
            }),
        }
    }

    /// The object that a payload holds.
    pub(super) fn read(payload: &Structure<'_>) -> Result<Self, DecodeError> {
        if let Some(certificate) = payload.find(tag::CERTIFICATE) {
            let certificate = certificate.structure()?;
            if certificate.expect(tag::CERTIFICATE_TYPE)?.enumeration()? != X509 {
                return Err(DecodeError("a certificate that is not X.509".to_owned()));
            }
            let der = certificate.expect(tag::CERTIFICATE_VALUE)?.bytes()?;
            return Ok(Self::Certificate(der.to_vec()));
        }
        let block = payload.expect(tag::PRIVATE_KEY)?.structure()?.expect(tag::KEY_BLOCK)?;
        PrivateKey::read_block(&block.structure()?).map(Self::PrivateKey)
    }
}

impl PrivateKey {
    fn write_block(&self, writer: &mut Writer) {
        writer.enumeration(tag::KEY_FORMAT_TYPE, self.format);
        writer.structure(tag::KEY_VALUE, |writer| {
            writer.bytes(tag::KEY_MATERIAL, &self.material);
        });
        if let Some(algorithm) = self.algorithm {
            writer.enumeration(tag::CRYPTOGRAPHIC_ALGORITHM, algorithm);
        }
        if let Some(bits) = self.bits {
            writer.integer(tag::CRYPTOGRAPHIC_LENGTH, bits);
        }
    }

    fn read_block(block: &Structure<'_>) -> Result<Self, DecodeError> {
        let format = block.expect(tag::KEY_FORMAT_TYPE)?.enumeration()?.into();
        let value = block.expect(tag::KEY_VALUE)?.structure()?;
        let material = value.expect(tag::KEY_MATERIAL)?.bytes()?;
        let algorithm = block.find(tag::CRYPTOGRAPHIC_ALGORITHM);
        let bits = block.find(tag::CRYPTOGRAPHIC_LENGTH);
        Ok(Self {
            format,
            algorithm: algorithm.map(|item| item.enumeration().map(Into::into)).transpose()?,
            bits: bits.map(|item| item.integer()).transpose()?,
            material: Zeroizing::new(material.to_vec()),
        })
    }
}

/// Certificate Type (§9.1.3.2.6).
const X509: u32 = 1;
