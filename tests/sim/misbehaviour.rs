//! One Byzantine validator among four in a good network: the others go on, and convict it of what can be proved.

use std::sync::Arc;

use tally_consensus::{EvidenceKind, Message};
use tally_types::{Certificate, Epoch, Hash, View, VoteKind};

use crate::{byzantine::Kind, campaign::must_make_progress, clients::Load, node::Stop, setup::Setup, world::World};

fn one_of_four(seed: u64, kind: Kind) -> World {
    let setup = Setup { byzantine: vec![(3, kind)], ..Setup::calm(seed, 4) };
    let mut world = World::new(setup, false);
    world.run(15_000);
    match kind {
        Kind::ForgottenDisk => world.stop_for(3, Stop::PowerCut, 10),
        // Somebody has to ask it.
        Kind::FalseAnswers => (0..4).for_each(|_| {
            world.stop_for(0, Stop::PowerCut, 3000);
            world.run(world.now + 5000);
        }),
        _ => {}
    }
    world.run(world.now + 5000);
    must_make_progress(&mut world);
    assert!(world.marks.lies(kind) > 0, "seed {seed}: {kind:?} did nothing that its machine would not do");
    world
}

/// What honest validators may convict it of: what they must, and what else contradicts itself in what it does.
fn may_be_convicted_of(kind: Kind) -> Vec<EvidenceKind> {
    use EvidenceKind::{DoubleCommit, DoublePrepare, DoubleViewChange, HiddenCommit};
    let more: &[EvidenceKind] = match kind {
        Kind::EveryTrick | Kind::Twins => &EvidenceKind::ALL,
        Kind::ForgottenDisk => &EvidenceKind::ALL,
        Kind::EquivocatingLeader => &[DoublePrepare],
        Kind::EagerVoter | Kind::FarViews => &[DoublePrepare, DoubleCommit, HiddenCommit],
        Kind::DoubleViewChange => &[HiddenCommit],
        Kind::Amnesia => &[DoubleViewChange],
        _ => &[],
    };
    [kind.convicted_of(), more].concat()
}

#[test]
fn every_honest_validator_convicts_of_what_can_be_proved_and_of_nothing_else() {
    for kind in Kind::ALL {
        for seed in 0..2 {
            let world = one_of_four(seed, kind);
            let may = may_be_convicted_of(kind);
            for (by, evidence) in &world.checkers.evidence {
                assert!(may.contains(&evidence.kind), "seed {seed}: {by} convicts {kind:?} of {evidence:?}");
            }
            for expected in kind.convicted_of() {
                for node in 0..3 {
                    let convicts =
                        |(by, evidence): &(usize, tally_consensus::Evidence)| *by == node && evidence.kind == *expected;
                    let convicted = world.checkers.evidence.iter().any(convicts);
                    assert!(convicted, "seed {seed}: {node} does not convict {kind:?} of {expected:?}");
                }
            }
        }
    }
}

/// Its blocks have no certificate of their own: whoever is behind takes them in by what comes after them.
#[test]
fn blocks_whose_leader_withholds_commits_are_prepared_and_become_final_by_others() {
    for n in [4, 7, 10] {
        let byzantine = (0..n / 3).map(|place| (place, Kind::WithheldCommit)).collect();
        let mut world = World::new(Setup { byzantine, ..Setup::calm(3, n) }, false);
        world.run(30_000);
        let of_liars = |header: &tally_types::Header| (header.proposer as usize) < n / 3;
        let blocks = &world.nodes[n - 1].blocks;
        let (own, others): (Vec<_>, Vec<_>) =
            blocks.iter().filter(|(order, _)| of_liars(&order.header)).partition(|(order, _)| order.commit.is_some());
        assert!(others.len() > 10 && own.len() * 10 < others.len(), "{n}: {} and {}", own.len(), others.len());
        must_make_progress(&mut world);
    }
}

/// They stream their lanes so that one validator each knows nothing of them to be available, and vote for nothing: the others are a
/// quorum, and each of them is needed.
#[test]
fn two_of_seven_that_say_something_else_of_their_lanes_to_each_do_not_stop_the_others() {
    drips_do_not_stop_the_others(7, &[0, 2]);
}

