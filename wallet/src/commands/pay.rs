//! `send` and `create-account`: plan, confirm, sign, hand over, wait.
//!
//! Everything that can be found wrong is found before the key is opened. From the signature on, the transaction may run
//! until its expire time whatever happens here, and every message says so.

use std::time::{Duration, SystemTime};

use prost::Message as _;
use serde_json::json;
use tally_proto::v1::{self, TransactionState, operation::Operation};
use tally_types::{Address, Amount, Hash, SecretKey, SignedTransaction, body::MEMO_BYTES_MAX, transaction};
use tokio::time::Instant;

use super::{Chosen, Context, rows, watch};
use crate::{
    cli::PayArgs,
    client::{ChainView, Client, NodeError},
    error::{Exit, Refusal, UsageError, WalletError},
    json,
    keystore::KeyInfo,
    output::clean,
    target,
};

/// How long a transaction may run when nobody says otherwise.
const EXPIRE_IN: Duration = Duration::from_secs(5 * 60);
/// First and longest pause between two tries to hand a transaction over.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What the person asks for.
#[derive(Clone, Debug)]
pub struct Order {
    /// Pay or open.
    pub kind: Kind,
    /// Address or own key's name.
    pub to: String,
    /// Tokens as typed.
    pub amount: String,
    /// The rest.
    pub args: PayArgs,
}

/// The two ways to move tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To an account that exists.
    Transfer,
    /// To one that does not yet.
    CreateAccount,
}

/// A payment that the chain's rules and the balance allow, as far as this wallet can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    kind: Kind,
    sender: Address,
    to: Address,
    amount: Amount,
    fee: Amount,
    max_fee: Amount,
    left: Amount,
    nonce: u64,
    memo: String,
    expire_in: Duration,
}

/// A signed transaction, ready to travel.
#[derive(Clone, Debug)]
struct Signed {
    id: Hash,
    expire_time: SystemTime,
    transaction: v1::Transaction,
}

/// What came of handing a transaction over.
#[derive(Debug)]
enum Handover {
    Taken(TransactionState),
    Refused(NodeError),
    /// A call was lost on the way: the node may have it.
    Uncertain(NodeError),
}

/// Carries out an order.
pub async fn run(context: &Context, order: Order) -> Result<(), WalletError> {
    let to = target::resolve(&order.to, &context.keystore)?;
    let key = context.sender()?;
    if context.chosen()?.pinned.is_none() {
        return Err(UsageError::NotPinned.into());
    }
    let (chosen, client, chain) = context.connect().await?;
    let (account, _) = client.account(&key.address, &chain.token).await?;
    let plan = Plan::new(&order, to, &account, &chain)?;
    if !context.globals.yes {
        context.prompt.can_confirm()?;
        context.output.preamble(&describe(&plan, &key, &chosen, &chain));
        let question = if plan.kind == Kind::Transfer { "Send?" } else { "Open the account?" };
        context.prompt.confirm(question).await?;
    }
    let passphrase = context.prompt.passphrase(&order.args.passphrase, key.name.as_str())?;
    let secret = context.keystore.unlock(key.name.as_str(), &passphrase)?;
    drop(passphrase);
    let signed = plan.sign(&secret, &chain, SystemTime::now())?;
    drop(secret);
    context.output.signed(&signed.id, signed.expire_time);

    let target =
        watch::Target { id: signed.id, expire_time: Some(signed.expire_time), nonce: Some((plan.sender, plan.nonce)) };
    tokio::select! {
        biased;
        result = deliver(context, &client, &chain, &order, signed, &target) => result,
        _ = tokio::signal::ctrl_c() => Err(watch::unknown(context, &target, "interrupted while waiting".into())),
    }
}

/// Hands the transaction over and, unless told not to, waits until it is final.
async fn deliver(
    context: &Context,
    client: &Client,
    chain: &ChainView,
    order: &Order,
    signed: Signed,
    target: &watch::Target,
) -> Result<(), WalletError> {
    let node = client.node();
    let id = signed.id;
    match hand_over(context, client, chain, &signed).await {
        Handover::Refused(error) => return Err(refused(error).into()),
        Handover::Uncertain(error) if order.args.no_wait => {
            return Err(watch::unknown(context, target, error.message));
        }
        Handover::Uncertain(error) => {
            context.output.warning(&format!("it is not certain that {node} has the transaction: {}", error.message));
        }
        Handover::Taken(state) if order.args.no_wait => {
            let text = format!("taken by {node}, not final yet: {}", context.wait_command(&id));
            let json = json!({
                "txId": id.to_string(),
                "state": state.as_str_name(),
                "expireTime": crate::output::rfc3339(signed.expire_time),
            });
            return context.output.result(&text, &json);
        }
        Handover::Taken(_) => context.output.note(&format!("taken by {node}; waiting until it is final")),
    }
    let success = watch::watch(context, client, &chain.token, target).await?;
    let text = format!("final according to {node}, height {}", success.receipt.height);
    context.output.result(&text, &json::record(&success.record))
}

