//! gpgsm as a peer: a GnuPG home of its own, whose agent is ended with it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use crate::cms;
use crate::peer::{Cipher, Form, Peer, Signing, Transport};
use crate::pki::{self, Identity, KeyKind};
use crate::process::{self, Ran};

/// gpgsm with its home.
#[derive(Debug)]
pub struct GpgSm {
    home: TempDir,
    // gpgsm's key box is not made for several writers at once.
    one_at_a_time: Mutex<()>,
}

impl GpgSm {
    /// A home that trusts these roots and holds these secret keys. RSA comes in by PKCS#12; P-256 is put into the
    /// agent's own file, because gpgsm 2.2 crashes on PKCS#12 with such keys.
    ///
    /// All roots are there before the agent starts, which reads its list then and only then. An agent that is ended
    /// and started again drops questions of the gpgsm that asks it meanwhile, and certificates are lost that way.
    pub fn new(roots: &[&Path], identities: &[&Identity]) -> Self {
        // Short, because the agent's socket lies in it.
        let home = tempfile::Builder::new().prefix("sg-gpgsm-").tempdir().unwrap();
        process::set_mode(home.path(), 0o700);
        let peer = Self { home, one_at_a_time: Mutex::new(()) };
        peer.write("gpgsm.conf", "disable-crl-checks\n");
        peer.write("gpg-agent.conf", "allow-loopback-pinentry\n");
        let trusted: Vec<String> =
            roots.iter().map(|root| format!("{} S relax\n", fingerprint(root))).collect();
        peer.write("trustlist.txt", &trusted.concat());
        for root in roots {
            peer.import(root, root);
        }
        for identity in identities {
            match identity.kind {
                KeyKind::Rsa2048 | KeyKind::Rsa3072 => peer.import_rsa(identity),
                KeyKind::P256 => {
                    peer.import(&identity.certificate, &identity.certificate);
                    peer.put_p256(identity);
                }
                KeyKind::Ed25519 => peer.import(&identity.certificate, &identity.certificate),
            }
        }
        peer
    }

    /// Imports a file until its certificate is listed. The exit status says nothing: it is 2 also for what is known
    /// already.
    fn import(&self, file: &Path, certificate: &Path) {
        let fingerprint = fingerprint(certificate);
        self.until("import", || {
            let ran = self.ran(&["--import", file.to_str().unwrap()], b"");
            self.gpgsm(&["--list-keys", &fingerprint], b"")
                .map_err(|why| format!("{}: {why}: {}", file.display(), ran.stderr))
        });
    }

    /// Imports a key and its certificate until it signs: what was listed once may be gone again the next moment. Each try
    /// has a file of its own, because gpgsm 2.2 derives another key than everybody else from one salt in some forty, and
    /// then reads neither this file nor, ever, that one.
    fn import_rsa(&self, identity: &Identity) {
        let signs = ["-u", &identity.address, "--detach-sign"];
        let path = self.home.path().join("import.p12");
        self.until("sign with an imported key", || {
            identity.write_pkcs12(&path);
            let ran = self.ran(&["--import", path.to_str().unwrap()], b"");
            self.gpgsm(&signs, b"x").map_err(|why| format!("{why}: {}", ran.stderr))
        });
    }

