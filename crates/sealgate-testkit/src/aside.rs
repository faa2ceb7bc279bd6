//! Mail servers that cannot be installed beside Postfix, because Debian lets one mail server have `/usr/sbin/sendmail`: unpacked
//! into `target/aside` by `cargo xtask test`, and run with a view of the file system of their own.
//!
//! In that view their users exist, `target/aside` is `/mnt`, and `/run`, `/var/lib` and `/var/spool` are empty. Nothing of it
//! shows outside. Needs root and util-linux.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::process::{self, Running};

/// A server that runs aside.
#[derive(Debug)]
pub(crate) struct Aside {
    running: Running,
    dir: TempDir,
}

impl Aside {
    /// Starts a program of `/mnt` in the foreground, with its configuration at `/srv/configuration`; `/srv` is its directory.
    pub(crate) fn start(
        name: &str,
        smtp: SocketAddr,
        configuration: &str,
        program: &str,
        arguments: &[&str],
    ) -> Self {
        assert!(
            Path::new(UNPACKED).join(program).exists(),
            "no {program} in target/aside: `cargo xtask test` unpacks it"
        );
        let dir = process::open_temp_dir(name);
        std::fs::write(dir.path().join("configuration"), configuration).unwrap();
        let output = File::create(dir.path().join("output")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", VIEW, "sh"]).arg(dir.path()).arg(UNPACKED);
        command.arg(format!("/mnt/{program}")).args(arguments);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let aside = Self { running: Running::start(name, &mut command), dir };
        assert!(
            process::holds_within(process::PATIENCE, || std::net::TcpStream::connect(smtp).is_ok()),
            "{name} does not listen:\n{}",
            aside.file("output")
        );
        aside
    }

    /// Runs a command in the server's view.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.running.id().to_string()]);
        command.arg(program).args(arguments);
        let ran = process::run(&mut command, b"");
        assert!(ran.ok(), "{program} {arguments:?}: {} {}", ran.stderr, self.file("output"));
    }

    /// A file of its directory.
    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

/// Where the packages are unpacked.
const UNPACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/aside");
/// Arguments: the server's directory, `target/aside`, the command.
const VIEW: &str = r#"
dir=$1 aside=$2
shift 2
mount --make-rprivate /
cp /etc/passwd /etc/group "$dir"
number=64000
for user in Debian-exim opensmtpd opensmtpq; do
    number=$((number + 1))
    grep -q "^$user:" "$dir/group" || echo "$user:x:$number:" >> "$dir/group"
    group=$(sed -n "s/^$user:[^:]*:\([0-9]*\):.*/\1/p" "$dir/group")
    grep -q "^$user:" "$dir/passwd" || \
        echo "$user:x:$number:$group::/var/lib/opensmtpd/empty:/usr/sbin/nologin" >> "$dir/passwd"
done
mount --bind "$dir/passwd" /etc/passwd
mount --bind "$dir/group" /etc/group
mount --bind "$aside" /mnt
mkdir "$dir/spool" "$dir/log"
chown Debian-exim:Debian-exim "$dir/spool" "$dir/log"
mount --bind "$dir" /srv
for place in /run /var/lib /var/spool; do mount -t tmpfs tmpfs "$place"; done
mkdir -m 711 /var/spool/smtpd
mkdir -p /var/lib/opensmtpd/empty
if [ -e /mnt/usr/sbin/smtpctl ]; then
    install -g opensmtpq -m 2755 /mnt/usr/sbin/smtpctl /run/smtpctl
fi
exec "$@"
"#;
