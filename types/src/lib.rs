//! What Tally hashes, signs and sends.
//!
//! Everything here is pure: the same bytes give the same answer on every machine. The types carry proof: an [`Address`]
//! is canonical, a [`transaction::SignedTransaction`] parsed without leaving a byte of the body unread, a
//! [`transaction::VerifiedTransaction`] also had its signature checked.
//!
//! The one verdict on a signature, used everywhere, is ZIP-215 by ed25519-zebra, whose single and batch checks agree;
//! ed25519-dalek makes keys and signatures. See [`signature`].

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::disallowed_types,
    clippy::disallowed_methods
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod address;
pub mod amount;
pub mod batch;
pub mod body;
pub mod certificate;
pub mod genesis;
pub mod hash;
pub mod have;
pub mod header;
pub mod number;
mod order;
pub mod proposal;
pub mod signature;
pub mod transaction;
pub mod validators;
pub mod vote;
pub mod wire;

pub use address::Address;
pub use amount::{Amount, Decimals};
pub use batch::{Batch, SignedBatch};
pub use certificate::Certificate;
pub use genesis::{Genesis, Params};
pub use hash::Hash;
pub use have::{Have, Tip};
pub use header::Header;
pub use number::{Epoch, Height, Nonce, Seq, Stake, UnixMillis, View};
pub use proposal::Proposal;
pub use signature::{PublicKey, SecretKey, Signature, SignedBytes};
pub use transaction::{SignedTransaction, VerifiedTransaction};
pub use validators::{Validator, ValidatorSet};
pub use vote::{ViewChange, Vote, VoteKind};
