//! `watch`, and `history --follow`: transactions as they become final.
//!
//! A stream that breaks is opened again where it stopped, so nothing is shown twice and nothing is left out. Several nodes
//! must agree on what is shown.

use tally_proto::v1;
use tally_types::Address;

use super::{Context, Session, history};
use crate::{cli::OutputForm, error::WalletError, json, output::clean};

/// Shows new transactions until Ctrl-C, or until there were `count`.
pub async fn watch(context: &Context, account: Option<&str>, count: Option<u64>) -> Result<(), WalletError> {
    let account = account.map(|text| context.book().resolve(text)).transpose()?.map(|target| target.address);
    let session = context.connect().await?;
    let from_height = session.chain.info.latest_height.saturating_add(1);
    follow(context, &session, Course { account, from_height, left: count }).await
}

/// Shows past transactions, oldest first, and then new ones.
pub async fn go_on(
    context: &Context,
    session: &Session,
    account: Option<Address>,
    past: Vec<v1::TransactionRecord>,
) -> Result<(), WalletError> {
    for record in past.iter().rev() {
        show(context, session, record, account.as_ref())?;
    }
    let from_height = session.chain.info.latest_height.saturating_add(1);
    follow(context, session, Course { account, from_height, left: None }).await
}

/// What is followed, and from where.
#[derive(Clone, Copy, Debug)]
struct Course {
    account: Option<Address>,
    from_height: u64,
    left: Option<u64>,
}

async fn follow(context: &Context, session: &Session, course: Course) -> Result<(), WalletError> {
    let whom = course.account.map_or("all transactions".into(), |account| account.to_string());
    context.output.note(&format!("following {whom} from height {}; Ctrl-C ends", course.from_height));
    let mut following = session.nodes.follow(course.from_height, course.account, &session.chain.token);
    let mut left = course.left;
    while let Some(record) = following.next().await {
        show(context, session, &record, course.account.as_ref())?;
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            break;
        }
    }
    Ok(())
}

fn show(
    context: &Context,
    session: &Session,
    record: &v1::TransactionRecord,
    account: Option<&Address>,
) -> Result<(), WalletError> {
    let text = match (context.output.form(), account) {
        (OutputForm::Json, _) => String::new(),
        (OutputForm::Text, Some(account)) => history::line(record, account, &session.chain.token),
        (OutputForm::Text, None) => {
            let sender = record.body.as_ref().and_then(|body| body.sender.parse().ok());
            // Seen from its sender's side, with the sender named in front.
            sender.map_or_else(
                || format!("{}\n", clean(&record.tx_id)),
                |sender: Address| format!("{sender}  {}", history::line(record, &sender, &session.chain.token)),
            )
        }
    };
    context.output.result(&text, &json::record(record))
}
