//! SubmitTransaction: what is admitted, what is answered twice alike, and every reason to refuse.

use std::sync::Arc;

use prost::Message as _;
use tally_proto::v1::{self, TransactionState, transaction_service_server::TransactionService as _};
use tally_types::{Address, Height};

use super::world::{BALANCE, Start, World, address, create, genesis, ok, refused, request, secret, transfer};
use crate::{admission::PENDING_PER_SENDER_MAX, api::local_time, api::render::timestamp};

impl World {
    async fn submit(&self, transaction: &v1::Transaction) -> (String, TransactionState) {
        let message = v1::SubmitTransactionRequest { transaction: Some(transaction.clone()) };
        let response = ok(self.api.submit_transaction(request(message))).await;
        (response.tx_id.clone(), response.state())
    }

    /// The refusal, without the `tx_id` that every one has to carry.
    async fn refuse(&self, transaction: &v1::Transaction) -> String {
        let message = v1::SubmitTransactionRequest { transaction: Some(transaction.clone()) };
        let refused = refused(self.api.submit_transaction(request(message))).await;
        let carried = format!("tx_id={}", self.id(transaction));
        assert!(refused.contains(&carried), "{refused} lacks {carried}");
        refused.replace(&carried, "tx_id")
    }

    async fn refuse_body(&self, change: impl FnOnce(&mut v1::TransactionBody)) -> String {
        let mut body = self.body(5, 1);
        change(&mut body);
        self.refuse(&self.sign(5, &body)).await
    }
}

#[tokio::test]
async fn the_same_bytes_are_answered_alike_before_and_after_they_are_final() {
    let mut world = World::new();
    let transaction = world.transaction(5, 1);
    let id = world.id(&transaction);
    assert_eq!(world.submit(&transaction).await, (id.clone(), TransactionState::Pending));
    assert_eq!(world.submit(&transaction).await, (id.clone(), TransactionState::Pending));
    assert_eq!(world.admitted.try_recv().unwrap(), transaction.encode_to_vec());
    assert!(world.admitted.try_recv().is_err(), "it went out twice");
    world.block(std::slice::from_ref(&transaction));
    assert_eq!(world.submit(&transaction).await, (id.clone(), TransactionState::Finalized));
    // Whatever would be wrong with it now: it is known to be final.
    world.stand(|standing| {
        standing.observer_reason = "journal lost".into();
        standing.status.highest_seen = Height(1000);
    });
    assert_eq!(world.submit(&transaction).await, (id, TransactionState::Finalized));
    assert!(world.admitted.try_recv().is_err());
}

