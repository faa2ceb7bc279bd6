//! What the administrator sees: logs, metrics and health.
//!
//! **The logging policy.** One structured line a transaction ([`record::Record`]): id, envelope, client, size, time, the
//! facts of the report, the reply. Never a subject, a header, a body, a key or a password, at no log level;
//! never what happened behind a secret key, beyond `not-decrypted`. A panic is logged with its place and
//! without its text, because the text may quote a message. Logs go to standard error; standard output
//! carries the `ready` line only.

use std::io::Write as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

pub(crate) mod http;
pub(crate) mod record;

/// Starts logging and counting, once for the process. `verbose` is how often `-v` was given.
pub(crate) fn start(format: LogFormat, verbose: u8) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let default = format!("warn,sealgate={level},sealgate_keys={level}");
    let filter =
        EnvFilter::try_from_env("SEALGATE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Mail flows even where the log cannot be written: to tell of that on standard error would be a panic.
    let builder = builder.log_internal_errors(false);
    // Only a second start fails, and then the first one holds.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
    };
    let _ = FORMAT.set(format);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: this is a bug, please report it");
    }));
    let _ = metrics();
}

/// The metrics, for `/metrics`.
pub(crate) fn metrics() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            let installed = metrics::set_global_recorder(recorder);
            installed.ok().map(|()| handle)
        })
        .as_ref()
}

/// Sums up what was measured since; to be called now and then. The recorder keeps each sample until then, and nobody need
/// ask for `/metrics`.
pub(crate) fn drain() {
    if let Some(handle) = metrics() {
        handle.run_upkeep();
    }
}

/// Puts a line of the audit trail on the log, with or without its end. No filter applies to it.
pub(crate) fn write_audit(line: &str) {
    let mark = match format() {
        LogFormat::Json => "",
        LogFormat::Text => "audit ",
    };
    write_line(format!("{mark}{}\n", line.trim_end()).as_bytes());
}

/// One write, for standard error is not buffered. Mail flows even where the log cannot be written (REQUIREMENTS §5 row 15).
fn write_line(line: &[u8]) {
    let _ = std::io::stderr().lock().write_all(line);
}

/// How lines look.
fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or(LogFormat::Text)
}

static FORMAT: OnceLock<LogFormat> = OnceLock::new();
