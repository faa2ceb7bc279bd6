use proptest::prelude::*;

use super::super::attribute::Attribute;
use super::super::enumeration::{
    CryptographicAlgorithm, HashingAlgorithm, KeyFormat, ObjectType, PaddingMethod, QueryFunction,
    RevocationReason, State, usage,
};
use super::super::object::{Object, PrivateKey};
use super::super::request::{KeyUse, Parameters};
use super::*;

const V14: Version = Version { major: 1, minor: 4 };

fn attributes() -> Vec<Attribute> {
    vec![
        Attribute::Name("sealgate/alice@nec.example/key".to_owned()),
        Attribute::ObjectType(ObjectType::PrivateKey),
        Attribute::UsageMask(usage::SIGN | usage::DECRYPT),
        Attribute::State(State::Active),
        Attribute::Algorithm(CryptographicAlgorithm::Rsa),
        Attribute::Length(3072),
        Attribute::CertificateLink("certificate-0".to_owned()),
    ]
}

fn private_key() -> Object {
    Object::PrivateKey(PrivateKey {
        format: KeyFormat::Pkcs8,
        algorithm: Some(CryptographicAlgorithm::Ec),
        bits: Some(256),
        material: vec![7; 130].into(),
    })
}

fn key_use() -> KeyUse {
    KeyUse {
        id: "1".to_owned(),
        parameters: Parameters {
            padding: Some(PaddingMethod::Pss),
            hashing: Some(HashingAlgorithm::Sha256),
            algorithm: None,
        },
        data: b"message".to_vec().into(),
        used_for: Some("alice@nec.example".to_owned()),
    }
}

fn requests() -> Vec<Request> {
    let id = || "1".to_owned();
    vec![
        Request::Activate { id: id() },
        Request::Decrypt(key_use()),
        Request::Destroy { id: id() },
        Request::DiscoverVersions,
        Request::Get { id: id(), format: Some(KeyFormat::Pkcs8) },
        Request::GetAttributes { id: id(), names: vec!["State".to_owned()] },
        Request::Locate { attributes: attributes(), maximum: Some(9) },
        Request::Query(vec![QueryFunction::Operations, QueryFunction::ServerInformation]),
        Request::Register { object: private_key(), attributes: attributes() },
        Request::Register { object: Object::Certificate(vec![1, 2, 3]), attributes: vec![] },
        Request::Revoke { id: id(), reason: RevocationReason::KeyCompromise },
        Request::Sign(key_use()),
        Request::Unsupported(Operation::Other(0x24)),
    ]
}

fn responses() -> Vec<(Operation, Response)> {
    let id = || "1".to_owned();
    vec![
        (Operation::GetAttributes, Response::Attributes { id: id(), attributes: attributes() }),
        (Operation::Destroy, Response::Done { id: id() }),
        (Operation::Get, Response::Got { id: id(), object: private_key() }),
        (Operation::Get, Response::Got { id: id(), object: Object::Certificate(vec![9]) }),
        (Operation::Locate, Response::Located(vec![id(), "2".to_owned()])),
        (
            Operation::Query,
            Response::Query { operations: vec![Operation::Sign], vendor: Some("x".to_owned()) },
        ),
        (Operation::Sign, Response::Result { id: id(), data: vec![5; 256].into() }),
        (Operation::Decrypt, Response::Result { id: id(), data: vec![5; 32].into() }),
        (Operation::DiscoverVersions, Response::Versions(Version::SPOKEN.to_vec())),
    ]
}

