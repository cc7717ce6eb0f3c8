//! What a payment will be, worked out before anything is signed.
//!
//! Everything that can be found wrong is found here, before the key is opened.

use std::time::{Duration, SystemTime};

use tally_proto::v1::{self, operation::Operation};
use tally_types::{Address, Amount, body::MEMO_BYTES_MAX};

use super::Session;
use crate::{
    cli::payment::PayArgs,
    client::ChainView,
    envelope::{Envelope, EnvelopeError},
    error::{Exit, Refusal, UsageError, WalletError},
    output::{Output, clean, rfc3339},
    target::{self, SecretKind, Target},
    token::Token,
};

/// How long a transaction may run when nobody says otherwise.
const EXPIRE_IN: Duration = Duration::from_secs(5 * 60);

/// How far blocks may be ahead of this machine's clock without a word.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(60);

/// What the person asks for.
#[derive(Clone, Debug)]
pub struct Order {
    /// Pay or open.
    pub kind: Kind,
    /// Address, or name of an own key or contact.
    pub to: String,
    /// Tokens as typed, or "all".
    pub amount: String,
    /// The rest.
    pub args: PayArgs,
}

/// The ways to move tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To an account that exists.
    Transfer,
    /// To one that does not yet.
    CreateAccount,
    /// To either: the chain is asked which.
    EitherWay,
}

/// What makes a transaction, but for chain and time.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Who pays.
    pub sender: Address,
    /// Its number.
    pub nonce: u64,
    /// How long it may run.
    pub expire_in: Duration,
    /// Most it may cost.
    pub max_fee: Amount,
    /// Text in it.
    pub memo: String,
    /// What it does.
    pub operations: Vec<v1::Operation>,
}

/// A payment that the chain's rules and the balance allow, as far as this wallet can tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    kind: Kind,
    to: Target,
    amount: Amount,
    fee: Amount,
    left: Amount,
    /// The transaction.
    pub draft: Draft,
}

impl Order {
    /// Finds what is wrong with the order itself, before any node is asked: the pinned token says how amounts are written.
    pub fn check(&self, token: &Token) -> Result<(), WalletError> {
        if self.amount != "all" && token.parse(&self.amount)?.is_zero() {
            return Err(UsageError::AmountZero.into());
        }
        if let Some(max_fee) = &self.args.max_fee {
            token.parse(max_fee)?;
        }
        Ok(check_memo(&self.args.memo)?)
    }
}

/// An operation that moves `amount` to `to`.
pub fn operation(opens: bool, to: &Address, amount: Amount) -> v1::Operation {
    let operation = match opens {
        false => Operation::Transfer(v1::Transfer { recipient: to.to_string(), amount: amount.0 }),
        true => Operation::CreateAccount(v1::CreateAccount { new_account: to.to_string(), opening_balance: amount.0 }),
    };
    v1::Operation { operation: Some(operation) }
}

/// How long a transaction may run.
pub fn expire_in(given: Option<Duration>, chain: &ChainView) -> Result<Duration, UsageError> {
    match given {
        Some(given) if given > chain.max_expiry => Err(UsageError::ExpireIn { max: chain.max_expiry }),
        Some(given) => Ok(given),
        None => Ok(EXPIRE_IN.min(chain.max_expiry)),
    }
}

/// Says so where blocks are far ahead of this machine's clock: what is signed may run for that much longer.
pub fn warn_of_clock(output: Output, chain: &ChainView, now: SystemTime) {
    let ahead = chain.latest_block_time.duration_since(now).unwrap_or_default();
    if ahead > CLOCK_AHEAD_MAX {
        output.warning(&format!(
            "the latest block is of {}, {} ahead of this machine's clock, and what is signed may run for that much longer; if \
             the clock is right, do not trust this node",
            rfc3339(chain.latest_block_time),
            humantime::format_duration(Duration::from_secs(ahead.as_secs()))
        ));
    }
}

/// Refuses a memo that is too long, or that would publish the words of a key.
pub fn check_memo(memo: &str) -> Result<(), UsageError> {
    if target::secret_kind(memo) == Some(SecretKind::Words) {
        return Err(UsageError::Secret(SecretKind::Words));
    }
    if memo.len() > MEMO_BYTES_MAX {
        return Err(UsageError::MemoTooLong(memo.len()));
    }
    Ok(())
}

/// The next nonce of an account.
pub fn next_nonce(account: &v1::Account) -> u64 {
    // The node's own count starts at 1; a node that says 0 has not looked.
    account.pending_nonce.max(account.next_nonce).max(1)
}

