//! The fuzz targets' bodies by name; the test command runs the same functions over mutants and over the corpora.
//!
//! `cargo xtask fuzz` runs the targets, or one of them `cargo +nightly fuzz run NAME` from the project's root.
#![forbid(unsafe_code)]

#[path = "../../crates/sealgate-core/tests/fuzz_bodies/cms.rs"]
mod cms;
#[path = "../../crates/sealgate-keys/tests/fuzz_bodies/foreign.rs"]
mod foreign;
#[path = "../../crates/sealgate-core/tests/fuzz_bodies/inbound.rs"]
mod inbound;
#[path = "../../crates/sealgate-core/tests/fuzz_bodies/mime.rs"]
mod mime;
#[path = "../../crates/sealgate-core/tests/fuzz_bodies/smtp.rs"]
mod smtp;

/// The parts of the program that read what others wrote. It has no library: they are compiled here once more.
#[allow(dead_code, unused_imports, reason = "the program uses all of it")]
#[path = "../../crates/sealgate/src"]
mod program {
    pub(crate) mod config;
    pub(crate) mod relay {
        pub(crate) mod authentication;
        pub(crate) mod dane;
        pub(crate) mod look_ups;
        pub(crate) mod mta_sts {
            pub(crate) mod policy;
        }
        #[path = "../../tests/fuzz_bodies/program.rs"]
        pub(crate) mod fuzz_bodies;
        pub(crate) mod names;
    }
}

use program::{config, relay};

/// What a target runs.
pub fn body(target: &str) -> fn(&[u8]) {
    let own = relay::fuzz_bodies::TARGETS;
    let all = [cms::TARGETS, foreign::TARGETS, inbound::TARGETS, mime::TARGETS, own, smtp::TARGETS];
    let found = all.into_iter().flatten().find(|(name, _)| *name == target);
    found.expect("a target's name stands in one of the tables").1
}

/// A target with the body of its name.
#[macro_export]
macro_rules! target {
    () => {
        static BODY: std::sync::LazyLock<fn(&[u8])> =
            std::sync::LazyLock::new(|| $crate::body(env!("CARGO_BIN_NAME")));

        libfuzzer_sys::fuzz_target!(|data: &[u8]| (*BODY)(data));
    };
}
