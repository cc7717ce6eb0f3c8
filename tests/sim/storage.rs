//! One node's journal of two hundred blocks, and everything that can happen to it: the power fails at every operation of the
//! disk, a sync fails, the disk is full, one bit flips in every sector, files end at every byte. Whatever is found then is
//! taken back by the production journal, machine and ledger, and must reach what was acknowledged, with the same roots.
//!
//! `STORAGE_EVERY=1` tries every place; a plain `cargo test` one in so many, each time the same ones.

use std::sync::{Arc, LazyLock};

use tally_consensus::Voting;
use tally_node::store::{
    disk::Disk as _,
    journal::{Journal, JournalConfig, JournalError, OpenError, Record},
    sim_disk::{Loss, SECTOR_BYTES, SimDisk},
};

use crate::{clients::Load, setup::Setup, world::World};

const BLOCKS: u64 = 200;
/// The node whose journal it is.
const NODE: usize = 2;
/// Small, so that there are many segments.
const SEGMENT_BYTES: u64 = 64 << 10;

/// What a node wrote, as it wrote it.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    pub node: usize,
    /// Records by group; each was made durable with one sync.
    pub groups: Vec<Vec<Record>>,
    /// Height up to which clients had been told "final" when a group was begun.
    pub acknowledged: Vec<u64>,
}

struct Written {
    tape: Tape,
    genesis: [u8; 32],
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let world = written_world();
    let tape = world.tape.clone().expect("it was recorded");
    Written { tape, genesis: world.genesis.chain.genesis_hash.0 }
});

/// A world of which one node has written two hundred blocks. It has nothing left to do but to be started from other disks.
fn written_world() -> World {
    let mut setup = Setup { load: Load::payments(20), segment_bytes: SEGMENT_BYTES, ..Setup::calm(7, 4) };
    setup.params.idle_interval_ms = 100;
    let mut world = World::new(setup, false);
    // From its first record on, those of its start included.
    world.stop(NODE, crate::node::Stop::Kill);
    world.nodes[NODE].lose_disk();
    world.tape = Some(Tape { node: NODE, ..Tape::default() });
    assert!(world.start(NODE, Voting::Allowed));
    while world.nodes[NODE].blocks.len() < BLOCKS as usize {
        world.run(world.now + 100);
        assert!(world.now < 600_000, "{:?}", world.final_heights());
    }
    world.nodes[NODE].machine = None;
    world
}

fn config() -> JournalConfig {
    let mut config = JournalConfig::new(WRITTEN.genesis);
    config.segment_bytes = SEGMENT_BYTES;
    config.sector_bytes = SECTOR_BYTES as u32;
    config.reserve_bytes = 16 << 10;
    config
}

/// Writes the tape on a disk. How many groups were acknowledged, and what stopped it.
fn write(disk: &SimDisk) -> (usize, Option<JournalError>) {
    let opened = Journal::open::<String>(Arc::new(disk.clone()), config(), &mut |_, _| Ok(()));
    let mut journal = match opened {
        Ok((journal, _)) => journal,
        Err(OpenError::Journal(error)) => return (0, Some(error)),
        Err(OpenError::Replay(error)) => panic!("{error}"),
    };
    for (done, group) in WRITTEN.tape.groups.iter().enumerate() {
        let written = journal.append(group).and_then(|_| journal.sync());
        if let Err(error) = written {
            return (done, Some(error));
        }
    }
    (WRITTEN.tape.groups.len(), None)
}

fn whole() -> SimDisk {
    let disk = SimDisk::new();
    let (groups, error) = write(&disk);
    assert!(error.is_none() && groups == WRITTEN.tape.groups.len());
    disk
}

/// What clients had been told when so many groups were durable.
fn acknowledged(groups: usize) -> u64 {
    let tape = &WRITTEN.tape;
    tape.acknowledged.get(groups).or(tape.acknowledged.last()).copied().unwrap_or(0)
}

/// How far a start comes.
#[derive(Clone, Copy, Debug)]
struct Recovered {
    /// Highest final height.
    decided: u64,
    /// Up to here it is executed. A batch that damage took, which its journal has once, comes from a peer.
    executed: u64,
}

