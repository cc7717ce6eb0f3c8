//! `send` and `create-account`: plan, confirm, sign, hand over, wait; or stop on the way.

use std::time::SystemTime;

use serde_json::json;
use tally_proto::v1;
use tally_types::{Address, Amount};

use super::{
    Context, Session,
    deliver::{self, Delivered, Delivery},
    files,
    plan::{self, Order, Plan},
    rows,
};
use crate::{
    client::{HistoryQuery, NodeError, explain},
    envelope::Envelope,
    error::{Exit, WalletError},
    json,
    output::{clean, rfc3339},
    target::Target,
};

/// How many transactions of the past are looked at for an earlier payment to an address that resembles a known one.
const LOOK_BACK: u32 = 1000;

/// Reasons that a later try of the same bytes hardly overcomes.
const SPENT: [&str; 3] = ["EXPIRED", "NONCE_IN_USE", "NONCE_TOO_LOW"];

/// Carries out an order.
pub async fn run(context: &Context, order: Order) -> Result<(), WalletError> {
    let to = context.book().resolve(&order.to)?;
    let (_, network) = context.pinned_network()?;
    network.token().map_or(Ok(()), |token| order.check(&token))?;
    if order.args.dry_run || order.args.build_only {
        return without_key(context, &order, to).await;
    }
    let key = context.sender()?;
    let session = context.connect().await?;
    let plan = Plan::make(&order, to, &key.address, &session).await?;
    check_recipient(context, &session, plan.to(), &order).await?;
    plan::warn_of_clock(context.output, &session.chain, SystemTime::now());
    if !context.globals.yes {
        context.prompt.can_confirm()?;
        context.output.preamble(&plan.describe(key.name.as_str(), &session));
        context.prompt.confirm(if order.args.sign_only { "Sign?" } else { plan.question() }).await?;
    }
    let passphrase = context.prompt.passphrase(&order.args.passphrase, key.name.as_str())?;
    let secret = context.keystore.unlock(key.name.as_str(), &passphrase)?;
    drop(passphrase);
    let envelope = plan.draft.build(&session.chain, SystemTime::now())?.sign(&secret)?;
    drop(secret);
    if order.args.sign_only {
        return files::write(context, &envelope, order.args.out.as_ref());
    }
    context.output.signed(&envelope.id(), envelope.expire_time());
    submit(context, &session, &envelope, Way { waits: !order.args.no_wait, is_new: true }).await
}

/// How a signed transaction is handed over.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Whether to wait until it is final.
    pub waits: bool,
    /// Whether it was signed a moment ago, so that nobody can have sent it before.
    pub is_new: bool,
}

/// Hands a signed transaction over, and shows how far it went.
pub async fn submit(context: &Context, session: &Session, envelope: &Envelope, way: Way) -> Result<(), WalletError> {
    let (id, node) = (envelope.id(), session.nodes.name());
    let delivery =
        Delivery { waits: way.waits, believes_refusals: true, tells: true, resume: context.wait_command(&id) };
    let delivered = deliver::deliver(context, session, envelope, delivery).await.map_err(|error| match error {
        // Sent before, they may have run, or may yet: only who knows that they did not signs others.
        WalletError::Node(error) if !way.is_new && SPENT.contains(&error.reason.as_str()) => {
            WalletError::Node(NodeError {
                message: error.message.replacen("rejected, it will not run", "rejected", 1),
                next: format!(
                    "see whether it ran, with {}; if it never did, build and sign a new one",
                    context.wait_command(&id)
                ),
                ..error
            })
        }
        // Signed bytes in a file outlive a refusal: what lacks funds today may have them tomorrow.
        WalletError::Node(error) if !way.is_new => WalletError::Node(NodeError {
            message: format!(
                "{} (now; the signed file can be sent again until {})",
                error.message.replacen("rejected, it will not run", "rejected", 1),
                rfc3339(envelope.expire_time())
            ),
            ..error
        }),
        error => error,
    })?;
    match delivered {
        Delivered::Taken(state) => {
            let text = format!("taken by {node}, not final yet: {}", context.wait_command(&id));
            let json = json!({
                "txId": id.to_string(),
                "state": state.as_str_name(),
                "expireTime": rfc3339(envelope.expire_time()),
            });
            let written = context.output.result(&text, &json);
            written.map_err(|error| error.after(&format!("transaction {id} was taken: do not send it again")))
        }
        Delivered::Final(success) => {
            let text = format!("final according to {node}, height {}", success.receipt.height);
            let written = context.output.result(&text, &json::record(&success.record));
            written.map_err(|error| error.after(&format!("transaction {id} is final: do not send it again")))
        }
    }
}

