//! Several recipients with several outcomes, between scripted clients and scripted servers: who gets the message how often,
//! and who is told what (REQUIREMENTS O9, O10, O19).
#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "test code"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use between_sinks::{
    ALICE, BUSY, GONE, MAIL, OK, Script, counts, gate, log_of, refusing, refusing_at_dot,
    refusing_at_rcpt, smtp,
};
use sealgate_testkit::gate::Gate;
use sealgate_testkit::postgres::Postgres;
use sealgate_testkit::process::{self, await_that};
use sealgate_testkit::session::{Session, send_lmtp, send_smtp};
use sealgate_testkit::sink::{Protocol, Received, Sink, Stage};

#[path = "support/between_sinks.rs"]
mod between_sinks;

/// Another copy of sealgate on the same database.
fn second(first: &Gate, inside: &Sink, outside: &Sink) -> Gate {
    gate(inside, outside, |gate| {
        let file = |name| first.dir().join(name).to_str().unwrap().to_owned();
        gate.set(&["database", "url"], format!("sqlite:{}", file("sealgate.db")));
        gate.set(&["master_key", "file"], file("master.key"));
    })
}

#[test]
fn a_second_attempt_skips_those_who_have_it_on_every_copy_of_sealgate() {
    for at_dot in [false, true] {
        let script = Script::default();
        script.set("busy@", "450 4.2.1 busy");
        let outside = refusing(at_dot, &script);
        let inside = Sink::smtp();
        let one = gate(&inside, &outside, |_| {});
        let other = second(&one, &inside, &outside);
        // The other copy has just seen that there is no record.
        assert_eq!(smtp(&other, &["else@a.example"]).code, 250);
        let reply = smtp(&one, &[OK, BUSY]);
        assert_eq!(reply.status(), "450 4.2.1", "{reply:?}");
        assert!(reply.text().contains("not delivered to <busy@c.example>, all others have it"));
        assert_eq!(log_of(&one, &reply)["repair"], "done-record");
        assert_eq!(smtp(&other, &[OK, BUSY]).code, 450, "and still");
        script.clear();
        assert_eq!(smtp(&other, &[OK, BUSY]).code, 250);
        assert_eq!(counts(&outside, [OK, BUSY]), [1, 1]);
        // Another content is another message.
        let reply = send_smtp(one.ready().inside_smtp.unwrap(), ALICE, &[OK], b"A: 1\r\n\r\nx\r\n");
        assert_eq!(reply.code, 250);
        assert_eq!(counts(&outside, [OK]), [2]);
    }
}

#[test]
fn copies_on_one_postgresql_share_the_done_record() {
    let server = Postgres::shared();
    let url = server.url(&server.create_database());
    let first = Gate::init(env!("CARGO_BIN_EXE_sealgate"), &["nec.example"]);
    let mut init = Command::new(env!("CARGO_BIN_EXE_sealgate"));
    init.args(["init", "--domain", "nec.example", "--database", &url, "--dir"]);
    process::run(init.arg(first.dir().join("shared")), b"").expect_ok("init");
    let script = Script::default();
    script.set("busy@", "450 4.2.1 busy");
    let (inside, outside) = (Sink::smtp(), refusing_at_dot(Protocol::Smtp, &script));
    let [one, other] = [(); 2].map(|()| {
        gate(&inside, &outside, |gate| {
            gate.set(&["database", "url"], url.as_str());
            let key = first.dir().join("shared/master.key");
            gate.set(&["master_key", "file"], key.to_str().unwrap());
        })
    });
    assert_eq!(smtp(&other, &["else@a.example"]).code, 250);
    assert_eq!(smtp(&one, &[OK, BUSY]).code, 450);
    assert_eq!(smtp(&other, &[BUSY, OK]).code, 450);
    script.clear();
    assert_eq!(smtp(&other, &[OK, BUSY]).code, 250);
    assert_eq!(counts(&outside, [OK, BUSY]), [1, 1]);
}

