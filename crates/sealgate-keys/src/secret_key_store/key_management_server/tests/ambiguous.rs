//! Answers that may mean the mail's ciphertext, or the server: whoever sent the mail must not learn which (REQUIREMENTS 0.1).

use super::*;

const NO_POINT: KeyTransport<'_> = KeyTransport::Ecdh { ephemeral: &[4; 65] };

fn decrypting(get: KmipGet) -> (Bed, Person, RemoteKey) {
    let bed = Bed::new(1);
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
        bed.servers[0].fake().troubles = 2;
        let waits = found.secret.unwrap(transport).unwrap_err();
        assert!(matches!(waits, KeyError::Unavailable(_)), "{waits}");
        assert_eq!(bed.servers[0].fake().troubles, 0);
    }
    bed.servers[0].fake().troubles = 1;
    assert!(found.secret.unwrap(&good).is_ok(), "of the moment");
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