/// The same with two validators left out of each lane: every lane's tip is known to a weak quorum, those of all three to one validator.
#[test]
fn three_of_ten_that_leave_out_others_each_do_not_stop_the_others() {
    drips_do_not_stop_the_others(10, &[0, 3, 6]);
}

fn drips_do_not_stop_the_others(count: usize, byzantine: &[usize]) {
    let byzantine: Vec<_> = byzantine.iter().map(|place| (*place, Kind::Drip)).collect();
    for seed in 0..4 {
        let load = Load::payments(200);
        let mut world = World::new(Setup { byzantine: byzantine.clone(), load, ..Setup::calm(seed, count) }, false);
        world.run(15_000);
        // Each view that one of them leads takes a second or two; no other fails.
        let heights = world.final_heights();
        assert!(heights.iter().all(|height| *height >= 15), "seed {seed}: {heights:?}");
        must_make_progress(&mut world);
    }
}

/// Whoever leads when, an honest lane has its turn: its clients wait for a few blocks, and not for the block whose height is theirs.
#[test]
fn three_of_ten_that_keep_a_lane_out_delay_it_by_a_few_blocks() {
    for seed in 0..2 {
        let byzantine = [0, 3, 6].map(|place| (place, Kind::Censor)).to_vec();
        let mut world = World::new(Setup { byzantine, load: Load::payments(200), ..Setup::calm(seed, 10) }, false);
        world.run(30_000);
        let orders: Vec<_> = world.nodes[2].blocks.iter().map(|(order, _)| &order.header).collect();
        let mut waits = Vec::new();
        let mut wait = 0u64;
        for (before, header) in orders.iter().zip(&orders[1..]) {
            let moves = |lane: usize| before.epoch == header.epoch && header.cut[lane] != before.cut[lane];
            wait += 1;
            if moves(1) || before.epoch != header.epoch {
                waits.push(std::mem::take(&mut wait));
            }
        }
        assert!(
            orders.len() > 30 && wait < 10 && waits.iter().all(|wait| *wait < 10),
            "seed {seed}: {waits:?}, {wait}"
        );
    }
}

/// Whoever passes a proposal on leaves its leader no worse: no honest validator gives a view up.
#[test]
fn what_is_left_out_of_a_proposal_on_its_way_loses_no_view() {
    for kind in [Kind::Strip, Kind::FalseHave] {
        let mut world = World::new(Setup { byzantine: vec![(3, kind)], ..Setup::calm(3, 4) }, false);
        world.run(30_000);
        assert_eq!(world.checkers.views_given_up, 0, "{kind:?}");
    }
}

/// Two validators are the fewest of which one may lie: no liar takes for granted that there are others.
#[test]
fn every_liar_is_at_home_among_two() {
    for kind in Kind::ALL {
        for (liar, stakes) in [(0, vec![1, 9]), (1, vec![9, 1])] {
            let (byzantine, load) = (vec![(liar, kind)], Load::payments(5));
            let mut world = World::new(Setup { byzantine, load, stakes, ..Setup::calm(2, 2) }, false);
            world.run(5000);
            must_make_progress(&mut world);
        }
    }
}

/// Seed 5076520: of a certificate that one liar has shortened another takes the rest, and the first is told that.
#[test]
fn liars_bear_what_other_liars_leave_of_a_certificate() {
    let (epoch, view, block, kind) = (Epoch::ZERO, View(1), Hash::of(b"any"), VoteKind::Prepare);
    let bare = Some(Arc::new(Certificate { epoch, view, block, kind, signatures: Vec::new(), highest: None }));
    let bare = Message::Certificates { entry: bare, highest_commit: None };
    for kind in Kind::ALL {
        let mut world = World::new(Setup { byzantine: vec![(3, kind)], ..Setup::calm(4, 4) }, false);
        world.run(1000);
        // Twins lie by being two.
        let Some(mut liar) = world.nodes[3].behaviour.take() else { continue };
        world.let_act(3, |scene| {
            for _ in 0..100 {
                liar.on_receive(scene, 0, &bare);
                liar.on_time(scene);
            }
        });
        world.nodes[3].behaviour = Some(liar);
        must_make_progress(&mut world);
    }
}
