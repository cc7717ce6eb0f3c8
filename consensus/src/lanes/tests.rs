use tally_types::{Address, PublicKey, Validator};

use super::*;

fn set() -> ValidatorSet {
    let member = |name: u8| Validator { address: Address([name; 32]), key: PublicKey([name; 32]), stake: Stake(1) };
    ValidatorSet::new((1..=4).map(member).collect()).unwrap()
}

fn lanes() -> Lanes {
    Lanes::new(Epoch(0), set(), Some(0))
}

fn batch(lane: u32, parent: Tip, content: &'static str) -> SignedBatch {
    let batch = Batch::new(Epoch(0), lane, parent, vec![Bytes::from_static(content.as_bytes())]);
    SignedBatch { batch, signature: Signature([lane as u8; 64]) }
}

/// `count` batches of a lane, one after the other.
fn chain(lane: u32, count: u64) -> Vec<SignedBatch> {
    let mut tip = Tip::START;
    let mut chain = Vec::new();
    for _ in 0..count {
        let next = batch(lane, tip, "x");
        tip = next.batch.tip();
        chain.push(next);
    }
    chain
}

fn accept(lanes: &mut Lanes, batch: &SignedBatch) -> usize {
    match lanes.accept(batch.clone()) {
        Accept::Accepted(batches) => batches.len(),
        _ => 0,
    }
}

#[test]
fn rule_d2_only_the_next_linked_batch_is_accepted_and_early_ones_wait() {
    let mut lanes = lanes();
    let chain = chain(1, 4);
    assert!(matches!(lanes.accept(chain[2].clone()), Accept::Known));
    assert!(matches!(lanes.accept(chain[1].clone()), Accept::Known));
    assert_eq!(lanes.tips()[1], Tip::START);
    assert_eq!(accept(&mut lanes, &chain[0]), 3);
    assert_eq!(lanes.tips()[1], chain[2].batch.tip());
    // Right place, wrong parent.
    let stranger = batch(1, Tip { seq: Seq(3), digest: Hash::of(b"other") }, "y");
    assert!(matches!(lanes.accept(stranger), Accept::Dropped(Reject::Gap)));
    let mut other_epoch = Lanes::new(Epoch(1), set(), Some(0));
    assert!(matches!(other_epoch.accept(chain[0].clone()), Accept::Dropped(Reject::OtherEpoch)));
}

/// They may come before what they follow, but whoever sends nothing else fills no memory.
#[test]
fn rule_d2_of_batches_that_come_early_a_lane_keeps_a_few() {
    let mut lanes = lanes();
    let chain = chain(1, EARLY_BATCHES_MAX as u64 + 3);
    for early in &chain[1..=EARLY_BATCHES_MAX] {
        assert!(matches!(lanes.accept(early.clone()), Accept::Known));
    }
    assert!(matches!(lanes.accept(chain[EARLY_BATCHES_MAX + 1].clone()), Accept::Dropped(Reject::Gap)));
    assert_eq!(lanes.early_most(), EARLY_BATCHES_MAX);
    assert_eq!(accept(&mut lanes, &chain[0]), EARLY_BATCHES_MAX + 1);
    assert_eq!(lanes.early_most(), 0);
}

#[test]
fn rule_d2_one_batch_per_place_ever_and_a_second_convicts() {
    let mut lanes = lanes();
    let first = batch(1, Tip::START, "x");
    let second = batch(1, Tip::START, "y");
    accept(&mut lanes, &first);
    assert!(matches!(lanes.accept(first.clone()), Accept::Known));
    let Accept::Contradicts(digest, _) = lanes.accept(second) else { panic!("a second batch passed") };
    assert_eq!(digest, first.batch.digest());
    assert_eq!(lanes.tips()[1], first.batch.tip());
}

