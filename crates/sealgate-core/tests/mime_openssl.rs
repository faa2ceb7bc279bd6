//! Part one of every clear-signed fixture is, byte for byte, what `openssl` verifies.
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

use std::io::Write;
use std::process::{Command, Stdio};

use bytes::Bytes;
use material::mails;
use sealgate_core::mime::{Cryptographic, Entity, cryptographic_layer};

/// What `openssl cms -verify` puts out for a mail whose signature is good; paths are not validated.
fn verified_by_openssl(mail: &Bytes) -> Option<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(["cms", "-verify", "-noverify", "-inform", "SMIME"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the openssl program is needed for this test");
    let mut stdin = child.stdin.take().unwrap();
    let mail = mail.clone();
    // It may stop reading early.
    let writer = std::thread::spawn(move || stdin.write_all(&mail).is_ok());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.status.success().then_some(output.stdout)
}

#[test]
fn part_one_is_what_openssl_verifies() {
    let mut same = 0;
    for set in ["comm-smime", "wolfssl", "pkits/smime"] {
        for (path, bytes) in mails(set) {
            let Ok(entity) = Entity::parse(bytes.clone()) else { continue };
            let Cryptographic::ClearSigned(parts) = cryptographic_layer(&entity) else { continue };
            if let Some(verified) = verified_by_openssl(&bytes) {
                assert!(parts.signed == verified, "{}", path.display());
                same += 1;
            }
        }
    }
    println!("{same} parts are the same");
    assert!(same >= 10, "{same}");
}
