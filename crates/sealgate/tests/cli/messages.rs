//! `seal` and `open`: one message by hand.

use super::bed::{MAIL, bed_with_keys};

#[test]
fn sealed_mail_is_opened_again() {
    let bed = bed_with_keys();
    let (from, to) = ("alice@nec.example", "bob@nec.example");
    let seal = ["seal", "--from", from, "--to", to, "--report", "seal.json"];
    let sealed = bed.good_with(&seal, MAIL.as_bytes());
    let text = String::from_utf8(sealed.clone()).unwrap();
    assert!(!text.contains("attack at dawn") && text.contains("application/pkcs7-mime"), "{text}");
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "CRLF throughout");
    assert_eq!(text.matches("Received:").count(), 1, "{text}");
    let report: serde_json::Value = serde_json::from_str(&bed.read("seal.json")).unwrap();
    assert_eq!(report["direction"], "outbound");
    assert_eq!(report["delivered"], "sealed");
    assert_eq!(report["layers"][0]["content"], "aes-256-gcm");

    let open = ["open", "--from", from, "--to", to, "--report", "open.json"];
    let opened = String::from_utf8(bed.good_with(&open, &sealed)).unwrap();
    assert!(opened.contains("attack at dawn"), "{opened}");
    assert!(opened.starts_with("Authentication-Results:"), "{opened}");
    let report: serde_json::Value = serde_json::from_str(&bed.read("open.json")).unwrap();
    assert_eq!(report["verdict"], "pass");
    assert_eq!(report["delivered"], "plain");

    // The same with the line ends of a file.
    let with_lf = text.replace("\r\n", "\n");
    let opened = String::from_utf8(bed.good_with(&open, with_lf.as_bytes())).unwrap();
    assert!(opened.contains("attack at dawn"), "{opened}");
}

#[test]
fn verification_takes_its_time_from_the_command_line() {
    let bed = bed_with_keys();
    let (from, to) = ("alice@nec.example", "bob@nec.example");
    let sealed = bed.good_with(&["seal", "--from", from, "--to", to], MAIL.as_bytes());
    let open =
        ["open", "--from", from, "--to", to, "--at", "2050-01-01T00:00:00Z", "--report", "r.json"];
    bed.good_with(&open, &sealed);
    let report: serde_json::Value = serde_json::from_str(&bed.read("r.json")).unwrap();
    assert_ne!(report["verdict"], "pass", "{report}");
}

#[test]
fn a_falsified_message_ends_with_65_and_its_reply() {
    let bed = bed_with_keys();
    let (from, to) = ("alice@nec.example", "bob@nec.example");
    let sealed = bed.good_with(&["seal", "--from", from, "--to", to], MAIL.as_bytes());
    let mut text = String::from_utf8(sealed).unwrap();
    let at = text.trim_end().len() - 100;
    let changed = if &text[at..=at] == "A" { "B" } else { "A" };
    text.replace_range(at..=at, changed);
    let open = ["open", "--from", from, "--to", to, "--report", "r.json"];
    let error = bed.bad_with(&open, text.as_bytes(), 65);
    assert!(error.starts_with("550 5.7.7 "), "{error}");
    let report: serde_json::Value = serde_json::from_str(&bed.read("r.json")).unwrap();
    assert_eq!(report["reply"]["code"], 550);
    assert_eq!(report["reply"]["enhanced"], "5.7.7");
}

#[test]
fn a_recipient_without_a_key_ends_with_65_and_one_outside_too() {
    let bed = bed_with_keys();
    let seal = ["seal", "--from", "alice@nec.example", "--to", "stranger@abc.example"];
    let error = bed.bad_with(&seal, MAIL.as_bytes(), 65);
    assert!(error.starts_with("550 5.7.3 ") && error.contains("stranger@abc.example"), "{error}");
    let error = bed.bad_with(&["open", "--to", "stranger@abc.example"], MAIL.as_bytes(), 65);
    assert!(error.starts_with("550 5.7.1 "), "{error}");
}

#[test]
fn what_the_relay_refuses_at_once_is_refused_so_and_reported() {
    let bed = bed_with_keys();
    let seal = ["seal", "--from", "alice@nec.example", "--to", "bob@abc.example"];
    let open = ["open", "--to", "alice@nec.example"];
    let stranger = ["open", "--to", "stranger@abc.example"];
    let loops = format!("{}{MAIL}", "Received: from a\n".repeat(101));
    let twice = format!("TLS-Required: No\nTLS-Required: No\n{MAIL}");
    let long = format!("{MAIL}{}\n", "x".repeat(70_000));
    for (command, message, reply) in [
        (&seal[..], b"From: a\rb\n".to_vec(), "550 5.5.2 message refused: bare carriage return"),
        (&seal, b"From: a\0b\n".to_vec(), "550 5.5.2 message refused: NUL octet"),
        (&seal, long.into_bytes(), "550 5.6.0 message refused: line too long"),
        (&seal, loops.clone().into_bytes(), "554 5.4.6 "),
        (&open, loops.into_bytes(), "554 5.4.6 "),
        (&seal, twice.into_bytes(), "550 5.6.0 "),
        (&stranger, MAIL.as_bytes().to_vec(), "550 5.7.1 "),
    ] {
        let _ = std::fs::remove_file(bed.path("r.json"));
        let command = [command, &["--report", "r.json"]].concat();
        let error = bed.bad_with(&command, &message, 65);
        assert!(error.starts_with(reply), "{reply}: {error}");
        let report: serde_json::Value = serde_json::from_str(&bed.read("r.json")).unwrap();
        assert_eq!(report["reply"]["code"].to_string(), reply[..3], "{reply}");
        assert_eq!(report["delivered"], "nothing", "{reply}");
    }
}

#[test]
fn a_key_store_that_cannot_answer_ends_with_75() {
    let bed = bed_with_keys();
    // A row that was changed outside sealgate makes the answer an error, not an absence.
    let database = bed.path("sealgate.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use sqlx::Connection as _;
        let url = format!("sqlite:{}", database.display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("UPDATE secret_keys SET wrapped = x'00'")
            .execute(&mut connection)
            .await
            .unwrap();
    });
    let seal = ["seal", "--from", "alice@nec.example", "--to", "bob@nec.example"];
    let error = bed.bad_with(&seal, MAIL.as_bytes(), 75);
    assert!(error.starts_with("451 4.7.5 "), "{error}");
}

#[test]
fn several_copies_need_a_directory() {
    let bed = bed_with_keys();
    let (from, to) = ("alice@nec.example", "bob@nec.example");
    bed.good(&["secret-key", "generate", "carol@nec.example", "--algorithm", "p256"]);
    // Carol is not named in the message: a blind copy, which goes apart (B10).
    let seal = ["seal", "--from", from, "--to", to, "--to", "carol@nec.example"];
    let error = bed.bad_with(&seal, MAIL.as_bytes(), 64);
    assert!(error.contains("2 copies") && error.contains("--out-dir"), "{error}");
    bed.good_with(&[&seal[..], &["--out-dir", "copies"]].concat(), MAIL.as_bytes());
    let mut recipients = Vec::new();
    for number in ["001", "002"] {
        let json: serde_json::Value =
            serde_json::from_str(&bed.read(&format!("copies/{number}.json"))).unwrap();
        assert_eq!(json["delivered"], "sealed");
        recipients.push(json["recipients"].clone());
        assert!(bed.read(&format!("copies/{number}.eml")).contains("application/pkcs7-mime"));
    }
    recipients.sort_by_key(ToString::to_string);
    assert_eq!(recipients, [serde_json::json!([to]), serde_json::json!(["carol@nec.example"])]);
}
