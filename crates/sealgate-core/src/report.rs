//! What was done to a message: the report of `--report`, of the log line and of the headers, one source for all three.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::address::Address;
use crate::keys::Certificate;

/// The field with a transaction's id that is put on what comes in, and taken off before: what has it came from outside.
pub(crate) const ID_FIELD: &str = "X-Sealgate-Id";

/// The report of one transaction (INTERFACE, Report).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which way the message went.
    pub direction: Direction,
    /// The transaction's id, the one in the reply and in the log.
    pub id: String,
    /// The reply; the relay fills it in after delivery.
    pub reply: Option<ReplyReport>,
    /// What went downstream; of several copies the first.
    pub delivered: Delivered,
    /// The verdict on the signature, with RFC 7281's meanings.
    pub verdict: Verdict,
    /// Why the verdict is not a plain pass.
    pub reason: Option<Reason>,
    /// Cryptographic layers from the outside in.
    pub layers: Vec<Layer>,
    /// Inbound: what SPF, DKIM, DMARC and ARC say of the message as it came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authentication: Vec<AuthenticationResult>,
    /// Inbound: a recipient was named in an encryption that was opened, and his key does not open it. Nobody's to read: the
    /// reply's time and the count of failures go by it.
    #[serde(skip)]
    pub named_in_vain: bool,
    /// Inbound: which of the layers the verdict is on; `None`: the innermost.
    #[serde(skip)]
    pub author_layer: Option<usize>,
}

/// The result of one method of e-mail authentication (RFC 8601 §2.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuthenticationResult {
    /// `spf`, `dkim`, `dmarc`, `arc`.
    pub method: &'static str,
    /// `pass`, `fail`, `none`, `temperror`, ...
    pub result: &'static str,
    /// What it is about, `header.d` and a domain, say.
    pub properties: Vec<(&'static str, String)>,
}

impl Report {
    /// A report of a message to which nothing was done yet.
    pub fn new(direction: Direction, id: &str) -> Self {
        Self {
            direction,
            id: id.to_owned(),
            reply: None,
            delivered: Delivered::Nothing,
            verdict: Verdict::None,
            reason: None,
            layers: Vec::new(),
            authentication: Vec::new(),
            named_in_vain: false,
            author_layer: None,
        }
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the Internet to the mail server.
    Inbound,
    /// From the mail server to the Internet.
    Outbound,
}

impl Direction {
    /// The word that the report shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// An SMTP reply as the report shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplyReport {
    /// Three digits.
    pub code: u16,
    /// RFC 3463 status, empty where there is none.
    pub enhanced: String,
    /// The text.
    pub text: String,
}

/// What was handed downstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivered {
    /// The message as it came, but for trace and result fields.
    AsReceived,
    /// Nothing.
    Nothing,
    /// Opened (inbound) or, outbound, unprotected by policy.
    Plain,
    /// Encrypted (and signed where policy says so).
    Sealed,
    /// Signed, not encrypted.
    Signed,
}

impl Delivered {
    /// The word that the report shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsReceived => "as-received",
            Self::Nothing => "nothing",
            Self::Plain => "plain",
            Self::Sealed => "sealed",
            Self::Signed => "signed",
        }
    }
}

/// RFC 7281 §3 results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Signed, and the signature or the certificate is bad.
    Fail,
    /// Signed in a way that cannot be judged (unsupported).
    Neutral,
    /// No signature of the message as a whole.
    #[default]
    None,
    /// Signed by the author, trusted.
    Pass,
    /// Something needed for verifying is missing for good.
    PermError,
    /// Mathematically valid, but not acceptable by policy.
    Policy,
    /// Something needed for verifying is missing for now.
    TempError,
}

impl Verdict {
    /// The word of RFC 7281 §3.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::Pass => "pass",
            Self::PermError => "permerror",
            Self::Policy => "policy",
            Self::TempError => "temperror",
        }
    }
}

