//! An authority, or one certificate, that the administrator trusts.
//!
//! An anchor's own signature and validity are not asked: the administrator decided. Its constraints
//! (path length, names, policies; RFC 5937 §3.2) hold for what it issues.

use certval::{CertificationPathSettings, PDVTrustAnchorChoice, enforce_trust_anchor_constraints};

use crate::trust::link::Link;
use crate::trust::validate::settings;

/// A trust anchor.
#[derive(Debug)]
pub(super) struct Anchor {
    link: Link,
    issues: Option<Issues>,
}

/// What is needed to validate paths below an anchor.
pub(super) struct Issues {
    pub(super) anchor: PDVTrustAnchorChoice,
    pub(super) settings: CertificationPathSettings,
}

impl Anchor {
    pub(super) fn new(link: Link) -> Self {
        let issues = if link.may_issue_as_anchor() { Issues::of(&link) } else { None };
        Self { link, issues }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Whether certificates can be issued under it. Not where it is a person's certificate, and not
    /// where it has critical extensions or constraints that cannot be enforced.
    pub(super) fn may_issue(&self) -> bool {
        self.issues.is_some()
    }

    pub(super) fn issues(&self) -> Option<&Issues> {
        self.issues.as_ref()
    }
}

impl Issues {
    fn of(link: &Link) -> Option<Self> {
        let anchor = PDVTrustAnchorChoice::try_from(link.certificate().as_bytes()).ok()?;
        let mut settings = settings();
        settings.set_enforce_trust_anchor_constraints(true);
        let mut settings = enforce_trust_anchor_constraints(&settings, &anchor).ok()?;
        // They are in the settings now, and need not be worked out for each path.
        settings.set_enforce_trust_anchor_constraints(false);
        Some(Self { anchor, settings })
    }
}

impl std::fmt::Debug for Issues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issues")
    }
}
