//! `receive`: where to pay, and the command that somebody with an account runs to do it.

use serde_json::json;

use super::{Context, rows};
use crate::error::{Exit, WalletError};

/// Shows the own address and the sponsor's command. Whether the account exists is asked if there is a network; without one
/// the commands for both cases are shown.
pub async fn run(context: &Context, amount: Option<&str>) -> Result<(), WalletError> {
    let payee = context.payer()?;
    let address = payee.address.to_string();
    let mut exists = None;
    let mut amount = amount.map(str::to_owned);
    if let Some((_, network)) = context.pinned()? {
        if let (Some(amount), Some(token)) = (&amount, network.token()) {
            token.parse(amount)?;
        }
        match context.connect().await {
            Ok(session) => {
                let token = &session.chain.token;
                exists = match session.nodes.account(&payee.address, token).await {
                    Ok(_) => Some(true),
                    Err(error) if error.exit == Exit::NotFound => {
                        // The least that opens an account, where nothing more was asked for.
                        amount.get_or_insert_with(|| token.number(session.chain.min_opening_balance));
                        Some(false)
                    }
                    Err(error) => return Err(error.into()),
                };
            }
            Err(error) if error.exit() == Exit::Unreachable => {
                context.output.warning(&format!("{error}, so it is not known whether the account exists"));
            }
            Err(error) => return Err(error),
        }
    }
    let amount = amount.unwrap_or_else(|| "AMOUNT".into());
    let open = format!("tally-wallet create-account {address} {amount}");
    let send = format!("tally-wallet send {address} {amount}");
    let mut lines = vec![("address", payee.describe())];
    match exists {
        Some(true) => lines.push(("sponsor runs", send.clone())),
        Some(false) => lines.push(("sponsor runs", open.clone())),
        None => lines.extend([("to open it", open.clone()), ("to pay it", send.clone())]),
    }
    let command = if exists == Some(true) { send } else { open };
    context.output.result(&rows(&lines), &json!({ "address": address, "exists": exists, "command": command }))
}