/// Sends the same bytes until the node answers: a second copy changes nothing.
async fn hand_over(context: &Context, client: &Client, chain: &ChainView, signed: &Signed) -> Handover {
    let deadline = Instant::now() + context.globals.timeout;
    let mut pause = RETRY_PAUSE;
    let mut uncertain = false;
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now()).max(RETRY_PAUSE);
        let error = match client.submit(signed.transaction.clone(), remaining).await {
            Ok(answer) if answer.tx_id == signed.id.to_string() => return Handover::Taken(answer.state()),
            Ok(_) => {
                return Handover::Uncertain(NodeError::garbled(client.node(), "it calls the transaction another id"));
            }
            Err(status) => NodeError::new(&status, client.node(), Some(&chain.token)),
        };
        uncertain |= error.is_uncertain();
        // After a lost call even a refusal proves nothing: it may be the refusal of the second copy.
        let end = |error| if uncertain { Handover::Uncertain(error) } else { Handover::Refused(error) };
        let wait = error.retry_after.unwrap_or(pause).min(RETRY_PAUSE_MAX);
        if !is_worth_retrying(&error) || Instant::now() + wait >= deadline {
            return end(error);
        }
        context.output.note(&format!("{}; trying again", error.message));
        tokio::time::sleep(wait).await;
        pause = pause.saturating_mul(2).min(RETRY_PAUSE_MAX);
    }
}

fn is_worth_retrying(error: &NodeError) -> bool {
    let busy = ["MEMPOOL_FULL", "SENDER_LIMIT", "NODE_SYNCING", "NOT_ACCEPTING"];
    error.is_uncertain() || (error.from_node && busy.contains(&error.reason.as_str()))
}

/// What is not found while paying is a rejection: of a query it would be "not found".
fn refused(error: NodeError) -> NodeError {
    let exit = if error.exit == Exit::NotFound || !error.from_node { Exit::Rejected } else { error.exit };
    NodeError { exit, message: format!("rejected, it will not run: {}", error.message), ..error }
}

impl Plan {
    fn new(order: &Order, to: Address, account: &v1::Account, chain: &ChainView) -> Result<Plan, WalletError> {
        let token = &chain.token;
        let amount = token.parse(&order.amount)?;
        if amount.is_zero() {
            return Err(UsageError::AmountZero.into());
        }
        if order.args.memo.len() > MEMO_BYTES_MAX {
            return Err(UsageError::MemoTooLong(order.args.memo.len()).into());
        }
        let expire_in = match order.args.expire_in {
            Some(given) if given > chain.max_expiry => {
                return Err(UsageError::ExpireIn { max: chain.max_expiry }.into());
            }
            Some(given) => given,
            None => EXPIRE_IN.min(chain.max_expiry),
        };
        if order.kind == Kind::CreateAccount && amount < chain.min_opening_balance {
            let minimum = chain.min_opening_balance;
            return Err(Refusal::OpeningBalanceTooLow { minimum, amount, token: token.clone() }.into());
        }
        // One operation, so one base fee.
        let fee = chain.base_fee;
        let max_fee = match &order.args.max_fee {
            Some(text) => token.parse(text)?,
            None => fee,
        };
        if max_fee < fee {
            return Err(Refusal::FeeTooLow { fee, max_fee, token: token.clone() }.into());
        }
        let balance = Amount(account.balance);
        let needed = amount.checked_add(fee).ok_or(Refusal::Overflow)?;
        let Some(left) = balance.checked_sub(needed) else {
            let missing = needed.checked_sub(balance).unwrap_or_default();
            return Err(Refusal::Shortage { balance, missing, needed, amount, fee, token: token.clone() }.into());
        };
        let sender = account.address.parse().map_err(target::TargetError::Address)?;
        // The node's own count starts at 1; a node that says 0 has not looked.
        let nonce = order.args.nonce.unwrap_or(account.pending_nonce.max(account.next_nonce).max(1));
        let memo = order.args.memo.clone();
        // What goes to oneself comes back: only the fee is gone.
        let left = if to == sender { left.checked_add(amount).unwrap_or(left) } else { left };
        Ok(Plan { kind: order.kind, sender, to, amount, fee, max_fee, left, nonce, memo, expire_in })
    }

