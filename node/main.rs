//! `tally-node`: see the crate `tally-node`. This binary only introduces node and wallet to each other, for `localnet`.

use std::process::ExitCode;

use tally_node::cli::{Failure, WalletPlan};
use tally_wallet::{
    config::{Config, Network},
    keystore::{KdfParams, Keystore},
};

fn main() -> ExitCode {
    tally_node::cli::main(write_wallet)
}

fn write_wallet(plan: &WalletPlan<'_>) -> Result<(), Failure> {
    let keystore = Keystore::open(plan.folder.join("keys"));
    for (name, secret) in &plan.keys {
        keystore.create(name, secret, plan.passphrase, KdfParams::LOCALNET)?;
    }
    let mut config = Config::load(plan.folder)?;
    config.from = plan.keys.first().map(|(name, _)| (*name).to_owned());
    let network = Network {
        node: plan.node.clone(),
        chain_id: plan.chain.id.clone(),
        genesis_hash: plan.chain.genesis_hash.to_string(),
        symbol: plan.symbol.to_owned(),
        decimals: plan.decimals,
    };
    config.add_network(plan.network, network)?;
    config.use_network(plan.network)?;
    Ok(config.save(plan.folder)?)
}
