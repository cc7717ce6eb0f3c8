//! What the leaves of the state tree hold, and their keys.

use tally_types::{Address, Amount, Params, PublicKey, Stake};

use crate::{
    account::Account,
    reader::Reader,
    tree::{Key, Leaf},
};

/// First byte of the key of the parameters.
pub(crate) const KIND_PARAMETERS: u8 = 0;
/// First byte of an account's key.
pub(crate) const KIND_ACCOUNT: u8 = 1;
/// First byte of a validator's key.
pub(crate) const KIND_VALIDATOR: u8 = 2;

/// Content of a leaf. Its tokens, the leaf's sum, are written before its other content and never inside it, so the two
/// cannot disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The parameters of the chain; no tokens.
    Parameters(Params),
    /// An account; its balance.
    Account(Account),
    /// A validator; its stake.
    Validator { key: PublicKey, stake: Stake },
}

/// `kind` and 32 bytes.
pub(crate) fn key(kind: u8, bytes: &[u8; 32]) -> Key {
    let mut key = [0; 33];
    let (first, rest) = key.split_at_mut(1);
    first.fill(kind);
    rest.copy_from_slice(bytes);
    key
}

/// The key of an account.
pub(crate) fn account_key(address: &Address) -> Key {
    key(KIND_ACCOUNT, address.as_bytes())
}

/// Kind and 32 bytes of `key`.
pub(crate) fn split_key(key: &Key) -> (u8, [u8; 32]) {
    let [kind, bytes @ ..] = *key;
    (kind, bytes)
}

impl Record {
    /// Base units the leaf stands for.
    pub(crate) fn sum(&self) -> Amount {
        match self {
            Record::Parameters(_) => Amount::ZERO,
            Record::Account(account) => account.balance,
            Record::Validator { stake, .. } => Amount(stake.0),
        }
    }

    /// Everything but the sum, integers big-endian.
    pub(crate) fn write_value(&self, out: &mut Vec<u8>) {
        match self {
            Record::Parameters(params) => {
                for number in numbers(params) {
                    out.extend_from_slice(&number.to_be_bytes());
                }
            }
            Record::Account(account) => account.write_value(out),
            Record::Validator { key, .. } => out.extend_from_slice(&key.0),
        }
    }

    /// Reads key, sum and value, as [`Leaf`]s are hashed and snapshots hold them.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Leaf> {
        let key: Key = reader.array()?;
        let sum = Amount(reader.u64()?);
        let record = match split_key(&key) {
            (KIND_PARAMETERS, rest) if sum.is_zero() && rest == [0; 32] => Record::Parameters(read_params(reader)?),
            (KIND_ACCOUNT, _) => Record::Account(Account::read_value(sum, reader)?),
            (KIND_VALIDATOR, _) => Record::Validator { key: PublicKey(reader.array()?), stake: Stake(sum.0) },
            _ => return None,
        };
        Some(Leaf::new(key, record))
    }
}

/// All parameters, in the order of the genesis file. A new one goes to the end, with a new version of the tree.
fn numbers(params: &Params) -> [u64; 9] {
    let Params {
        base_fee,
        min_opening_balance,
        min_validator_stake,
        max_expiry_ms,
        epoch_blocks,
        execution_window,
        idle_interval_ms,
        view_timeout_ms,
        max_clock_drift_ms,
    } = *params;
    [
        base_fee,
        min_opening_balance,
        min_validator_stake,
        max_expiry_ms,
        epoch_blocks,
        execution_window,
        idle_interval_ms,
        view_timeout_ms,
        max_clock_drift_ms,
    ]
}

fn read_params(reader: &mut Reader<'_>) -> Option<Params> {
    Some(Params {
        base_fee: reader.u64()?,
        min_opening_balance: reader.u64()?,
        min_validator_stake: reader.u64()?,
        max_expiry_ms: reader.u64()?,
        epoch_blocks: reader.u64()?,
        execution_window: reader.u64()?,
        idle_interval_ms: reader.u64()?,
        view_timeout_ms: reader.u64()?,
        max_clock_drift_ms: reader.u64()?,
    })
}
