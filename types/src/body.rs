//! The body of a transaction: what a sender signs, read without leaving a byte unread.
//!
//! Protobuf readers skip what they do not know and let the last of several wins. A signer would then have signed more, or
//! other things, than a node understood. [`Body::parse`] walks the wire instead and refuses unknown fields, a singular
//! field given twice, a second member of a oneof, and every address that is not canonical.

use std::borrow::Cow;

use thiserror::Error;

use crate::{
    address::{Address, AddressError},
    amount::Amount,
    number::{Nonce, UnixMillis},
    wire::{Reader, Value, WireError},
};

/// Most bytes of a body.
pub const BODY_BYTES_MAX: usize = 8192;
/// Most operations of one transaction.
pub const OPERATIONS_MAX: usize = 64;
/// Most bytes of a memo.
pub const MEMO_BYTES_MAX: usize = 256;

/// What a sender signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Chain it is meant for, in words; the genesis hash in the signed bytes is what binds.
    pub chain_id: String,
    /// Who pays and signs.
    pub sender: Address,
    /// Its number within the account, from 1.
    pub nonce: Nonce,
    /// May execute only in a block whose time is not after this.
    pub expire_time: UnixMillis,
    /// Most the sender will pay in fees.
    pub max_fee: Amount,
    /// Free text, at most [`MEMO_BYTES_MAX`] bytes.
    pub memo: String,
    /// 1 to [`OPERATIONS_MAX`], in order, all or none.
    pub operations: Vec<Operation>,
}

/// One thing to do. Amounts are above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Moves tokens to an existing account.
    Transfer {
        /// Who receives.
        recipient: Address,
        /// Base units.
        amount: Amount,
    },
    /// Opens an account.
    CreateAccount {
        /// Its address, without account so far.
        new_account: Address,
        /// Base units moved to it.
        opening_balance: Amount,
    },
}

/// Why bytes are not a body. Field numbers are those of `tally.v1.TransactionBody`, or of the message inside it that the
/// path names.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BodyError {
    /// Over [`BODY_BYTES_MAX`].
    #[error("the body has {0} bytes, at most {BODY_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// No protobuf.
    #[error("{message}: {source}")]
    Wire {
        /// Message that was being read.
        message: &'static str,
        /// What is wrong.
        source: WireError,
    },
    /// A field this version does not know: it was signed, so it must not be ignored.
    #[error("{message} has field {number}, which this node does not know")]
    UnknownField {
        /// Message it stands in.
        message: &'static str,
        /// Its number.
        number: u32,
    },
    /// A singular field given twice.
    #[error("{message} gives field {number} twice")]
    Repeated {
        /// Message it stands in.
        message: &'static str,
        /// Its number.
        number: u32,
    },
    /// A second member of a oneof.
    #[error("an operation is two things at once")]
    SecondOperation,
    /// A known field of the wrong wire type, or a value that its type cannot hold.
    #[error("{field} {problem}")]
    Field {
        /// Path of the field in the body.
        field: Cow<'static, str>,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Not an address.
    #[error("{field}: {source}")]
    Address {
        /// Path of the field in the body.
        field: Cow<'static, str>,
        /// What is wrong with it.
        source: AddressError,
    },
    /// Not 1 to [`OPERATIONS_MAX`] operations.
    #[error("{0} operations; a transaction has 1 to {OPERATIONS_MAX}")]
    OperationCount(usize),
    /// An amount of zero.
    #[error("operation {0} moves nothing: its amount is zero")]
    AmountZero(usize),
}

const BODY: &str = "TransactionBody";

impl BodyError {
    /// The same error of what stands in `outer`.
    fn within(self, outer: &str) -> BodyError {
        let path = |field: Cow<'static, str>| format!("{outer}.{field}").into();
        match self {
            BodyError::Field { field, problem } => BodyError::Field { field: path(field), problem },
            BodyError::Address { field, source } => BodyError::Address { field: path(field), source },
            error => error,
        }
    }
}