/// Why a verdict or a delivery is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// Outbound: the mail was encrypted by its sender already.
    AlreadyEncrypted,
    /// Outbound: the mail was signed by its sender already.
    AlreadySigned,
    /// eContent and a signed part at once, or signers that disagree.
    Ambiguous,
    /// The signer's certificate is not in the message and not in the store.
    CertificateMissing,
    /// The certificate is outside its validity by a clock that has jumped.
    ClockDoubtful,
    /// Encrypted with authentication, opened, and not signed.
    EncryptedUnsigned,
    /// The certificate is outside its validity.
    Expired,
    /// The policy for this sender demands a valid signature.
    ExpectSigned,
    /// Digest or signature wrong, or an authenticated encryption that does not authenticate.
    Falsified,
    /// CMS that does not parse or contradicts itself.
    Malformed,
    /// Encrypted to keys that are not ours.
    NoKey,
    /// Decryption failed; said to non-administrators without more.
    NotDecrypted,
    /// A limit of REQUIREMENTS K was passed.
    OverLimit,
    /// Revoked for another reason than key compromise.
    Revoked,
    /// CRLs are needed and none is current.
    RevocationUnknown,
    /// The certificate names another address than From.
    SignerMismatch,
    /// Well formed, and an algorithm or type that is not supported.
    Unsupported,
    /// No path to an anchor.
    Untrusted,
    /// Key usage forbids it.
    WrongUsage,
    /// Key or digest below the minimum.
    Weak,
}

impl Reason {
    /// The word that the report and the header show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyEncrypted => "already-encrypted",
            Self::AlreadySigned => "already-signed",
            Self::Ambiguous => "ambiguous",
            Self::CertificateMissing => "certificate-missing",
            Self::ClockDoubtful => "clock-doubtful",
            Self::EncryptedUnsigned => "encrypted-unsigned",
            Self::Expired => "expired",
            Self::ExpectSigned => "expect-signed",
            Self::Falsified => "falsified",
            Self::Malformed => "malformed",
            Self::NoKey => "no-key",
            Self::NotDecrypted => "not-decrypted",
            Self::OverLimit => "over-limit",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation-unknown",
            Self::SignerMismatch => "signer-mismatch",
            Self::Unsupported => "unsupported",
            Self::Untrusted => "untrusted",
            Self::WrongUsage => "wrong-usage",
            Self::Weak => "weak",
        }
    }
}

/// One cryptographic layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Layer {
    /// Encrypted.
    Encrypted {
        /// `smime`.
        format: Format,
        /// Content algorithm, `aes-256-gcm`, `aes-256-cbc`, ...
        content: String,
        /// Key transport or agreement, `rsa-oaep-sha256`, `rsa-pkcs1`, `ecdh-p256`, ...
        key: String,
        /// The recipient whose key opened it, or all it was sealed to.
        recipient: String,
    },
    /// Signed.
    Signed {
        /// `smime`.
        format: Format,
        /// Whether it verified.
        status: SignatureStatus,
        /// Who signed; absent when the certificate was not found.
        signer: Option<Signer>,
        /// `sha-256`, ...
        digest: String,
        /// `rsa-pkcs1`, `rsa-pss`, `ecdsa-p256`, `ed25519`, ...
        signature: String,
    },
}

impl fmt::Display for Layer {
    /// Short, for a line that people read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encrypted { content, key, .. } => write!(f, "encrypted:{content}:{key}"),
            Self::Signed { status, digest, signature, .. } => {
                write!(f, "signed:{}:{digest}:{signature}", status.as_str())
            }
        }
    }
}

/// How a layer is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// S/MIME (RFC 8551).
    Smime,
}

/// What the mathematics of a signature say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureStatus {
    /// Digest or signature wrong under an identified key.
    Falsified,
    /// No certificate, or not supported.
    Unverifiable,
    /// Right.
    Valid,
}

impl SignatureStatus {
    /// The word that the report shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Falsified => "falsified",
            Self::Unverifiable => "unverifiable",
            Self::Valid => "valid",
        }
    }
}

/// Whose certificate it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// The address in it that matched, else its first.
    pub address: String,
    /// RFC 4514 name.
    pub subject: String,
    /// RFC 4514 name.
    pub issuer: String,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// Fingerprint of the certificate.
    #[serde(serialize_with = "as_text")]
    pub sha256: crate::keys::Fingerprint,
}

impl Signer {
    /// Describes a certificate; `address` is the one that matched, else its first is shown.
    pub fn of(certificate: &Certificate, address: Option<&Address>) -> Self {
        let shown = address.or_else(|| certificate.addresses().first());
        Self {
            address: shown.map_or_else(String::new, Address::to_string),
            subject: certificate.subject().to_owned(),
            issuer: certificate.issuer().to_owned(),
            serial: certificate.serial().to_owned(),
            sha256: certificate.fingerprint(),
        }
    }
}

fn as_text<S: Serializer>(
    value: &crate::keys::Fingerprint,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
