//! What the parsers of the stores are fuzzed with: one function a parser, called by the fuzz targets and by the test
//! command.
#![allow(dead_code, unreachable_pub, reason = "each user of this file uses its part")]

use sealgate_core::address::Address;
use sealgate_keys::import::Material;
use sealgate_keys::kmip::message::{RequestMessage, ResponseMessage};
use sealgate_keys::public_key_store::directory_server::candidates_in;

/// A target's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by name, each with what it runs.
pub const TARGETS: &[Target] = &[
    ("directory_entry", directory_entry),
    ("key_container", key_container),
    ("key_material", key_material),
    ("kmip_request", kmip_request),
    ("kmip_response", kmip_response),
];

/// What a KMIP client sends: what is read is written so that it is read the same.
pub fn kmip_request(data: &[u8]) {
    let _ = RequestMessage::version_of(data);
    if let Ok(message) = RequestMessage::decode(data)
        && is_known(&message)
    {
        assert_eq!(RequestMessage::decode(&message.encode()), Ok(message));
    }
}

/// What a KMIP server sends.
pub fn kmip_response(data: &[u8]) {
    if let Ok(message) = ResponseMessage::decode(data)
        && is_known(&message)
    {
        assert_eq!(ResponseMessage::decode(&message.encode(0)), Ok(message));
    }
}

/// Of an attribute that we do not know only the name is kept: it is never written.
fn is_known(message: &impl std::fmt::Debug) -> bool {
    !format!("{message:?}").contains("Other(\"")
}

/// Key and certificate files without a password: with one, a file may cost ten million iterations by design (K7).
pub fn key_material(data: &[u8]) {
    if let Ok(material) = Material::read(data, None) {
        let secrets = material.has_secret_keys();
        if let Ok(keys) = material.into_keys() {
            assert!(secrets && !keys.is_empty(), "keys out of nothing");
        }
    }
}

/// The same with the password `x`, where that costs little: PKCS#12 and encrypted keys down to what is in them.
pub fn key_container(data: &[u8]) {
    if let Ok(material) = Material::read_at_cost(data, Some("x"), ITERATIONS)
        && let Ok(keys) = material.into_keys()
    {
        assert!(!keys.is_empty(), "keys out of nothing");
    }
}

/// An entry of a directory server's answer: what comes out names the address, whatever the entry says.
pub fn directory_entry(data: &[u8]) {
    let alice = Address::parse("alice@smime.example").expect("an address");
    for key in candidates_in(data, &alice).unwrap_or_default() {
        assert!(key.certificate.names(&alice) && !key.pinned);
        assert!(key.intermediates.iter().all(|one| one.is_authority()));
    }
}

/// What one run may derive: what is tried with few is done with many.
const ITERATIONS: u32 = 4096;
