//! Wait, get and list.

use std::{sync::Arc, time::Duration};

use tally_proto::v1::{self, ExecutionResult, TransactionState, transaction_service_server::TransactionService as _};
use tally_types::Hash;

use super::world::{ACCOUNTS, BASE_FEE, World, address, create, ok, refused, request, transfer, until};
use crate::api::{Limits, limits::BLOCKS_SCANNED_MAX, pages::Query, render::timestamp};

/// Blocks 1 to 6 with 3, 0, 1, 5, 0 and 2 transactions of account 5, memo "height/index".
fn a_chain() -> World {
    let mut world = World::new();
    let mut nonce = 0;
    for (height, count) in [(1, 3), (2, 0), (3, 1), (4, 5), (5, 0), (6, 2)] {
        let transactions: Vec<_> = (0..count)
            .map(|index| {
                nonce += 1;
                let mut body = world.body(5, nonce);
                body.memo = format!("{height}/{index}");
                if index == 1 {
                    body.operations = vec![transfer(address(2), 7)];
                }
                world.sign(5, &body)
            })
            .collect();
        world.block(&transactions);
    }
    world
}

const ALL: [&str; 11] = ["1/0", "1/1", "1/2", "3/0", "4/0", "4/1", "4/2", "4/3", "4/4", "6/0", "6/1"];

impl World {
    async fn get(&self, id: &str) -> v1::GetTransactionResponse {
        let message = v1::GetTransactionRequest { tx_id: id.into(), view: 0 };
        ok(self.api.get_transaction(request(message))).await
    }

    async fn page(&self, message: v1::ListTransactionsRequest) -> (Vec<String>, String) {
        let page = ok(self.api.list_transactions(request(message))).await;
        let memo = |record: &v1::TransactionRecord| record.body.as_ref().unwrap().memo.clone();
        (page.transactions.iter().map(memo).collect(), page.next_page_token)
    }

    /// Every page of a list, put together.
    async fn all(&self, mut message: v1::ListTransactionsRequest) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let (page, next) = self.page(message.clone()).await;
            assert!(page.len() <= usize::try_from(message.page_size).unwrap());
            all.extend(page);
            if next.is_empty() {
                return all;
            }
            message.page_token = next;
        }
    }
}

fn wait(id: &str, timeout_ms: u64) -> v1::WaitTransactionRequest {
    let timeout = Some(crate::api::render::duration(timeout_ms));
    v1::WaitTransactionRequest { tx_id: id.into(), timeout }
}

#[tokio::test]
async fn a_final_transaction_is_told_with_its_receipt() {
    let mut world = World::new();
    world.blocks(1);
    let good = world.sign(5, &world.body_of(5, 1, vec![create(address(9), 500)]));
    let bad = world.sign(6, &world.body_of(6, 1, vec![transfer(address(2), 1), create(address(9), 500)]));
    world.block(&[good.clone(), bad.clone()]);
    world.blocks(1);

    let got = world.get(&world.id(&good)).await;
    assert_eq!((got.height, got.block_time), (3, Some(timestamp(world.time()))));
    let record = got.transaction.unwrap();
    assert_eq!((record.state(), record.tx_id.clone()), (TransactionState::Finalized, world.id(&good)));
    assert_eq!(record.transaction, None);
    assert_eq!(record.body.unwrap(), prost::Message::decode(&good.body[..]).unwrap());
    let receipt = record.receipt.unwrap();
    assert_eq!((receipt.result(), receipt.fee, receipt.index), (ExecutionResult::Ok, BASE_FEE, 0));
    assert_eq!((receipt.height, receipt.block_hash.clone()), (2, world.hashes[2].to_string()));
    let block_time = world.time().0 - 10;
    assert_eq!(receipt.block_time, Some(timestamp(tally_types::UnixMillis(block_time))));
    assert_eq!(receipt.failure_reason, "");

    let message = v1::GetTransactionRequest { tx_id: world.id(&bad), view: v1::TransactionView::Full.into() };
    let record = ok(world.api.get_transaction(request(message))).await.transaction.unwrap();
    assert_eq!(record.transaction, Some(bad));
    let receipt = record.receipt.unwrap();
    assert_eq!((receipt.result(), receipt.index), (ExecutionResult::Failed, 1));
    assert_eq!((receipt.failure_reason.as_str(), receipt.failed_operation), ("ACCOUNT_ALREADY_EXISTS", 1));
    assert_eq!(receipt.fee, 2 * BASE_FEE);
}

