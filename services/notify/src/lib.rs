//! Tells people of decisions about accounts: mail and webhooks, at least once, with ids that stay the same.
//!
//! A consumer of `accounts`: each new entry of a state's timeline becomes a notification for each of its recipients,
//! written to the topic `notifications` together with the position in `accounts`; from there it is sent, and what came
//! of it is written there, too. See the README beside this crate.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod channels;
pub mod config;
mod contacts;
mod identity;
mod kind;
mod mail;
mod metrics;
mod outbox;
pub mod preview;
mod reminders;
mod retry;
mod routing;
mod service;
mod sharing;
mod smtp;
mod take_over;
mod templates;
mod values;
mod view;
pub mod webhook;
mod worker;

pub use config::NotifyConfig;
pub use kind::Kind;
pub use mail::{Mail, MailError, compose};
pub use outbox::{Delivery, Outcome};
pub use retry::{RetryError, retry};
pub use service::{NotifyError, Service};
pub use smtp::Smtp;
pub use templates::{Reader, RenderError, TemplateError, Templates, Written};
pub use webhook::Webhook;
