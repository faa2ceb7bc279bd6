//! Request and response messages (KMIP 1.4 §7): a header and a batch of operations.

use zeroize::Zeroizing;

use super::VENDOR;
use super::enumeration::{Operation, ResultReason, ResultStatus, tag};
use super::request::Request;
use super::response::{Failure, Response};
use super::ttlv::{DecodeError, Item, Structure, Tag, Writer};

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Before the dot.
    pub major: i32,
    /// Behind it.
    pub minor: i32,
}

impl Version {
    /// Those that we speak, the best first.
    pub const SPOKEN: [Self; 3] =
        [Self { major: 1, minor: 4 }, Self { major: 1, minor: 3 }, Self { major: 1, minor: 2 }];

    pub(super) fn write(self, writer: &mut Writer) {
        writer.structure(tag::PROTOCOL_VERSION, |writer| {
            writer.integer(tag::PROTOCOL_VERSION_MAJOR, self.major);
            writer.integer(tag::PROTOCOL_VERSION_MINOR, self.minor);
        });
    }

    pub(super) fn read(version: &Structure<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            major: version.expect(tag::PROTOCOL_VERSION_MAJOR)?.integer()?,
            minor: version.expect(tag::PROTOCOL_VERSION_MINOR)?.integer()?,
        })
    }
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMessage {
    /// In which version.
    pub version: Version,
    /// The batch.
    pub items: Vec<RequestItem>,
}

/// One request of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestItem {
    /// What the answer is to carry too; needed where there are several.
    pub batch_id: Option<Vec<u8>>,
    /// The request.
    pub request: Request,
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseMessage {
    /// In which version.
    pub version: Version,
    /// The batch.
    pub items: Vec<ResponseItem>,
}

/// One answer of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseItem {
    /// To what; missing where the message could not be read.
    pub operation: Option<Operation>,
    /// As in the request.
    pub batch_id: Option<Vec<u8>>,
    /// What was done, or why not.
    pub result: Result<Response, Failure>,
}

impl RequestMessage {
    /// A message of one request.
    pub fn one(version: Version, request: Request) -> Self {
        Self { version, items: vec![RequestItem { batch_id: None, request }] }
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Writer::message(tag::REQUEST_MESSAGE, |writer| {
            writer.structure(tag::REQUEST_HEADER, |writer| {
                self.version.write(writer);
                writer.integer(tag::BATCH_COUNT, count(self.items.len()));
            });
            for item in &self.items {
                writer.structure(tag::BATCH_ITEM, |writer| {
                    writer.enumeration(tag::OPERATION, item.request.operation());
                    write_batch_id(item.batch_id.as_deref(), writer);
                    writer.structure(tag::REQUEST_PAYLOAD, |writer| item.request.write(writer));
                    write_used_for(&item.request, writer);
                });
            }
        })
    }

