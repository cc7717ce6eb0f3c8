//! Every way to be refused: gRPC code and reason, and nothing moved.

use std::time::{Duration, SystemTime};

use prost::Message as _;
use tally_proto::v1;
use tally_types::{Address, Hash, genesis::Chain};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    network::{FEE, FUNDS, Network, Node, Plan},
    payer::{Payer, create_account, key, transfer},
};

/// Code and reason of a refusal.
pub fn verdict(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "tally.v1");
    (status.code(), info.reason)
}

/// One value of a refusal's metadata.
pub fn metadata(status: &Status, key: &str) -> String {
    status.get_details_error_info().and_then(|info| info.metadata.get(key).cloned()).unwrap_or_default()
}

/// What is wrong, the transaction, and how it is refused.
type Row = (&'static str, v1::Transaction, Code, &'static str);

#[tokio::test]
async fn every_wrong_transaction_is_refused_with_its_reason_and_moves_nothing() {
    let network = Network::start(Plan::of(1)).await;
    let node = &network.nodes[0];
    let [mut alice, bob, mut carol] = network.people();
    let poor = prepare(node, &mut alice, &mut carol, &network.genesis.chain).await;
    let rows = malformed(&bob, &alice.address).into_iter();
    let rows: Vec<Row> = rows
        .chain(forged(&bob, &alice.address, &network.genesis.chain))
        .chain(impossible(&alice, &bob, &poor))
        .collect();
    let before = node.balances().await;
    for (what, transaction, code, reason) in rows {
        let status = node.submit(&transaction).await.expect_err(what);
        assert_eq!(verdict(&status), (code, reason.to_owned()), "{what}: {status:?}");
        assert!(status.message().len() > 10, "{what}: {:?} tells a person nothing", status.message());
    }
    // Not even later: two more blocks, and everything is where it was.
    network.grow(2).await;
    assert_eq!(node.balances().await, before);
    assert_eq!(node.status().await.unwrap().mempool_size, 0);
    // The same accounts still pay.
    node.execute(&bob.clone().pay(&alice.address, 1)).await;
    node.execute(&alice.pay(&bob.address, 1)).await;
}

/// Alice has used nonces 128 and 256; the returned account holds one base unit less than a fee.
async fn prepare(node: &Node, alice: &mut Payer, carol: &mut Payer, chain: &Chain) -> Payer {
    for nonce in [128, 256] {
        alice.nonce = nonce;
        node.execute(&alice.pay(&carol.address, 1)).await;
    }
    let mut poor = Payer::new(50, chain);
    node.execute(&carol.transaction(vec![create_account(&poor.address, 10_000_000)])).await;
    node.execute(&poor.pay(&carol.address, 10_000_000 - FEE - (FEE - 1))).await;
    assert_eq!(node.balance(&poor.name()).await, FEE - 1);
    poor
}

/// Bodies that are none, by the rules of the format.
fn malformed(bob: &Payer, to: &Address) -> Vec<Row> {
    let body = || bob.body(vec![transfer(to, 5)]);
    let with = |change: fn(&mut v1::TransactionBody)| {
        let mut body = body();
        change(&mut body);
        bob.sign(&body)
    };
    let raw = |extra: &[u8]| bob.sign_bytes(&[&body().encode_to_vec()[..], extra].concat());
    let operations = |operations| bob.sign(&bob.body(operations));
    let two_in_one = {
        let both = [transfer(to, 5).encode_to_vec(), create_account(to, 5).encode_to_vec()].concat();
        let mut bytes = bob.body(vec![]).encode_to_vec();
        bytes.push(7 << 3 | 2);
        bytes.extend([u8::try_from(both.len() % 128).unwrap() | 128, u8::try_from(both.len() / 128).unwrap()]);
        bytes.extend(both);
        bob.sign_bytes(&bytes)
    };
    let cut = {
        let bytes = body().encode_to_vec();
        bob.sign_bytes(&bytes[..bytes.len() - 1])
    };
    let bad = Code::InvalidArgument;
    vec![
        ("an unknown field", raw(&[8 << 3, 1]), bad, "UNKNOWN_FIELD"),
        ("a repeated nonce", raw(&[3 << 3, 9]), bad, "BODY_MALFORMED"),
        ("a body cut short", cut, bad, "BODY_MALFORMED"),
        ("two operations in one", two_in_one, bad, "BODY_MALFORMED"),
        ("an upper-case recipient", with(|b| set_recipient(b, str::to_uppercase)), bad, "ADDRESS_INVALID"),
        (
            "a mistyped recipient",
            with(|b| set_recipient(b, |text| format!("{}q", &text[..63]))),
            bad,
            "ADDRESS_INVALID",
        ),
        (
            "a recipient of another network",
            with(|b| set_recipient(b, |text| text.replace("tally", "bitco"))),
            bad,
            "ADDRESS_INVALID",
        ),
        ("an upper-case sender", with(|b| b.sender = b.sender.to_uppercase()), bad, "ADDRESS_INVALID"),
        ("no sender", with(|b| b.sender.clear()), bad, "FIELD_INVALID"),
        ("no nonce", with(|b| b.nonce = 0), bad, "FIELD_INVALID"),
        ("no expiry", with(|b| b.expire_time = None), bad, "FIELD_INVALID"),
        ("a memo of 257 bytes", with(|b| b.memo = "x".repeat(257)), bad, "FIELD_INVALID"),
        ("an amount of zero", operations(vec![transfer(to, 1), transfer(to, 0)]), bad, "AMOUNT_ZERO"),
        ("an opening balance of zero", operations(vec![create_account(&Address([9; 32]), 0)]), bad, "AMOUNT_ZERO"),
        ("no operation", operations(vec![]), bad, "OPERATION_COUNT_INVALID"),
        ("65 operations", operations(vec![transfer(to, 1); 65]), bad, "OPERATION_COUNT_INVALID"),
        ("a body above 8192 bytes", with(|b| b.memo = "x".repeat(8192)), bad, "BODY_TOO_LARGE"),
    ]
}

