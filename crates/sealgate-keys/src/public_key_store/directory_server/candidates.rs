//! From the entries of an answer to candidates for one address.
//!
//! In: entries with whatever octets the directory has. Out: certificates that name the address (REQUIREMENTS G11), each
//! once, the newest first, with the authorities found beside them. What does not parse is left out with a warning, as is a
//! certificate that cannot be used; where values were not looked at because they are too many, what is found and cannot be
//! encrypted to now is no answer. No certificate is validated here.

use std::cmp::Reverse;
use std::sync::Arc;

use sealgate_core::address::Address;
use sealgate_core::cms::SignedData;
use sealgate_core::keys::{Capabilities, Certificate, PublicKey, Timestamp};

use super::entry::Entry;
use super::{CERTIFICATES_MAX, STORE};
use crate::error::StoreError;

/// Candidates for an address.
///
/// # Errors
/// [`StoreError::Unavailable`] where none among the values that were looked at can be encrypted to now, and there are more.
pub(super) fn of(
    address: &Address,
    entries: &[Entry],
    now: Timestamp,
) -> Result<Vec<PublicKey>, StoreError> {
    let mut gathered = Gathered::default();
    for entry in entries {
        gathered.take_entry(entry);
    }
    let is_whole = gathered.values <= VALUES_MAX;
    let keys = gathered.into_keys(address);
    let is_current =
        |key: &PublicKey| key.certificate.may_encrypt() && key.certificate.is_valid_at(now);
    if !is_whole && !keys.iter().any(is_current) {
        let why = format!(
            "<{address}> has more than {VALUES_MAX} certificates, and none of those looked at names the address and \
             can be encrypted to now: take the old ones out of the directory"
        );
        return Err(StoreError::Unavailable { store: STORE.to_owned(), why });
    }
    Ok(keys)
}

#[derive(Debug, Default)]
struct Gathered {
    values: usize,
    certificates: Vec<Arc<Certificate>>,
    capabilities: Vec<(Arc<Certificate>, Capabilities)>,
}

impl Gathered {
    fn take_entry(&mut self, entry: &Entry) {
        for value in &entry.certificates {
            self.take_value(entry, value, |gathered, value| {
                let certificate =
                    Certificate::from_der(value).map_err(|error| error.to_string())?;
                gathered.add(Arc::new(certificate));
                Ok(())
            });
        }
        for value in &entry.signed_data {
            self.take_value(entry, value, |gathered, value| {
                let signed = SignedData::parse(value).map_err(|error| error.to_string())?;
                gathered.take_signed_data(signed);
                Ok(())
            });
        }
    }

    fn take_value(
        &mut self,
        entry: &Entry,
        value: &[u8],
        take: impl FnOnce(&mut Self, &[u8]) -> Result<(), String>,
    ) {
        self.values += 1;
        let outcome = if self.values > VALUES_MAX {
            Err(format!("more than {VALUES_MAX} values"))
        } else if value.len() > VALUE_BYTES_MAX {
            Err(format!("larger than {VALUE_BYTES_MAX} bytes"))
        } else {
            take(self, value)
        };
        // Once for all values that are over the limit.
        if let Err(why) = outcome
            && self.values <= VALUES_MAX + 1
        {
            tracing::warn!(entry = ?entry.name, why, "a certificate of the directory is left out");
        }
    }

    /// `userSMIMECertificate`: certificates, signed by their owner together with what he can read (RFC 2798 §2.8).
    fn take_signed_data(&mut self, signed: SignedData) {
        let content = signed.content.as_deref().unwrap_or_default();
        for signer in &signed.signers {
            let verified = signed
                .certificates
                .iter()
                .find(|certificate| signer.verify(content, certificate).is_ok());
            if let Some((certificate, capabilities)) = verified.zip(signer.capabilities()) {
                self.capabilities.push((Arc::clone(certificate), capabilities));
            }
        }
        for certificate in signed.certificates {
            self.add(certificate);
        }
    }

    fn add(&mut self, certificate: Arc<Certificate>) {
        if !self.certificates.contains(&certificate) {
            self.certificates.push(certificate);
        }
    }

    fn into_keys(self, address: &Address) -> Vec<PublicKey> {
        let (mut found, others): (Vec<_>, Vec<_>) =
            self.certificates.into_iter().partition(|certificate| certificate.names(address));
        found.sort_by_key(|certificate| Reverse(certificate.not_before()));
        found.truncate(CERTIFICATES_MAX);
        let mut intermediates = others;
        intermediates.retain(|certificate| certificate.is_authority());
        intermediates.truncate(INTERMEDIATES_MAX);
        let key = |certificate: Arc<Certificate>| PublicKey {
            capabilities: self
                .capabilities
                .iter()
                .find_map(|(of, capabilities)| (*of == certificate).then_some(*capabilities)),
            certificate,
            intermediates: intermediates.clone(),
            pinned: false,
        };
        found.into_iter().map(key).collect()
    }
}

