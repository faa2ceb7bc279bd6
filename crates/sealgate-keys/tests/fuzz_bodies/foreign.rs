//! What the parsers of the stores are fuzzed with: one function a parser, called by the fuzz targets and by the test
//! command.
#![allow(dead_code, unreachable_pub, reason = "each user of this file uses its part")]

use sealgate_keys::import::Material;
use sealgate_keys::kmip::message::{RequestMessage, ResponseMessage};

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