fn set_recipient(body: &mut v1::TransactionBody, change: impl Fn(&str) -> String) {
    if let Some(v1::operation::Operation::Transfer(transfer)) = &mut body.operations[0].operation {
        transfer.recipient = change(&transfer.recipient);
    }
}

/// Bodies that are right, signed by the wrong key, for the wrong chain, or not at all.
fn forged(bob: &Payer, to: &Address, chain: &Chain) -> Vec<Row> {
    let body = bob.body(vec![transfer(to, 5)]);
    let genuine = bob.sign(&body);
    let mut flipped = genuine.clone();
    flipped.signatures[0].signature[40] ^= 1;
    let mut changed = genuine.clone();
    changed.body = bob.body(vec![transfer(to, 6)]).encode_to_vec();
    let mut unsigned = genuine.clone();
    unsigned.signatures.clear();
    let mut twice = genuine.clone();
    twice.signatures.extend(genuine.signatures.clone());
    let mut signer = genuine.clone();
    signer.signatures[0].signer = to.to_string();
    let thief = Payer { key: key(3), ..bob.clone() };
    let other = Chain { id: chain.id.clone(), genesis_hash: Hash::of(b"another genesis with the same id") };
    let other_chain = v1::TransactionBody { chain_id: "it-00000000".into(), ..body.clone() };
    let bad = Code::InvalidArgument;
    vec![
        ("a signature with a flipped bit", flipped, bad, "SIGNATURE_INVALID"),
        ("a signature of another body", changed, bad, "SIGNATURE_INVALID"),
        ("a signature of another key", thief.sign(&body), bad, "SIGNATURE_INVALID"),
        ("a signer who is not the sender", signer, bad, "SIGNATURE_INVALID"),
        ("a signature for another genesis", Payer::new(2, &other).sign(&body), bad, "SIGNATURE_INVALID"),
        ("no signature", unsigned, bad, "FIELD_INVALID"),
        ("two signatures", twice, bad, "FIELD_INVALID"),
        ("another chain", bob.sign(&other_chain), Code::FailedPrecondition, "CHAIN_ID_MISMATCH"),
    ]
}

/// Transactions that the state does not allow.
fn impossible(alice: &Payer, bob: &Payer, poor: &Payer) -> Vec<Row> {
    let nobody = Payer::new(60, &bob.chain);
    let to = &alice.address;
    let from_now = |seconds: i64| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        Some(prost_types::Timestamp { seconds: i64::try_from(now).unwrap() + seconds, nanos: 0 })
    };
    let pays = |operations| bob.sign(&bob.body(operations));
    let with = |change: &dyn Fn(&mut v1::TransactionBody)| {
        let mut body = bob.body(vec![transfer(to, 5)]);
        change(&mut body);
        bob.sign(&body)
    };
    let nonce = |nonce| alice.sign(&v1::TransactionBody { nonce, ..alice.body(vec![transfer(to, 5)]) });
    // The neutral element of the curve: everybody and nobody can sign for it.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let (bad, not_now) = (Code::InvalidArgument, Code::FailedPrecondition);
    let exists = create_account(&alice.address, 10_000_000);
    let low = create_account(&nobody.address, 9_999_999);
    vec![
        ("a recipient without account", pays(vec![transfer(&nobody.address, 5)]), not_now, "RECIPIENT_NOT_FOUND"),
        ("an account that exists", pays(vec![exists]), Code::AlreadyExists, "ACCOUNT_ALREADY_EXISTS"),
        ("a key nobody holds", pays(vec![create_account(&Address(neutral), 10_000_000)]), bad, "KEY_INVALID"),
        ("an address off the curve", pays(vec![create_account(&Address([2; 32]), 10_000_000)]), bad, "KEY_INVALID"),
        ("an opening balance one short", pays(vec![low]), not_now, "OPENING_BALANCE_TOO_LOW"),
        ("one base unit too much", pays(vec![transfer(to, FUNDS - FEE + 1)]), not_now, "INSUFFICIENT_FUNDS"),
        ("two payments too much", pays(vec![transfer(to, FUNDS / 2); 2]), not_now, "INSUFFICIENT_FUNDS"),
        ("a fee that is not covered", poor.sign(&poor.body(vec![transfer(to, 1)])), not_now, "INSUFFICIENT_FUNDS"),
        ("amounts above 2^64", pays(vec![transfer(to, u64::MAX), transfer(to, 1)]), bad, "AMOUNT_OVERFLOW"),
        ("a nonce that was used", nonce(256), Code::AlreadyExists, "NONCE_IN_USE"),
        ("a nonce below the window", nonce(128), not_now, "NONCE_TOO_LOW"),
        ("a nonce above the window", nonce(256 + 129), not_now, "NONCE_TOO_HIGH"),
        ("an expiry that is over", with(&|b| b.expire_time = from_now(-5)), not_now, "EXPIRED"),
        ("an expiry in 25 hours", with(&|b| b.expire_time = from_now(25 * 3600)), bad, "EXPIRY_TOO_FAR"),
        ("a fee limit one short", with(&|b| b.max_fee = FEE - 1), not_now, "FEE_TOO_LOW"),
        (
            "a sender without account",
            nobody.sign(&nobody.body(vec![transfer(to, 1)])),
            Code::NotFound,
            "ACCOUNT_NOT_FOUND",
        ),
    ]
}