impl Body {
    /// Reads `bytes` as they were signed.
    pub fn parse(bytes: &[u8]) -> Result<Body, BodyError> {
        if bytes.len() > BODY_BYTES_MAX {
            return Err(BodyError::TooLarge(bytes.len()));
        }
        let mut chain_id = None;
        let mut sender = None;
        let mut nonce = None;
        let mut expire_time = None;
        let mut max_fee = None;
        let mut memo = None;
        let mut operations = Vec::new();
        for_each_field(BODY, bytes, |number, value| match number {
            1 => once(BODY, number, &mut chain_id, text("chain_id", value)?),
            2 => once(BODY, number, &mut sender, address("sender", value)?),
            3 => once(BODY, number, &mut nonce, varint("nonce", value)?),
            4 => once(BODY, number, &mut expire_time, timestamp(value)?),
            5 => once(BODY, number, &mut max_fee, varint("max_fee", value)?),
            6 => once(BODY, number, &mut memo, text("memo", value)?),
            7 => {
                let index = operations.len();
                let operation = Operation::parse(index, message("operations", value)?)
                    .map_err(|error| error.within(&format!("operations[{index}]")))?;
                operations.push(operation);
                Ok(())
            }
            _ => Err(BodyError::UnknownField { message: BODY, number }),
        })?;
        if operations.is_empty() || operations.len() > OPERATIONS_MAX {
            return Err(BodyError::OperationCount(operations.len()));
        }
        let memo = memo.unwrap_or_default();
        if memo.len() > MEMO_BYTES_MAX {
            return Err(BodyError::Field { field: "memo".into(), problem: "is longer than 256 bytes" });
        }
        let nonce = nonce.unwrap_or_default();
        if nonce == 0 {
            return Err(BodyError::Field {
                field: "nonce".into(),
                problem: "is missing; the first nonce of an account is 1",
            });
        }
        Ok(Body {
            chain_id: chain_id.unwrap_or_default(),
            sender: sender.ok_or(BodyError::Field { field: "sender".into(), problem: "is missing" })?,
            nonce: Nonce(nonce),
            expire_time: expire_time.ok_or(BodyError::Field { field: "expire_time".into(), problem: "is missing" })?,
            max_fee: Amount(max_fee.unwrap_or_default()),
            memo,
            operations,
        })
    }

    /// The sum of what the operations move out of the sender's hands, unless it is above 2^64-1.
    pub fn total(&self) -> Option<Amount> {
        self.operations.iter().try_fold(Amount::ZERO, |sum, operation| sum.checked_add(operation.amount()))
    }
}

impl Operation {
    /// Base units it moves.
    pub fn amount(&self) -> Amount {
        match self {
            Operation::Transfer { amount, .. } => *amount,
            Operation::CreateAccount { opening_balance, .. } => *opening_balance,
        }
    }

    /// The account it moves them to.
    pub fn recipient(&self) -> Address {
        match self {
            Operation::Transfer { recipient, .. } => *recipient,
            Operation::CreateAccount { new_account, .. } => *new_account,
        }
    }

    fn parse(index: usize, bytes: &[u8]) -> Result<Operation, BodyError> {
        let mut operation = None;
        for_each_field("Operation", bytes, |number, value| {
            let parsed = match number {
                1 => {
                    let inner = message("transfer", value)?;
                    let (recipient, amount) = Self::parse_pair("Transfer", "recipient", "amount", inner)
                        .map_err(|error| error.within("transfer"))?;
                    Operation::Transfer { recipient, amount }
                }
                2 => {
                    let inner = message("create_account", value)?;
                    let (new_account, opening_balance) =
                        Self::parse_pair("CreateAccount", "new_account", "opening_balance", inner)
                            .map_err(|error| error.within("create_account"))?;
                    Operation::CreateAccount { new_account, opening_balance }
                }
                _ => return Err(BodyError::UnknownField { message: "Operation", number }),
            };
            match operation.replace(parsed) {
                None => Ok(()),
                Some(_) => Err(BodyError::SecondOperation),
            }
        })?;
        let operation = operation.ok_or(BodyError::Field { field: "operation".into(), problem: "is missing" })?;
        if operation.amount().is_zero() {
            return Err(BodyError::AmountZero(index));
        }
        Ok(operation)
    }

    /// Both kinds of operation are an address (field 1) and an amount (field 2).
    fn parse_pair(
        name: &'static str,
        field: &'static str,
        amount_field: &'static str,
        bytes: &[u8],
    ) -> Result<(Address, Amount), BodyError> {
        let mut to = None;
        let mut amount = None;
        for_each_field(name, bytes, |number, value| match number {
            1 => once(name, number, &mut to, address(field, value)?),
            2 => once(name, number, &mut amount, varint(amount_field, value)?),
            _ => Err(BodyError::UnknownField { message: name, number }),
        })?;
        let to = to.ok_or(BodyError::Field { field: field.into(), problem: "is missing" })?;
        Ok((to, Amount(amount.unwrap_or_default())))
    }
}