    /// In which version a message is, whatever else is in it.
    ///
    /// # Errors
    /// [`DecodeError`] where it is no request.
    pub fn version_of(bytes: &[u8]) -> Result<Version, DecodeError> {
        request_version(&open(bytes, tag::REQUEST_MESSAGE)?)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none, or its batch is longer than [`BATCH_ITEMS_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = open(bytes, tag::REQUEST_MESSAGE)?;
        let version = request_version(&message)?;
        let read = |item: &Structure<'_>| {
            let operation = item.expect(tag::OPERATION)?.enumeration()?.into();
            let payload = item.expect(tag::REQUEST_PAYLOAD)?.structure()?;
            let mut request = Request::read(operation, &payload)?;
            let used_for = used_for(item)?;
            if let Some(used) = request.key_use_mut() {
                used.used_for = used_for;
            }
            Ok(RequestItem { batch_id: batch_id(item)?, request })
        };
        Ok(Self { version, items: batch(&message, read)? })
    }
}

impl ResponseMessage {
    /// As it goes over the wire; `now` in seconds since 1970.
    pub fn encode(&self, now: i64) -> Zeroizing<Vec<u8>> {
        Writer::message(tag::RESPONSE_MESSAGE, |writer| {
            writer.structure(tag::RESPONSE_HEADER, |writer| {
                self.version.write(writer);
                writer.date_time(tag::TIME_STAMP, now);
                writer.integer(tag::BATCH_COUNT, count(self.items.len()));
            });
            for item in &self.items {
                writer.structure(tag::BATCH_ITEM, |writer| item.write(writer));
            }
        })
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none, or its batch is longer than [`BATCH_ITEMS_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = open(bytes, tag::RESPONSE_MESSAGE)?;
        let header = message.expect(tag::RESPONSE_HEADER)?.structure()?;
        let version = Version::read(&header.expect(tag::PROTOCOL_VERSION)?.structure()?)?;
        Ok(Self { version, items: batch(&message, ResponseItem::read)? })
    }

    /// The one answer of a message to one request, its payload not read yet: what is wrong there is no fault of the message.
    ///
    /// # Errors
    /// [`DecodeError`] where it is no message, or not of one answer.
    pub(super) fn only_item(bytes: &[u8]) -> Result<UnreadItem<'_>, DecodeError> {
        let message = open(bytes, tag::RESPONSE_MESSAGE)?;
        let header = message.expect(tag::RESPONSE_HEADER)?.structure()?;
        Version::read(&header.expect(tag::PROTOCOL_VERSION)?.structure()?)?;
        let count = header.find(tag::BATCH_COUNT).map(|item| item.integer()).transpose()?;
        let mut items = message.all(tag::BATCH_ITEM);
        match (items.next(), items.next(), count) {
            (Some(item), None, Some(1) | None) => UnreadItem::new(item.structure()?),
            _ => Err(DecodeError("not one answer to one request".to_owned())),
        }
    }
}

/// An answer of a batch, its payload or failure not read yet.
#[derive(Debug)]
pub(super) struct UnreadItem<'a> {
    pub(super) operation: Option<Operation>,
    status: ResultStatus,
    item: Structure<'a>,
}

impl<'a> UnreadItem<'a> {
    fn new(item: Structure<'a>) -> Result<Self, DecodeError> {
        let operation = item.find(tag::OPERATION).map(|item| item.enumeration()).transpose()?;
        let status = item.expect(tag::RESULT_STATUS)?.enumeration()?.into();
        Ok(Self { operation: operation.map(Into::into), status, item })
    }

    pub(super) fn is_success(&self) -> bool {
        self.status == ResultStatus::Success
    }

    /// What was done, or why not.
    ///
    /// # Errors
    /// [`DecodeError`]
    pub(super) fn read(&self) -> Result<Result<Response, Failure>, DecodeError> {
        match (self.status, self.operation) {
            (ResultStatus::Success, Some(operation)) => {
                let payload = self.item.expect(tag::RESPONSE_PAYLOAD)?.structure()?;
                Ok(Ok(Response::read(operation, &payload)?))
            }
            (ResultStatus::Success, None) => {
                Err(DecodeError("an answer without its operation".to_owned()))
            }
            (ResultStatus::OperationFailed | ResultStatus::Other(_), _) => {
                let reason = self.item.find(tag::RESULT_REASON);
                let reason = reason.map(|item| item.enumeration()).transpose()?;
                let message = self.item.find(tag::RESULT_MESSAGE);
                let message = message.map(|item| item.text()).transpose()?.unwrap_or_default();
                Ok(Err(Failure {
                    reason: reason.map_or(ResultReason::GeneralFailure, Into::into),
                    message: message.to_owned(),
                }))
            }
        }
    }
}

