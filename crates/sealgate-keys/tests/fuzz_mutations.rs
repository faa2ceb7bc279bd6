//! The bodies of the stores' fuzz targets on the stable toolchain: their seeds and a hundred thousand mutants each.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "../../sealgate-core/tests/support/corpus.rs"]
mod corpus;
#[path = "fuzz_bodies/foreign.rs"]
mod foreign;
#[path = "../../sealgate-core/tests/support/mutants.rs"]
mod mutants;

use std::path::Path;

use sealgate_keys::kmip::attribute::Attribute;
use sealgate_keys::kmip::enumeration::{
    CryptographicAlgorithm, HashingAlgorithm, KeyFormat, ObjectType, Operation, PaddingMethod,
    QueryFunction, State, usage,
};
use sealgate_keys::kmip::message::{
    RequestItem, RequestMessage, ResponseItem, ResponseMessage, Version,
};
use sealgate_keys::kmip::object::{Object, PrivateKey};
use sealgate_keys::kmip::request::{KeyUse, Parameters, Request};
use sealgate_keys::kmip::response::Response;

/// Tags, types and lengths of TTLV (KMIP 1.4 §9.1).
const TTLV_WORDS: [&[u8]; 12] = [
    b"\x42\x00\x78\x01",
    b"\x42\x00\x7b\x01",
    b"\x42\x00\x0f\x01",
    b"\x01\x00\x00\x00\x08",
    b"\x02\x00\x00\x00\x04",
    b"\x05\x00\x00\x00\x04",
    b"\x07\x00\x00\x00\x00",
    b"\x08\xff\xff\xff\xff",
    b"\x08\x7f\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x09\x00\x00\x00\x08",
    b"\x42\x00\x94\x07",
];

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

#[test]
fn no_mutant_breaks_the_reader_of_kmip_requests() {
    let id = || "1".to_owned();
    let padding = Some(PaddingMethod::Pss);
    let hashing = Some(HashingAlgorithm::Sha256);
    let parameters = Parameters { padding, hashing, algorithm: None };
    let requests = [
        Request::Decrypt(KeyUse {
            id: id(),
            parameters,
            data: b"message".to_vec().into(),
            used_for: None,
        }),
        Request::Get { id: id(), format: Some(KeyFormat::Pkcs8) },
        Request::GetAttributes { id: id(), names: vec!["State".to_owned()] },
        Request::Locate { attributes: attributes(), maximum: Some(9) },
        Request::Query(vec![QueryFunction::Operations]),
        Request::Register { object: private_key(), attributes: attributes() },
        Request::Register { object: Object::Certificate(vec![1, 2, 3]), attributes: vec![] },
    ];
    let seeds: Vec<Vec<u8>> = requests
        .into_iter()
        .map(|request| {
            let item = RequestItem { batch_id: Some(vec![1]), request };
            let version = Version { major: 1, minor: 4 };
            RequestMessage { version, items: vec![item] }.encode().to_vec()
        })
        .collect();
    mutants::run("kmip_request", &seeds, &TTLV_WORDS, foreign::kmip_request);
}

#[test]
fn no_mutant_breaks_the_reader_of_kmip_responses() {
    let id = || "1".to_owned();
    let responses = [
        (Operation::GetAttributes, Response::Attributes { id: id(), attributes: attributes() }),
        (Operation::Get, Response::Got { id: id(), object: private_key() }),
        (Operation::Locate, Response::Located(vec![id(), "2".to_owned()])),
        (Operation::Sign, Response::Result { id: id(), data: vec![5; 256].into() }),
        (Operation::DiscoverVersions, Response::Versions(Version::SPOKEN.to_vec())),
    ];
    let seeds: Vec<Vec<u8>> = responses
        .into_iter()
        .map(|(operation, response)| {
            let item =
                ResponseItem { operation: Some(operation), batch_id: None, result: Ok(response) };
            let version = Version { major: 1, minor: 4 };
            ResponseMessage { version, items: vec![item] }.encode(1).to_vec()
        })
        .collect();
    mutants::run("kmip_response", &seeds, &TTLV_WORDS, foreign::kmip_response);
}

#[test]
fn no_mutant_breaks_the_reader_of_key_files() {
    const WORDS: [&[u8]; 8] = [
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----END PRIVATE KEY-----\n",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
        b"\x30\x82",
        b"\x30\x80",
        b"\x02\x01\x03",
        b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x06",
        b"\xff\xff",
    ];
    let rfc9216 = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sealgate-core/tests/data/rfc9216");
    let mut seeds = Vec::new();
    let mut folders = vec![rfc9216];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                seeds.push(std::fs::read(path).unwrap());
            }
        }
    }
    seeds.retain(|seed| seed.len() < 5_000);
    seeds.sort();
    mutants::run("key_material", &seeds, &WORDS, foreign::key_material);
}

#[test]
fn the_corpora_of_the_stores_replay() {
    corpus::replay(foreign::TARGETS);
}
