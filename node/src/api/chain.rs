//! ChainService: what never changes, and how far the chain is.

use tally_proto::v1::{self, chain_service_server::ChainService};
use tonic::{Request, Response, Status};

use super::{
    Api,
    errors::Refusal,
    limits::GENESIS_CHUNK_BYTES,
    render::{duration, timestamp},
};

#[tonic::async_trait]
impl ChainService for Api {
    async fn get_chain_info(
        &self,
        _: Request<v1::GetChainInfoRequest>,
    ) -> Result<Response<v1::GetChainInfoResponse>, Status> {
        let earliest_height = self.earliest_height().await?;
        let (genesis, latest) = (&self.shared().genesis, self.latest());
        let params = v1::ChainParams {
            symbol: genesis.symbol.clone(),
            decimals: genesis.decimals.places(),
            total_supply: genesis.total_supply.0,
            base_fee: genesis.params.base_fee,
            min_opening_balance: genesis.params.min_opening_balance,
            max_expiry: Some(duration(genesis.params.max_expiry_ms)),
            epoch_blocks: genesis.params.epoch_blocks,
            min_validator_stake: genesis.params.min_validator_stake,
            idle_interval: Some(duration(genesis.params.idle_interval_ms)),
        };
        Ok(Response::new(v1::GetChainInfoResponse {
            chain_id: genesis.chain.id.clone(),
            genesis_hash: genesis.chain.genesis_hash.to_string(),
            latest_height: latest.height.0,
            latest_block_time: Some(timestamp(latest.time)),
            earliest_height,
            params: Some(params),
        }))
    }

    async fn get_genesis(
        &self,
        request: Request<v1::GetGenesisRequest>,
    ) -> Result<Response<v1::GetGenesisResponse>, Status> {
        let genesis = &self.shared().genesis;
        let wanted = request.into_inner().chunk;
        let chunks = genesis.bytes.chunks(GENESIS_CHUNK_BYTES);
        let chunk_count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let chunk = genesis.bytes.chunks(GENESIS_CHUNK_BYTES).nth(usize::try_from(wanted).unwrap_or(usize::MAX));
        let data = chunk.ok_or_else(|| {
            Refusal::field(
                "chunk",
                format!("is {wanted}, the genesis file has chunks 0 to {}", chunk_count.saturating_sub(1)),
            )
        })?;
        let genesis_hash = genesis.chain.genesis_hash.to_string();
        Ok(Response::new(v1::GetGenesisResponse { data: data.to_vec(), chunk_count, genesis_hash }))
    }
}

impl Api {
    /// Lowest height this node holds; 1 on a chain without blocks.
    pub(super) async fn earliest_height(&self) -> Result<u64, Refusal> {
        self.read(|index| Ok(index.blocks(0, u64::MAX, 1)?.first().map_or(1, |block| block.height))).await
    }
}
