//! `balance`.

use serde_json::json;
use tally_types::Amount;

use super::{Context, rows};
use crate::{
    error::{Exit, WalletError},
    json,
};

/// Shows what an account holds.
pub async fn balance(context: &Context, account: Option<&str>) -> Result<(), WalletError> {
    let address = context.account(account)?;
    let session = context.connect().await?;
    let token = &session.chain.token;
    let (account, height) = session.nodes.account(&address, token).await?;
    let json = json!({ "account": json::account(&account), "height": height.to_string() });
    context.output.result(&token.show(Amount(account.balance)), &json)
}

/// Shows what every own key holds; a key without account holds nothing.
pub async fn all(context: &Context) -> Result<(), WalletError> {
    let mut keys = Vec::new();
    for key in context.keystore.list()? {
        match key {
            Ok(key) => keys.push(key),
            Err(error) => context.output.warning(&error.to_string()),
        }
    }
    let session = context.connect().await?;
    let token = &session.chain.token;
    let (mut lines, mut accounts) = (Vec::new(), Vec::new());
    let mut total = Amount::ZERO;
    for key in &keys {
        let (shown, account) = match session.nodes.account(&key.address, token).await {
            Ok((account, _)) => {
                let balance = Amount(account.balance);
                total = total.checked_add(balance).unwrap_or(total);
                (token.show(balance), json::account(&account))
            }
            Err(error) if error.exit == Exit::NotFound => ("no account".to_owned(), serde_json::Value::Null),
            Err(error) => return Err(error.into()),
        };
        lines.push((key.name.as_str(), shown));
        accounts.push(json!({ "name": key.name.as_str(), "address": key.address.to_string(), "account": account }));
    }
    if keys.is_empty() {
        context.output.note(&format!("no keys in {}", context.keystore.folder().display()));
    } else {
        lines.push(("total", token.show(total)));
    }
    context.output.result(&rows(&lines), &json!({ "accounts": accounts, "total": total.to_string() }))
}
