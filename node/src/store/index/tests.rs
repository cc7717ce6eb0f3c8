//! The index against what was applied to it, and against damage.

use std::fs;

use redb::{Database, ReadableTable as _};

use super::{
    file::{BLOCKS, HASHES, META, META_FORMAT},
    *,
};

const GENESIS: [u8; 32] = [5; 32];

fn hash(parts: &[u64]) -> [u8; 32] {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_be_bytes()).collect();
    *tally_types::Hash::of(&bytes).as_bytes()
}

fn account(number: u64) -> [u8; 32] {
    hash(&[1, number])
}

/// Transaction `index` of block `height` touches accounts `index` and 100.
fn block(height: u64) -> IndexedBlock {
    let transaction = |index: u64| IndexedTransaction {
        id: hash(&[2, height, index]),
        receipt: vec![index as u8; 20],
        bytes: vec![height as u8; 190],
        accounts: vec![account(index), account(100)],
    };
    IndexedBlock {
        height,
        hash: hash(&[3, height]),
        header: vec![height as u8; 300],
        commit: height.is_multiple_of(2).then(|| vec![9; 200]),
        transactions: (0..height % 7).map(transaction).collect(),
        batches: vec![height << 40, height],
    }
}

fn blocks(range: std::ops::RangeInclusive<u64>) -> Vec<IndexedBlock> {
    range.map(block).collect()
}

/// Asks everything of the index; the answers, or the first error.
fn answers(index: &Index, last: u64) -> Result<Vec<String>, IndexError> {
    let mut answers = vec![format!("{:?}", index.height()?)];
    for height in 0..=last + 1 {
        answers.push(format!("{:?}", index.block(height)?));
        answers.push(format!("{:?}", index.block_height_by_hash(&hash(&[3, height]))?));
        answers.push(format!("{:?}", index.transactions_of_block(height, 0, 100)?));
        answers.push(format!("{:?}", index.transaction(&hash(&[2, height, 1]))?));
    }
    for number in [0, 3, 100] {
        for order in [Order::OldestFirst, Order::NewestFirst] {
            answers.push(format!("{:?}", index.history(&account(number), Place::FIRST..=Place::LAST, order, 50)?));
        }
    }
    Ok(answers)
}

#[test]
fn what_was_applied_is_found_by_every_key() {
    let index = Index::in_memory(&GENESIS).unwrap();
    assert_eq!(index.height().unwrap(), None);
    index.add(blocks(4..=5)).unwrap();
    index.add(blocks(6..=20)).unwrap();
    all_are_found(&index);
    index.write_out().unwrap();
    assert_eq!(index.recent().first(), None);
    all_are_found(&index);
}

fn all_are_found(index: &Index) {
    assert_eq!(index.height().unwrap(), Some(20));
    let bare = |height| IndexedBlock { transactions: Vec::new(), ..block(height) };
    assert_eq!(index.block(12).unwrap(), Some(bare(12)));
    assert_eq!(index.block(3).unwrap(), None);
    assert_eq!(index.blocks(10, 12, 9).unwrap(), [bare(10), bare(11), bare(12)]);
    assert_eq!(index.blocks(10, 12, 2).unwrap(), [bare(10), bare(11)]);
    assert_eq!(index.blocks(12, 10, 2).unwrap(), []);
    assert_eq!(index.block_height_by_hash(&hash(&[3, 12])).unwrap(), Some(12));
    assert_eq!(index.block_height_by_hash(&[0; 32]).unwrap(), None);

    let place = Place { height: 12, index: 2 };
    let expected = &block(12).transactions[2];
    let found =
        FoundTransaction { place, id: expected.id, receipt: expected.receipt.clone(), bytes: expected.bytes.clone() };
    assert_eq!(index.transaction(&expected.id).unwrap(), Some(found.clone()));
    assert_eq!(index.transaction_at(place).unwrap(), found);
    assert_eq!(index.transaction(&[0; 32]).unwrap(), None);
    assert_eq!(index.transactions_of_block(12, 2, 1).unwrap(), [found]);
    assert_eq!(index.transactions_of_block(12, 1, 100).unwrap().len(), 4);

    let places = |heights: &[u64]| heights.iter().map(|height| Place { height: *height, index: 4 }).collect::<Vec<_>>();
    let all = Place::FIRST..=Place::LAST;
    assert_eq!(
        index.history(&account(4), all.clone(), Order::OldestFirst, 9).unwrap(),
        places(&[5, 6, 12, 13, 19, 20])
    );
    assert_eq!(index.history(&account(4), all.clone(), Order::NewestFirst, 2).unwrap(), places(&[20, 19]));
    let middle = Place { height: 6, index: 4 }..=Place { height: 13, index: 3 };
    assert_eq!(index.history(&account(4), middle, Order::NewestFirst, 9).unwrap(), places(&[12, 6]));
    assert_eq!(index.history(&account(5), all, Order::OldestFirst, 9).unwrap().len(), 3);
}

