//! `ca`: the organisation's own authority, its successor, and what it revokes.

use std::process::{Command, Stdio};

use super::bed::{Bed, bed_with_keys};

/// Its successor is there before it can issue no more, and what it issued stays good.
#[test]
fn an_authority_that_ends_is_named_in_time_and_renewed() {
    const DAY_SECS: i64 = 24 * 3600;
    let bed = bed_with_keys();
    let clock = sealgate_testkit::clock::Clock::right();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
        command.args(arguments).current_dir(bed.0.path()).envs(clock.environment());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let generate = || run(&["secret-key", "generate", "carol@nec.example", "--algorithm", "p256"]);
    let row = || {
        let (_, table, _) = run(&["check"]);
        table.lines().find(|line| line.starts_with("own authority")).unwrap_or_default().to_owned()
    };
    assert!(row().contains(" ok "), "{}", row());
    clock.jump((3652 - 200) * DAY_SECS);
    assert!(row().contains("FAILED") && row().contains("sealgate ca renew"), "{}", row());
    assert_eq!(generate().0, Some(0));
    clock.jump((3652 - 50) * DAY_SECS);
    let (status, _, error) = generate();
    assert_eq!(status, Some(65), "{error}");
    assert!(error.contains("sealgate ca renew"), "{error}");
    let (_, before, _) = run(&["ca", "certificate"]);
    let (status, renewed, error) = run(&["ca", "renew"]);
    assert_eq!(status, Some(0), "{error}");
    assert!(renewed.contains("sealgate ca certificate"), "{renewed}");
    assert_eq!(generate().0, Some(0));
    assert!(row().contains(" ok "), "{}", row());
    assert_ne!(run(&["ca", "certificate"]).1, before);
    // Both are anchors, and what either issued is ours.
    assert_eq!(run(&["anchor", "list"]).1.lines().count(), 3);
    let (status, _, error) = run(&["master-key", "rotate"]);
    assert_eq!(status, Some(0), "{error}");
    assert_eq!(generate().0, Some(0));
}

