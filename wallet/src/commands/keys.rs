//! `keys`: making, bringing in, backing up and naming keys.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tally_types::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use super::{Context, refuse_secret, rows};
use crate::{
    cli::{keys::KeysCommand, payment::PassphraseArgs},
    derive::{self, Words},
    error::{UsageError, WalletError},
    files,
    keystore::{KdfParams, KeyInfo, KeyName, Keystore},
    prompt::{self, InputError},
};

/// Carries out a command about keys.
pub async fn run(context: &Context, command: KeysCommand) -> Result<(), WalletError> {
    match command {
        KeysCommand::New { name, words_file, passphrase } => new(context, &name, words_file, &passphrase),
        KeysCommand::Import { name, words_file, words_stdin, secret_file, keystore_file, account, passphrase } => {
            let source = match (words_file, secret_file, keystore_file) {
                (_, Some(file), _) => Source::Secret(file),
                (_, _, Some(file)) => Source::Keystore(file),
                (words_file, ..) => Source::Words { file: words_file, stdin: words_stdin, account },
            };
            import(context, &name, source, &passphrase)
        }
        KeysCommand::List => list(context),
        KeysCommand::Show { name } => {
            refuse_secret(&name)?;
            show(context, &context.keystore.find(&name)?, None)
        }
        KeysCommand::Export { name, keystore_file, secret_file, passphrase } => {
            refuse_secret(&name)?;
            match (keystore_file, secret_file) {
                (Some(file), _) => export_sealed(context, &name, &file),
                (None, Some(file)) => export_secret(context, &name, &file, &passphrase).await,
                (None, None) => Ok(()),
            }
        }
        KeysCommand::Passphrase { name, new_passphrase_file, passphrase } => {
            refuse_secret(&name)?;
            let key = context.keystore.find(&name)?;
            let old = context.prompt.passphrase(&passphrase, &name)?;
            // Before the new one is asked for: nobody should make one up for nothing.
            drop(context.keystore.unlock(&name, &old)?);
            let new = context.prompt.changed_passphrase(new_passphrase_file.as_deref(), &name)?;
            // Whoever chose a higher cost keeps it.
            let kdf =
                if key.kdf.memory_kib > KdfParams::RECOMMENDED.memory_kib { key.kdf } else { KdfParams::RECOMMENDED };
            let key = context.keystore.change_passphrase(&name, &old, &new, kdf)?;
            show(context, &key, None)
        }
        KeysCommand::VerifyBackup { name, words_file, words_stdin, account } => {
            refuse_secret(&name)?;
            verify_backup(context, &name, Source::Words { file: words_file, stdin: words_stdin, account })
        }
        KeysCommand::Rename { name, new_name, passphrase } => {
            refuse_secret(&name)?;
            context.keystore.find(&name)?;
            let new_name = free_name(context, &new_name)?;
            let passphrase = context.prompt.passphrase(&passphrase, &name)?;
            show(context, &context.keystore.rename(&name, new_name.as_str(), &passphrase)?, None)
        }
        KeysCommand::Remove { name } => remove(context, &name).await,
    }
}

/// Where a key is brought back from.
enum Source {
    Words { file: Option<PathBuf>, stdin: bool, account: u32 },
    Secret(PathBuf),
    Keystore(PathBuf),
}

fn new(
    context: &Context,
    name: &str,
    words_file: Option<PathBuf>,
    passphrase: &PassphraseArgs,
) -> Result<(), WalletError> {
    let name = free_name(context, name)?;
    // Asked before the passphrase: without a place for the words the key must not come into being.
    let words_to_terminal = words_file.is_none();
    if words_to_terminal && !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        let question = "a place for the words, the key's only backup,";
        return Err(InputError::NobodyToAsk { question, flags: "--words-file FILE" }.into());
    }
    let passphrase = context.prompt.new_passphrase(passphrase, name.as_str())?;
    let words = Words::generate().map_err(WalletError::Randomness)?;
    if let Some(file) = &words_file {
        let content = Zeroizing::new(format!("{}\n", *words.phrase()));
        write_new(file, content.as_bytes())?;
    }
    let made = context.keystore.create(name.as_str(), &words.secret_key(0), &passphrase, KdfParams::RECOMMENDED);
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