#[test]
fn rule_d2_a_second_batch_convicts_before_its_place_is_reached() {
    let mut lanes = lanes();
    let chain = chain(1, 3);
    let second = batch(1, chain[1].batch.tip(), "y");
    assert!(matches!(lanes.accept(chain[2].clone()), Accept::Known));
    assert!(matches!(lanes.accept(chain[2].clone()), Accept::Known));
    let Accept::Contradicts(digest, _) = lanes.accept(second) else { panic!("a second batch passed") };
    assert_eq!(digest, chain[2].batch.digest());
}

#[test]
fn rule_d5_nobody_runs_further_ahead_than_the_window() {
    let mut lanes = lanes();
    let chain = chain(1, LANE_WINDOW + 1);
    for next in &chain[..LANE_WINDOW as usize] {
        assert_eq!(accept(&mut lanes, next), 1);
    }
    assert!(matches!(lanes.accept(chain[LANE_WINDOW as usize].clone()), Accept::Dropped(Reject::LaneWindow)));
    let mut cut = vec![Tip::START; 4];
    cut[1] = chain[0].batch.tip();
    lanes.ordered(&cut);
    assert_eq!(accept(&mut lanes, &chain[LANE_WINDOW as usize]), 1);
    // The producer does not seal past it either.
    let mut own = super::Lanes::new(Epoch(0), set(), Some(0));
    for _ in 0..LANE_WINDOW {
        own.add_transactions(vec![Bytes::from_static(b"t")], 0);
        assert!(own.seal_due(0).is_some());
        own.seal(0);
    }
    own.add_transactions(vec![Bytes::from_static(b"t")], 0);
    assert_eq!(own.seal_due(0), None);
}

#[test]
fn rule_d1_a_batch_is_sealed_at_once_unless_one_is_on_its_way() {
    let mut own = lanes();
    own.add_transactions(vec![Bytes::from_static(b"t")], 100);
    assert_eq!(own.seal_due(10), Some(100));
    own.seal(100).unwrap();
    own.add_transactions(vec![Bytes::from_static(b"u")], 101);
    assert_eq!(own.seal_due(10), Some(111));
    own.add_transactions(vec![Bytes::from(vec![0; BATCH_BYTES_TARGET])], 102);
    assert_eq!(own.seal_due(10), Some(101));
    // Two batches: together they are too large for one.
    assert_eq!(own.seal(102).unwrap().transactions().len(), 1);
    assert!(own.seal(102).unwrap().bytes().len() <= BATCH_BYTES_MAX);
}

/// A quorum that orders what nobody sealed must not make an honest validator convict itself.
#[test]
fn rule_d2_a_lane_at_the_last_number_seals_no_second_batch_for_it() {
    let mut own = lanes();
    own.add_transactions(vec![Bytes::from_static(b"t")], 0);
    for (last, due) in [(u64::MAX - 1, true), (u64::MAX, false)] {
        own.ordered(&[Tip { seq: Seq(last), digest: Hash::of(b"made up") }; 4]);
        assert_eq!(own.seal_due(0).is_some(), due);
    }
}

#[test]
fn rule_d4_announcements_count_by_digest_and_along_known_links_never_by_sequence() {
    let mut lanes = lanes();
    let ours = chain(1, 3);
    let fork = [batch(1, Tip::START, "fork")];
    let tip = ours[0].batch.tip();
    assert!(!lanes.is_available(1, &tip));
    // A higher tip that is not known to link, and another digest of the same sequence.
    lanes.announce(2, &[Tip::START, ours[2].batch.tip(), Tip::START, Tip::START]);
    lanes.announce(3, &[Tip::START, fork[0].batch.tip(), Tip::START, Tip::START]);
    assert!(!lanes.is_available(1, &tip));
    // Its own announcement, and one more validator's: a weak quorum.
    lanes.announce(1, &[Tip::START, tip, Tip::START, Tip::START]);
    assert!(!lanes.is_available(1, &tip));
    lanes.announce(3, &[Tip::START, tip, Tip::START, Tip::START]);
    assert!(lanes.is_available(1, &tip));
    // With the links fetched, the higher announcement of 2 counts as well.
    let second = ours[1].batch.tip();
    lanes.announce(1, &[Tip::START, second, Tip::START, Tip::START]);
    assert!(!lanes.is_available(1, &second));
    for signed in &ours {
        lanes.store(&signed.batch);
    }
    assert!(lanes.is_available(1, &second));
}

