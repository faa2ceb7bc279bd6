//! Revocation from CRLs that were supplied as bytes (RFC 5280 §5, §6.3).
//!
//! In: DER CertificateLists, read once. Out, for a certificate and its issuer: [`Status`]. Where no
//! CRL is held for the issuer's name, or for a cRLIssuer that the certificate names, revocation is
//! not checked. Where one is held, only CRLs that a key of the issuer signed, that are current,
//! that are understood whole and whose scope covers the certificate for all reasons make it good;
//! anything else is unknown. A revocation counts from its date on, in a CRL that is out of date and
//! in a delta CRL too, because except for certificateHold no revocation is taken back.
//!
//! Not done: indirect CRLs, and combining a delta CRL with its base to lift a hold. These leave the
//! status unknown, or revoked. Which keys are the issuer's is decided in `standing`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use certval::compare_names;
use const_oid::db::rfc5912;
use der::{Decode, Encode};
use x509_cert::crl::{CertificateList, RevokedCert};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::trust::clock::Clock;
use crate::trust::link::{Link, fold, seconds};
use crate::trust::scope::{Reasons, Scope};
use crate::trust::signature::{Checks, Signed, Strength, TooManyChecks};

/// All CRLs held, by their issuer's name.
#[derive(Debug, Default)]
pub(super) struct Crls {
    by_issuer: HashMap<String, Vec<Crl>>,
}

/// What the CRLs say of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Not revoked.
    Good,
    /// No CRL of this issuer is held.
    NotChecked,
    /// Revoked.
    Revoked {
        /// For keyCompromise or cACompromise.
        key_compromise: bool,
    },
    /// CRLs are held, and none settles it.
    Unknown,
}

