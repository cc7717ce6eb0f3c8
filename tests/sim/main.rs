//! N real machines in one deterministic world: one seed, one thread, virtual time, no socket and no sleep.
//!
//! The world replaces driver, disk, network, clock and keys, and leaves machine, journal and ledger untouched. Everything
//! random is drawn from the seed, so a failing seed is a program to replay: it prints the command. `docs/testing.md` says
//! what is checked and how to run a campaign.

mod byzantine;
mod campaign;
mod checkers;
mod clients;
mod convictions;
mod disks;
mod forks;
mod keys;
mod marks;
mod misbehaviour;
mod network;
mod node;
mod regressions;
mod rng;
mod scenarios;
mod setup;
mod storage;
mod trace;
mod turns;
mod twins;
mod world;
