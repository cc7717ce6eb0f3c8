//! Waiting for the outcome of a signed transaction, without ever guessing it.
//!
//! Three things end the wait: the node says FINALIZED, the node says EXPIRED once the expire time has passed by the clock of
//! this machine too, or the time is up. A node that does not answer, or that has not seen the transaction, proves nothing: it may
//! run until its expire time. Only when the node has
//! looked past that time, does not know the id, and the account's nonce is unused, did it never run.

use std::time::{Duration, SystemTime};

use tally_proto::v1::{ExecutionResult, Receipt, TransactionRecord, TransactionState};
use tally_types::{Address, Amount, Hash};
use tokio::time::Instant;

use super::Context;
use crate::{
    client::{Nodes, explain, time},
    error::{Fate, WalletError},
    output::clean,
    token::Token,
};

/// Least time between two questions, so that a node that answers at once is not flooded.
const PAUSE: Duration = Duration::from_millis(300);

/// What is waited for.
#[derive(Clone, Debug)]
pub struct Target {
    /// The transaction.
    pub id: Hash,
    /// Last moment at which it may run, when known.
    pub expire_time: Option<SystemTime>,
    /// Its sender and nonce, when known: they settle what a node that forgot the id cannot.
    pub nonce: Option<(Address, u64)>,
    /// The command that goes on when this one ends without knowing.
    pub resume: String,
}

impl Target {
    /// Takes over what a node that has the transaction says of it, where only its id was known.
    fn learn(&mut self, record: Option<&TransactionRecord>) {
        let Some(body) =
            record.filter(|record| record.tx_id == self.id.to_string()).and_then(|found| found.body.as_ref())
        else {
            return;
        };
        self.expire_time = self.expire_time.or_else(|| body.expire_time.and_then(time));
        let nonce = || Some((body.sender.parse().ok()?, body.nonce));
        self.nonce = self.nonce.or_else(nonce);
    }
}

/// A final transaction that had its effect.
#[derive(Clone, Debug)]
pub struct Success {
    /// What the node knows of it.
    pub record: TransactionRecord,
    /// Its receipt.
    pub receipt: Receipt,
}

/// What one answer of the node says.
#[derive(Debug)]
enum Word {
    Final(Box<Success>),
    Expired {
        height: u64,
    },
    /// Unknown to the node, which has looked past the expire time.
    Forgotten {
        height: u64,
    },
    Open(String),
}

/// Waits until the transaction is final, has expired, or `--timeout` is over.
pub async fn wait(context: &Context, nodes: &Nodes, token: &Token, target: &Target) -> Result<Success, WalletError> {
    let deadline = Instant::now() + context.globals.timeout;
    let node = nodes.name();
    let mut target = target.clone();
    loop {
        let asked = Instant::now();
        let remaining = deadline.saturating_duration_since(asked);
        let word = match nodes.wait(&target.id, remaining.max(Duration::from_millis(1)), token).await {
            Ok(answer) => {
                target.learn(answer.transaction.as_ref());
                read(answer, &target, &node)
            }
            Err(error) => Word::Open(error.message),
        };
        let why = match word {
            Word::Final(success) => return judge(*success, &target, token, &node),
            Word::Expired { height } => return Err(Fate::NeverRan { id: target.id, node, height }.into()),
            Word::Forgotten { height } => {
                if nonce_is_unused(nodes, token, &target).await {
                    return Err(Fate::NeverRan { id: target.id, node, height }.into());
                }
                let why = format!(
                    "{node} does not know it at height {height}, but its nonce is used or cannot be asked for; a node that \
                     keeps more may know"
                );
                let wait = target.resume.clone();
                let expire_time = target.expire_time;
                return Err(Fate::Unknown { id: target.id, why, expire_time, past: true, wait }.into());
            }
            Word::Open(why) => why,
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(unknown(&target, why));
        }
        tokio::time::sleep_until(asked + PAUSE).await;
    }
}

/// "Nobody knows yet", with the command that goes on waiting.
pub fn unknown(target: &Target, why: String) -> WalletError {
    let wait = target.resume.clone();
    Fate::Unknown { id: target.id, why, expire_time: target.expire_time, past: false, wait }.into()
}

fn read(answer: tally_proto::v1::WaitTransactionResponse, target: &Target, node: &str) -> Word {
    let height = answer.height;
    let block_time = answer.block_time.and_then(time);
    let record = answer.transaction.unwrap_or_default();
    let state = record.state();
    let names_another = record.tx_id != target.id.to_string();
    if names_another && matches!(state, TransactionState::Finalized | TransactionState::Expired) {
        return Word::Open(format!("{node} answered about another transaction"));
    }
    match (state, record.receipt.clone()) {
        (TransactionState::Finalized, Some(receipt)) if receipt.result() != ExecutionResult::Unspecified => {
            Word::Final(Box::new(Success { record, receipt }))
        }
        (TransactionState::Finalized, _) => Word::Open(format!("{node} calls it final but shows no outcome")),
        // Whoever has the bytes can run them until then, whatever it says.
        (TransactionState::Expired, _) if target.expire_time.is_some_and(|expire| SystemTime::now() <= expire) => {
            Word::Open(format!("{node} calls it expired before its time"))
        }
        (TransactionState::Expired, _) => Word::Expired { height },
        (TransactionState::Pending, _) => Word::Open(format!("{node} has it as pending at height {height}")),
        (TransactionState::Unknown | TransactionState::Unspecified, _) => {
            let now = SystemTime::now();
            let past = target.expire_time.zip(block_time).is_some_and(|(expire, block)| block.min(now) > expire);
            if past {
                Word::Forgotten { height }
            } else {
                Word::Open(format!("{node} has not seen it up to height {height}"))
            }
        }
    }
}