#[test]
fn rule_d4_a_fetched_batch_makes_nothing_available() {
    // Anybody can make up a batch in another's lane; only what its producer signed, or a weak quorum announced, counts.
    let mut lanes = lanes();
    let made_up = batch(1, Tip::START, "made up");
    lanes.store(&made_up.batch);
    assert!(lanes.payload(Epoch(0), 1, &made_up.batch.tip(), Seq(0)).is_ok());
    assert!(!lanes.is_available(1, &made_up.batch.tip()));
    accept(&mut lanes, &made_up);
    assert!(lanes.is_available(1, &made_up.batch.tip()));
}

#[test]
fn rule_d6_the_payload_is_the_chain_behind_the_tip_of_that_lane_and_epoch() {
    let mut lanes = lanes();
    let chain = chain(1, 3);
    for signed in &chain {
        lanes.store(&signed.batch);
    }
    let tip = chain[2].batch.tip();
    assert_eq!(lanes.payload(Epoch(0), 1, &tip, Seq(1)).unwrap().len(), 2);
    assert_eq!(lanes.payload(Epoch(0), 2, &tip, Seq(1)), Err(Missing::Misfit));
    assert_eq!(lanes.payload(Epoch(1), 1, &tip, Seq(1)), Err(Missing::Misfit));
    lanes.release(&[chain[1].batch.digest()]);
    assert_eq!(lanes.payload(Epoch(0), 1, &tip, Seq(0)), Err(Missing::Batch(chain[1].batch.tip())));
}

#[test]
fn rule_d2_a_lane_goes_on_from_the_tip_that_was_ordered() {
    let mut lanes = lanes();
    let ours = chain(1, 2);
    for signed in &ours {
        accept(&mut lanes, signed);
    }
    let first = batch(1, Tip::START, "fork");
    let second = batch(1, first.batch.tip(), "fork");
    let mut cut = vec![Tip::START; 4];
    // Below its tip: what was accepted was announced, is kept, and is not replaced by a second batch for its place.
    cut[1] = first.batch.tip();
    lanes.ordered(&cut);
    assert_eq!(lanes.tips()[1], ours[1].batch.tip());
    assert!(lanes.accepted().any(|digest| digest == ours[1].batch.digest()));
    assert!(matches!(lanes.accept(second.clone()), Accept::Contradicts(..)));
    // Up to its tip.
    cut[1] = second.batch.tip();
    lanes.ordered(&cut);
    assert_eq!(lanes.tips()[1], second.batch.tip());
    let next = batch(1, second.batch.tip(), "next");
    assert_eq!(accept(&mut lanes, &next), 1);
}

#[test]
fn rule_d4_what_is_missing_behind_an_announced_tip_is_asked_for_down_to_what_was_accepted() {
    let mut lanes = lanes();
    let chain = chain(1, 5);
    accept(&mut lanes, &chain[0]);
    let tip = chain[4].batch.tip();
    lanes.announce(1, &[Tip::START, tip, Tip::START, Tip::START]);
    assert!(lanes.lacking().is_empty());
    lanes.announce(2, &[Tip::START, tip, Tip::START, Tip::START]);
    // Whoever answers with less than was asked for does not end the asking.
    for missing in [4, 3, 2, 1] {
        let [lacking] = lanes.lacking()[..] else { panic!("{missing}") };
        assert_eq!((lacking.missing, lacking.announced, lacking.above), (chain[missing].batch.tip(), tip, Seq(1)));
        lanes.store(&chain[missing].batch);
    }
    assert!(lanes.lacking().is_empty());
}

