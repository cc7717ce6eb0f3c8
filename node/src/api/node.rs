//! NodeService: the node that answers.

use prost_types::Timestamp;
use tally_proto::v1::{self, SyncState, node_service_server::NodeService};
use tonic::{Request, Response, Status};

use super::{
    Api,
    limits::{STALLED_IDLE_INTERVALS, SYNCED_BEHIND_BLOCKS_MAX},
    local_time,
    pages::{Query, number_at, page_of, page_size, position_of},
    render::timestamp,
};
use crate::context::PeerStanding;

#[tonic::async_trait]
impl NodeService for Api {
    async fn get_node_status(
        &self,
        _: Request<v1::GetNodeStatusRequest>,
    ) -> Result<Response<v1::GetNodeStatusResponse>, Status> {
        let (shared, latest, standing) = (self.shared(), self.latest(), self.standing());
        let connected = standing.peers.iter().filter(|peer| peer.connected).count();
        let voter = shared.me.filter(|me| shared.genesis.validators.place_of(me).is_some());
        let voter = voter.filter(|_| standing.observer_reason.is_empty());
        let status = &standing.status;
        Ok(Response::new(v1::GetNodeStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node_id: shared.key.to_string(),
            chain_id: shared.genesis.chain.id.clone(),
            sync_state: self.sync_state().into(),
            latest_height: latest.height.max(status.final_height).0,
            highest_seen_height: status.highest_seen.max(status.final_height).max(latest.height).0,
            latest_block_time: Some(timestamp(latest.time.max(status.final_time))),
            current_view: status.view.0,
            validator: voter.map(|me| me.to_string()).unwrap_or_default(),
            peer_count: u32::try_from(connected).unwrap_or(u32::MAX),
            mempool_size: u32::try_from(shared.admission.len()).unwrap_or(u32::MAX),
            start_time: Some(Timestamp::from(shared.started)),
            current_epoch: status.epoch.0,
            executed_height: latest.height.0,
            observer_reason: standing.observer_reason.clone(),
            rejected_messages: standing.rejected.iter().map(|(reason, count)| (reason.clone(), *count)).collect(),
        }))
    }

    async fn list_peers(
        &self,
        request: Request<v1::ListPeersRequest>,
    ) -> Result<Response<v1::ListPeersResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size, 100, 1000)?;
        let query = Query::new("ListPeers", &self.shared().genesis.chain.genesis_hash, &());
        let skip = number_at(query.position(&request.page_token)?);
        // The other validators are configured: their number and order do not change while a node runs.
        let mut standing: Vec<_> = self.standing().peers.clone();
        standing.sort_by_key(|peer| peer.address);
        let peers: Vec<_> = standing.iter().map(peer).collect();
        let (peers, next) = page_of(&peers, skip, size);
        let next_page_token = next.map(|next| query.token(&position_of(next))).unwrap_or_default();
        Ok(Response::new(v1::ListPeersResponse { peers, next_page_token }))
    }
}

impl Api {
    /// What the node is doing.
    pub(super) fn sync_state(&self) -> SyncState {
        let (latest, standing) = (self.latest(), self.standing());
        if standing.status.highest_seen.above(latest.height) > SYNCED_BEHIND_BLOCKS_MAX {
            return SyncState::CatchingUp;
        }
        let idle = self.shared().genesis.params.idle_interval_ms;
        let silence = local_time().above(latest.time.max(standing.status.final_time));
        match silence > idle.saturating_mul(STALLED_IDLE_INTERVALS) {
            true => SyncState::Stalled,
            false => SyncState::Synced,
        }
    }
}

fn peer(peer: &PeerStanding) -> v1::Peer {
    v1::Peer {
        node_id: peer.key.to_string(),
        address: peer.endpoint.clone(),
        validator: peer.address.to_string(),
        connected: peer.connected,
        latest_height: peer.final_height.0,
    }
}
