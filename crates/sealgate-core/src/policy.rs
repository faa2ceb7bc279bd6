//! Who must be signed for, who must be encrypted to, and what inbound mail must show: pure functions of the addresses.

use serde::Deserialize;

use crate::address::{Address, Domain};

/// The whole policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Ours.
    pub domains: Vec<Domain>,
    /// What holds where no rule says otherwise.
    pub defaults: Decision,
    /// Asked in order; the first that matches overrides the defaults.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// Whether an address is in one of our domains.
    pub fn is_ours(&self, address: &Address) -> bool {
        self.domains.contains(address.domain())
    }

    /// Whether any rule that concerns this recipient expects signatures of somebody: what mail without a readable From
    /// is held to.
    pub fn expects_signatures(&self, to: &Address) -> bool {
        let concerns = |rule: &Rule| {
            rule.to.is_empty() || rule.to.iter().any(|pattern| pattern.matches(Some(to)))
        };
        self.defaults.expect_signed
            || self
                .rules
                .iter()
                .any(|rule| rule.overrides.expect_signed == Some(true) && concerns(rule))
    }

    /// What holds for mail from `from` (`None`: the null reverse-path) to `to`.
    pub fn decide(&self, from: Option<&Address>, to: &Address) -> Decision {
        let matching = self.rules.iter().find(|rule| rule.matches(from, to));
        matching.map_or(self.defaults, |rule| rule.overrides.over(self.defaults))
    }
}

/// What is to be done with one message for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Outbound.
    pub sign: Sign,
    /// Outbound.
    pub encrypt: Encrypt,
    /// Outbound.
    pub order: Order,
    /// Outbound.
    pub content: Content,
    /// Outbound.
    pub tls: LinkTls,
    /// Inbound.
    pub falsified: Falsified,
    /// Inbound.
    pub unauthenticated_encryption: UnauthenticatedEncryption,
    /// Inbound.
    pub signer_mismatch: SignerMismatch,
    /// Inbound, of whom it is for.
    pub rsa_pkcs1: RsaPkcs1,
    /// Inbound: mail from this sender must carry a valid signature.
    pub expect_signed: bool,
}

impl Default for Decision {
    fn default() -> Self {
        Self {
            sign: Sign::IfKey,
            encrypt: Encrypt::Require,
            order: Order::SignThenEncrypt,
            content: Content::Auto,
            tls: LinkTls::Opportunistic,
            falsified: Falsified::Refuse,
            unauthenticated_encryption: UnauthenticatedEncryption::Refuse,
            signer_mismatch: SignerMismatch::Withhold,
            rsa_pkcs1: RsaPkcs1::Accept,
            expect_signed: false,
        }
    }
}

/// A rule: address patterns and what they override.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Patterns of the originator (outbound: MAIL FROM; inbound: MAIL FROM); empty matches all.
    pub from: Vec<Pattern>,
    /// Patterns of the recipient; empty matches all.
    pub to: Vec<Pattern>,
    /// What to override.
    pub overrides: Overrides,
}

impl Rule {
    fn matches(&self, from: Option<&Address>, to: &Address) -> bool {
        let from_matches =
            self.from.is_empty() || self.from.iter().any(|pattern| pattern.matches(from));
        from_matches
            && (self.to.is_empty() || self.to.iter().any(|pattern| pattern.matches(Some(to))))
    }
}

/// An address pattern: `*`, `<>`, `*@domain`, `*@*.domain`, or `local-part@domain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `*`: everyone, the null reverse-path too.
    Anyone,
    /// `*@domain`.
    Domain(String),
    /// `local-part@domain`.
    Mailbox(Address),
    /// `<>`: the null reverse-path, so that notifications can have a rule of their own.
    NullReversePath,
    /// `*@*.domain`: every subdomain, not the domain itself.
    Subdomains(String),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// A sentence that says what forms there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is no address pattern: write *, <>, *@domain, *@*.domain or local-part@domain"
            )
        };
        if text == "*" {
            return Ok(Self::Anyone);
        }
        if text == "<>" {
            return Ok(Self::NullReversePath);
        }
        let Some(domain) = text.strip_prefix("*@") else {
            // RFC 5321 would allow it in a local part; who writes it here means a pattern.
            if text.contains('*') {
                return Err(bad());
            }
            return Address::parse_foreign(text).map(Self::Mailbox).map_err(|_| bad());
        };
        let (subdomains, name) =
            domain.strip_prefix("*.").map_or((false, domain), |rest| (true, rest));
        let name = Domain::parse(name).map_err(|_| bad())?.as_str().to_owned();
        Ok(if subdomains { Self::Subdomains(name) } else { Self::Domain(name) })
    }

    /// Whether it matches an address; `None` is the null reverse-path.
    pub fn matches(&self, address: Option<&Address>) -> bool {
        let Some(address) = address else {
            return matches!(self, Self::Anyone | Self::NullReversePath);
        };
        let domain = address.domain().as_str();
        match self {
            Self::Anyone => true,
            Self::Domain(name) => domain == name,
            Self::Mailbox(mailbox) => mailbox == address,
            Self::NullReversePath => false,
            Self::Subdomains(name) => {
                domain.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
        }
    }
}

