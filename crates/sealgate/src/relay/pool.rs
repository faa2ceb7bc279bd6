//! Idle downstream connections, kept for the next message.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::link::Link;
use super::route::Hop;

/// The connections, by the hop they lead to.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<Hop, Vec<(Instant, Link)>>>,
}

impl Pool {
    /// A connection that still looks alive; the one used last, so that surplus ones grow old.
    pub(crate) fn take(&self, hop: &Hop) -> Option<Link> {
        failpoint!(blocking "pool.take");
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let links = idle.get_mut(hop)?;
        let mut alive = None;
        while alive.is_none()
            && let Some((since, mut link)) = links.pop()
        {
            if is_fresh(since, &link) && link.is_alive() {
                alive = Some(link);
            }
        }
        if links.is_empty() {
            idle.remove(hop);
        }
        alive
    }

    /// Keeps a connection for the next message.
    pub(crate) fn keep(&self, hop: &Hop, link: Link) {
        failpoint!(blocking "pool.keep");
        let now = Instant::now();
        if !is_fresh(now, &link) {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !idle.contains_key(hop) && idle.len() >= HOPS_MAX {
            idle.retain(|_, links| links.iter().any(|(since, link)| is_fresh(*since, link)));
            if idle.len() >= HOPS_MAX {
                return;
            }
        }
        let links = match idle.get_mut(hop) {
            Some(links) => links,
            None => idle.entry(hop.clone()).or_default(),
        };
        if links.len() < LINKS_MAX {
            links.push((now, link));
        }
        if hop.introduction.is_some() {
            close_surplus(&mut idle, hop);
        }
    }

    /// Closes the connections to one hop: nobody will ask for them again.
    pub(crate) fn forget(&self, hop: &Hop) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(hop);
    }

    /// Closes what has been idle too long; to be called now and then.
    pub(crate) fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for links in idle.values_mut() {
            links.retain(|(since, link)| is_fresh(*since, link));
        }
        idle.retain(|_, links| !links.is_empty());
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Whether a connection may be used again that has been idle since then.
fn is_fresh(since: Instant, link: &Link) -> bool {
    let age_max = if link.fell_back { AGE_IN_PLAIN_MAX } else { AGE_MAX };
    since.elapsed() < IDLE_MAX && link.opened.elapsed() < age_max
}

/// A client that says another name each time has a connection for each; all of them together are few, and the oldest goes.
fn close_surplus(idle: &mut HashMap<Hop, Vec<(Instant, Link)>>, server: &Hop) {
    let introduced = || {
        let of_server = |hop: &Hop| hop.introduction.is_some() && hop.is_same_server(server);
        idle.iter().filter(move |(hop, _)| of_server(hop))
    };
    if introduced().map(|(_, links)| links.len()).sum::<usize>() <= INTRODUCED_MAX {
        return;
    }
    // The first of each is its oldest.
    let oldest = introduced().filter_map(|(hop, links)| Some((links.first()?.0, hop)));
    let Some((_, oldest)) = oldest.min_by_key(|(since, _)| *since) else { return };
    let oldest = oldest.clone();
    if let Some(links) = idle.get_mut(&oldest) {
        // Not empty: it has a first.
        links.remove(0);
        if links.is_empty() {
            idle.remove(&oldest);
        }
    }
}

/// Well below the 300 s that servers wait for a command (RFC 5321 §4.5.3.2.7).
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A busy hop's connections are never idle for long. What its domain publishes (TLSA, MTA-STS), its addresses and its TLS are
/// looked at when one is opened: what changed counts after this time.
const AGE_MAX: Duration = Duration::from_secs(300);
/// In plain, after TLS failed: the next one may have it. Who waits for a handshake that hangs does so once in this time.
const AGE_IN_PLAIN_MAX: Duration = Duration::from_secs(60);
/// Idle connections to one hop.
const LINKS_MAX: usize = 64;
/// Idle connections to one server, each opened for somebody who was introduced to it. They come on top of those in use, because
/// nobody else can have them.
const INTRODUCED_MAX: usize = 32;
/// Hops with idle connections.
const HOPS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use sealgate_testkit::sink::Sink;

