//! A Tally validator: everything that does I/O around the pure crates.
//!
//! [`run::run`] wires it on one screen. Two threads own the two states: the [`driver`] owns machine and journal, the
//! [`executor`] owns the ledger. Everything else is tasks: streams between validators ([`peers`]), and the client API
//! ([`api`]), which reads snapshots and never waits for writes.

#![forbid(unsafe_code)]
// They panic when nobody takes what they say.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod admission;
pub mod api;
pub mod bench;
mod calls;
pub mod check;
pub mod cli;
pub mod config;
pub mod context;
pub mod driver;
pub mod evidence;
pub mod executor;
mod files;
mod incoming;
pub mod opening;
pub mod peers;
pub mod run;
pub mod signatures;
pub mod signing;
pub mod store;
pub mod turn;
mod words;
