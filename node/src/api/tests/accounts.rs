//! AccountService, ChainService and NodeService.

use std::time::{Duration, Instant};

use tally_proto::v1::{
    self, SyncState, account_service_server::AccountService as _, chain_service_server::ChainService as _,
    node_service_server::NodeService as _, transaction_service_server::TransactionService as _,
};
use tally_types::{Height, UnixMillis};

use super::world::{ACCOUNTS, BALANCE, Start, World, address, create, ok, refused, request, secret};
use crate::api::{
    Limits,
    limits::{GENESIS_CHUNK_BYTES, STALLED_IDLE_INTERVALS},
    local_time,
    render::timestamp,
    snapshots::Snapshots,
};

fn account(address: impl ToString, min_height: u64) -> v1::GetAccountRequest {
    v1::GetAccountRequest { address: address.to_string(), min_height }
}

#[tokio::test]
async fn an_account_is_told_with_the_nonce_to_use_next() {
    let mut world = World::new();
    world.block(&[world.sign(5, &world.body_of(5, 3, vec![create(address(9), 500)]))]);
    let got = ok(world.api.get_account(request(account(address(9), 0)))).await;
    assert_eq!(got.height, 1);
    let expected = v1::Account {
        address: address(9).to_string(),
        balance: 500,
        next_nonce: 1,
        pending_nonce: 1,
        creator: address(5).to_string(),
        created_height: 1,
    };
    assert_eq!(got.account.unwrap(), expected);

    let pending = async |world: &World, nonce| {
        let message = v1::SubmitTransactionRequest { transaction: Some(world.transaction(5, nonce)) };
        ok(world.api.submit_transaction(request(message))).await;
        ok(world.api.get_account(request(account(address(5), 0)))).await.account.unwrap()
    };
    // A gap below what is used does not lower it.
    let got = pending(&world, 2).await;
    assert_eq!((got.next_nonce, got.pending_nonce, got.creator.as_str()), (4, 4, ""));
    assert_eq!(got.balance, BALANCE - 510);
    assert_eq!(pending(&world, 9).await.pending_nonce, 10);
}

#[tokio::test]
async fn an_account_that_does_not_exist_is_not_found() {
    let world = World::new();
    let nobody = refused(world.api.get_account(request(account(address(9), 0)))).await;
    assert_eq!(nobody, format!("NotFound ACCOUNT_NOT_FOUND address={} height=0", address(9)));
    let bad = refused(world.api.get_account(request(account("tally1", 0)))).await;
    assert_eq!(bad, "InvalidArgument ADDRESS_INVALID field=address value=tally1 bad=address");
}

#[tokio::test]
async fn min_height_is_waited_for_but_not_for_long() {
    let mut world =
        World::with(Limits { min_height_wait: Duration::from_millis(20), waits_max: 1, ..Limits::default() });
    let behind = refused(world.api.get_account(request(account(address(5), 2)))).await;
    assert_eq!(behind, "FailedPrecondition NODE_BEHIND height=0 min_height=2");
    let held = world.api.wait_permit().unwrap();
    let full = refused(world.api.get_account(request(account(address(5), 2)))).await;
    assert_eq!(full, "ResourceExhausted TOO_MANY_STREAMS maximum=1 retry");
    drop(held);

    let mut patient = World::with(Limits { min_height_wait: Duration::from_secs(60), ..Limits::default() });
    let api = patient.api.clone();
    let waiting = tokio::spawn(async move { ok(api.get_account(request(account(address(5), 2)))).await.height });
    super::world::until(async || patient.api.0.waits.available_permits() < Limits::default().waits_max).await;
    patient.blocks(2);
    assert_eq!(waiting.await.unwrap(), 2);
    world.blocks(2);
    assert_eq!(ok(world.api.get_account(request(account(address(5), 2)))).await.height, 2);
}

#[tokio::test]
async fn every_page_of_accounts_reads_one_height() {
    for page_size in 1..=i32::from(ACCOUNTS) + 1 {
        let mut world = World::new();
        world.blocks(1);
        let mut message = v1::ListAccountsRequest { page_size, page_token: String::new() };
        let mut listed = Vec::new();
        let mut nonce = 0;
        loop {
            let page = ok(world.api.list_accounts(request(message.clone()))).await;
            assert_eq!(page.height, 1);
            assert!(page.accounts.len() <= usize::try_from(page_size).unwrap());
            listed.extend(page.accounts);
            // What happens meanwhile is not seen.
            nonce += 1;
            world.block(&[world.transaction(5, nonce)]);
            if page.next_page_token.is_empty() {
                break;
            }
            message.page_token = page.next_page_token;
        }
        let mut expected: Vec<_> = (1..=ACCOUNTS).map(address).collect();
        expected.sort();
        let expected: Vec<_> = expected.iter().map(|address| (address.to_string(), BALANCE)).collect();
        let listed: Vec<_> = listed.into_iter().map(|account| (account.address, account.balance)).collect();
        assert_eq!(listed, expected, "pages of {page_size}");
    }
}

