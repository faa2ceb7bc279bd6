//! Revocation lists (RFC 5280 §5) from files, DER or PEM.

use std::path::Path;

use der::Decode;
use der::asn1::{ObjectIdentifier, Uint};
use sealgate_core::hex;
use x509_cert::certificate::Rfc5280;
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;
use x509_cert::ext::pkix::crl::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::time::Time;

use crate::error::StoreError;

/// A list with what the store needs to know of it.
pub(crate) struct Crl {
    pub(crate) der: Vec<u8>,
    pub(crate) scope: ListScope,
    pub(crate) number: Option<ListNumber>,
    /// Of a list of changes, and where it can be read: since which list (BaseCRLNumber).
    base: Option<ListNumber>,
    pub(crate) this_update: i64,
    pub(crate) next_update: Option<i64>,
}

/// What a list is about. Of two with the same scope the newer one says it all; one of another scope says nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListScope {
    /// Whose certificates.
    pub issuer: String,
    /// The issuer's key, where the list names it (RFC 5280 §5.2.1), in hexadecimal.
    pub authority_key: Option<String>,
    /// Only the changes since a base list of this scope (RFC 5280 §5.2.4).
    pub is_delta: bool,
    /// IssuingDistributionPoint as it stands in the list: `None` is all of the issuer's certificates.
    point: Option<Vec<u8>>,
}

/// CRLNumber and BaseCRLNumber (RFC 5280 §5.2.3, §5.2.4): the authority's own count, which no later list lowers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListNumber(Uint);

impl Crl {
    /// Whether this list was issued before another of its scope: by their numbers, which no later list lowers (RFC 5280 §5.2.3),
    /// where both have different ones, else by their dates, which a clock that was ahead may have written.
    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        match (&self.number, &other.number) {
            (Some(own), Some(others)) if own != others => own < others,
            _ => self.this_update < other.this_update,
        }
    }

    /// Whether it is the same issue as another of its scope.
    pub(crate) fn is_as_new_as(&self, other: &Self) -> bool {
        self.this_update == other.this_update && self.number == other.number
    }

    /// Whether it leaves nothing out that an older one of its scope says. Of two lists of changes the newer one may begin later:
    /// then what became of the certificates in between is in one of these complete lists, or nowhere else than in the older.
    pub(crate) fn replaces<'c>(
        &self,
        older: &Self,
        mut complete: impl Iterator<Item = &'c Self>,
    ) -> bool {
        let begins_later = match (&self.base, &older.base) {
            (Some(own), Some(others)) => own > others,
            _ => self.scope.is_delta,
        };
        !begins_later || complete.any(|list| !list.is_older_than(older))
    }
}

impl ListScope {
    /// What this is a list of changes to.
    pub fn base(&self) -> Self {
        Self { is_delta: false, ..self.clone() }
    }

    /// Which of its issuer's certificates, in words.
    pub fn covers(&self) -> String {
        let mut words = Vec::new();
        if self.is_delta {
            words.push("changes (delta)".to_owned());
        }
        let point = self.point.as_ref().map(|der| IssuingDistributionPoint::from_der(der));
        match point {
            None => words.push("all".to_owned()),
            Some(Err(_)) => words.push("unknown".to_owned()),
            Some(Ok(point)) => words.extend(of_point(&point)),
        }
        words.join(", ")
    }
}

impl PartialOrd for ListNumber {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ListNumber {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (own, others) = (self.0.as_bytes(), other.0.as_bytes());
        own.len().cmp(&others.len()).then_with(|| own.cmp(others))
    }
}

impl std::fmt::Display for ListNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0x{}", hex::text(self.0.as_bytes()))
    }
}

/// Parses one DER list.
pub(crate) fn parse(der: &[u8]) -> Option<Crl> {
    let list = CertificateList::<Rfc5280>::from_der(der).ok()?;
    let fields = list.tbs_cert_list;
    let seconds = |time: Time| i64::try_from(time.to_unix_duration().as_secs()).ok();
    let extensions = fields.crl_extensions.unwrap_or_default();
    let number = |der| Uint::from_der(der).ok().map(ListNumber);
    let value = |id| {
        let extension = extensions.iter().find(|one| one.extn_id == id);
        extension.map(|extension| extension.extn_value.as_bytes())
    };
    Some(Crl {
        der: der.to_vec(),
        scope: ListScope {
            issuer: fields.issuer.to_string(),
            authority_key: value(AUTHORITY_KEY_IDENTIFIER).map(authority_key),
            is_delta: value(DELTA_CRL_INDICATOR).is_some(),
            point: value(ISSUING_DISTRIBUTION_POINT).map(<[u8]>::to_vec),
        },
        number: value(CRL_NUMBER).and_then(number),
        base: value(DELTA_CRL_INDICATOR).and_then(number),
        this_update: seconds(fields.this_update)?,
        next_update: fields.next_update.and_then(seconds),
    })
}

/// The key's identifier; else the value as it stands, which names the key in another way.
fn authority_key(value: &[u8]) -> String {
    let named = AuthorityKeyIdentifier::from_der(value).ok();
    let identifier = named.and_then(|named| named.key_identifier);
    hex::text(identifier.as_ref().map_or(value, |identifier| identifier.as_bytes()))
}

/// What an IssuingDistributionPoint restricts a list to (RFC 5280 §5.2.5).
fn of_point(point: &IssuingDistributionPoint) -> Vec<String> {
    let kinds = [
        (point.only_contains_user_certs, "no authorities"),
        (point.only_contains_ca_certs, "authorities only"),
        (point.only_contains_attribute_certs, "attribute certificates only"),
        (point.only_some_reasons.is_some(), "some reasons only"),
        (point.indirect_crl, "indirect"),
    ];
    let kinds = kinds.into_iter().filter(|(is_so, _)| *is_so).map(|(_, word)| word.to_owned());
    let places = match &point.distribution_point {
        None => Vec::new(),
        Some(DistributionPointName::FullName(names)) => names.iter().map(place).collect(),
        Some(DistributionPointName::NameRelativeToCRLIssuer(name)) => vec![name.to_string()],
    };
    kinds.chain(places).collect()
}

fn place(name: &GeneralName) -> String {
    match name {
        GeneralName::DirectoryName(name) => name.to_string(),
        GeneralName::UniformResourceIdentifier(uri) => uri.to_string(),
        _ => "another kind of place".to_owned(),
    }
}

/// Reads a file with one DER list or any number of PEM ones.
pub(crate) fn read_file(path: &Path) -> Result<Vec<Vec<u8>>, StoreError> {
    let bad = |why: String| StoreError::Crl { path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let lists = if bytes.starts_with(b"-----") || !bytes.starts_with(&[0x30]) {
        super::pem::blocks(&bytes)
            .map_err(|damage| bad(damage.to_string()))?
            .into_iter()
            .filter(|block| block.label == "X509 CRL")
            .map(|block| block.der.to_vec())
            .collect()
    } else {
        vec![bytes]
    };
    if lists.is_empty() || lists.iter().any(|der| parse(der).is_none()) {
        return Err(bad("not a certificate revocation list: give DER, or PEM `X509 CRL`".into()));
    }
    Ok(lists)
}

/// RFC 5280 §5.2.1, §5.2.3, §5.2.4 and §5.2.5.
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
pub(crate) const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const DELTA_CRL_INDICATOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");
const ISSUING_DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
