//! Clients that take their time, in virtual time: how long they are waited for (REQUIREMENTS K9).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use super::gate::Gate;
use super::pipe::{self, End};
use crate::config::Limits;
use crate::relay::Relay;
use crate::relay::listener::{self, Entrance};
use crate::relay::session::Session;
use crate::relay::stream::Stream;

/// Runs this against a relay with these limits.
fn play<F: Future>(change: impl FnOnce(&mut Limits), scene: impl FnOnce(Arc<Relay>) -> F) {
    let gate = Gate::new();
    let relay = gate.relay_with(change);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(scene(relay));
}

/// A new session, and the end of it of the client with this number.
fn accepted(relay: &Arc<Relay>, client: u8) -> (Session, End) {
    let (ours, theirs) = pipe::pair((1 << 16, 1 << 16));
    let [local, peer] = [25, 4000].map(|port| SocketAddr::from(([127, 0, 0, client], port)));
    let connection = (Stream::Memory(theirs), local, peer);
    (listener::session(relay, Entrance::OutsideSmtp, connection), ours)
}

/// The client's end of a new session that has greeted.
async fn connect(relay: &Arc<Relay>) -> End {
    connect_as(1, relay).await
}

async fn connect_as(client: u8, relay: &Arc<Relay>) -> End {
    let (session, mut client) = accepted(relay, client);
    tokio::spawn(session.run());
    assert!(hear(&mut client).await.starts_with("220 "));
    client
}

/// What the relay says next.
async fn hear(client: &mut End) -> String {
    let mut octets = [0; 1024];
    let count = client.read(&mut octets).await.unwrap();
    String::from_utf8(octets[..count].to_vec()).unwrap()
}