#[tokio::test]
async fn a_listing_whose_state_is_gone_has_to_start_again() {
    let mut world = World::with(Limits { snapshot_kept: Duration::ZERO, ..Limits::default() });
    world.blocks(1);
    let first = v1::ListAccountsRequest { page_size: 2, page_token: String::new() };
    let page_token = ok(world.api.list_accounts(request(first.clone()))).await.next_page_token;
    let next = v1::ListAccountsRequest { page_token: page_token.clone(), ..first };
    let old = "InvalidArgument PAGE_TOKEN_INVALID";
    super::world::until(async || world.api.list_accounts(request(next.clone())).await.is_err()).await;
    assert_eq!(refused(world.api.list_accounts(request(next))).await, old);
    let forged = v1::ListAccountsRequest { page_size: 2, page_token: "00".repeat(48) };
    assert_eq!(refused(world.api.list_accounts(request(forged))).await, old);
    let other = v1::ListPeersRequest { page_size: 2, page_token };
    assert_eq!(refused(world.api.list_peers(request(other))).await, old);
    let negative = v1::ListAccountsRequest { page_size: -5, page_token: String::new() };
    let negative = refused(world.api.list_accounts(request(negative))).await;
    assert_eq!(negative, "InvalidArgument FIELD_INVALID bad=page_size");
}

#[test]
fn states_are_kept_for_their_time_however_many_listings_start() {
    let mut world = World::new();
    let snapshots = Snapshots::new(16, Duration::from_secs(60));
    let begin = Instant::now();
    let at = |second: u64| begin + Duration::from_secs(second);
    world.blocks(1);
    let latest = |world: &World| world.shared.latest.borrow().clone();
    assert_eq!(snapshots.start(&latest(&world), at(0)).height, Height(1));
    // A listing a second, each second a block.
    for second in 1..=60 {
        world.blocks(1);
        let started = snapshots.start(&latest(&world), at(second)).height.0;
        assert!(started + 4 > second + 1, "second {second} reads height {started}");
        assert!(snapshots.len() <= 16);
    }
    assert_eq!(snapshots.at(Height(1), at(60)).unwrap().height, Height(1));
    assert!(snapshots.at(Height(2), at(60)).is_none());
    // Use prolongs it; disuse ends it.
    assert!(snapshots.at(Height(1), at(120)).is_some());
    assert!(snapshots.at(Height(1), at(181)).is_none());
    snapshots.expire(at(121));
    assert_eq!(snapshots.len(), 1);
    snapshots.expire(at(181));
    assert_eq!(snapshots.len(), 0);
}

#[tokio::test]
async fn chain_info_is_what_genesis_says_and_how_far_the_chain_is() {
    let mut world = World::new();
    let info = ok(world.api.get_chain_info(request(v1::GetChainInfoRequest {}))).await;
    assert_eq!((info.latest_height, info.earliest_height), (0, 1));
    world.blocks(3);
    let info = ok(world.api.get_chain_info(request(v1::GetChainInfoRequest {}))).await;
    let genesis = &world.shared.genesis;
    assert_eq!((info.chain_id, info.genesis_hash), (genesis.chain.id.clone(), genesis.chain.genesis_hash.to_string()));
    assert_eq!((info.latest_height, info.earliest_height), (3, 1));
    assert_eq!(info.latest_block_time, Some(timestamp(world.time())));
    let params = info.params.unwrap();
    assert_eq!((params.symbol.as_str(), params.decimals, params.base_fee), ("TALLY", 9, 10));
    assert_eq!((params.total_supply, params.min_opening_balance), (60_010_000, 100));
    assert_eq!((params.epoch_blocks, params.min_validator_stake), (16, 1000));
    assert_eq!(params.max_expiry.unwrap(), prost_types::Duration { seconds: 600, nanos: 0 });
    assert_eq!(params.idle_interval.unwrap(), prost_types::Duration { seconds: 10, nanos: 0 });
    let pruned = World::start(Start { pruned: 4, ..Start::default() });
    let mut pruned = pruned;
    pruned.blocks(1);
    let info = ok(pruned.api.get_chain_info(request(v1::GetChainInfoRequest {}))).await;
    assert_eq!((info.latest_height, info.earliest_height), (5, 5));
}

#[tokio::test]
async fn genesis_comes_in_chunks() {
    for filler in [0, 2 * GENESIS_CHUNK_BYTES] {
        let world = World::start(Start { genesis_filler: filler, ..Start::default() });
        let mut bytes = Vec::new();
        let first = ok(world.api.get_genesis(request(v1::GetGenesisRequest { chunk: 0 }))).await;
        for chunk in 0..first.chunk_count {
            let got = ok(world.api.get_genesis(request(v1::GetGenesisRequest { chunk }))).await;
            assert!(got.data.len() <= 1024 * 1024);
            bytes.extend(got.data);
        }
        assert_eq!(first.chunk_count, if filler == 0 { 1 } else { 3 });
        assert_eq!(bytes, world.shared.genesis.bytes);
        assert_eq!(tally_types::Hash::of(&bytes).to_string(), first.genesis_hash);
        let beyond = refused(world.api.get_genesis(request(v1::GetGenesisRequest { chunk: first.chunk_count }))).await;
        assert_eq!(beyond, "InvalidArgument FIELD_INVALID bad=chunk");
    }
}

