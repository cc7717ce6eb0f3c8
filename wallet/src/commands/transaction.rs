//! `tx show` and `tx wait`.

use serde_json::json;
use tally_proto::v1;
use tally_types::{Amount, Hash};

use super::{Context, rows, watch};
use crate::{
    cli::TxCommand,
    client::time,
    error::WalletError,
    json,
    output::{clean, rfc3339},
    token::Token,
};

/// Carries out a command about one transaction.
pub async fn run(context: &Context, command: TxCommand) -> Result<(), WalletError> {
    match command {
        TxCommand::Show { id } => show(context, &id).await,
        TxCommand::Wait { id } => {
            let (chosen, client, chain) = context.connect().await?;
            let target = watch::Target { id, expire_time: None, nonce: None };
            let outcome = watch::watch(context, &client, &chain.token, &target).await?;
            let text = format!("final according to {}, height {}", chosen.node, outcome.receipt.height);
            context.output.result(&text, &json::record(&outcome.record))
        }
    }
}

async fn show(context: &Context, id: &Hash) -> Result<(), WalletError> {
    let (chosen, client, chain) = context.connect().await?;
    let answer = client.transaction(id, &chain.token).await?;
    let record = answer.transaction.unwrap_or_default();
    let looked = format!(
        "according to {}, which has looked up to height {} ({})",
        chosen.node,
        answer.height,
        answer.block_time.and_then(time).map(rfc3339).unwrap_or_default()
    );
    let mut json = json::record(&record);
    json["lookup"] = json!({ "height": answer.height.to_string(), "blockTime": json::timestamp(answer.block_time) });
    context.output.result(&format!("{}{looked}", describe(&record, &chain.token)), &json)
}

fn describe(record: &v1::TransactionRecord, token: &Token) -> String {
    let state = record.state().as_str_name().trim_start_matches("TRANSACTION_STATE_").to_lowercase();
    let mut lines = vec![("id", clean(&record.tx_id)), ("state", state)];
    if let Some(receipt) = &record.receipt {
        let result = match receipt.result() {
            v1::ExecutionResult::Ok => "ok".into(),
            _ => format!("failed: {}", clean(&receipt.failure_reason)),
        };
        lines.push(("result", result));
        lines.push(("block", format!("{}, index {}", receipt.height, receipt.index)));
        lines.push(("block time", receipt.block_time.and_then(time).map(rfc3339).unwrap_or_default()));
        lines.push(("fee", token.show(Amount(receipt.fee))));
    }
    if let Some(body) = &record.body {
        lines.push(("from", clean(&body.sender)));
        for operation in &body.operations {
            use v1::operation::Operation as Op;
            let (verb, to, amount) = match &operation.operation {
                Some(Op::Transfer(transfer)) => ("pays", &transfer.recipient, transfer.amount),
                Some(Op::CreateAccount(create)) => ("opens", &create.new_account, create.opening_balance),
                None => continue,
            };
            lines.push((verb, format!("{} {}", clean(to), token.show(Amount(amount)))));
        }
        lines.push(("nonce", body.nonce.to_string()));
        lines.push(("expires", body.expire_time.and_then(time).map(rfc3339).unwrap_or_default()));
        if !body.memo.is_empty() {
            lines.push(("memo", format!("{:?}", clean(&body.memo))));
        }
    }
    rows(&lines)
}
