//! What next hops said, as the one upstream hears it.

use sealgate_core::refusal::{Refusal, Reply};

use super::super::link::Link;
use super::super::route::Hop;

pub(in super::super) fn is_permanent(refusal: &Refusal) -> bool {
    Reply::from(refusal).is_permanent()
}

/// What a server said, for the one upstream: the same class, the enhanced status kept, and who said it (O3), as far as that is
/// anybody's affair.
pub(in super::super) fn passed_on(hop: &Hop, reply: &Reply) -> Refusal {
    let class = if reply.is_permanent() { 5 } else { 4 };
    let code = match reply.code {
        450..=455 | 550 | 552..=554 | 556 => reply.code,
        _ if class == 5 => 554,
        _ => 451,
    };
    let enhanced = reply.enhanced.filter(|(first, _, _)| *first == class).unwrap_or((class, 0, 0));
    let text = format!("{} said: {} {}", hop.public_name(), reply.code, reply.text());
    Refusal::NextHop(Reply::new(code, enhanced, text))
}

/// What a server said before it heard of any mail. 5xx says no more than that it will not talk to us now: it may be set up wrongly,
/// or have our address on a list, and mail waits. Only 521 says that it takes none at all (RFC 7504 §3); and once a client was
/// introduced, it is that client who is refused.
pub(in super::super) fn turned_away(hop: &Hop, reply: &Reply, is_introduced: bool) -> Refusal {
    match passed_on(hop, reply) {
        Refusal::NextHop(said) if said.is_permanent() && reply.code != 521 && !is_introduced => {
            for_now(&said)
        }
        refusal => refusal,
    }
}

/// Where something was refused before the content.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Over {
    /// In plain, after TLS failed.
    fell_back: bool,
    /// By a server that had taken the sender.
    is_sender_taken: bool,
}

impl Over {
    pub(in super::super) fn of(link: &Link) -> Self {
        Self { fell_back: link.fell_back, is_sender_taken: link.client.is_sender_taken() }
    }
}

/// What a server said before the content, over a connection that may be one in plain after TLS failed. Who insists on TLS refuses
/// everything in plain (530, RFC 3207 §4; or 550 or 503 with words of his own), and the next attempt may find TLS in order: it
/// holds for now. What is said of an address, a mailbox or a size holds in plain as well: nobody should wait days for that. Nor
/// for what else is said by one who took the sender in plain: of him only what has the code for it, or names it.
pub(in super::super) fn said_over(over: Over, hop: &Hop, reply: &Reply) -> Refusal {
    let refusal = passed_on(hop, reply);
    if is_about_tls(over, reply) { lacking_over(over, refusal) } else { refusal }
}

fn is_about_tls(over: Over, reply: &Reply) -> bool {
    match reply.enhanced {
        Some((_, 7, _)) => true,
        // What is repeated of an address may name it as well.
        Some((_, 1 | 2, _) | (_, 3, 4)) => false,
        // 538: RFC 4954 §6.
        _ if over.is_sender_taken => matches!(reply.code, 503 | 530 | 538) || names_tls(reply),
        _ => true,
    }
}

/// As in "550 TLS required", which Exim says at RCPT where it is told to `deny !encrypted = *`.
fn names_tls(reply: &Reply) -> bool {
    let text = reply.text().to_ascii_lowercase();
    // Whole words: an address that is repeated may have the letters in it.
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| {
        let begins = ["tlsv", "sslv", "encrypt", "unencrypt"];
        matches!(word, "tls" | "ssl" | "starttls") || begins.iter().any(|one| word.starts_with(one))
    })
}

/// What a server does not offer, it may within TLS.
pub(in super::super) fn lacking_over(over: Over, refusal: Refusal) -> Refusal {
    let said = Reply::from(&refusal);
    let is_size = matches!(said.enhanced, Some((_, 3, 4)));
    if over.fell_back && said.is_permanent() && !is_size { for_now(&said) } else { refusal }
}

/// The same words, and the message waits.
fn for_now(said: &Reply) -> Refusal {
    let (_, subject, detail) = said.enhanced.unwrap_or((5, 0, 0));
    Refusal::NextHop(Reply::new(451, (4, subject, detail), said.text()))
}

/// The class of an answer and nothing of its text, which a filter may have written about the decrypted content.
pub(super) fn without_text(reply: &Reply) -> Refusal {
    if reply.is_permanent() {
        Refusal::NextHopRefusedOpened
    } else {
        Refusal::NextHop(Reply::new(451, (4, 7, 1), "message refused for now, try again later"))
    }
}

/// What the one upstream hears of a 2xx.
pub(super) fn delivered(reply: &Reply) -> Reply {
    let said: String = reply.text().chars().take(TEXT_CHARS_MAX).collect();
    Reply::new(250, (2, 0, 0), format!("delivered, next hop said: {said}"))
}

/// ARCHITECTURE: the upstream's patience is used up.
pub(in super::super) fn too_late() -> Refusal {
    Refusal::NextHop(Reply::new(451, (4, 4, 7), "delivery took too long, try again later"))
}

/// What is passed on of the next hop's words.
const TEXT_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_tls_waits_for_tls() {
        let over = Over { fell_back: true, is_sender_taken: true };
        for (code, enhanced, text, waits) in [
            (550, None, "TLS required", true),
            (550, None, "Use of SSL/TLS is mandatory", true),
            (550, None, "Encryption required for this recipient", true),
            (550, None, "Unencrypted connections are not accepted", true),
            (550, None, "TLSv1.2 or higher required", true),
            (550, Some((5, 7, 1)), "no", true),
            (530, None, "no", true),
            (550, None, "no such user", false),
            (550, None, "<r.castles@abc.example>: User unknown", false),
            (550, None, "<bob@letsencrypt.example>: User unknown", false),
            (550, Some((5, 1, 1)), "<tls@abc.example>: User unknown", false),
            (552, Some((5, 2, 2)), "<ssl@abc.example>: mailbox full", false),
        ] {
            let reply = Reply { enhanced, ..Reply::new(code, (5, 0, 0), text) };
            assert_eq!(is_about_tls(over, &reply), waits, "{code} {enhanced:?} {text}");
        }
        let early = Over { fell_back: true, is_sender_taken: false };
        assert!(is_about_tls(early, &Reply::new(550, (5, 0, 0), "no")));
        assert!(!is_about_tls(early, &Reply::new(550, (5, 1, 8), "no such sender")));
    }
}
