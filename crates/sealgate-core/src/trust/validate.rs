//! Validates one candidate path (RFC 5280 §6.1) with certval, and what certval leaves to its
//! caller.
//!
//! The time is left out here on purpose: whether a path holds apart from time and revocation does
//! not change, so certval is given none. Ours besides: intermediates without a key usage, extended key usage of intermediates, the
//! number of comparisons with name constraints (REQUIREMENTS K6), and internationalised mailboxes
//! under constraints of mailboxes.

use std::sync::Arc;

use certval::{
    CertificationPath, CertificationPathResults, CertificationPathSettings, Error,
    PathValidationStatus, PkiEnvironment, TimeOfInterest, check_critical_extensions,
    check_extended_key_usage, validate_path_rfc5280, verify_signatures,
};
use x509_cert::ext::pkix::name::GeneralName;

use crate::trust::link::Link;
use crate::trust::path::Path;
use crate::trust::signature::Checks;

/// Runs certval over paths, with our signature verification.
pub(super) struct Validator {
    environment: PkiEnvironment,
}

/// What came out, apart from time and revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    /// The path does not hold.
    Broken,
    /// The path holds.
    Holds,
    /// It would take more work than it may.
    OverLimit,
}

impl Validator {
    pub(super) fn new(checks: Arc<Checks>) -> Self {
        let mut environment = PkiEnvironment::new();
        environment.add_verify_signature_message_callback(checks);
        Self { environment }
    }

    /// Validates a path. `adjust` may change the initial values of RFC 5280 §6.1.1.
    pub(super) fn validate(
        &self,
        path: &Path<'_>,
        adjust: impl FnOnce(&mut CertificationPathSettings),
    ) -> Validity {
        let Some(issues) = path.anchor.issues() else { return Validity::Broken };
        let Some((target, intermediates)) = path.links.split_last() else {
            return Validity::Broken;
        };
        if comparisons(path) > NAME_COMPARISONS_MAX {
            return Validity::OverLimit;
        }
        if !intermediates.iter().all(|link| link.is_for_mail()) || !mailboxes_are_bound(path) {
            return Validity::Broken;
        }
        // certval passes over such an extension. We may read mailboxes in it all the same, which nothing would constrain then.
        if path.links.iter().any(|link| link.has_unreadable_names()) {
            return Validity::Broken;
        }
        let candidate = CertificationPath::new(
            issues.anchor.clone(),
            intermediates.iter().map(|link| link.certificate().clone()).collect(),
            target.certificate().clone(),
        );
        let mut settings = issues.settings.clone();
        adjust(&mut settings);
        let mut results = CertificationPathResults::new();
        let environment = &self.environment;
        let mut outcome = validate_path_rfc5280(environment, &settings, &candidate, &mut results);
        if outcome == Err(Error::PathValidation(PathValidationStatus::InvalidKeyUsage))
            && intermediates.iter().all(|link| link.may_issue())
        {
            outcome = after_key_usage(environment, &settings, &candidate, &mut results);
        }
        match outcome {
            Ok(()) if results.get_validation_status() == Some(PathValidationStatus::Valid) => {
                Validity::Holds
            }
            Err(Error::PathValidation(PathValidationStatus::ProcessingLimitExceeded)) => {
                Validity::OverLimit
            }
            _ => Validity::Broken,
        }
    }
}

/// What certval checks after the key usage of intermediates: it asks for one of each of them, and RFC 5280 §6.1.4 n only that
/// one that is there allows to issue.
fn after_key_usage(
    environment: &PkiEnvironment,
    settings: &CertificationPathSettings,
    path: &CertificationPath,
    results: &mut CertificationPathResults,
) -> Result<(), Error> {
    check_extended_key_usage(environment, settings, path, results)?;
    check_critical_extensions(environment, settings, path, results)?;
    verify_signatures(environment, settings, path, results)?;
    results.set_validation_status(PathValidationStatus::Valid);
    Ok(())
}

/// The settings that every path has: no time, no revocation, and the anchor is as given.
pub(super) fn settings() -> CertificationPathSettings {
    let mut settings = CertificationPathSettings::new();
    settings.set_time_of_interest(TimeOfInterest::disabled());
    settings.set_require_ta_store(false);
    settings.set_enforce_trust_anchor_validity(false);
    settings.set_check_revocation_status(false);
    settings.set_check_crls(false);
    settings.set_check_ocsp_from_aia(false);
    settings.set_check_crldp_http(false);
    settings.set_retrieve_from_aia_sia_http(false);
    settings
}

/// How many names a path compares with how many constraints, at most.
fn comparisons(path: &Path<'_>) -> usize {
    let constraints: usize = constraining(path).map(|link| link.constraints().count()).sum();
    // Each certificate's subject counts as one name.
    let names: usize =
        path.links.iter().map(|link| link.alternative_names().len().saturating_add(1)).sum();
    constraints.saturating_mul(names)
}

/// RFC 9598 §6 applies constraints of mailboxes to internationalised ones; certval does not. So a
/// path that has both is refused: such a constraint must not be evaded.
fn mailboxes_are_bound(path: &Path<'_>) -> bool {
    let is_constrained = constraining(path)
        .flat_map(Link::constraints)
        .any(|base| matches!(base, GeneralName::Rfc822Name(_)));
    !is_constrained || !path.links.iter().any(|link| link.has_smtp_utf8_mailbox())
}

/// The certificates whose constraints bind: all but the target.
fn constraining<'a>(path: &'a Path<'_>) -> impl Iterator<Item = &'a Link> {
    let above_target = path.links.len().saturating_sub(1);
    std::iter::once(path.anchor.link()).chain(path.links.iter().take(above_target).copied())
}

/// REQUIREMENTS K6.
const NAME_COMPARISONS_MAX: usize = 250_000;