fn for_each_field(
    message: &'static str,
    bytes: &[u8],
    mut each: impl FnMut(u32, Value<'_>) -> Result<(), BodyError>,
) -> Result<(), BodyError> {
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.next_field().map_err(|source| BodyError::Wire { message, source })? {
        each(field.number, field.value)?;
    }
    Ok(())
}

fn once<T>(message: &'static str, number: u32, slot: &mut Option<T>, value: T) -> Result<(), BodyError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(BodyError::Repeated { message, number }),
    }
}

fn varint(field: &'static str, value: Value<'_>) -> Result<u64, BodyError> {
    match value {
        Value::Varint(value) => Ok(value),
        _ => Err(BodyError::Field { field: field.into(), problem: "is not a varint" }),
    }
}

fn message<'a>(field: &'static str, value: Value<'a>) -> Result<&'a [u8], BodyError> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(BodyError::Field { field: field.into(), problem: "is not length-delimited" }),
    }
}

fn text(field: &'static str, value: Value<'_>) -> Result<String, BodyError> {
    let bytes = message(field, value)?;
    let text =
        std::str::from_utf8(bytes).map_err(|_| BodyError::Field { field: field.into(), problem: "is not UTF-8" })?;
    Ok(text.to_owned())
}

fn address(field: &'static str, value: Value<'_>) -> Result<Address, BodyError> {
    let bytes = message(field, value)?;
    let text =
        std::str::from_utf8(bytes).map_err(|_| BodyError::Field { field: field.into(), problem: "is not UTF-8" })?;
    text.parse().map_err(|source| BodyError::Address { field: field.into(), source })
}