/// `--dry-run` and `--build-only`: the sender is an address, and nothing is signed.
async fn without_key(context: &Context, order: &Order, to: Target) -> Result<(), WalletError> {
    let payer = context.payer()?;
    let session = context.connect().await?;
    let plan = Plan::make(order, to, &payer.address, &session).await?;
    let envelope = plan.draft.build(&session.chain, SystemTime::now())?;
    if order.args.build_only {
        check_recipient(context, &session, plan.to(), order).await?;
        return files::write(context, &envelope, order.args.out.as_ref());
    }
    let answer = session.nodes.simulate(&envelope.message(), &session.chain.token).await?;
    if let Some(failure) = &answer.failure {
        return Err(would_fail(failure, &session).into());
    }
    let token = &session.chain.token;
    let fee = answer.receipt.as_ref().map(|receipt| receipt.fee).unwrap_or_default();
    let text = rows(&[
        ("dry run", format!("would succeed now, according to {}", session.nodes.name())),
        ("from", payer.describe()),
        ("to", plan.to().describe()),
        ("fee", token.show(Amount(fee))),
        ("before", token.show(Amount(answer.sender_balance_before))),
        ("after", token.show(Amount(answer.sender_balance_after))),
    ]);
    context.output.result(&text, &json::simulation(&answer))
}

/// A failure that a node foresees.
pub fn would_fail(failure: &v1::ErrorDetail, session: &Session) -> NodeError {
    let metadata = failure.metadata.iter().map(|(key, value)| (clean(key), clean(value))).collect();
    let facts = explain::Facts { metadata: &metadata, token: Some(&session.chain.token) };
    let explained = explain::explain(&failure.reason, &facts);
    NodeError {
        reason: clean(&failure.reason),
        message: format!("it would fail: {}", explained.message),
        next: explained.next,
        exit: Exit::Rejected,
        metadata,
        code: failure.code.into(),
        from_node: true,
        retry_after: None,
    }
}

/// A first payment to an address whose ends are those of a known one needs a second look.
async fn check_recipient(context: &Context, session: &Session, to: &Target, order: &Order) -> Result<(), WalletError> {
    let given = order.args.confirm_recipient.as_deref();
    if given.is_some() {
        // Whoever gives it means it, also where nobody would have asked.
        context.prompt.last_characters(&to.address.to_string(), given).await?;
    }
    let Some(known) = context.book().resembled(&to.address) else { return Ok(()) };
    let sender = context.payer()?.address;
    if has_paid(session, &sender, &to.address).await? {
        return Ok(());
    }
    context.output.warning(&format!(
        "{} looks like {} but is another address, and was never paid before. Somebody may have made it to be mistaken \
         for that one",
        to.address,
        known.describe()
    ));
    Ok(context.prompt.last_characters(&to.address.to_string(), given).await?)
}

/// Whether `sender` has paid `to` in one of its latest transactions.
async fn has_paid(session: &Session, sender: &Address, to: &Address) -> Result<bool, WalletError> {
    use v1::operation::Operation as Op;
    let query = HistoryQuery {
        account: *sender,
        page_size: LOOK_BACK,
        page_token: String::new(),
        max_height: session.chain.info.latest_height,
    };
    let page = session.nodes.history_page(&query, &session.chain.token).await?;
    let (sender, to) = (sender.to_string(), to.to_string());
    let own = page.transactions.iter().filter_map(|record| record.body.as_ref()).filter(|body| body.sender == sender);
    Ok(own.flat_map(|body| &body.operations).any(|operation| match &operation.operation {
        Some(Op::Transfer(transfer)) => transfer.recipient == to,
        Some(Op::CreateAccount(create)) => create.new_account == to,
        None => false,
    }))
}