impl Draft {
    /// The unsigned transaction. The time counts from `now` or from the latest block, whichever is later, so that a clock
    /// that runs behind does not make a transaction that is born expired; never beyond what the chain allows.
    pub fn build(&self, chain: &ChainView, now: SystemTime) -> Result<Envelope, EnvelopeError> {
        let latest_allowed = chain.latest_block_time + chain.max_expiry;
        let expire_time = (now.max(chain.latest_block_time) + self.expire_in).min(latest_allowed);
        // Whole milliseconds, the unit of block time: what is shown is what is signed.
        let since = expire_time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let body = v1::TransactionBody {
            chain_id: chain.chain.id.clone(),
            sender: self.sender.to_string(),
            nonce: self.nonce,
            expire_time: Some(prost_types::Timestamp::from(SystemTime::UNIX_EPOCH + since)),
            max_fee: self.max_fee.0,
            memo: self.memo.clone(),
            operations: self.operations.clone(),
        };
        Envelope::unsigned(&chain.chain, &body)
    }
}

impl Plan {
    /// Decides whether the account is paid or opened, when that was left open, and works the plan out.
    pub async fn make(order: &Order, to: Target, sender: &Address, session: &Session) -> Result<Plan, WalletError> {
        let token = &session.chain.token;
        let (account, _) = session.nodes.account(sender, token).await?;
        let kind = match order.kind {
            Kind::EitherWay => match session.nodes.account(&to.address, token).await {
                Ok(_) => Kind::Transfer,
                Err(error) if error.exit == Exit::NotFound => Kind::CreateAccount,
                Err(error) => return Err(error.into()),
            },
            kind => kind,
        };
        Plan::new(&Order { kind, ..order.clone() }, to, &account, &session.chain)
    }

    /// The plan for an order whose kind is settled.
    fn new(order: &Order, to: Target, account: &v1::Account, chain: &ChainView) -> Result<Plan, WalletError> {
        let token = &chain.token;
        order.check(token)?;
        let balance = Amount(account.balance);
        // One operation, so one base fee.
        let fee = chain.base_fee;
        let amount = match order.amount.as_str() {
            "all" => balance.checked_sub(fee).unwrap_or_default(),
            text => token.parse(text)?,
        };
        let expire_in = expire_in(order.args.expire_in, chain)?;
        if order.kind == Kind::CreateAccount && amount < chain.min_opening_balance {
            let minimum = chain.min_opening_balance;
            return Err(Refusal::OpeningBalanceTooLow { minimum, amount, token: token.clone() }.into());
        }
        let max_fee = match &order.args.max_fee {
            Some(text) => token.parse(text)?,
            None => fee,
        };
        if max_fee < fee {
            return Err(Refusal::FeeTooLow { fee, max_fee, token: token.clone() }.into());
        }
        // Of "all", at least something has to be left to send.
        let amount = if amount.is_zero() { Amount(1) } else { amount };
        let needed = amount.checked_add(fee).ok_or(Refusal::Overflow)?;
        let Some(left) = balance.checked_sub(needed) else {
            let missing = needed.checked_sub(balance).unwrap_or_default();
            return Err(Refusal::Shortage { balance, missing, needed, amount, fee, token: token.clone() }.into());
        };
        let sender = account.address.parse().map_err(target::TargetError::Address)?;
        // What goes to oneself comes back: only the fee is gone.
        let left = if to.address == sender { left.checked_add(amount).unwrap_or(left) } else { left };
        let draft = Draft {
            sender,
            nonce: order.args.nonce.unwrap_or(next_nonce(account)),
            expire_in,
            max_fee,
            memo: order.args.memo.clone(),
            operations: vec![operation(order.kind == Kind::CreateAccount, &to.address, amount)],
        };
        Ok(Plan { kind: order.kind, to, amount, fee, left, draft })
    }

    /// What is about to be signed, for a person to agree to; `from` is the sender's name.
    pub fn describe(&self, from: &str, session: &Session) -> String {
        let (token, chain) = (&session.chain.token, &session.chain.chain);
        let fee = match self.draft.max_fee == self.fee {
            true => token.show(self.fee),
            false => format!("{}, at most {}", token.show(self.fee), token.show(self.draft.max_fee)),
        };
        let to = if self.kind == Kind::Transfer { "to" } else { "open" };
        let mut lines = vec![
            ("network", format!("{} ({}) at {}", session.network(), clean(&chain.id), session.nodes.name())),
            ("from", format!("{} ({from})", self.draft.sender)),
            (to, self.to.describe()),
            ("amount", token.show(self.amount)),
            ("fee", fee),
            ("left", token.show(self.left)),
        ];
        if !self.draft.memo.is_empty() {
            lines.push(("memo", format!("{:?}", clean(&self.draft.memo))));
        }
        super::rows(&lines)
    }