/// The overridable part of a [`Decision`], as `[[rule]]` of the configuration has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// See [`Decision::sign`].
    pub sign: Option<Sign>,
    /// See [`Decision::encrypt`].
    pub encrypt: Option<Encrypt>,
    /// See [`Decision::order`].
    pub order: Option<Order>,
    /// See [`Decision::content`].
    pub content: Option<Content>,
    /// See [`Decision::tls`].
    pub tls: Option<LinkTls>,
    /// See [`Decision::falsified`].
    pub falsified: Option<Falsified>,
    /// See [`Decision::unauthenticated_encryption`].
    pub unauthenticated_encryption: Option<UnauthenticatedEncryption>,
    /// See [`Decision::signer_mismatch`].
    pub signer_mismatch: Option<SignerMismatch>,
    /// See [`Decision::rsa_pkcs1`].
    pub rsa_pkcs1: Option<RsaPkcs1>,
    /// See [`Decision::expect_signed`].
    pub expect_signed: Option<bool>,
}

impl Overrides {
    /// The decision with what is set here replaced.
    pub fn over(self, base: Decision) -> Decision {
        Decision {
            sign: self.sign.unwrap_or(base.sign),
            encrypt: self.encrypt.unwrap_or(base.encrypt),
            order: self.order.unwrap_or(base.order),
            content: self.content.unwrap_or(base.content),
            tls: self.tls.unwrap_or(base.tls),
            falsified: self.falsified.unwrap_or(base.falsified),
            unauthenticated_encryption: self
                .unauthenticated_encryption
                .unwrap_or(base.unauthenticated_encryption),
            signer_mismatch: self.signer_mismatch.unwrap_or(base.signer_mismatch),
            rsa_pkcs1: self.rsa_pkcs1.unwrap_or(base.rsa_pkcs1),
            expect_signed: self.expect_signed.unwrap_or(base.expect_signed),
        }
    }
}

/// Whether outbound mail is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// Always; what cannot be signed is refused.
    Always,
    /// Where the originator has a key.
    IfKey,
    /// Never.
    Never,
}

/// Whether outbound mail is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encrypt {
    /// Never.
    Never,
    /// Where the recipient has a key; plain for the others.
    Prefer,
    /// Always; a recipient without a usable key is refused.
    Require,
}

/// The order of signature and encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Signature outside only: for peers that demand exactly that.
    EncryptThenSign,
    /// RFC 8551 §3.7 default.
    SignThenEncrypt,
    /// RFC 2634 triple wrapping: sign, encrypt, sign.
    Triple,
}

/// The content-encryption algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Content {
    /// AES-256-CBC in EnvelopedData, always with a signature inside.
    #[serde(rename = "aes-256-cbc")]
    Aes256Cbc,
    /// AES-256-GCM in AuthEnvelopedData.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// GCM for those known to read it, else CBC.
    #[serde(rename = "auto")]
    Auto,
}

/// What the connection to the next hop must be, whatever the recipient's domain publishes (DANE, MTA-STS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkTls {
    /// Encrypted where the server offers it (RFC 7435).
    #[default]
    Opportunistic,
    /// Encrypted, else the mail waits.
    Require,
    /// Encrypted towards a server that proves its name, else the mail waits.
    Verify,
}

/// What happens to falsified mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Falsified {
    /// 550 5.7.7.
    Refuse,
    /// Delivered, marked `smime=fail`.
    Tag,
}

/// What happens to unauthenticated encryption without a valid signature inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnauthenticatedEncryption {
    /// Delivered: opened where unsigned and well formed, else as received.
    Pass,
    /// 550 5.7.7.
    Refuse,
}

/// Whether a content-encryption key that came under RSAES-PKCS1-v1_5 is unwrapped (REQUIREMENTS J6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RsaPkcs1 {
    /// As any other.
    Accept,
    /// The secret key is not used: such an encryption is not supported, and delivered as received.
    Refuse,
}

/// What happens to decrypted mail whose signer is not the From.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignerMismatch {
    /// Delivered opened, marked.
    Tag,
    /// Delivered as received.
    Withhold,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, text, expected) in [
            ("*", "a@b.example", true),
            ("*@b.example", "a@B.example", true),
            ("*@b.example", "a@x.b.example", false),
            ("*@*.b.example", "a@x.b.example", true),
            ("*@*.b.example", "a@xb.example", false),
            ("*@*.b.example", "a@b.example", false),
            ("Boss@b.example", "boss@B.example", true),
            ("<>", "a@b.example", false),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(Some(&address(text))), expected, "{pattern} {text}");
        }
        assert!(Pattern::parse("<>").unwrap().matches(None));
        assert!(Pattern::parse("*").unwrap().matches(None));
        assert!(!Pattern::parse("*@b.example").unwrap().matches(None));
    }

    #[test]
    fn nonsense_is_no_pattern() {
        for text in ["", "@b", "a*@b", "*b@c", "**@b", "*@", "*@*"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_overrides_the_defaults() {
        let rule = |to: &str, encrypt| Rule {
            from: vec![],
            to: vec![Pattern::parse(to).unwrap()],
            overrides: Overrides { encrypt: Some(encrypt), ..Overrides::default() },
        };
        let policy = Policy {
            domains: vec![Domain::parse("nec.example").unwrap()],
            defaults: Decision::default(),
            rules: vec![rule("*@abc.example", Encrypt::Prefer), rule("*", Encrypt::Never)],
        };
        let from = address("a@nec.example");
        assert_eq!(policy.decide(Some(&from), &address("b@abc.example")).encrypt, Encrypt::Prefer);
        assert_eq!(policy.decide(Some(&from), &address("b@other.example")).encrypt, Encrypt::Never);
        assert_eq!(policy.decide(None, &address("b@other.example")).sign, Sign::IfKey);
    }
}
