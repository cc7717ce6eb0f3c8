//! Receipts: what became of a transaction that a block holds, in the bytes the receipts accumulator commits to.

use tally_types::{Address, Amount, Hash, Height};
use thiserror::Error;

use crate::{reader::Reader, reject::Failure};

/// What became of one transaction. Its bytes, integers big-endian: `tx_id[32]`, height u64, index u32, fee u64, then 0x00
/// if it took effect, or 0x01, the operation u32, the number of the reason in `tally.v1.ErrorReason` as u8, and what the
/// reason carries: `AMOUNT_OVERFLOW` nothing; `INSUFFICIENT_FUNDS` balance u64, needed u64; `RECIPIENT_NOT_FOUND`,
/// `ACCOUNT_ALREADY_EXISTS` and `KEY_INVALID` the `address[32]`; `OPENING_BALANCE_TOO_LOW` opening balance u64, minimum
/// u64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction.
    pub tx_id: Hash,
    /// Block that holds it.
    pub height: Height,
    /// Its position among the receipts of that block, from 0; discarded transactions have none.
    pub index: u32,
    /// Base units charged, also on failure.
    pub fee: Amount,
    /// Whether it took effect, or which operation (from 0) failed and why.
    pub result: Result<(), (u32, Failure)>,
}

/// Why bytes are no receipt.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a receipt: {0} bytes that do not follow its layout")]
pub struct ReceiptError(pub usize);

// Numbers of `tally.v1.ErrorReason`, frozen here because they are hashed.
const RECIPIENT_NOT_FOUND: u8 = 7;
const ACCOUNT_ALREADY_EXISTS: u8 = 8;
const INSUFFICIENT_FUNDS: u8 = 9;
const OPENING_BALANCE_TOO_LOW: u8 = 16;
const KEY_INVALID: u8 = 30;
const AMOUNT_OVERFLOW: u8 = 31;

impl Receipt {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(98);
        out.extend_from_slice(self.tx_id.as_bytes());
        out.extend_from_slice(&self.height.to_be_bytes());
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(&self.fee.0.to_be_bytes());
        match &self.result {
            Ok(()) => out.push(0),
            Err((operation, failure)) => {
                out.push(1);
                out.extend_from_slice(&operation.to_be_bytes());
                write_failure(failure, &mut out);
            }
        }
        out
    }

    /// Reads what [`Receipt::encode`] writes, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Receipt, ReceiptError> {
        let mut reader = Reader::new(bytes);
        match read(&mut reader) {
            Some(receipt) if reader.left() == 0 => Ok(receipt),
            _ => Err(ReceiptError(bytes.len())),
        }
    }
}

fn read(reader: &mut Reader<'_>) -> Option<Receipt> {
    Some(Receipt {
        tx_id: Hash(reader.array()?),
        height: Height(reader.u64()?),
        index: reader.u32()?,
        fee: Amount(reader.u64()?),
        result: match reader.u8()? {
            0 => Ok(()),
            1 => Err((reader.u32()?, read_failure(reader)?)),
            _ => return None,
        },
    })
}

fn write_failure(failure: &Failure, out: &mut Vec<u8>) {
    let mut two = |reason: u8, one: &Amount, two: &Amount| {
        out.push(reason);
        out.extend_from_slice(&one.0.to_be_bytes());
        out.extend_from_slice(&two.0.to_be_bytes());
    };
    let (reason, address) = match failure {
        Failure::AmountOverflow => return out.push(AMOUNT_OVERFLOW),
        Failure::InsufficientFunds { balance, needed } => return two(INSUFFICIENT_FUNDS, balance, needed),
        Failure::OpeningBalanceTooLow { opening_balance, minimum } => {
            return two(OPENING_BALANCE_TOO_LOW, opening_balance, minimum);
        }
        Failure::RecipientNotFound { address } => (RECIPIENT_NOT_FOUND, address),
        Failure::AccountAlreadyExists { address } => (ACCOUNT_ALREADY_EXISTS, address),
        Failure::KeyInvalid { address } => (KEY_INVALID, address),
    };
    out.push(reason);
    out.extend_from_slice(address.as_bytes());
}

fn read_failure(reader: &mut Reader<'_>) -> Option<Failure> {
    Some(match reader.u8()? {
        AMOUNT_OVERFLOW => Failure::AmountOverflow,
        INSUFFICIENT_FUNDS => {
            Failure::InsufficientFunds { balance: Amount(reader.u64()?), needed: Amount(reader.u64()?) }
        }
        OPENING_BALANCE_TOO_LOW => {
            Failure::OpeningBalanceTooLow { opening_balance: Amount(reader.u64()?), minimum: Amount(reader.u64()?) }
        }
        RECIPIENT_NOT_FOUND => Failure::RecipientNotFound { address: Address(reader.array()?) },
        ACCOUNT_ALREADY_EXISTS => Failure::AccountAlreadyExists { address: Address(reader.array()?) },
        KEY_INVALID => Failure::KeyInvalid { address: Address(reader.array()?) },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tally_proto::v1::ErrorReason;

    use super::*;

    fn receipt(result: Result<(), (u32, Failure)>) -> Receipt {
        Receipt { tx_id: Hash([0xab; 32]), height: Height(7), index: 3, fee: Amount(1000), result }
    }

    fn failures() -> [Failure; 6] {
        let address = Address([0xcd; 32]);
        [
            Failure::AmountOverflow,
            Failure::InsufficientFunds { balance: Amount(1), needed: Amount(2) },
            Failure::RecipientNotFound { address },
            Failure::AccountAlreadyExists { address },
            Failure::KeyInvalid { address },
            Failure::OpeningBalanceTooLow { opening_balance: Amount(3), minimum: Amount(4) },
        ]
    }

    #[test]
    fn the_bytes_are_frozen() {
        let head = format!("{}{}", "ab".repeat(32), "0000000000000007" /* height */);
        let head = format!("{head}00000003" /* index */) + "00000000000003e8" /* fee */;
        assert_eq!(hex::encode(receipt(Ok(())).encode()), format!("{head}00"));
        let address = "cd".repeat(32);
        for (failure, tail) in failures().into_iter().zip([
            "1f".to_owned(),
            "0900000000000000010000000000000002".to_owned(),
            format!("07{address}"),
            format!("08{address}"),
            format!("1e{address}"),
            "1000000000000000030000000000000004".to_owned(),
        ]) {
            assert_eq!(hex::encode(receipt(Err((63, failure))).encode()), format!("{head}010000003f{tail}"));
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_contract() {
        for failure in failures() {
            let mut out = Vec::new();
            write_failure(&failure, &mut out);
            let reason = ErrorReason::try_from(i32::from(out[0])).unwrap();
            assert_eq!(reason.as_str_name(), format!("ERROR_REASON_{}", failure.reason()));
        }
    }

    #[test]
    fn every_receipt_is_read_back_and_no_part_or_more_of_it() {
        let results = failures().into_iter().map(|failure| Err((5, failure))).chain([Ok(())]);
        for receipt in results.map(receipt) {
            let bytes = receipt.encode();
            assert_eq!(Receipt::decode(&bytes), Ok(receipt));
            for len in 0..bytes.len() {
                assert_eq!(Receipt::decode(&bytes[..len]), Err(ReceiptError(len)));
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(Receipt::decode(&longer), Err(ReceiptError(longer.len())));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(head: [u8; 32], tail in prop::collection::vec(0u8..32, 21..90)) {
            let bytes = [&head[..], &tail].concat();
            if let Ok(receipt) = Receipt::decode(&bytes) {
                prop_assert_eq!(receipt.encode(), bytes);
            }
        }
    }
}