#[test]
fn every_request_is_read_as_it_was_written() {
    for request in requests() {
        let item = RequestItem { batch_id: Some(vec![1]), request };
        let message = RequestMessage { version: V14, items: vec![item] };
        assert_eq!(RequestMessage::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn every_response_is_read_as_it_was_written() {
    for (operation, response) in responses() {
        let item =
            ResponseItem { operation: Some(operation), batch_id: None, result: Ok(response) };
        let message = ResponseMessage { version: V14, items: vec![item] };
        assert_eq!(ResponseMessage::decode(&message.encode(1)), Ok(message));
    }
    let failure = Failure { reason: ResultReason::PermissionDenied, message: "no".to_owned() };
    for operation in [None, Some(Operation::Get)] {
        let result = Err(failure.clone());
        let item = ResponseItem { operation, batch_id: Some(vec![2]), result };
        let message = ResponseMessage { version: V14, items: vec![item] };
        assert_eq!(ResponseMessage::decode(&message.encode(1)), Ok(message));
    }
}

#[test]
fn anothers_extension_is_left_unread_unless_it_is_critical() {
    let with = |is_critical: bool| {
        Writer::message(tag::REQUEST_MESSAGE, |writer| {
            writer.structure(tag::REQUEST_HEADER, |writer| V14.write(writer));
            writer.structure(tag::BATCH_ITEM, |writer| {
                writer.enumeration(tag::OPERATION, Operation::DiscoverVersions);
                writer.structure(tag::REQUEST_PAYLOAD, |_| {});
                writer.structure(tag::MESSAGE_EXTENSION, |writer| {
                    writer.text(tag::VENDOR_IDENTIFICATION, "another");
                    writer.boolean(tag::CRITICALITY_INDICATOR, is_critical);
                    writer.structure(tag::VENDOR_EXTENSION, |_| {});
                });
            });
        })
    };
    assert!(RequestMessage::decode(&with(false)).is_ok());
    assert!(RequestMessage::decode(&with(true)).unwrap_err().to_string().contains("critical"));
}

#[test]
fn the_version_is_read_of_a_message_that_is_not() {
    let foreign = Version { major: 2, minor: 0 };
    let id = tag::UNIQUE_IDENTIFIER;
    let bytes = Writer::message(tag::REQUEST_MESSAGE, |writer| {
        writer.structure(tag::REQUEST_HEADER, |writer| foreign.write(writer));
        writer.structure(tag::BATCH_ITEM, |writer| writer.integer(id, 1));
    });
    assert!(RequestMessage::decode(&bytes).is_err());
    assert_eq!(RequestMessage::version_of(&bytes), Ok(foreign));
}

#[test]
fn a_batch_has_a_limit() {
    let item = RequestItem { batch_id: None, request: Request::DiscoverVersions };
    let of = |count| RequestMessage { version: V14, items: vec![item.clone(); count] }.encode();
    assert!(RequestMessage::decode(&of(BATCH_ITEMS_MAX)).is_ok());
    assert!(RequestMessage::decode(&of(BATCH_ITEMS_MAX + 1)).is_err());
}

#[test]
fn secrets_do_not_show() {
    let item = ResponseItem {
        operation: Some(Operation::Get),
        batch_id: None,
        result: Ok(Response::Got { id: "1".to_owned(), object: private_key() }),
    };
    let text = format!("{:?} {:?}", item, key_use());
    assert!(!text.contains("7, 7") && !text.contains("message"), "{text}");
}

/// What a fuzzer does too: any change of a byte is read or refused, and what is read whole can be written again.
fn mutated(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = at % bytes.len();
    bytes[at] = value;
    bytes
}

proptest! {
    #[test]
    fn changed_messages_are_read_or_refused(which in 0..13_usize, at: usize, value: u8) {
        let message = RequestMessage::one(V14, requests().swap_remove(which));
        if let Ok(read) = RequestMessage::decode(&mutated(&message.encode(), at, value)) {
            let again = RequestMessage::decode(&read.encode());
            // Of an attribute that we do not read the name is kept, and not the value.
            let is_whole = !format!("{read:?}").contains("Other(");
            prop_assert!(again.is_ok() || !is_whole, "{again:?}");
        }
    }

    #[test]
    fn changed_answers_are_read_or_refused(which in 0..9_usize, at: usize, value: u8) {
        let (operation, response) = responses().swap_remove(which);
        let item = ResponseItem { operation: Some(operation), batch_id: None, result: Ok(response) };
        let message = ResponseMessage { version: V14, items: vec![item] };
        let _ = ResponseMessage::decode(&mutated(&message.encode(1), at, value));
    }
}