#[test]
fn a_block_out_of_order_changes_nothing() {
    let index = Index::in_memory(&GENESIS).unwrap();
    index.add(blocks(1..=5)).unwrap();
    let before = answers(&index, 9).unwrap();
    for _ in 0..2 {
        let gap = vec![block(6), block(8)];
        assert!(matches!(index.add(gap), Err(IndexError::OutOfOrder { expected: 7, found: 8 })));
        assert!(matches!(index.add(vec![block(5)]), Err(IndexError::OutOfOrder { expected: 6, found: 5 })));
        assert_eq!(answers(&index, 9).unwrap(), before);
        index.write_out().unwrap();
    }
    let file = &index.file;
    assert!(matches!(file.apply(&[block(6), block(8)]), Err(IndexError::OutOfOrder { expected: 7, found: 8 })));
    assert!(matches!(file.apply(&[block(5)]), Err(IndexError::OutOfOrder { expected: 6, found: 5 })));
    let many = blocks(6..=6 + APPLY_BLOCKS_MAX as u64);
    assert!(matches!(file.apply(&many), Err(IndexError::TooManyBlocks { .. })));
    assert_eq!(answers(&index, 9).unwrap(), before);
}

#[test]
fn what_is_in_memory_and_what_is_in_the_file_answer_alike() {
    let written = Index::in_memory(&GENESIS).unwrap();
    written.add(blocks(1..=40)).unwrap();
    written.write_out().unwrap();
    let all = Place::FIRST..=Place::LAST;
    for border in 0..=40 {
        let index = Index::in_memory(&GENESIS).unwrap();
        index.add(blocks(1..=border)).unwrap();
        index.write_out().unwrap();
        index.add(blocks(border + 1..=40)).unwrap();
        assert_eq!(answers(&index, 40).unwrap(), answers(&written, 40).unwrap(), "border at {border}");
        for (first, last, limit) in [(0, 99, 99), (3, 30, 5), (20, 21, 9), (19, 40, 1), (30, 20, 9)] {
            let ask = |index: &Index| index.blocks(first, last, limit).unwrap();
            assert_eq!(ask(&index), ask(&written), "border at {border}");
            let place = |height| Place { height, index: 3 };
            for range in [all.clone(), place(first)..=place(last)] {
                for order in [Order::OldestFirst, Order::NewestFirst] {
                    let ask = |index: &Index| index.history(&account(100), range.clone(), order, limit).unwrap();
                    assert_eq!(ask(&index), ask(&written), "border at {border}, {range:?} {order:?}");
                }
            }
        }
    }
}

#[test]
fn queries_see_every_block_once_while_it_is_written_out() {
    let index = Index::in_memory(&GENESIS).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for height in 1..=600 {
                index.add(vec![block(height)]).unwrap();
                if height % 3 == 0 {
                    index.write_out().unwrap();
                }
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        while !done.load(std::sync::atomic::Ordering::Acquire) {
            let height = index.height().unwrap().unwrap_or(0);
            let from = height.saturating_sub(10).max(1);
            let heights: Vec<_> = index.blocks(from, height, 99).unwrap().iter().map(|block| block.height).collect();
            assert_eq!(heights, (from..=height).collect::<Vec<_>>());
            let range = Place { height: from, index: 0 }..=Place { height, index: u32::MAX };
            let places = index.history(&account(100), range, Order::NewestFirst, 99).unwrap();
            let expected =
                (from..=height).rev().flat_map(|height| (0..height % 7).rev().map(move |index| (height, index)));
            assert_eq!(
                places.iter().map(|place| (place.height, u64::from(place.index))).collect::<Vec<_>>(),
                expected.collect::<Vec<_>>()
            );
        }
    });
}

