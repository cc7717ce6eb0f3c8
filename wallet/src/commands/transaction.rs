//! `tx`: what became of a transaction, and files of transactions that were prepared elsewhere.

use std::{path::PathBuf, time::SystemTime};

use serde_json::json;
use tally_proto::v1;
use tally_types::{Amount, Hash};

use super::{Context, files, outcome, pay, rows};
use crate::{
    cli::{groups::TxCommand, payment::PassphraseArgs},
    client::{ChainError, time},
    envelope::{Envelope, EnvelopeError},
    error::{FileError, UsageError, WalletError},
    json,
    output::{clean, rfc3339},
    token::Token,
};

/// Carries out a command about one transaction.
pub async fn run(context: &Context, command: TxCommand) -> Result<(), WalletError> {
    match command {
        TxCommand::Show { id } => show(context, &id).await,
        TxCommand::Wait { id } => wait(context, id).await,
        TxCommand::Decode { file } => decode(context, &files::read(&file)?),
        TxCommand::Sign { file, out, passphrase } => sign(context, file, out, &passphrase).await,
        TxCommand::Submit { file, no_wait } => submit(context, file, !no_wait).await,
    }
}

async fn wait(context: &Context, id: Hash) -> Result<(), WalletError> {
    let session = context.connect().await?;
    let target = outcome::Target { id, expire_time: None, nonce: None, resume: context.wait_command(&id) };
    let outcome = outcome::wait(context, &session.nodes, &session.chain.token, &target).await?;
    let text = format!("final according to {}, height {}", session.nodes.name(), outcome.receipt.height);
    context.output.result(&text, &json::record(&outcome.record))
}

async fn show(context: &Context, id: &Hash) -> Result<(), WalletError> {
    let session = context.connect().await?;
    let answer = session.nodes.transaction(id, &session.chain.token).await?;
    let record = answer.transaction.unwrap_or_default();
    let looked = format!(
        "according to {}, which has looked up to height {} ({})",
        session.nodes.name(),
        answer.height,
        answer.block_time.and_then(time).map(rfc3339).unwrap_or_default()
    );
    let mut json = json::record(&record);
    json["lookup"] = json!({ "height": answer.height.to_string(), "blockTime": json::timestamp(answer.block_time) });
    context.output.result(&format!("{}{looked}", describe(&record, &session.chain.token)), &json)
}

/// What a file says, without asking anybody.
fn decode(context: &Context, envelope: &Envelope) -> Result<(), WalletError> {
    let token = context.token_of(envelope.chain())?;
    let mut json = json!({
        "txId": envelope.id().to_string(),
        "genesisHash": envelope.chain().genesis_hash.to_string(),
        "signed": envelope.is_signed(),
    });
    json["body"] = json::body(&envelope.message());
    context.output.result(&describe_file(context, envelope, token.as_ref()), &json)
}

async fn sign(
    context: &Context,
    file: PathBuf,
    out: Option<PathBuf>,
    passphrase: &PassphraseArgs,
) -> Result<(), WalletError> {
    let envelope = files::read(&file)?;
    let wrong = |problem| FileError::Envelope { file: file.clone(), problem };
    if envelope.is_signed() {
        return Err(wrong(EnvelopeError::Signed).into());
    }
    // A signature is for one chain: it must be one that the person has pinned, not one that the file names.
    let token = context.token_of(envelope.chain())?;
    let token = token.ok_or_else(|| UsageError::ChainNotPinned(envelope.chain().id.clone()))?;
    let sender = envelope.body().sender;
    let key = match &context.globals.from {
        Some(_) => context.sender()?,
        None => {
            let mut keys = context.keystore.list()?.into_iter().flatten();
            let found = keys.find(|key| key.address == sender);
            found.ok_or_else(|| {
                wrong(EnvelopeError::OtherKey { sender: sender.to_string(), key: "of anybody here".into() })
            })?
        }
    };
    if key.address != sender {
        let key = key.name.to_string();
        return Err(wrong(EnvelopeError::OtherKey { sender: sender.to_string(), key }).into());
    }
    if envelope.expire_time() <= SystemTime::now() {
        context.output.warning("by this machine's clock it has expired already: no node will take it");
    }
    if !context.globals.yes {
        context.prompt.can_confirm()?;
        context.output.preamble(&describe_file(context, &envelope, Some(&token)));
        context.prompt.confirm("Sign?").await?;
    }
    let passphrase = context.prompt.passphrase(passphrase, key.name.as_str())?;
    let secret = context.keystore.unlock(key.name.as_str(), &passphrase)?;
    drop(passphrase);
    let signed = envelope.sign(&secret)?;
    drop(secret);
    files::write(context, &signed, out.as_ref())
}

async fn submit(context: &Context, file: PathBuf, waits: bool) -> Result<(), WalletError> {
    let envelope = files::read(&file)?;
    if !envelope.is_signed() {
        return Err(FileError::Envelope { file, problem: EnvelopeError::Unsigned }.into());
    }
    let session = context.connect().await?;
    let (ours, theirs) = (envelope.chain(), &session.chain.chain);
    if ours != theirs {
        return Err(WalletError::Chain(ChainError {
            node: session.nodes.name(),
            network: file.display().to_string(),
            field: "genesis hash",
            pinned: ours.genesis_hash.to_string(),
            got: theirs.genesis_hash.to_string(),
        }));
    }
    context.output.signed(&envelope.id(), envelope.expire_time());
    pay::submit(context, &session, &envelope, pay::Way { waits, is_new: false }).await
}

fn describe_file(context: &Context, envelope: &Envelope, token: Option<&Token>) -> String {
    let signed = if envelope.is_signed() { "yes, and the signature holds" } else { "no" };
    let mut lines = vec![
        ("id", envelope.id().to_string()),
        ("signed", signed.into()),
        ("chain", clean(&envelope.chain().id)),
        ("genesis", envelope.chain().genesis_hash.to_string()),
    ];
    let named = |address: &str| match address.parse().ok().and_then(|address| context.book().name_of(&address)) {
        Some(name) => format!("{address} ({name})"),
        None => address.to_owned(),
    };
    lines.extend(body_lines(&envelope.message(), token, named));
    lines.push(("max fee", amount(envelope.body().max_fee.0, token)));
    rows(&lines)
}

/// An amount; in base units where no pinned network says how they are written.
fn amount(base: u64, token: Option<&Token>) -> String {
    token.map_or_else(|| format!("{base} base units"), |token| token.show(Amount(base)))
}

/// A transaction's body, line by line.
pub fn body_lines(
    body: &v1::TransactionBody,
    token: Option<&Token>,
    named: impl Fn(&str) -> String,
) -> Vec<(&'static str, String)> {
    use v1::operation::Operation as Op;
    let mut lines = vec![("from", named(&clean(&body.sender)))];
    for operation in &body.operations {
        let (verb, to, base) = match &operation.operation {
            Some(Op::Transfer(transfer)) => ("pays", &transfer.recipient, transfer.amount),
            Some(Op::CreateAccount(create)) => ("opens", &create.new_account, create.opening_balance),
            None => continue,
        };
        lines.push((verb, format!("{} {}", named(&clean(to)), amount(base, token))));
    }
    lines.push(("nonce", body.nonce.to_string()));
    lines.push(("expires", body.expire_time.and_then(time).map(rfc3339).unwrap_or_default()));
    if !body.memo.is_empty() {
        lines.push(("memo", format!("{:?}", clean(&body.memo))));
    }
    lines
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
        lines.extend(body_lines(body, Some(token), str::to_owned));
    }
    rows(&lines)
}
