//! Mail servers, wires and peers for sealgate's tests: real Postfix, Dovecot, OpenLDAP, PostgreSQL, `openssl`, gpgsm and
//! BouncyCastle, and small stand-ins whose every byte a test controls.
//!
//! Everything listens on loopback only, lives in a temporary directory of its own and ends when its value is dropped.
//! This is test code: what goes wrong panics with a text that says what, and with the log of the server concerned.
//! It knows nothing of sealgate's crates: it drives the program through its command line and its sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code: a failure of the bed is a failure of the test"
)]

mod aside;
pub mod bouncycastle;
pub mod clock;
pub mod cms;
pub mod der;
pub mod disk;
pub mod dkimpy;
pub mod dns_line;
pub mod dovecot;
pub mod exchanger;
pub mod exim;
pub mod faults;
pub mod fetch;
pub mod fixtures;
pub mod gate;
pub mod gpgsm;
pub mod key_server;
pub mod mail;
pub mod nameless;
pub mod netns;
pub mod nsd;
pub mod opensmtpd;
pub mod openssl;
pub mod peer;
pub mod pki;
pub mod postfix;
pub mod postgres;
pub mod process;
pub mod pykmip_client;
pub mod pykmip_server;
pub mod session;
pub mod sink;
pub mod slapd;
pub mod softhsm;
pub mod tls_session;
pub mod unbound;
pub mod upstream;
pub mod wire;
pub mod zone;
