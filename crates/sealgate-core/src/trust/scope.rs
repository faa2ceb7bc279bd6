//! For which certificates and reasons a CRL speaks (RFC 5280 §5.2.4, §5.2.5, §6.3.3).
//!
//! Read from the CRL's extensions; a critical one that is not known, and an indirect CRL, leave no
//! scope at all.

use certval::PDVExtension;
use const_oid::db::rfc5912;
use der::Decode;
use der::flagset::FlagSet;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::dp::{IssuingDistributionPoint, Reasons as Flags};
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::name::Name;

use crate::trust::link::{Link, fold};

/// What a CRL covers.
#[derive(Debug)]
pub(super) struct Scope {
    is_delta: bool,
    /// `None`: every certificate of the issuer.
    point: Option<IssuingDistributionPoint>,
    issuer: String,
}

/// A set of revocation reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reasons(FlagSet<Flags>);

impl Scope {
    /// Reads a CRL's extensions; `None` when they are not understood.
    pub(super) fn parse(extensions: &[Extension], issuer: &Name) -> Option<Self> {
        let mut scope = Self { is_delta: false, point: None, issuer: fold(issuer) };
        for extension in extensions {
            match extension.extn_id {
                rfc5912::ID_CE_DELTA_CRL_INDICATOR => scope.is_delta = true,
                rfc5912::ID_CE_ISSUING_DISTRIBUTION_POINT => {
                    let value = extension.extn_value.as_bytes();
                    let point = IssuingDistributionPoint::from_der(value).ok()?;
                    if point.indirect_crl || point.only_contains_attribute_certs {
                        return None;
                    }
                    scope.point = Some(point);
                }
                rfc5912::ID_CE_CRL_NUMBER
                | rfc5912::ID_CE_AUTHORITY_KEY_IDENTIFIER
                | rfc5912::ID_CE_ISSUER_ALT_NAME
                | rfc5912::ID_CE_FRESHEST_CRL => {}
                _ if extension.critical => return None,
                _ => {}
            }
        }
        Some(scope)
    }

    /// Whether it only holds changes.
    pub(super) fn is_delta(&self) -> bool {
        self.is_delta
    }

    /// For which reasons it speaks of a certificate of its issuer; `None` when for none.
    pub(super) fn covered_reasons(&self, certificate: &Link) -> Option<Reasons> {
        let Some(point) = &self.point else { return Some(Reasons::all()) };
        let is_authority = certificate.says_authority();
        if point.only_contains_user_certs && is_authority
            || point.only_contains_ca_certs && !is_authority
        {
            return None;
        }
        let own = point.only_some_reasons.map_or_else(Reasons::all, Reasons);
        let Some(name) = &point.distribution_point else { return Some(own) };
        let own_names = self.names_of(name);
        self.points_of(certificate)
            .into_iter()
            .filter(|(names, _)| names.iter().any(|name| own_names.contains(name)))
            .map(|(_, reasons)| Reasons(reasons.0 & own.0))
            .reduce(Reasons::and)
    }

    /// The certificate's distribution points, and the one that RFC 5280 §6.3.3 assumes besides:
    /// its issuer.
    fn points_of(&self, certificate: &Link) -> Vec<(Vec<String>, Reasons)> {
        let mut points = vec![(vec![format!("dir:{}", self.issuer)], Reasons::all())];
        if let Some(PDVExtension::CrlDistributionPoints(named)) =
            certificate.extension(rfc5912::ID_CE_CRL_DISTRIBUTION_POINTS)
        {
            // Points with another CRL issuer are for indirect CRLs.
            for point in named.0.iter().filter(|point| point.crl_issuer.is_none()) {
                let names =
                    point.distribution_point.as_ref().map_or_else(Vec::new, |n| self.names_of(n));
                points.push((names, point.reasons.map_or_else(Reasons::all, Reasons)));
            }
        }
        points
    }

    fn names_of(&self, name: &DistributionPointName) -> Vec<String> {
        match name {
            DistributionPointName::FullName(names) => names.iter().map(comparable).collect(),
            DistributionPointName::NameRelativeToCRLIssuer(last) => {
                // As RFC 4514 writes names: the last RDN first.
                let last: String = last
                    .to_string()
                    .chars()
                    .filter(|c| !c.is_whitespace() && *c != '\\')
                    .flat_map(char::to_lowercase)
                    .collect();
                vec![format!("dir:{last},{}", self.issuer)]
            }
        }
    }
}

impl Reasons {
    pub(super) const NONE: Self = Self(FlagSet::empty());

    fn all() -> Self {
        Self(FlagSet::full())
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every reason is in it; "unused" is none.
    pub(super) fn are_all(self) -> bool {
        (self.0 | Flags::Unused) == FlagSet::full()
    }
}

fn comparable(name: &GeneralName) -> String {
    match name {
        GeneralName::DirectoryName(name) => format!("dir:{}", fold(name)),
        GeneralName::UniformResourceIdentifier(uri) => format!("uri:{}", uri.as_str()),
        other => format!("other:{other:?}"),
    }
}