    /// Signs for `chain`. The time counts from `now` or from the latest block, whichever is later, so that a clock that
    /// runs behind does not make a transaction that is born expired; never beyond what the chain allows.
    fn sign(&self, secret: &SecretKey, chain: &ChainView, now: SystemTime) -> Result<Signed, WalletError> {
        let latest_allowed = chain.latest_block_time + chain.max_expiry;
        let expire_time = (now.max(chain.latest_block_time) + self.expire_in).min(latest_allowed);
        // Whole milliseconds, the unit of block time: what is shown is what is signed.
        let since = expire_time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let expire_time = SystemTime::UNIX_EPOCH + since;
        let operation = match self.kind {
            Kind::Transfer => {
                Operation::Transfer(v1::Transfer { recipient: self.to.to_string(), amount: self.amount.0 })
            }
            Kind::CreateAccount => Operation::CreateAccount(v1::CreateAccount {
                new_account: self.to.to_string(),
                opening_balance: self.amount.0,
            }),
        };
        let body = v1::TransactionBody {
            chain_id: chain.chain.id.clone(),
            sender: self.sender.to_string(),
            nonce: self.nonce,
            expire_time: Some(prost_types::Timestamp::from(expire_time)),
            max_fee: self.max_fee.0,
            memo: self.memo.clone(),
            operations: vec![v1::Operation { operation: Some(operation) }],
        };
        let bytes = transaction::sign(secret, &chain.chain.genesis_hash, &body.encode_to_vec());
        // Read back as strictly as a node will: what breaks a rule is not even sent.
        let verified = SignedTransaction::parse(&bytes, &chain.chain)
            .and_then(SignedTransaction::verify)
            .map_err(UsageError::Transaction)?;
        let transaction = v1::Transaction::decode(&bytes[..]).expect("these bytes were just encoded");
        Ok(Signed { id: verified.id(), expire_time, transaction })
    }
}

fn describe(plan: &Plan, key: &KeyInfo, chosen: &Chosen, chain: &ChainView) -> String {
    let network = chosen.pinned.as_ref().map(|(name, _)| name.as_str()).unwrap_or_default();
    let token = &chain.token;
    let fee = match plan.max_fee == plan.fee {
        true => token.show(plan.fee),
        false => format!("{}, at most {}", token.show(plan.fee), token.show(plan.max_fee)),
    };
    let to = if plan.kind == Kind::Transfer { "to" } else { "open" };
    let mut lines = vec![
        ("network", format!("{network} ({}) at {}", clean(&chain.chain.id), chosen.node)),
        ("from", format!("{} ({})", plan.sender, key.name)),
        (to, plan.to.to_string()),
        ("amount", token.show(plan.amount)),
        ("fee", fee),
        ("left", token.show(plan.left)),
    ];
    if !plan.memo.is_empty() {
        lines.push(("memo", format!("{:?}", clean(&plan.memo))));
    }
    rows(&lines)
}

#[cfg(test)]
mod tests {
    use tally_types::genesis::Chain;

    use super::*;
    use crate::{error::Exit, token::Token};

    const BLOCK_SECONDS: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn chain() -> ChainView {
        ChainView {
            chain: Chain { id: "local-01020304".into(), genesis_hash: Hash::of(b"genesis") },
            token: Token::new("TALLY", 9).unwrap(),
            base_fee: Amount(1_000_000),
            min_opening_balance: Amount(1_000_000_000),
            max_expiry: Duration::from_secs(3600),
            latest_block_time: at(BLOCK_SECONDS),
            info: v1::GetChainInfoResponse::default(),
        }
    }

    fn secret() -> SecretKey {
        SecretKey::from_seed([1; 32])
    }

    fn order(kind: Kind, amount: &str) -> Order {
        let args = PayArgs {
            memo: String::new(),
            max_fee: None,
            expire_in: None,
            nonce: None,
            no_wait: false,
            passphrase: Default::default(),
        };
        Order { kind, to: String::new(), amount: amount.into(), args }
    }

