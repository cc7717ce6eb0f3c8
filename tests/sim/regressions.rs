//! What seeds once found, as worlds of their own: a seed draws another world as soon as the drawing changes.

use tally_consensus::Voting;
use tally_node::store::{
    disk::Disk as _,
    sim_disk::{Loss, SimDisk},
};

use crate::{
    campaign::must_make_progress,
    clients::Load,
    node::Stop,
    setup::{Faults, Setup},
    world::{Happening, World},
};

/// Seed 1624: the sync of a new segment's header fails, the process is started again, writes on, and the next power cut
/// takes the header from under what was acknowledged.
#[test]
fn a_failed_sync_is_survived_by_what_is_written_after_it() {
    // Faults last as long as the world, so that a failed sync may stop a node; its segments are full all the time.
    let faults = Faults { sync_errors: true, heal_ms: u64::MAX, ..Faults::none() };
    let mut world =
        World::new(Setup { faults, load: Load::payments(5), segment_bytes: 12 << 10, ..Setup::calm(1624, 4) }, false);
    world.setup.faults.sync_errors = false;
    world.run(1000);
    let mut failed = 0;
    for round in 0..12 {
        let disk = world.nodes[2].disk.clone();
        world.setup.faults.sync_errors = true;
        disk.fail_sync_after(round % 4);
        let until = world.now + 2000;
        while world.nodes[2].machine.is_some() && world.now < until {
            world.run(world.now + 5);
        }
        failed += u64::from(world.nodes[2].machine.is_none());
        world.setup.faults.sync_errors = false;
        // Whoever is up again by now goes on; a node that does not start fails the world.
        world.run(world.now + 5100);
        assert!(world.nodes[2].machine.is_some());
        world.stop(2, Stop::Kill);
        world.nodes[2].disk.crash(Loss::Everything);
        assert!(world.start(2, Voting::Allowed), "round {round}");
    }
    assert!(failed > 8, "{failed} syncs failed");
    must_make_progress(&mut world);
}

/// Seed 3645: one bit flipped in the zeros behind a full segment, and the node refused to start.
#[test]
fn one_flipped_bit_anywhere_on_a_validators_disk_never_stops_it() {
    let mut world = World::new(Setup { segment_bytes: 16 << 10, ..Setup::calm(3645, 4) }, false);
    world.run(3000);
    world.stop(2, Stop::Kill);
    let good = world.nodes[2].disk.clone();
    let files = good.list().unwrap();
    assert!(files.len() > 3, "{files:?}");
    for (round, name) in (0..120).zip(files.iter().cycle()) {
        let damaged: SimDisk = good.copy();
        let size = good.bytes(name).unwrap().len();
        let offset = round * 7919 % size;
        assert!(damaged.flip_bit(name, offset, round as u8 % 8));
        // What its earlier starts wrote is not on this disk.
        world.nodes[2].synced = 0;
        world.nodes[2].disk = damaged;
        assert!(world.start(2, Voting::Allowed), "{name} at byte {offset}");
        world.nodes[2].machine = None;
    }
    (world.nodes[2].disk, world.nodes[2].synced) = (good, 0);
    world.start(2, Voting::Allowed);
    must_make_progress(&mut world);
}

/// Seed 5004374: the process is killed before a sync that was to fail, and the world heals before it is started again.
#[test]
fn what_was_to_fail_does_not_once_the_world_has_healed() {
    let faults = Faults { sync_errors: true, heal_ms: 2000, ..Faults::none() };
    let mut world = World::new(Setup { faults, load: Load::payments(5), ..Setup::calm(5004374, 4) }, false);
    world.run(1500);
    world.stop(2, Stop::Kill);
    world.nodes[2].disk.fail_sync_after(0);
    must_make_progress(&mut world);
    assert!(world.nodes[2].machine.is_some());
}

/// Seed 5042369: power fails while a snapshot is written, in the last millisecond before the world heals.
#[test]
fn power_that_fails_in_the_moment_of_healing_does_not_after_it() {
    let faults = Faults { heal_ms: 2000, ..Faults::none() };
    let mut world = World::new(Setup { faults, load: Load::payments(5), ..Setup::calm(5042369, 4) }, false);
    world.run(1999);
    world.nodes[2].snapshots.fail_power_after(0);
    world.nodes[2].power_fails = true;
    world.at(1, Happening::PowerCut { node: 2 });
    world.run(2001);
    assert!(world.nodes[2].machine.is_some());
    must_make_progress(&mut world);
}