#[tokio::test]
async fn node_status_is_one_screen_of_facts() {
    let mut world = World::new();
    world.blocks(3);
    world.stand(|standing| {
        standing.status.final_height = Height(4);
        standing.status.highest_seen = Height(5);
        standing.observer_reason = "why".into();
    });
    let message = v1::SubmitTransactionRequest { transaction: Some(world.transaction(5, 1)) };
    refused(world.api.submit_transaction(request(message))).await;
    let status = ok(world.api.get_node_status(request(v1::GetNodeStatusRequest {}))).await;
    assert_eq!(status.version, "0.1.0");
    assert_eq!(status.node_id, secret(101).public_key().to_string());
    assert_eq!(status.chain_id, world.shared.genesis.chain.id);
    assert_eq!((status.latest_height, status.executed_height, status.highest_seen_height), (4, 3, 5));
    assert_eq!((status.current_view, status.current_epoch, status.peer_count), (1, 0, 2));
    // It observes, so it is no voter.
    assert_eq!((status.validator.as_str(), status.mempool_size), ("", 0));
    assert_eq!((status.observer_reason.as_str(), status.rejected_messages["stale"]), ("why", 3));
    assert_eq!(status.latest_block_time, Some(timestamp(world.time())));
    assert!(status.start_time.unwrap().seconds > 1_700_000_000);
    world.stand(|standing| standing.observer_reason = String::new());
    let status = ok(world.api.get_node_status(request(v1::GetNodeStatusRequest {}))).await;
    assert_eq!(status.validator, address(1).to_string());
}

#[tokio::test]
async fn a_node_is_synced_catching_up_or_stalled() {
    let mut world = World::new();
    let state =
        async |world: &World| ok(world.api.get_node_status(request(v1::GetNodeStatusRequest {}))).await.sync_state();
    world.blocks(3);
    assert_eq!(state(&world).await, SyncState::Synced);
    world.stand(|standing| standing.status.highest_seen = Height(5));
    assert_eq!(state(&world).await, SyncState::Synced);
    world.stand(|standing| standing.status.highest_seen = Height(6));
    assert_eq!(state(&world).await, SyncState::CatchingUp);
    world.blocks(1);
    assert_eq!(state(&world).await, SyncState::Synced);
    // Ten idle intervals are 100 s; the chain is a minute old.
    assert_eq!(world.shared.genesis.params.idle_interval_ms * STALLED_IDLE_INTERVALS, 100_000);
    let old = World::new();
    assert_eq!(state(&old).await, SyncState::Synced);
    let now = local_time();
    old.stand(|standing| standing.status.final_time = now);
    assert_eq!(state(&old).await, SyncState::Synced);
    let silent = World::start(Start { silence_ms: 101_000, ..Start::default() });
    assert_eq!(state(&silent).await, SyncState::Stalled);
    silent.stand(|standing| standing.status.final_time = UnixMillis(now.0 - 50_000));
    assert_eq!(state(&silent).await, SyncState::Synced);
}

#[tokio::test]
async fn peers_come_in_pages_by_address() {
    let world = World::new();
    let mut expected: Vec<_> = (2..=4u8).map(|seed| (address(seed), seed)).collect();
    expected.sort();
    for page_size in 1..=4 {
        let mut message = v1::ListPeersRequest { page_size, page_token: String::new() };
        let mut listed = Vec::new();
        loop {
            let page = ok(world.api.list_peers(request(message.clone()))).await;
            assert!(page.peers.len() <= usize::try_from(page_size).unwrap());
            listed.extend(page.peers);
            message.page_token = page.next_page_token;
            if message.page_token.is_empty() {
                break;
            }
        }
        let seeds: Vec<_> = listed.iter().map(|peer| peer.latest_height).collect();
        assert_eq!(seeds, expected.iter().map(|(_, seed)| u64::from(*seed)).collect::<Vec<_>>());
        let third = listed.iter().find(|peer| peer.latest_height == 3).unwrap();
        assert_eq!((third.address.as_str(), third.connected), ("10.0.0.3:7000", true));
        assert_eq!(third.validator, address(3).to_string());
        assert_eq!(third.node_id, secret(103).public_key().to_string());
    }
    let negative = v1::ListPeersRequest { page_size: -1, page_token: String::new() };
    let negative = refused(world.api.list_peers(request(negative))).await;
    assert_eq!(negative, "InvalidArgument FIELD_INVALID bad=page_size");
}
