//! `contacts add|list|remove`.

use serde_json::{Value, json};
use tally_types::Address;

use super::{Context, refuse_secret, rows};
use crate::{
    cli::groups::ContactsCommand,
    contacts,
    error::{UsageError, WalletError},
    target::TargetError,
};

/// Carries out a command about contacts.
pub fn run(context: &Context, command: ContactsCommand) -> Result<(), WalletError> {
    match command {
        ContactsCommand::Add { name, address } => add(context, &name, &address),
        ContactsCommand::List => list(context),
        ContactsCommand::Remove { name } => {
            refuse_secret(&name)?;
            let mut contacts = context.contacts.clone();
            let address = contacts.remove(&name).ok_or_else(|| UsageError::ContactNotFound(name.clone()))?;
            contacts.save(&context.config_folder)?;
            context.output.result(&format!("forgot {name}"), &contact_json(&name, &address))
        }
    }
}

fn add(context: &Context, name: &str, address: &str) -> Result<(), WalletError> {
    refuse_secret(name)?;
    refuse_secret(address)?;
    let name = contacts::name(name)?;
    let address: Address = address.parse().map_err(TargetError::Address)?;
    // An own key of that name would come first and be paid instead.
    if context.keystore.ensure_free(&name).is_err() {
        return Err(UsageError::ContactIsKey(name.to_string()).into());
    }
    if let Some(known) = context.book().resembled(&address) {
        context.output.warning(&format!("{address} looks like {} but is another address", known.describe()));
    }
    let mut contacts = context.contacts.clone();
    contacts.add(&name, address)?;
    contacts.save(&context.config_folder)?;
    let json = contact_json(name.as_str(), &address);
    context.output.result(&rows(&[("contact", name.to_string()), ("address", address.to_string())]), &json)
}

fn list(context: &Context) -> Result<(), WalletError> {
    let lines: Vec<_> = context.contacts.iter().map(|(name, address)| (name, address.to_string())).collect();
    let json: Vec<_> = context.contacts.iter().map(|(name, address)| contact_json(name, &address)).collect();
    if lines.is_empty() {
        context.output.note("no contacts yet: tally-wallet contacts add NAME ADDRESS");
    }
    context.output.result(&rows(&lines), &json!({ "contacts": json }))
}

fn contact_json(name: &str, address: &Address) -> Value {
    json!({ "name": name, "address": address.to_string() })
}
