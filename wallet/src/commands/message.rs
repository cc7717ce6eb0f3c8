//! `message sign` and `message verify`: texts, signed so that no signature of one is ever that of a transaction.
//!
//! Signed are the ASCII bytes "tally.message.v1", a zero byte, the 32 bytes of the genesis hash, and the text's bytes: the same
//! envelope as every signature of a chain, with a tag that nothing else has.

use std::io;

use serde_json::json;
use tally_types::{PublicKey, Signature, SignedBytes, signature::SignatureCheck};

use super::{Context, rows};
use crate::{
    cli::groups::{MessageArgs, MessageCommand},
    error::{FileError, UsageError, WalletError},
    files,
    target::{self, SecretKind},
};

/// Tag of a message's signed bytes.
const TAG: &str = "tally.message.v1";
/// Most bytes of a text.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// Carries out a command about messages.
pub fn run(context: &Context, command: MessageCommand) -> Result<(), WalletError> {
    let (name, network) = context.pinned_network()?;
    let signed_bytes = |text: &[u8]| {
        let genesis = network.genesis().expect("the configuration was checked");
        SignedBytes::new(TAG, &genesis, &[text])
    };
    match command {
        MessageCommand::Sign { message, passphrase } => {
            let text = content(&message)?;
            let key = context.sender()?;
            let passphrase = context.prompt.passphrase(&passphrase, key.name.as_str())?;
            let secret = context.keystore.unlock(key.name.as_str(), &passphrase)?;
            drop(passphrase);
            let signature = hex::encode(secret.sign(&signed_bytes(&text)).0);
            drop(secret);
            let json = json!({
                "address": key.address.to_string(),
                "genesisHash": network.genesis_hash,
                "signature": signature,
            });
            context.output.result(&signature, &json)
        }
        MessageCommand::Verify { account, signature, message } => {
            let signer = context.book().resolve(&account)?;
            let text = content(&message)?;
            let mut bytes = [0; 64];
            hex::decode_to_slice(&signature, &mut bytes).map_err(|_| UsageError::NotASignature)?;
            let check = SignatureCheck {
                key: PublicKey::from(signer.address),
                bytes: signed_bytes(&text),
                signature: Signature(bytes),
            };
            // A key of small order signs everything, so its signature says nothing.
            if !check.key.is_usable() || !check.holds() {
                return Err(WalletError::Proof(signer.describe()));
            }
            let text =
                rows(&[("signed by", signer.describe()), ("for network", format!("{name} ({})", network.chain_id))]);
            let json = json!({
                "address": signer.address.to_string(),
                "genesisHash": network.genesis_hash,
                "valid": true,
            });
            context.output.result(&text, &json)
        }
    }
}

fn content(message: &MessageArgs) -> Result<Vec<u8>, WalletError> {
    if let Some(file) = &message.file {
        let bytes = match file.as_os_str() == "-" {
            true => files::read_all_bounded(io::stdin().lock(), TEXT_BYTES_MAX),
            false => files::read_bounded(file, TEXT_BYTES_MAX),
        };
        let bytes = bytes.map_err(|source| FileError::Read { file: file.clone(), source })?;
        return Ok(bytes.to_vec());
    }
    let text = message.text.clone().unwrap_or_default();
    match target::secret_kind(&text) {
        Some(SecretKind::Words) => Err(UsageError::Secret(SecretKind::Words).into()),
        // Hex is what hashes look like, and those are signed every day.
        _ => Ok(text.into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use tally_types::{Hash, SecretKey, hash};

    use super::*;

    #[test]
    fn a_message_can_be_nothing_else() {
        let genesis = Hash::of(b"genesis");
        let secret = SecretKey::from_seed(&[1; 32]);
        let signature = secret.sign(&SignedBytes::new(TAG, &genesis, &[b"text"]));
        let holds = |tag: &str, genesis: &Hash, text: &[u8]| {
            let bytes = SignedBytes::new(tag, genesis, &[text]);
            SignatureCheck { key: secret.public_key(), bytes, signature }.holds()
        };
        assert!(holds(TAG, &genesis, b"text"));
        assert!(!holds(TAG, &Hash::of(b"other"), b"text"));
        assert!(!holds(TAG, &genesis, b"Text"));
        let others = [
            hash::TAG_TRANSACTION,
            hash::TAG_PROPOSAL,
            hash::TAG_PREPARE,
            hash::TAG_COMMIT,
            hash::TAG_VIEW_CHANGE,
            hash::TAG_BATCH,
            hash::TAG_HAVE,
            hash::TAG_PEER,
        ];
        for other in others {
            // The zero byte behind a tag keeps one from being the beginning of another.
            assert!(other != TAG && !holds(other, &genesis, b"text"), "{other}");
        }
    }
}
