//! A KMIP client whose every message a test controls, and a key server with people in it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use sealgate_keys::kmip::attribute::Attribute;
use sealgate_keys::kmip::enumeration::{ObjectType, ResultReason};
use sealgate_keys::kmip::message::{RequestMessage, ResponseMessage, Version};
use sealgate_keys::kmip::object::Object;
use sealgate_keys::kmip::request::{KeyUse, Parameters, Request};
use sealgate_keys::kmip::response::{Failure, Response};
use sealgate_keys::kmip::ttlv::{HEADER_BYTES, message_bytes};
use sealgate_testkit::gate::Gate;
use toml::{Table, Value};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_sealgate");
pub(crate) const V12: Version = Version { major: 1, minor: 2 };

pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// One connection.
pub(crate) struct Kmip {
    pub(crate) wire: Box<dyn Wire>,
    pub(crate) version: Version,
    /// For whom keys are used; nobody is named where this is empty.
    pub(crate) used_for: Option<String>,
}

impl Kmip {
    pub(crate) fn over(wire: impl Wire + 'static) -> Self {
        Self { wire: Box::new(wire), version: V12, used_for: None }
    }

    pub(crate) fn unix(socket: &Path) -> Self {
        let wire = UnixStream::connect(socket).unwrap();
        wire.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self::over(wire)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The server may have closed: the answer tells.
        let _ = self.wire.write_all(bytes).and_then(|()| self.wire.flush());
    }

    /// The next message; `None` where the connection is closed.
    pub(crate) fn receive(&mut self) -> Option<ResponseMessage> {
        let mut header = [0; HEADER_BYTES];
        self.wire.read_exact(&mut header).ok()?;
        let mut message = vec![0; message_bytes(&header).unwrap()];
        message[..HEADER_BYTES].copy_from_slice(&header);
        self.wire.read_exact(&mut message[HEADER_BYTES..]).ok()?;
        Some(ResponseMessage::decode(&message).unwrap())
    }

    /// One request and its answer; `None` where the connection is closed.
    pub(crate) fn try_call(&mut self, request: Request) -> Option<Result<Response, Failure>> {
        self.send(&RequestMessage::one(self.version, request).encode());
        let mut answer = self.receive()?;
        assert_eq!(answer.items.len(), 1);
        Some(answer.items.remove(0).result)
    }

    pub(crate) fn call(&mut self, request: Request) -> Result<Response, Failure> {
        self.try_call(request).expect("an answer, not a closed connection")
    }

    pub(crate) fn locate(&mut self, attributes: Vec<Attribute>) -> Vec<String> {
        match self.call(Request::Locate { attributes, maximum: None }).unwrap() {
            Response::Located(ids) => ids,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn keys_of(&mut self, owner: &str) -> Vec<String> {
        let name = Attribute::Name(format!("sealgate/{owner}/key"));
        self.locate(vec![name, Attribute::ObjectType(ObjectType::PrivateKey)])
    }

    /// The attributes of these names, or all but the link.
    pub(crate) fn attributes(&mut self, id: &str, names: &[&str]) -> Vec<Attribute> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let request = Request::GetAttributes { id: id.to_owned(), names };
        match self.call(request).unwrap() {
            Response::Attributes { attributes, .. } => attributes,
            other => panic!("{other:?}"),
        }
    }

    /// The key of an owner that is for this use.
    pub(crate) fn key_for(&mut self, owner: &str, mask: i32) -> String {
        let name = Attribute::Name(format!("sealgate/{owner}/key"));
        let found = self.locate(vec![name, Attribute::UsageMask(mask)]);
        let [id] = found.as_slice() else { panic!("{owner}: {found:?}") };
        id.clone()
    }

    /// The certificate of a key, DER.
    pub(crate) fn certificate_of(&mut self, id: &str) -> Vec<u8> {
        let link =
            self.attributes(id, &["Link"]).into_iter().find_map(|attribute| match attribute {
                Attribute::CertificateLink(id) => Some(id),
                _ => None,
            });
        match self.call(Request::Get { id: link.unwrap(), format: None }).unwrap() {
            Response::Got { object: Object::Certificate(der), .. } => der,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn sign(&mut self, id: &str, parameters: Parameters) -> Result<Vec<u8>, Failure> {
        self.call(Request::Sign(self.key_use(id, parameters, MESSAGE))).map(result)
    }

    pub(crate) fn decrypt(
        &mut self,
        id: &str,
        parameters: Parameters,
        data: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        self.call(Request::Decrypt(self.key_use(id, parameters, data))).map(result)
    }

    fn key_use(&self, id: &str, parameters: Parameters, data: &[u8]) -> KeyUse {
        let used_for = self.used_for.clone();
        KeyUse { id: id.to_owned(), parameters, data: data.to_vec().into(), used_for }
    }
}

fn result(response: Response) -> Vec<u8> {
    match response {
        Response::Result { data, .. } => data.to_vec(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Failure>) -> ResultReason {
    result.unwrap_err().reason
}

/// What the tests sign.
pub(crate) const MESSAGE: &[u8] = b"a message";

/// The user who runs the tests.
pub(crate) fn own_uid(gate: &Gate) -> i64 {
    i64::from(std::fs::metadata(gate.dir()).unwrap().uid())
}

/// An entry of `[[key_server.relay]]`, whose uses of keys need not say for whom they are, for the user who runs the tests.
pub(crate) fn relay(uid: i64, keys: &[&str], operations: &[&str]) -> Table {
    entry("uid", uid.into(), keys, operations)
}

pub(crate) fn entry(kind: &str, who: Value, keys: &[&str], operations: &[&str]) -> Table {
    let list = |texts: &[&str]| texts.iter().map(|text| Value::from(*text)).collect::<Vec<_>>();
    Table::from_iter([
        (kind.to_owned(), who),
        ("keys".to_owned(), list(keys).into()),
        ("operations".to_owned(), list(operations).into()),
        ("require_address".to_owned(), false.into()),
    ])
}

/// Writes `[key_server]` with a socket, an audit file and these relays.
pub(crate) fn configure(gate: &Gate, relays: Vec<Table>, edit: impl FnOnce(&mut Table)) {
    gate.configure(|config| {
        let relays = Value::Array(relays.into_iter().map(Value::Table).collect());
        let mut table = Table::from_iter([
            ("socket".to_owned(), Value::from("keys.sock")),
            ("audit".to_owned(), Value::from("audit.log")),
            ("relay".to_owned(), relays),
        ]);
        edit(&mut table);
        config.insert("key_server".to_owned(), table.into());
    });
}
