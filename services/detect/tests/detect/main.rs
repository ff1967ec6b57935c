//! Statistics, rules and windows, through the crate's public interface.
#![allow(clippy::unwrap_used, missing_docs)]

mod cases;
mod defaults;
mod engine;
mod gates;
mod image;
mod inspect;
mod problems;
mod variants;
mod windows;
