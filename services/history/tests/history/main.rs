//! The history service over a real log: what gets into the tables, how they are kept, and what can be asked.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod access;
mod clients;
mod columns;
mod faults;
mod faulty;
mod keeping;
mod lab;
mod queries;
mod rights;
mod tables;