/// Values of one answer that are looked at.
const VALUES_MAX: usize = 64;
/// Octets of one value.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Authorities that are kept with a candidate.
const INTERMEDIATES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    const ALICE: &str = "alice@nec.example";

    static PAIR: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

    /// In the year 2027.
    const NOW: Timestamp = Timestamp(1_800_000_000);

    fn certificate(address: &str, year: i32) -> Vec<u8> {
        certificate_until(address, year, 4000)
    }

    fn certificate_until(address: &str, year: i32, end: i32) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::Rfc822Name(address.try_into().unwrap())];
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        params.self_signed(&*PAIR).unwrap().der().to_vec()
    }

    fn entry(certificates: Vec<Vec<u8>>) -> Entry {
        Entry { certificates, ..Entry::default() }
    }

    fn found(entries: &[Entry]) -> Vec<Vec<u8>> {
        let keys = of(&Address::parse(ALICE).unwrap(), entries, NOW).unwrap();
        keys.iter().map(|key| key.certificate.der().to_vec()).collect()
    }

    #[test]
    fn each_certificate_of_the_address_is_given_once_and_the_newest_first() {
        let [old, new, newest] = [2020, 2024, 2026].map(|year| certificate(ALICE, year));
        let bob = certificate("bob@nec.example", 2026);
        let entries =
            [entry(vec![new.clone(), bob, old.clone()]), entry(vec![newest.clone(), new.clone()])];
        assert_eq!(found(&entries), [newest, new, old]);
    }

    #[test]
    fn values_that_are_foreign_too_large_or_too_many_are_left_out() {
        let good = certificate(ALICE, 2026);
        let mut cut = good.clone();
        cut.pop();
        let large = vec![0x30; VALUE_BYTES_MAX + 1];
        let spoiled = vec![Vec::new(), b"none".to_vec(), cut, large];
        let mut values = spoiled.clone();
        values.push(good.clone());
        let mixed = Entry { signed_data: spoiled, ..entry(values) };
        assert_eq!(found(&[mixed]), std::slice::from_ref(&good));

        let many = |before: usize| {
            let mut values = vec![b"none".to_vec(); before];
            values.push(good.clone());
            found(&[entry(values)]).len()
        };
        assert_eq!(many(VALUES_MAX - 1), 1);
        let mut values = vec![b"none".to_vec(); VALUES_MAX];
        values.push(good.clone());
        let alice = Address::parse(ALICE).unwrap();
        let why = of(&alice, &[entry(values)], NOW).unwrap_err().to_string();
        assert!(why.contains("more than 64 certificates"), "{why}");

        let years = 2000..2000 + i32::try_from(CERTIFICATES_MAX).unwrap() + 3;
        let renewed: Vec<_> = years.rev().map(|year| certificate(ALICE, year)).collect();
        let expected = &renewed[..CERTIFICATES_MAX];
        assert_eq!(found(&[entry(renewed.clone())]), expected, "the newest stay");
    }

    #[test]
    fn what_has_ended_is_no_answer_where_not_all_was_looked_at() {
        let alice = Address::parse(ALICE).unwrap();
        let good = certificate(ALICE, 2026);
        let after = |first: Vec<u8>| {
            let mut values = vec![first];
            values.resize(VALUES_MAX, b"none".to_vec());
            values.push(good.clone());
            values
        };
        for unusable in [certificate_until(ALICE, 2020, 2021), certificate_until(ALICE, 2500, 2600)]
        {
            let why = of(&alice, &[entry(after(unusable.clone()))], NOW).unwrap_err().to_string();
            assert!(why.contains("can be encrypted to now"), "{why}");
            // Where all was looked at it is an answer.
            assert_eq!(found(&[entry(vec![unusable.clone()])]), [unusable]);
        }
        let current = certificate(ALICE, 2025);
        assert_eq!(found(&[entry(after(current.clone()))]), [current]);
    }

    proptest! {
        #[test]
        fn whatever_the_directory_holds_only_certificates_of_the_address_come_out(
            octets in prop::collection::vec(any::<u8>(), 0..100),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut changed = certificate(ALICE, 2026);
            for (place, octet) in changes {
                let place = place.index(changed.len());
                changed[place] = octet;
            }
            let values = vec![octets, changed];
            let entries = [Entry { signed_data: values.clone(), ..entry(values) }];
            let alice = Address::parse(ALICE).unwrap();
            for key in of(&alice, &entries, NOW).unwrap() {
                prop_assert!(key.certificate.names(&alice) && !key.pinned);
            }
        }
    }
}
