//! SimulateTransaction: what it fills in, what it foretells, and that nothing changes.

use tally_proto::v1::{self, ExecutionResult, transaction_service_server::TransactionService as _};

use super::world::{BALANCE, World, address, create, ok, refused, request, transfer};

impl World {
    async fn simulate(&self, body: v1::TransactionBody) -> v1::SimulateTransactionResponse {
        ok(self.api.simulate_transaction(request(v1::SimulateTransactionRequest { body: Some(body) }))).await
    }

    async fn not_simulated(&self, change: impl FnOnce(&mut v1::TransactionBody)) -> String {
        let mut body = self.body(5, 1);
        change(&mut body);
        refused(self.api.simulate_transaction(request(v1::SimulateTransactionRequest { body: Some(body) }))).await
    }
}

fn open(sender: u8, operations: Vec<v1::Operation>) -> v1::TransactionBody {
    v1::TransactionBody { sender: address(sender).to_string(), operations, ..Default::default() }
}

#[tokio::test]
async fn what_is_left_open_is_filled_in_and_the_outcome_is_what_the_block_then_does() {
    let mut world = World::new();
    let operations = vec![transfer(address(6), 500), create(address(99), 2000)];
    let simulated = world.simulate(open(5, operations)).await;
    let body = simulated.body.unwrap();
    assert_eq!((body.chain_id.clone(), body.nonce), (world.shared.genesis.chain.id.clone(), 1));
    let receipt = simulated.receipt.unwrap();
    assert_eq!((receipt.result(), receipt.fee, simulated.failure), (ExecutionResult::Ok, body.max_fee, None));
    assert_eq!(simulated.sender_balance_before, BALANCE);
    assert_eq!(simulated.sender_balance_after, BALANCE - 2500 - receipt.fee);
    assert_eq!(simulated.height, 0);
    assert!(world.admitted.try_recv().is_err() && world.shared.admission.is_empty());

    // Signed as it came back, it is admitted; and the next one is told the next nonce.
    let signed = world.sign(5, &body);
    let message = v1::SubmitTransactionRequest { transaction: Some(signed.clone()) };
    ok(world.api.submit_transaction(request(message))).await;
    assert_eq!(world.simulate(open(5, vec![transfer(address(6), 1)])).await.body.unwrap().nonce, 2);
    let held = world.not_simulated(|body| body.nonce = 1).await;
    assert!(held.starts_with("AlreadyExists NONCE_IN_USE nonce=1 tx_id="), "{held}");
    world.block(&[signed]);
    let after = world.shared.latest.borrow().ledger.state().account(&address(5)).unwrap();
    assert_eq!(after.balance.0, simulated.sender_balance_after);
}

#[tokio::test]
async fn what_would_fail_in_a_block_gets_the_receipt_of_a_failure_and_the_reason() {
    let world = World::new();
    let simulated = world.simulate(open(5, vec![transfer(address(6), 1), transfer(address(99), 1)])).await;
    let receipt = simulated.receipt.unwrap();
    assert_eq!((receipt.result(), receipt.failed_operation), (ExecutionResult::Failed, 1));
    assert_eq!(receipt.failure_reason, "RECIPIENT_NOT_FOUND");
    assert_eq!(simulated.sender_balance_after, BALANCE - receipt.fee);
    let failure = simulated.failure.unwrap();
    assert_eq!((failure.code, failure.reason.as_str()), (9, "RECIPIENT_NOT_FOUND"));
    assert_eq!(failure.metadata["address"], address(99).to_string());
    assert!(!failure.message.is_empty());
}

#[tokio::test]
async fn what_a_block_would_discard_is_an_error() {
    let world = World::new();
    let missing = refused(world.api.simulate_transaction(request(v1::SimulateTransactionRequest { body: None }))).await;
    assert_eq!(missing, "InvalidArgument FIELD_INVALID bad=body");
    let chain = &world.shared.genesis.chain.id;
    let other = world.not_simulated(|body| body.chain_id = "other-01020304".into()).await;
    assert_eq!(other, format!("FailedPrecondition CHAIN_ID_MISMATCH expected={chain} got=other-01020304"));
    let sender = world.not_simulated(|body| body.sender = "tally1x".into()).await;
    assert_eq!(sender, "InvalidArgument ADDRESS_INVALID field=body.sender value=tally1x bad=body.sender");
    let memo = world.not_simulated(|body| body.memo = "x".repeat(257)).await;
    assert_eq!(memo, "InvalidArgument FIELD_INVALID bad=body.memo");
    let unknown = world.not_simulated(|body| body.sender = address(99).to_string()).await;
    assert_eq!(unknown, format!("NotFound ACCOUNT_NOT_FOUND address={}", address(99)));
    let nonce = world.not_simulated(|body| body.nonce = 1000).await;
    assert!(nonce.starts_with("FailedPrecondition NONCE_TOO_HIGH"), "{nonce}");
    let fee = world.not_simulated(|body| body.max_fee = 1).await;
    assert!(fee.starts_with("FailedPrecondition FEE_TOO_LOW"), "{fee}");
    let zero = world.not_simulated(|body| body.operations = vec![transfer(address(6), 0)]).await;
    assert_eq!(zero, "InvalidArgument AMOUNT_ZERO operation=0");
    let large = world.not_simulated(|body| body.memo = "x".repeat(9000)).await;
    assert!(large.starts_with("InvalidArgument BODY_TOO_LARGE"), "{large}");
}