#[test]
fn all_three_outcomes_end_well_for_each() {
    let script = Script::default();
    script.set("gone@", "550 5.1.1 gone");
    script.set("busy@", "450 4.2.1 busy");
    let (inside, outside) = (Sink::smtp(), refusing_at_dot(Protocol::Smtp, &script));
    let gate = gate(&inside, &outside, |_| {});
    let to = [BUSY, GONE, OK, "ok2@d.example"];
    let reply = smtp(&gate, &to);
    assert_eq!(reply.code, 450);
    assert!(inside.received().is_empty(), "the sender is told once, at the end");
    let line = log_of(&gate, &reply);
    let got = |line: &serde_json::Value| {
        let each = line["recipients"].as_array().unwrap().iter();
        each.map(|one| {
            format!("{} {} {}", one["to"].as_str().unwrap(), one["code"], one["enhanced"])
        })
        .collect::<Vec<_>>()
    };
    let answers = [
        r#"busy@c.example 450 "4.2.1""#,
        r#"gone@b.example 550 "5.1.1""#,
        r#"ok@a.example 250 "2.0.0""#,
        r#"ok2@d.example 250 "2.0.0""#,
    ];
    assert_eq!(got(&line), answers);
    assert_eq!(line["recipients"][0]["host"], "127.0.0.1", "{line}");
    script.set("busy@", "250 2.0.0 taken");
    assert_eq!(smtp(&gate, &to).code, 250);
    assert_eq!(counts(&outside, to), [1, 0, 1, 1]);
    assert_eq!(inside.received().len(), 1);
}

/// Each is answered apart, and one reply is in the line.
#[test]
fn the_log_says_who_has_a_message_that_came_over_lmtp() {
    let script = Script::default();
    script.set("gone@", "550 5.1.1 gone");
    let outside = refusing_at_dot(Protocol::Smtp, &script);
    let gate = gate(&Sink::smtp(), &outside, |_| {});
    let address = gate.ready().inside_lmtp.unwrap();
    let replies = send_lmtp(address, ALICE, &[OK, GONE], MAIL);
    assert_eq!([replies[0].code, replies[1].code], [250, 550]);
    let line = log_of(&gate, &replies[1]);
    assert_eq!(line["partial"], true);
    let code = |at: usize| {
        (line["recipients"][at]["to"].as_str(), line["recipients"][at]["code"].as_u64())
    };
    assert_eq!([code(0), code(1)], [(Some(OK), Some(250)), (Some(GONE), Some(550))], "{line}");
    let shown: Vec<&String> = line["recipients"][1].as_object().unwrap().keys().collect();
    assert_eq!(shown, ["code", "enhanced", "host", "to"], "none of the words: {line}");
    let reply = smtp(&gate, &[OK]);
    assert_eq!(log_of(&gate, &reply).get("recipients"), None, "the reply says it all");
}

#[test]
fn coming_in_the_refusal_names_whom_it_is_about() {
    let script = Script::default();
    script.set("full@", "452 4.2.2 full");
    let (inside, outside) = (refusing_at_dot(Protocol::Lmtp, &script), Sink::smtp());
    let gate = gate(&inside, &outside, |gate| {
        gate.set(&["inside", "mail_server"], format!("lmtp://{}", inside.address));
    });
    let to = ["a@nec.example", "full@nec.example"];
    let send = || send_smtp(gate.ready().outside_smtp.unwrap(), "bob@a.example", &to, MAIL);
    let reply = send();
    assert_eq!(reply.status(), "452 4.2.2", "{reply:?}");
    assert!(reply.text().contains("<full@nec.example>"), "{reply:?}");
    script.set("full@", "550 5.2.2 too full");
    let reply = send();
    assert_eq!(reply.status(), "550 5.2.2", "{reply:?}");
    assert!(reply.text().contains("not delivered to <full@nec.example>, all others have it"));
    assert_eq!(counts(&inside, to), [1, 0]);
    assert!(outside.received().is_empty(), "no backscatter");
}

