//! BouncyCastle as a peer: `java/Peer.java`, compiled against Debian's libbcmail-java, one process for many requests.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use crate::peer::{Cipher, Form, Peer, Signing, Transport};
use crate::pki::Identity;
use crate::process::{self, Running};

/// A Java process that answers requests.
#[derive(Debug)]
pub struct BouncyCastle {
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    _running: Running,
    dir: TempDir,
}

impl BouncyCastle {
    /// Compiles and starts it.
    pub fn start() -> Self {
        let dir = process::open_temp_dir("bouncycastle");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/java/Peer.java");
        let mut compiler = Command::new("javac");
        compiler
            .args(["-J-Xmx256m", "-nowarn", "-cp", CLASS_PATH, "-d"])
            .arg(dir.path())
            .arg(source);
        process::run(&mut compiler, b"").expect_ok("javac");
        let class_path = format!("{}:{CLASS_PATH}", dir.path().display());
        let mut command = Command::new("java");
        command.args([
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Xmx256m",
            "-cp",
            &class_path,
            "Peer",
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start("java", &mut command);
        let stdin = running.child().stdin.take().unwrap();
        let stdout = BufReader::new(running.child().stdout.take().unwrap());
        Self { pipes: Mutex::new((stdin, stdout)), _running: running, dir }
    }

    fn ask(&self, words: &[&str]) -> Result<(), String> {
        let mut pipes = self.pipes.lock().unwrap();
        writeln!(pipes.0, "{}", words.join("\t")).unwrap();
        let mut answer = String::new();
        pipes.1.read_line(&mut answer).unwrap();
        match answer.trim_end() {
            "ok" => Ok(()),
            other => Err(other.strip_prefix("no ").unwrap_or(other).to_owned()),
        }
    }

    /// Files for one request; its directory goes when it is dropped.
    fn files(&self) -> TempDir {
        tempfile::tempdir_in(self.dir.path()).unwrap()
    }
}

impl Peer for BouncyCastle {
    fn name(&self) -> &'static str {
        "bouncycastle"
    }

    fn sign(
        &self,
        signer: &Identity,
        scheme: Signing,
        form: Form,
        content: &[u8],
    ) -> Result<Vec<u8>, String> {
        let scheme = match scheme {
            Signing::Rsa2048 | Signing::Rsa3072 => "SHA256withRSA",
            Signing::RsaPss => "SHA256withRSAandMGF1",
            Signing::P256 => "SHA256withECDSA",
            Signing::Ed25519 => "Ed25519",
        };
        let dir = self.files();
        let (input, output) = (written(&dir, "in", content), path(&dir, "out"));
        let form = form.to_string();
        let (key, certificate) = (text(&signer.key), text(&signer.certificate));
        self.ask(&["sign", scheme, &form, key, certificate, &input, &output])?;
        Ok(fs::read(output).unwrap())
    }

    fn verify(&self, signature: &[u8], content: &[u8], root: &Path) -> Result<(), String> {
        let dir = self.files();
        let signature = written(&dir, "signature", signature);
        self.ask(&["verify", &signature, &written(&dir, "content", content), text(root)])
    }

    fn encrypt(
        &self,
        recipient: &Identity,
        transport: Transport,
        cipher: Cipher,
        form: Form,
        plain: &[u8],
    ) -> Result<Vec<u8>, String> {
        let dir = self.files();
        let (input, output) = (written(&dir, "in", plain), path(&dir, "out"));
        let [transport, cipher, form] =
            [transport.to_string(), cipher.to_string(), form.to_string()];
        let certificate = text(&recipient.certificate);
        self.ask(&["encrypt", &transport, &cipher, &form, certificate, &input, &output])?;
        Ok(fs::read(output).unwrap())
    }

    fn decrypt(&self, recipient: &Identity, sealed: &[u8]) -> Result<Vec<u8>, String> {
        let dir = self.files();
        let (input, output) = (written(&dir, "in", sealed), path(&dir, "out"));
        self.ask(&["decrypt", text(&recipient.key), &input, &output])?;
        Ok(fs::read(output).unwrap())
    }
}

fn path(dir: &TempDir, name: &str) -> String {
    text(&dir.path().join(name)).to_owned()
}

fn written(dir: &TempDir, name: &str, bytes: &[u8]) -> String {
    let path = path(dir, name);
    fs::write(&path, bytes).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Where Debian puts it.
const CLASS_PATH: &str = "/usr/share/java/bcprov.jar:/usr/share/java/bcpkix.jar:\
                          /usr/share/java/bcutil.jar:/usr/share/java/bcmail.jar";
