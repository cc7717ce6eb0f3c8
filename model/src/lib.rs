//! A model check of [`tally_consensus::Agreement`], the part of Tally that decides.
//!
//! The validators of the model are real agreements; what drives them here mirrors `Machine`, and names the code it
//! mirrors. [`network`] says what the network and the Byzantine validator can do, [`turn`] what an honest validator can,
//! [`validator`] what a crash leaves, [`healing`] what "a commit is reachable" means, [`mutant`] which mistakes must be
//! found. docs/model.md has the configurations and the figures.

#![forbid(unsafe_code)]

pub mod block;
pub mod config;
pub mod evidence;
pub mod healing;
pub mod interner;
pub mod mutant;
pub mod network;
pub mod replica;
pub mod turn;
pub mod validator;
pub mod world;