/// By anybody who has it: the list is signed, and openssl reads it.
#[test]
fn what_the_own_authority_issued_is_revoked_and_correspondents_are_told() {
    let bed = bed_with_keys();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
        let output = command.args(arguments).current_dir(bed.0.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let path = |name: &str| bed.0.path().join(name);
    let good = |arguments: &[&str]| {
        let (status, output, error) = run(arguments);
        assert_eq!(status, Some(0), "{arguments:?}: {error}");
        output
    };
    let verifies = |certificate: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-crl_check", "-CAfile"]).arg(path("ca.pem")).arg("-CRLfile");
        let output = openssl.arg(path("list.pem")).arg(path(certificate)).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    std::fs::write(path("ca.pem"), good(&["ca", "certificate"])).unwrap();
    let (status, _, error) = run(&["ca", "crl"]);
    assert_eq!(status, Some(65), "{error}");
    for owner in ["carol", "dave"] {
        let address = format!("{owner}@nec.example");
        good(&["secret-key", "generate", &address, "--algorithm", "p256"]);
        let certificates = good(&["secret-key", "certificate", &address]);
        let first = certificates.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
        std::fs::write(path(&format!("{owner}.pem")), first).unwrap();
    }
    let said = good(&["ca", "revoke", "carol@nec.example", "--reason", "superseded"]);
    assert!(said.contains("2 revoked") && said.contains("sealgate ca crl"), "{said}");
    std::fs::write(path("list.pem"), good(&["ca", "crl"])).unwrap();
    let (is_good, why) = verifies("carol.pem");
    assert!(!is_good && why.contains("certificate revoked"), "{why}");
    assert!(verifies("dave.pem").0, "{:?}", verifies("dave.pem"));

    // Again; and once the key is gone, for a graver reason.
    let again = good(&["ca", "revoke", "carol@nec.example", "--reason", "superseded"]);
    assert!(again.contains("revoked before"), "{again}");
    good(&["secret-key", "remove", "carol@nec.example"]);
    let (status, _, error) = run(&["ca", "revoke", "carol@nec.example", "--reason", "superseded"]);
    assert_eq!(status, Some(65));
    assert!(error.contains("--certificate"), "{error}");
    let graver = ["ca", "revoke", "--certificate", "carol.pem", "--reason", "key-compromise"];
    assert!(good(&graver).contains("1 revoked"));
    assert!(good(&graver).contains("revoked before"));
    let own = ["ca", "revoke", "--certificate", "ca.pem", "--reason", "superseded"];
    assert_eq!(run(&own).0, Some(65));

    // The successor is of the same name: its certificates are good, and nothing of the one before is forgotten.
    good(&["ca", "renew"]);
    std::fs::write(path("ca.pem"), good(&["ca", "certificate"])).unwrap();
    good(&["secret-key", "generate", "erin@nec.example", "--algorithm", "p256"]);
    let certificates = good(&["secret-key", "certificate", "erin@nec.example"]);
    std::fs::write(path("erin.pem"), certificates).unwrap();
    std::fs::write(path("list.pem"), good(&["ca", "crl"])).unwrap();
    assert!(verifies("erin.pem").0, "{:?}", verifies("erin.pem"));
    assert_eq!(good(&["crl", "list"]).lines().count(), 3, "a head and two lists");
    good(&["ca", "revoke", "dave@nec.example", "--reason", "key-compromise"]);
    let listed = good(&["crl", "list"]);
    assert_eq!(listed.lines().count(), 3, "in the place of the one before");
    let first = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    let (status, _, error) = run(&["crl", "remove", first]);
    assert_eq!(status, Some(65), "{error}");
    assert_eq!(good(&["crl", "list"]), listed, "there is no other record");
}

/// Nobody must be given a certificate that was revoked, and who looks must see why mail is refused.
#[test]
fn what_was_revoked_is_named_and_given_to_nobody() {
    let bed = bed_with_keys();
    let (alice, bob) = ("alice@nec.example", "bob@nec.example");
    let certificates = bed.good(&["secret-key", "certificate", alice]);
    bed.good(&["ca", "revoke", alice, "--reason", "key-compromise"]);
    let listed = bed.good(&["secret-key", "list"]);
    let of =
        |owner: &str| listed.lines().filter(|line| line.starts_with(owner)).collect::<Vec<_>>();
    assert_eq!(of(alice).len(), 2, "{listed}");
    assert!(of(alice).iter().all(|line| line.contains("(revoked)")), "{listed}");
    assert!(of(bob).iter().all(|line| !line.contains("(revoked)")), "{listed}");
    let shown = bed.good(&["secret-key", "show", alice, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[0]["revoked"], true);
    let error = bed.bad(&["secret-key", "certificate", alice], 65);
    assert!(error.contains("revoked"), "{error}");
    assert!(bed.good(&["secret-key", "certificate", bob]).contains("BEGIN CERTIFICATE"));

    // A correspondent, who has imported it before.
    let theirs = Bed::new();
    let path = theirs.write("alice.pem", certificates);
    theirs.good(&["public-key", "import", &path]);
    let path = theirs.write("authority.pem", bed.good(&["ca", "certificate"]));
    theirs.good(&["anchor", "import", &path]);
    assert!(!theirs.good(&["public-key", "list"]).contains("revoked"));
    let path = theirs.write("list.pem", bed.good(&["ca", "crl"]));
    theirs.good(&["anchor", "import", &path]);
    assert_eq!(theirs.good(&["public-key", "list"]).matches("pinned (revoked)").count(), 2);
    let shown = theirs.good(&["public-key", "show", alice]);
    assert!(shown.contains("pinned (revoked)"), "{shown}");
    let listed = theirs.good(&["public-key", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["state"], &listed[0]["revoked"]), (&"pinned".into(), &true.into()));
}
