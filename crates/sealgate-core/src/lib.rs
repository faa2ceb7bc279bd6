//! sealgate's data processor: what happens to one message, without I/O.
//!
//! A message and its envelope go in, parcels for the next hop or one [`refusal::Refusal`] come out. Nothing here
//! opens a socket or a file or reads a clock: keys are asked for with [`step::Step::Want`], and the time of
//! verification is an argument. The only thing taken from outside is randomness, from the
//! cryptographic library's generator.
//!
//! Read [`outbound`], [`inbound`] and [`refusal`] to know the product.

pub mod address;
pub mod cms;
pub mod decrypt;
pub mod dkim;
pub mod encrypt;
pub mod envelope;
pub mod hex;
pub mod inbound;
pub mod keys;
pub mod message;
pub mod mime;
pub mod notification;
pub mod outbound;
pub mod policy;
pub mod refusal;
pub mod report;
pub mod sign;
pub mod smtp;
pub mod step;
#[cfg(test)]
mod testing;
pub mod trust;
pub mod verify;