#[test]
fn a_quorums_tip_is_found_on_the_chain_and_beyond_what_is_held() {
    let mut lanes = lanes();
    let chain = chain(1, 5);
    for signed in &chain[..3] {
        accept(&mut lanes, signed);
    }
    let tips = |index: usize| [Tip::START, chain[index].batch.tip(), Tip::START, Tip::START];
    lanes.announce(0, &tips(2));
    lanes.announce(1, &tips(1));
    lanes.announce(2, &tips(0));
    assert_eq!(lanes.tip_announced_by(1, Seq(0), 32, Backing::Quorum, false), Some(chain[0].batch.tip()));
    lanes.announce(3, &tips(2));
    assert_eq!(lanes.tip_announced_by(1, Seq(0), 32, Backing::Quorum, false), Some(chain[1].batch.tip()));
    for place in 0..3 {
        lanes.announce(place, &tips(4));
    }
    assert_eq!(lanes.tip_announced_by(1, Seq(0), 32, Backing::Quorum, false), Some(chain[4].batch.tip()));
    assert_ne!(lanes.tip_announced_by(1, Seq(0), 32, Backing::Quorum, true), Some(chain[4].batch.tip()));
}

#[test]
fn rule_p1_lanes_move_as_far_as_one_quorum_knows_them_all() {
    let mut lanes = lanes();
    let (one, two) = (chain(1, 3), chain(2, 3));
    for signed in one.iter().chain(&two) {
        accept(&mut lanes, signed);
    }
    // 3 knows nothing of lane 1, and 1 only the beginning of lane 2: each lane as a whole has its quorum.
    let tips = |of_one: u64, of_two: u64| {
        let tip = |chain: &[SignedBatch], seq: u64| {
            chain.get((seq as usize).wrapping_sub(1)).map_or(Tip::START, |signed| signed.batch.tip())
        };
        [Tip::START, tip(&one, of_one), tip(&two, of_two), Tip::START]
    };
    for (place, of_one, of_two) in [(0, 3, 3), (1, 3, 1), (2, 3, 3), (3, 0, 3)] {
        lanes.announce(place, &tips(of_one, of_two));
    }
    let alone = |lane: u32| lanes.tip_announced_by(lane, Seq(0), 32, Backing::Quorum, false).unwrap().seq;
    assert_eq!((alone(1), alone(2)), (Seq(3), Seq(3)));
    let together = |first: u32, second: u32| {
        let mut knowing: Vec<u32> = set().places().collect();
        let mut next = |lane| lanes.tip_known_to(lane, Seq(0), 32, Backing::Quorum, false, &mut knowing);
        (next(first).map(|tip| tip.seq), next(second).map(|tip| tip.seq), knowing)
    };
    assert_eq!(together(1, 2), (Some(Seq(3)), Some(Seq(1)), vec![0, 1, 2]));
    assert_eq!(together(2, 1), (Some(Seq(3)), None, vec![0, 2, 3]));
}

