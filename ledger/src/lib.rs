//! Tally's ledger: who has how much, and what a transaction does to it.
//!
//! Guaranteed: the supply of genesis is the supply after every block, and the state root commits to it ([`state`]). The
//! same blocks give the same roots, receipts and rejections on every machine. A block either executes whole or leaves
//! the ledger as it was.
//!
//! One way through: [`block::Ledger::execute`] parses each transaction of a block, plans it on copies (all that can fail
//! happens there), applies the plan (nothing can fail there), and asserts the supply at the end.
//! [`state::State::admit`] runs the same plan for a transaction that no block holds yet.
//!
//! Deliberately unknown here: consensus, signatures (a final block orders only what an honest validator checked), time
//! (an input), disks, threads. The node calls it: one executor owns the [`block::Ledger`], readers hold clones of its
//! [`state::State`].

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

pub mod account;
pub mod accumulator;
pub mod block;
mod plan;
pub mod proof;
mod reader;
pub mod receipt;
mod record;
pub mod reject;
pub mod snapshot;
pub mod state;
mod tree;

#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]
mod model;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]
mod testing;

pub use account::{Account, NonceError, NonceWindow};
pub use accumulator::Accumulator;
pub use block::{BlockInput, ExecuteError, ExecutedTransaction, LaneInput, Ledger, Outcome};
#[cfg(feature = "fuzzing")]
pub use model::agree_on;
pub use proof::{Proof, ProofError, Proven};
pub use receipt::{Receipt, ReceiptError};
pub use reject::{Discard, Failure, Rejection};
pub use snapshot::SnapshotError;
pub use state::{Simulated, State};
pub use tree::Step;