fn timestamp(value: Value<'_>) -> Result<UnixMillis, BodyError> {
    const NAME: &str = "Timestamp";
    let range = BodyError::Field { field: "expire_time".into(), problem: "is not a time from 1970 to 9999" };
    let mut seconds = None;
    let mut nanos = None;
    for_each_field(NAME, message("expire_time", value)?, |number, value| match number {
        1 => once(NAME, number, &mut seconds, varint("expire_time.seconds", value)?),
        2 => once(NAME, number, &mut nanos, varint("expire_time.nanos", value)?),
        _ => Err(BodyError::UnknownField { message: NAME, number }),
    })?;
    // Negative numbers are varints above 2^63: both bounds refuse them.
    let seconds = seconds.unwrap_or_default();
    let nanos = nanos.unwrap_or_default();
    if seconds > 253_402_300_799 || nanos > 999_999_999 {
        return Err(range);
    }
    // Rounded down to the millisecond, the unit of block time: never later than what was signed.
    let millis = nanos.checked_div(1_000_000).unwrap_or_default();
    Ok(UnixMillis(seconds.saturating_mul(1000).saturating_add(millis)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use prost_types::Timestamp;
    use tally_proto::v1;

    use super::*;

    fn wire_body() -> v1::TransactionBody {
        let transfer = v1::Transfer { recipient: Address([2; 32]).to_string(), amount: 5 };
        v1::TransactionBody {
            chain_id: "test-00000000".into(),
            sender: Address([1; 32]).to_string(),
            nonce: 1,
            expire_time: Some(Timestamp { seconds: 1_800_000_000, nanos: 1_999_999 }),
            max_fee: 1000,
            memo: "for the bread".into(),
            operations: vec![v1::Operation { operation: Some(v1::operation::Operation::Transfer(transfer)) }],
        }
    }

    fn parse_with(change: impl FnOnce(&mut v1::TransactionBody)) -> Result<Body, BodyError> {
        let mut body = wire_body();
        change(&mut body);
        Body::parse(&body.encode_to_vec())
    }

    #[test]
    fn reads_what_prost_writes() {
        let body = parse_with(|_| {}).unwrap();
        assert_eq!(
            body,
            Body {
                chain_id: "test-00000000".into(),
                sender: Address([1; 32]),
                nonce: Nonce(1),
                expire_time: UnixMillis(1_800_000_000_001),
                max_fee: Amount(1000),
                memo: "for the bread".into(),
                operations: vec![Operation::Transfer { recipient: Address([2; 32]), amount: Amount(5) }],
            }
        );
    }

    #[test]
    fn every_wrong_value_has_its_own_answer() {
        let field = |field: &'static str, problem| Err(BodyError::Field { field: field.into(), problem });
        let missing = "is missing";
        assert_eq!(parse_with(|b| b.nonce = 0), field("nonce", "is missing; the first nonce of an account is 1"));
        assert_eq!(parse_with(|b| b.expire_time = None), field("expire_time", missing));
        assert_eq!(parse_with(|b| b.memo = "x".repeat(257)), field("memo", "is longer than 256 bytes"));
        assert!(parse_with(|b| b.memo = "x".repeat(256)).is_ok());
        let time = "is not a time from 1970 to 9999";
        assert_eq!(
            parse_with(|b| b.expire_time = Some(Timestamp { seconds: -1, nanos: 0 })),
            field("expire_time", time)
        );
        assert_eq!(
            parse_with(|b| b.expire_time = Some(Timestamp { seconds: 1, nanos: -1 })),
            field("expire_time", time)
        );
        assert_eq!(parse_with(|b| b.operations.clear()), Err(BodyError::OperationCount(0)));
        assert_eq!(
            parse_with(|b| b.operations = vec![b.operations[0].clone(); 65]),
            Err(BodyError::OperationCount(65))
        );
        assert!(parse_with(|b| b.operations = vec![b.operations[0].clone(); 64]).is_ok());
        assert_eq!(parse_with(|b| b.operations[0].operation = None), field("operations[0].operation", missing));
        let to = |recipient: &str| {
            let transfer = v1::Transfer { recipient: recipient.into(), amount: 1 };
            let transfer = v1::Operation { operation: Some(v1::operation::Operation::Transfer(transfer)) };
            parse_with(|b| b.operations = vec![b.operations[0].clone(), transfer])
        };
        assert_eq!(to(""), field("operations[1].transfer.recipient", missing));
        assert!(
            matches!(to("x"), Err(BodyError::Address { field, .. }) if field == "operations[1].transfer.recipient")
        );
        assert!(matches!(
            parse_with(|b| b.sender = b.sender.to_uppercase()),
            Err(BodyError::Address { field, source: AddressError::Case(_) }) if field == "sender"
        ));
        assert_eq!(parse_with(|b| b.sender.clear()), field("sender", missing));
        assert_eq!(Body::parse(&[0; BODY_BYTES_MAX + 1]), Err(BodyError::TooLarge(BODY_BYTES_MAX + 1)));
        let zero = v1::Transfer { recipient: Address([2; 32]).to_string(), amount: 0 };
        assert_eq!(
            parse_with(|b| b.operations[0].operation = Some(v1::operation::Operation::Transfer(zero))),
            Err(BodyError::AmountZero(0))
        );
    }

    #[test]
    fn nothing_signed_is_ignored() {
        let good = wire_body().encode_to_vec();
        let with = |tail: &[u8]| Body::parse(&[&good[..], tail].concat());
        assert_eq!(with(&[0x40, 1]), Err(BodyError::UnknownField { message: BODY, number: 8 }));
        assert_eq!(with(&[0x18, 2]), Err(BodyError::Repeated { message: BODY, number: 3 }));
        assert_eq!(with(&[0x32, 0]), Err(BodyError::Repeated { message: BODY, number: 6 }));
        assert_eq!(with(&[0x1a, 0]), Err(BodyError::Field { field: "nonce".into(), problem: "is not a varint" }));
        assert_eq!(with(&[0x0b]), Err(BodyError::Wire { message: BODY, source: WireError::WireType }));
        // A second member of the oneof inside an operation, and a field the operation does not know.
        let operation = wire_body().operations[0].encode_to_vec();
        let with_operation = |bytes: Vec<u8>| {
            let mut field = vec![0x3a];
            prost::encode_length_delimiter(bytes.len(), &mut field).unwrap();
            field.extend(bytes);
            with(&field)
        };
        assert_eq!(with_operation([operation.clone(), operation.clone()].concat()), Err(BodyError::SecondOperation));
        assert_eq!(
            with_operation([operation, vec![0x1a, 0]].concat()),
            Err(BodyError::UnknownField { message: "Operation", number: 3 })
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Body::parse(&bytes);
        }
    }
}
