//! Messages as proto-JSON writes them: lowerCamelCase names, 64-bit numbers as strings, enums by name, times in RFC 3339.
//! Unlike proto-JSON, a field is written also when it is zero, so that scripts need no defaults.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tally_proto::v1;

use crate::{client::time, output::rfc3339};

/// A timestamp, or null.
pub fn timestamp(timestamp: Option<prost_types::Timestamp>) -> Value {
    timestamp.and_then(time).map_or(Value::Null, |time| rfc3339(time).into())
}

/// A duration: seconds with an "s".
pub fn duration(duration: Option<prost_types::Duration>) -> Value {
    duration.map_or(Value::Null, |duration| match duration.nanos {
        0 => format!("{}s", duration.seconds).into(),
        nanos => format!("{}.{:09}s", duration.seconds, nanos.unsigned_abs()).into(),
    })
}

/// An account.
pub fn account(account: &v1::Account) -> Value {
    json!({
        "address": account.address,
        "balance": account.balance.to_string(),
        "nextNonce": account.next_nonce.to_string(),
        "pendingNonce": account.pending_nonce.to_string(),
        "creator": account.creator,
        "createdHeight": account.created_height.to_string(),
    })
}

/// A receipt.
pub fn receipt(receipt: &v1::Receipt) -> Value {
    json!({
        "result": receipt.result().as_str_name(),
        "failureReason": receipt.failure_reason,
        "failedOperation": receipt.failed_operation,
        "fee": receipt.fee.to_string(),
        "height": receipt.height.to_string(),
        "blockHash": receipt.block_hash,
        "index": receipt.index,
        "blockTime": timestamp(receipt.block_time),
    })
}

/// A transaction with what is known about it.
pub fn record(record: &v1::TransactionRecord) -> Value {
    let mut value = json!({ "txId": record.tx_id, "state": record.state().as_str_name() });
    if let Some(found) = &record.receipt {
        value["receipt"] = receipt(found);
    }
    if let Some(found) = &record.body {
        value["body"] = body(found);
    }
    value
}

/// A transaction's body.
pub fn body(body: &v1::TransactionBody) -> Value {
    json!({
        "chainId": body.chain_id,
        "sender": body.sender,
        "nonce": body.nonce.to_string(),
        "expireTime": timestamp(body.expire_time),
        "maxFee": body.max_fee.to_string(),
        "memo": body.memo,
        "operations": body.operations.iter().map(operation).collect::<Vec<_>>(),
    })
}

fn operation(operation: &v1::Operation) -> Value {
    use v1::operation::Operation as Op;
    match &operation.operation {
        Some(Op::Transfer(transfer)) => {
            json!({ "transfer": { "recipient": transfer.recipient, "amount": transfer.amount.to_string() } })
        }
        Some(Op::CreateAccount(create)) => json!({ "createAccount": {
            "newAccount": create.new_account,
            "openingBalance": create.opening_balance.to_string(),
        } }),
        None => json!({}),
    }
}

/// What a body would do.
pub fn simulation(answer: &v1::SimulateTransactionResponse) -> Value {
    let failure = answer.failure.as_ref().map_or(
        Value::Null,
        |failure| json!({ "reason": failure.reason, "message": failure.message, "metadata": failure.metadata }),
    );
    json!({
        "body": answer.body.as_ref().map_or(Value::Null, body),
        "receipt": answer.receipt.as_ref().map_or(Value::Null, receipt),
        "failure": failure,
        "senderBalanceBefore": answer.sender_balance_before.to_string(),
        "senderBalanceAfter": answer.sender_balance_after.to_string(),
        "height": answer.height.to_string(),
    })
}

