//! From the entries of an answer to candidates for one address.
//!
//! In: entries with whatever octets the directory has. Out: certificates that name the address (REQUIREMENTS G11), each
//! once, the newest first, with the authorities found beside them. What does not parse, is too large or is over a limit is
//! left out, and the answer says so: what was left out may be the very certificate that could be encrypted to. No
//! certificate is validated here.

use std::cmp::Reverse;
use std::sync::Arc;

use sealgate_core::address::Address;
use sealgate_core::cms::SignedData;
use sealgate_core::keys::{Capabilities, Certificate, PublicKey, Timestamp};

use super::entry::Entry;
use super::{CERTIFICATES_MAX, one_line};

/// Candidates for an address, and why there may be others, where something was left out. Foreign signatures are verified
/// for it, some hundreds at most.
pub(super) fn of(
    address: &Address,
    entries: &[Entry],
    now: Timestamp,
) -> (Vec<PublicKey>, Option<String>) {
    let mut gathered = Gathered::default();
    for entry in entries {
        gathered.take_entry(entry, now);
    }
    gathered.into_keys(address)
}

#[derive(Debug, Default)]
struct Gathered {
    values: usize,
    certificates: Vec<Arc<Certificate>>,
    capabilities: Vec<(Arc<Certificate>, Capabilities)>,
    /// The first reason to leave something out.
    left_out: Option<String>,
}

impl Gathered {
    fn take_entry(&mut self, entry: &Entry, now: Timestamp) {
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
                if signed.certificates.is_empty() {
                    return Err("no certificate in it can be read".to_owned());
                }
                gathered.take_signed_data(signed, now);
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
        if let Err(why) = outcome {
            self.leave_out(format!(
                "a certificate of `{}` is left out ({why}): take it out of the directory",
                one_line(&entry.name)
            ));
        }
    }

    fn leave_out(&mut self, why: String) {
        if self.left_out.is_none() {
            tracing::warn!(why, "not all that the directory has for an address is used");
            self.left_out = Some(why);
        }
    }

    /// `userSMIMECertificate`: certificates, signed by their owner together with what he can read (RFC 2798 §2.8).
    fn take_signed_data(&mut self, signed: SignedData, now: Timestamp) {
        let content = signed.content.as_deref().unwrap_or_default();
        for signer in &signed.signers {
            // The one that it names, and no other: to try all would cost a verification for each.
            let named = signer.certificate(signed.certificates.iter(), now);
            let verified = named.filter(|certificate| signer.verify(content, certificate).is_ok());
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

    fn into_keys(mut self, address: &Address) -> (Vec<PublicKey>, Option<String>) {
        let certificates = std::mem::take(&mut self.certificates);
        let (mut found, others): (Vec<_>, Vec<_>) =
            certificates.into_iter().partition(|certificate| certificate.names(address));
        found.sort_by_key(|certificate| Reverse(certificate.not_before()));
        let mut intermediates = others;
        intermediates.retain(|certificate| certificate.is_authority());
        for (list, most, of) in [
            (&mut found, CERTIFICATES_MAX, "certificates"),
            (&mut intermediates, INTERMEDIATES_MAX, "authorities"),
        ] {
            if list.len() > most {
                list.truncate(most);
                self.leave_out(format!(
                    "<{address}> has more than {most} {of}: take the old ones out of the directory"
                ));
            }
        }
        let key = |certificate: Arc<Certificate>| PublicKey {
            capabilities: self
                .capabilities
                .iter()
                .find_map(|(of, capabilities)| (*of == certificate).then_some(*capabilities)),
            certificate,
            intermediates: intermediates.clone(),
            pinned: false,
            of_domain: false,
        };
        (found.into_iter().map(key).collect(), self.left_out)
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
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::Rfc822Name(address.try_into().unwrap())];
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        params.not_after = rcgen::date_time_ymd(4000, 1, 1);
        params.self_signed(&*PAIR).unwrap().der().to_vec()
    }

    fn entry(certificates: Vec<Vec<u8>>) -> Entry {
        Entry { certificates, ..Entry::default() }
    }

    fn found(entries: &[Entry]) -> Vec<Vec<u8>> {
        let (keys, _) = of(&Address::parse(ALICE).unwrap(), entries, NOW);
        keys.iter().map(|key| key.certificate.der().to_vec()).collect()
    }

    /// Why there may be more; nothing where all that was there was looked at.
    fn left_out(entries: &[Entry]) -> String {
        of(&Address::parse(ALICE).unwrap(), entries, NOW).1.unwrap_or_default()
    }

    #[test]
    fn each_certificate_of_the_address_is_given_once_and_the_newest_first() {
        let [old, new, newest] = [2020, 2024, 2026].map(|year| certificate(ALICE, year));
        let bob = certificate("bob@nec.example", 2026);
        let entries =
            [entry(vec![new.clone(), bob, old.clone()]), entry(vec![newest.clone(), new.clone()])];
        assert_eq!(found(&entries), [newest, new, old]);
        assert_eq!(left_out(&entries), "");
    }

    #[test]
    fn what_is_foreign_too_large_or_too_much_is_left_out_and_told() {
        let good = certificate(ALICE, 2026);
        let mut cut = good.clone();
        cut.pop();
        let large = vec![0x30; VALUE_BYTES_MAX + 1];
        let spoiled = vec![Vec::new(), b"none".to_vec(), cut, large];
        let mut values = spoiled.clone();
        values.push(good.clone());
        let mixed = Entry { signed_data: spoiled.clone(), ..entry(values) };
        assert_eq!(found(&[mixed]), std::slice::from_ref(&good));
        for value in spoiled {
            let signed = Entry { signed_data: vec![value.clone()], ..Entry::default() };
            for one in [entry(vec![value.clone()]), signed] {
                let one = Entry { name: "cn=A\nB".to_owned(), ..one };
                let why = left_out(&[one]);
                assert!(why.starts_with("a certificate of `cn=A B` is left out ("), "{why}");
            }
        }

        let bob = certificate("bob@nec.example", 2026);
        let after = |count: usize| {
            let mut values = vec![bob.clone(); count];
            values.push(good.clone());
            [entry(values)]
        };
        let (most, over) = (after(VALUES_MAX - 1), after(VALUES_MAX));
        assert_eq!((found(&most), left_out(&most)), (vec![good.clone()], String::new()));
        assert!(found(&over).is_empty() && left_out(&over).contains("more than 64 values"));

        let years = 2000..2000 + i32::try_from(CERTIFICATES_MAX).unwrap();
        let renewed: Vec<_> = years.rev().map(|year| certificate(ALICE, year)).collect();
        assert_eq!(left_out(&[entry(renewed.clone())]), "");
        let more = [entry([renewed.clone(), vec![certificate(ALICE, 1999)]].concat())];
        assert_eq!(found(&more), renewed, "the newest stay");
        assert!(left_out(&more).contains("more than 16 certificates"));
    }

    #[test]
    fn more_authorities_than_are_kept_are_told() {
        let authority = |number: usize| {
            let mut params = CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.serial_number = Some(u64::try_from(number).unwrap().into());
            params.self_signed(&*PAIR).unwrap().der().to_vec()
        };
        let with = |count: usize| [entry((0..count).map(authority).collect())];
        assert_eq!(left_out(&with(INTERMEDIATES_MAX)), "");
        assert!(left_out(&with(INTERMEDIATES_MAX + 1)).contains("more than 16 authorities"));
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
            for key in of(&alice, &entries, NOW).0 {
                prop_assert!(key.certificate.names(&alice) && !key.pinned);
            }
        }
    }
}