    fn until<T>(&self, what: &str, mut tried: impl FnMut() -> Result<T, String>) {
        let mut why = String::new();
        for _ in 0..TRIES_MAX {
            match tried() {
                Ok(_) => return,
                Err(reason) => why = reason,
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        panic!("gpgsm cannot {what}: {why}");
    }

    fn put_p256(&self, identity: &Identity) {
        let listed = self.gpgsm(&["-k", "--with-keygrip", &identity.address], b"").unwrap();
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let grip = listed.lines().find_map(|line| line.trim().strip_prefix("keygrip: ")).unwrap();
        // PrivateKeyInfo of a P-256 key: the ECPrivateKey's d follows 02 01 01 04 20, the point ends it.
        let der = pki::pem_body(&identity.key);
        let at = crate::mail::find(&der, &[0x02, 0x01, 0x01, 0x04, 0x20]).unwrap() + 5;
        let (d, q) = (&der[at..at + 32], &der[der.len() - 65..]);
        let mut key = b"(11:private-key(3:ecc(5:curve10:NIST P-256)(1:q65:".to_vec();
        key.extend_from_slice(q);
        key.extend_from_slice(b")(1:d32:");
        key.extend_from_slice(d);
        key.extend_from_slice(b")))");
        let dir = self.home.path().join("private-keys-v1.d");
        fs::create_dir_all(&dir).unwrap();
        process::set_mode(&dir, 0o700);
        fs::write(dir.join(format!("{grip}.key")), key).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.home.path().join(name), text).unwrap();
    }

    fn gpgsm(&self, arguments: &[&str], stdin: &[u8]) -> Result<Vec<u8>, String> {
        let ran = self.ran(arguments, stdin);
        if ran.ok() { Ok(ran.stdout) } else { Err(reason(&ran.stderr)) }
    }

    fn ran(&self, arguments: &[&str], stdin: &[u8]) -> Ran {
        let _guard = self.one_at_a_time.lock().unwrap();
        let password = self.home.path().join("password");
        fs::write(&password, pki::PASSWORD).unwrap();
        // gpgsm takes a password from a file descriptor only.
        let mut command = Command::new("sh");
        command.args(["-c", "exec gpgsm --passphrase-fd 3 \"$@\" 3<\"$0\""]).arg(password);
        command.arg("--homedir").arg(self.home.path());
        command.args(["--batch", "--quiet", "--pinentry-mode", "loopback"]).args(arguments);
        process::run(&mut command, stdin)
    }
}

/// Tries of one import.
const TRIES_MAX: usize = 30;

/// The SHA-1 fingerprint of a certificate, as OpenSSL prints it: what gpgsm calls a certificate by.
fn fingerprint(certificate: &Path) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha1", "-in"]).arg(certificate);
    let text = process::run(&mut command, b"").expect_ok("openssl x509");
    String::from_utf8(text).unwrap().trim().rsplit('=').next().unwrap().to_owned()
}

impl Drop for GpgSm {
    fn drop(&mut self) {
        let mut command = Command::new("gpgconf");
        command.arg("--homedir").arg(self.home.path()).args(["--kill", "gpg-agent"]);
        let _ = command.stderr(Stdio::null()).status();
    }
}

impl Peer for GpgSm {
    fn name(&self) -> &'static str {
        "gpgsm"
    }

    fn sign(
        &self,
        signer: &Identity,
        scheme: Signing,
        form: Form,
        content: &[u8],
    ) -> Result<Vec<u8>, String> {
        if scheme == Signing::RsaPss {
            return Err("no switch for signing with PSS".to_owned());
        }
        let signature = self
            .gpgsm(&["--digest-algo", "SHA256", "-u", &signer.address, "--detach-sign"], content)?;
        in_form(signature, form)
    }

    fn verify(&self, signature: &[u8], content: &[u8], _root: &Path) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let [signature_path, content_path] = ["signature", "content"].map(|n| dir.path().join(n));
        fs::write(&signature_path, signature).unwrap();
        fs::write(&content_path, content).unwrap();
        let [signature_path, content_path] =
            [&signature_path, &content_path].map(|p| p.to_str().unwrap());
        if !cms::is_opaque(signature) {
            return self.gpgsm(&["--verify", signature_path, content_path], b"").map(|_| ());
        }
        let signed = self.gpgsm(&["--output", "-", "--verify", signature_path], b"")?;
        if signed == content { Ok(()) } else { Err("another content".to_owned()) }
    }

    fn encrypt(
        &self,
        recipient: &Identity,
        transport: Transport,
        cipher: Cipher,
        form: Form,
        plain: &[u8],
    ) -> Result<Vec<u8>, String> {
        if transport == Transport::RsaOaep {
            return Err("no switch for OAEP".to_owned());
        }
        if cipher == Cipher::Gcm {
            return Err("no switch for AuthEnvelopedData".to_owned());
        }
        let sealed =
            self.gpgsm(&["--cipher-algo", "AES256", "-r", &recipient.address, "--encrypt"], plain)?;
        in_form(sealed, form)
    }

    fn decrypt(&self, _recipient: &Identity, sealed: &[u8]) -> Result<Vec<u8>, String> {
        // It ends with an error too where it opened the message and one of several recipients is not itself.
        let ran = self.ran(&["--status-fd", "2", "--decrypt"], sealed);
        let opened = ran.stderr.contains("[GNUPG:] DECRYPTION_OKAY");
        if opened { Ok(ran.stdout) } else { Err(reason(&ran.stderr)) }
    }
}

fn in_form(cms: Vec<u8>, form: Form) -> Result<Vec<u8>, String> {
    if Form::of(&cms) == form { Ok(cms) } else { Err(format!("writes {} only", Form::of(&cms))) }
}

/// The last line that says what went wrong.
fn reason(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("gpgsm: ")).collect();
    let telling = ["error", "failed", "rejected", "not usable", "Wrong", "can't", "invalid"];
    let line = lines.iter().rfind(|line| telling.iter().any(|word| line.contains(word)));
    line.or(lines.last()).map_or_else(|| stderr.trim().to_owned(), |line| (*line).to_owned())
}
