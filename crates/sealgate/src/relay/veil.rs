//! When the reply to a message from the Internet goes out, where its content was opened with one of our keys: at a full
//! tick of a coarse clock, so that the time tells nothing of what was found inside (REQUIREMENTS 0.1, J1, J8).
//!
//! In: the report, the size, when the final dot came. Out: the time of the reply. A success that nobody can forge needs no
//! veil: an authenticated decryption, or a valid signature inside, unless another key of ours was tried beside.

use std::time::Duration;

use sealgate_core::report::{Delivered, Direction, Layer, Report, Verdict};
use sealgate_keys::stores::KeyPlace;
use tokio::time::Instant;

/// Waits until the reply may go out.
pub(crate) async fn wait(report: &Report, size_bytes: usize, keys: KeyPlace, dot: Instant) {
    if is_open_to_guesses(report) {
        let tick = tick(size_bytes, keys);
        tokio::time::sleep_until(reply_time(dot, Instant::now(), tick)).await;
    }
}

/// Whatever was refused, and what is delivered of an unauthenticated encryption to one of our keys, or beside a ciphertext
/// that somebody else's key did not open: its sender may have made it for that key, and the rest for himself.
pub(super) fn is_open_to_guesses(report: &Report) -> bool {
    let is_open_to_changes = |layer: &Layer| match layer {
        Layer::Encrypted { content, key, .. } => {
            !key.is_empty() && !AUTHENTICATED.iter().any(|word| content.contains(word))
        }
        Layer::Signed { .. } => false,
    };
    report.direction == Direction::Inbound
        && (report.delivered == Delivered::Nothing
            || report.named_in_vain
            || (report.verdict != Verdict::Pass && report.layers.iter().any(is_open_to_changes)))
}

/// With how many octets a message is announced at least, whatever was found inside: as many as it came with, and our fields on top,
/// which take more above what stayed closed. Only what its author signed is his own to know, and need not leave room for these.
pub(super) fn size_bytes(report: &Report, received_bytes: usize) -> usize {
    let is_authors = report.verdict == Verdict::Pass && !is_open_to_guesses(report);
    received_bytes.saturating_add(if is_authors { 0 } else { OUR_FIELDS_BYTES_MAX })
}

/// The next full tick after the dot.
fn reply_time(dot: Instant, now: Instant, tick: Duration) -> Instant {
    let ticks = now.duration_since(dot).as_nanos() / tick.as_nanos() + 1;
    dot + tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// The sender knows the size: a longer message may show a longer tick.
fn tick(size_bytes: usize, keys: KeyPlace) -> Duration {
    let mebibytes = u32::try_from(size_bytes / MEBIBYTE).unwrap_or(u32::MAX);
    let tick = if keys == KeyPlace::Elsewhere { TICK_OF_KEYS_ELSEWHERE } else { TICK };
    tick.saturating_mul(mebibytes.saturating_add(1))
}

/// What names of content ciphers with authentication contain.
const AUTHENTICATED: [&str; 3] = ["gcm", "ccm", "poly1305"];
/// Far above what opening and judging a message up to a mebibyte takes.
const TICK: Duration = Duration::from_millis(100);
/// Far above what another machine's answers take: where a ciphertext may be at fault, it is asked several times.
const TICK_OF_KEYS_ELSEWHERE: Duration = Duration::from_secs(1);
const MEBIBYTE: usize = 1 << 20;
/// More than the fields that we put on top of a message take.
const OUR_FIELDS_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use sealgate_core::report::Format;

    use super::*;

    fn report(content: &str, key: &str, delivered: Delivered, verdict: Verdict) -> Report {
        let mut report = Report::new(Direction::Inbound, "id");
        report.delivered = delivered;
        report.verdict = verdict;
        report.layers.push(Layer::Encrypted {
            format: Format::Smime,
            content: content.to_owned(),
            key: key.to_owned(),
            recipient: String::new(),
        });
        report
    }

    #[test]
    fn what_an_attacker_could_bring_about_is_veiled_and_nothing_else() {
        use Delivered::{AsReceived, Nothing, Plain};
        for (content, key, delivered, verdict, veiled) in [
            ("aes-256-cbc", "rsa-pkcs1", Nothing, Verdict::Fail, true),
            ("aes-256-gcm", "rsa-oaep-sha256", Nothing, Verdict::Fail, true),
            ("aes-256-cbc", "rsa-pkcs1", Plain, Verdict::None, true),
            ("aes-256-cbc", "rsa-pkcs1", AsReceived, Verdict::None, true),
            ("aes-256-cbc", "rsa-pkcs1", Plain, Verdict::Pass, false),
            ("aes-256-gcm", "rsa-pkcs1", Plain, Verdict::None, false),
            ("aes-256-cbc", "", AsReceived, Verdict::None, false),
        ] {
            let report = report(content, key, delivered, verdict);
            assert_eq!(is_open_to_guesses(&report), veiled, "{report:?}");
            let fields = if verdict == Verdict::Pass { 0 } else { OUR_FIELDS_BYTES_MAX };
            assert_eq!(size_bytes(&report, 1000), 1000 + fields, "{report:?}");
        }
        let mut opened_beside = report("aes-256-gcm", "rsa-pkcs1", Plain, Verdict::Pass);
        opened_beside.named_in_vain = true;
        assert!(is_open_to_guesses(&opened_beside), "another key of ours was tried");
        assert_eq!(size_bytes(&opened_beside, 1000), 1000 + OUR_FIELDS_BYTES_MAX);
        assert!(!is_open_to_guesses(&Report::new(Direction::Outbound, "id")));
    }

    #[test]
    fn replies_go_out_at_full_ticks() {
        let dot = Instant::now();
        let after = |milliseconds| dot + Duration::from_millis(milliseconds);
        for (now, reply) in [(0, 100), (3, 100), (99, 100), (100, 200), (250, 300)] {
            assert_eq!(reply_time(dot, after(now), TICK), after(reply));
        }
        for (keys, base) in [
            (KeyPlace::ThisProcess, TICK),
            (KeyPlace::ThisHost, TICK),
            (KeyPlace::Elsewhere, TICK_OF_KEYS_ELSEWHERE),
        ] {
            assert_eq!(tick(0, keys), base);
            assert_eq!(tick(MEBIBYTE - 1, keys), base);
            assert_eq!(tick(3 * MEBIBYTE, keys), 4 * base);
        }
    }
}