#[test]
fn enough_blocks_or_enough_transactions_are_due() {
    let index = Index::in_memory(&GENESIS).unwrap();
    let empty = |height| IndexedBlock { transactions: Vec::new(), ..block(height) };
    index.add((1..512).map(empty).collect()).unwrap();
    assert!(!index.is_due());
    index.add(vec![empty(512)]).unwrap();
    assert!(index.is_due() && !index.is_overdue());
    index.write_out().unwrap();
    assert!(!index.is_due());
    let full = |height| {
        let one = |number: u64| IndexedTransaction { id: hash(&[height, number]), ..block(5).transactions.remove(0) };
        IndexedBlock { transactions: (0..8192).map(one).collect(), ..block(height) }
    };
    index.add(vec![full(513)]).unwrap();
    assert!(index.is_due() && !index.is_overdue());
    index.add((514..=516).map(full).collect()).unwrap();
    assert!(index.is_overdue());
}

#[test]
fn an_index_deleted_and_rebuilt_answers_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.redb");
    let index = Index::open(&file, &GENESIS).unwrap();
    (1..=30).for_each(|height| index.add(vec![block(height)]).unwrap());
    index.write_out().unwrap();
    let before = answers(&index, 30).unwrap();
    drop(index);
    assert_eq!(answers(&Index::open(&file, &GENESIS).unwrap(), 30).unwrap(), before, "after a clean end");
    Index::delete(&file).unwrap();
    Index::delete(&file).unwrap();
    let index = Index::open(&file, &GENESIS).unwrap();
    assert_eq!(index.height().unwrap(), None);
    index.add(blocks(1..=30)).unwrap();
    assert_eq!(answers(&index, 30).unwrap(), before);
}

#[test]
fn a_killed_process_falls_back_to_what_was_written_out_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let [file, copy] = ["index.redb", "copy.redb"].map(|name| folder.path().join(name));
    let mut index = Index::open(&file, &GENESIS).unwrap();
    index.add(blocks(1..=10)).unwrap();
    index.write_out().unwrap();
    index.add(blocks(11..=20)).unwrap();
    fs::copy(&file, &copy).unwrap();
    let mut killed = Index::open(&copy, &GENESIS).unwrap();
    assert_eq!(killed.height().unwrap(), Some(10));
    killed.add(blocks(11..=20)).unwrap();
    killed.write_out().unwrap();
    assert_eq!(answers(&killed, 20).unwrap(), answers(&index, 20).unwrap());
    killed.verify().unwrap();
    index.verify().unwrap();
}

#[test]
fn an_index_of_another_chain_or_format_says_that_rebuilding_helps() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.redb");
    drop(Index::open(&file, &GENESIS).unwrap());
    let error = Index::open(&file, &[6; 32]).unwrap_err();
    assert!(matches!(&error, IndexError::OtherChain { found } if *found == hex::encode(GENESIS)), "{error}");
    assert!(error.is_cured_by_rebuilding());
    let index = Index::open(&file, &GENESIS).unwrap();
    assert!(matches!(Index::open(&file, &GENESIS), Err(IndexError::InUse)));
    assert!(!IndexError::InUse.is_cured_by_rebuilding());
    let later = |database: &Database| {
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert(META_FORMAT, 2_u64.to_be_bytes().as_slice())?;
        Ok(transaction.commit()?)
    };
    index.file.guarded(later).unwrap();
    drop(index);
    let error = Index::open(&file, &GENESIS).unwrap_err();
    assert!(matches!(error, IndexError::OtherFormat { found: 2 }), "{error}");
}

#[test]
fn a_height_whose_block_does_not_check_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.redb");
    let index = IndexFile::open(&file, &GENESIS).unwrap();
    index.apply(&blocks(1..=9)).unwrap();
    // As one flipped bit of the last key would have it.
    let flipped = |database: &Database| {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(BLOCKS)?;
            let value = table.remove(9)?.map(|value| value.value().to_vec()).unwrap();
            table.insert(9 | 1 << 40, value.as_slice())?;
        }
        Ok(transaction.commit()?)
    };
    index.guarded(flipped).unwrap();
    drop(index);
    let error = Index::open(&file, &GENESIS).unwrap_err();
    assert!(error.is_cured_by_rebuilding(), "{error}");
}

