//! `pay FILE.csv`: every line of a list is paid once, many in one transaction.
//!
//! Before a transaction leaves, the journal holds its signed bytes, synced to disk. After any interruption the same command
//! first finds out what became of those very bytes, sending them again if they may have been lost; a line is put into another
//! transaction only when the one that held it has failed in a block or can never run any more. A refusal proves neither:
//! whoever refused has the bytes, too. So no line is paid twice, whatever machines do, unless the nodes that are asked lie about what
//! has run.

mod journal;
mod list;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use serde_json::json;
use tally_proto::v1::ExecutionResult;
use tally_types::{Address, Amount, PublicKey, SecretKey};

use self::{
    journal::{Journal, Outcome, Subject},
    list::{Line, List},
};
use super::{
    Context, Session, count,
    deliver::{self, Delivered, Delivery},
    pay,
    plan::{self, Draft},
    rows,
};
use crate::{
    cli::payment::{PER_TRANSACTION_DEFAULT, PayFileArgs},
    client::{
        NodeError,
        trace::{quoted, quoted_if_odd},
    },
    envelope::Envelope,
    error::{Exit, Fate, FileError, Refusal, UsageError, WalletError},
    keystore::KeyInfo,
    output::rfc3339,
};

/// Most bytes that the operations of one transaction may have, so that memo, sender and the rest fit into the body.
const OPERATIONS_BYTES_MAX: usize = 7000;

/// A list on its way.
struct Batch<'a> {
    context: &'a Context,
    session: &'a Session,
    args: &'a PayFileArgs,
    list: List,
    sender: Address,
    /// Places of lines whose recipients have no account yet: paying them opens it.
    opens: Vec<bool>,
    expire_in: Duration,
}

/// Pays a list, or goes on paying it.
pub async fn run(context: &Context, args: PayFileArgs) -> Result<(), WalletError> {
    let (_, network) = context.pinned_network()?;
    plan::check_memo(&args.memo)?;
    let token = network.token().ok_or(UsageError::NotPinned)?;
    let list = list::read(&args.file)?.check(context, &token)?;
    let (sender, key) = match args.dry_run {
        true => (context.payer()?.address, None),
        false => context.sender().map(|key| (key.address, Some(key)))?,
    };
    let session = context.connect().await?;
    let subject = Subject { list: list.hash, lines: list.lines.len(), chain: session.chain.chain.clone(), sender };
    let path = journal_path(&args)?;
    let expire_in = plan::expire_in(args.expire_in, &session.chain)?;
    let opens = vec![false; list.lines.len()];
    let mut batch = Batch { context, session: &session, args: &args, list, sender, opens, expire_in };
    let Some(key) = key else {
        let paid = Journal::look(&path, &subject)?;
        return batch.rehearse(&paid).await;
    };
    let mut journal = Journal::open(&path, subject)?;
    batch.settle(&mut journal).await?;
    let open = journal.open_lines();
    if !open.is_empty() {
        let overview = batch.survey(&open).await?;
        let secret = batch.agree(&key, &overview).await?;
        batch.pay(&mut journal, &open, &secret).await?;
    }
    batch.report(&journal)
}

/// Where the journal of a list is. However the list is reached, it is the same file.
fn journal_path(args: &PayFileArgs) -> Result<PathBuf, FileError> {
    if let Some(path) = &args.journal {
        return Ok(path.clone());
    }
    let unreadable = |source| FileError::Read { file: args.file.clone(), source };
    let list = args.file.canonicalize().map_err(unreadable)?;
    if !list.is_file() {
        let problem = "it is no regular file, so nothing says where its journal belongs: give --journal";
        return Err(unreadable(std::io::Error::new(std::io::ErrorKind::InvalidInput, problem)));
    }
    let mut path = list.into_os_string();
    path.push(".journal");
    Ok(PathBuf::from(path))
}

/// What is about to be paid.
struct Overview {
    lines: usize,
    transactions: usize,
    total: Amount,
    fee: Amount,
    left: Amount,
}

