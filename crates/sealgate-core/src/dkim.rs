//! A domain's own signatures over a message that is ready to be handed over: DKIM (RFC 6376) on what leaves, an ARC set
//! (RFC 8617) on what we changed on its way in.
//!
//! In: the segments of a parcel, a handle to the key, the time. Out: header fields to put on top. Nothing is verified here: that takes
//! DNS, which is the relay's. Header fields are signed relaxed, the body simple: what relays still change is white space in fields.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use crate::address::Domain;
use crate::dkim::canonical::Content;
use crate::keys::{Digest, KeyError, KeyKind, SecretKey, SignatureScheme, Timestamp};

pub mod arc;
mod canonical;

/// Signs for domains of ours.
#[derive(Clone)]
pub struct Signer {
    key: Arc<dyn SecretKey>,
    algorithm: Algorithm,
    selector: String,
    domains: Vec<Domain>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("selector", &self.selector)
            .field("domains", &self.domains)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    /// RFC 8463.
    Ed25519,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rsa,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519-sha256",
            Self::Rsa => "rsa-sha256",
        }
    }
}

impl Signer {
    /// A signer for these domains, whose public key stands in DNS at `selector._domainkey.DOMAIN`.
    ///
    /// # Errors
    /// What is wrong with the kind of key, the selector or the domains.
    pub fn new(
        key: Arc<dyn SecretKey>,
        kind: KeyKind,
        selector: &str,
        domains: Vec<Domain>,
    ) -> Result<Self, &'static str> {
        let algorithm = match kind {
            KeyKind::Ed25519 => Algorithm::Ed25519,
            KeyKind::Rsa { .. } => Algorithm::Rsa,
            _ => return Err("the key is neither RSA nor Ed25519"),
        };
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !selector.split('.').all(is_label) {
            return Err("the selector is no DNS name");
        }
        if domains.is_empty() {
            return Err("there is no domain to sign for");
        }
        Ok(Self { key, algorithm, selector: selector.to_owned(), domains })
    }

    /// Whether it signs for that domain.
    pub fn signs_for(&self, domain: &Domain) -> bool {
        self.domains.contains(domain)
    }

    /// Whether a signature by it may count for an author of that domain: DMARC by default aligns domains of one organisation
    /// (RFC 7489 §3.1.1). Where an organisation begins cannot be told here, so domains that end in the same two labels count as one's.
    pub fn may_align_with(&self, domain: &Domain) -> bool {
        self.domains.iter().any(|ours| {
            let pairs = ours.as_str().rsplit('.').zip(domain.as_str().rsplit('.'));
            let shared = pairs.take_while(|(one, other)| one == other).count();
            let labels = [ours, domain].map(|one| one.as_str().split('.').count());
            shared >= 2 || labels.contains(&shared)
        })
    }

    /// The DKIM-Signature field for a message, with its CRLF; `None` where its header section is malformed or over a limit.
    ///
    /// # Errors
    /// Those of the key.
    pub fn sign(
        &self,
        message: &[Bytes],
        domain: &Domain,
        now: Timestamp,
    ) -> Result<Option<Bytes>, KeyError> {
        let content = Content::of(message);
        if content.header.is_none() {
            return Ok(None);
        }
        let field = self.signed_field("DKIM-Signature: v=1", domain, &SIGNED, &content, now)?;
        Ok(Some(Bytes::from(field)))
    }

    /// A field with a signature over header fields and body (RFC 6376 §3.5, §5.4); `start` is its name and first tags.
    fn signed_field(
        &self,
        start: &str,
        domain: &Domain,
        names: &[&str],
        content: &Content<'_>,
        now: Timestamp,
    ) -> Result<String, KeyError> {
        let (list, mut data) = content.signed_fields(names);
        let field = format!(
            "{start}; a={}; c=relaxed/simple; d={};\r\n\ts={}; t={};\r\n\th={list};\r\n\tbh={};\r\n\tb=",
            self.algorithm.name(),
            ascii(domain),
            self.selector,
            now.0,
            base64_simd::STANDARD.encode_to_string(content.body_digest()),
        );
        canonical::relaxed_unended(&field, &mut data);
        Ok(with_signature(field, &self.signature(&data)?))
    }

    fn signature(&self, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self.algorithm {
            Algorithm::Rsa => self.key.sign(SignatureScheme::RsaPkcs1(Digest::Sha256), data),
            // RFC 8463 §3: over the digest.
            Algorithm::Ed25519 => {
                self.key.sign(SignatureScheme::Ed25519, digest(&SHA256, data).as_ref())
            }
        }
    }
}

/// Ends a field whose last tag is `b=` with the signature, folded.
fn with_signature(mut field: String, signature: &[u8]) -> String {
    let encoded = base64_simd::STANDARD.encode_to_string(signature);
    let mut rest = encoded.as_str();
    while let Some((line, more)) = rest.split_at_checked(LINE_CHARS) {
        field.push_str(line);
        field.push_str("\r\n\t ");
        rest = more;
    }
    field.push_str(rest);
    field.push_str("\r\n");
    field
}

/// As it stands in DNS.
fn ascii(domain: &Domain) -> String {
    let name = domain.as_str();
    idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_owned())
}

/// Signed as often as they stand and once more, so that none can be added (RFC 6376 §8.15).
const SIGNED: [&str; 13] = [
    "From",
    "To",
    "Cc",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
];
/// Characters of a signature in one line.
const LINE_CHARS: usize = 72;

#[cfg(test)]
mod tests;