#[test]
fn a_lost_reply_makes_no_duplicate() {
    let outside = Sink::scripted(Protocol::Smtp, |stage| {
        if matches!(stage, Stage::Dot(_)) {
            thread::sleep(Duration::from_millis(600));
        }
        None
    });
    let gate = gate(&Sink::smtp(), &outside, |_| {});
    for (protocol, address) in [
        (Protocol::Smtp, gate.ready().inside_smtp.unwrap()),
        (Protocol::Lmtp, gate.ready().inside_lmtp.unwrap()),
    ] {
        let name = format!("{protocol:?}").to_ascii_lowercase();
        let to = [1, 2].map(|number| format!("{name}{number}@a.example"));
        let to = [to[0].as_str(), to[1].as_str()];
        let before = outside.received().len();
        let (mut client, _) = Session::connect(address);
        let hello = if protocol == Protocol::Smtp { "EHLO" } else { "LHLO" };
        client.command(&format!("{hello} client.example"));
        client.command(&format!("MAIL FROM:<{ALICE}>"));
        to.iter().for_each(|to| assert_eq!(client.command(&format!("RCPT TO:<{to}>")).code, 250));
        client.command("DATA");
        client.content(MAIL);
        thread::sleep(Duration::from_millis(250));
        drop(client);
        outside.await_received(before + 2);
        await_that("the lost reply in the log", || {
            let lost = |line: &serde_json::Value| line["reply_lost"] == true;
            gate.log_lines().iter().any(|line| lost(line) && line["to"][0] == to[0])
        });
        let replies = match protocol {
            Protocol::Smtp => vec![send_smtp(address, ALICE, &to, MAIL)],
            Protocol::Lmtp => send_lmtp(address, ALICE, &to, MAIL),
        };
        for reply in replies {
            assert_eq!(reply.code, 250);
            assert!(reply.text().contains("not sent again"), "{reply:?}");
        }
        assert_eq!(counts(&outside, to), [1, 1], "{protocol:?}");
    }
}

#[test]
fn a_client_that_leaves_while_dots_are_held_leaves_nothing_behind() {
    let (go, slow) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gone, asked) = (Arc::clone(&go), Arc::clone(&slow));
    let outside = Sink::scripted(Protocol::Smtp, move |stage| {
        if matches!(stage, Stage::Rcpt(line) if line.contains("slow@")) {
            asked.store(1, Ordering::SeqCst);
            process::holds_within(process::PATIENCE, || gone.load(Ordering::SeqCst) == 1);
        }
        None
    });
    let gate = gate(&Sink::smtp(), &outside, |_| {});
    let (mut client, _) = Session::connect(gate.ready().inside_smtp.unwrap());
    client.command("EHLO client.example");
    client.command(&format!("MAIL FROM:<{ALICE}>"));
    client.command(&format!("RCPT TO:<{OK}>"));
    client.command("RCPT TO:<slow@a.example>");
    client.command("DATA");
    client.content(MAIL);
    await_that("the slow one to be asked", || slow.load(Ordering::SeqCst) == 1);
    drop(client);
    await_that("the abort in the log", || {
        gate.log_lines().iter().any(|line| line["aborted"] == true)
    });
    go.store(1, Ordering::SeqCst);
    assert_eq!(smtp(&gate, &["else@a.example"]).code, 250);
    assert_eq!(counts(&outside, [OK, "slow@a.example"]), [0, 0]);
}

/// Kills a relay after it has passed on two of four replies, and gives the sink after a second attempt for all four.
fn killed_between_replies(done_record: &str) -> [usize; 4] {
    let hold = Arc::new(AtomicUsize::new(1));
    let held = Arc::clone(&hold);
    let outside = Sink::scripted(Protocol::Smtp, move |stage| match stage {
        Stage::Dot(to) if to.contains("c@") || to.contains("d@") => {
            (held.load(Ordering::SeqCst) == 1).then(|| {
                thread::sleep(Duration::from_secs(2));
                String::new()
            })
        }
        _ => None,
    });
    let mut gate = gate(&Sink::smtp(), &outside, |gate| {
        gate.set(&["delivery", "done_record"], done_record);
    });
    let to = ["a@a.example", "b@a.example", "c@a.example", "d@a.example"];
    let (mut client, _) = Session::connect(gate.ready().inside_lmtp.unwrap());
    client.command("LHLO client.example");
    client.command(&format!("MAIL FROM:<{ALICE}>"));
    to.iter().for_each(|to| assert_eq!(client.command(&format!("RCPT TO:<{to}>")).code, 250));
    client.command("DATA");
    client.content(MAIL);
    assert_eq!([client.reply().code, client.reply().code], [250, 250]);
    gate.signal("KILL");
    assert_eq!(client.reply_or_end(), None);
    gate.stop();
    hold.store(0, Ordering::SeqCst);
    gate.start();
    let replies = send_lmtp(gate.ready().inside_lmtp.unwrap(), ALICE, &to, MAIL);
    assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
    counts(&outside, to)
}