/// Sends this again and again, until the relay says something; `None`: it bears with that for longer than `bears`.
async fn drip(
    client: &mut End,
    octets: &[u8],
    every: Duration,
    bears: Duration,
) -> Option<(String, Duration)> {
    let began = Instant::now();
    while began.elapsed() < bears {
        tokio::select! {
            heard = hear(client) => return Some((heard, began.elapsed())),
            () = sleep(every) => client.write_all(octets).await.unwrap(),
        }
    }
    None
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_client_that_is_silent_is_waited_for_as_long_as_is_said_and_no_longer() {
    play(
        |_| {},
        |relay| async move {
            let mut client = connect(&relay).await;
            for _ in 0..3 {
                sleep(299 * SECOND).await;
                client.write_all(b"NOOP\r\n").await.unwrap();
                assert!(hear(&mut client).await.starts_with("250 "));
            }
            let silent = Instant::now();
            assert!(hear(&mut client).await.starts_with("421 4.4.2 "));
            assert!((300 * SECOND..301 * SECOND).contains(&silent.elapsed()));
        },
    );
}

#[test]
fn a_command_that_does_not_end_is_waited_for_no_longer_than_silence() {
    play(
        |_| {},
        |relay| async move {
            for begin in [&b"NOOP"[..], &[b'x'; 5000]] {
                let mut client = connect(&relay).await;
                client.write_all(begin).await.unwrap();
                let (heard, after) =
                    drip(&mut client, b"x", 299 * SECOND, 3000 * SECOND).await.expect("an end");
                assert!(heard.starts_with("421 4.4.2 "), "{heard}");
                assert!((300 * SECOND..301 * SECOND).contains(&after), "{after:?}");
            }
            // Each of these commands ends; the next has always begun.
            let mut client = connect(&relay).await;
            client.write_all(b"NO").await.unwrap();
            for _ in 0..5 {
                sleep(200 * SECOND).await;
                client.write_all(b"OP\r\nNO").await.unwrap();
                assert!(hear(&mut client).await.starts_with("250 "));
            }
        },
    );
}

#[test]
fn a_chunk_outside_a_transaction_comes_no_slower_than_another() {
    play(
        |_| {},
        |relay| async move {
            let mut client = connect(&relay).await;
            client.write_all(b"EHLO c\r\nBDAT 1000000\r\n").await.unwrap();
            assert!(hear(&mut client).await.starts_with("250-"));
            let (heard, after) =
                drip(&mut client, b"x", 10 * SECOND, 3000 * SECOND).await.expect("an end");
            assert!(heard.starts_with("421 4.4.2 "), "{heard}");
            assert!((60 * SECOND..61 * SECOND).contains(&after), "{after:?}");
        },
    );
}

#[test]
fn content_may_come_at_the_least_rate_and_not_below_it() {
    play(
        |limits| {
            limits.data_grace_secs = 3;
            limits.data_bytes_per_sec_min = 1024;
        },
        |relay| async move {
            for (rate, is_borne) in [(1025, true), (1023, false)] {
                let mut client = connect(&relay).await;
                let chunk = b"EHLO c\r\nBDAT 50000000\r\n";
                client.write_all(chunk).await.unwrap();
                assert!(hear(&mut client).await.starts_with("250-"));
                let octets = vec![b'x'; rate];
                // A second is lost for every 1024.
                let end = drip(&mut client, &octets, SECOND, 4096 * SECOND).await;
                match end {
                    None => assert!(is_borne),
                    Some((heard, after)) => {
                        assert!(!is_borne && heard.starts_with("421 4.4.2 "), "{after:?} {heard}");
                        assert!(after > 1000 * SECOND && after < 3100 * SECOND, "{after:?}");
                    }
                }
            }
        },
    );
}

/// Else who has sent all but the end of a large message holds its memory for hours, with an octet now and then.
#[test]
fn content_that_came_fast_earns_no_more_time_than_silence_has() {
    play(
        |_| {},
        |relay| async move {
            let mut client = connect(&relay).await;
            client.write_all(b"EHLO c\r\nBDAT 50000000\r\n").await.unwrap();
            assert!(hear(&mut client).await.starts_with("250-"));
            client.write_all(&[b'x'; 10_000_000]).await.unwrap();
            let (heard, after) =
                drip(&mut client, b"x", 299 * SECOND, 15_000 * SECOND).await.expect("an end");
            assert!(heard.starts_with("421 4.4.2 "), "{heard}");
            assert!((300 * SECOND..301 * SECOND).contains(&after), "{after:?}");
            // Who stops for as long as RFC 5321 §4.5.3.2 lets him, and is fast enough on average, is waited for.
            let mut client = connect(&relay).await;
            client.write_all(b"EHLO c\r\nBDAT 50000000\r\n").await.unwrap();
            assert!(hear(&mut client).await.starts_with("250-"));
            let burst = vec![b'x'; 300 * 1024];
            client.write_all(&burst).await.unwrap();
            let end = drip(&mut client, &burst, 299 * SECOND, 15_000 * SECOND).await;
            assert_eq!(end, None);
        },
    );
}

/// Else a few networks that each send a large message at the least rate keep out everybody else's mail for hours.
#[test]
fn a_large_message_must_come_faster_while_memory_is_scarce() {
    play(
        |limits| {
            limits.message_bytes_max = 10_000_000;
            limits.memory_bytes_max = 120_000_000;
        },
        |relay| async move {
            let lines = |count| b"0123456789abcd\r\n".repeat(count);
            let begin = async |number| {
                let mut client = connect_as(number, &relay).await;
                for command in ["EHLO c", "MAIL FROM:<>", "RCPT TO:<r0@nec.example>", "DATA"] {
                    client.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
                    assert!(hear(&mut client).await.starts_with(['2', '3']), "{command}");
                }
                client.write_all(&lines(7_000_000 / 16)).await.unwrap();
                client
            };
            // In a second: the least that is borne, and three times that.
            let (little, more) = (lines(69), lines(3 * 69));
            let mut one = begin(1).await;
            assert_eq!(drip(&mut one, &little, SECOND, 600 * SECOND).await, None);
            let mut other = begin(2).await;
            let both = tokio::join!(
                drip(&mut one, &little, SECOND, 800 * SECOND),
                drip(&mut other, &more, SECOND, 800 * SECOND),
            );
            let (Some((heard, after)), None) = both else { panic!("{both:?}") };
            assert!(heard.starts_with("421 4.4.2 "), "{heard}");
            assert!((300 * SECOND..400 * SECOND).contains(&after), "{after:?}");
        },
    );
}

/// What it sends after its last reply is heard for as long as it comes like content, and no longer.
#[test]
fn a_client_that_was_refused_is_heard_until_it_is_silent_or_slow() {
    play(
        |_| {},
        |relay| async move {
            for (octets, is_heard) in [(&b"x"[..], false), (&[b'x'; 2048], true)] {
                let mut client = connect(&relay).await;
                let began = Instant::now();
                client.write_all(&b"WHAT\r\n".repeat(30)).await.unwrap();
                while !hear(&mut client).await.contains("421 4.7.0 ") {}
                while began.elapsed() < 600 * SECOND && client.write_all(octets).await.is_ok() {
                    sleep(SECOND).await;
                }
                let heard = began.elapsed();
                assert_eq!(heard >= 600 * SECOND, is_heard, "{heard:?}");
                assert!(is_heard || heard < 10 * SECOND, "{heard:?}");
            }
        },
    );
}

/// Ten thousand may be silent at once, and a transaction takes more than that.
#[test]
fn a_client_that_is_silent_takes_no_room_for_a_transaction() {
    play(
        |_| {},
        |relay| async move {
            let (session, _client) = accepted(&relay, 1);
            let bytes = size_of_val(&session.run());
            assert!(bytes <= 10 * 1024, "{bytes} bytes");
        },
    );
}
