//! Handing a signed transaction over, and waiting for its outcome.
//!
//! From the signature on, a transaction may run until its expire time whatever happens here, and every message says so.

use std::time::{Duration, SystemTime};

use tally_proto::v1::TransactionState;
use tokio::time::Instant;

use super::{
    Context, Session,
    outcome::{self, Success, Target},
};
use crate::{
    client::NodeError,
    envelope::{Envelope, EnvelopeError},
    error::{Exit, FileError, WalletError},
};

/// First and longest pause between two tries to hand a transaction over.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How far a delivery went.
#[derive(Debug)]
pub enum Delivered {
    /// A node has it; nobody waited.
    Taken(TransactionState),
    /// It is final, and had its effect.
    Final(Box<Success>),
}

/// How to deliver.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Whether to wait until it is final.
    pub waits: bool,
    /// Whether a refusal means that it will not run. Of bytes that were sent before, it does not.
    pub believes_refusals: bool,
    /// Whether to say that a node has it: of one among many, nobody wants to know.
    pub tells: bool,
    /// The command that goes on when this one ends without knowing.
    pub resume: String,
}

/// What came of handing a transaction over.
#[derive(Debug)]
enum Handover {
    Taken(TransactionState, String),
    Refused(NodeError),
    /// A call was lost on the way: a node may have it.
    Uncertain(NodeError),
}

/// Hands a signed transaction over and, if told so, waits until it is final. Ctrl-C ends with "unknown", never with less.
pub async fn deliver(
    context: &Context,
    session: &Session,
    envelope: &Envelope,
    delivery: Delivery,
) -> Result<Delivered, WalletError> {
    let body = envelope.body();
    let target = Target {
        id: envelope.id(),
        expire_time: Some(envelope.expire_time()),
        nonce: Some((body.sender, body.nonce.0)),
        resume: delivery.resume.clone(),
    };
    let _on_its_way = context.interrupts.on_its_way();
    tokio::select! {
        biased;
        result = carry(context, session, envelope, &target, &delivery) => result,
        () = context.interrupts.came() => Err(outcome::unknown(&target, "interrupted while waiting".into())),
    }
}

async fn carry(
    context: &Context,
    session: &Session,
    envelope: &Envelope,
    target: &Target,
    delivery: &Delivery,
) -> Result<Delivered, WalletError> {
    let node = session.nodes.name();
    match hand_over(context, session, envelope).await? {
        // Whoever refuses has the bytes: that they are over is certain once they are.
        Handover::Refused(error)
            if delivery.believes_refusals
                && (error.reason != "EXPIRED" || SystemTime::now() > envelope.expire_time()) =>
        {
            return Err(refused(error).into());
        }
        Handover::Refused(error) | Handover::Uncertain(error) if !delivery.waits => {
            return Err(outcome::unknown(target, error.message));
        }
        Handover::Refused(error) | Handover::Uncertain(error) => {
            context.output.warning(&format!("it is not certain that {node} has the transaction: {}", error.message));
        }
        Handover::Taken(state, _) if !delivery.waits => return Ok(Delivered::Taken(state)),
        Handover::Taken(..) if !delivery.tells => {}
        Handover::Taken(_, takers) => {
            context.output.note(&format!("taken by {takers}; waiting until it is final"));
        }
    }
    let success = outcome::wait(context, &session.nodes, &session.chain.token, target).await?;
    Ok(Delivered::Final(Box::new(success)))
}

/// Sends the same bytes until a node answers: a second copy changes nothing.
async fn hand_over(context: &Context, session: &Session, envelope: &Envelope) -> Result<Handover, WalletError> {
    let Some(transaction) = envelope.transaction() else {
        return Err(FileError::Envelope { file: "transaction".into(), problem: EnvelopeError::Unsigned }.into());
    };
    let id = envelope.id().to_string();
    let deadline = Instant::now() + context.globals.timeout;
    let mut pause = RETRY_PAUSE;
    let mut uncertain = false;
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now()).max(RETRY_PAUSE);
        let (mut refusals, mut takers, mut state) = (Vec::new(), Vec::new(), TransactionState::Unspecified);
        for (node, answer) in session.nodes.submit(&transaction, remaining).await {
            match answer {
                Ok(answer) if answer.tx_id == id => {
                    state = answer.state();
                    takers.push(node);
                }
                Ok(_) => {
                    uncertain = true;
                    refusals.push(NodeError::garbled(&node, "it calls the transaction another id"));
                }
                Err(status) => {
                    let error = NodeError::new(&status, &node, Some(&session.chain.token));
                    uncertain |= error.is_uncertain();
                    refusals.push(error);
                }
            }
        }
        if !takers.is_empty() && (refusals.is_empty() || session.nodes.weigh_enough(&takers)) {
            for error in &refusals {
                context.output.warning(&format!("not every node took it: {}", error.message));
            }
            let takers = match takers.as_slice() {
                [one] => one.clone(),
                many => format!("{} nodes", many.len()),
            };
            return Ok(Handover::Taken(state, takers));
        }
        // One that took it, while others refuse, has it and may spread it; or it lies.
        uncertain |= !takers.is_empty();
        // Of several refusals, the one that a second try may overcome; else the first.
        let worth = refusals.iter().position(is_worth_retrying);
        let is_last = worth.is_none();
        let error = match refusals.is_empty() {
            true => NodeError::unreachable(&session.nodes.name(), "no answer"),
            false => refusals.swap_remove(worth.unwrap_or(0)),
        };
        let wait = error.retry_after.unwrap_or(pause).min(RETRY_PAUSE_MAX);
        if is_last || Instant::now() + wait >= deadline {
            // After a lost call even a refusal proves nothing: it may be the refusal of the second copy.
            return Ok(if uncertain { Handover::Uncertain(error) } else { Handover::Refused(error) });
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