/// Starts the node from a disk; none: its store refuses. That blocks and roots are those of before, and that nothing runs
/// twice, the world's checkers see to.
fn recover(world: &mut World, disk: SimDisk, damaged: bool) -> Option<Recovered> {
    let node = &mut world.nodes[NODE];
    (node.machine, node.journal) = (None, None);
    (node.disk, node.snapshots) = (disk, SimDisk::new());
    node.synced = 0;
    node.honest = !damaged;
    let started = world.start(NODE, Voting::Allowed).then(|| Recovered {
        decided: world.status(NODE).expect("it runs").final_height.0,
        executed: world.nodes[NODE].blocks.len() as u64,
    });
    world.nodes[NODE].machine = None;
    started
}

/// Which of `count` places are tried.
fn places(count: u64, usually_every: u64) -> impl Iterator<Item = u64> {
    let every =
        std::env::var("STORAGE_EVERY").map_or(usually_every, |text| text.parse().expect("STORAGE_EVERY is a number"));
    (0..count).step_by(every as usize)
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let mut world = written_world();
    let operations = whole().operations();
    let mut images = 0;
    for operation in places(operations, 97) {
        for loss in [Loss::Everything, Loss::Nothing, Loss::Some(operation)] {
            let disk = SimDisk::new();
            disk.fail_power_after(operation);
            let (groups, error) = write(&disk);
            assert!(error.is_some(), "operation {operation}: the power did not fail");
            disk.crash(loss);
            let found = recover(&mut world, disk, false).expect("a power cut is no damage");
            let told = acknowledged(groups);
            assert!(found.executed >= told, "operation {operation}, {loss:?}: {found:?} after {groups} groups, {told}");
            images += 1;
        }
    }
    println!("{operations} operations; {images} images recovered");
}

#[test]
fn a_sync_that_fails_anywhere_loses_nothing_acknowledged() {
    let mut world = written_world();
    let syncs = whole().syncs();
    for sync in places(syncs, 61) {
        let disk = SimDisk::new();
        disk.fail_sync_after(sync);
        let (groups, error) = write(&disk);
        assert!(error.is_some(), "sync {sync} did not fail");
        // The process has ended; the next one takes back what it finds, and then the power fails.
        assert!(recover(&mut world, disk.clone(), false).is_some());
        disk.crash(Loss::Everything);
        let found = recover(&mut world, disk, false).expect("a failed sync is no damage");
        assert!(found.executed >= acknowledged(groups), "sync {sync}: {found:?} after {groups} groups");
    }
    println!("{syncs} syncs");
}

#[test]
fn a_disk_that_is_full_at_any_size_loses_nothing_acknowledged() {
    let mut world = written_world();
    let whole = whole();
    let bytes: usize = whole.list().unwrap().iter().map(|name| whole.bytes(name).unwrap().len()).sum();
    let sectors = (bytes / SECTOR_BYTES) as u64;
    for sector in places(sectors, 61) {
        let disk = SimDisk::new();
        // In the middle of a sector as well.
        disk.set_capacity(Some(sector * SECTOR_BYTES as u64 + sector * 37 % 512));
        let (groups, error) = write(&disk);
        // The zeros ahead are done without where there is no room for them.
        assert!(error.is_some() || sector + 40 > sectors, "{sector} of {sectors} sectors: it had room");
        disk.crash(Loss::Some(sector));
        disk.set_capacity(None);
        let found = recover(&mut world, disk, false).expect("a full disk is no damage");
        assert!(found.executed >= acknowledged(groups), "{sector} sectors: {found:?} after {groups} groups");
    }
    println!("{sectors} sectors");
}

#[test]
fn one_bit_in_any_sector_of_any_file_costs_no_decision() {
    let mut world = written_world();
    let whole = whole();
    let (mut tried, mut short) = (0, 0);
    for name in whole.list().unwrap() {
        let sectors = (whole.bytes(&name).unwrap().len() / SECTOR_BYTES) as u64;
        for sector in places(sectors, 61) {
            let disk = whole.copy();
            let offset = sector as usize * SECTOR_BYTES + (sector * 7919 % 512) as usize;
            assert!(disk.flip_bit(&name, offset, sector as u8 % 8));
            let found = recover(&mut world, disk, true).unwrap_or_else(|| panic!("{name} at {offset}: refused"));
            assert!(found.decided >= acknowledged(WRITTEN.tape.groups.len()), "{name} at {offset}: {found:?}");
            short += u64::from(found.executed < found.decided);
            tried += 1;
        }
    }
    println!("{tried} flipped bits, {short} of them in batches that peers have");
}

