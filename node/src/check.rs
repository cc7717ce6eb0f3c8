//! A home looked at while its node is down: opened and taken back as a start would, and then every page of the index.
//!
//! It mends what a start mends and signs nothing.

use std::path::Path;

use tally_consensus::Voting;
use tally_types::header::Executed;

use crate::{
    config::NodeConfig,
    opening::{self, Identity, Opened, identify},
    run::NodeError,
    store::{index::Index, journal::Recovered},
};

/// What a check found: a home that a node can start from.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The chain's name.
    pub chain_id: String,
    /// Highest final height.
    pub final_height: u64,
    /// Up to where it is executed here, and what that led to.
    pub executed: Executed,
    /// What the journal's opening found, and mended.
    pub recovered: Recovered,
    /// Blocks of the index.
    pub indexed: u64,
    /// Height of the state snapshot that was used; 0: none.
    pub snapshot: u64,
    /// Whether a start would sign.
    pub voting: Voting,
}

/// Checks the home of a node that is not running.
///
/// # Errors
/// What a start would end with before it opens ports and evidence, and an index of which a page does not check. Where pages
/// did not check but redb could put them right, it has, and says so only once.
pub fn check(folder: &Path, config: &NodeConfig) -> Result<Checked, NodeError> {
    // Until the end: it holds the lock.
    let Identity { home, genesis, me, .. } = identify(folder, config)?;
    let Opened { machine, executor, index, recovered, covered, .. } =
        opening::open(home.folder(), &genesis, config, me, false)?;
    let status = machine.status();
    let checked = Checked {
        chain_id: genesis.chain.id.clone(),
        final_height: status.final_height.0,
        executed: executor.ledger().executed(),
        recovered,
        indexed: index.height()?.unwrap_or(0),
        snapshot: covered.0,
        voting: machine.voting(),
    };
    executor.close()?;
    drop(index);
    Index::open(&home.index_file(), &genesis.chain.genesis_hash.0)?.verify()?;
    Ok(checked)
}
