//! Look-ups of one address of very many: in SQLite, in PostgreSQL, and at a directory server.
//!
//! The program that fills and asks the stores is the example `look_ups` of sealgate-keys; it asks as the relay does.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use sealgate_testkit::gate::Gate;
use sealgate_testkit::pki::pem_body;
use sealgate_testkit::postgres::Postgres;
use sealgate_testkit::process;
use sealgate_testkit::slapd::{BASE, Person, Settings, Slapd};
use serde_json::Value;

use super::Bench;

/// All three stores.
pub(super) fn measure_all(bench: &Bench) -> Result<String, String> {
    let (rows, entries) = if bench.quick { (20_000, 1_000) } else { (1_000_000, 10_000) };
    let template = template(bench)?;
    let mut text = String::from(
        "| store | addresses | cold p50 µs | cold p99 µs | cached p50 µs | cached p99 µs |\n\
         |---|--:|--:|--:|--:|--:|\n",
    );
    let mut row = |store: &str, addresses: usize, line: &Value| {
        let _ = write!(text, "| {store} | {addresses} |");
        for us in ["cold", "cached"].iter().flat_map(|name| line[name].as_array()).flatten() {
            let _ = write!(text, " {:.1} |", us.as_f64().unwrap_or(f64::NAN));
        }
        text.push('\n');
    };
    row("SQLite", rows, &in_sqlite(bench, &template, rows)?);
    row("PostgreSQL, unix socket", rows, &in_postgres(bench, &template, rows)?);
    row("LDAP (slapd), TLS", entries, &in_directory(bench, &template, entries)?);
    Ok(text)
}

fn in_sqlite(bench: &Bench, template: &[u8], rows: usize) -> Result<Value, String> {
    let dir = process::open_temp_dir("look-ups");
    let url = format!("sqlite:{}", dir.path().join("sealgate.db").display());
    in_database(bench, template, &url, rows)
}

fn in_postgres(bench: &Bench, template: &[u8], rows: usize) -> Result<Value, String> {
    let postgres = Postgres::start();
    let database = postgres.create_database();
    in_database(bench, template, &postgres.socket_url(&database), rows)
}

fn in_database(bench: &Bench, template: &[u8], url: &str, rows: usize) -> Result<Value, String> {
    let dir = process::open_temp_dir("look-ups");
    let file = dir.path().join("template.der");
    fs::write(&file, template).map_err(|why| format!("{}: {why}", file.display()))?;
    let key = dir.path().join("master.key");
    let mut command = Command::new(&bench.look_ups);
    command.args(["database", url]).arg(key).arg(file).args([rows, ASKED].map(|n| n.to_string()));
    ask(&mut command)
}

fn in_directory(bench: &Bench, template: &[u8], entries: usize) -> Result<Value, String> {
    let mut slapd = Slapd::start(Settings::default());
    let people: Vec<Person> = (0..entries).map(|number| person(template, number)).collect();
    slapd.add_people(&people);
    let dir = process::open_temp_dir("look-ups");
    let path = |name: &str| dir.path().join(name);
    let url = format!("sqlite:{}", path("sealgate.db").display());
    let mut command = Command::new(&bench.look_ups);
    command.args(["directory", &url]).arg(path("master.key")).arg(slapd.tls_url());
    command.arg(&slapd.pki.root).arg(BASE);
    command.args([entries, ASKED.min(entries)].map(|number| number.to_string()));
    ask(&mut command)
}

fn ask(command: &mut Command) -> Result<Value, String> {
    let program = Path::new(command.get_program());
    if !program.exists() {
        let why = "cargo build --release -p sealgate -p sealgate-keys --example look_ups";
        return Err(format!("{}: not there: {why}", program.display()));
    }
    let said = process::run(command, b"").expect_ok("look_ups");
    let line = String::from_utf8_lossy(&said).into_owned();
    println!("{}", line.trim_end());
    serde_json::from_str(&line).map_err(|why| format!("look_ups: {why}: {line}"))
}

/// A real certificate of the first address, DER.
fn template(bench: &Bench) -> Result<Vec<u8>, String> {
    let binary = bench.binary.to_str().ok_or("the program's path is no text")?;
    let gate = Gate::init(binary, &["big.example"]);
    Ok(pem_body(&gate.generate_key(&address(0), "rsa2048")))
}

/// Somebody with a certificate that names him.
fn person(template: &[u8], number: usize) -> Person {
    let (first, own) = (address(0), address(number));
    let mut certificate = template.to_vec();
    for at in 0..certificate.len() {
        if certificate[at..].starts_with(first.as_bytes()) {
            certificate[at..at + own.len()].copy_from_slice(own.as_bytes());
        }
    }
    Person { address: own, certificates: vec![certificate], signed_data: Vec::new() }
}

/// As the example makes them.
fn address(number: usize) -> String {
    format!("u{number:07}@big.example")
}

/// Fewer than the cache keeps.
const ASKED: usize = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_becomes_another_address_s() {
        let person = person(b"<u0000000@big.example>", 17);
        assert_eq!(person.certificates, [b"<u0000017@big.example>"]);
        assert_eq!(person.address, "u0000017@big.example");
    }
}
