//! The bodies of the fuzz targets; `cargo test` runs the same over mutants on the stable toolchain.
//!
//! Run one with `cargo +nightly fuzz run NAME CORPUS_FOLDER` from the project's root; seeds are any mails for the MIME
//! targets, DER or BER for the CMS targets, and dialogues for the SMTP targets.
#![forbid(unsafe_code)]

#[path = "../../crates/sealgate-core/tests/fuzz_bodies/cms.rs"]
pub mod cms;
#[path = "../../crates/sealgate-keys/tests/fuzz_bodies/foreign.rs"]
pub mod foreign;
#[path = "../../crates/sealgate-core/tests/fuzz_bodies/mime.rs"]
pub mod mime;
#[path = "../../crates/sealgate-core/tests/fuzz_bodies/smtp.rs"]
pub mod smtp;

use std::sync::LazyLock;

use sealgate_core::keys::Certificate;

/// Bob of RFC 9216, to whom the envelopes may be addressed.
pub static BOB: LazyLock<Certificate> = LazyLock::new(|| {
    let pem = include_str!("../../crates/sealgate-core/tests/data/rfc9216/certs/bob.encrypt.crt");
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64_simd::STANDARD.decode_to_vec(text).expect("PEM holds base64");
    Certificate::from_der(&der).expect("the certificate of RFC 9216")
});