/// A block, with as much as it has.
pub fn block(block: &v1::Block) -> Value {
    let header = block.header.as_ref().map_or(Value::Null, |header| {
        let tip = |tip: &v1::LaneTip| {
            json!({ "producer": tip.producer, "sequence": tip.sequence.to_string(), "digest": tip.digest })
        };
        let cut: Vec<_> = header.cut.iter().map(tip).collect();
        json!({
            "chainId": header.chain_id,
            "height": header.height.to_string(),
            "view": header.view.to_string(),
            "parentHash": header.parent_hash,
            "blockTime": timestamp(header.block_time),
            "proposer": header.proposer,
            "executedHeight": header.executed_height.to_string(),
            "stateRoot": header.state_root,
            "receiptsRoot": header.receipts_root,
            "validatorSetHash": header.validator_set_hash,
            "nextValidatorSetHash": header.next_validator_set_hash,
            "epoch": header.epoch.to_string(),
            "cut": cut,
        })
    });
    let mut value = json!({ "header": header, "blockHash": block.block_hash, "txIds": block.tx_ids });
    if !block.header_bytes.is_empty() {
        value["headerBytes"] = BASE64_STANDARD.encode(&block.header_bytes).into();
        value["transactions"] = block.transactions.iter().map(record).collect();
    }
    if let Some(certificate) = &block.certificate {
        let vote = |vote: &v1::CommitSignature| json!({ "validator": vote.validator, "signature": BASE64_STANDARD.encode(&vote.signature) });
        let signatures: Vec<_> = certificate.signatures.iter().map(vote).collect();
        value["certificate"] = json!({
            "epoch": certificate.epoch.to_string(),
            "view": certificate.view.to_string(),
            "blockHash": certificate.block_hash,
            "signatures": signatures,
        });
    }
    value
}

/// The validators.
pub fn validators(answer: &v1::ListValidatorsResponse) -> Value {
    let validator = |validator: &v1::Validator| {
        json!({
            "address": validator.address,
            "consensusPublicKey": validator.consensus_public_key,
            "moniker": validator.moniker,
            "state": validator.state().as_str_name(),
            "votingPower": validator.voting_power.to_string(),
        })
    };
    let validators: Vec<_> = answer.validators.iter().map(validator).collect();
    json!({
        "validators": validators,
        "totalVotingPower": answer.total_voting_power.to_string(),
        "quorumVotingPower": answer.quorum_voting_power.to_string(),
        "epoch": answer.epoch.to_string(),
    })
}

/// Facts about the chain.
pub fn chain_info(info: &v1::GetChainInfoResponse) -> Value {
    let params = info.params.as_ref().map_or(Value::Null, |params| {
        json!({
            "symbol": params.symbol,
            "decimals": params.decimals,
            "totalSupply": params.total_supply.to_string(),
            "baseFee": params.base_fee.to_string(),
            "minOpeningBalance": params.min_opening_balance.to_string(),
            "maxExpiry": duration(params.max_expiry),
            "epochBlocks": params.epoch_blocks.to_string(),
            "minValidatorStake": params.min_validator_stake.to_string(),
            "idleInterval": duration(params.idle_interval),
        })
    });
    json!({
        "chainId": info.chain_id,
        "genesisHash": info.genesis_hash,
        "latestHeight": info.latest_height.to_string(),
        "latestBlockTime": timestamp(info.latest_block_time),
        "earliestHeight": info.earliest_height.to_string(),
        "params": params,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_proto_json() {
        let transfer = v1::Transfer { recipient: "tally1x".into(), amount: u64::MAX };
        let record = super::record(&v1::TransactionRecord {
            tx_id: "ab".into(),
            state: v1::TransactionState::Finalized.into(),
            receipt: Some(v1::Receipt { result: v1::ExecutionResult::Ok.into(), height: 7, ..Default::default() }),
            body: Some(v1::TransactionBody {
                expire_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 5_000_000 }),
                operations: vec![v1::Operation { operation: Some(v1::operation::Operation::Transfer(transfer)) }],
                ..Default::default()
            }),
            transaction: None,
        });
        assert_eq!(record["txId"], "ab");
        assert_eq!(record["state"], "TRANSACTION_STATE_FINALIZED");
        assert_eq!(record["receipt"]["result"], "EXECUTION_RESULT_OK");
        assert_eq!(record["receipt"]["height"], "7");
        assert_eq!(record["receipt"]["blockTime"], Value::Null);
        assert_eq!(record["body"]["expireTime"], "2027-01-15T08:00:00.005Z");
        assert_eq!(record["body"]["operations"][0]["transfer"]["amount"], "18446744073709551615");
    }
}
