//! Accounts that pay: keys, bodies and signatures, as any client library would make them.

use std::time::{Duration, SystemTime};

use prost::Message as _;
use tally_proto::v1::{self, operation::Operation};
use tally_types::{Address, SecretKey, genesis::Chain, transaction};

use crate::network::FEE;

/// The key of seed number `seed`.
pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// A payment to an account that exists.
pub fn transfer(recipient: &Address, amount: u64) -> v1::Operation {
    let transfer = v1::Transfer { recipient: recipient.to_string(), amount };
    v1::Operation { operation: Some(Operation::Transfer(transfer)) }
}

/// The opening of an account.
pub fn create_account(new_account: &Address, opening_balance: u64) -> v1::Operation {
    let create = v1::CreateAccount { new_account: new_account.to_string(), opening_balance };
    v1::Operation { operation: Some(Operation::CreateAccount(create)) }
}

/// An account with its key and its next nonce.
#[derive(Clone, Debug)]
pub struct Payer {
    /// Its key.
    pub key: SecretKey,
    /// Its address.
    pub address: Address,
    /// The nonce of its next transaction.
    pub nonce: u64,
    /// The chain it signs for.
    pub chain: Chain,
}

impl Payer {
    /// The account of seed number `seed` on a chain, before its first transaction.
    pub fn new(seed: u8, chain: &Chain) -> Payer {
        let key = key(seed);
        Payer { address: key.public_key().address(), key, nonce: 1, chain: chain.clone() }
    }

    /// The address as text.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// A body that is right in every field, with the next nonce, which is not used up by this.
    pub fn body(&self, operations: Vec<v1::Operation>) -> v1::TransactionBody {
        v1::TransactionBody {
            chain_id: self.chain.id.clone(),
            sender: self.name(),
            nonce: self.nonce,
            expire_time: Some((SystemTime::now() + Duration::from_secs(600)).into()),
            max_fee: FEE * operations.len().max(1) as u64,
            memo: String::new(),
            operations,
        }
    }

    /// Signs a body as it is.
    pub fn sign(&self, body: &v1::TransactionBody) -> v1::Transaction {
        self.sign_bytes(&body.encode_to_vec())
    }

    /// Signs any bytes as a body.
    pub fn sign_bytes(&self, body: &[u8]) -> v1::Transaction {
        let bytes = transaction::sign(&self.key, &self.chain.genesis_hash, body);
        v1::Transaction::decode(&bytes[..]).expect("it was just encoded")
    }

    /// Signs a body of these operations and uses up a nonce.
    pub fn transaction(&mut self, operations: Vec<v1::Operation>) -> v1::Transaction {
        let signed = self.sign(&self.body(operations));
        self.nonce += 1;
        signed
    }

    /// The same for one payment.
    pub fn pay(&mut self, recipient: &Address, amount: u64) -> v1::Transaction {
        self.transaction(vec![transfer(recipient, amount)])
    }
}