#[test]
fn always_recording_makes_no_duplicates_of_a_crash() {
    assert_eq!(killed_between_replies("always"), [1, 1, 1, 1]);
    assert_eq!(killed_between_replies("partial"), [2, 2, 1, 1], "the window that remains");
}

#[test]
fn without_its_done_record_mail_flows_and_an_alarm_is_raised() {
    let script = Script::default();
    script.set("busy@", "450 4.2.1 busy");
    let (inside, outside) = (Sink::smtp(), refusing_at_rcpt(&script));
    let gate = gate(&inside, &outside, |_| {});
    drop_table(&gate);
    assert_eq!(smtp(&gate, &[OK]).code, 250);
    // Every further attempt would serve the others again: nobody is served yet.
    let reply = smtp(&gate, &[OK, BUSY]);
    assert_eq!(reply.code, 450, "{reply:?}");
    assert_eq!(counts(&outside, [OK, BUSY]), [1, 0]);
    script.clear();
    assert_eq!(smtp(&gate, &[OK, BUSY]).code, 250);
    assert_eq!(counts(&outside, [OK, BUSY]), [2, 1]);
    assert!(gate.log().contains("the done-record is away"), "{}", gate.log());
    let metrics = metrics(&gate);
    assert!(metrics.contains("sealgate_done_record_failures_total"), "{metrics}");
}

