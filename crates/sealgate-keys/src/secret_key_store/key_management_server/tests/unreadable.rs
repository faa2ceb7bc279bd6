//! Answers that cannot be read.

use super::*;
use crate::kmip::enumeration::tag;
use crate::kmip::ttlv::Tag;

/// What stands behind the header of the first item of this name.
fn value_of(message: &mut [u8], tag: Tag) -> &mut [u8] {
    let name = &tag.0.to_be_bytes()[1..];
    let at = message.windows(name.len()).position(|window| window == name).unwrap();
    &mut message[at + HEADER_BYTES..]
}

/// A certificate of PGP (KMIP 1.4 §9.1.3.2.6).
fn of_another_type(message: &mut [u8]) {
    value_of(message, tag::CERTIFICATE_TYPE)[..4].copy_from_slice(&2_u32.to_be_bytes());
}

/// An item within the payload that is longer than the payload.
fn cut_off_within(message: &mut [u8]) {
    value_of(message, tag::RESPONSE_PAYLOAD)[4..8].copy_from_slice(&0xffff_u32.to_be_bytes());
}

/// Two answers where one was asked for.
fn of_two(message: &mut [u8]) {
    value_of(message, tag::BATCH_COUNT)[..4].copy_from_slice(&2_u32.to_be_bytes());
}

#[test]
fn an_object_that_cannot_be_read_fails_its_own_look_up_and_no_other() {
    let ways: [Spoil; 2] = [of_another_type, cut_off_within];
    for spoil in ways {
        let bed = Bed::new(1);
        let person = Person::signing();
        let certificate = bed.servers[0].put_certificate(&person);
        bed.servers[0].put_key(&person, usage::SIGN);
        let store = bed.store(KmipGet::Never);
        let key = store.find(ALICE).unwrap().remove(0);
        bed.servers[0].fake().spoiled = Some((certificate, spoil));
        for _ in 0..2 {
            let error = store.find(ALICE).unwrap_err();
            assert!(matches!(error, StoreError::Unavailable { .. }), "mail waits: {error}");
            assert!(error.to_string().contains("cannot be read"), "{error}");
            assert_eq!(store.find("bob@nec.example").unwrap().len(), 0, "the server is there");
            assert!(person.is_signed_by(&key));
        }
        assert_eq!(bed.servers[0].fake().connections, [1, 1], "the connection stays");
        bed.servers[0].fake().spoiled = None;
        assert!(person.is_signed_by(&store.find(ALICE).unwrap()[0]));
    }
}

#[test]
fn a_signature_that_cannot_be_read_is_asked_of_the_next_server() {
    let bed = Bed::new(2);
    let person = Person::signing();
    for server in &bed.servers {
        server.put_certificate(&person);
    }
    let [first, second] = [0, 1].map(|index| bed.servers[index].put_key(&person, usage::SIGN));
    let store = bed.store(KmipGet::Never);
    let key = store.find(ALICE).unwrap().remove(0);
    bed.servers[0].fake().spoiled = Some((first.clone(), cut_off_within));
    assert!(person.is_signed_by(&key));
    assert!(bed.servers[1].times(Operation::Sign, &second) > 0);
    bed.servers[0].fake().spoiled = None;
    let before = bed.servers[0].times(Operation::Sign, &first);
    assert!(person.is_signed_by(&key));
    assert_eq!(bed.servers[0].times(Operation::Sign, &first), before + 1, "it is not left alone");
}

#[test]
fn a_message_that_is_none_ends_the_connection() {
    let bed = Bed::new(1);
    let person = Person::signing();
    let certificate = bed.servers[0].put_certificate(&person);
    bed.servers[0].put_key(&person, usage::SIGN);
    bed.servers[0].fake().spoiled = Some((certificate, of_two));
    let store = bed.store(KmipGet::Never);
    assert!(store.find(ALICE).is_err());
    assert!(store.find("bob@nec.example").is_err(), "the server is left alone for a while");
}
