//! The configurations that a test has time to exhaust. docs/model.md has the long ones.

use stateright::{Checker, HasDiscoveries, Model};
use tally_model::{
    config::Config,
    world::{REACHED, World},
};

/// Exhausts `config`, and demands that everything that ought to be reached is, and nothing breaks.
fn exhaust(config: Config) -> usize {
    let later_epoch = config.views.len() > 1;
    let checker = World::new(config).checker().finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let mut found: Vec<_> = checker.discoveries().into_keys().collect();
    found.sort();
    let mut wanted = REACHED[..if later_epoch { 3 } else { 2 }].to_vec();
    wanted.sort();
    assert_eq!(found, wanted);
    checker.unique_state_count()
}

fn named(name: &str) -> Config {
    Config::named(name).expect("it is one of those named")
}

#[test]
fn two_views_with_rivals() {
    assert_eq!(exhaust(Config { views: &[2], crashes: 0, ..named("equal") }), 125_794);
}

#[test]
fn two_views_with_a_crash_by_stake() {
    exhaust(Config { views: &[2], ..named("weighted-one") });
}

#[test]
fn an_honest_leader_then_a_byzantine_one() {
    exhaust(Config { views: &[2], ..named("honest-leaders") });
}

#[test]
fn an_epochs_end_with_a_crash() {
    exhaust(Config { views: &[1, 1], ..named("epoch-end-crash") });
}

#[test]
fn from_every_state_of_one_view_in_each_of_two_epochs_a_commit_is_reachable() {
    exhaust(Config { views: &[1, 1], ..named("live-epoch-end") });
}

#[test]
fn from_every_state_of_one_view_with_a_crash_by_stake_a_commit_is_reachable() {
    exhaust(Config { views: &[1], ..named("live-weighted") });
}