#[tokio::test]
async fn what_is_not_a_transaction_of_this_chain_is_refused() {
    let world = World::new();
    let missing = v1::SubmitTransactionRequest { transaction: None };
    let missing = refused(world.api.submit_transaction(request(missing))).await;
    assert_eq!(missing, "InvalidArgument FIELD_INVALID bad=transaction");

    let good = world.transaction(5, 1);
    let mut unsigned = good.clone();
    unsigned.signatures.clear();
    assert_eq!(world.refuse(&unsigned).await, "InvalidArgument FIELD_INVALID tx_id bad=transaction.signatures");
    let mut twice = good.clone();
    twice.signatures.push(good.signatures[0].clone());
    assert_eq!(world.refuse(&twice).await, "InvalidArgument FIELD_INVALID tx_id bad=transaction.signatures");
    let mut signer = good.clone();
    signer.signatures[0].signer = "tally1me".into();
    let field = "transaction.signatures.signer";
    let expected = format!("InvalidArgument ADDRESS_INVALID field={field} tx_id value=tally1me bad={field}");
    assert_eq!(world.refuse(&signer).await, expected);
    let mut long = good.clone();
    long.signatures[0].signer = "é".repeat(10_000);
    assert_eq!(world.refuse(&long).await, "InvalidArgument FIELD_INVALID tx_id bad=transaction");
    let mut forged = good.clone();
    forged.signatures[0].signature[0] ^= 1;
    assert_eq!(world.refuse(&forged).await, "InvalidArgument SIGNATURE_INVALID tx_id");
    let stranger = world.sign(6, &world.body(5, 1));
    assert_eq!(world.refuse(&stranger).await, "InvalidArgument SIGNATURE_INVALID tx_id");

    let chain = &world.shared.genesis.chain.id;
    let other = world.refuse_body(|body| body.chain_id = "other-01020304".into()).await;
    assert_eq!(other, format!("FailedPrecondition CHAIN_ID_MISMATCH expected={chain} got=other-01020304 tx_id"));
    let sender = world.refuse_body(|body| body.sender = "tally1x".into()).await;
    let field = "transaction.body.sender";
    assert_eq!(sender, format!("InvalidArgument ADDRESS_INVALID field={field} tx_id value=tally1x bad={field}"));
    let nonce = world.refuse_body(|body| body.nonce = 0).await;
    assert_eq!(nonce, "InvalidArgument FIELD_INVALID tx_id bad=transaction.body.nonce");
    let none = world.refuse_body(|body| body.operations.clear()).await;
    assert_eq!(none, "InvalidArgument OPERATION_COUNT_INVALID maximum=64 operations=0 tx_id");
    let many = world.refuse_body(|body| body.operations = vec![transfer(address(6), 1); 65]).await;
    assert_eq!(many, "InvalidArgument OPERATION_COUNT_INVALID maximum=64 operations=65 tx_id");
    let zero = world.refuse_body(|body| body.operations.push(transfer(address(6), 0))).await;
    assert_eq!(zero, "InvalidArgument AMOUNT_ZERO operation=1 tx_id");
    let large = world.refuse_body(|body| body.memo = "x".repeat(9000)).await;
    assert!(large.starts_with("InvalidArgument BODY_TOO_LARGE maximum=8192 size=9"), "{large}");

    let body = world.body(5, 1).encode_to_vec();
    let tail = async |tail: &[u8]| world.refuse(&world.sign_bytes(5, &[&body[..], tail].concat())).await;
    assert_eq!(tail(&[0x40, 1]).await, "InvalidArgument UNKNOWN_FIELD field_number=8 tx_id");
    let repeated = "InvalidArgument BODY_MALFORMED field_number=3 problem=is given twice tx_id";
    assert_eq!(tail(&[0x18, 2]).await, repeated);
    let cut = "InvalidArgument BODY_MALFORMED problem=the bytes end inside a field tx_id";
    assert_eq!(tail(&[0x18]).await, cut);
    assert!(world.shared.admission.is_empty());
}

#[tokio::test]
async fn what_the_state_does_not_allow_is_refused() {
    let mut world = World::new();
    world.block(&[world.transaction(5, 100), world.transaction(5, 200)]);
    let now = local_time();

    let unknown = world.sign(9, &world.body(9, 1));
    let expected = format!("NotFound ACCOUNT_NOT_FOUND address={} tx_id", address(9));
    assert_eq!(world.refuse(&unknown).await, expected);
    let expired = world.refuse_body(|body| body.expire_time = Some(timestamp(world.time()))).await;
    assert!(expired.starts_with("FailedPrecondition EXPIRED block_time="), "{expired}");
    assert!(expired.contains(&format!("expire_time={}", world.time())), "{expired}");
    let far = world.refuse_body(|body| body.expire_time = Some(timestamp(now.plus(3_600_000)))).await;
    assert!(far.starts_with("InvalidArgument EXPIRY_TOO_FAR expire_time="), "{far}");
    assert!(far.contains("latest_allowed="), "{far}");
    let low = world.refuse_body(|body| body.nonce = 72).await;
    assert_eq!(low, "FailedPrecondition NONCE_TOO_LOW lowest=73 nonce=72 tx_id");
    let high = world.refuse_body(|body| body.nonce = 329).await;
    assert_eq!(high, "FailedPrecondition NONCE_TOO_HIGH highest=200 nonce=329 tx_id");
    let good = |body: &mut v1::TransactionBody| body.nonce = 201;
    let fee = world.refuse_body(|body| {
        good(body);
        body.max_fee = 9;
    });
    assert_eq!(fee.await, "FailedPrecondition FEE_TOO_LOW max_fee=9 needed=10 tx_id");

    let refuse =
        async |operations: Vec<v1::Operation>| world.refuse(&world.sign(5, &world.body_of(5, 201, operations))).await;
    let (balance, needed) = (BALANCE - 22, BALANCE + 10);
    assert_eq!(
        refuse(vec![transfer(address(6), BALANCE)]).await,
        format!("FailedPrecondition INSUFFICIENT_FUNDS balance={balance} missing=32 needed={needed} tx_id")
    );
    assert_eq!(
        refuse(vec![transfer(address(9), 1)]).await,
        format!("FailedPrecondition RECIPIENT_NOT_FOUND address={} tx_id", address(9))
    );
    assert_eq!(
        refuse(vec![create(address(6), 500)]).await,
        format!("AlreadyExists ACCOUNT_ALREADY_EXISTS address={} tx_id", address(6))
    );
    assert_eq!(
        refuse(vec![create(address(9), 99)]).await,
        "FailedPrecondition OPENING_BALANCE_TOO_LOW minimum=100 opening_balance=99 tx_id"
    );
    let nobody = Address([0; 32]);
    assert_eq!(refuse(vec![create(nobody, 500)]).await, format!("InvalidArgument KEY_INVALID address={nobody} tx_id"));
    assert_eq!(
        refuse(vec![transfer(address(6), u64::MAX), transfer(address(6), u64::MAX)]).await,
        "InvalidArgument AMOUNT_OVERFLOW operation=1 tx_id"
    );
    assert!(world.shared.admission.is_empty());
}

