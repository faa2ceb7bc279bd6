//! Answers that may mean the mail's ciphertext, or the server: whoever sent the mail must not learn which (REQUIREMENTS 0.1).

use super::*;

const NO_POINT: KeyTransport<'_> = KeyTransport::Ecdh { ephemeral: &[4; 65] };

fn decrypting(get: KmipGet) -> (Bed, Person, RemoteKey) {
    decrypting_at(None, get)
}

/// At a server of this vendor.
fn decrypting_at(vendor: Option<&str>, get: KmipGet) -> (Bed, Person, RemoteKey) {
    let bed = Bed::new(1);
    bed.servers[0].fake().vendor = vendor.map(str::to_owned);
    let person = Person::decrypting();
    bed.servers[0].put_certificate(&person);
    bed.servers[0].put_key(&person, usage::DECRYPT);
    let found = bed.store(get).find(ALICE).unwrap().remove(0);
    (bed, person, found)
}

#[test]
fn a_ciphertext_at_fault_is_told_by_one_that_is_not() {
    for get in [KmipGet::IfNeeded, KmipGet::Never] {
        let (bed, person, found) = decrypting(get);
        let good = KeyTransport::Ecdh { ephemeral: person.certificate.public_key_bytes() };
        for reason in [
            ResultReason::CryptographicFailure,
            ResultReason::GeneralFailure,
            ResultReason::OperationNotSupported,
            ResultReason::InvalidMessage,
            ResultReason::PermissionDenied,
            ResultReason::Other(0x7fff),
        ] {
            bed.servers[0].fake().of_bad_ciphertexts = reason;
            assert_eq!(found.secret.unwrap(&NO_POINT).unwrap_err(), KeyError::Failed, "{reason:?}");
            assert!(found.secret.unwrap(&good).is_ok(), "{reason:?}");
        }
        let asked = bed.servers[0].fake().asked.clone();
        let fetched = |(operation, id): &&(Operation, String)| {
            let is_key = |kept: &Kept| matches!(kept.object, Object::PrivateKey(_));
            *operation == Operation::Get
                && bed.servers[0].fake().kept.iter().any(|kept| kept.id == *id && is_key(kept))
        };
        assert_eq!(asked.iter().find(fetched), None, "a mail had the key fetched");
    }
}

#[test]
fn while_the_server_is_in_trouble_mail_waits_and_what_is_over_costs_nothing() {
    let (bed, person, found) = decrypting(KmipGet::Never);
    let good = KeyTransport::Ecdh { ephemeral: person.certificate.public_key_bytes() };
    for transport in [&good, &NO_POINT] {
        // The last: it does one a second, say, and that one was ours.
        for troubles in [&[true, true][..], &[true, false, true, true]] {
            bed.servers[0].fake().troubles = troubles.to_vec().into();
            let waits = found.secret.unwrap(transport).unwrap_err();
            assert!(matches!(waits, KeyError::Unavailable(_)), "{troubles:?}: {waits}");
            assert!(bed.servers[0].fake().troubles.is_empty());
        }
    }
    bed.servers[0].fake().troubles = [true].into();
    assert!(found.secret.unwrap(&good).is_ok(), "of the moment");
}

/// It has other words for a ciphertext. What is of the moment there is a rate limit as a rule, and a probe one more use.
#[test]
fn our_own_server_means_itself_and_is_asked_once() {
    let (bed, person, found) = decrypting_at(Some(crate::kmip::VENDOR), KmipGet::Never);
    let good = KeyTransport::Ecdh { ephemeral: person.certificate.public_key_bytes() };
    let asked = || {
        let is = |asked: &&(Operation, String)| asked.0 == Operation::Decrypt;
        bed.servers[0].fake().asked.iter().filter(is).count()
    };
    for transport in [&good, &NO_POINT] {
        // After what a probe would take it would fail once more.
        bed.servers[0].fake().troubles = [true, false, true].into();
        let before = asked();
        let waits = found.secret.unwrap(transport).unwrap_err();
        assert!(matches!(waits, KeyError::Unavailable(_)), "{waits}");
        assert_eq!(asked(), before + 1);
    }
    bed.servers[0].fake().troubles.clear();
    assert!(found.secret.unwrap(&good).is_ok());
    assert_eq!(found.secret.unwrap(&NO_POINT).unwrap_err(), KeyError::Failed);
}

/// What it says of the key, when it is asked once more, is not about the mail.
#[test]
fn a_key_that_goes_meanwhile_makes_mail_wait() {
    let (bed, _, found) = decrypting(KmipGet::Never);
    bed.servers[0].fake().of_bad_ciphertexts = ResultReason::GeneralFailure;
    // The mail's, and ours.
    bed.servers[0].fake().loses_after = Some(2);
    let waits = found.secret.unwrap(&NO_POINT).unwrap_err();
    assert!(matches!(waits, KeyError::Unavailable(_)), "{waits}");
    assert!(found.secret.is_gone());
}
