//! Every file of the MIME sets is read without a panic, loses no byte, and comes out of the canonical form safe.
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

#[path = "support/mails.rs"]
mod material;

use bytes::Bytes;
use material::all_mails;
use sealgate_core::mime::{
    self, Cryptographic, Entity, Header, MimeError, agrees_with_reader, canonical_for_signing,
    cryptographic_layer, decode_body, is_seven_bit, split_content_fields,
};

#[test]
fn fields_and_body_reassemble_byte_for_byte() {
    let mut read = 0;
    for (path, bytes) in all_mails() {
        let entity = match Entity::parse(bytes.clone()) {
            Ok(entity) => entity,
            Err(error) => {
                assert!(matches!(error, MimeError::OverLimit(_)), "{}: {error}", path.display());
                continue;
            }
        };
        let mut whole: Vec<u8> = entity.header.fields().flat_map(|f| f.raw().to_vec()).collect();
        whole.extend_from_slice(&entity.header.bytes()[whole.len()..]);
        whole.extend_from_slice(&entity.body);
        assert_eq!(whole, bytes, "{}", path.display());
        assert_eq!(entity.header.without(|_| false), *entity.header.bytes(), "{}", path.display());
        read += 1;
    }
    assert!(read > 1_000, "{read} mails read");
}

#[test]
fn every_reading_of_every_mail_ends_without_a_panic() {
    let (mut signed, mut agreed, mut decoded) = (0, 0, 0);
    for (_, bytes) in all_mails() {
        let Ok(entity) = Entity::parse(bytes) else { continue };
        let _ = (entity.header.from_mailboxes(), entity.header.addressees());
        let _ = (entity.header.duplicates(), mime::protection(&entity));
        signed +=
            usize::from(matches!(cryptographic_layer(&entity), Cryptographic::ClearSigned(_)));
        agreed += usize::from(agrees_with_reader(&entity));
        decoded += usize::from(decode_body(&entity).is_ok());
    }
    println!("{signed} clear-signed, {agreed} agreed, {decoded} decoded");
    assert!(signed > 5 && agreed > 550 && decoded > 900, "{signed} {agreed} {decoded}");
}

#[test]
fn canonical_form_is_safe_and_a_fixed_point() {
    let (mut safe, mut left) = (0, Vec::new());
    for (path, bytes) in all_mails() {
        let Ok(entity) = Entity::parse(bytes) else { continue };
        let (content, _) = split_content_fields(&entity.header);
        let Ok(canonical) = canonical_for_signing(&content, &entity.body) else { continue };
        let once = Bytes::from(canonical.to_vec());
        assert_eq!(canonical.seven_bit, is_seven_bit(&once), "{}", path.display());
        if !canonical.seven_bit {
            left.push(path);
            continue;
        }
        safe += 1;
        let again = Entity::parse(once.clone()).unwrap();
        let (content, _) = split_content_fields(&again.header);
        let twice = canonical_for_signing(&content, &again.body).unwrap().to_vec();
        assert!(once == twice, "{}", path.display());
    }
    for path in &left {
        println!("{}", path.display());
    }
    println!("{safe} safe, {} with something that may not be altered", left.len());
    assert!(safe > 900, "{safe}");
}

#[test]
fn headers_alone_read_as_headers() {
    for (path, bytes) in all_mails() {
        if let (Ok(header), Ok(entity)) = (Header::parse(bytes.clone()), Entity::parse(bytes)) {
            assert_eq!(header.bytes(), entity.header.bytes(), "{}", path.display());
        }
    }
}
