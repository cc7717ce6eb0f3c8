//! ValidatorService.

use tally_consensus::{Evidence, EvidenceKind};
use tally_proto::v1::{self, ValidatorState, validator_service_server::ValidatorService as _};
use tally_types::{Epoch, Hash, Height, Signature, SignedBytes, View};

use super::world::{EPOCH_BLOCKS, World, address, ok, refused, request, secret};

fn listing(page_size: i32, state: ValidatorState) -> v1::ListValidatorsRequest {
    v1::ListValidatorsRequest { page_size, page_token: String::new(), state: state.into() }
}

#[tokio::test]
async fn validators_come_by_power_highest_first() {
    let world = World::new();
    for page_size in 0..=5 {
        let mut message = listing(page_size, ValidatorState::Active);
        let mut listed = Vec::new();
        loop {
            let page = ok(world.api.list_validators(request(message.clone()))).await;
            assert_eq!((page.total_voting_power, page.quorum_voting_power, page.epoch), (10_000, 6667, 0));
            listed.extend(page.validators);
            message.page_token = page.next_page_token;
            if message.page_token.is_empty() {
                break;
            }
        }
        let expected: Vec<_> = [4u8, 3, 2, 1].map(|seed| (address(seed).to_string(), u64::from(seed) * 1000)).to_vec();
        assert_eq!(listed.iter().map(|v| (v.address.clone(), v.voting_power)).collect::<Vec<_>>(), expected);
        assert_eq!(listed[1].moniker, "validator 3");
        assert_eq!(listed[1].consensus_public_key, secret(103).public_key().to_string());
    }
    assert_eq!(ok(world.api.list_validators(request(listing(0, ValidatorState::Candidate)))).await.validators, []);
    let first = ok(world.api.list_validators(request(listing(2, ValidatorState::Unspecified)))).await;
    let other = v1::ListValidatorsRequest { page_token: first.next_page_token, ..listing(2, ValidatorState::Active) };
    assert_eq!(refused(world.api.list_validators(request(other))).await, "InvalidArgument PAGE_TOKEN_INVALID");
    let state = v1::ListValidatorsRequest { state: 3, ..listing(2, ValidatorState::Active) };
    assert_eq!(refused(world.api.list_validators(request(state))).await, "InvalidArgument FIELD_INVALID bad=state");
    let negative = refused(world.api.list_validators(request(listing(-1, ValidatorState::Active)))).await;
    assert_eq!(negative, "InvalidArgument FIELD_INVALID bad=page_size");
}

#[tokio::test]
async fn a_validator_is_found_by_its_operator_account() {
    let world = World::new();
    let get = |address: String| world.api.get_validator(request(v1::GetValidatorRequest { address }));
    let got = ok(get(address(2).to_string())).await.validator.unwrap();
    assert_eq!((got.voting_power, got.state(), got.moniker.as_str()), (2000, ValidatorState::Active, "validator 2"));
    let nobody = refused(get(address(6).to_string())).await;
    assert_eq!(nobody, format!("NotFound VALIDATOR_NOT_FOUND validator={}", address(6)));
    let bad = refused(get(String::new())).await;
    assert_eq!(bad, "InvalidArgument ADDRESS_INVALID field=address value= bad=address");
}

#[tokio::test]
async fn leaders_are_drawn_from_the_epoch_s_seed() {
    let mut world = World::new();
    let ask = |from_view, count| request(v1::GetLeaderScheduleRequest { from_view, count });
    let set = world.shared.genesis.validators.clone();
    let expected =
        |seed: Hash, epoch, view| set.get(set.leader(&seed, Epoch(epoch), View(view))).unwrap().address.to_string();
    let genesis = world.shared.genesis.chain.genesis_hash;
    let got = ok(world.api.get_leader_schedule(ask(0, 0))).await;
    assert_eq!((got.slots.len(), got.slots[0].view, got.epoch, got.epoch_end_height), (20, 1, 0, EPOCH_BLOCKS));
    assert!(got.slots.iter().all(|slot| slot.leader == expected(genesis, 0, slot.view)));
    let views: Vec<_> = got.slots.iter().map(|slot| slot.view).collect();
    assert_eq!(views, (1..=20).collect::<Vec<_>>());

    world.blocks(EPOCH_BLOCKS);
    world.stand(|standing| (standing.status.epoch, standing.status.view) = (Epoch(1), View(7)));
    let got = ok(world.api.get_leader_schedule(ask(0, 5000))).await;
    assert_eq!((got.slots.len(), got.slots[0].view, got.epoch_end_height), (1000, 7, 2 * EPOCH_BLOCKS));
    assert!(got.slots.iter().all(|slot| slot.leader == expected(genesis, 1, slot.view)));

    world.blocks(2 * EPOCH_BLOCKS);
    world.stand(|standing| standing.status.epoch = Epoch(3));
    let got = ok(world.api.get_leader_schedule(ask(u64::MAX - 1, 5))).await;
    let seed = world.hashes[2 * usize::try_from(EPOCH_BLOCKS).unwrap()];
    let slots: Vec<_> = got.slots.into_iter().map(|slot| (slot.view, slot.leader)).collect();
    let expected: Vec<_> = [u64::MAX - 1, u64::MAX].map(|view| (view, expected(seed, 3, view))).to_vec();
    assert_eq!(slots, expected);

    // Agreement may be epochs ahead of execution on a node that catches up.
    world.stand(|standing| (standing.status.epoch, standing.status.highest_seen) = (Epoch(9), Height(150)));
    let ahead = refused(world.api.get_leader_schedule(ask(0, 1))).await;
    assert_eq!(ahead, "Unavailable NODE_SYNCING height=48 highest_seen_height=150 retry");
}

#[tokio::test]
async fn evidence_comes_in_pages_as_it_was_recorded() {
    let world = World::new();
    let genesis = world.shared.genesis.chain.genesis_hash;
    let kinds = [
        EvidenceKind::DoubleProposal,
        EvidenceKind::DoublePrepare,
        EvidenceKind::DoubleCommit,
        EvidenceKind::DoubleViewChange,
        EvidenceKind::HiddenCommit,
        EvidenceKind::DoubleBatch,
    ];
    let signed = |byte| (SignedBytes::new("test", &genesis, &[&[byte]]), Signature([byte; 64]));
    for (number, kind) in (1..).zip(kinds) {
        let validator = address(2);
        let (first, second) = (signed(1), signed(2));
        world.shared.evidence.add(Evidence { validator, kind, epoch: Epoch(4), number, first, second });
    }
    for page_size in 1..=7 {
        let mut message = v1::ListEvidenceRequest { page_size, page_token: String::new() };
        let mut listed = Vec::new();
        loop {
            let page = ok(world.api.list_evidence(request(message.clone()))).await;
            assert!(page.evidence.len() <= usize::try_from(page_size).unwrap());
            listed.extend(page.evidence);
            message.page_token = page.next_page_token;
            if message.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(
            listed.iter().map(|one| (one.view, one.kind)).collect::<Vec<_>>(),
            (1..=6).map(|n| (n, n as i32)).collect::<Vec<_>>()
        );
        assert_eq!((listed[0].epoch, listed[0].validator.clone()), (4, address(2).to_string()));
        assert_eq!(listed[0].first_signed_bytes, signed(1).0.as_bytes());
        assert_eq!(listed[0].second_signature, [2; 64]);
    }
    let negative = v1::ListEvidenceRequest { page_size: -1, page_token: String::new() };
    let negative = refused(world.api.list_evidence(request(negative))).await;
    assert_eq!(negative, "InvalidArgument FIELD_INVALID bad=page_size");
}
