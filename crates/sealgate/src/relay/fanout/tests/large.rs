//! Contents and servers that take their time.

use super::*;

/// A server that reads one content, and no other one before the dot of that; and whether another one came while it had begun to
/// read the first.
fn server_on_a_narrow_line() -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (begun, dots) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let together = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&together);
    let serve = move |stream: TcpStream| {
        let mut out = stream.try_clone().unwrap();
        let mut say = |text: &str| out.write_all(text.as_bytes()).is_ok();
        say("220 sink.example\r\n");
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        let mut in_content = false;
        while reader.read_until(b'\n', &mut line).is_ok_and(|octets| octets > 0) {
            match line.as_slice() {
                b".\r\n" => {
                    dots.fetch_add(1, Ordering::AcqRel);
                    in_content = false;
                    say("250 taken\r\n");
                }
                _ if in_content => {}
                b"DATA\r\n" => {
                    in_content = true;
                    say("354 go\r\n");
                    let comes = reader.fill_buf().is_ok_and(|octets| !octets.is_empty());
                    let is_first = comes && begun.fetch_add(1, Ordering::AcqRel) == 0;
                    let heard = Instant::now();
                    let is_held = || match is_first {
                        // It does not fit into the buffers: nobody is through with it before it is read.
                        true => heard.elapsed() < Duration::from_millis(300),
                        false => comes && dots.load(Ordering::Acquire) == 0,
                    };
                    while is_held() {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    if is_first {
                        seen.store(begun.load(Ordering::Acquire) > 1, Ordering::Release);
                    }
                }
                _ => {
                    say("250 yes\r\n");
                }
            }
            line.clear();
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    (address, together)
}

/// All at once they would pass the limit together, at each attempt again.
#[tokio::test(flavor = "multi_thread")]
async fn large_contents_are_finished_one_after_another_where_the_others_can_wait() {
    // More than fits into the buffers on the way.
    let line = [&[b'x'; 998][..], b"\r\n"].concat();
    let content: &[u8] = line.repeat(20_000).leak();
    for (upstream, remembers, expected) in [
        (Protocol::Smtp, true, 250),
        (Protocol::Lmtp, true, 250),
        // Nobody is served where one would be served again and again.
        (Protocol::Smtp, false, 451),
    ] {
        let what = (Direction::Outbound, Delivered::Sealed, remembers);
        let (server, together) = server_on_a_narrow_line();
        let (outcomes, _) = deliver_as(what, server, upstream, content).await;
        assert_eq!(code(&outcomes), (expected, false), "{upstream:?} {remembers} {outcomes:?}");
        assert_eq!(together.load(Ordering::Acquire), !remembers, "{upstream:?} {remembers}");
    }
}

/// Its patience may end, and nobody else has its connection meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_for_content_does_not_wait_for_a_slow_one_for_long() {
    for (remembers, expected, taken) in [(true, 250, 2), (false, 451, 0)] {
        let is_taken = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_taken);
        let sink = Sink::scripted(SinkProtocol::Smtp, move |stage| {
            match stage {
                Stage::Rcpt(line) if line.contains("b@") => {
                    let heard = Instant::now();
                    while !seen.load(Ordering::Acquire) && heard.elapsed() < Duration::from_secs(20)
                    {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
                Stage::Dot(_) => seen.store(true, Ordering::Release),
                _ => {}
            }
            None
        });
        let begun = Instant::now();
        let what = (Direction::Outbound, Delivered::Sealed, remembers);
        let (outcomes, _) = deliver_as(what, sink.address, Protocol::Smtp, CONTENT).await;
        assert_eq!(code(&outcomes), (expected, false), "{outcomes:?}");
        assert_eq!(sink.received().len(), taken);
        // Of its 20 s all would be waited for half.
        assert_eq!(begun.elapsed() < Duration::from_secs(10), remembers, "{:?}", begun.elapsed());
    }
}

/// At the next attempt it would be as slow again, and nobody remembers what was refused.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_not_waited_for_has_the_time_that_is_left() {
    let is_refused = AtomicBool::new(false);
    let sink = Sink::scripted(SinkProtocol::Smtp, move |stage| match stage {
        // Of its 20 s, two and a half are waited.
        Stage::Rcpt(line) if line.contains("b@") => {
            std::thread::sleep(Duration::from_secs(4));
            None
        }
        Stage::Dot(_) if !is_refused.swap(true, Ordering::AcqRel) => {
            Some("550 5.7.1 a filter says so\r\n".to_owned())
        }
        _ => None,
    });
    let (outcomes, _) = deliver(&sink, Protocol::Smtp, CONTENT).await;
    assert_eq!(code(&outcomes), (550, true), "{outcomes:?}");
    assert_eq!(sink.received().len(), 1);
}