    fn plan(order: &Order, balance: u64) -> Result<Plan, WalletError> {
        let address = secret().public_key().address().to_string();
        let account = v1::Account { address, balance, next_nonce: 3, pending_nonce: 5, ..Default::default() };
        Plan::new(order, Address([2; 32]), &account, &chain())
    }

    #[test]
    fn what_does_not_fit_the_balance_is_refused_with_the_shortage() {
        let order = order(Kind::Transfer, "12.5");
        let error = plan(&order, 3_000_000_000).unwrap_err();
        assert_eq!(error.to_string(), "balance 3 is 9.501 short of 12.501 (amount 12.5 + fee 0.001)");
        assert_eq!(error.exit(), Exit::Rejected);
        assert!(plan(&order, 12_500_999_999).is_err());
        let exact = plan(&order, 12_501_000_000).unwrap();
        assert_eq!((exact.left, exact.nonce, exact.max_fee), (Amount::ZERO, 5, Amount(1_000_000)));
    }

    #[test]
    fn what_the_chain_would_refuse_is_refused_before_the_key_is_opened() {
        let refused = |change: fn(&mut Order)| {
            let mut order = order(Kind::CreateAccount, "1");
            change(&mut order);
            plan(&order, u64::MAX).unwrap_err().reason()
        };
        assert_eq!(refused(|o| o.amount = "0.999999999".into()), "OPENING_BALANCE_TOO_LOW");
        assert_eq!(refused(|o| o.args.max_fee = Some("0.0009".into())), "FEE_TOO_LOW");
        assert_eq!(refused(|o| o.amount = "0".into()), "USAGE");
        assert_eq!(refused(|o| o.amount = "1e3".into()), "AMOUNT_INVALID");
        assert_eq!(refused(|o| o.amount = "18446744073.709551615".into()), "AMOUNT_OVERFLOW");
        assert_eq!(refused(|o| o.args.memo = "x".repeat(257)), "USAGE");
        assert_eq!(refused(|o| o.args.expire_in = Some(Duration::from_secs(3601))), "USAGE");
        assert!(plan(&order(Kind::CreateAccount, "1"), u64::MAX).is_ok());
        assert!(plan(&order(Kind::Transfer, "0.000000001"), u64::MAX).is_ok(), "a transfer has no minimum");
    }

    #[test]
    fn the_expire_time_survives_a_wrong_clock() {
        let plan = plan(&order(Kind::Transfer, "1"), u64::MAX).unwrap();
        let expires = |now| plan.sign(&secret(), &chain(), now).unwrap().expire_time;
        assert_eq!(expires(at(BLOCK_SECONDS + 10)), at(BLOCK_SECONDS + 310));
        assert_eq!(expires(at(0)), at(BLOCK_SECONDS + 300), "a clock that runs behind");
        assert_eq!(expires(at(BLOCK_SECONDS * 2)), at(BLOCK_SECONDS + 3600), "a clock that runs ahead");
        let odd = at(BLOCK_SECONDS) + Duration::from_nanos(1_999_999);
        assert_eq!(expires(odd), at(BLOCK_SECONDS + 300) + Duration::from_millis(1));
    }

    #[test]
    fn what_is_signed_is_what_was_planned() {
        let mut order = order(Kind::CreateAccount, "2.5");
        order.args.memo = "welcome".into();
        order.args.nonce = Some(9);
        let plan = plan(&order, u64::MAX).unwrap();
        let signed = plan.sign(&secret(), &chain(), at(BLOCK_SECONDS)).unwrap();
        let bytes = signed.transaction.encode_to_vec();
        let verified = SignedTransaction::parse(&bytes, &chain().chain).unwrap().verify().unwrap();
        assert_eq!(verified.id(), signed.id);
        let body = verified.body();
        assert_eq!((body.nonce.0, body.memo.as_str(), body.max_fee), (9, "welcome", Amount(1_000_000)));
        let opening = tally_types::body::Operation::CreateAccount {
            new_account: Address([2; 32]),
            opening_balance: Amount(2_500_000_000),
        };
        assert_eq!(body.operations, vec![opening]);
        let other = SecretKey::from_seed([3; 32]);
        assert!(plan.sign(&other, &chain(), at(BLOCK_SECONDS)).is_err(), "another key's signature is never sent");
    }
}