#[tokio::test]
async fn a_used_nonce_names_its_transaction_and_an_error_names_the_refused_one() {
    let network = Network::start(Plan::of(1)).await;
    let node = &network.nodes[0];
    let [mut alice, bob, _] = network.people();
    let first = alice.pay(&bob.address, 5);
    let first_id = node.submit(&first).await.unwrap();
    node.receipt(&first_id).await;
    alice.nonce = 1;
    let second = alice.pay(&bob.address, 6);
    let status = node.submit(&second).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::AlreadyExists, "NONCE_IN_USE".into()));
    assert_eq!(metadata(&status, "tx_id"), first_id);
    let status = node.submit(&bob.sign(&bob.body(vec![transfer(&alice.address, FUNDS + 5)]))).await.unwrap_err();
    let facts = ["balance", "needed"].map(|key| metadata(&status, key));
    assert_eq!(facts, [(FUNDS + 5).to_string(), (FUNDS + 5 + FEE).to_string()]);
    assert_eq!(metadata(&status, "missing"), FEE.to_string());
    assert_eq!(metadata(&status, "tx_id").len(), 64);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_and_a_foreign_page_token_is_refused() {
    let network = Network::start(Plan::of(1)).await;
    let node = &network.nodes[0];
    let nobody = Payer::new(60, &network.genesis.chain).name();
    let status = node.account(&nobody).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::NotFound, "ACCOUNT_NOT_FOUND".into()));
    let status = node.account("tally1nobody").await.unwrap_err();
    assert_eq!(verdict(&status), (Code::InvalidArgument, "ADDRESS_INVALID".into()));
    let status = node.transaction(&"0".repeat(64)).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::NotFound, "TRANSACTION_NOT_FOUND".into()));
    let status = node.transaction("x").await.unwrap_err();
    assert_eq!(verdict(&status), (Code::InvalidArgument, "FIELD_INVALID".into()));
    let above = v1::get_block_request::BlockId::Height(1 << 40);
    let status = node.blocks().get_block(v1::GetBlockRequest { block_id: Some(above), view: 0 }).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::NotFound, "BLOCK_NOT_FOUND".into()));
    let status =
        node.validators().get_validator(v1::GetValidatorRequest { address: nobody.clone() }).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::NotFound, "VALIDATOR_NOT_FOUND".into()));
    let behind = v1::GetAccountRequest { address: network.people()[0].name(), min_height: 1 << 40 };
    let status = node.accounts().get_account(behind).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::FailedPrecondition, "NODE_BEHIND".into()));

    let blocks = v1::ListBlocksRequest { page_size: 1, order: v1::Order::OldestFirst.into(), ..Default::default() };
    node.reach(3).await;
    let token = node.blocks().list_blocks(blocks.clone()).await.unwrap().into_inner().next_page_token;
    let other_order = v1::ListBlocksRequest { page_token: token.clone(), ..Default::default() };
    let status = node.blocks().list_blocks(other_order).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::InvalidArgument, "PAGE_TOKEN_INVALID".into()));
    let accounts = v1::ListAccountsRequest { page_size: 1, page_token: token };
    let status = node.accounts().list_accounts(accounts).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::InvalidArgument, "PAGE_TOKEN_INVALID".into()));
    let negative = v1::ListBlocksRequest { page_size: -1, ..blocks };
    let status = node.blocks().list_blocks(negative).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::InvalidArgument, "FIELD_INVALID".into()));
}