#[tokio::test]
async fn pending_expired_and_unknown_transactions_are_told_apart() {
    let mut world = World::new();
    world.blocks(2);
    let mut body = world.body(5, 1);
    body.expire_time = Some(timestamp(crate::api::local_time().plus(30_000)));
    let transaction = world.sign(5, &body);
    let id = world.id(&transaction);
    let unknown = refused(world.api.get_transaction(request(v1::GetTransactionRequest { tx_id: id.clone(), view: 0 })));
    let expected = format!("NotFound TRANSACTION_NOT_FOUND block_time={} height=2 tx_id={id}", world.time());
    assert_eq!(unknown.await, expected);

    let message = v1::SubmitTransactionRequest { transaction: Some(transaction.clone()) };
    ok(world.api.submit_transaction(request(message))).await;
    let record = world.get(&id).await.transaction.unwrap();
    assert_eq!((record.state(), record.body.unwrap()), (TransactionState::Pending, body));
    let waited = ok(world.api.wait_transaction(request(wait(&id, 0)))).await;
    assert_eq!((waited.transaction.unwrap().state(), waited.height), (TransactionState::Pending, 2));

    let after = crate::api::local_time().plus(31_000);
    world.shared.admission.settle(&[], &[], after);
    let record = world.get(&id).await.transaction.unwrap();
    assert_eq!((record.state(), record.tx_id.as_str(), record.body), (TransactionState::Expired, id.as_str(), None));
    let waited = ok(world.api.wait_transaction(request(wait(&id, 60_000)))).await;
    assert_eq!(waited.transaction.unwrap().state(), TransactionState::Expired);
}

#[tokio::test]
async fn an_answer_never_speaks_of_less_than_its_own_block() {
    let mut world = World::new();
    world.blocks(1);
    let before = world.shared.latest.borrow().clone();
    let transaction = world.transaction(5, 1);
    world.block(std::slice::from_ref(&transaction));
    let time = world.time();
    world.look_back(before);
    let got = world.get(&world.id(&transaction)).await;
    assert_eq!((got.height, got.block_time), (2, Some(timestamp(time))));
    assert_eq!(got.transaction.unwrap().receipt.unwrap().height, 2);
}

#[tokio::test]
async fn a_wait_ends_when_the_transaction_is_final() {
    let mut world = World::new();
    let transaction = world.transaction(5, 1);
    let id = world.id(&transaction);
    // Nobody submitted it here: it may come by way of another node.
    let api = world.api.clone();
    let waiting = tokio::spawn({
        let message = wait(&id, 60_000);
        async move { ok(api.wait_transaction(request(message))).await }
    });
    until(async || world.api.0.waits.available_permits() < Limits::default().waits_max).await;
    world.blocks(3);
    world.block(std::slice::from_ref(&transaction));
    let waited = waiting.await.unwrap();
    let record = waited.transaction.unwrap();
    assert_eq!((record.state(), record.tx_id.clone()), (TransactionState::Finalized, id.clone()));
    assert_eq!((waited.height, waited.block_time), (4, record.receipt.unwrap().block_time));
    // Once it is final, nobody waits.
    let again = ok(world.api.wait_transaction(request(wait(&id, 60_000)))).await;
    assert_eq!(again.transaction.unwrap().state(), TransactionState::Finalized);
}

