//! Starts the real parts that Tidegate works with: Apache Kafka, Postfix with Dovecot, rspamd, a mail sink and an SMTP
//! client. Used by the end-to-end tests and by `cargo xtask`. No dependencies, so that it builds in seconds anywhere.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod daemon;
pub mod deb;
pub mod dovecot;
pub mod error;
pub mod golang;
pub mod kafka;
pub mod kafka_cluster;
pub mod kube;
pub mod kube_parts;
pub mod leash;
pub mod parts;
pub mod paths;
pub mod ports;
pub mod postfix;
pub mod progress;
pub mod prometheus;
pub mod rspamd;
pub mod setup;
pub mod sink;
pub mod smtp;
pub mod tools;
pub mod wait;