impl Status {
    /// The one that decides about a path whose certificates have both.
    pub(super) fn worse(self, other: Self) -> Self {
        let rank = |status: Self| match status {
            Self::Revoked { key_compromise: true } => 4,
            Self::Revoked { key_compromise: false } => 3,
            Self::Unknown => 2,
            Self::NotChecked => 1,
            Self::Good => 0,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl Crls {
    /// Reads CRLs; says which (by position) are none at all.
    pub(super) fn new(crls: Vec<Vec<u8>>) -> (Self, Vec<usize>) {
        let mut by_issuer: HashMap<String, Vec<Crl>> = HashMap::new();
        let mut unreadable = Vec::new();
        for (position, der) in crls.iter().enumerate() {
            match Crl::parse(der) {
                Some(crl) => by_issuer.entry(fold(&crl.issuer)).or_default().push(crl),
                None => unreadable.push(position),
            }
        }
        (Self { by_issuer }, unreadable)
    }

    /// Whether a CRL is held under the name of a certificate's issuer, or of a CRL issuer that it
    /// names: an indirect CRL, which is not read, must not make it look unchecked by choice.
    pub(super) fn are_held_for(&self, certificate: &Link) -> bool {
        self.held_for(certificate).next().is_some()
            || certificate.crl_issuers().any(|name| self.by_issuer.contains_key(&fold(name)))
    }

    /// Judges a certificate by the CRLs of its issuer, signed with the key of one of these
    /// certificates of that issuer.
    pub(super) fn status(
        &self,
        certificate: &Link,
        signers: &[&Link],
        clock: &mut Clock,
        checks: &Checks,
    ) -> Result<Status, TooManyChecks> {
        if !self.are_held_for(certificate) {
            return Ok(Status::NotChecked);
        }
        let mut covered = Reasons::NONE;
        let mut revoked: Option<bool> = None;
        for crl in self.held_for(certificate) {
            // Before the signature: an issuer may have many lists, each for a part of its certificates.
            let Some(scope) = &crl.scope else { continue };
            let Some(reasons) = scope.covered_reasons(certificate) else { continue };
            let Some(strength) = crl.strength_under_any(signers, checks)? else { continue };
            let is_current = crl.is_current(clock);
            if let Some(entry) = crl.entries.get(certificate.serial())
                && entry.counts(is_current, clock)
            {
                revoked = Some(revoked.unwrap_or(false) || entry.reason.is_key_compromise());
            }
            if is_current && !scope.is_delta() && strength == Strength::Strong {
                covered = covered.and(reasons);
            }
        }
        Ok(match revoked {
            Some(key_compromise) => Status::Revoked { key_compromise },
            None if covered.are_all() => Status::Good,
            None => Status::Unknown,
        })
    }

    /// Whether a CRL is about the certificate that this certificate of its issuer did not sign.
    pub(super) fn have_others_than_of(
        &self,
        signer: &Link,
        certificate: &Link,
        checks: &Checks,
    ) -> Result<bool, TooManyChecks> {
        for crl in self.held_for(certificate) {
            let is_about_it =
                crl.scope.as_ref().and_then(|scope| scope.covered_reasons(certificate)).is_some();
            if is_about_it && crl.strength_under_any(&[signer], checks)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn held_for<'a>(&'a self, certificate: &'a Link) -> impl Iterator<Item = &'a Crl> {
        self.by_issuer
            .get(certificate.issuer_fold())
            .into_iter()
            .flatten()
            .filter(|crl| compare_names(&crl.issuer, certificate.issuer()))
    }
}

/// A certificate revocation list.
#[derive(Debug)]
pub(super) struct Crl {
    issuer: Name,
    /// The identifier of the key that signed it (RFC 5280 §5.2.1), where it says so.
    authority_key: Option<Vec<u8>>,
    this_update: i64,
    next_update: Option<i64>,
    entries: HashMap<Vec<u8>, Entry>,
    /// `None` where the list is not understood whole: then it settles nothing.
    scope: Option<Scope>,
    tbs: Vec<u8>,
    algorithm: AlgorithmIdentifierOwned,
    signature: der::asn1::BitString,
    /// Under which keys (DER) it was found to verify, and how.
    verified: Mutex<HashMap<Vec<u8>, Option<Strength>>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    date: i64,
    reason: Reason,
}

/// CRLReason (RFC 5280 §5.3.1), as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Hold,
    KeyCompromise,
    Other,
    RemoveFromCrl,
}

impl Crl {
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        // Raw: RFC 5280's limits for serial numbers are the authority's affair.
        let list = CertificateList::<x509_cert::certificate::Raw>::from_der(der).ok()?;
        let outer = certval::DeferDecodeSigned::from_der(der).ok()?;
        let fields = list.tbs_cert_list;
        let extensions = fields.crl_extensions.unwrap_or_default();
        let mut is_understood = fields.signature == list.signature_algorithm;
        let mut entries = HashMap::new();
        for revoked in fields.revoked_certificates.unwrap_or_default() {
            is_understood &= has_known_entry_extensions(&revoked);
            let entry = Entry::of(&revoked);
            entries.insert(revoked.serial_number.as_bytes().to_vec(), entry);
        }
        let scope = Scope::parse(&extensions, &fields.issuer).filter(|_| is_understood);
        Some(Self {
            authority_key: key_identifier(&extensions),
            scope,
            entries,
            this_update: seconds(&fields.this_update),
            next_update: fields.next_update.as_ref().map(seconds),
            issuer: fields.issuer,
            tbs: outer.tbs_field,
            algorithm: list.signature_algorithm,
            signature: list.signature,
            verified: Mutex::default(),
        })
    }

    pub(super) fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// Whether it says that another key than this certificate's signed it.
    pub(super) fn names_another_key(&self, signer: &Link) -> bool {
        let named = self.authority_key.as_deref();
        named.zip(signer.key_identifier()).is_some_and(|(named, own)| named != own)
    }

    fn is_current(&self, clock: &mut Clock) -> bool {
        // RFC 5280 §5.1.2.5 requires nextUpdate; without one no CRL ever ends being current.
        self.next_update.is_some_and(|next| clock.is_within(self.this_update, next))
    }

    fn strength_under_any(
        &self,
        signers: &[&Link],
        checks: &Checks,
    ) -> Result<Option<Strength>, TooManyChecks> {
        for signer in signers.iter().filter(|signer| signer.may_sign_crls()) {
            let found = self.strength_under(signer, checks)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    pub(super) fn strength_under(
        &self,
        issuer: &Link,
        checks: &Checks,
    ) -> Result<Option<Strength>, TooManyChecks> {
        let Ok(key) = issuer.key().to_der() else { return Ok(None) };
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = verified.get(&key) {
            return Ok(*known);
        }
        let signed =
            Signed { message: &self.tbs, algorithm: &self.algorithm, signature: &self.signature };
        let outcome = checks.verify(signed, issuer.key())?;
        if verified.len() >= ISSUER_KEYS_MAX {
            verified.clear();
        }
        verified.insert(key, outcome);
        Ok(outcome)
    }
}

impl Entry {
    fn of(revoked: &RevokedCert<x509_cert::certificate::Raw>) -> Self {
        let reason = revoked
            .crl_entry_extensions
            .iter()
            .flatten()
            .find(|extension| extension.extn_id == rfc5912::ID_CE_CRL_REASONS)
            .map_or(Reason::Other, Reason::of);
        Self { date: seconds(&revoked.revocation_date), reason }
    }

    /// Whether it revokes now. A hold may have been lifted since a list went out of date.
    fn counts(&self, is_current: bool, clock: &mut Clock) -> bool {
        match self.reason {
            Reason::RemoveFromCrl => false,
            Reason::Hold => is_current && clock.has_reached(self.date),
            Reason::KeyCompromise | Reason::Other => clock.has_reached(self.date),
        }
    }
}

impl Reason {
    fn of(extension: &Extension) -> Self {
        // ENUMERATED of one octet (RFC 5280 §5.3.1).
        match extension.extn_value.as_bytes() {
            [0x0a, 1, 1 | 2] => Self::KeyCompromise,
            [0x0a, 1, 6] => Self::Hold,
            [0x0a, 1, 8] => Self::RemoveFromCrl,
            _ => Self::Other,
        }
    }

    fn is_key_compromise(self) -> bool {
        self == Self::KeyCompromise
    }
}

fn key_identifier(extensions: &[Extension]) -> Option<Vec<u8>> {
    let is_it = |one: &&Extension| one.extn_id == rfc5912::ID_CE_AUTHORITY_KEY_IDENTIFIER;
    let value = extensions.iter().find(is_it)?.extn_value.as_bytes();
    let named = AuthorityKeyIdentifier::from_der(value).ok()?;
    Some(named.key_identifier?.into_bytes().into_vec())
}

/// A list with a critical entry extension that is not processed must not be used at all (RFC 5280
/// §5.3).
fn has_known_entry_extensions(revoked: &RevokedCert<x509_cert::certificate::Raw>) -> bool {
    revoked.crl_entry_extensions.iter().flatten().all(|extension| {
        !extension.critical
            || matches!(
                extension.extn_id,
                rfc5912::ID_CE_CRL_REASONS | rfc5912::ID_CE_INVALIDITY_DATE
            )
    })
}

/// Keys of one issuer's name under which a list's signature is remembered.
const ISSUER_KEYS_MAX: usize = 16;
