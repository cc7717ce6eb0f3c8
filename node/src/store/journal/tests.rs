//! Power cuts at every operation, damage to every byte.

use std::convert::Infallible;

use super::*;
use crate::store::sim_disk::{Loss, SimDisk};

const GENESIS: [u8; 32] = [7; 32];
const LAST_GROUP: u64 = 9;

fn config() -> JournalConfig {
    JournalConfig { genesis: GENESIS, segment_bytes: 12 << 10, sector_bytes: 512, reserve_bytes: 0 }
}

fn record(kind: u8, vital: bool, length: usize) -> Record {
    let bytes: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(kind)).collect();
    Record { kind, vital, bytes: bytes.into() }
}

/// The script: groups with vital records only, with none, and with both, of one sector and of several.
fn group(sequence: u64) -> Vec<Record> {
    let kind = sequence as u8 * 8;
    match sequence % 4 {
        0 => vec![record(kind, false, 40), record(kind + 1, false, 0)],
        1 => vec![record(kind, true, 100)],
        2 => vec![record(kind, false, 900), record(kind + 1, true, 300), record(kind + 2, false, 700)],
        _ => vec![record(kind, true, 1), record(kind + 1, true, 1100), record(kind + 2, false, 60)],
    }
}

fn groups(last: u64) -> Vec<Record> {
    (1..=last).flat_map(group).collect()
}

type Opened = (Journal, Recovered, Vec<(Position, Record)>);

fn open_with(disk: &SimDisk, config: JournalConfig) -> Result<Opened, JournalError> {
    let mut records = Vec::new();
    let opened = Journal::open(Arc::new(disk.clone()), config, &mut |position, record| {
        records.push((position, record));
        Ok::<(), Infallible>(())
    });
    match opened {
        Ok((journal, recovered)) => Ok((journal, recovered, records)),
        Err(OpenError::Journal(error)) => Err(error),
        Err(OpenError::Replay(never)) => match never {},
    }
}

fn open(disk: &SimDisk) -> Result<Opened, JournalError> {
    open_with(disk, config())
}

fn plain(records: &[(Position, Record)]) -> Vec<Record> {
    records.iter().map(|(_, record)| record.clone()).collect()
}

/// Writes the groups after the journal's last, up to `last`; how far it came.
fn run(disk: &SimDisk, last: u64, acknowledged: &mut u64) -> Result<(), JournalError> {
    run_with(disk, config(), last, acknowledged)
}

fn run_with(disk: &SimDisk, config: JournalConfig, last: u64, acknowledged: &mut u64) -> Result<(), JournalError> {
    let (mut journal, ..) = open_with(disk, config)?;
    for sequence in *acknowledged + 1..=last {
        journal.append(&group(sequence))?;
        journal.sync()?;
        *acknowledged = sequence;
    }
    Ok(())
}

fn written() -> SimDisk {
    written_to(LAST_GROUP)
}

fn written_to(last: u64) -> SimDisk {
    let disk = SimDisk::new();
    run(&disk, last, &mut 0).unwrap();
    disk
}

/// The script in several segments, and all of it in one: there, no later file proves a group complete.
fn written_both_ways() -> [SimDisk; 2] {
    let disk = SimDisk::new();
    let config = JournalConfig { segment_bytes: 1 << 20, ..config() };
    run_with(&disk, config, LAST_GROUP, &mut 0).unwrap();
    assert_eq!(disk.list().unwrap().len(), 1);
    [written(), disk]
}

fn is_subsequence(part: &[Record], whole: &[Record]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|record| rest.any(|other| other == record))
}

/// Everything acknowledged, then nothing, or the vital records at least of the one group that was being written.
fn assert_recovered(found: &[Record], acknowledged: u64, context: &str) {
    let expected = groups(acknowledged);
    assert!(found.starts_with(&expected), "{context}: acknowledged {acknowledged}, found {found:?}");
    let torn = &found[expected.len()..];
    let possible = group(acknowledged + 1);
    assert!(is_subsequence(torn, &possible), "{context}: {torn:?} of {possible:?}");
    let vital = |records: &[Record]| records.iter().filter(|record| record.vital).count();
    assert!(torn.is_empty() || vital(torn) == vital(&possible), "{context}: {torn:?} of {possible:?}");
}

fn losses() -> Vec<Loss> {
    [Loss::Everything, Loss::Nothing].into_iter().chain((0..12).map(Loss::Some)).collect()
}