fn import(context: &Context, name: &str, source: Source, passphrase: &PassphraseArgs) -> Result<(), WalletError> {
    let name = free_name(context, name)?;
    let (secret, path) = match source {
        Source::Secret(file) => {
            let text = prompt::read_file(&file, "the secret key")?;
            (seed(&text).ok_or(InputError::NotASeed(file))?, None)
        }
        Source::Keystore(file) => {
            // The key keeps the passphrase that its file opens with.
            let passphrase = context.prompt.passphrase(passphrase, name.as_str())?;
            let secret = Keystore::open_file(&file, &passphrase)?;
            let key = context.keystore.create(name.as_str(), &secret, &passphrase, KdfParams::RECOMMENDED)?;
            return show(context, &key, None);
        }
        Source::Words { file, stdin, account } => {
            let words = read_words(context, file, stdin)?;
            (words.secret_key(account), Some(derive::path(account)))
        }
    };
    let passphrase = context.prompt.new_passphrase(passphrase, name.as_str())?;
    let key = context.keystore.create(name.as_str(), &secret, &passphrase, KdfParams::RECOMMENDED)?;
    show(context, &key, path.as_deref())
}

fn read_words(context: &Context, file: Option<PathBuf>, stdin: bool) -> Result<Words, WalletError> {
    let text = match file {
        Some(file) => prompt::read_file(&file, "the file of the words")?,
        None if stdin => prompt::read_stdin("the words")?,
        None => context.prompt.words()?,
    };
    Ok(Words::parse(&text).map_err(InputError::Words)?)
}

fn verify_backup(context: &Context, name: &str, source: Source) -> Result<(), WalletError> {
    let key = context.keystore.find(name)?;
    let Source::Words { file, stdin, account } = source else { return Ok(()) };
    let got = read_words(context, file, stdin)?.secret_key(account).public_key().address();
    if got != key.address {
        let (name, wanted) = (name.to_owned(), key.address);
        return Err(InputError::OtherBackup { name, wanted, got }.into());
    }
    let text = format!("these words bring back {name}, {got}");
    context.output.result(&text, &json!({ "name": name, "address": got.to_string(), "verified": true }))
}

fn export_sealed(context: &Context, name: &str, file: &Path) -> Result<(), WalletError> {
    let text = context.keystore.text(name)?;
    write_new(file, text.as_bytes())?;
    exported(context, name, file, "encrypted, opens with the key's passphrase")
}

async fn export_secret(
    context: &Context,
    name: &str,
    file: &Path,
    passphrase: &PassphraseArgs,
) -> Result<(), WalletError> {
    context.keystore.find(name)?;
    if !context.globals.yes {
        context.prompt.can_confirm()?;
        context.output.preamble(&format!("Whoever reads {} will have all tokens of {name}.", file.display()));
        context.prompt.confirm("Write the bare secret?").await?;
    }
    let passphrase = context.prompt.passphrase(passphrase, name)?;
    let secret = context.keystore.unlock(name, &passphrase)?;
    let mut text = Zeroizing::new(vec![0; 65]);
    hex::encode_to_slice(secret.seed(), &mut text[..64]).expect("64 digits have room for 32 bytes");
    text[64] = b'\n';
    write_new(file, &text)?;
    exported(context, name, file, "the bare secret: keep it where nobody reads it, and delete it soon")
}

fn exported(context: &Context, name: &str, file: &Path, what: &str) -> Result<(), WalletError> {
    let text = rows(&[("key", name.to_owned()), ("file", file.display().to_string()), ("it is", what.to_owned())]);
    context.output.result(&text, &json!({ "name": name, "file": file.display().to_string() }))
}

async fn remove(context: &Context, name: &str) -> Result<(), WalletError> {
    refuse_secret(name)?;
    let key = context.keystore.find(name)?;
    if !context.globals.yes {
        context.prompt.can_confirm()?;
        context.output.preamble(&format!(
            "{name}: {}\nWithout its words or another backup, what this account holds is lost. To check the words \
             first: tally-wallet keys verify-backup {name}",
            key.address
        ));
        context.prompt.confirm("Delete the key?").await?;
    }
    let key = context.keystore.remove(name)?;
    context.output.result(&format!("deleted {name}, {}", key.address), &key_json(&key))
}

fn write_new(file: &Path, content: &[u8]) -> Result<(), InputError> {
    files::write_new(file, content).map_err(|source| InputError::NewFile { file: file.to_owned(), source })
}

/// The name, if it is one and free: found out before a person types a passphrase for nothing.
fn free_name(context: &Context, name: &str) -> Result<KeyName, WalletError> {
    refuse_secret(name)?;
    let name: KeyName = name.parse()?;
    context.keystore.ensure_free(&name)?;
    // An own key comes first, so the contact would silently turn into it.
    if context.contacts.get(name.as_str()).is_some() {
        return Err(UsageError::KeyIsContact(name.to_string()).into());
    }
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
    Some(SecretKey::from_seed(&seed))
}