fn metrics(gate: &Gate) -> String {
    let mut stream = TcpStream::connect(gate.ready().observe.unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Takes the table of done-records out of a running relay's database.
fn drop_table(gate: &Gate) {
    use sqlx::Connection as _;
    let url = format!("sqlite:{}", gate.dir().join("sealgate.db").display());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("DROP TABLE done_records").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn a_next_hop_that_is_away_is_left_alone_and_probed() {
    let away = Arc::new(AtomicUsize::new(1));
    let state = Arc::clone(&away);
    let outside = Sink::scripted(Protocol::Smtp, move |stage| match stage {
        Stage::Connect if state.load(Ordering::SeqCst) == 1 => Some(String::new()),
        _ => None,
    });
    let gate = gate(&Sink::smtp(), &outside, |_| {});
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(smtp(&gate, &[OK]).status(), "451 4.4.1");
    }
    let pauses = begun.elapsed().as_secs() as usize;
    assert!(outside.connections() <= 3 + pauses, "{} connections", outside.connections());
    away.store(0, Ordering::SeqCst);
    await_that("mail flows again", || smtp(&gate, &[OK]).code == 250);
    assert_eq!(smtp(&gate, &[OK]).code, 250);
}

/// A server that notes how many transactions it had at once.
fn counting() -> (Sink, Arc<AtomicUsize>) {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let peak = Arc::clone(&most);
    let sink = Sink::scripted(Protocol::Smtp, move |stage| {
        match stage {
            Stage::Mail(_) => {
                let count = now.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(count, Ordering::SeqCst);
            }
            Stage::Dot(_) => {
                thread::sleep(Duration::from_millis(30));
                now.fetch_sub(1, Ordering::SeqCst);
            }
            _ => {}
        }
        None
    });
    (sink, most)
}

#[test]
fn connections_to_one_next_hop_are_bounded() {
    let (outside, most) = counting();
    let gate = gate(&Sink::smtp(), &outside, |gate| {
        gate.set(&["limits", "connections_per_next_hop_max"], 3);
    });
    // Many messages at once, by SMTP and LMTP, each with more copies than there may be connections.
    thread::scope(|scope| {
        for client in 0..6 {
            let gate = &gate;
            scope.spawn(move || {
                let to: Vec<String> = (0..10).map(|n| format!("c{client}n{n}@a.example")).collect();
                let to: Vec<&str> = to.iter().map(String::as_str).collect();
                if client % 2 == 0 {
                    assert_eq!(smtp(gate, &to).code, 250);
                } else {
                    let replies = send_lmtp(gate.ready().inside_lmtp.unwrap(), ALICE, &to, MAIL);
                    assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
                }
            });
        }
    });
    let received: Vec<Received> = outside.received();
    assert_eq!(received.len(), 60);
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert!(outside.connections() <= 4, "{} connections", outside.connections());
}

#[test]
fn a_silent_hop_keeps_the_others_waiting_for_half_the_time_only() {
    let outside = Sink::scripted(Protocol::Smtp, |stage| {
        if matches!(stage, Stage::Rcpt(line) if line.contains("slow@")) {
            thread::sleep(Duration::from_secs(6));
        }
        None
    });
    let gate = gate(&Sink::smtp(), &outside, |gate| {
        gate.set(&["limits", "delivery_secs_max"], 4);
    });
    let begun = Instant::now();
    let reply = thread::scope(|scope| {
        let sending = scope.spawn(|| smtp(&gate, &["slow@a.example", OK]));
        await_that("the other one has it", || counts(&outside, [OK]) == [1]);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        sending.join().unwrap()
    });
    // The slow one had all the time that was left.
    assert_eq!(reply.status(), "451 4.4.7", "{reply:?}");
    assert!(begun.elapsed() < Duration::from_secs(6));
    assert_eq!(counts(&outside, [OK, "slow@a.example"]), [1, 0]);
}

#[test]
fn a_dot_without_an_answer_keeps_nobody_waiting_for_long() {
    let script = |stage: &Stage| {
        if matches!(stage, Stage::Dot(line) if line.contains("mute@")) {
            thread::sleep(Duration::from_secs(9));
        }
        None
    };
    let outside = Sink::scripted(Protocol::Smtp, script);
    let gate = gate(&Sink::smtp(), &outside, |gate| {
        gate.set(&["limits", "answer_secs_max"], 7);
    });
    let reply = smtp(&gate, &["mute@a.example", OK]);
    assert_eq!(reply.status(), "451 4.4.2", "{reply:?}");
    assert_eq!(counts(&outside, [OK]), [1]);
    assert!(reply.text().contains("not delivered to <mute@a.example>"), "{reply:?}");
}

#[test]
fn coming_in_a_recipient_who_is_refused_before_the_dot_holds_back_everything_once() {
    let script = Script::default();
    script.set("no@", "550 5.1.1 no");
    script.set("busy@", "450 4.2.1 busy");
    let (inside, outside) = (refusing_at_rcpt(&script), Sink::smtp());
    // The mail server may say no later than when it was asked at RCPT.
    let gate = gate(&inside, &outside, |gate| {
        gate.set(&["inside", "check_recipients"], false);
    });
    let send =
        |to: &[&str]| send_smtp(gate.ready().outside_smtp.unwrap(), "bob@a.example", to, MAIL);
    let to = ["a@nec.example", "no@nec.example"];
    let reply = send(&to);
    assert_eq!(reply.status(), "550 5.1.1", "{reply:?}");
    assert!(reply.text().contains("because of <no@nec.example>"), "{reply:?}");
    assert_eq!(counts(&inside, to), [0, 0]);
    // Who is there already is no reason to wait any more.
    script.clear();
    script.set("busy@", "450 4.2.1 busy");
    let to = ["b@nec.example", "busy@nec.example", "c@nec.example"];
    assert_eq!(send(&to).code, 450);
    script.set("busy@", "550 5.2.1 gone");
    assert_eq!(send(&to).code, 550);
    assert_eq!(counts(&inside, to), [1, 0, 1]);
}

#[test]
fn no_answer_is_waited_for_longer_than_the_client_waits() {
    let outside = Sink::scripted(Protocol::Smtp, |stage| {
        if matches!(stage, Stage::Dot(_)) {
            thread::sleep(Duration::from_secs(5));
        }
        None
    });
    let gate = gate(&Sink::smtp(), &outside, |gate| {
        gate.set(&["limits", "answer_secs_max"], 1);
    });
    let begun = Instant::now();
    let reply = smtp(&gate, &[OK]);
    assert_eq!(reply.status(), "451 4.4.2", "{reply:?}");
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_pause_between_lmtp_replies_holds_up_no_delivery() {
    let paused = Arc::new(AtomicUsize::new(0));
    let has_paused = Arc::clone(&paused);
    // Its other recipient is answered for, and the pause has begun, before this server goes on.
    let outside = Sink::scripted(Protocol::Smtp, move |stage| {
        if matches!(stage, Stage::Rcpt(line) if line.contains("slow@")) {
            process::holds_within(process::PATIENCE, || has_paused.load(Ordering::SeqCst) == 1);
        }
        None
    });
    let gate = gate(&Sink::smtp(), &outside, |gate| {
        gate.set(&["inside", "reply_pause_ms"], 5_000);
    });
    let (mut client, _) = Session::connect(gate.ready().inside_lmtp.unwrap());
    client.command("LHLO client.example");
    client.command(&format!("MAIL FROM:<{ALICE}>"));
    for to in [OK, "slow@a.example"] {
        assert_eq!(client.command(&format!("RCPT TO:<{to}>")).code, 250);
    }
    client.command("DATA");
    client.content(MAIL);
    assert_eq!(client.reply().code, 250);
    paused.store(1, Ordering::SeqCst);
    outside.await_received(2);
    let delivered = Instant::now();
    assert_eq!(client.reply().code, 250);
    // Delivered in the pause and not after it.
    assert!(delivered.elapsed() >= Duration::from_secs(2), "{:?}", delivered.elapsed());
}

#[test]
fn lmtp_replies_come_apart_where_the_client_needs_it() {
    let gate = gate(&Sink::smtp(), &Sink::smtp(), |gate| {
        gate.set(&["inside", "reply_pause_ms"], 300);
    });
    let to = ["a@a.example", "b@a.example", "c@a.example"];
    let (mut client, _) = Session::connect(gate.ready().inside_lmtp.unwrap());
    client.command("LHLO client.example");
    client.command(&format!("MAIL FROM:<{ALICE}>"));
    to.iter().for_each(|to| assert_eq!(client.command(&format!("RCPT TO:<{to}>")).code, 250));
    client.command("DATA");
    client.content(MAIL);
    let times = to.map(|_| {
        assert_eq!(client.reply().code, 250);
        Instant::now()
    });
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(200), "{times:?}");
    }
    assert!(process::holds_within(Duration::from_secs(1), || client.command("NOOP").code == 250));
}

/// Invariant 11: what is known when a transaction breaks off is not the whole truth, so it is nobody's for good.
#[test]
fn a_panic_bounces_nobody_and_the_next_attempt_ends_what_was_begun() {
    let script = Script::default();
    script.set("gone@", "550 5.1.1 for good");
    let (inside, outside) = (Sink::smtp(), refusing(false, &script));
    let mut gate = gate(&inside, &outside, |_| {});
    gate.stop();
    let point = ("SEALGATE_FAILPOINTS".to_owned(), "transaction.settle=panic@1".into());
    gate.set_environment(vec![point]);
    gate.start();
    let reply = smtp(&gate, &[GONE, OK]);
    assert_eq!(reply.status(), "451 4.3.0", "{reply:?}");
    assert_eq!(log_of(&gate, &reply)["repair"], "done-record");
    assert!(
        inside.received().is_empty(),
        "nobody is told of a refusal that may not be the last word"
    );
    assert_eq!(smtp(&gate, &[GONE, OK]).code, 250);
    assert_eq!(counts(&outside, [OK, GONE]), [1, 0]);
    assert_eq!(inside.received().len(), 1, "the notification about him who is gone");
}
