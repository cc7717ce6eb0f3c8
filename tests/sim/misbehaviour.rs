//! One Byzantine validator among four in a good network: the others go on, and convict it of what can be proved.

use crate::{byzantine::Kind, campaign::must_make_progress, setup::Setup, world::World};

fn one_of_four(seed: u64, kind: Kind) -> World {
    let setup = Setup { byzantine: vec![(3, kind)], ..Setup::calm(seed, 4) };
    let mut world = World::new(setup, false);
    world.run(15_000);
    if kind == Kind::ForgottenDisk {
        world.stop_for(3, crate::node::Stop::PowerCut, 10);
        world.run(20_000);
    }
    must_make_progress(&mut world);
    world
}

#[test]
fn every_provable_misbehaviour_is_convicted_by_every_honest_validator() {
    for kind in Kind::ALL {
        for seed in 0..2 {
            let world = one_of_four(seed, kind);
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

#[test]
fn what_cannot_be_proved_convicts_nobody() {
    for kind in [
        Kind::WithheldBatch,
        Kind::FalseAnswers,
        Kind::FalseHave,
        Kind::InvalidBlock,
        Kind::WrongRoot,
        Kind::StaleCertificates,
        Kind::RelayedJustification,
        Kind::ForgedBatch,
        Kind::Silence,
        Kind::SelectiveSending,
        Kind::PhantomTip,
    ] {
        let world = one_of_four(7, kind);
        assert!(world.checkers.evidence.is_empty(), "{kind:?}: {:?}", world.checkers.evidence);
    }
}
