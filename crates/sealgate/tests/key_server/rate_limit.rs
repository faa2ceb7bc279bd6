//! Mail to a key that is used more often than the key server allows: it waits, and none of it is refused for good.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use sealgate_testkit::session::send_smtp;
use sealgate_testkit::sink::Sink;

use super::*;

#[test]
fn a_sealed_mail_whose_key_is_used_too_often_waits_and_is_never_refused_for_good() {
    let (key_host, server) = start("p256", &["*"], USES);
    configure(&key_host, vec![relay(own_uid(&key_host), &["*"], USES)], |table| {
        table.insert("uses_per_minute".to_owned(), USES_PER_MINUTE.into());
    });
    server.reload();
    let abc = Gate::init(BINARY, &["abc.example"]);
    let sealed = sealed(&key_host, &abc);
    let sink = Sink::smtp();
    let mut gate = Gate::init(BINARY, &["nec.example"]);
    gate.must(&["anchor", "import", abc.authority().to_str().unwrap()], b"");
    gate.configure(|config| {
        let socket = format!("unix:{}", far_away(server.socket.as_ref().unwrap()).display());
        set(config, &["secret_keys", "store"], "kmip");
        set(config, &["secret_keys", "kmip", "servers"], vec![socket]);
        set(config, &["secret_keys", "kmip", "get"], "never");
        set(config, &["inside", "mail_server"], format!("smtp://{}", sink.address));
    });
    gate.start();
    let outside = gate.ready().outside_smtp.unwrap();
    let send = || send_smtp(outside, CAROL, &[ALICE], &sealed);
    assert_eq!(send().code, 250, "{}", gate.log());

    // The same user, so that its uses count as the relay's.
    let mut kmip = connect(&server);
    let id = kmip.key_for(ALICE, usage::DECRYPT);
    let algorithm = Some(CryptographicAlgorithm::Ecdh);
    let ecdh = Parameters { algorithm, ..Parameters::default() };
    let is_used_up =
        |kmip: &mut Kmip| reason(kmip.decrypt(&id, ecdh, b"x")) == ResultReason::GeneralFailure;
    assert!((0..=10 * USES_PER_MINUTE).any(|_| is_used_up(&mut kmip)));

    let replies = Mutex::new(Vec::new());
    // What is neither ends it at once.
    let goes_on = || {
        let replies = replies.lock().unwrap();
        let count = |code| replies.iter().filter(|(of, _): &&(u16, _)| *of == code).count();
        count(250) < THROUGH && count(250) + count(451) == replies.len() && replies.len() < 1000
    };
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                while goes_on() {
                    let reply = send();
                    replies.lock().unwrap().push((reply.code, reply.status()));
                }
            });
        }
    });
    let replies = replies.into_inner().unwrap();
    let waits = replies.iter().filter(|(code, _)| *code == 451).count();
    let is_right = |(code, status): &(u16, String)| *code == 250 || status == "451 4.7.5";
    let wrong: Vec<_> = replies.iter().filter(|reply| !is_right(reply)).collect();
    assert!(wrong.is_empty(), "{wrong:?} of {}\n{}", replies.len(), gate.log());
    assert!(waits > 0 && waits + THROUGH <= replies.len(), "{waits} of {}", replies.len());
    assert_eq!(sink.received().len(), replies.len() - waits + 1);
    println!("{} through, {waits} put off", replies.len() - waits);
}

/// What abc.example sealed for Alice.
fn sealed(key_host: &Gate, abc: &Gate) -> Vec<u8> {
    abc.generate_key(CAROL, "p256");
    abc.trust(key_host, &[ALICE]);
    let mail = format!(
        "From: {CAROL}\r\nTo: {ALICE}\r\nSubject: many\r\n\
         Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@abc.example>\r\n\r\n\
         The word is petunia.\r\n"
    );
    abc.must(&["seal", "--from", CAROL, "--to", ALICE], mail.as_bytes())
}

/// A key server that is far away: a socket whose requests take their time to reach this one.
fn far_away(socket: &Path) -> PathBuf {
    let far = socket.with_extension("far");
    let listener = UnixListener::bind(&far).unwrap();
    let near = socket.to_owned();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = UnixStream::connect(&near).unwrap();
            let [answers, questions] = [&server, &client].map(|end| end.try_clone().unwrap());
            thread::spawn(move || pass_on(answers, client, Duration::ZERO));
            thread::spawn(move || pass_on(questions, server, ON_THE_WAY));
        }
    });
    far
}

fn pass_on(mut from: UnixStream, mut to: UnixStream, after: Duration) {
    let mut bytes = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        thread::sleep(after);
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    // Neither end is to wait for more.
    let _ = to.shutdown(std::net::Shutdown::Both);
}

const CAROL: &str = "carol@abc.example";
/// How long a request takes there.
const ON_THE_WAY: Duration = Duration::from_millis(100);
/// So many uses a minute that one comes free several times a second, between any two questions of a relay that asks for one.
const USES_PER_MINUTE: i64 = 240;
const SENDERS: usize = 4;
/// Mails that come through with uses that came free.
const THROUGH: usize = 12;