#[tokio::test]
async fn a_nonce_in_use_names_the_transaction_that_has_it() {
    let mut world = World::new();
    let first = world.transaction(5, 1);
    world.submit(&first).await;
    let mut other = world.body(5, 1);
    other.memo = "another".into();
    let other = world.sign(5, &other);
    let expected = |world: &World| {
        format!("AlreadyExists NONCE_IN_USE nonce=1 submitted_tx_id={} tx_id={}", world.id(&other), world.id(&first))
    };
    let submit = |world: &World| {
        let (api, transaction) = (world.api.clone(), Some(other.clone()));
        async move { refused(api.submit_transaction(request(v1::SubmitTransactionRequest { transaction }))).await }
    };
    // While it is pending, and once it is final.
    assert_eq!(submit(&world).await, expected(&world));
    world.block(std::slice::from_ref(&first));
    assert_eq!(submit(&world).await, expected(&world));
}

#[tokio::test]
async fn a_nonce_that_those_pending_leave_behind_is_refused_instead_of_lost() {
    let world = World::new();
    world.submit(&world.transaction(5, 100)).await;
    world.submit(&world.transaction(5, 200)).await;
    // When 200 has executed, the window ends at 73: 72 could be admitted, and would vanish.
    let refused = world.refuse_body(|body| body.nonce = 72).await;
    assert_eq!(refused, "FailedPrecondition NONCE_TOO_LOW lowest=201 nonce=72 tx_id");
    assert_eq!(world.shared.admission.len(), 2);
    world.submit(&world.transaction(5, 73)).await;
    // Another's nonces are another's affair.
    world.submit(&world.transaction(6, 1)).await;
}

#[tokio::test]
async fn a_node_that_cannot_carry_transactions_says_why() {
    let mut world = World::new();
    world.blocks(10);
    world.stand(|standing| standing.status.highest_seen = Height(42));
    world.submit(&world.transaction(5, 1)).await;
    world.stand(|standing| standing.status.highest_seen = Height(43));
    let syncing = "Unavailable NODE_SYNCING height=10 highest_seen_height=43 tx_id retry";
    assert_eq!(world.refuse(&world.transaction(5, 2)).await, syncing);
    world.stand(|standing| standing.status.highest_seen = Height(10));
    world.stand(|standing| standing.observer_reason = "its journal is gone".into());
    assert_eq!(world.refuse(&world.transaction(5, 2)).await, "Unavailable NOT_ACCEPTING tx_id retry");
    world.stand(|standing| standing.observer_reason = String::new());
    world.submit(&world.transaction(5, 2)).await;
    world.closing.send_replace(true);
    assert_eq!(world.refuse(&world.transaction(5, 3)).await, "Unavailable NOT_ACCEPTING tx_id retry");

    let observer = World::start(Start { is_validator: false, ..Start::default() });
    assert_eq!(observer.refuse(&observer.transaction(5, 1)).await, "Unavailable NOT_ACCEPTING tx_id retry");
    let mut gone = World::new();
    gone.admitted.close();
    assert_eq!(gone.refuse(&gone.transaction(5, 1)).await, "Unavailable NOT_ACCEPTING tx_id retry");
}

