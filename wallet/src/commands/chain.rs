//! `chain info`.

use tally_types::Amount;

use super::{Context, rows};
use crate::{error::WalletError, json, output::rfc3339};

/// Shows what the node says about its chain.
pub async fn info(context: &Context) -> Result<(), WalletError> {
    let (chosen, _, chain) = context.connect().await?;
    let supply = chain.info.params.as_ref().map(|params| params.total_supply).unwrap_or_default();
    let text = rows(&[
        ("chain", crate::output::clean(&chain.chain.id)),
        ("genesis", chain.chain.genesis_hash.to_string()),
        ("node", chosen.node),
        ("height", chain.info.latest_height.to_string()),
        ("block time", rfc3339(chain.latest_block_time)),
        ("held from", chain.info.earliest_height.to_string()),
        ("supply", chain.token.show(Amount(supply))),
        ("decimals", chain.token.places().to_string()),
        ("fee", format!("{} per operation", chain.token.show(chain.base_fee))),
        ("opening", format!("at least {}", chain.token.show(chain.min_opening_balance))),
        ("max expiry", humantime::format_duration(chain.max_expiry).to_string()),
    ]);
    context.output.result(&text, &json::chain_info(&chain.info))
}