#[test]
fn a_power_cut_at_any_operation_keeps_everything_acknowledged() {
    for reserve_bytes in [0, 1500] {
        let config = JournalConfig { reserve_bytes, ..config() };
        let whole = SimDisk::new();
        run_with(&whole, config.clone(), LAST_GROUP, &mut 0).unwrap();
        assert!(whole.operations() > 25, "the script became trivial: {} operations", whole.operations());
        for cut_at in 0..whole.operations() {
            for loss in losses() {
                power_cut(&config, cut_at, loss);
            }
        }
    }
}

fn power_cut(config: &JournalConfig, cut_at: u64, loss: Loss) {
    let context = format!("power cut at operation {cut_at}, {loss:?}, reserve {}", config.reserve_bytes);
    let disk = SimDisk::new();
    disk.fail_power_after(cut_at);
    let mut acknowledged = 0;
    assert!(run_with(&disk, config.clone(), LAST_GROUP, &mut acknowledged).is_err());
    disk.crash(loss);
    let opened = open_with(&disk, config.clone());
    let (mut journal, _, records) = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
    let recovered = plain(&records);
    assert_recovered(&recovered, acknowledged, &context);

    // What was recovered is durable, and the journal goes on from there.
    let more = record(200, true, 600);
    journal.append(std::slice::from_ref(&more)).unwrap();
    journal.sync().unwrap();
    disk.crash(Loss::Everything);
    let opened = open_with(&disk, config.clone());
    let (_, report, records) = opened.unwrap_or_else(|error| panic!("{context}, again: {error}"));
    assert_eq!(plain(&records), [recovered, vec![more]].concat(), "{context}");
    assert_eq!((report.cut, report.repaired), (None, Vec::new()), "{context}");
}

#[test]
fn a_power_cut_during_recovery_loses_nothing_more() {
    for seed in 0..150 {
        let disk = SimDisk::new();
        disk.fail_power_after(5 + seed % 25);
        let mut acknowledged = 0;
        run(&disk, LAST_GROUP, &mut acknowledged).unwrap_err();
        disk.crash(Loss::Some(seed));
        for cut_at in 0.. {
            let again = disk.copy();
            again.fail_power_after(cut_at);
            let finished = open(&again).is_ok();
            again.crash(Loss::Some(seed ^ cut_at << 32));
            let context = format!("seed {seed}, power cut at operation {cut_at} of the recovery");
            let (.., records) = open(&again).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_recovered(&plain(&records), acknowledged, &context);
            if finished {
                break;
            }
        }
    }
}

#[test]
fn what_recovery_hands_out_survives_the_next_power_cut() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&group(1)).unwrap();
    disk.fail_sync_after(0);
    assert!(matches!(journal.sync(), Err(JournalError::Disk { doing: "sync", .. })));
    drop(journal);
    // The process ended, the machine did not: the group is read from memory that a later sync would not write.
    assert_eq!(plain(&open(&disk).unwrap().2), group(1));
    disk.crash(Loss::Everything);
    assert_eq!(plain(&open(&disk).unwrap().2), group(1));
}

/// Found by the simulated world: the sync of a new segment's header failed, the process was started again and wrote on,
/// and the next power cut took the header from under groups that had been acknowledged.
#[test]
fn a_header_whose_sync_failed_survives_the_next_power_cut() {
    let disk = SimDisk::new();
    disk.fail_sync_after(0);
    assert!(matches!(open(&disk), Err(JournalError::Disk { doing: "create", .. })));
    // The process ended, the machine did not: the header is read from memory that a later sync would not write.
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&group(1)).unwrap();
    journal.sync().unwrap();
    drop(journal);
    disk.crash(Loss::Everything);
    assert_eq!(plain(&open(&disk).unwrap().2), group(1));
}

#[test]
fn a_failed_sync_poisons_the_journal() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&group(1)).unwrap();
    disk.fail_sync_after(0);
    assert!(journal.sync().is_err());
    assert!(matches!(journal.sync(), Err(JournalError::Poisoned)));
    assert!(matches!(journal.append(&group(2)), Err(JournalError::Poisoned)));
    assert_eq!(journal.next_sequence(), 1);
}