#[tokio::test]
async fn a_full_node_and_a_full_sender_are_refused_for_a_while() {
    let world = World::start(Start { admitted_max: 1, ..Start::default() });
    world.submit(&world.transaction(5, 1)).await;
    assert_eq!(world.refuse(&world.transaction(5, 2)).await, "ResourceExhausted MEMPOOL_FULL tx_id retry");

    let world = World::start(Start { admitted_max: PENDING_PER_SENDER_MAX + 1, ..Start::default() });
    let latest = Arc::clone(&world.shared.latest.borrow());
    let maximum = u64::try_from(PENDING_PER_SENDER_MAX).unwrap();
    for nonce in 1..=maximum {
        let bytes = world.transaction(5, nonce).encode_to_vec();
        let parsed = tally_types::SignedTransaction::parse(&bytes, &world.shared.genesis.chain).unwrap();
        world.shared.admission.admit(&latest, local_time(), parsed.ordered()).unwrap();
    }
    let refused = world.refuse(&world.transaction(5, maximum + 1)).await;
    assert_eq!(refused, format!("ResourceExhausted SENDER_LIMIT maximum={maximum} pending={maximum} tx_id retry"));
    // Others are not affected.
    world.submit(&world.transaction(6, 1)).await;
}

#[tokio::test]
async fn a_transaction_of_another_genesis_with_the_same_name_does_not_verify() {
    let world = World::new();
    let bytes = world.body(5, 1).encode_to_vec();
    let other = genesis(1, 60_000).chain.genesis_hash;
    let signed = tally_types::transaction::sign(&secret(5), &other, &bytes);
    let transaction = v1::Transaction::decode(&signed[..]).unwrap();
    assert_eq!(world.refuse(&transaction).await, "InvalidArgument SIGNATURE_INVALID tx_id");
}

#[tokio::test]
async fn many_are_judged_one_by_one_in_order() {
    let mut world = World::new();
    let mut forged = world.transaction(6, 1);
    forged.signatures[0].signature[0] ^= 1;
    let poor = world.sign(6, &world.body_of(6, 2, vec![transfer(address(5), BALANCE)]));
    // More nonces of one account than may be open at once, unless each is admitted before the next is judged.
    let many: Vec<_> = (1..=300).map(|nonce| world.transaction(5, nonce)).collect();
    let transactions = [&many[..], &[forged, many[4].clone(), poor, v1::Transaction::default()]].concat();
    let message = v1::SubmitTransactionsRequest { transactions: transactions.clone() };
    let results = ok(world.api.submit_transactions(request(message))).await.results;
    assert_eq!(results.len(), 304);
    for (result, transaction) in results.iter().zip(&transactions) {
        assert_eq!(result.tx_id, world.id(transaction));
    }
    assert!(results[..300].iter().all(|result| result.state() == TransactionState::Pending && result.error.is_none()));
    let told = |result: &v1::SubmitTransactionsResult| {
        let error = result.error.clone().unwrap_or_default();
        assert!(error.metadata.is_empty() || error.metadata["tx_id"] == result.tx_id);
        (result.state(), error.code, error.reason)
    };
    let (pending, refused) = (TransactionState::Pending, TransactionState::Unspecified);
    assert_eq!(told(&results[300]), (refused, 3, "SIGNATURE_INVALID".into()));
    assert_eq!(told(&results[301]), (pending, 0, String::new()));
    assert_eq!(told(&results[302]), (refused, 9, "INSUFFICIENT_FUNDS".into()));
    assert_eq!(told(&results[303]), (refused, 3, "FIELD_INVALID".into()));
    for transaction in &many {
        assert_eq!(world.admitted.try_recv().unwrap(), transaction.encode_to_vec());
    }
    assert!(world.admitted.try_recv().is_err());
}

#[tokio::test]
async fn none_and_too_many_are_refused_at_once() {
    let mut world = World::new();
    for count in [0, 1001] {
        let transactions = vec![world.transaction(5, 1); count];
        let message = v1::SubmitTransactionsRequest { transactions };
        let told = refused(world.api.submit_transactions(request(message))).await;
        assert_eq!(told, "InvalidArgument FIELD_INVALID maximum=1000 bad=transactions");
    }
    assert!(world.admitted.try_recv().is_err());
}
