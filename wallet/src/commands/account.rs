//! `balance` and `history`.

use serde_json::json;
use tally_proto::v1::{self, operation::Operation};
use tally_types::{Address, Amount};

use super::Context;
use crate::{
    client::time,
    error::WalletError,
    json,
    output::{clean, rfc3339},
    token::Token,
};

/// Most transactions of one page, the node's own limit.
const PAGE_SIZE_MAX: u32 = 1000;

/// Shows what an account holds.
pub async fn balance(context: &Context, account: Option<&str>) -> Result<(), WalletError> {
    let address = context.account(account)?;
    let (_, client, chain) = context.connect().await?;
    let (account, height) = client.account(&address, &chain.token).await?;
    let json = json!({ "account": json::account(&account), "height": height.to_string() });
    context.output.result(&chain.token.show(Amount(account.balance)), &json)
}

/// Lists an account's final transactions, newest first.
pub async fn history(context: &Context, account: Option<&str>, limit: u32) -> Result<(), WalletError> {
    let address = context.account(account)?;
    let (_, client, chain) = context.connect().await?;
    let mut records = Vec::new();
    let mut page_token = String::new();
    loop {
        let missing = limit.saturating_sub(u32::try_from(records.len()).unwrap_or(u32::MAX));
        let page_size = i32::try_from(missing.min(PAGE_SIZE_MAX)).unwrap_or(1);
        let page = client.history_page(&address, page_size, page_token.clone(), &chain.token).await?;
        records.extend(page.transactions.into_iter().take(usize::try_from(missing).unwrap_or(usize::MAX)));
        let full = records.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        // A node that returns its token again would keep us here for ever.
        if full || page.next_page_token.is_empty() || page.next_page_token == page_token {
            break;
        }
        page_token = page.next_page_token;
    }
    if records.is_empty() {
        context.output.note("no final transactions");
    }
    let text: String = records.iter().map(|record| line(record, &address, &chain.token)).collect();
    let records: Vec<_> = records.iter().map(json::record).collect();
    context.output.result(&text, &json!({ "account": address.to_string(), "transactions": records }))
}

/// One transaction on one line: time, height, what it did to this account, id.
fn line(record: &v1::TransactionRecord, account: &Address, token: &Token) -> String {
    let receipt = record.receipt.clone().unwrap_or_default();
    let when = receipt.block_time.and_then(time).map(rfc3339).unwrap_or_default();
    let failed = match receipt.result() {
        v1::ExecutionResult::Ok => String::new(),
        _ => format!(" FAILED {}", clean(&receipt.failure_reason)),
    };
    let Some(body) = &record.body else {
        return format!("{when}  {}  {}{failed}\n", receipt.height, clean(&record.tx_id));
    };
    let account = account.to_string();
    let mut parts: Vec<String> = Vec::new();
    for operation in &body.operations {
        parts.extend(describe(operation, &body.sender, &account, token));
    }
    if body.sender == account {
        parts.push(format!("fee {}", token.number(Amount(receipt.fee))));
    }
    if !body.memo.is_empty() {
        parts.push(format!("{:?}", clean(&body.memo)));
    }
    format!("{when}  {}  {}{failed}  {}\n", receipt.height, parts.join(", "), clean(&record.tx_id))
}

/// What an operation did to `account`; nothing when it passed by.
fn describe(operation: &v1::Operation, sender: &str, account: &str, token: &Token) -> Option<String> {
    let (to, amount, verb) = match operation.operation.as_ref()? {
        Operation::Transfer(transfer) => (&transfer.recipient, transfer.amount, ""),
        Operation::CreateAccount(create) => (&create.new_account, create.opening_balance, " opening"),
    };
    let amount = token.show(Amount(amount));
    match (sender == account, to == account) {
        (true, true) => Some(format!("{amount}{verb} to itself")),
        (true, false) => Some(format!("-{amount}{verb} to {}", clean(to))),
        (false, true) => Some(format!("+{amount}{verb} from {}", clean(sender))),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sender: &Address, to: &Address) -> v1::TransactionRecord {
        let transfer = v1::Transfer { recipient: to.to_string(), amount: 12_500_000_000 };
        v1::TransactionRecord {
            tx_id: "ab".into(),
            state: v1::TransactionState::Finalized.into(),
            receipt: Some(v1::Receipt {
                result: v1::ExecutionResult::Ok.into(),
                fee: 1_000_000,
                height: 7,
                block_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
                ..Default::default()
            }),
            body: Some(v1::TransactionBody {
                sender: sender.to_string(),
                memo: "tea\n".into(),
                operations: vec![v1::Operation { operation: Some(Operation::Transfer(transfer)) }],
                ..Default::default()
            }),
            transaction: None,
        }
    }

    #[test]
    fn a_line_says_what_a_transaction_did_to_the_account() {
        let token = Token::new("TALLY", 9).unwrap();
        let (alice, bob) = (Address([1; 32]), Address([2; 32]));
        let record = record(&alice, &bob);
        assert_eq!(
            line(&record, &alice, &token),
            format!("2027-01-15T08:00:00Z  7  -12.5 TALLY to {bob}, fee 0.001, \"tea\u{fffd}\"  ab\n")
        );
        assert_eq!(
            line(&record, &bob, &token),
            format!("2027-01-15T08:00:00Z  7  +12.5 TALLY from {alice}, \"tea\u{fffd}\"  ab\n")
        );
        let mut failed = record;
        let receipt = failed.receipt.as_mut().unwrap();
        receipt.result = v1::ExecutionResult::Failed.into();
        receipt.failure_reason = "RECIPIENT_NOT_FOUND".into();
        assert!(line(&failed, &alice, &token).contains(" FAILED RECIPIENT_NOT_FOUND "));
    }
}
