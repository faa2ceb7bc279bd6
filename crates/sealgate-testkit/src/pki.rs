//! A certificate authority of the peers' side, made with the `openssl` program, and people with keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process;

/// An authority and its directory.
#[derive(Debug)]
pub struct Pki {
    /// The root's certificate, PEM.
    pub root: PathBuf,
    dir: TempDir,
}

/// Somebody with a key and a certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The address in the certificate.
    pub address: String,
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The secret key, PKCS#8 PEM without a password.
    pub key: PathBuf,
    /// Both and the root as PKCS#12; the password is [`PASSWORD`].
    pub pkcs12: PathBuf,
    /// The kind of key.
    pub kind: KeyKind,
}

/// Kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// NIST P-256.
    P256,
    /// Ed25519.
    Ed25519,
}

/// What a certificate says that its owner reads (RFC 4262).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reads {
    /// Nothing said.
    Unsaid,
    /// AES-256-CBC and AES-256-GCM.
    Gcm,
    /// AES-256-CBC and RSAES-OAEP.
    Oaep,
    /// AES-256-CBC, AES-256-GCM and RSAES-OAEP.
    GcmAndOaep,
}

impl Pki {
    /// A new root.
    pub fn new(name: &str) -> Self {
        let dir = process::open_temp_dir("pki");
        let root = dir.path().join("root.pem");
        let pki = Self { root, dir };
        let subject = format!("/O={name}/CN={name} Root");
        let usage = "keyUsage=critical,keyCertSign,cRLSign";
        pki.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "3650",
            "-subj",
            &subject,
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            usage,
            "-keyout",
            "root.key",
            "-out",
            "root.pem",
        ]);
        pki
    }

    /// A key and a certificate for an address.
    pub fn issue(&self, address: &str, kind: KeyKind, reads: Reads) -> Identity {
        let [key, request, certificate, pkcs12, extensions] =
            ["key", "csr", "pem", "p12", "ext"].map(|end| format!("{address}.{end}"));
        let mut generate = vec!["genpkey", "-out", key.as_str()];
        generate.extend_from_slice(match kind {
            KeyKind::Rsa2048 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            KeyKind::Rsa3072 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
            KeyKind::P256 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            KeyKind::Ed25519 => &["-algorithm", "ED25519"],
        });
        self.openssl(&generate);
        let subject = format!("/CN={address}");
        self.openssl(&["req", "-new", "-key", &key, "-subj", &subject, "-out", &request]);
        fs::write(self.path(&extensions), extension_file(address, kind, reads)).unwrap();
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "root.pem",
            "-CAkey",
            "root.key",
            "-CAcreateserial",
            "-days",
            "365",
            "-extfile",
            &extensions,
            "-out",
            &certificate,
        ]);
        let identity = Identity {
            address: address.to_owned(),
            certificate: self.path(&certificate),
            key: self.path(&key),
            pkcs12: self.path(&pkcs12),
            kind,
        };
        identity.write_pkcs12(&identity.pkcs12);
        identity
    }

    /// Certificate and P-256 key of a TLS server or client: the extended key usage, and further lines of extensions.
    pub fn issue_for_tls(
        &self,
        name: &str,
        subject: &str,
        usage: &str,
        more: &str,
    ) -> (PathBuf, PathBuf) {
        let [key, request, certificate, extensions] =
            ["key", "csr", "pem", "ext"].map(|end| format!("{name}.{end}"));
        let text = format!("basicConstraints=critical,CA:FALSE\nextendedKeyUsage={usage}\n{more}");
        fs::write(self.path(&extensions), text).unwrap();
        let new = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let names = ["-subj", subject, "-keyout", &key, "-out", &request];
        self.openssl(&[&new[..], &names[..]].concat());
        let sign = ["x509", "-req", "-days", "365", "-CA", "root.pem", "-CAkey", "root.key"];
        let files = ["-CAcreateserial", "-in", &request, "-extfile", &extensions];
        self.openssl(&[&sign[..], &files[..], &["-out", &certificate]].concat());
        (self.path(&certificate), self.path(&key))
    }

    /// A file in the authority's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        command.current_dir(self.dir.path()).args(arguments);
        process::run(&mut command, b"").expect_ok(&format!("openssl {}", arguments[0]));
    }
}

impl Identity {
    /// Writes key, certificate and root as PKCS#12, each time with another salt.
    pub fn write_pkcs12(&self, to: &Path) {
        let root = self.certificate.with_file_name("root.pem");
        let mut command = Command::new("openssl");
        command.args(["pkcs12", "-export", "-passout", &format!("pass:{PASSWORD}")]);
        // What gpgsm 2.2 reads.
        command.args(["-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"]);
        command.arg("-inkey").arg(&self.key).arg("-in").arg(&self.certificate);
        command.arg("-certfile").arg(root).arg("-out").arg(to);
        process::run(&mut command, b"").expect_ok("openssl pkcs12");
    }

    /// The certificate in DER.
    pub fn certificate_der(&self) -> Vec<u8> {
        pem_body(&self.certificate)
    }
}

/// The first PEM object of a file, decoded.
pub fn pem_body(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|line| !line.starts_with("-----END"))
        .collect();
    crate::mail::decode_base64(lines.concat().as_bytes())
}

fn extension_file(address: &str, kind: KeyKind, reads: Reads) -> String {
    let usage = match kind {
        KeyKind::Rsa2048 | KeyKind::Rsa3072 => "digitalSignature,keyEncipherment",
        KeyKind::P256 => "digitalSignature,keyAgreement",
        KeyKind::Ed25519 => "digitalSignature",
    };
    let mut text = format!(
        "subjectAltName=email:{address}\nkeyUsage=critical,{usage}\n\
         extendedKeyUsage=emailProtection\nbasicConstraints=critical,CA:FALSE\n"
    );
    let capabilities: &[&str] = match reads {
        Reads::Unsaid => return text,
        Reads::Gcm => &[AES_256_GCM, AES_256_CBC],
        Reads::Oaep => &[RSAES_OAEP, AES_256_CBC],
        Reads::GcmAndOaep => &[AES_256_GCM, RSAES_OAEP, AES_256_CBC],
    };
    let list = capabilities.concat();
    // RFC 4262 §2; all short enough for one length octet.
    text.push_str(&format!("1.2.840.113549.1.9.15=DER:30{:02x}{list}\n", list.len() / 2));
    text
}

/// The password of every PKCS#12 file.
pub const PASSWORD: &str = "secret";

/// SMIMECapability for AES-256-CBC (RFC 3565 §4.1), in hexadecimal.
const AES_256_CBC: &str = "300b060960864801650304012a";

/// SMIMECapability for AES-256-GCM (RFC 5084 §3.2).
const AES_256_GCM: &str = "300b060960864801650304012e";

/// SMIMECapability for RSAES-OAEP with SHA-256 (RFC 3560 §5).
const RSAES_OAEP: &str = "303c06092a864886f70d010107302fa00f300d06096086480165030402010500\
                          a11c301a06092a864886f70d010108300d06096086480165030402010500";
