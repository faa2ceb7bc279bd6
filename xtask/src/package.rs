//! `cargo xtask package`: a Debian package of the program, its units, its manual pages and its guide.
//!
//! In: a program (built here, or given) and `pkg/`. Out: `sealgate_VERSION_ARCHITECTURE.deb`. `dpkg-shlibdeps` says which
//! libraries the program needs, and of what version.

mod proof;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root;

pub(crate) use proof::prove;

/// The command with its options.
pub(crate) fn run(options: &[&str]) -> bool {
    let made = match options {
        [] => release_binary().and_then(|binary| make(&binary, &root().join("target/package"))),
        ["--binary", path] => make(Path::new(path), &root().join("target/package")),
        _ => Err("cargo xtask package [--binary PATH]".to_owned()),
    };
    match made {
        Ok(ref path) => println!("{}", path.display()),
        Err(ref why) => eprintln!("{why}"),
    }
    made.is_ok()
}

fn release_binary() -> Result<PathBuf, String> {
    let built = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["build", "--release", "--locked", "--bin", "sealgate"])
        .status()
        .map_err(|why| format!("cargo build: {why}"))?;
    if !built.success() {
        return Err(format!("cargo build: {built}"));
    }
    let path = root().join("target/release/sealgate");
    let program = fs::read(&path).map_err(|why| format!("{}: {why}", path.display()))?;
    // Tests let a debug build fail; what is installed must not know how (REQUIREMENTS M8).
    if program.windows(FAIL_POINTS.len()).any(|octets| octets == FAIL_POINTS) {
        return Err(format!("{}: a release build has fail points", path.display()));
    }
    Ok(path)
}

