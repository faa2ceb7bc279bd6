//! The list of what our own authority has revoked (RFC 5280 §5), complete each time.
//!
//! It is good until its authority ends: nobody has to renew what correspondents have, and it takes the place of the one
//! before by its number. An entry once made stays, also when its certificate has ended.

use std::time::{Duration, SystemTime};

use der::Decode;
use der::asn1::ObjectIdentifier;
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use sealgate_core::keys::{Certificate, Timestamp};
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::{CertificateList, RevokedCert};
use x509_cert::ext::pkix::CrlReason;

use super::{Authority, CLOCK_SKEW, failed};
use crate::error::StoreError;
use crate::import::crl::CRL_NUMBER;

/// Why a certificate is not to be believed any more (RFC 5280 §5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody else may have the key: what it signs is refused.
    KeyCompromise,
    /// The owner has left, or has another name.
    AffiliationChanged,
    /// Another certificate has taken its place.
    Superseded,
    /// It is needed no more.
    CessationOfOperation,
}

impl Reason {
    fn code(self) -> RevocationReason {
        match self {
            Self::KeyCompromise => RevocationReason::KeyCompromise,
            Self::AffiliationChanged => RevocationReason::AffiliationChanged,
            Self::Superseded => RevocationReason::Superseded,
            Self::CessationOfOperation => RevocationReason::CessationOfOperation,
        }
    }
}

/// The list that an authority had issued last.
#[derive(Default)]
pub(crate) struct RevokedSoFar {
    entries: Vec<RevokedCertParams>,
    number: u64,
}

impl RevokedSoFar {
    /// Reads one of our own. `None` where it is none that [`Authority::revocation_list`] wrote.
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let list = CertificateList::<Rfc5280>::from_der(der).ok()?.tbs_cert_list;
        let extensions = list.crl_extensions.as_deref().unwrap_or_default();
        let number = extensions.iter().find(|one| one.extn_id == CRL_NUMBER)?;
        let number = u64::from_der(number.extn_value.as_bytes()).ok()?;
        let revoked = list.revoked_certificates.unwrap_or_default();
        Some(Self { entries: revoked.iter().map(entry).collect::<Option<_>>()?, number })
    }

    /// Adds a certificate. One that is there already gets the graver reason and keeps its date. Says whether anything changed.
    pub(crate) fn revoke(
        &mut self,
        certificate: &Certificate,
        reason: Reason,
        now: Timestamp,
    ) -> bool {
        let serial = SerialNumber::from_slice(certificate.serial_bytes());
        let code = Some(reason.code());
        if let Some(held) = self.entries.iter_mut().find(|held| held.serial_number == serial) {
            let is_graver = reason == Reason::KeyCompromise && held.reason_code != code;
            if is_graver {
                held.reason_code = code;
            }
            return is_graver;
        }
        self.entries.push(RevokedCertParams {
            serial_number: serial,
            revocation_time: system_time(now.0).into(),
            reason_code: code,
            invalidity_date: None,
        });
        true
    }
}

impl Authority {
    /// Signs a list (DER) that takes the place of the one that it begins with: by its number, whatever the clock said then.
    pub(crate) fn revocation_list(
        &self,
        so_far: RevokedSoFar,
        now: Timestamp,
    ) -> Result<Vec<u8>, StoreError> {
        // A clock that is behind is to take it for current, as it takes our certificates.
        let skew = i64::try_from(CLOCK_SKEW.as_secs()).unwrap_or_default();
        let this_update = now.0.saturating_sub(skew);
        let next_update = self.not_after.max(this_update.saturating_add(1));
        // Also where the database is an older one again: correspondents may have what was issued since.
        let seconds = u64::try_from(now.0).unwrap_or_default();
        let number = so_far.number.saturating_add(1).max(seconds);
        let params = CertificateRevocationListParams {
            this_update: system_time(this_update).into(),
            next_update: system_time(next_update).into(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: so_far.entries,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).map_err(failed)?;
        Ok(list.der().to_vec())
    }
}

fn entry(revoked: &RevokedCert<Rfc5280>) -> Option<RevokedCertParams> {
    let extensions = revoked.crl_entry_extensions.as_deref().unwrap_or_default();
    let reason = extensions.iter().find(|one| one.extn_id == CRL_REASON);
    let reason_code = match reason {
        Some(reason) => Some(code(CrlReason::from_der(reason.extn_value.as_bytes()).ok()?)?),
        None => None,
    };
    Some(RevokedCertParams {
        serial_number: SerialNumber::from_slice(revoked.serial_number.as_bytes()),
        revocation_time: (SystemTime::UNIX_EPOCH + revoked.revocation_date.to_unix_duration())
            .into(),
        reason_code,
        invalidity_date: None,
    })
}

fn code(reason: CrlReason) -> Option<RevocationReason> {
    match reason {
        CrlReason::KeyCompromise => Some(RevocationReason::KeyCompromise),
        CrlReason::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
        CrlReason::Superseded => Some(RevocationReason::Superseded),
        CrlReason::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
        _ => None,
    }
}

fn system_time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// RFC 5280 §5.3.1.
const CRL_REASON: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