#[test]
fn a_hash_that_leads_to_another_block_is_not_believed() {
    let index = IndexFile::in_memory(&GENESIS).unwrap();
    index.apply(&blocks(1..=9)).unwrap();
    let hash = block(5).hash;
    assert_eq!(index.block_height_by_hash(&hash).unwrap(), Some(5));
    for other in [4, 1 << 40] {
        let flipped = |database: &Database| {
            let transaction = database.begin_write()?;
            transaction.open_table(HASHES)?.insert(hash, other)?;
            Ok(transaction.commit()?)
        };
        index.guarded(flipped).unwrap();
        let error = index.block_height_by_hash(&hash).unwrap_err();
        assert!(error.is_cured_by_rebuilding(), "{error}");
    }
}

#[test]
fn a_reader_keeps_its_snapshot_while_blocks_are_written() {
    let file = IndexFile::in_memory(&GENESIS).unwrap();
    file.apply(&blocks(1..=5)).unwrap();
    let seen = file.read(|transaction| {
        file.apply(&blocks(6..=9))?;
        Ok(transaction.open_table(BLOCKS)?.iter()?.count())
    });
    assert_eq!((seen.unwrap(), file.height().unwrap()), (5, Some(9)));
}

#[test]
fn a_damaged_file_is_an_error_or_answers_right_and_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let [file, copy] = ["index.redb", "copy.redb"].map(|name| folder.path().join(name));
    let index = IndexFile::open(&file, &GENESIS).unwrap();
    (1..=60).for_each(|height| index.apply(&[block(height)]).unwrap());
    drop(index);
    let bytes = fs::read(&file).unwrap();
    let (mut refused, mut panicked) = (0, 0);
    for seed in 0..250_u64 {
        let mut damaged = bytes.clone();
        let random = |salt: u64| u64::from_be_bytes(*hash(&[seed, salt]).first_chunk().unwrap()) as usize;
        match seed % 5 {
            0 => damaged.truncate(random(0) % bytes.len()),
            1 => damaged[..4096].iter_mut().skip(random(0) % 400).take(8).for_each(|byte| *byte ^= 0x55),
            2 => (0..400).for_each(|salt| damaged[random(salt) % bytes.len()] ^= 1 << (salt % 8)),
            3 => {
                let page = random(0) % (bytes.len() / 4096) * 4096;
                damaged[page..page + 4096].fill(seed as u8);
            }
            _ => damaged = vec![seed as u8; random(0) % 9000 + 1],
        }
        fs::write(&copy, &damaged).unwrap();
        let found = IndexFile::open(&copy, &GENESIS).and_then(|index| {
            for height in 0..=61 {
                let expected = (1..=60).contains(&height).then(|| block(height));
                let bare = expected.clone().map(|block| IndexedBlock { transactions: Vec::new(), ..block });
                let held = index.block(height)?;
                assert!(held.is_none() || held == bare, "seed {seed}: wrong block {height}");
                for found in index.transactions_of_block(height, 0, 10)? {
                    let expected = &expected.as_ref().unwrap().transactions[found.place.index as usize];
                    assert_eq!((found.id, &found.bytes), (expected.id, &expected.bytes), "seed {seed}");
                }
                index.transaction(&hash(&[2, height, 1]))?;
            }
            index.history(&account(100), Place::FIRST..=Place::LAST, Order::NewestFirst, 50)?;
            let next = index.height()?.map_or(1, |height| height + 1);
            index.apply(&[block(next)])
        });
        if let Err(error) = found {
            assert!(error.is_cured_by_rebuilding() || matches!(error, IndexError::Disk(_)), "seed {seed}: {error}");
            refused += 1;
            panicked += u32::from(error.to_string().contains("panicked"));
        }
    }
    println!("{refused} of 250 refused, {panicked} of them by a panic inside redb");
    assert!(refused > 100, "only {refused} of 250 damaged files were noticed");
}