#[test]
fn one_group_is_one_sync() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    let before = disk.syncs();
    journal.append(&group(2)).unwrap();
    journal.append(&group(3)).unwrap();
    journal.sync().unwrap();
    journal.sync().unwrap();
    assert_eq!(disk.syncs(), before + 1);
}

#[test]
fn a_full_disk_is_an_error_and_what_was_acknowledged_stays() {
    for capacity in (8192..40_000).step_by(777) {
        let disk = SimDisk::new();
        disk.set_capacity(Some(capacity));
        let mut acknowledged = 0;
        let full = run(&disk, LAST_GROUP, &mut acknowledged).unwrap_err();
        assert!(matches!(full, JournalError::Disk { .. }), "{full}");
        // Restarted while the disk is still full: it starts if there is room to complete the last group.
        match open(&disk) {
            Ok((.., records)) => assert_recovered(&plain(&records), acknowledged, "still full"),
            Err(JournalError::Disk { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::StorageFull),
            Err(error) => panic!("{error}"),
        }
        disk.set_capacity(None);
        disk.crash(Loss::Some(capacity));
        assert_recovered(&plain(&open(&disk).unwrap().2), acknowledged, "with space");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_repaired_and_reported() {
    // Two segments and every kind of group; of the headers, which are one checksum, every 13th byte.
    let disk = written_to(5);
    assert_eq!(disk.list().unwrap().len(), 2);
    let expected = groups(5);
    for name in disk.list().unwrap() {
        let size = disk.bytes(&name).unwrap().len();
        for offset in (0..8192).step_by(13).chain(8192..size) {
            let context = format!("bit flipped in byte {offset} of {name}");
            let damaged = disk.copy();
            assert!(damaged.flip_bit(&name, offset, offset as u8));
            let (_, report, records) = open(&damaged).unwrap_or_else(|error| panic!("{context}: {error}"));
            let found = plain(&records);
            assert!(is_subsequence(&found, &expected), "{context}: a wrong record passed");
            assert_eq!(report.cut, None, "{context}");
            let lost = expected.len() - found.len();
            assert_eq!(report.records_lost, lost as u64, "{context}");
            let vital = |records: &[Record]| records.iter().filter(|record| record.vital).count();
            assert_eq!(vital(&found), vital(&expected), "{context}");
            let [header, group] = [report.headers_repaired, report.repaired.len() as u32];
            assert_eq!([header, group], if offset < 8192 { [1, 0] } else { [0, 1] }, "{context}");
            if offset % 61 == 0 {
                let (_, report, records) = open(&damaged).unwrap();
                assert_eq!((report.repaired.len(), report.headers_repaired), (0, 0), "{context}: not repaired");
                assert_eq!((plain(&records), report.records_lost), (found, lost as u64), "{context}");
            }
        }
    }
}

/// Segment file, offset and shape of every group.
fn layout(disk: &SimDisk) -> Vec<(String, u64, frame::Shape)> {
    let mut places = Vec::new();
    for name in disk.list().unwrap() {
        let framing = Framing::new(&GENESIS, segment::number_of(&name).unwrap(), 512);
        let file = disk.open(&name).unwrap();
        let mut reader = SectorReader::new(&*file, &framing, 1 << 20);
        let mut offset = GROUPS_OFFSET;
        while let (Some(found), _) = reader.next_survivor(offset).unwrap() {
            places.push((name.clone(), offset, found.shape));
            offset += framing.bytes_of(found.shape.sectors);
        }
    }
    places
}

#[test]
fn both_copies_damaged_is_a_torn_tail_in_the_last_group_and_refused_before() {
    for disk in written_both_ways() {
        let places = layout(&disk);
        assert_eq!(places.len() as u64, LAST_GROUP);
        for (name, offset, shape) in &places {
            let damaged = disk.copy();
            let second = offset + u64::from(shape.sectors_a) * 512;
            for at in [*offset, second] {
                assert!(damaged.flip_bit(name, at as usize + 30, 3));
            }
            assert_refused_unless_last(&damaged, name, *offset, shape.sequence);
        }
    }
}

#[test]
fn a_lost_stretch_before_the_tail_is_refused() {
    for disk in written_both_ways() {
        for (name, offset, shape) in &layout(&disk) {
            let damaged = disk.copy();
            let mut bytes = disk.bytes(name).unwrap();
            let end = *offset as usize + shape.sectors as usize * 512;
            bytes[*offset as usize..end].fill(0xff);
            damaged.put(name, bytes);
            assert_refused_unless_last(&damaged, name, *offset, shape.sequence);
        }
    }
}

fn assert_refused_unless_last(damaged: &SimDisk, name: &str, offset: u64, sequence: u64) {
    let contents = || damaged.list().unwrap().iter().map(|name| damaged.bytes(name)).collect::<Vec<_>>();
    let before = contents();
    let opened = open(damaged);
    if sequence == LAST_GROUP {
        let (_, report, records) = opened.unwrap();
        assert_eq!(report.cut.map(|cut| (cut.file, cut.offset)), Some((name.to_owned(), offset)));
        assert_eq!(plain(&records), groups(LAST_GROUP - 1));
        return;
    }
    match opened.map(|_| ()) {
        Err(JournalError::Damaged { file, offset: at, sequence: group, .. }) => {
            assert_eq!((file.as_str(), at, group), (name, offset, sequence));
        }
        other => panic!("group {sequence}: {other:?}"),
    }
    assert_eq!(contents(), before, "a journal that is refused must stay as it was found");
}

#[test]
fn groups_taken_off_an_earlier_segment_are_missed_though_the_next_is_empty() {
    let disk = SimDisk::new();
    let one = JournalConfig { segment_bytes: 1 << 20, ..config() };
    run_with(&disk, one, LAST_GROUP, &mut 0).unwrap();
    let (name, offset, _) = layout(&disk).pop().unwrap();
    // A segment was begun, and the power failed before its first group.
    let header = Header { sector_bytes: 512, genesis: GENESIS, segment: 2, base: LAST_GROUP + 1 };
    header.create(&disk).unwrap();
    assert_eq!(plain(&open(&disk).unwrap().2), groups(LAST_GROUP));
    disk.put(&name, disk.bytes(&name).unwrap()[..offset as usize].to_vec());
    match open(&disk).map(|_| ()) {
        Err(JournalError::Damaged { file, offset: at, sequence, found: Damage::EarlyEnd }) => {
            assert_eq!((file, at, sequence), (name, offset, LAST_GROUP));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_of_another_journal_put_in_its_place_does_not_pass() {
    let disk = written();
    let other = SimDisk::new();
    let (mut journal, ..) = open_with(&other, JournalConfig { genesis: [8; 32], ..config() }).unwrap();
    for sequence in 1..=LAST_GROUP {
        let mut records = group(sequence);
        records.iter_mut().for_each(|record| record.bytes = vec![9; record.bytes.len()].into());
        journal.append(&records).unwrap();
        journal.sync().unwrap();
    }
    for (name, offset, shape) in layout(&disk) {
        let mixed = disk.copy();
        let mut bytes = disk.bytes(&name).unwrap();
        let stretch = offset as usize..offset as usize + shape.sectors as usize * 512;
        bytes[stretch.clone()].copy_from_slice(&other.bytes(&name).unwrap()[stretch]);
        mixed.put(&name, bytes);
        match open(&mixed) {
            Ok((.., records)) => assert_eq!(plain(&records), groups(LAST_GROUP - 1)),
            Err(error) => assert!(matches!(error, JournalError::Damaged { .. }), "{error}"),
        }
    }
}

#[test]
fn a_power_cut_during_a_repair_leaves_one_copy_good() {
    let disk = written();
    let (name, offset, shape) = layout(&disk).remove(1);
    assert_eq!(group(shape.sequence).iter().filter(|record| !record.vital).count(), 2);
    // In the middle of a record without a second copy.
    disk.flip_bit(&name, offset as usize + 700, 0);
    let vital = |records: Vec<Record>| records.into_iter().filter(|record| record.vital).collect::<Vec<_>>();
    for seed in 0..2000 {
        let damaged = disk.copy();
        damaged.fail_power_after(seed % 4);
        assert!(open(&damaged).is_err());
        damaged.crash(Loss::Some(seed));
        let (.., records) = open(&damaged).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(vital(plain(&records)), vital(groups(LAST_GROUP)), "seed {seed}");
        assert!(is_subsequence(&plain(&records), &groups(LAST_GROUP)), "seed {seed}");
    }
}

#[test]
fn a_cut_in_the_last_segment_keeps_every_group_before_it() {
    let disk = written();
    let name = disk.list().unwrap().pop().unwrap();
    let places = layout(&disk);
    let bytes = disk.bytes(&name).unwrap();
    for length in (0..8192).step_by(101).chain(8192..bytes.len()) {
        let cut = disk.copy();
        cut.put(&name, bytes[..length].to_vec());
        let whole_before = |(file, offset, shape): &&(String, u64, frame::Shape)| {
            *file != name || offset + u64::from(shape.sectors) * 512 <= length as u64
        };
        // Honest limit: groups behind the cut are gone, and the log alone cannot tell that they were acknowledged.
        let whole = places.iter().filter(whole_before).count() as u64;
        let (_, report, records) = open(&cut).unwrap_or_else(|error| panic!("cut to {length}: {error}"));
        assert_recovered(&plain(&records), whole, &format!("cut to {length} bytes"));
        let boundary = length <= 8192 || places.iter().any(|(file, at, _)| *file == name && *at == length as u64);
        let reported = report.cut.is_some() || !report.repaired.is_empty();
        assert!(boundary || reported, "a cut to {length} bytes was not reported");
    }
}

#[test]
fn a_cut_in_an_earlier_segment_is_repaired_or_refused() {
    let disk = written();
    let name = disk.list().unwrap().remove(0);
    let bytes = disk.bytes(&name).unwrap();
    let expected = groups(LAST_GROUP);
    for length in (0..bytes.len()).step_by(37) {
        let cut = disk.copy();
        cut.put(&name, bytes[..length].to_vec());
        match open(&cut) {
            Ok((_, report, records)) => {
                assert_eq!(report.records_lost as usize, expected.len() - records.len(), "cut to {length}");
                assert_eq!(report.repaired.len(), 1, "cut to {length}");
            }
            Err(JournalError::Damaged { .. }) => {}
            Err(error) => panic!("cut to {length}: {error}"),
        }
    }
}

#[test]
fn an_unfinished_next_segment_proves_the_one_before_complete() {
    let disk = written();
    let (name, offset, shape) = layout(&disk).pop().unwrap();
    for at in [offset, offset + u64::from(shape.sectors_a) * 512] {
        assert!(disk.flip_bit(&name, at as usize, 0));
    }
    let next = segment::file_name(segment::number_of(&name).unwrap() + 1);
    disk.put(&next, vec![0; 100]);
    assert!(matches!(open(&disk), Err(JournalError::Damaged { .. })));
}

/// Found by the simulated world: one bit in the zeros written ahead of a segment that is complete refused the start.
#[test]
fn a_bit_that_flips_behind_the_last_group_of_a_full_segment_costs_nothing() {
    let disk = SimDisk::new();
    let config = JournalConfig { reserve_bytes: 4096, ..config() };
    run_with(&disk, config.clone(), LAST_GROUP, &mut 0).unwrap();
    let full = segment::file_name(1);
    let end = layout(&disk)
        .into_iter()
        .filter(|(name, ..)| *name == full)
        .map(|(_, offset, shape)| offset + u64::from(shape.sectors) * 512);
    let (end, size) = (end.max().unwrap() as usize, disk.bytes(&full).unwrap().len());
    assert!(size > end, "nothing was written ahead");
    for offset in (end..size).step_by(97) {
        let damaged = disk.copy();
        assert!(damaged.flip_bit(&full, offset, offset as u8));
        let (_, report, records) = open_with(&damaged, config.clone()).unwrap();
        assert_eq!(plain(&records), groups(LAST_GROUP));
        assert_eq!((report.litter_cut, report.cut), (1, None));
        let (_, report, _) = open_with(&damaged, config.clone()).unwrap();
        assert_eq!(report.litter_cut, 0, "it is there again");
    }
}

/// Found by the simulated world: as before, and the power fails while the next segment is created. Its header says nothing
/// then, and the bit itself must.
#[test]
fn a_bit_that_flips_behind_a_full_segment_costs_nothing_even_if_the_next_is_not_made_yet() {
    let disk = SimDisk::new();
    let config = JournalConfig { reserve_bytes: 4096, ..config() };
    run_with(&disk, config.clone(), LAST_GROUP, &mut 0).unwrap();
    let (name, offset, shape) = layout(&disk).pop().unwrap();
    let (end, size) = ((offset + u64::from(shape.sectors) * 512) as usize, disk.bytes(&name).unwrap().len());
    assert!(size > end + 1024, "nothing was written ahead");
    disk.put(&segment::file_name(segment::number_of(&name).unwrap() + 1), vec![0; 20]);
    for offset in (end..size).step_by(97) {
        let damaged = disk.copy();
        assert!(damaged.flip_bit(&name, offset, offset as u8));
        let (_, report, records) = open_with(&damaged, config.clone()).unwrap();
        assert_eq!(plain(&records), groups(LAST_GROUP));
        assert_eq!((report.litter_cut, report.cut), (1, None));
        // Two bits may be what is left of a group.
        let worse = disk.copy();
        assert!(worse.flip_bit(&name, offset, 0) && worse.flip_bit(&name, offset, 1));
        assert!(matches!(open_with(&worse, config.clone()), Err(JournalError::Damaged { .. })), "at {offset}");
    }
}

#[test]
fn random_damage_never_lets_a_wrong_record_pass() {
    let disk = written();
    let expected = groups(LAST_GROUP);
    let names = disk.list().unwrap();
    for seed in 0..3000_u64 {
        let damaged = disk.copy();
        let mut random = seed;
        for _ in 0..=seed % 12 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let name = &names[(random >> 60) as usize % names.len()];
            let size = damaged.bytes(name).unwrap().len();
            damaged.flip_bit(name, (random >> 20) as usize % size, (random >> 50) as u8);
        }
        if let Ok((_, _, records)) = open(&damaged) {
            assert!(is_subsequence(&plain(&records), &expected), "seed {seed}");
        }
    }
}

#[test]
fn a_record_that_holds_a_journal_is_not_taken_for_one() {
    let inner = written();
    let bytes = inner.bytes(&inner.list().unwrap()[0]).unwrap();
    for shift in (0..512).step_by(24) {
        let disk = SimDisk::new();
        let (mut journal, ..) = open(&disk).unwrap();
        journal
            .append(&[record(1, false, shift), Record { kind: 2, vital: true, bytes: bytes.clone().into() }])
            .unwrap();
        journal.sync().unwrap();
        // The first sectors of both copies are gone: what a torn write looks like.
        let (name, offset, shape) = layout(&disk).remove(0);
        for at in [offset, offset + u64::from(shape.sectors_a) * 512] {
            disk.flip_bit(&name, at as usize + 100, 1);
        }
        let (_, report, records) = open(&disk).unwrap();
        assert_eq!(plain(&records), []);
        assert!(report.cut.is_some());
    }
}

#[test]
fn the_journal_of_another_chain_is_refused() {
    let disk = written();
    let other = JournalConfig { genesis: [8; 32], ..config() };
    match open_with(&disk, other).map(|_| ()) {
        Err(JournalError::OtherChain { found, expected, .. }) => {
            assert_eq!((found, expected), (hex::encode(GENESIS), hex::encode([8; 32])));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_missing_renamed_or_of_a_later_format_is_refused() {
    let disk = written();
    let names = disk.list().unwrap();
    assert!(names.len() >= 3);
    let missing = disk.copy();
    missing.remove(&names[1]).unwrap();
    assert!(matches!(open(&missing), Err(JournalError::Missing { file }) if file == names[1]));
    let renamed = disk.copy();
    renamed.put(&names[1], disk.bytes(&names[0]).unwrap());
    assert!(matches!(open(&renamed), Err(JournalError::Misplaced { file }) if file == names[1]));
    let later = disk.copy();
    let mut bytes = disk.bytes(&names[0]).unwrap();
    for copy in [0, 4096] {
        bytes[copy + 11] = 2;
        let checksum = crc32fast::hash(&bytes[copy..copy + 4092]);
        bytes[copy + 4092..copy + 4096].copy_from_slice(&checksum.to_be_bytes());
    }
    later.put(&names[0], bytes);
    assert!(matches!(open(&later), Err(JournalError::OtherFormat { found: 2, .. })));
}

#[test]
fn records_are_read_back_by_position_and_a_damaged_first_copy_is_read_from_the_second() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    let mut written = Vec::new();
    for sequence in 1..=LAST_GROUP {
        let records = group(sequence);
        assert_eq!(journal.position().unwrap(), journal.append(&records[..1]).unwrap()[0]);
        let first = Position::from_u64(journal.position().unwrap().to_u64() - 1);
        written.push((first, records[0].clone()));
        assert_eq!(journal.read(first).unwrap(), records[0], "not yet synced");
        assert!(journal.reader().read(first).is_err(), "a reader sees what is not synced");
        let rest = journal.append(&records[1..]).unwrap();
        written.extend(rest.into_iter().zip(records[1..].iter().cloned()));
        journal.sync().unwrap();
    }
    let reader = journal.reader();
    assert!(written.is_sorted_by_key(|(position, _)| *position));
    for (position, record) in &written {
        assert_eq!(&reader.read(*position).unwrap(), record, "{position}");
        assert_eq!(&journal.read(*position).unwrap(), record, "{position}");
        let beyond = Position::from_u64(position.to_u64() + 10);
        assert!(matches!(reader.read(beyond), Err(JournalError::NoRecord { .. })));
    }
    for number in [0, 1, 1 << 16, 1 << 40, 1 << 40 | 17 << 16, u64::MAX] {
        assert!(matches!(reader.read(Position::from_u64(number)), Err(JournalError::NoRecord { .. })), "{number}");
    }
    for (name, offset, shape) in layout(&disk) {
        for place in 0..u64::from(shape.sectors_a) {
            disk.flip_bit(&name, (offset + place * 512) as usize + 200, 0);
        }
    }
    for (position, record) in &written {
        match reader.read(*position) {
            Ok(found) => assert_eq!((&found, found.vital || found.bytes.is_empty()), (record, true)),
            Err(error) => assert!(matches!(error, JournalError::NoRecord { .. }) && !record.vital, "{error}"),
        }
    }
}

#[test]
fn reserved_zeros_are_no_tail() {
    let disk = SimDisk::new();
    let reserved = JournalConfig { reserve_bytes: 5000, ..config() };
    let (mut journal, ..) = open_with(&disk, reserved.clone()).unwrap();
    for sequence in 1..=LAST_GROUP {
        journal.append(&group(sequence)).unwrap();
        journal.sync().unwrap();
    }
    let (mut journal, report, records) = open_with(&disk, reserved.clone()).unwrap();
    assert_eq!((plain(&records), report.cut), (groups(LAST_GROUP), None));
    journal.append(&group(LAST_GROUP + 1)).unwrap();
    journal.sync().unwrap();
    assert_eq!(plain(&open_with(&disk, reserved).unwrap().2), groups(LAST_GROUP + 1));
}

#[test]
fn what_is_above_a_bound_is_refused_and_the_group_stays_as_it_was() {
    let disk = SimDisk::new();
    let (mut journal, ..) = open(&disk).unwrap();
    journal.append(&group(1)).unwrap();
    let large = Record { kind: 1, vital: false, bytes: vec![0; RECORD_BYTES_MAX + 1].into() };
    let refused = journal.append(&[group(2)[0].clone(), large]);
    assert!(matches!(refused, Err(JournalError::RecordTooLarge { bytes }) if bytes == RECORD_BYTES_MAX + 1));
    let most = Record { kind: 1, vital: false, bytes: vec![0; RECORD_BYTES_MAX].into() };
    let refused = journal.append(&vec![most; 4]);
    assert!(matches!(refused, Err(JournalError::GroupFull { records: 5, .. })));
    let small = Record { kind: 1, vital: false, bytes: Bytes::new() };
    let refused = journal.append(&vec![small; GROUP_RECORDS_MAX]);
    assert!(matches!(refused, Err(JournalError::GroupFull { .. })));
    journal.sync().unwrap();
    assert_eq!(plain(&open(&disk).unwrap().2), group(1));
}

#[test]
fn a_sector_size_the_format_does_not_know_is_refused() {
    let odd = JournalConfig { sector_bytes: 520, ..config() };
    assert!(matches!(open_with(&SimDisk::new(), odd), Err(JournalError::SectorSize { found: 520 })));
}

#[test]
fn a_journal_on_a_real_disk_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(crate::store::disk::RealDisk::open(folder.path()).unwrap());
    for last in [1, 2] {
        let mut found = Vec::new();
        let (mut journal, report) = Journal::open(disk.clone(), JournalConfig::new(GENESIS), &mut |_, record| {
            found.push(record);
            Ok::<(), Infallible>(())
        })
        .unwrap();
        assert_eq!((found, report.cut), (groups(last - 1), None));
        let positions = journal.append(&group(last)).unwrap();
        journal.sync().unwrap();
        assert_eq!(journal.reader().read(positions[0]).unwrap(), group(last)[0]);
    }
}