/// Makes the package out of a program; returns its file.
///
/// # Errors
/// Which file or tool failed, and how.
pub(crate) fn make(binary: &Path, into: &Path) -> Result<PathBuf, String> {
    let staging = tempfile::tempdir().map_err(|why| why.to_string())?;
    let tree = staging.path().join("debian/sealgate");
    lay_out(&tree, binary)?;
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let control = control(staging.path(), &tree, architecture.trim())?;
    install_text(&tree.join("DEBIAN/control"), &control, 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        install(&root().join("pkg/debian").join(script), &tree.join("DEBIAN").join(script), 0o755)?;
    }
    fs::create_dir_all(into).map_err(|why| format!("{}: {why}", into.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    let package = into.join(format!("sealgate_{version}_{}.deb", architecture.trim()));
    // The time of the commit and not of the build: two builders make the same file.
    let epoch = output(Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct"]))
        .unwrap_or_else(|_| "0".to_owned());
    output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .args([&tree, &package])
            .env("SOURCE_DATE_EPOCH", epoch.trim()),
    )?;
    Ok(package)
}

/// Everything that the package puts into the file system.
fn lay_out(tree: &Path, binary: &Path) -> Result<(), String> {
    let program = tree.join("usr/bin/sealgate");
    install(binary, &program, 0o755)?;
    output(Command::new("strip").args(["--strip-debug"]).arg(&program))?;
    let pkg = root().join("pkg");
    for unit in ["sealgate.socket", "sealgate.service", "sealgate-key-server.service"] {
        let to = tree.join("lib/systemd/system").join(unit);
        install(&pkg.join("systemd").join(unit), &to, 0o644)?;
    }
    let debian = pkg.join("debian");
    let sysusers = tree.join("usr/lib/sysusers.d/sealgate.conf");
    install(&debian.join("sysusers.conf"), &sysusers, 0o644)?;
    let tmpfiles = tree.join("usr/lib/tmpfiles.d/sealgate.conf");
    install(&debian.join("tmpfiles.conf"), &tmpfiles, 0o644)?;
    let documents = tree.join("usr/share/doc/sealgate");
    // What links to another finds it.
    for document in DOCUMENTS {
        install(&root().join(document), &documents.join(document), 0o644)?;
    }
    for example in files_of(&root().join("examples"))? {
        let name = example.file_name().ok_or("an example has a name")?;
        install(&example, &documents.join("examples").join(name), 0o644)?;
    }
    let pages = tree.join("usr/share/man/man1");
    output(Command::new(binary).arg("man").arg(&pages))?;
    for page in files_of(&pages)? {
        output(Command::new("gzip").args(["-9n"]).arg(&page))?;
        set_mode(&page.with_extension("1.gz"), 0o644)?;
    }
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/sealgate"),
        ("zsh", "usr/share/zsh/vendor-completions/_sealgate"),
        ("fish", "usr/share/fish/vendor_completions.d/sealgate.fish"),
    ] {
        let text = output(Command::new(binary).args(["completions", shell]))?;
        install_text(&tree.join(path), &text, 0o644)?;
    }
    Ok(())
}

/// The package's description of itself; its dependencies are what the program is linked to.
fn control(staging: &Path, tree: &Path, architecture: &str) -> Result<String, String> {
    // The tool wants a source package around it.
    let source = "Source: sealgate\n\nPackage: sealgate\nArchitecture: any\n";
    install_text(&staging.join("debian/control"), source, 0o644)?;
    let found = output(
        Command::new("dpkg-shlibdeps")
            .current_dir(staging)
            .args(["-O", "--ignore-missing-info"])
            .arg(tree.join("usr/bin/sealgate")),
    )?;
    let libraries = found
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="))
        .ok_or_else(|| format!("dpkg-shlibdeps names no library: {found}"))?;
    let mut text = String::new();
    let _ = writeln!(text, "Package: sealgate");
    let _ = writeln!(text, "Version: {}", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "Architecture: {architecture}");
    let _ = writeln!(text, "Section: mail");
    let _ = writeln!(text, "Priority: optional");
    let _ = writeln!(text, "Maintainer: sealgate");
    let _ = writeln!(text, "Depends: {libraries}, systemd, ca-certificates");
    let _ = writeln!(text, "Suggests: postfix | exim4 | opensmtpd, softhsm2, p11-kit, postgresql");
    let _ = writeln!(text, "Description: secure mail proxy");
    text.push_str(DESCRIPTION);
    Ok(text)
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<(), String> {
    make_parent(to)?;
    fs::copy(from, to).map_err(|why| format!("{} to {}: {why}", from.display(), to.display()))?;
    set_mode(to, mode)
}

fn install_text(to: &Path, text: &str, mode: u32) -> Result<(), String> {
    make_parent(to)?;
    fs::write(to, text).map_err(|why| format!("{}: {why}", to.display()))?;
    set_mode(to, mode)
}

fn make_parent(path: &Path) -> Result<(), String> {
    let parent = path.parent().ok_or_else(|| format!("{}: no folder", path.display()))?;
    fs::create_dir_all(parent).map_err(|why| format!("{}: {why}", parent.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), String> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|why| format!("{}: {why}", path.display()))
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// Runs a tool; returns its standard output.
fn output(command: &mut Command) -> Result<String, String> {
    let name = format!("{command:?}");
    let output = command.output().map_err(|why| format!("{name}: {why}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}: {}", output.status, said.trim()));
    }
    String::from_utf8(output.stdout).map_err(|why| format!("{name}: {why}"))
}

/// Where a debug build reads what is to fail (crates/sealgate/src/failpoint.rs).
const FAIL_POINTS: &[u8] = b"SEALGATE_FAILPOINTS";

/// README.md and what it links to, and so on.
const DOCUMENTS: [&str; 8] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "THREAT_MODEL.md",
    "docs/BENCHMARKS.md",
    "docs/RELIABILITY.md",
    "docs/operating.md",
];

const DESCRIPTION: &str =
    " It stands between a mail server and the Internet and does e-mail cryptography
 (S/MIME) for everyone behind it: what leaves is signed and encrypted, what
 arrives is checked, refused in the SMTP session when it is falsified, and
 decrypted when it is whole. Clients need no software, no setting and no key.
";
