//! How an envelope is written: MAIL and RCPT with the parameters that the server offers (RFC 5321 §4.1.1, RFC 3461, RFC 6531).

use std::borrow::Cow;

use bytes::Bytes;

use super::super::command::ORCPT_BYTES_MAX;
use super::{Client, Transaction};
use crate::envelope::{Recipient, Ret};

impl Client {
    pub(super) fn mail_command(&self, transaction: &Transaction<'_>) -> Bytes {
        let (offered, parameters) = (&self.capabilities, transaction.parameters);
        let from = transaction.reverse_path.map(ToString::to_string).unwrap_or_default();
        let mut command = format!("MAIL FROM:<{from}>");
        if offered.size.is_some() && transaction.size_bytes > 0 {
            command.push_str(&format!(" SIZE={}", transaction.size_bytes));
        }
        if offered.eight_bit_mime && (transaction.eight_bit || parameters.eight_bit) {
            command.push_str(" BODY=8BITMIME");
        }
        if self.says_smtputf8(transaction) {
            command.push_str(" SMTPUTF8");
        }
        if parameters.requiretls {
            command.push_str(" REQUIRETLS");
        }
        if offered.dsn {
            match parameters.ret {
                Some(Ret::Full) => command.push_str(" RET=FULL"),
                Some(Ret::Headers) => command.push_str(" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = &parameters.envid {
                command.push_str(&format!(" ENVID={envid}"));
            }
        }
        command.push_str("\r\n");
        Bytes::from(command)
    }

    pub(super) fn rcpt_command(
        &self,
        transaction: &Transaction<'_>,
        recipient: &Recipient,
    ) -> Bytes {
        let mut command = format!("RCPT TO:<{}>", recipient.address);
        if self.capabilities.dsn {
            if let Some(notify) = &recipient.notify {
                command.push_str(&format!(" NOTIFY={notify}"));
            }
            let orcpt =
                recipient.orcpt.as_deref().map(|orcpt| match self.says_smtputf8(transaction) {
                    true => Cow::Borrowed(orcpt),
                    false => in_ascii(orcpt),
                });
            if let Some(orcpt) = orcpt.filter(|orcpt| orcpt.len() <= ORCPT_BYTES_MAX) {
                command.push_str(&format!(" ORCPT={orcpt}"));
            }
        }
        command.push_str("\r\n");
        Bytes::from(command)
    }

    fn says_smtputf8(&self, transaction: &Transaction<'_>) -> bool {
        let is_wanted = transaction.needs_smtputf8() || transaction.parameters.smtputf8;
        self.capabilities.smtputf8 && is_wanted
    }
}

/// An original recipient of the type `utf-8` without octets above 127 (RFC 6533 §3, utf-8-addr-xtext). The characters that
/// xtext has a sign for are written so, or as `\x{...}`, already.
fn in_ascii(orcpt: &str) -> Cow<'_, str> {
    if orcpt.is_ascii() {
        return Cow::Borrowed(orcpt);
    }
    let mut out = String::with_capacity(orcpt.len());
    for c in orcpt.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => out.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
        }
    }
    Cow::Owned(out)
}