#[tokio::test]
async fn a_wait_ends_with_the_timeout_or_the_node() {
    let limits = Limits { wait_max: Duration::from_millis(20), ..Limits::default() };
    let world = World::with(limits);
    let id = Hash::of(b"nothing").to_string();
    // Above the maximum: coerced.
    let waited = ok(world.api.wait_transaction(request(wait(&id, 3_600_000)))).await;
    let record = waited.transaction.unwrap();
    assert_eq!((record.state(), record.tx_id.as_str(), waited.height), (TransactionState::Unknown, id.as_str(), 0));
    assert_eq!(waited.block_time, Some(timestamp(world.time())));

    let world = World::with(Limits { wait_default: Duration::from_millis(20), ..Limits::default() });
    let message = v1::WaitTransactionRequest { tx_id: id.clone(), timeout: None };
    ok(world.api.wait_transaction(request(message))).await;
    for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, i32::MIN), (i64::MIN, i32::MAX)] {
        let timeout = Some(prost_types::Duration { seconds, nanos });
        let negative = v1::WaitTransactionRequest { tx_id: id.clone(), timeout };
        let negative = refused(world.api.wait_transaction(request(negative))).await;
        assert_eq!(negative, "InvalidArgument FIELD_INVALID bad=timeout");
    }
    let longest = v1::WaitTransactionRequest {
        tx_id: "0".repeat(63),
        timeout: Some(prost_types::Duration { seconds: i64::MAX, nanos: i32::MAX }),
    };
    let longest = refused(world.api.wait_transaction(request(longest))).await;
    assert_eq!(longest, "InvalidArgument FIELD_INVALID bad=tx_id");
    world.closing.send_replace(true);
    let waited = ok(world.api.wait_transaction(request(wait(&id, 60_000)))).await;
    assert_eq!(waited.transaction.unwrap().state(), TransactionState::Unknown);
}

