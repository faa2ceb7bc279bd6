//! The `openssl cms` program as a peer.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::peer::{Cipher, Form, Peer, Signing, Transport};
use crate::pki::Identity;
use crate::process;

/// `openssl cms`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenSsl;

impl Peer for OpenSsl {
    fn name(&self) -> &'static str {
        "openssl"
    }

    fn sign(
        &self,
        signer: &Identity,
        scheme: Signing,
        form: Form,
        content: &[u8],
    ) -> Result<Vec<u8>, String> {
        let mut command = cms("-sign");
        command.arg("-signer").arg(&signer.certificate).arg("-inkey").arg(&signer.key);
        if scheme == Signing::RsaPss {
            command.args(["-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:-1"]);
        }
        written(&mut command, form, content)
    }

    fn verify(&self, signature: &[u8], content: &[u8], root: &Path) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        fs::write(&path, content).unwrap();
        let mut command = cms("-verify");
        command.args(["-inform", "DER", "-purpose", "smimesign"]);
        command.arg("-content").arg(&path).arg("-CAfile").arg(root);
        let plain = ran(&mut command, signature)?;
        if plain == content { Ok(()) } else { Err("another content".to_owned()) }
    }

    fn encrypt(
        &self,
        recipient: &Identity,
        transport: Transport,
        cipher: Cipher,
        form: Form,
        plain: &[u8],
    ) -> Result<Vec<u8>, String> {
        let mut command = cms("-encrypt");
        command.arg(match cipher {
            Cipher::Cbc => "-aes-256-cbc",
            Cipher::Gcm => "-aes-256-gcm",
        });
        command.arg("-recip").arg(&recipient.certificate);
        match transport {
            Transport::RsaPkcs1 => {}
            Transport::RsaOaep => {
                command.args(["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"]);
                command.args(["-keyopt", "rsa_mgf1_md:sha256"]);
            }
            Transport::EcdhP256 => {
                command.args(["-keyopt", "ecdh_kdf_md:sha256"]);
            }
        }
        written(&mut command, form, plain)
    }

    fn decrypt(&self, recipient: &Identity, sealed: &[u8]) -> Result<Vec<u8>, String> {
        let mut command = cms("-decrypt");
        command.args(["-inform", "DER"]);
        command.arg("-recip").arg(&recipient.certificate).arg("-inkey").arg(&recipient.key);
        ran(&mut command, sealed)
    }
}

fn cms(operation: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(["cms", operation, "-binary"]);
    command
}

fn written(command: &mut Command, form: Form, content: &[u8]) -> Result<Vec<u8>, String> {
    command.args(["-outform", "DER"]);
    if form == Form::Ber {
        command.arg("-stream");
    }
    ran(command, content)
}

fn ran(command: &mut Command, stdin: &[u8]) -> Result<Vec<u8>, String> {
    let ran = process::run(command, stdin);
    if ran.ok() { Ok(ran.stdout) } else { Err(reason(&ran.stderr)) }
}

/// The last thing that openssl says went wrong, without numbers and places.
fn reason(stderr: &str) -> String {
    let line = stderr.lines().rfind(|line| line.contains("error:")).unwrap_or(stderr);
    let words: Vec<&str> = line.split(':').collect();
    match words.as_slice() {
        [_, "error", _, library, function, reason, ..] if !reason.is_empty() => {
            format!("{library}: {function}: {reason}")
        }
        _ => line.trim().to_owned(),
    }
}