    use super::super::connect::tests::{answering, downstream, hop};
    use super::super::introduction::Introduction;
    use super::super::transport::Demand;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_that_was_opened_for_one_client_is_used_for_no_other() {
        let sink = Sink::smtp();
        let nobodys = hop(sink.address, Demand::default());
        let introducing = |client: &str| {
            let (client, server) = (client.parse().unwrap(), "192.0.2.25:25".parse().unwrap());
            Hop { introduction: Some(Introduction::Proxy { client, server }), ..nobodys.clone() }
        };
        let ones = introducing("192.0.2.1:4025");
        let link = downstream(1).connect(&nobodys).await.unwrap();
        let pool = Pool::default();
        pool.keep(&ones, link);
        assert!(pool.take(&introducing("192.0.2.2:4025")).is_none(), "another client's");
        assert!(pool.take(&nobodys).is_none(), "nobody's");
        assert!(pool.take(&ones).is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_gives_one_name_after_another_keeps_few_connections() {
        let sink = Sink::smtp();
        let server = hop(sink.address, Demand::default());
        let (downstream, pool) = (downstream(1), Pool::default());
        let called = |number: usize| {
            let client = format!("192.0.2.1:{}", number + 1);
            let (client, server_address) =
                (client.parse().unwrap(), "192.0.2.25:25".parse().unwrap());
            let introduction = Introduction::Proxy { client, server: server_address };
            Hop { introduction: Some(introduction), ..server.clone() }
        };
        pool.keep(&server, downstream.connect(&server).await.unwrap());
        for number in 0..=INTRODUCED_MAX {
            pool.keep(&called(number), downstream.connect(&server).await.unwrap());
        }
        assert!(pool.take(&called(0)).is_none(), "the oldest");
        // In use, they are in nobody's way.
        let in_use: Vec<_> = (1..=2).map(|number| pool.take(&called(number)).unwrap()).collect();
        for number in INTRODUCED_MAX + 1..INTRODUCED_MAX + 5 {
            pool.keep(&called(number), downstream.connect(&server).await.unwrap());
        }
        for (number, link) in (1..).zip(in_use) {
            pool.keep(&called(number), link);
        }
        let kept: Vec<_> = (0..INTRODUCED_MAX + 5)
            .filter(|number| pool.take(&called(*number)).is_some())
            .collect();
        assert_eq!(kept.len(), INTRODUCED_MAX, "{kept:?}");
        assert_eq!(kept[..3], [1, 2, 7], "the oldest went");
        assert!(pool.take(&server).is_some(), "it belongs to everybody");
    }

    #[tokio::test]
    async fn a_connection_grows_old_however_much_it_is_used() {
        let sink = Sink::smtp();
        let hop = hop(sink.address, Demand::default());
        let link = downstream(1).connect(&hop).await.unwrap();
        let pool = Pool::default();
        tokio::time::pause();
        pool.keep(&hop, link);
        let (step, mut age) = (IDLE_MAX * 2 / 3, Duration::ZERO);
        while age < AGE_MAX {
            tokio::time::advance(step).await;
            age += step;
            let link = pool.take(&hop);
            assert_eq!(link.is_some(), age < AGE_MAX, "{age:?}");
            link.into_iter().for_each(|link| pool.keep(&hop, link));
        }
    }

    /// The next one may have TLS again; and not each question is to wait for a handshake that hangs.
    #[tokio::test]
    async fn a_connection_whose_tls_failed_is_kept_for_a_short_time() {
        for (starttls, fell_back) in
            [("454 4.7.0 not now\r\n", true), ("220 go on\r\nno TLS at all\r\n", true), ("", false)]
        {
            let address = answering(move |line| match line {
                "STARTTLS" => starttls.to_owned(),
                _ if starttls.is_empty() => "250 mx.abc.example\r\n".to_owned(),
                _ => "250-mx.abc.example\r\n250 STARTTLS\r\n".to_owned(),
            });
            let hop = hop(address, Demand::default());
            let pool = Pool::default();
            let link = downstream(1).connect(&hop).await.unwrap();
            tokio::time::pause();
            pool.keep(&hop, link);
            for age_secs in [20, 40, 60, 80] {
                tokio::time::advance(Duration::from_secs(20)).await;
                let link = pool.take(&hop);
                assert_eq!(link.is_some(), !fell_back || age_secs < 60, "{starttls:?} {age_secs}");
                link.into_iter().for_each(|link| pool.keep(&hop, link));
            }
            tokio::time::resume();
        }
    }
}