impl Batch<'_> {
    /// Finds out what became of transactions of an earlier run.
    async fn settle(&self, journal: &mut Journal) -> Result<(), WalletError> {
        for envelope in journal.unsettled() {
            self.context.output.note(&format!("finding out what became of {}", envelope.id()));
            self.deliver(journal, &envelope, true).await?;
        }
        // Before lines are paid anew: perhaps it did run, whoever said that it never will.
        for (envelope, _) in journal.never_ran() {
            let answer = match self.session.nodes.transaction(&envelope.id(), &self.session.chain.token).await {
                Err(error) if error.exit == Exit::NotFound => continue,
                answer => answer?,
            };
            let record = answer.transaction.filter(|record| record.tx_id == envelope.id().to_string());
            let Some(receipt) = record.and_then(|record| record.receipt) else { continue };
            let outcome = match receipt.result() {
                ExecutionResult::Ok => Outcome::Final { height: receipt.height },
                ExecutionResult::Failed => {
                    Outcome::Failed { height: receipt.height, reason: receipt.failure_reason.clone() }
                }
                ExecutionResult::Unspecified => continue,
            };
            journal.settled(&envelope, outcome)?;
        }
        Ok(())
    }

    /// Checks the open lines against the chain before anything is signed.
    async fn survey(&mut self, open: &[usize]) -> Result<Overview, WalletError> {
        let (token, nodes) = (&self.session.chain.token, &self.session.nodes);
        let mut exists: BTreeMap<Address, bool> = BTreeMap::new();
        let mut total = Amount::ZERO;
        for place in open {
            let Line { number, to, amount, .. } = &self.list.lines[*place];
            total = total.checked_add(*amount).ok_or(Refusal::Overflow)?;
            let known = match exists.get(&to.address) {
                Some(known) => *known,
                None => match nodes.account(&to.address, token).await {
                    Ok(_) => true,
                    Err(error) if error.exit == Exit::NotFound => false,
                    Err(error) => return Err(error.into()),
                },
            };
            let wrong = |problem: String| FileError::Line { file: self.args.file.clone(), line: *number, problem };
            if !known && !self.args.create_if_missing {
                let problem = format!("{} has no account; --create-if-missing opens it", to.describe());
                return Err(wrong(problem).into());
            }
            if !known && !PublicKey::from(to.address).is_usable() {
                let problem = "the recipient's address is no key that anybody can sign with; ask for it again";
                return Err(wrong(problem.into()).into());
            }
            let minimum = self.session.chain.min_opening_balance;
            if !known && *amount < minimum {
                let problem = format!("an account opens with at least {}", token.show(minimum));
                return Err(wrong(problem).into());
            }
            self.opens[*place] = !known;
            // The first line opens it, further ones pay into it.
            exists.insert(to.address, true);
        }
        let count = u64::try_from(open.len()).unwrap_or(u64::MAX);
        let fee = self.session.chain.base_fee.checked_mul(count).ok_or(Refusal::Overflow)?;
        let needed = total.checked_add(fee).ok_or(Refusal::Overflow)?;
        let (account, _) = nodes.account(&self.sender, token).await?;
        let balance = Amount(account.balance);
        let Some(left) = balance.checked_sub(needed) else {
            let missing = needed.checked_sub(balance).unwrap_or_default();
            let token = token.clone();
            return Err(Refusal::Shortage { balance, missing, needed, amount: total, fee, token }.into());
        };
        let transactions = self.portions(open).len();
        Ok(Overview { lines: open.len(), transactions, total, fee, left })
    }

    /// Shows what is about to be paid, asks, and opens the key.
    async fn agree(&self, key: &KeyInfo, overview: &Overview) -> Result<SecretKey, WalletError> {
        let context = self.context;
        self.list.warn_of_twins(context.output);
        plan::warn_of_clock(context.output, &self.session.chain, SystemTime::now());
        if !context.globals.yes {
            context.prompt.can_confirm()?;
            context.output.preamble(&self.describe(&format!("{} ({})", key.address, key.name), overview));
            context.prompt.confirm("Pay all of them?").await?;
        }
        let passphrase = context.prompt.passphrase(&self.args.passphrase, key.name.as_str())?;
        Ok(context.keystore.unlock(key.name.as_str(), &passphrase)?)
    }

    fn describe(&self, from: &str, overview: &Overview) -> String {
        let (token, session) = (&self.session.chain.token, self.session);
        let chain = crate::output::clean(&session.chain.chain.id);
        let opened = self.opens.iter().filter(|opens| **opens).count();
        let mut lines = vec![
            ("network", format!("{} ({chain}) at {}", session.network(), session.nodes.name())),
            ("from", from.to_owned()),
            ("list", format!("{}, {}", self.args.file.display(), count(self.list.lines.len(), "line"))),
            ("to pay", format!("{} in {}", count(overview.lines, "line"), count(overview.transactions, "transaction"))),
            ("amount", token.show(overview.total)),
            ("fee", token.show(overview.fee)),
            ("left", token.show(overview.left)),
        ];
        if opened > 0 {
            lines.push(("opens", count(opened, "account")));
        }
        rows(&lines)
    }

    /// Signs, keeps, and delivers one transaction after the other.
    async fn pay(&self, journal: &mut Journal, open: &[usize], secret: &SecretKey) -> Result<(), WalletError> {
        let (token, nodes) = (&self.session.chain.token, &self.session.nodes);
        let total = self.list.lines.len();
        self.context.output.progress(journal.paid(), total);
        // What is said to have never run goes first, under its own nonce, unless something else has used that: the chain lets
        // one of the two run, whoever said so.
        let mut again = Vec::new();
        for (envelope, lines) in journal.never_ran() {
            let nonce = envelope.body().nonce.0;
            let body = self.draft(&lines, nonce)?.build(&self.session.refreshed().await?, SystemTime::now())?.message();
            match nodes.simulate(&body, token).await {
                Err(error) if matches!(error.reason.as_str(), "NONCE_IN_USE" | "NONCE_TOO_LOW") => {}
                answer => {
                    answer?;
                    again.push((nonce, lines));
                }
            }
        }
        let rest: Vec<usize> =
            open.iter().copied().filter(|line| !again.iter().any(|(_, lines)| lines.contains(line))).collect();
        let again = again.into_iter().map(|(nonce, lines)| (Some(nonce), lines));
        let fresh = self.portions(&rest).into_iter().map(|lines| (None, lines));
        for (nonce, portion) in again.chain(fresh) {
            let nonce = match nonce {
                Some(nonce) => nonce,
                None => plan::next_nonce(&nodes.account(&self.sender, token).await?.0),
            };
            // Blocks went on since the connection was made, and expire times count from the latest.
            let chain = self.session.refreshed().await?;
            let envelope = self.draft(&portion, nonce)?.build(&chain, SystemTime::now())?.sign(secret)?;
            journal.signed(&envelope, &portion)?;
            self.deliver(journal, &envelope, false).await?;
            self.context.output.progress(journal.paid(), total);
        }
        self.context.output.progress_ends();
        Ok(())
    }

    fn draft(&self, portion: &[usize], nonce: u64) -> Result<Draft, WalletError> {
        let count = u64::try_from(portion.len()).unwrap_or(u64::MAX);
        let operation = |place: &usize| {
            let line = &self.list.lines[*place];
            plan::operation(self.opens[*place], &line.to.address, line.amount)
        };
        Ok(Draft {
            sender: self.sender,
            nonce,
            expire_in: self.expire_in,
            max_fee: self.session.chain.base_fee.checked_mul(count).ok_or(Refusal::Overflow)?,
            memo: self.args.memo.clone(),
            operations: portion.iter().map(operation).collect(),
        })
    }

    /// The lines of each transaction.
    fn portions(&self, open: &[usize]) -> Vec<Vec<usize>> {
        // An operation has at most 64 bytes of address, 10 of amount, and the framing of three messages.
        let fit = OPERATIONS_BYTES_MAX / 90;
        let most = usize::try_from(self.args.per_transaction).unwrap_or(1).min(fit);
        open.chunks(most.max(1)).map(<[usize]>::to_vec).collect()
    }

    /// Delivers a transaction whose bytes the journal holds, and keeps what became of it.
    async fn deliver(&self, journal: &mut Journal, envelope: &Envelope, again: bool) -> Result<(), WalletError> {
        let delivery = Delivery { waits: true, believes_refusals: !again, tells: false, resume: self.resume_command() };
        match deliver::deliver(self.context, self.session, envelope, delivery).await {
            Ok(Delivered::Final(success)) => {
                journal.settled(envelope, Outcome::Final { height: success.receipt.height })?;
                Ok(())
            }
            Ok(Delivered::Taken(_)) => Ok(()),
            Err(WalletError::Fate(fate)) => {
                match &*fate {
                    Fate::Failed { height, reason, .. } => {
                        journal.settled(envelope, Outcome::Failed { height: *height, reason: reason.clone() })?;
                    }
                    Fate::NeverRan { .. } => {
                        journal.settled(envelope, Outcome::NeverRan)?;
                        // Found out about an earlier run, it is no failure of this one: its lines are open again.
                        if again {
                            return Ok(());
                        }
                    }
                    Fate::Unknown { .. } => {}
                }
                Err(WalletError::Fate(fate))
            }
            // Whoever refused has the bytes. Until they can no longer run, their lines are not put into others.
            Err(WalletError::Node(error)) => Err(WalletError::Node(NodeError {
                message: error.message.replacen("rejected, it will not run", "rejected", 1),
                next: format!(
                    "{}; then run the same command again after {}, when it is certain that this transaction never ran",
                    error.next,
                    rfc3339(envelope.expire_time())
                ),
                ..error
            })),
            Err(error) => Err(error),
        }
    }

    /// The command that goes on.
    fn resume_command(&self) -> String {
        let mut command = format!("tally-wallet pay {}", quoted_if_odd(&self.args.file.display().to_string()));
        if let Some(journal) = &self.args.journal {
            command = format!("{command} --journal {}", quoted_if_odd(&journal.display().to_string()));
        }
        if let Some(from) = &self.context.globals.from {
            command = format!("{command} --from {}", quoted_if_odd(from));
        }
        if self.args.create_if_missing {
            command.push_str(" --create-if-missing");
        }
        if !self.args.memo.is_empty() {
            command = format!("{command} --memo {}", quoted(&self.args.memo));
        }
        if self.args.per_transaction != PER_TRANSACTION_DEFAULT {
            command = format!("{command} --per-transaction {}", self.args.per_transaction);
        }
        if let Some(time) = self.args.expire_in {
            command =
                format!("{command} --expire-in {}", humantime::format_duration(time).to_string().replace(' ', ""));
        }
        self.context.with_way(&command)
    }

    /// `--dry-run`: every check, and every transaction worked out by the node as if it came now.
    async fn rehearse(&mut self, paid: &[bool]) -> Result<(), WalletError> {
        let open: Vec<usize> = (0..self.list.lines.len()).filter(|place| !paid[*place]).collect();
        let overview = self.survey(&open).await?;
        self.list.warn_of_twins(self.context.output);
        let (account, _) = self.session.nodes.account(&self.sender, &self.session.chain.token).await?;
        for portion in self.portions(&open) {
            let draft = self.draft(&portion, plan::next_nonce(&account))?;
            let envelope = draft.build(&self.session.chain, SystemTime::now())?;
            let answer = self.session.nodes.simulate(&envelope.message(), &self.session.chain.token).await?;
            // A line that an earlier transaction of this list prepares cannot be judged before that one ran.
            if let Some(failure) = &answer.failure
                && failure.reason != "RECIPIENT_NOT_FOUND"
            {
                return Err(pay::would_fail(failure, self.session).into());
            }
        }
        let text = format!("{}dry run  would succeed now", self.describe(&self.sender.to_string(), &overview));
        let json = json!({
            "lines": self.list.lines.len(),
            "open": overview.lines,
            "transactions": overview.transactions,
            "total": overview.total.to_string(),
            "fee": overview.fee.to_string(),
        });
        self.context.output.result(&text, &json)
    }

    fn report(&self, journal: &Journal) -> Result<(), WalletError> {
        let token = &self.session.chain.token;
        let total = self.list.lines.iter().fold(Amount::ZERO, |sum, line| sum.checked_add(line.amount).unwrap_or(sum));
        let finals = journal.finals();
        let text = format!(
            "paid: {}, {} in {}, all final; see {}",
            count(self.list.lines.len(), "line"),
            token.show(total),
            count(finals.len(), "transaction"),
            journal.path().display()
        );
        let number = |place: &usize| self.list.lines[*place].number;
        let transactions: Vec<_> = finals
            .iter()
            .map(|(id, height, lines)| {
                let lines: Vec<_> = lines.iter().map(number).collect();
                json!({ "txId": id, "height": height.to_string(), "lines": lines })
            })
            .collect();
        let json = json!({
            "lines": self.list.lines.len(),
            "paid": journal.paid(),
            "total": total.to_string(),
            "transactions": transactions,
        });
        let written = self.context.output.result(&text, &json);
        written.map_err(|error| {
            error.after(&format!("the list is paid; its journal {} says how", journal.path().display()))
        })
    }
}
