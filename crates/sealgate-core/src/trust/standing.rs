//! The revocation status of every certificate of a path that holds otherwise.
//!
//! A CRL is mostly signed with the key that signed the certificate. Where that settles nothing, or
//! others are held that may revoke what it calls good, CRLs signed with another key of the same
//! authority are taken (a renewed key, a key for CRLs only; RFC 5280 §6.3.3 f): the key's
//! certificate must bear the issuer's name, be the administrator's or on the path above the
//! certificate asked about, hold below the same anchor, be current and not be revoked itself.
//! Whether it is, is asked of its own issuer's key only: nobody vouches for himself.

use std::sync::Arc;

use certval::compare_names;

use crate::trust::clock::Clock;
use crate::trust::link::Link;
use crate::trust::path::Path;
use crate::trust::revocation::{Crls, Status};
use crate::trust::signature::{Checks, Strength, TooManyChecks};
use crate::trust::validate::{Validator, Validity};

/// What the question takes besides path and time.
#[derive(Clone, Copy)]
pub(super) struct Authorities<'a> {
    pub(super) crls: &'a Crls,
    pub(super) intermediates: &'a [Arc<Link>],
    pub(super) validator: &'a Validator,
    pub(super) checks: &'a Checks,
}

impl Authorities<'_> {
    /// The worst status on a path.
    pub(super) fn status_of(
        &self,
        path: &Path<'_>,
        clock: &mut Clock,
    ) -> Result<Status, TooManyChecks> {
        let mut worst = Status::Good;
        let mut issuer = path.anchor.link();
        for (position, link) in path.links.iter().enumerate() {
            let mut status = self.crls.status(link, &[issuer], clock, self.checks)?;
            let is_settled = match status {
                Status::Good => !self.crls.have_others_than_of(issuer, link, self.checks)?,
                Status::NotChecked | Status::Revoked { .. } => true,
                Status::Unknown => false,
            };
            if !is_settled {
                let signers = self.signers(path, position, link, clock)?;
                status = self.crls.status(link, &signers, clock, self.checks)?;
            }
            worst = worst.worse(status);
            issuer = link;
        }
        Ok(worst)
    }

    /// The certificates, its own among them, of the authority that issued the link at this
    /// position.
    fn signers<'a>(
        &'a self,
        path: &Path<'a>,
        position: usize,
        certificate: &Link,
        clock: &mut Clock,
    ) -> Result<Vec<&'a Link>, TooManyChecks> {
        let above = path.links.iter().take(position).copied();
        let mut signers: Vec<&'a Link> = std::iter::once(path.anchor.link())
            .chain(above)
            .filter(|other| may_sign_for(other, certificate))
            .collect();
        let others = self.intermediates.iter().filter(|other| may_sign_for(other, certificate));
        for other in others.take(SIGNERS_MAX) {
            let is_on_path = path.links.iter().any(|link| link.is_same_authority(other));
            if !is_on_path && self.holds(path, position, other, clock)? {
                signers.push(other);
            }
        }
        Ok(signers)
    }

    /// Whether a certificate holds when put on the path in place of the link at this position, or
    /// of that link's issuer.
    fn holds<'a>(
        &'a self,
        path: &Path<'a>,
        position: usize,
        signer: &'a Link,
        clock: &mut Clock,
    ) -> Result<bool, TooManyChecks> {
        let (first, last) = signer.validity();
        if !clock.is_within(first, last) {
            return Ok(false);
        }
        for above in [position.checked_sub(1), Some(position)].into_iter().flatten() {
            let mut links: Vec<&'a Link> = path.links.iter().take(above).copied().collect();
            let issuer = links.last().copied().unwrap_or_else(|| path.anchor.link());
            links.push(signer);
            if signer.issuer_fold() != issuer.subject_fold()
                || self.checks.verify(signer.signed(), issuer.key())? != Some(Strength::Strong)
            {
                continue;
            }
            let candidate = Path { anchor: path.anchor, links, strength: Strength::Strong };
            if self.validator.validate(&candidate, |_| {}) != Validity::Holds {
                continue;
            }
            let status = self.crls.status(signer, &[issuer], clock, self.checks)?;
            return Ok(matches!(status, Status::Good | Status::NotChecked));
        }
        Ok(false)
    }
}

/// Whether a certificate bears the name of another's issuer, and may sign CRLs.
pub(super) fn may_sign_for(signer: &Link, certificate: &Link) -> bool {
    signer.subject_fold() == certificate.issuer_fold()
        && compare_names(signer.subject(), certificate.issuer())
        && signer.may_sign_crls()
}

/// Certificates of one issuer's name that are looked at for other keys of it.
const SIGNERS_MAX: usize = 16;
