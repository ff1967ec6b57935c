//! Tables are kept tidy: few large files instead of many small ones, nothing older than is to be kept, and nothing of
//! an account that is to be forgotten.

mod erase;
mod merge;
mod plan;
mod retention;
mod worker;

pub(crate) use erase::Eraser;
pub(crate) use merge::{Room, merge_all};
pub(crate) use worker::Upkeep;