    /// The question that goes with it.
    pub fn question(&self) -> &'static str {
        if self.kind == Kind::Transfer { "Send?" } else { "Open the account?" }
    }

    /// Who is paid.
    pub fn to(&self) -> &Target {
        &self.to
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tally_types::{Hash, SecretKey, SignedTransaction, genesis::Chain};

    use super::*;
    use crate::error::Exit;

    const BLOCK_SECONDS: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn chain() -> ChainView {
        ChainView {
            chain: Chain {
                id: format!("local-{:.8}", Hash::of(b"genesis").to_string()),
                genesis_hash: Hash::of(b"genesis"),
            },
            token: Token::new("TALLY", 9).unwrap(),
            base_fee: Amount(1_000_000),
            min_opening_balance: Amount(1_000_000_000),
            max_expiry: Duration::from_secs(3600),
            latest_block_time: at(BLOCK_SECONDS),
            info: v1::GetChainInfoResponse::default(),
        }
    }

    fn secret() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    fn order(kind: Kind, amount: &str) -> Order {
        let args = PayArgs {
            memo: String::new(),
            max_fee: None,
            expire_in: None,
            nonce: None,
            no_wait: false,
            dry_run: false,
            build_only: false,
            sign_only: false,
            out: None,
            confirm_recipient: None,
            passphrase: Default::default(),
        };
        Order { kind, to: String::new(), amount: amount.into(), args }
    }

    fn plan(order: &Order, balance: u64) -> Result<Plan, WalletError> {
        let address = secret().public_key().address().to_string();
        let account = v1::Account { address, balance, next_nonce: 3, pending_nonce: 5, ..Default::default() };
        let to = Target { address: Address([2; 32]), name: None };
        Plan::new(order, to, &account, &chain())
    }

    #[test]
    fn what_does_not_fit_the_balance_is_refused_with_the_shortage() {
        let order = order(Kind::Transfer, "12.5");
        let error = plan(&order, 3_000_000_000).unwrap_err();
        assert_eq!(error.to_string(), "balance 3 is 9.501 short of 12.501 (amount 12.5 + fee 0.001)");
        assert_eq!(error.exit(), Exit::Rejected);
        assert!(plan(&order, 12_500_999_999).is_err());
        let exact = plan(&order, 12_501_000_000).unwrap();
        assert_eq!((exact.left, exact.draft.nonce, exact.draft.max_fee), (Amount::ZERO, 5, Amount(1_000_000)));
    }

    #[test]
    fn all_is_everything_but_the_fee() {
        let all = plan(&order(Kind::Transfer, "all"), 3_000_000_000).unwrap();
        assert_eq!((all.amount, all.left), (Amount(2_999_000_000), Amount::ZERO));
        let poor = plan(&order(Kind::Transfer, "all"), 1_000_000).unwrap_err();
        assert_eq!(poor.reason(), "INSUFFICIENT_FUNDS");
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
        let expires = |now| plan.draft.build(&chain(), now).unwrap().expire_time();
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
        let signed = plan.draft.build(&chain(), at(BLOCK_SECONDS)).unwrap().sign(&secret()).unwrap();
        let bytes = signed.transaction().unwrap().encode_to_vec();
        let verified = SignedTransaction::parse(&bytes, &chain().chain).unwrap().verify().unwrap();
        assert_eq!(verified.id(), signed.id());
        let body = verified.body();
        assert_eq!((body.nonce.0, body.memo.as_str(), body.max_fee), (9, "welcome", Amount(1_000_000)));
        let opening = tally_types::body::Operation::CreateAccount {
            new_account: Address([2; 32]),
            opening_balance: Amount(2_500_000_000),
        };
        assert_eq!(body.operations, vec![opening]);
        let other = SecretKey::from_seed(&[3; 32]);
        assert!(
            plan.draft.build(&chain(), at(BLOCK_SECONDS)).unwrap().sign(&other).is_err(),
            "another key's signature is never sent"
        );
    }
}
