//! What a node says about its chain, and whether that is the pinned one.

use std::time::{Duration, SystemTime};

use tally_proto::v1;
use tally_types::{Amount, Hash, genesis::Chain};
use thiserror::Error;

use crate::{config::Network, output::clean, token::Token};

/// Longest expiry of a chain, seconds: a hundred years.
const EXPIRY_SECONDS_MAX: i64 = 100 * 366 * 24 * 3600;
/// Last second of the year 9999.
const TIME_SECONDS_MAX: i64 = 253_402_300_799;

/// What a node says about its chain.
#[derive(Clone, Debug)]
pub struct ChainView {
    /// Id and genesis hash.
    pub chain: Chain,
    /// How amounts are written.
    pub token: Token,
    /// Fee of one operation.
    pub base_fee: Amount,
    /// Least opening balance.
    pub min_opening_balance: Amount,
    /// Greatest distance of an expire time from the latest block.
    pub max_expiry: Duration,
    /// Time of the latest block.
    pub latest_block_time: SystemTime,
    /// The whole answer.
    pub info: v1::GetChainInfoResponse,
}

/// The node follows another chain than the pinned one, or lies about it.
#[derive(Debug, Error)]
#[error("{node} is not on the network {network:?}: its {field} is {got}, pinned is {pinned}")]
pub struct ChainError {
    /// The node.
    pub node: String,
    /// Name of the network, or "--genesis-hash".
    pub network: String,
    /// What differs.
    pub field: &'static str,
    /// What it should be.
    pub pinned: String,
    /// What the node says.
    pub got: String,
}

impl ChainView {
    /// Reads an answer of GetChainInfo.
    pub fn read(info: v1::GetChainInfoResponse) -> Result<ChainView, &'static str> {
        let genesis_hash = Hash::from_hex(&info.genesis_hash).ok_or("the genesis hash is not 64 hex digits")?;
        let params = info.params.as_ref().ok_or("the chain's parameters are missing")?;
        let token = Token::new(&params.symbol, params.decimals).ok_or("symbol or decimals are out of bounds")?;
        let latest_block_time =
            info.latest_block_time.filter(|time| (0..=TIME_SECONDS_MAX).contains(&time.seconds)).and_then(time);
        let latest_block_time = latest_block_time.ok_or("the time of the latest block is missing or out of bounds")?;
        // Beyond these, sums of times would be none.
        let max_expiry = params.max_expiry.filter(|limit| (0..=EXPIRY_SECONDS_MAX).contains(&limit.seconds));
        let max_expiry = max_expiry.and_then(|limit| Duration::try_from(limit).ok());
        Ok(ChainView {
            chain: Chain { id: info.chain_id.clone(), genesis_hash },
            token,
            base_fee: Amount(params.base_fee),
            min_opening_balance: Amount(params.min_opening_balance),
            max_expiry: max_expiry.ok_or("the greatest expiry is missing or out of bounds")?,
            latest_block_time,
            info,
        })
    }

    /// This chain, to be pinned.
    pub fn pin(&self, node: &str) -> Network {
        Network {
            node: node.to_owned(),
            chain_id: self.chain.id.clone(),
            genesis_hash: self.chain.genesis_hash.to_string(),
            symbol: self.token.symbol().to_owned(),
            decimals: self.token.places(),
        }
    }

    /// Whether this is what `network`, called `name`, is pinned to.
    pub fn check(&self, node: &str, name: &str, network: &Network) -> Result<(), ChainError> {
        let got = self.pin(&network.node);
        let pairs = [
            ("genesis hash", &network.genesis_hash, &got.genesis_hash),
            ("chain id", &network.chain_id, &got.chain_id),
            ("token symbol", &network.symbol, &got.symbol),
            ("number of decimals", &network.decimals.to_string(), &got.decimals.to_string()),
        ];
        match pairs.into_iter().find(|(_, pinned, got)| pinned != got) {
            None => Ok(()),
            Some((field, pinned, got)) => Err(ChainError {
                node: node.to_owned(),
                network: name.to_owned(),
                field,
                pinned: pinned.clone(),
                got: clean(got),
            }),
        }
    }
}

/// A timestamp as a time, when it is one.
pub fn time(timestamp: prost_types::Timestamp) -> Option<SystemTime> {
    SystemTime::try_from(timestamp).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> v1::GetChainInfoResponse {
        let genesis_hash = Hash::of(b"genesis").to_string();
        v1::GetChainInfoResponse {
            chain_id: format!("local-{}", &genesis_hash[..8]),
            genesis_hash,
            latest_block_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            params: Some(v1::ChainParams {
                symbol: "TALLY".into(),
                decimals: 9,
                max_expiry: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn another_chain_and_another_token_are_refused() {
        let view = ChainView::read(info()).unwrap();
        let pinned = view.pin("http://n:1");
        assert!(view.check("http://other:1", "local", &pinned).is_ok(), "another node of the same chain");
        let differs = |change: fn(&mut v1::GetChainInfoResponse)| {
            let mut other = info();
            change(&mut other);
            ChainView::read(other).unwrap().check("http://n:1", "local", &pinned).unwrap_err().field
        };
        assert_eq!(differs(|info| info.genesis_hash = Hash::of(b"other").to_string()), "genesis hash");
        assert_eq!(differs(|info| info.chain_id.push('x')), "chain id");
        assert_eq!(differs(|info| info.params.as_mut().unwrap().symbol = "GOLD".into()), "token symbol");
        assert_eq!(differs(|info| info.params.as_mut().unwrap().decimals = 0), "number of decimals");
    }

    #[test]
    fn times_that_no_clock_has_are_refused() {
        type Change = fn(&mut v1::GetChainInfoResponse);
        let changes: [Change; 4] = [
            |info| info.params.as_mut().unwrap().max_expiry.as_mut().unwrap().seconds = i64::MAX,
            |info| info.params.as_mut().unwrap().max_expiry.as_mut().unwrap().seconds = i64::MIN,
            |info| info.latest_block_time.as_mut().unwrap().seconds = i64::MAX,
            |info| info.latest_block_time.as_mut().unwrap().seconds = i64::MIN,
        ];
        for change in changes {
            let mut info = info();
            change(&mut info);
            assert!(ChainView::read(info).is_err());
        }
    }
}