impl ResponseItem {
    fn write(&self, writer: &mut Writer) {
        if let Some(operation) = self.operation {
            writer.enumeration(tag::OPERATION, operation);
        }
        write_batch_id(self.batch_id.as_deref(), writer);
        match (&self.result, self.operation) {
            (Ok(response), Some(operation)) => {
                writer.enumeration(tag::RESULT_STATUS, ResultStatus::Success);
                writer.structure(tag::RESPONSE_PAYLOAD, |writer| response.write(operation, writer));
            }
            (Ok(_), None) => writer.enumeration(tag::RESULT_STATUS, ResultStatus::Success),
            (Err(failure), _) => {
                writer.enumeration(tag::RESULT_STATUS, ResultStatus::OperationFailed);
                writer.enumeration(tag::RESULT_REASON, failure.reason);
                writer.text(tag::RESULT_MESSAGE, &failure.message);
            }
        }
    }

    fn read(item: &Structure<'_>) -> Result<Self, DecodeError> {
        let unread = UnreadItem::new(item.clone())?;
        let result = unread.read()?;
        Ok(Self { operation: unread.operation, batch_id: batch_id(item)?, result })
    }
}

fn open(bytes: &[u8], tag: Tag) -> Result<Structure<'_>, DecodeError> {
    let item = Item::only(bytes)?;
    if item.tag != tag {
        return Err(DecodeError(format!("{:06x} where {:06x} belongs", item.tag.0, tag.0)));
    }
    item.structure()
}

fn request_version(message: &Structure<'_>) -> Result<Version, DecodeError> {
    let header = message.expect(tag::REQUEST_HEADER)?.structure()?;
    Version::read(&header.expect(tag::PROTOCOL_VERSION)?.structure()?)
}

fn batch<T>(
    message: &Structure<'_>,
    read: impl Fn(&Structure<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let items: Vec<_> = message.all(tag::BATCH_ITEM).take(BATCH_ITEMS_MAX + 1).collect();
    if items.len() > BATCH_ITEMS_MAX {
        return Err(DecodeError(format!("a batch of more than {BATCH_ITEMS_MAX}")));
    }
    items.iter().map(|item| read(&item.structure()?)).collect()
}

fn batch_id(item: &Structure<'_>) -> Result<Option<Vec<u8>>, DecodeError> {
    let id = item.find(tag::UNIQUE_BATCH_ITEM_ID);
    id.map(|item| item.bytes().map(<[u8]>::to_vec)).transpose()
}

fn write_batch_id(id: Option<&[u8]>, writer: &mut Writer) {
    if let Some(id) = id {
        writer.bytes(tag::UNIQUE_BATCH_ITEM_ID, id);
    }
}

/// For whom a key is used, in a Message Extension (§6.16) that other servers may leave unread.
fn write_used_for(request: &Request, writer: &mut Writer) {
    let Some(used_for) = request.key_use().and_then(|used| used.used_for.as_deref()) else {
        return;
    };
    writer.structure(tag::MESSAGE_EXTENSION, |writer| {
        writer.text(tag::VENDOR_IDENTIFICATION, VENDOR);
        writer.boolean(tag::CRITICALITY_INDICATOR, false);
        writer.structure(tag::VENDOR_EXTENSION, |writer| writer.text(tag::USED_FOR, used_for));
    });
}

/// The same, read. Another's extension is left unread where it says that it may be.
fn used_for(item: &Structure<'_>) -> Result<Option<String>, DecodeError> {
    let Some(extension) = item.find(tag::MESSAGE_EXTENSION) else { return Ok(None) };
    let extension = extension.structure()?;
    if extension.expect(tag::VENDOR_IDENTIFICATION)?.text()? != VENDOR {
        let is_critical = extension.expect(tag::CRITICALITY_INDICATOR)?.boolean()?;
        let refused = || DecodeError("a critical extension that is not known here".to_owned());
        return if is_critical { Err(refused()) } else { Ok(None) };
    }
    let ours = extension.expect(tag::VENDOR_EXTENSION)?.structure()?;
    Ok(Some(ours.expect(tag::USED_FOR)?.text()?.to_owned()))
}

fn count(items: usize) -> i32 {
    i32::try_from(items).unwrap_or(i32::MAX)
}

/// Operations of one message.
pub const BATCH_ITEMS_MAX: usize = 16;

#[cfg(test)]
mod tests;