fn judge(success: Success, target: &Target, token: &Token, node: &str) -> Result<Success, WalletError> {
    let receipt = &success.receipt;
    if receipt.result() == ExecutionResult::Ok {
        return Ok(success);
    }
    // The receipt has no metadata: whom the failed operation was for is in the body.
    let mut metadata = std::collections::BTreeMap::new();
    let operations = success.record.body.as_ref().map(|body| body.operations.as_slice()).unwrap_or_default();
    let failed = usize::try_from(receipt.failed_operation).ok().and_then(|index| operations.get(index));
    if let Some(operation) = failed.and_then(|operation| operation.operation.as_ref()) {
        use tally_proto::v1::operation::Operation as Op;
        let address = match operation {
            Op::Transfer(transfer) => &transfer.recipient,
            Op::CreateAccount(create) => &create.new_account,
        };
        metadata.insert("address".to_owned(), clean(address));
    }
    let facts = explain::Facts { metadata: &metadata, token: Some(token) };
    let explained = explain::explain(&receipt.failure_reason, &facts);
    let why = match receipt.failure_reason.as_str() {
        "INSUFFICIENT_FUNDS" => "the balance was too small when it ran".into(),
        _ => explained.message,
    };
    Err(Fate::Failed {
        id: target.id,
        height: receipt.height,
        node: node.to_owned(),
        reason: clean(&receipt.failure_reason),
        why,
        next: explained.next,
        fee: token.show(Amount(receipt.fee)),
    }
    .into())
}

async fn nonce_is_unused(nodes: &Nodes, token: &Token, target: &Target) -> bool {
    let Some((sender, nonce)) = target.nonce else { return false };
    // `next_nonce` is the highest used one plus one: what is not below it was never used.
    matches!(nodes.account(&sender, token).await, Ok((account, _)) if nonce >= account.next_nonce)
}

#[cfg(test)]
mod tests {
    use tally_proto::v1::{self, WaitTransactionResponse};

    use super::*;
    use crate::error::Exit;

    const NODE: &str = "http://n:1";

    fn target() -> Target {
        let expire_time = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        Target { id: Hash::of(b"tx"), expire_time: Some(expire_time), nonce: None, resume: String::new() }
    }

    fn answer(state: TransactionState, block_seconds: i64) -> WaitTransactionResponse {
        let record =
            TransactionRecord { tx_id: target().id.to_string(), state: state.into(), ..TransactionRecord::default() };
        let block_time = Some(prost_types::Timestamp { seconds: block_seconds, nanos: 0 });
        WaitTransactionResponse { transaction: Some(record), height: 7, block_time }
    }

    #[test]
    fn only_the_node_s_word_or_the_time_past_expiry_ends_the_wait() {
        use TransactionState as S;
        let word = |answer| read(answer, &target(), NODE);
        assert!(matches!(word(answer(S::Pending, 2000)), Word::Open(_)));
        assert!(matches!(word(answer(S::Expired, 2000)), Word::Expired { height: 7 }));
        assert!(matches!(word(answer(S::Unknown, 1000)), Word::Open(_)), "a block at the expire time may hold it");
        assert!(matches!(word(answer(S::Unknown, 1001)), Word::Forgotten { height: 7 }));
        let ahead = Target { expire_time: Some(SystemTime::now() + Duration::from_secs(3600)), ..target() };
        assert!(matches!(read(answer(S::Expired, i64::from(u32::MAX)), &ahead, NODE), Word::Open(_)), "too early");
        let without_time = Target { expire_time: None, ..target() };
        assert!(matches!(read(answer(S::Unknown, 2000), &without_time, NODE), Word::Open(_)));
        assert!(matches!(word(answer(S::Finalized, 500)), Word::Open(_)), "final without a receipt is no answer");
        let mut other = answer(S::Expired, 2000);
        other.transaction.as_mut().unwrap().tx_id = Hash::of(b"other").to_string();
        assert!(matches!(word(other), Word::Open(_)));
        let mut good = answer(S::Finalized, 500);
        good.transaction.as_mut().unwrap().receipt =
            Some(Receipt { result: ExecutionResult::Ok.into(), height: 7, ..Receipt::default() });
        assert!(matches!(word(good), Word::Final(_)));
    }

    #[test]
    fn a_failure_in_a_block_names_the_recipient_and_what_to_do() {
        let to = Address([2; 32]).to_string();
        let transfer = v1::Transfer { recipient: to.clone(), amount: 5 };
        let operations = vec![v1::Operation { operation: Some(v1::operation::Operation::Transfer(transfer)) }];
        let receipt = Receipt {
            result: ExecutionResult::Failed.into(),
            failure_reason: "RECIPIENT_NOT_FOUND".into(),
            fee: 1_000_000,
            height: 7,
            ..Receipt::default()
        };
        let record = TransactionRecord {
            body: Some(v1::TransactionBody { operations, ..Default::default() }),
            ..TransactionRecord::default()
        };
        let token = Token::new("TALLY", 9).unwrap();
        let error = judge(Success { record, receipt }, &target(), &token, NODE).unwrap_err();
        assert_eq!(error.exit(), Exit::FailedInBlock);
        assert_eq!(error.reason(), "RECIPIENT_NOT_FOUND");
        assert!(error.to_string().contains("0.001 TALLY"), "{error}");
        assert!(error.next_step().contains(&format!("create-account {to}")), "{}", error.next_step());
    }
}
