//! The client API against a small chain, by direct calls where a call is what matters, by real clients where the server is.

mod accounts;
mod blocks;
mod server;
mod simulate;
mod streams;
mod submit;
mod transactions;
mod validators;
mod world;
