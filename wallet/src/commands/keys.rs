//! `keys new|import|list|show`.

use serde_json::{Value, json};
use tally_types::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::{Context, refuse_secret, rows};
use crate::{
    cli::KeysCommand,
    derive::{self, Words},
    error::WalletError,
    files,
    keystore::{KdfParams, KeyInfo, KeyName},
    prompt::{self, InputError},
};

/// Carries out a command about keys.
pub fn run(context: &Context, command: KeysCommand) -> Result<(), WalletError> {
    match command {
        KeysCommand::New { name, words_file, passphrase } => {
            let name = free_name(context, &name)?;
            // Asked before the passphrase: without a place for the words the key must not come into being.
            let words_to_terminal = words_file.is_none();
            if words_to_terminal && !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
                let question = "a place for the words, the key's only backup,";
                return Err(InputError::NobodyToAsk { question, flags: "--words-file FILE" }.into());
            }
            let passphrase = context.prompt.new_passphrase(&passphrase, name.as_str())?;
            let words = Words::generate().map_err(WalletError::Randomness)?;
            if let Some(file) = &words_file {
                let content = Zeroizing::new(format!("{}\n", *words.phrase()));
                files::write_new(file, content.as_bytes())
                    .map_err(|source| InputError::WordsFile { file: file.clone(), source })?;
            }
            let made =
                context.keystore.create(name.as_str(), &words.secret_key(0), &passphrase, KdfParams::RECOMMENDED);
            let key = match (made, &words_file) {
                (Ok(key), _) => key,
                (Err(error), None) => return Err(error.into()),
                (Err(error), Some(file)) => {
                    // Ours, written a moment ago, and the words of no key.
                    let _ = std::fs::remove_file(file);
                    return Err(error.into());
                }
            };
            if words_to_terminal {
                show_words(context, &words);
            }
            show(context, &key, Some(&derive::path(0)))
        }
        KeysCommand::Import { name, words_file, words_stdin, secret_file, account, passphrase } => {
            let name = free_name(context, &name)?;
            let (secret, path) = if let Some(file) = secret_file {
                let text = prompt::read_file(&file, "the secret key")?;
                (seed(&text).ok_or(InputError::NotASeed(file))?, None)
            } else {
                let text = match words_file {
                    Some(file) => prompt::read_file(&file, "the file of the words")?,
                    None if words_stdin => prompt::read_stdin("the words")?,
                    None => context.prompt.words()?,
                };
                let words = Words::parse(&text).map_err(InputError::Words)?;
                (words.secret_key(account), Some(derive::path(account)))
            };
            let passphrase = context.prompt.new_passphrase(&passphrase, name.as_str())?;
            let key = context.keystore.create(name.as_str(), &secret, &passphrase, KdfParams::RECOMMENDED)?;
            show(context, &key, path.as_deref())
        }
        KeysCommand::List => list(context),
        KeysCommand::Show { name } => {
            refuse_secret(&name)?;
            show(context, &context.keystore.find(&name)?, None)
        }
    }
}

/// The name, if it is one and free: found out before a person types a passphrase for nothing.
fn free_name(context: &Context, name: &str) -> Result<KeyName, WalletError> {
    refuse_secret(name)?;
    let name: KeyName = name.parse()?;
    context.keystore.ensure_free(&name)?;
    Ok(name)
}

/// The only time the words are shown.
fn show_words(context: &Context, words: &Words) {
    let phrase = words.phrase();
    let mut lines = Zeroizing::new(String::with_capacity(1024));
    for (index, word) in phrase.split(' ').enumerate() {
        lines.push_str(&format!("{:3} {word:10}", index.saturating_add(1)));
        if index % 4 == 3 {
            lines.push('\n');
        }
    }
    context.output.preamble("Write these words down, in this order, on paper. They are the only backup of the key:");
    context.output.preamble("whoever has them has its tokens, and they are never shown again.\n");
    context.output.preamble(&lines);
}

fn show(context: &Context, key: &KeyInfo, path: Option<&str>) -> Result<(), WalletError> {
    let mut lines = vec![
        ("name", key.name.to_string()),
        ("address", key.address.to_string()),
        ("public key", PublicKey::from(key.address).to_string()),
        ("file", key.file.display().to_string()),
        ("argon2id", key.kdf.to_string()),
    ];
    let mut json = key_json(key);
    if let Some(path) = path {
        lines.push(("path", path.to_owned()));
        json["path"] = path.into();
    }
    context.output.result(&rows(&lines), &json)
}

fn list(context: &Context) -> Result<(), WalletError> {
    let mut lines = Vec::new();
    let mut keys = Vec::new();
    for key in context.keystore.list()? {
        match key {
            Ok(key) => {
                keys.push(key_json(&key));
                lines.push((key.name.to_string(), key.address.to_string()));
            }
            Err(error) => context.output.warning(&error.to_string()),
        }
    }
    if lines.is_empty() {
        context.output.note(&format!("no keys in {}", context.keystore.folder().display()));
    }
    let lines: Vec<(&str, String)> = lines.iter().map(|(name, address)| (name.as_str(), address.clone())).collect();
    context.output.result(&rows(&lines), &json!({ "keys": keys }))
}

fn key_json(key: &KeyInfo) -> Value {
    json!({
        "name": key.name.as_str(),
        "address": key.address.to_string(),
        "publicKey": PublicKey::from(key.address).to_string(),
        "file": key.file.display().to_string(),
    })
}

fn seed(text: &str) -> Option<SecretKey> {
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), seed.as_mut_slice()).ok()?;
    Some(SecretKey::from_seed(*seed))
}
