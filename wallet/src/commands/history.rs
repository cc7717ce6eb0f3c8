//! `history`: the final transactions of an account, as lines, as JSON or as CSV.

use serde_json::json;
use tally_proto::v1::{self, operation::Operation};
use tally_types::{Address, Amount};

use super::{Context, follow};
use crate::{
    client::{HistoryQuery, time},
    error::WalletError,
    json,
    output::{clean, rfc3339},
    token::Token,
};

/// Most transactions that `--all` lists.
pub const ALL_MAX: u32 = 1_000_000;
/// Most transactions of one page, the node's own limit.
const PAGE_SIZE_MAX: u32 = 1000;

/// How to list.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most to list.
    pub limit: u32,
    /// Whether to go on with new ones.
    pub follow: bool,
    /// Whether to write CSV.
    pub csv: bool,
}

/// Lists an account's final transactions, newest first; then, if asked to, follows it.
pub async fn run(context: &Context, account: Option<&str>, options: Options) -> Result<(), WalletError> {
    let address = context.account(account)?;
    let session = context.connect().await?;
    let token = &session.chain.token;
    let mut records = Vec::new();
    // One fixed end, so that blocks made meanwhile neither shift a page nor make nodes disagree.
    let mut query = HistoryQuery {
        account: address,
        page_size: options.limit.min(PAGE_SIZE_MAX),
        page_token: String::new(),
        max_height: session.chain.info.latest_height,
    };
    let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
    loop {
        let page = session.nodes.history_page(&query, token).await?;
        // A node that returns its token again, or new ones with nothing, would keep us here for ever.
        let is_last =
            page.next_page_token.is_empty() || page.next_page_token == query.page_token || page.transactions.is_empty();
        records.extend(page.transactions.into_iter().take(limit.saturating_sub(records.len())));
        if records.len() >= limit || is_last {
            break;
        }
        query.page_token = page.next_page_token;
        if records.len() >= 10_000 {
            context.output.note(&format!("{} transactions so far", records.len()));
        }
    }
    if options.csv {
        return context.output.raw(&to_csv(&records, &address, token));
    }
    if options.follow {
        return follow::go_on(context, &session, Some(address), records).await;
    }
    if records.is_empty() {
        context.output.note("no final transactions");
    }
    let text: String = records.iter().map(|record| line(record, &address, token)).collect();
    let records: Vec<_> = records.iter().map(json::record).collect();
    context.output.result(&text, &json!({ "account": address.to_string(), "transactions": records }))
}

/// One row for each operation that touches the account: what a spreadsheet needs to add up.
fn to_csv(records: &[v1::TransactionRecord], account: &Address, token: &Token) -> Vec<u8> {
    let account = account.to_string();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = ["time", "height", "tx_id", "result", "direction", "counterparty", "amount", "fee", "memo"];
    let mut write = |row: [&str; 9]| writer.write_record(row).expect("a Vec can be written to");
    write(head);
    for record in records {
        let receipt = record.receipt.clone().unwrap_or_default();
        let body = record.body.clone().unwrap_or_default();
        let when = receipt.block_time.and_then(time).map(rfc3339).unwrap_or_default();
        let (height, id, memo) = (receipt.height.to_string(), clean(&record.tx_id), clean(&body.memo));
        let (failed, result) = match receipt.result() {
            v1::ExecutionResult::Ok => (false, "ok".to_owned()),
            _ => (true, format!("failed {}", clean(&receipt.failure_reason))),
        };
        // The fee is the sender's, once for each transaction.
        let mut fee = if body.sender == account { token.number(Amount(receipt.fee)) } else { String::new() };
        for operation in &body.operations {
            let (to, amount) = match &operation.operation {
                Some(Operation::Transfer(transfer)) => (&transfer.recipient, transfer.amount),
                Some(Operation::CreateAccount(create)) => (&create.new_account, create.opening_balance),
                None => continue,
            };
            let (direction, other) = match (body.sender == account, *to == account) {
                (true, true) => ("self", to),
                (true, false) => ("out", to),
                (false, true) => ("in", &body.sender),
                (false, false) => continue,
            };
            let amount = if failed { "0".into() } else { token.number(Amount(amount)) };
            write([&when, &height, &id, &result, direction, &clean(other), &amount, &fee, &safe_cell(&memo)]);
            fee.clear();
        }
    }
    writer.into_inner().expect("a Vec can be written to")
}

/// A text that no spreadsheet takes for a formula: memos are written by strangers.
fn safe_cell(text: &str) -> String {
    let dangerous = text.starts_with(['=', '+', '-', '@']);
    if dangerous { format!("'{text}") } else { text.to_owned() }
}

/// One transaction on one line: time, height, what it did to this account, id.
pub fn line(record: &v1::TransactionRecord, account: &Address, token: &Token) -> String {
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
    fn csv_has_a_row_for_each_operation_and_no_formula() {
        let token = Token::new("TALLY", 9).unwrap();
        let (alice, bob) = (Address([1; 32]), Address([2; 32]));
        let mut two = record(&alice, &bob);
        let body = two.body.as_mut().unwrap();
        body.memo = "=1+1, \"x\"".into();
        body.operations.push(body.operations[0].clone());
        let rows = |account: &Address| String::from_utf8(to_csv(&[two.clone()], account, &token)).unwrap();
        let head = "time,height,tx_id,result,direction,counterparty,amount,fee,memo\n";
        let memo = "\"'=1+1, \"\"x\"\"\"";
        assert_eq!(
            rows(&alice),
            format!(
                "{head}2027-01-15T08:00:00Z,7,ab,ok,out,{bob},12.5,0.001,{memo}\n\
                 2027-01-15T08:00:00Z,7,ab,ok,out,{bob},12.5,,{memo}\n"
            )
        );
        assert!(rows(&bob).contains(&format!("ok,in,{alice},12.5,,")));
        assert_eq!(rows(&Address([3; 32])), head);
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