/// 3 has the first lane's newest tip and speaks of no other lane; of the honest ones 0 is a batch behind there, as somebody
/// always is. The highest tip of that lane would leave a quorum with 3 in it, and with that no other lane moves.
#[test]
fn rule_p1_who_knows_of_one_lane_only_keeps_no_other_out_of_a_block() {
    let mut lanes = lanes();
    let (one, two) = (chain(1, 4), chain(2, 4));
    for signed in one.iter().chain(&two) {
        accept(&mut lanes, signed);
    }
    let tip = |chain: &[SignedBatch], seq: usize| chain[..seq].last().map_or(Tip::START, |signed| signed.batch.tip());
    for (place, of_one, of_two) in [(0, 2, 4), (1, 4, 4), (2, 3, 3), (3, 4, 0)] {
        lanes.announce(place, &[Tip::START, tip(&one, of_one), tip(&two, of_two), Tip::START]);
    }
    let cut = [Tip::START; 4];
    let moved: Vec<Seq> =
        lanes.advance(&cut, &[0, 1, 2, 3], Backing::Quorum, false).iter().map(|tip| tip.seq).collect();
    assert_eq!(moved, [Seq(0), Seq(2), Seq(3), Seq(0)]);
    // A tip that is not here is known to those who announced just that.
    let far = batch(1, tip(&one, 4), "far");
    for place in [1, 2, 3] {
        lanes.announce(place, &[Tip::START, far.batch.tip(), Tip::START, Tip::START]);
    }
    assert_eq!(lanes.best_informed(&cut, &[1, 2], Backing::Quorum, false), [1, 2, 3]);
    assert_eq!(lanes.best_informed(&cut, &[2, 1], Backing::Quorum, false), [1, 2, 0]);
}

/// Tips not held count as themselves: the highest that enough stake announced, whoever else announces what.
#[test]
fn rule_d4_of_tips_not_held_the_highest_with_enough_stake_counts() {
    let mut lanes = lanes();
    let tip = |seq: u64, name: &str| Tip { seq: Seq(seq), digest: Hash::of(name.as_bytes()) };
    let announced = [(0, tip(5, "a")), (1, tip(5, "a")), (1, tip(6, "b")), (2, tip(6, "b")), (3, tip(7, "c"))];
    for (place, tip) in announced {
        lanes.announce(place, &[Tip::START, tip, Tip::START, Tip::START]);
    }
    let found = |lanes: &Lanes, backing, most| lanes.tip_announced_by(1, Seq(0), most, backing, false);
    assert_eq!(found(&lanes, Backing::WeakQuorum, 64), Some(tip(6, "b")));
    assert_eq!(found(&lanes, Backing::WeakQuorum, 5), Some(tip(5, "a")));
    assert_eq!(found(&lanes, Backing::Quorum, 64), None);
    // Said twice by one is said once.
    for again in [tip(8, "d"), tip(7, "c"), tip(8, "d")] {
        lanes.announce(3, &[Tip::START, again, Tip::START, Tip::START]);
    }
    assert_eq!(found(&lanes, Backing::WeakQuorum, 64), Some(tip(6, "b")));
    for place in [0, 2] {
        lanes.announce(place, &[Tip::START, tip(6, "b"), Tip::START, Tip::START]);
    }
    assert_eq!(found(&lanes, Backing::Quorum, 64), Some(tip(6, "b")));
}

#[test]
fn rule_p5_what_lapses_with_an_epoch_waits_for_the_next_lane() {
    let mut own = lanes();
    for content in [&b"a"[..], b"b", b"c"] {
        own.add_transactions(vec![Bytes::from_static(content)], 0);
        own.seal(0).unwrap();
    }
    let mut cut = vec![Tip::START; 4];
    cut[0] = own.lookup(0, Seq(1));
    own.ordered(&cut);
    own.next_epoch(Epoch(1), set(), Some(0), &BTreeSet::new(), 5);
    let again = own.seal(5).unwrap();
    assert_eq!(again.transactions(), [Bytes::from_static(b"b"), Bytes::from_static(b"c")]);
    assert_eq!((again.epoch(), again.seq()), (Epoch(1), Seq(1)));
}

impl Lanes {
    fn lookup(&self, place: u32, seq: Seq) -> Tip {
        let digest = self.lane(place).unwrap().chain[&seq].0;
        Tip { seq, digest }
    }
}

