//! N real machines in one deterministic world: one seed, one thread, virtual time, no socket and no sleep.
//!
//! The world replaces driver, disk, network, clock and keys, and leaves the machine untouched. Everything random is drawn
//! from the seed, so a failing seed is a program to replay: `SIM_SEED=7 cargo test --test sim one_seed -- --nocapture`.

mod rng;
mod scenarios;
mod world;
