//! The wire contract: the messages and services of package `tidegate.v1`, generated from the `.proto` files
//! beside this crate, and their conversions to the words of the domain.
//!
//! A conversion to the domain ([`event_from_proto`], ...) checks everything that a peer or a topic could have
//! got wrong, and bounds what could be large. A conversion from the domain cannot fail.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
mod bounds;
mod command;
mod error;
mod event;
mod notification;
mod setting;
mod timeline;

pub use account::{state_for_edge, state_from_proto, state_to_proto};
pub use command::{Asked, Inspect, asked_from_proto, command_from_proto, queued_mail_from_proto, queued_mail_to_proto};
pub use error::DecodeError;
pub use event::{event_from_proto, event_to_proto};
pub use notification::{NotRetried, notification_key, retried};
pub use setting::{setting_from_proto, setting_to_proto};
pub use timeline::{change_to_proto, client_to_proto};

/// Generated messages and services of package `tidegate.v1`.
#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("tidegate.v1");
}

/// The compiled descriptors of all files, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate.bin"));
