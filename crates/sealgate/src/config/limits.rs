//! What foreign input may cost (REQUIREMENTS K): the limits of the relay; those of the formats are constants of the core.

use std::time::Duration;

/// `[limits]`, each with its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// K1: one message.
    pub(crate) message_bytes_max: usize,
    /// K9: connections of one address; IPv6: of one /64.
    pub(crate) connections_per_address_max: usize,
    /// K9: connections in all, of the mail server and of the Internet apart.
    pub(crate) connections_max: usize,
    /// K9: commands of one session.
    pub(crate) commands_per_session_max: usize,
    /// K9: wrong commands of one session; from the Internet, recipients refused for good too.
    pub(crate) errors_per_session_max: usize,
    /// A4: recipients of one transaction (RFC 5321 §4.5.3.1.8 demands at least 100).
    pub(crate) recipients_max: usize,
    /// K9: silence between commands, and a command from its first octet to its last.
    pub(crate) idle_secs_max: u64,
    /// K9: DATA slower than this, averaged, is cut off.
    pub(crate) data_bytes_per_sec_min: u64,
    /// K9: for this long DATA may be as slow as it likes.
    pub(crate) data_grace_secs: u64,
    /// K10: messages in flight, all copies counted; at least what one of `message_bytes_max` takes.
    pub(crate) memory_bytes_max: usize,
    /// K11: how long a message waits for a crypto thread.
    pub(crate) crypto_wait_secs_max: u64,
    /// From the upstream's dot to the downstream's dot.
    pub(crate) delivery_secs_max: u64,
    /// From the upstream's dot to the downstream's answer; the client upstream waits 10 minutes (RFC 5321 §4.5.3.2.6).
    pub(crate) answer_secs_max: u64,
    /// Connections to one next hop at once.
    pub(crate) connections_per_next_hop_max: usize,
    /// Received fields (RFC 5321 §6.3).
    pub(crate) hops_max: usize,
    /// How long key stores may take.
    pub(crate) lookup_secs_max: u64,
    /// How long DNS may take for SPF, DKIM, DMARC and ARC of one message (RFC 7208 §4.6.4 demands at least 20).
    pub(crate) authentication_secs_max: u64,
    /// J5: mail of one network (IPv4: a /24, IPv6: a /64) in an hour that fails behind one of our keys.
    pub(crate) decryption_failures_per_hour_max: usize,
    /// How long a drain waits for transactions.
    pub(crate) drain_secs_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 50 * 1024 * 1024,
            connections_per_address_max: 50,
            connections_max: 1000,
            commands_per_session_max: 1000,
            errors_per_session_max: 20,
            recipients_max: 1000,
            idle_secs_max: 300,
            data_bytes_per_sec_min: 1024,
            data_grace_secs: 60,
            memory_bytes_max: 1024 * 1024 * 1024,
            crypto_wait_secs_max: 30,
            delivery_secs_max: 240,
            answer_secs_max: 540,
            connections_per_next_hop_max: 50,
            hops_max: 100,
            lookup_secs_max: 5,
            authentication_secs_max: 20,
            decryption_failures_per_hour_max: 100,
            drain_secs_max: 60,
        }
    }
}

impl Limits {
    /// How long key stores may take.
    pub(crate) fn lookup_timeout(&self) -> Duration {
        Duration::from_secs(self.lookup_secs_max)
    }

    /// The first limit that cannot be meant, and what is wrong with it.
    pub(crate) fn mistake(&self) -> Option<(&'static str, String)> {
        let times = [
            ("idle_secs_max", self.idle_secs_max),
            ("data_grace_secs", self.data_grace_secs),
            ("crypto_wait_secs_max", self.crypto_wait_secs_max),
            ("delivery_secs_max", self.delivery_secs_max),
            ("answer_secs_max", self.answer_secs_max),
            ("lookup_secs_max", self.lookup_secs_max),
            ("authentication_secs_max", self.authentication_secs_max),
            ("drain_secs_max", self.drain_secs_max),
        ];
        let endless = times.into_iter().find(|(_, seconds)| *seconds > SECONDS_MAX);
        let zero = self.first_zero().map(|name| (name, "is 0, which lets nothing through"));
        let of_one = zero.or(endless.map(|(name, _)| (name, "is more than a day (86400)")));
        of_one.map(|(name, why)| (name, format!("`{name}` {why}"))).or_else(|| self.too_narrow())
    }

    /// Messages that are taken by their size and never fit: they would be put off for ever.
    fn too_narrow(&self) -> Option<(&'static str, String)> {
        let (message, memory) = (self.message_bytes_max, self.memory_bytes_max);
        let needed = message.saturating_mul(MEMORY_FACTOR);
        if needed <= memory {
            return None;
        }
        // The one that is written in the file, where only one is.
        let is_default = memory == Self::default().memory_bytes_max;
        let key = if is_default { "message_bytes_max" } else { "memory_bytes_max" };
        let why = format!(
            "a message of `message_bytes_max` ({message}) takes {MEMORY_FACTOR} times as much memory, more than `memory_bytes_max` \
             ({memory}): give `memory_bytes_max` {needed} or more, or `message_bytes_max` {} or less",
            memory / MEMORY_FACTOR
        );
        Some((key, why))
    }

    fn first_zero(&self) -> Option<&'static str> {
        let size = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let values = [
            ("message_bytes_max", size(self.message_bytes_max)),
            ("connections_per_address_max", size(self.connections_per_address_max)),
            ("connections_max", size(self.connections_max)),
            ("commands_per_session_max", size(self.commands_per_session_max)),
            ("errors_per_session_max", size(self.errors_per_session_max)),
            ("recipients_max", size(self.recipients_max)),
            ("idle_secs_max", self.idle_secs_max),
            ("memory_bytes_max", size(self.memory_bytes_max)),
            ("crypto_wait_secs_max", self.crypto_wait_secs_max),
            ("delivery_secs_max", self.delivery_secs_max),
            ("answer_secs_max", self.answer_secs_max),
            ("connections_per_next_hop_max", size(self.connections_per_next_hop_max)),
            ("hops_max", size(self.hops_max)),
            ("lookup_secs_max", self.lookup_secs_max),
            ("authentication_secs_max", self.authentication_secs_max),
            ("decryption_failures_per_hour_max", size(self.decryption_failures_per_hour_max)),
        ];
        values.into_iter().find(|(_, value)| *value == 0).map(|(name, _)| name)
    }
}

/// Memory of a message in flight, copies and transformation included, as a multiple of its size.
pub(crate) const MEMORY_FACTOR: usize = 3;
/// No time limit is longer: times are added up, and must end.
pub(super) const SECONDS_MAX: u64 = 86_400;
