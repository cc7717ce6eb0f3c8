//! `chain info|block|validators|leaders`.

use serde_json::json;
use tally_types::{Amount, Hash};

use super::{Context, refuse_secret, rows};
use crate::{
    cli::groups::ChainCommand,
    client::{BlockId, time},
    error::{UsageError, WalletError},
    json,
    output::{clean, rfc3339},
};

/// Carries out a command about the chain.
pub async fn run(context: &Context, command: ChainCommand) -> Result<(), WalletError> {
    match command {
        ChainCommand::Info => info(context).await,
        ChainCommand::Block { block, full } => self::block(context, &block, full).await,
        ChainCommand::Validators => validators(context).await,
        ChainCommand::Leaders { count } => leaders(context, count).await,
    }
}

/// Shows what the node says about its chain.
async fn info(context: &Context) -> Result<(), WalletError> {
    let session = context.connect().await?;
    let chain = &session.chain;
    let supply = chain.info.params.as_ref().map(|params| params.total_supply).unwrap_or_default();
    let text = rows(&[
        ("chain", clean(&chain.chain.id)),
        ("genesis", chain.chain.genesis_hash.to_string()),
        ("node", session.nodes.name()),
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

fn block_id(text: &str) -> Result<BlockId, UsageError> {
    if text == "latest" {
        return Ok(BlockId::Latest);
    }
    if let Some(hash) = Hash::from_hex(text) {
        return Ok(BlockId::Hash(hash));
    }
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let height = text.parse().ok().filter(|_| digits);
    height.map(BlockId::Height).ok_or_else(|| UsageError::NotABlock(clean(text)))
}

async fn block(context: &Context, text: &str, full: bool) -> Result<(), WalletError> {
    let id = match block_id(text) {
        Ok(id) => id,
        Err(error) => {
            refuse_secret(text)?;
            return Err(error.into());
        }
    };
    let session = context.connect().await?;
    let block = session.nodes.block(&id, full, session.chain.info.latest_height).await?;
    let header = block.header.clone().unwrap_or_default();
    let mut lines = vec![
        ("height", header.height.to_string()),
        ("hash", clean(&block.block_hash)),
        ("parent", clean(&header.parent_hash)),
        ("time", header.block_time.and_then(time).map(rfc3339).unwrap_or_default()),
        ("proposer", clean(&header.proposer)),
        ("epoch", header.epoch.to_string()),
        ("view", header.view.to_string()),
        ("state root", format!("{} (after height {})", clean(&header.state_root), header.executed_height)),
        ("transactions", block.tx_ids.len().to_string()),
    ];
    if full && let Some(certificate) = &block.certificate {
        lines.push(("votes", format!("{} in view {}", certificate.signatures.len(), certificate.view)));
    }
    lines.extend(block.tx_ids.iter().map(|id| ("", clean(id))));
    context.output.result(&rows(&lines), &json::block(&block))
}

async fn validators(context: &Context) -> Result<(), WalletError> {
    let session = context.connect().await?;
    let answer = session.nodes.validators().await?;
    let token = &session.chain.token;
    let mut text = String::new();
    for validator in &answer.validators {
        let state = validator.state().as_str_name().trim_start_matches("VALIDATOR_STATE_").to_lowercase();
        let percent =
            u128::from(validator.voting_power).saturating_mul(1000) / u128::from(answer.total_voting_power.max(1));
        text.push_str(&format!(
            "{}  {}  {}.{} %  {state}  {}\n",
            clean(&validator.address),
            token.show(Amount(validator.voting_power)),
            percent / 10,
            percent % 10,
            clean(&validator.moniker)
        ));
    }
    text.push_str(&format!(
        "epoch {}, total {}, a quorum is {}",
        answer.epoch,
        token.show(Amount(answer.total_voting_power)),
        token.show(Amount(answer.quorum_voting_power))
    ));
    context.output.result(&text, &json::validators(&answer))
}

async fn leaders(context: &Context, count: u32) -> Result<(), WalletError> {
    let session = context.connect().await?;
    // Several nodes work on views that differ by one or two: the block that they agree on says where to begin.
    let from_view = match session.nodes.all().count() {
        1 => 0,
        _ => {
            let block = session.nodes.block(&BlockId::Latest, false, session.chain.info.latest_height).await?;
            block.header.map(|header| header.view).unwrap_or_default().saturating_add(1)
        }
    };
    let answer = session.nodes.leaders(from_view, count).await?;
    let mut text = String::new();
    for slot in &answer.slots {
        let name = slot.leader.parse().ok().and_then(|address| context.book().name_of(&address));
        let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
        text.push_str(&format!("{}  {}{name}\n", slot.view, clean(&slot.leader)));
    }
    text.push_str(&format!("epoch {}, up to height {}", answer.epoch, answer.epoch_end_height));
    let slots: Vec<_> =
        answer.slots.iter().map(|slot| json!({ "view": slot.view.to_string(), "leader": slot.leader })).collect();
    let json = json!({
        "slots": slots,
        "epoch": answer.epoch.to_string(),
        "epochEndHeight": answer.epoch_end_height.to_string(),
    });
    context.output.result(&text, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_named_by_height_hash_or_latest() {
        assert!(matches!(block_id("latest"), Ok(BlockId::Latest)));
        assert!(matches!(block_id("0"), Ok(BlockId::Height(0))));
        assert!(matches!(block_id(&"a".repeat(64)), Ok(BlockId::Hash(_))));
        for text in ["", "-1", "+1", "1.5", "18446744073709551616", "Latest", "0x10"] {
            assert!(matches!(block_id(text), Err(UsageError::NotABlock(_))), "{text}");
        }
    }
}
