//! A home looked at while its node is down.

use clap::Args;
use tally_consensus::Voting;

use super::{Failure, HomeOption};
use crate::{
    check::{self, Checked},
    config::NodeConfig,
    words::say,
};

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    home: HomeOption,
    /// How to print it.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let folder = &options.home.home;
    let checked = check::check(folder, &NodeConfig::load(folder)?)?;
    let Checked { chain_id, final_height, executed, recovered, indexed, snapshot, voting } = checked;
    let mended = recovered.repaired.len() as u64 + u64::from(recovered.headers_repaired + recovered.litter_cut);
    let cut = recovered.cut.as_ref().map_or(0, |cut| cut.bytes);
    if options.output == "json" {
        let json = serde_json::json!({
            "chainId": chain_id,
            "finalHeight": final_height.to_string(),
            "executedHeight": executed.height.to_string(),
            "stateRoot": executed.state_root.to_string(),
            "receiptsRoot": executed.receipts_root.to_string(),
            "journalRecords": recovered.records.to_string(),
            "journalMended": mended.to_string(),
            "journalTailBytesCut": cut.to_string(),
            "journalRecordsLost": recovered.records_lost.to_string(),
            "indexedHeight": indexed.to_string(),
            "snapshotHeight": snapshot.to_string(),
            "signs": voting == Voting::Allowed,
        });
        say!("{json}");
        return Ok(());
    }
    say!("chain       {chain_id}");
    say!("height      {} executed, {final_height} final", executed.height);
    say!("state       {}", executed.state_root);
    say!("receipts    {}", executed.receipts_root);
    say!("journal     {} records in {} segments", recovered.records, recovered.segments);
    if mended > 0 || cut > 0 {
        say!("mended      {mended} places in the journal, {cut} bytes of a torn tail cut off");
    }
    if recovered.records_lost > 0 {
        say!("lost        {} batches or results; they come again from peers, or by executing", recovered.records_lost);
    }
    say!("index       {indexed} blocks, every page checks");
    match snapshot {
        0 => say!("snapshot    none used"),
        height => say!("snapshot    of height {height}"),
    }
    match voting {
        Voting::Allowed => say!("validator   signs"),
        Voting::From(Some(epoch)) => say!("validator   follows, and signs from epoch {epoch} on"),
        Voting::From(None) => say!("validator   follows: its journal is lost or restored"),
    }
    Ok(())
}
