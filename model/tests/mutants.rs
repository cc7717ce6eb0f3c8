//! Each mistake that docs/protocol.md warns of is found, and by the property that it breaks.

use stateright::{Checker, HasDiscoveries, Model};
use tally_model::{
    config::Config,
    mutant::Mutant,
    world::{LIVE, NOT_CONVICTED, ONE_CHAIN, ONE_DIGEST, World},
};

/// What breaks first under `mutant`.
fn broken(config: &str, mutant: Mutant) -> Vec<&'static str> {
    let config = Config { mutant: Some(mutant), ..Config::named(config).expect("it is one of those named") };
    let checker = World::new(config).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut broken: Vec<_> = checker.discoveries().into_keys().collect();
    broken.retain(|name| [ONE_CHAIN, ONE_DIGEST, NOT_CONVICTED, LIVE].contains(name));
    broken.sort();
    broken
}

#[test]
fn rule_p3_without_its_last_clause_convicts_the_honest() {
    assert!(broken("equal", Mutant::CommitAfterHiding).contains(&NOT_CONVICTED));
}

#[test]
fn a_view_change_certificate_without_the_highest_certificate_forks() {
    assert_eq!(broken("equal-fork", Mutant::CertificateForgetsHighest), [ONE_CHAIN]);
}

#[test]
fn a_commit_that_leaves_before_its_certificate_is_durable_convicts_the_honest() {
    assert!(broken("equal", Mutant::PreparedNotDurable).contains(&NOT_CONVICTED));
}

#[test]
fn a_vote_that_leaves_before_it_is_durable_is_signed_twice() {
    assert!(broken("equal", Mutant::VoteNotDurable).contains(&ONE_DIGEST));
}

#[test]
fn a_floor_that_a_restart_lowers_convicts_the_honest() {
    assert!(broken("equal", Mutant::FloorLowered).contains(&NOT_CONVICTED));
}

#[test]
fn rule_s3_dropping_votes_above_the_floor_lets_them_be_signed_twice() {
    assert!(broken("equal", Mutant::DropsAboveFloor).contains(&ONE_DIGEST));
}

#[test]
fn an_entry_certificate_that_a_restart_loses_stops_everything() {
    assert_eq!(broken("live", Mutant::EntryNotDurable), [LIVE]);
}

#[test]
fn whoever_stays_behind_in_an_epoch_whose_end_is_forgotten_never_leaves_it() {
    assert_eq!(broken("live-epoch-end", Mutant::EpochEndForgotten), [LIVE]);
}
