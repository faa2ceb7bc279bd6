//! dkimpy: another implementation of DKIM (RFC 6376) and ARC (RFC 8617), to sign mail with and to verify ours.

use std::path::Path;
use std::process::Command;

use crate::process;
use crate::zone::{Zone, txt};

const SCRIPT: &str = include_str!("dkimpy.py");

/// A new secret key, PEM, in a file; its algorithm is `rsa` or `ed25519`. Returned is the TXT record of its public key.
pub fn make_key(file: &Path, algorithm: &str, selector: &str, domain: &str) -> String {
    let mut generate = Command::new("openssl");
    generate.args(["genpkey", "-algorithm", algorithm, "-out"]).arg(file);
    process::run(&mut generate, b"").expect_ok("openssl genpkey");
    let mut public = Command::new("openssl");
    public.args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(file);
    let der = process::run(&mut public, b"").expect_ok("openssl pkey");
    // RFC 8463 §4: of Ed25519 the bare key, which is the end of its SubjectPublicKeyInfo.
    let key = if algorithm == "ed25519" { &der[der.len() - 32..] } else { &der };
    let value =
        format!("v=DKIM1; k={algorithm}; p={}", base64_simd::STANDARD.encode_to_string(key));
    txt(&format!("{selector}._domainkey.{domain}."), &value)
}

/// Puts a DKIM-Signature on top of a message.
pub fn sign(message: &[u8], selector: &str, domain: &str, key: &Path) -> Vec<u8> {
    run(&["sign", selector, domain, key.to_str().unwrap()], message)
}

/// Puts an ARC set on top of a message.
pub fn seal_arc(message: &[u8], selector: &str, domain: &str, key: &Path) -> Vec<u8> {
    run(&["seal", selector, domain, key.to_str().unwrap()], message)
}

/// `pass`, or what is wrong with the topmost DKIM-Signature.
pub fn verify(message: &[u8], zone: &Zone) -> String {
    said(&["dkim", &zone.address.port().to_string()], message)
}

/// `pass`, or what is wrong with the ARC chain.
pub fn verify_arc(message: &[u8], zone: &Zone) -> String {
    said(&["arc", &zone.address.port().to_string()], message)
}

fn said(arguments: &[&str], message: &[u8]) -> String {
    String::from_utf8(run(arguments, message)).unwrap().trim().to_owned()
}

fn run(arguments: &[&str], message: &[u8]) -> Vec<u8> {
    // Debian's own Python, which has Debian's dkimpy.
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", SCRIPT]).args(arguments);
    process::run(&mut command, message).expect_ok("dkimpy")
}
