//! What a transaction would do, before anybody signs it.

use std::time::Duration;

use prost::Message as _;
use tally_ledger::{Failure, Rejection};
use tally_proto::v1;
use tally_types::{Nonce, body::Body, transaction::TransactionError};

use super::{
    Api, address_in,
    errors::{self, Refusal},
    local_time,
    render::timestamp,
};

/// How far ahead a transaction expires whose body does not say, unless half of what the chain allows is less: blocks'
/// time may be behind the clock.
const EXPIRE_IN: Duration = Duration::from_secs(10 * 60);

impl Api {
    /// Fills in what the body leaves open and works out on the latest state what it would come to.
    pub(super) fn simulate(&self, body: v1::TransactionBody) -> Result<v1::SimulateTransactionResponse, Refusal> {
        let latest = self.latest();
        let now = local_time().max(latest.time);
        let chain = &self.shared().genesis.chain;
        let state = latest.ledger.state();
        let sender = address_in("body.sender", &body.sender)?;
        let pending = self.shared().admission.next_nonce(&sender);

        let mut body = body;
        if body.chain_id.is_empty() {
            body.chain_id.clone_from(&chain.id);
        }
        if body.nonce == 0 {
            let next = state.account(&sender).map_or(Nonce(1), |account| account.nonces.next());
            body.nonce = pending.map_or(next, |pending| pending.max(next)).0;
        }
        if body.expire_time.is_none() {
            let ahead = u64::try_from(EXPIRE_IN.as_millis()).unwrap_or(u64::MAX).min(state.params().max_expiry_ms / 2);
            body.expire_time = Some(timestamp(now.plus(ahead)));
        }
        if body.max_fee == 0 {
            body.max_fee = state.fee(body.operations.len()).0;
        }

        let parsed = Body::parse(&body.encode_to_vec()).map_err(|error| errors::body("body", &error))?;
        if parsed.chain_id != chain.id {
            let (expected, got) = (chain.id.clone(), parsed.chain_id);
            return Err(TransactionError::OtherChain { expected, got }.into());
        }
        self.shared().admission.ensure_free(&sender, parsed.nonce)?;
        let highest_admitted = pending.and_then(Nonce::previous).unwrap_or_default();
        let simulated = state.simulate(now, highest_admitted, &parsed).map_err(Rejection::from)?;
        let mut receipt =
            v1::Receipt { result: v1::ExecutionResult::Ok.into(), fee: simulated.fee.0, ..Default::default() };
        let failure = simulated.result.err().map(|(operation, failure): (u32, Failure)| {
            receipt.result = v1::ExecutionResult::Failed.into();
            receipt.failed_operation = operation;
            receipt.failure_reason = failure.reason().to_owned();
            Refusal::from(Rejection::Failure { operation, failure }).detail()
        });
        Ok(v1::SimulateTransactionResponse {
            body: Some(body),
            receipt: Some(receipt),
            failure,
            sender_balance_before: simulated.balance_before.0,
            sender_balance_after: simulated.balance_after.0,
            height: latest.height.0,
        })
    }
}