#[tokio::test]
async fn waits_are_bounded_in_all_and_per_transaction() {
    let world = Arc::new(World::with(Limits { waits_max: 65, ..Limits::default() }));
    let id = Hash::of(b"nothing").to_string();
    let spawn = |id: String| {
        let api = world.api.clone();
        tokio::spawn(async move { api.wait_transaction(request(wait(&id, 60_000))).await.map(|_| ()) })
    };
    let tasks: Vec<_> = (0..64).map(|_| spawn(id.clone())).collect();
    until(async || world.api.0.waits.available_permits() == 1).await;
    let one_more = refused(world.api.wait_transaction(request(wait(&id, 0)))).await;
    assert_eq!(one_more, "ResourceExhausted TOO_MANY_STREAMS maximum=64 retry");
    let other = spawn(Hash::of(b"other").to_string());
    until(async || world.api.0.waits.available_permits() == 0).await;
    let full = refused(world.api.wait_transaction(request(wait(&Hash::of(b"third").to_string(), 0)))).await;
    assert_eq!(full, "ResourceExhausted TOO_MANY_STREAMS maximum=65 retry");
    // All of them end with the server.
    world.closing.send_replace(true);
    for task in tasks.into_iter().chain([other]) {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_id_that_is_none_is_refused() {
    let world = World::new();
    let upper = Hash::of(b"x").to_string().to_uppercase();
    for tx_id in ["", "abc", &upper] {
        let get = v1::GetTransactionRequest { tx_id: tx_id.to_owned(), view: 0 };
        assert_eq!(refused(world.api.get_transaction(request(get))).await, "InvalidArgument FIELD_INVALID bad=tx_id");
        let wait = refused(world.api.wait_transaction(request(wait(tx_id, 0)))).await;
        assert_eq!(wait, "InvalidArgument FIELD_INVALID bad=tx_id");
    }
    let view = v1::GetTransactionRequest { tx_id: Hash::of(b"x").to_string(), view: 9 };
    assert_eq!(refused(world.api.get_transaction(request(view))).await, "InvalidArgument FIELD_INVALID bad=view");
}

#[tokio::test]
async fn pages_of_every_size_make_the_same_list() {
    let world = a_chain();
    let newest: Vec<_> = ALL.iter().rev().copied().collect();
    let of = |account: u8| if account == 0 { String::new() } else { address(account).to_string() };
    for page_size in 1..=12 {
        for (order, expected) in [(v1::Order::OldestFirst, ALL.to_vec()), (v1::Order::Unspecified, newest.clone())] {
            for (account, keep) in [(0, None), (5, None), (6, Some(false)), (2, Some(true))] {
                let expected: Vec<_> = expected
                    .iter()
                    .filter(|memo| keep.is_none_or(|second| memo.ends_with("/1") == second))
                    .copied()
                    .collect();
                let account = of(account);
                let message =
                    v1::ListTransactionsRequest { page_size, account, order: order.into(), ..Default::default() };
                assert_eq!(world.all(message.clone()).await, expected, "{message:?}");
                let expected: Vec<_> = expected.into_iter().filter(|memo| ("2"..="4/9").contains(memo)).collect();
                let message = v1::ListTransactionsRequest { min_height: 2, max_height: 4, ..message };
                assert_eq!(world.all(message.clone()).await, expected, "{message:?}");
            }
        }
    }
    let (page, next) = world.page(v1::ListTransactionsRequest::default()).await;
    assert_eq!((page.len(), next.as_str()), (11, ""));
    let nobody = v1::ListTransactionsRequest { account: of(ACCOUNTS - 2), ..Default::default() };
    assert_eq!(world.page(nobody).await, (vec![], String::new()));
    let none = v1::ListTransactionsRequest { min_height: 5, max_height: 4, ..Default::default() };
    assert_eq!(world.page(none).await, (vec![], String::new()));
    let above = v1::ListTransactionsRequest { min_height: 7, order: 2, ..Default::default() };
    assert_eq!(world.page(above).await, (vec![], String::new()));
}

#[tokio::test]
async fn a_list_from_the_newest_back_is_not_moved_by_new_blocks() {
    let mut world = a_chain();
    let first = v1::ListTransactionsRequest { page_size: 4, ..Default::default() };
    let (page, next) = world.page(first.clone()).await;
    assert_eq!(page, ["6/1", "6/0", "4/4", "4/3"]);
    world.block(&[world.transaction(5, 12)]);
    let (page, _) = world.page(v1::ListTransactionsRequest { page_token: next, ..first }).await;
    assert_eq!(page, ["4/2", "4/1", "4/0", "3/0"]);
}

#[tokio::test]
async fn a_page_token_works_for_its_query_alone() {
    let world = a_chain();
    let first = v1::ListTransactionsRequest { page_size: 4, ..Default::default() };
    let (_, page_token) = world.page(first.clone()).await;
    let good = v1::ListTransactionsRequest { page_token: page_token.clone(), page_size: 2, ..first.clone() };
    assert_eq!(world.page(good.clone()).await.0, ["4/2", "4/1"]);
    for change in [
        |message: &mut v1::ListTransactionsRequest| message.account = address(5).to_string(),
        |message: &mut v1::ListTransactionsRequest| message.min_height = 1,
        |message: &mut v1::ListTransactionsRequest| message.max_height = 6,
        |message: &mut v1::ListTransactionsRequest| message.order = v1::Order::OldestFirst.into(),
        |message: &mut v1::ListTransactionsRequest| message.view = v1::TransactionView::Full.into(),
        |message: &mut v1::ListTransactionsRequest| message.page_token.push('0'),
        |message: &mut v1::ListTransactionsRequest| message.page_token.replace_range(..1, "f"),
    ] {
        let mut message = good.clone();
        change(&mut message);
        let refused = refused(world.api.list_transactions(request(message))).await;
        assert_eq!(refused, "InvalidArgument PAGE_TOKEN_INVALID");
    }
    for (message, field) in [
        (v1::ListTransactionsRequest { page_size: -1, ..first.clone() }, "page_size"),
        (v1::ListTransactionsRequest { order: 3, ..first.clone() }, "order"),
        (v1::ListTransactionsRequest { view: -1, ..first.clone() }, "view"),
    ] {
        let refused = refused(world.api.list_transactions(request(message))).await;
        assert_eq!(refused, format!("InvalidArgument FIELD_INVALID bad={field}"));
    }
    let account = v1::ListTransactionsRequest { account: "me".into(), ..first };
    let refused = refused(world.api.list_transactions(request(account))).await;
    assert_eq!(refused, "InvalidArgument ADDRESS_INVALID field=account value=me bad=account");
}

#[tokio::test]
async fn pages_are_bounded_in_bytes() {
    let mut world = World::new();
    for height in 0..4 {
        let large = |nonce: u64| {
            let mut body = world.body_of(5, nonce, vec![transfer(address(6), 1); 64]);
            body.memo = format!("{nonce}");
            world.sign(5, &body)
        };
        let transactions: Vec<_> = (1..=50).map(|nonce| large(height * 50 + nonce)).collect();
        world.block(&transactions);
    }
    for (account, order) in [("", 1), ("", 2), (address(5).to_string().as_str(), 1)] {
        let mut message = v1::ListTransactionsRequest {
            page_size: 1000,
            account: account.into(),
            order,
            view: v1::TransactionView::Full.into(),
            ..Default::default()
        };
        let mut pages = Vec::new();
        loop {
            let page = ok(world.api.list_transactions(request(message.clone()))).await;
            let bytes = prost::Message::encoded_len(&page);
            assert!(bytes <= crate::api::limits::PAGE_BYTES_MAX, "{bytes}");
            assert!(bytes > 900_000 || page.next_page_token.is_empty(), "{bytes}");
            pages.extend(page.transactions.iter().map(|record| record.receipt.as_ref().unwrap().height));
            if page.next_page_token.is_empty() {
                break;
            }
            message.page_token = page.next_page_token;
        }
        assert_eq!(pages.len(), 200);
        assert_eq!(pages.is_sorted(), order == 2);
    }
}

#[tokio::test]
async fn a_page_looks_at_a_bounded_number_of_blocks() {
    let mut world = World::new();
    world.block(&[world.transaction(5, 1)]);
    world.blocks(BLOCKS_SCANNED_MAX);
    world.block(&[world.transaction(5, 2)]);
    for order in [1, 2] {
        let message = v1::ListTransactionsRequest { order, page_size: 2, ..Default::default() };
        let (page, page_token) = world.page(message.clone()).await;
        assert_eq!(page.len(), 1);
        let (page, next) = world.page(v1::ListTransactionsRequest { page_token, ..message }).await;
        assert_eq!((page.len(), next.as_str()), (1, ""));
    }
}

#[tokio::test]
async fn a_forged_page_token_reads_from_its_place_and_no_longer_than_any_other() {
    let world = a_chain();
    for order in [1, 2] {
        let message = v1::ListTransactionsRequest { order, ..Default::default() };
        let query = Query::new("ListTransactions", &world.shared.genesis.chain.genesis_hash, &message);
        let forged = |height: u64, index: u32| v1::ListTransactionsRequest {
            page_token: query.token(&[&height.to_be_bytes()[..], &index.to_be_bytes()].concat()),
            ..message.clone()
        };
        let (from_four, beyond) = match order {
            1 => (ALL[..9].iter().rev().copied().collect(), ALL.iter().rev().copied().collect()),
            _ => (ALL[9..].to_vec(), vec![]),
        };
        // Four thousand million places below this one nothing is looked up one by one.
        assert_eq!(world.page(forged(4, u32::MAX - 1)).await, (owned(&from_four), String::new()));
        assert_eq!(world.page(forged(4, u32::MAX)).await, (owned(&from_four), String::new()));
        assert_eq!(world.page(forged(u64::MAX, u32::MAX)).await, (owned(&beyond), String::new()));
        let before: Vec<&str> = if order == 1 { vec![] } else { ALL.to_vec() };
        assert_eq!(world.page(forged(0, 0)).await, (owned(&before), String::new()));
    }
}

fn owned(memos: &[&str]) -> Vec<String> {
    memos.iter().map(|memo| (*memo).to_owned()).collect()
}