/// What a file that ends early still holds is taken back, in order and unchanged, and all of it: every record that lies whole
/// before the end, and of a group through which the end goes at least what a vote depends on, with the others counted as lost.
/// Or the start is refused. That groups are missing at the very end cannot be seen in the journal itself: a node sees it in its
/// index and follows. Rule R3.
#[test]
fn a_file_that_ends_at_any_byte_gives_all_that_is_whole_or_is_refused() {
    let mut world = written_world();
    let disk = SimDisk::new();
    let ends = write_noting_ends(&disk);
    let (mut images, mut refused, mut short, mut holed, mut last_seen) = (0u64, 0u64, 0u64, 0u64, None);
    let written: Vec<&Record> = WRITTEN.tape.groups.iter().flatten().collect();
    for (name, segment) in disk.list().unwrap().iter().zip(1u64..) {
        let bytes = disk.bytes(name).unwrap();
        // Within the last group of a sealed segment a record that is not vital may be lost: its last sectors are tried always.
        let last = ends.iter().rfind(|(at, ..)| *at == segment).map_or(0, |(_, end, _)| end / SECTOR_BYTES as u64);
        let sectors = (last.saturating_sub(16)..last).map(|sector| sector * SECTOR_BYTES as u64);
        for length in places(bytes.len() as u64, 4099).chain(sectors) {
            let cut = disk.copy();
            cut.put(name, bytes[..length as usize].to_vec());
            images += 1;
            let mut found = Vec::new();
            let opened = Journal::open::<String>(Arc::new(cut.copy()), config(), &mut |_, record| {
                found.push(record);
                Ok(())
            });
            let kept = match opened {
                Ok((_, recovered)) => recovered,
                Err(error) => {
                    assert!(error.to_string().contains(".log"), "{name} cut to {length}: {error}");
                    refused += 1;
                    continue;
                }
            };
            let records_until = |end: Option<&(u64, u64, usize)>| end.map_or(0, |(_, _, records)| *records);
            let whole =
                records_until(ends.iter().rfind(|(at, end, _)| *at < segment || *at == segment && *end <= length));
            let taken = records_until((kept.groups as usize).checked_sub(1).map(|last| &ends[last]));
            assert!(taken >= whole, "{name} cut to {length}: {taken} records of {whole} that are whole");
            let mut rest = found.iter().peekable();
            let lost = written[..taken].iter().enumerate().filter(|(index, was)| {
                let is_lost = rest.next_if(|is| is == *was).is_none();
                assert!(!is_lost || !was.vital && *index >= whole, "{name} cut to {length}: lacks record {index}");
                is_lost
            });
            assert_eq!(lost.count() as u64, kept.records_lost, "{name} cut to {length}: {kept:?}");
            assert_eq!(rest.next(), None, "{name} cut to {length}: other records");
            short += u64::from(taken < written.len());
            holed += u64::from(kept.records_lost > 0);
            // The same records lead to the same state: it is enough to try each of them once.
            if last_seen != Some((taken, found.len())) {
                last_seen = Some((taken, found.len()));
                let found = recover(&mut world, cut, true).unwrap_or_else(|| panic!("{name} cut to {length}: refused"));
                let told = acknowledged(kept.groups as usize);
                assert!(found.decided >= told, "{name} cut to {length}: {found:?} of {told}");
            }
        }
    }
    println!("{images} lengths, {refused} of them refused, {short} without the last groups, {holed} with a hole");
    assert!(refused > 0 && short > 0 && holed > 0);
}

/// Writes the tape; for each group its segment, where it ends there, and how many records there were until then.
fn write_noting_ends(disk: &SimDisk) -> Vec<(u64, u64, usize)> {
    let opened = Journal::open::<String>(Arc::new(disk.clone()), config(), &mut |_, _| Ok(()));
    let (mut journal, _) = opened.expect("an empty disk has nothing to refuse");
    let mut records = 0;
    let mut ends = Vec::new();
    for group in &WRITTEN.tape.groups {
        journal.append(group).and_then(|_| journal.sync()).expect("the disk works");
        records += group.len();
        // No sector of a group is without a checksum, and behind it lie zeros.
        let names = disk.list().unwrap();
        let bytes = disk.bytes(names.last().unwrap()).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        ends.push((names.len() as u64, (last as u64 + 1).next_multiple_of(SECTOR_BYTES as u64), records));
    }
    ends
}