/// It does not follow from what is final here, but it was signed. A lane of a later epoch is another one.
#[test]
fn rule_d2_a_place_that_was_sealed_on_another_chain_is_not_sealed_again() {
    let mut lanes = lanes();
    let elsewhere = Tip { seq: Seq(1), digest: Hash::of(b"other") };
    lanes.replay_sealed(&Batch::new(Epoch(0), 0, elsewhere, vec![Bytes::from_static(b"x")]));
    lanes.add_transactions(vec![Bytes::from_static(b"y")], 0);
    assert_eq!(lanes.seal_due(0), None);
    let mut ordered = vec![Tip::START; 4];
    ordered[0] = Tip { seq: Seq(2), digest: Hash::of(b"third") };
    lanes.ordered(&ordered);
    assert_eq!(lanes.seal_due(0), Some(0));
    assert_eq!(lanes.seal(0).map(|batch| batch.seq()), Some(Seq(3)));
    lanes.add_transactions(vec![Bytes::from_static(b"z")], 0);
    lanes.next_epoch(Epoch(1), set(), Some(0), &BTreeSet::new(), 0);
    assert_eq!(lanes.seal(0).map(|batch| batch.seq()), Some(Seq(1)));
}

/// What is counted as it changes is what counting everything anew gives.
#[test]
fn rule_d4_how_far_a_lane_is_announced_is_counted_right_at_every_step() {
    let mut state = 7u64;
    let mut below = move |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    // Longer than the window.
    const LENGTH: u64 = LANE_WINDOW + 40;
    let good = chain(1, LENGTH);
    let mut forked = good[..10].to_vec();
    for _ in 10..LENGTH {
        forked.push(batch(1, forked.last().map_or(Tip::START, |last| last.batch.tip()), "y"));
    }
    let mut far = [0, 0];
    for _ in 0..100 {
        let mut lanes = lanes();
        let (mut accepted, mut ordered) = (0, 0);
        for _ in 0..80 {
            let most = |at: u64| at.min(LENGTH - 1) as usize;
            match below(10) {
                0..=5 => {
                    let chain = if below(4) == 0 { &forked } else { &good };
                    let near = (accepted + below(6)).saturating_sub(3);
                    let at = if below(5) == 0 { below(LENGTH) } else { near };
                    let tip = chain[most(at)].batch.tip();
                    lanes.announce(below(4) as u32, &[Tip::START, tip, Tip::START, Tip::START]);
                }
                6..=8 => accepted += accept(&mut lanes, &good[most(accepted)]) as u64,
                _ => {
                    ordered = (ordered + below(3)).min(accepted.saturating_sub(1));
                    let chain = if below(8) == 0 { &forked } else { &good };
                    lanes.ordered(&[Tip::START, chain[most(ordered)].batch.tip(), Tip::START, Tip::START]);
                    accepted = accepted.max(ordered);
                }
            }
            let lane = &lanes.lanes[1];
            let is_on_chain = |tip: &&Tip| {
                **tip == lane.ordered || lane.chain.get(&tip.seq).is_some_and(|(digest, _)| *digest == tip.digest)
            };
            let on_chain = |announced: &Announced| {
                announced.tips.iter().filter(is_on_chain).map(|tip| tip.seq).max().unwrap_or_default()
            };
            for announced in &lane.announced {
                assert_eq!(announced.on_chain, on_chain(announced));
                assert_eq!(Some(announced.highest), announced.tips.iter().map(|tip| tip.seq).max().or(Some(Seq(0))));
            }
            for (backing, heads) in [(Backing::Quorum, 3), (Backing::WeakQuorum, 2)] {
                let mut reached: Vec<Seq> = lane.announced.iter().map(on_chain).collect();
                reached.sort();
                assert_eq!(lane.reached_by(backing), reached[4 - heads]);
            }
            let known = lanes.ahead(1);
            lanes.lanes[1].ahead = None;
            assert_eq!(known, lanes.ahead(1));
            far[0] += u64::from(known.is_some());
            far[1] += u64::from(lanes.lanes[1].reached_by(Backing::Quorum) > Seq(0));
        }
    }
    assert!(far.iter().all(|times| *times > 500), "{far:?}");
}
