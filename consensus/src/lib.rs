//! Tally's agreement protocol as a state machine without I/O.
//!
//! The face of this crate is [`Machine::handle`]: events in, actions out. The same events give the same actions, byte for
//! byte, on every machine. It neither signs nor checks signatures nor touches a disk: events bring verified messages,
//! admitted transactions, finished executions and the time; actions ask to persist, sign, send, fetch and execute.
//!
//! **Contract with whoever drives it.** Actions are carried out in order, and all [`Action::Persist`] of a turn are
//! durable before any other action of that turn is begun: that is the whole of "durable before sent". What
//! [`Action::Sign`] asks for is signed, sent to every validator, and handed back as [`Event::Own`].
//!
//! The rules are those of `docs/protocol.md`; code and tests name them by number (`// Rule P3: …`). [`Agreement`] is the
//! part that decides (rules P, V, C, S3): `Clone + Eq + Hash`, for a model checker. `Lanes` spreads transactions (rules
//! D). [`Machine`] joins both with the chain of headers, timers, execution and catch-up (rules W, S, R).

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

mod agreement;
mod chain;
mod config;
mod event;
mod evidence;
mod lanes;
mod machine;
mod record;
mod tally;
mod unsigned;
mod verify;

pub use agreement::{Agreement, Output};
pub use config::{BLOCK_BATCHES_MAX, Config, Voting};
pub use event::{Action, Alarm, Event, Fetch, FetchedBlock, Kept, Message, Now, Order, Reject, Status};
pub use evidence::{Evidence, EvidenceKind};
pub use machine::Machine;
pub use record::{Record, RecordError, ReplayError};
pub use unsigned::Unsigned;
pub use verify::{Judgement, Sets};
