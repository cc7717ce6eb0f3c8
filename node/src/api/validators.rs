//! ValidatorService: who votes, who leads, who was caught.
//!
//! Validator sets do not change yet: every epoch has that of genesis.

use std::cmp::Reverse;

use tally_consensus::{Evidence, EvidenceKind};
use tally_proto::v1::{self, ErrorReason, ValidatorState, validator_service_server::ValidatorService};
use tally_types::{Epoch, Hash, View};
use tonic::{Request, Response, Status};

use super::{
    Api, address_in,
    errors::Refusal,
    limits::{LEADER_SLOTS_DEFAULT, LEADER_SLOTS_MAX},
    pages::{Query, number_at, page_of, page_size, position_of},
    render::choice,
};

#[tonic::async_trait]
impl ValidatorService for Api {
    async fn get_validator(
        &self,
        request: Request<v1::GetValidatorRequest>,
    ) -> Result<Response<v1::GetValidatorResponse>, Status> {
        let address = address_in("address", &request.into_inner().address)?;
        let place = self.shared().genesis.validators.place_of(&address);
        let validator = place.and_then(|place| self.validator(place)).ok_or_else(|| {
            let message = format!("{address} is not the operator account of a validator");
            Refusal::new(ErrorReason::ValidatorNotFound, message).with("validator", address)
        })?;
        Ok(Response::new(v1::GetValidatorResponse { validator: Some(validator) }))
    }

    async fn list_validators(
        &self,
        request: Request<v1::ListValidatorsRequest>,
    ) -> Result<Response<v1::ListValidatorsResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size, 100, 1000)?;
        let state: ValidatorState = choice("state", request.state)?;
        let asked = v1::ListValidatorsRequest { page_size: 0, page_token: String::new(), ..request };
        let query = Query::new("ListValidators", &self.shared().genesis.chain.genesis_hash, &asked);
        let skip = number_at(query.position(&request.page_token)?);
        let set = &self.shared().genesis.validators;
        let mut all: Vec<_> = set.places().filter_map(|place| self.validator(place)).collect();
        all.retain(|validator| state == ValidatorState::Unspecified || validator.state() == state);
        // Those of equal power stay in the order of the set.
        all.sort_by_key(|validator| Reverse(validator.voting_power));
        let (validators, next) = page_of(&all, skip, size);
        Ok(Response::new(v1::ListValidatorsResponse {
            validators,
            next_page_token: next.map(|next| query.token(&position_of(next))).unwrap_or_default(),
            total_voting_power: set.total().0,
            quorum_voting_power: set.quorum().0,
            epoch: self.standing().status.epoch.0,
        }))
    }

    async fn get_leader_schedule(
        &self,
        request: Request<v1::GetLeaderScheduleRequest>,
    ) -> Result<Response<v1::GetLeaderScheduleResponse>, Status> {
        let request = request.into_inner();
        let standing = self.standing();
        let epoch = standing.status.epoch;
        let from = if request.from_view == 0 { standing.status.view.max(View(1)) } else { View(request.from_view) };
        let count = if request.count == 0 { LEADER_SLOTS_DEFAULT } else { request.count.min(LEADER_SLOTS_MAX) };
        let seed = self.leader_seed(epoch).await?;
        let set = &self.shared().genesis.validators;
        let leader = |view: View| set.get(set.leader(&seed, epoch, view)).map(|member| member.address.to_string());
        let views = (0..u64::from(count)).map_while(|ahead| from.0.checked_add(ahead));
        let slots = views.map(|view| v1::LeaderSlot { view, leader: leader(View(view)).unwrap_or_default() });
        Ok(Response::new(v1::GetLeaderScheduleResponse {
            slots: slots.collect(),
            epoch: epoch.0,
            epoch_end_height: last_height(epoch, self.shared().genesis.params.epoch_blocks),
        }))
    }

    async fn list_evidence(
        &self,
        request: Request<v1::ListEvidenceRequest>,
    ) -> Result<Response<v1::ListEvidenceResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size, 50, 1000)?;
        let query = Query::new("ListEvidence", &self.shared().genesis.chain.genesis_hash, &());
        let skip = number_at(query.position(&request.page_token)?);
        // One more, to know whether there is a next page. The book only grows.
        let found = self.shared().evidence.list(skip, size.saturating_add(1));
        let all: Vec<_> = found.iter().map(evidence).collect();
        let (evidence, next) = page_of(&all, 0, size);
        let next = next.map(|next| query.token(&position_of(skip.saturating_add(next))));
        Ok(Response::new(v1::ListEvidenceResponse { evidence, next_page_token: next.unwrap_or_default() }))
    }
}

impl Api {
    fn validator(&self, place: u32) -> Option<v1::Validator> {
        let genesis = &self.shared().genesis;
        let member = genesis.validators.get(place)?;
        let moniker = usize::try_from(place).ok().and_then(|place| genesis.monikers.get(place));
        Some(v1::Validator {
            address: member.address.to_string(),
            consensus_public_key: member.key.to_string(),
            moniker: moniker.cloned().unwrap_or_default(),
            state: ValidatorState::Active.into(),
            voting_power: member.stake.0,
        })
    }

    /// What the leaders of `epoch` are drawn from: the last block of the epoch before the one before; genesis for the
    /// first two.
    async fn leader_seed(&self, epoch: Epoch) -> Result<Hash, Refusal> {
        let genesis = &self.shared().genesis;
        let Some(source) = epoch.0.checked_sub(2) else { return Ok(genesis.chain.genesis_hash) };
        let height = last_height(Epoch(source), genesis.params.epoch_blocks);
        let block = self.read(move |index| Ok(index.block(height)?)).await?;
        block.map(|block| Hash(block.hash)).ok_or_else(|| {
            let message =
                format!("block {height}, which the leaders of epoch {epoch} are drawn from, is not executed yet");
            Refusal::new(ErrorReason::NodeSyncing, message)
                .with("height", self.latest().height)
                .with("highest_seen_height", self.standing().status.highest_seen)
        })
    }
}

/// Last height of an epoch.
fn last_height(epoch: Epoch, epoch_blocks: u64) -> u64 {
    epoch.next().0.saturating_mul(epoch_blocks)
}

fn evidence(evidence: &Evidence) -> v1::Evidence {
    let kind = match evidence.kind {
        EvidenceKind::DoubleProposal => v1::EvidenceKind::DoubleProposal,
        EvidenceKind::DoublePrepare => v1::EvidenceKind::DoublePrepare,
        EvidenceKind::DoubleCommit => v1::EvidenceKind::DoubleCommit,
        EvidenceKind::DoubleViewChange => v1::EvidenceKind::DoubleViewChange,
        EvidenceKind::HiddenCommit => v1::EvidenceKind::HiddenCommit,
        EvidenceKind::DoubleBatch => v1::EvidenceKind::DoubleBatch,
    };
    v1::Evidence {
        validator: evidence.validator.to_string(),
        kind: kind.into(),
        epoch: evidence.epoch.0,
        view: evidence.number,
        first_signed_bytes: evidence.first.0.as_bytes().to_vec(),
        first_signature: evidence.first.1.0.to_vec(),
        second_signed_bytes: evidence.second.0.as_bytes().to_vec(),
        second_signature: evidence.second.1.0.to_vec(),
    }
}
