//! A machine that asks for ranges of final blocks: whom, when, and what it takes of the answers. Rule S2.

use super::*;

#[test]
fn rule_s2_a_replica_does_not_ask_itself_for_blocks() {
    let (mut machine, _) = follower();
    let me = machine.agreement().me().unwrap();
    let own = have_at(me, 1, vec![Tip::START; 4], Height(9));
    let mut out = Vec::new();
    machine.handle(NOW, Event::Own(own), &mut out);
    machine.handle(later(1000), Event::Tick, &mut out);
    machine.handle(later(2000), Event::Tick, &mut out);
    assert!(!out.iter().any(|action| matches!(action, Action::Ask(..))));
    machine.handle(NOW, have(me, 2, vec![Tip::START; 4]), &mut Vec::new());
    let other = (me + 1) % 4;
    let from = Address([other as u8 + 1; 32]);
    machine.handle(NOW, Event::Message { from, message: have_at(other, 1, vec![Tip::START; 4], Height(9)) }, &mut out);
    machine.handle(later(3000), Event::Tick, &mut out);
    assert!(out.iter().any(|action| matches!(action, Action::Ask(asked, Fetch::Blocks { .. }) if *asked == from)));
}

/// Who is asked for ranges, in turn, by a replica that everybody tells of height 90, until `until` milliseconds. The second one
/// asked gives the next block each time, after `takes` milliseconds; nobody else gives any.
fn asked_for_ranges(until: u64, takes: u64) -> Vec<Address> {
    let (mut machine, mut header, mut batches) = first_block(0, 1000);
    machine.resume(NOW, &mut Vec::new());
    let mut out = Vec::new();
    let mut asked: Vec<Address> = Vec::new();
    let mut answer_at = None;
    for round in 0..until / 100 {
        let now = later(100 * round);
        for place in 1..4u32 {
            let from = Address([place as u8 + 1; 32]);
            let message = have_at(place, round + 1, vec![Tip::START; 4], Height(90));
            machine.handle(now, Event::Message { from, message }, &mut out);
        }
        machine.handle(now, Event::Tick, &mut out);
        for action in out.drain(..) {
            let Action::Ask(to, Fetch::Blocks { .. }) = action else { continue };
            asked.push(to);
            if asked.get(1) == Some(&to) {
                answer_at = Some(100 * round + takes);
            }
        }
        if answer_at.take_if(|at| *at <= 100 * round).is_some() {
            let block = Header::new(header.clone());
            let commit = Some(committed(&header));
            (header.height, header.view, header.parent) = (header.height.next(), header.view.next(), block.hash());
            header.time = header.time.next();
            let blocks = vec![FetchedBlock { header: block, batches: std::mem::take(&mut batches), commit }];
            machine.handle(now, Event::Blocks { from: asked[1], blocks }, &mut out);
        }
    }
    asked
}

/// A peer that is silent, and would be asked again in its turn, comes after those who answered.
#[test]
fn rule_s2_who_gave_no_blocks_in_time_is_asked_after_those_who_did() {
    let asked = asked_for_ranges(12_000, 100);
    assert!(asked.len() >= 4 && !asked[1..4].contains(&asked[0]), "{asked:?}");
}

/// A slow line does to the honest what silence does to liars, and one that gives a block at a time must not have all the turns then.
#[test]
fn rule_s2_who_gave_no_blocks_in_time_has_a_turn_again() {
    let asked = asked_for_ranges(120_000, 1500);
    for peer in &asked[..3] {
        let turns = asked.iter().filter(|one| *one == peer).count();
        assert!(turns >= 2, "{peer:?} had {turns} turns: {asked:?}");
    }
}

/// Another's answer may come right after this one was asked.
#[test]
fn rule_s2_who_was_asked_a_moment_ago_is_not_late() {
    let (mut machine, header, batches) = first_block(0, 1000);
    machine.resume(NOW, &mut Vec::new());
    let mut out = Vec::new();
    let mut asked: Vec<Address> = Vec::new();
    let mut ms = 0;
    while asked.len() < 2 {
        ms += 100;
        for place in 1..4u32 {
            let message = have_at(place, ms, vec![Tip::START; 4], Height(90));
            machine.handle(later(ms), Event::Message { from: Address([place as u8 + 1; 32]), message }, &mut out);
        }
        machine.handle(later(ms), Event::Tick, &mut out);
        let to = |action| if let Action::Ask(to, Fetch::Blocks { .. }) = action { Some(to) } else { None };
        asked.extend(out.drain(..).filter_map(to));
    }
    let failed = |machine: &Machine, peer| machine.peers[peer].range_failed_ms.is_some();
    assert!(failed(&machine, &asked[0]) && !failed(&machine, &asked[1]));
    let block = FetchedBlock { header: Header::new(header.clone()), batches, commit: Some(committed(&header)) };
    machine.handle(later(ms + 1), Event::Blocks { from: asked[0], blocks: vec![block] }, &mut out);
    assert_eq!(machine.status().final_height, Height(1));
    assert!(!failed(&machine, &asked[0]) && !failed(&machine, &asked[1]));
}

/// A chain of `count` blocks that each order `batches` batches of `bytes` bytes, with a certificate for the last one only.
fn stretch(count: u64, batches: u64, bytes: usize) -> (Machine, Vec<FetchedBlock>) {
    let (machine, mut header, _) = first_block(0, 1000);
    let mut blocks = Vec::new();
    let mut tip = Tip::START;
    for height in 1..=count {
        let payload: Vec<Batch> = (0..batches)
            .map(|_| {
                let batch = Batch::new(Epoch(0), 1, tip, vec![Bytes::from(vec![height as u8; bytes])]);
                tip = batch.tip();
                batch
            })
            .collect();
        header.cut[1] = tip;
        let block = Header::new(header.clone());
        let commit = (height == count).then(|| committed(&header));
        (header.height, header.view, header.parent) = (Height(height + 1), View(height + 1), block.hash());
        header.time = header.time.next();
        blocks.push(FetchedBlock { header: block, batches: payload, commit });
    }
    (machine, blocks)
}

fn without_payload(blocks: &[FetchedBlock]) -> impl Iterator<Item = FetchedBlock> {
    blocks.iter().map(|block| FetchedBlock { batches: Vec::new(), ..block.clone() })
}

/// What range it asks for, among what it does.
fn range_asked(out: &[Action]) -> Option<(Address, Height)> {
    out.iter().find_map(|action| match action {
        Action::Ask(to, Fetch::Blocks { from, .. }) => Some((*to, *from)),
        _ => None,
    })
}

/// What range it asks for when it hears that all others are at height 90.
fn ask_for_range(machine: &mut Machine) -> Option<(Address, Height)> {
    ask_of_those_at(machine, Height(90))
}

fn ask_of_those_at(machine: &mut Machine, height: Height) -> Option<(Address, Height)> {
    let mut out = Vec::new();
    for ms in (0..2000).step_by(100) {
        for place in 1..4u32 {
            let message = have_at(place, ms + 1, vec![Tip::START; 4], height);
            machine.handle(later(ms), Event::Message { from: Address([place as u8 + 1; 32]), message }, &mut out);
        }
    }
    range_asked(&out)
}

/// It is given `blocks` by whom it asked, a moment after. What it does, and what range it asks for next.
fn give(machine: &mut Machine, asked: &mut (Address, Height), blocks: Vec<FetchedBlock>) -> Vec<Action> {
    let mut out = Vec::new();
    machine.handle(later(2000), Event::Blocks { from: asked.0, blocks }, &mut out);
    if let Some(next) = range_asked(&out) {
        *asked = next;
    }
    out
}

/// From where it asks for a range after the first block is executed.
fn asked_once_executed(machine: &mut Machine) -> Option<Height> {
    let mut out = Vec::new();
    let executed = Executed { height: Height(1), state_root: Hash::of(b"state"), receipts_root: Hash::of(b"receipts") };
    let validators = machine.config.genesis_validators.clone();
    machine.handle(later(2000), Event::Executed { executed, validators }, &mut out);
    machine.handle(later(2100), Event::Tick, &mut out);
    range_asked(&out).map(|(_, from)| from)
}

fn heights_executed(out: &[Action]) -> Vec<u64> {
    let height = |action: &Action| if let Action::Execute(order) = action { Some(order.header.height.0) } else { None };
    out.iter().filter_map(height).collect()
}

/// Blocks that are final only as ancestors may be any number, and their payload more than an answer can carry: headers alone
/// make them final, and payload comes with one answer after the other.
#[test]
fn rule_s2_a_stretch_without_certificates_becomes_final_by_its_headers() {
    let (mut machine, blocks) = stretch(7, 2, 8);
    machine.resume(NOW, &mut Vec::new());
    let mut asked = ask_for_range(&mut machine).unwrap();
    for whole in [1..4, 4..6, 6..8] {
        assert_eq!(asked.1, Height(whole.start));
        let (first, last) = (whole.start as usize - 1, whole.end as usize - 1);
        let mut answer = blocks[first..last].to_vec();
        answer.extend(without_payload(&blocks[last..]));
        let out = give(&mut machine, &mut asked, answer);
        assert!(!out.iter().any(|action| matches!(action, Action::Dropped(_))), "{out:?}");
        assert_eq!(heights_executed(&out), whole.collect::<Vec<u64>>());
        assert_eq!(machine.status().final_height, Height(7));
    }
    assert_eq!(asked.1, Height(8));
}

/// Whoever gives no payload of the block that waits first gets no other payload kept.
#[test]
fn rule_s2_no_payload_is_gathered_behind_a_gap() {
    let (mut machine, blocks) = stretch(6, 2, 8);
    machine.resume(NOW, &mut Vec::new());
    let mut asked = ask_for_range(&mut machine).unwrap();
    // Final by headers alone, and more on top of them.
    let mut answer: Vec<FetchedBlock> = without_payload(&blocks[..4]).collect();
    answer[3].commit = Some(committed(blocks[3].header.fields()));
    give(&mut machine, &mut asked, answer);
    assert_eq!((machine.status().final_height, machine.kept().batches, asked.1), (Height(4), 0, Height(1)));
    for (without, kept) in [(0, 0), (2, 4)] {
        let mut answer = blocks.clone();
        answer[without].batches.clear();
        give(&mut machine, &mut asked, answer);
        assert_eq!((machine.status().final_height, machine.kept().batches), (Height(6), kept));
        assert_eq!(asked.1, Height(without as u64 + 1));
    }
}

/// A block whose batches do not fit it ends what can be used of an answer.
#[test]
fn rule_s2_payload_that_does_not_fit_its_block_is_not_taken_for_none() {
    let (mut machine, mut blocks) = stretch(3, 2, 8);
    machine.resume(NOW, &mut Vec::new());
    blocks[1].batches.pop();
    let mut asked = ask_for_range(&mut machine).unwrap();
    let out = give(&mut machine, &mut asked, blocks);
    assert_eq!((machine.status().final_height, machine.kept().batches), (Height(0), 0));
    assert!(out.iter().any(|action| matches!(action, Action::Dropped(crate::Reject::BadBlocks))));
}

/// Execution sets the pace, also of few blocks with much payload: what waits for it is held in memory.
#[test]
fn rule_s2_no_more_blocks_are_asked_for_while_much_payload_waits_for_execution() {
    // 96 MiB in three blocks: after two of them another may be asked for.
    let (mut machine, mut blocks) = stretch(3, 31, 1 << 20);
    machine.resume(NOW, &mut Vec::new());
    for block in &mut blocks {
        block.commit = Some(committed(block.header.fields()));
    }
    let mut asked = ask_for_range(&mut machine).unwrap();
    let mut last = Vec::new();
    for (height, block) in (1..).zip(blocks) {
        assert_eq!(asked.1, Height(height));
        last = give(&mut machine, &mut asked, vec![block]);
    }
    assert_eq!((machine.status().final_height, range_asked(&last)), (Height(3), None));
    assert_eq!(asked_once_executed(&mut machine), Some(Height(4)));
}

/// The same where headers have made them final: each is a gap, and given out as soon as it is filled.
#[test]
fn rule_s2_no_gap_is_asked_about_while_much_payload_is_being_executed() {
    let (mut machine, blocks) = stretch(4, 31, 1 << 20);
    machine.resume(NOW, &mut Vec::new());
    let mut asked = ask_for_range(&mut machine).unwrap();
    give(&mut machine, &mut asked, without_payload(&blocks).collect());
    let mut last = Vec::new();
    for (height, block) in (1..4).zip(blocks) {
        assert_eq!(asked.1, Height(height));
        last = give(&mut machine, &mut asked, vec![block]);
        assert_eq!(heights_executed(&last), [height]);
    }
    assert_eq!(range_asked(&last), None);
    assert_eq!(asked_once_executed(&mut machine), Some(Height(4)));
}

/// Whoever is asked for the payload of a block and gives headers instead, more of them each time, does not have all the turns.
#[test]
fn rule_s2_who_gives_headers_only_where_payload_waits_is_asked_after_the_others() {
    let (mut machine, blocks) = stretch(6, 2, 8);
    machine.resume(NOW, &mut Vec::new());
    let mut asked = ask_for_range(&mut machine).unwrap();
    let bare = |machine: &mut Machine, asked: &mut (Address, Height), count: usize| {
        let mut answer: Vec<FetchedBlock> = without_payload(&blocks[..count]).collect();
        let last = answer.last_mut().unwrap();
        last.commit = Some(committed(last.header.fields()));
        give(machine, asked, answer);
    };
    bare(&mut machine, &mut asked, 2);
    let liar = asked.0;
    bare(&mut machine, &mut asked, 4);
    assert_eq!((machine.status().final_height, asked.1), (Height(4), Height(1)));
    assert!(machine.peers[&liar].range_failed_ms.is_some() && asked.0 != liar);
    // Payload alone counts as an answer, also of one that came late.
    let honest = asked.0;
    machine.note_failure(honest);
    give(&mut machine, &mut asked, blocks[..1].to_vec());
    assert!(machine.peers[&honest].range_failed_ms.is_none() && asked.1 == Height(2));
}

/// On a slow line answers end before their certificate: that is then asked for without any payload.
#[test]
fn rule_s2_after_an_answer_that_proves_nothing_the_proof_comes_first() {
    let (mut machine, blocks) = stretch(5, 2, 8);
    machine.resume(NOW, &mut Vec::new());
    let mut asked = ask_for_range(&mut machine).unwrap();
    let out = give(&mut machine, &mut asked, blocks[..2].to_vec());
    let to = |out: &[Action]| {
        out.iter().find_map(|action| match action {
            Action::Ask(_, Fetch::Blocks { from, to }) => Some((*from, *to)),
            _ => None,
        })
    };
    assert_eq!(to(&out), Some((Height(1), Height(0))));
    // Whoever knows none, or gives no answer, does not end that.
    let out = give(&mut machine, &mut asked, Vec::new());
    assert_eq!(to(&out), Some((Height(1), Height(0))));
    let mut out = Vec::new();
    machine.handle(later(20_000), Event::Tick, &mut out);
    asked = range_asked(&out).unwrap();
    assert_eq!(to(&out), Some((Height(1), Height(0))));
    let out = give(&mut machine, &mut asked, without_payload(&blocks).collect());
    assert_eq!((machine.status().final_height, to(&out)), (Height(5), Some((Height(1), Height(1).plus(FETCH_BLOCKS)))));
}

/// Whoever claims to have blocks for one question and none for the next takes no turn of those who have them all the time.
#[test]
fn rule_s2_no_claim_takes_the_turns_of_others() {
    const QUESTIONS: u64 = 9;
    for (liar, claims) in (1..4u32).flat_map(|liar| (0..1u32 << QUESTIONS).map(move |claims| (liar, claims))) {
        let (mut machine, blocks) = stretch(QUESTIONS, 1, 8);
        machine.resume(NOW, &mut Vec::new());
        let mut turns = [0; 4];
        let mut asked = None;
        for question in 0..QUESTIONS {
            let mut out = Vec::new();
            for place in 1..4u32 {
                let height = if place == liar && claims >> question & 1 == 0 { Height::ZERO } else { Height(90) };
                let message = have_at(place, question + 1, vec![Tip::START; 4], height);
                machine.handle(NOW, Event::Message { from: Address([place as u8 + 1; 32]), message }, &mut out);
            }
            let one = asked.get_or_insert_with(|| range_asked(&out).unwrap());
            turns[usize::from(one.0.0[0]) - 1] += 1;
            let mut block = blocks[question as usize].clone();
            block.commit = Some(committed(block.header.fields()));
            give(&mut machine, one, vec![block]);
        }
        let honest = (1..4).filter(|place| *place != liar as usize);
        assert!(honest.into_iter().all(|place| turns[place] >= 3), "{liar} claims {claims:b}: {turns:?}");
    }
}

/// The silent could all wait for their first turn, and would follow one upon the other, each with a longer pause.
#[test]
fn rule_s2_after_a_pause_in_vain_one_is_asked_who_gave() {
    for honest in 1..4u32 {
        let (mut machine, blocks) = stretch(3, 1, 8);
        machine.resume(NOW, &mut Vec::new());
        let name = |place: u32| Address([place as u8 + 1; 32]);
        let tell = |machine: &mut Machine, ms: u64, places: &[u32]| {
            let mut out = Vec::new();
            for place in places {
                let message = have_at(*place, ms, vec![Tip::START; 4], Height(90));
                machine.handle(later(ms), Event::Message { from: name(*place), message }, &mut out);
            }
            range_asked(&out)
        };
        let mut asked = tell(&mut machine, 1, &[honest]).unwrap();
        let all = [1, 2, 3];
        tell(&mut machine, 2, &all);
        let mut block = blocks[0].clone();
        block.commit = Some(committed(block.header.fields()));
        give(&mut machine, &mut asked, vec![block]);
        let first = asked.0;
        assert_ne!(first, name(honest));
        let mut out = Vec::new();
        machine.handle(later(4000), Event::Tick, &mut out);
        assert_eq!(range_asked(&out), Some((name(honest), Height(2))));
        // It is silent this time, like all others: the one that had no turn yet is next.
        out.clear();
        machine.handle(later(8000), Event::Tick, &mut out);
        let (last, _) = range_asked(&out).unwrap();
        assert!(last != first && last != name(honest));
        // Who gave once and is silent by now is one of the silent.
        out.clear();
        machine.handle(later(16_000), Event::Tick, &mut out);
        assert_eq!(range_asked(&out), Some((first, Height(2))));
    }
}

/// Pauses for one who claims what nobody else has grow long; they end when somebody else claims it, too.
#[test]
fn rule_s2_nobody_is_kept_waiting_by_one_who_is_asked_again_and_again() {
    let (mut machine, _) = stretch(1, 1, 8);
    machine.resume(NOW, &mut Vec::new());
    let tell = |machine: &mut Machine, ms: u64, place: u32| {
        let mut out = Vec::new();
        let message = have_at(place, ms, vec![Tip::START; 4], Height(90));
        machine.handle(later(ms), Event::Message { from: Address([place as u8 + 1; 32]), message }, &mut out);
        range_asked(&out).map(|(to, _)| to)
    };
    let liar = Address([2; 32]);
    assert_eq!(tell(&mut machine, 1, 1), Some(liar));
    let mut times = Vec::new();
    for ms in (100..65_000).step_by(100) {
        let mut out = Vec::new();
        machine.handle(later(ms), Event::Tick, &mut out);
        times.extend(range_asked(&out).map(|(to, _)| (to, ms)));
    }
    assert_eq!(times, [2100, 6100, 14_100, 30_100, 62_100].map(|ms| (liar, ms)));
    assert_eq!(tell(&mut machine, 65_000, 2), Some(Address([3; 32])));
    // With a pause as short as the first.
    let mut out = Vec::new();
    machine.handle(later(66_900), Event::Tick, &mut out);
    assert_eq!((range_asked(&out), tell(&mut machine, 66_950, 3)), (None, None));
    machine.handle(later(67_000), Event::Tick, &mut out);
    assert!(range_asked(&out).is_some());
}

/// On a slow line each question more leaves less of it for those before: the pauses between them grow until one block may take as
/// long as a driver waits for it.
#[test]
fn rule_s2_on_a_slow_line_there_are_few_questions_at_once() {
    let (mut machine, _) = stretch(1, 1, 8);
    machine.resume(NOW, &mut Vec::new());
    ask_for_range(&mut machine).unwrap();
    let mut pauses = Vec::new();
    let mut last = 0;
    for ms in (2000..160_000).step_by(100) {
        let mut out = Vec::new();
        machine.handle(later(ms), Event::Tick, &mut out);
        if range_asked(&out).is_some() {
            pauses.push(ms - last);
            last = ms;
        }
    }
    assert_eq!(pauses, [2000, 4000, 8000, 16_000, 32_000, 40_000, 40_000]);
}

/// Nor does the end of one that was given up on, and brought nothing, call for another.
#[test]
fn rule_s2_the_end_of_a_question_that_was_given_up_on_calls_for_no_other() {
    let (mut machine, _) = stretch(1, 1, 8);
    machine.resume(NOW, &mut Vec::new());
    let (first, _) = ask_for_range(&mut machine).unwrap();
    let mut out = Vec::new();
    machine.handle(later(2000), Event::Tick, &mut out);
    let (second, _) = range_asked(&out).unwrap();
    out.clear();
    machine.handle(later(3000), Event::Blocks { from: first, blocks: Vec::new() }, &mut out);
    machine.handle(later(5900), Event::Tick, &mut out);
    assert_eq!(range_asked(&out), None);
    // That of the last one does.
    machine.handle(later(5950), Event::Blocks { from: second, blocks: Vec::new() }, &mut out);
    assert!(range_asked(&out).is_some());
}

/// No block orders more batches than rule P2.3 allows, whatever an answer says and whoever certified it.
#[test]
fn rule_s2_a_block_that_orders_more_than_is_allowed_is_not_looked_at() {
    for (batches, height) in [(BLOCK_BATCHES_MAX, 1), (BLOCK_BATCHES_MAX + 1, 0)] {
        let (mut machine, blocks) = stretch(1, batches, 8);
        machine.resume(NOW, &mut Vec::new());
        let mut asked = ask_for_range(&mut machine).unwrap();
        give(&mut machine, &mut asked, blocks);
        assert_eq!(machine.status().final_height, Height(height));
    }
}

/// Seed 6023812: payload that nobody streams any more is asked for block by block, and not a pause later each time.
#[test]
fn rule_s2_behind_payload_that_was_asked_for_the_next_is_asked_for_at_once() {
    let (mut machine, blocks) = stretch(4, 2, 8);
    machine.resume(NOW, &mut Vec::new());
    // Final by headers that came one by one.
    blocks.iter().for_each(|block| machine.keep_header(&block.header, &mut Vec::new()));
    let message = Message::Certificates { entry: None, highest_commit: blocks[3].commit.clone() };
    machine.handle(NOW, Event::Message { from: Address([2; 32]), message }, &mut Vec::new());
    assert_eq!(machine.status().final_height, Height(4));
    let mut asked = ask_of_those_at(&mut machine, Height(4)).unwrap();
    for height in 1..=4 {
        assert_eq!(asked.1, Height(height));
        let out = give(&mut machine, &mut asked, vec![blocks[height as usize - 1].clone()]);
        assert_eq!(heights_executed(&out), [height]);
    }
}

/// The same seed: what lies above an epoch's last block cannot be judged before the validators of the next are known, whoever gives
/// it.
#[test]
fn rule_s2_above_an_epoch_nothing_is_asked_for_before_the_next_can_be_entered() {
    let (mut machine, header, batches) = short_epochs();
    machine.resume(NOW, &mut Vec::new());
    let mut next = header.clone();
    (next.epoch, next.height, next.parent) = (Epoch(1), Height(2), Header::new(header.clone()).hash());
    (next.time, next.cut) = (UnixMillis(header.time.0 + 1), vec![Tip::START; 4]);
    let block = |fields: &HeaderFields, batches| FetchedBlock {
        header: Header::new(fields.clone()),
        batches,
        commit: Some(committed(fields)),
    };
    let mut asked = ask_for_range(&mut machine).unwrap();
    assert_eq!(asked.1, Height(1));
    give(&mut machine, &mut asked, vec![block(&header, batches)]);
    assert_eq!(asked.1, Height(2));
    let out = give(&mut machine, &mut asked, vec![block(&next, Vec::new())]);
    assert_eq!((machine.status().final_height, machine.agreement().epoch()), (Height(2), Epoch(1)));
    assert_eq!((heights_executed(&out), range_asked(&out)), (vec![2], None));
    let mut out = Vec::new();
    (2000..30_000).step_by(50).for_each(|ms| machine.handle(later(ms), Event::Tick, &mut out));
    assert_eq!(range_asked(&out), None);
    let executed = Executed { height: Height(1), state_root: Hash::of(b"state"), receipts_root: Hash::of(b"receipts") };
    let validators = machine.config.genesis_validators.clone();
    machine.handle(later(30_000), Event::Executed { executed, validators }, &mut out);
    machine.handle(later(30_100), Event::Tick, &mut out);
    assert_eq!(machine.agreement().epoch(), Epoch(2));
    assert_eq!(range_asked(&out).map(|(_, from)| from), Some(Height(3)));
}

/// What it cannot enter the next epoch without is asked for all the same, but only of those who have executed it: nobody else gives it.
#[test]
fn rule_s2_payload_that_an_epoch_waits_for_is_asked_of_those_who_have_executed_it() {
    let (mut machine, header, batches) = short_epochs();
    machine.resume(NOW, &mut Vec::new());
    let mut next = header.clone();
    (next.epoch, next.height, next.parent) = (Epoch(1), Height(2), Header::new(header.clone()).hash());
    (next.time, next.cut) = (UnixMillis(header.time.0 + 1), vec![Tip::START; 4]);
    let [first, second] = [&header, &next].map(|fields| FetchedBlock {
        header: Header::new(fields.clone()),
        batches: Vec::new(),
        commit: Some(committed(fields)),
    });
    let tell = |machine: &mut Machine, ms: u64, executed: u64| {
        let (tips, view, counter) = (vec![Tip::START; 4], View(1), ms);
        let (executed, final_height) = (Height(executed), Height(90));
        let epoch = machine.agreement().epoch();
        let vector = HaveVector { epoch, counter, tips, executed, view, final_height };
        let have = vector.signed(&Hash::ZERO, 1, |_| Signature([1; 64]));
        let mut out = Vec::new();
        let message = Message::Have(Arc::new(have));
        machine.handle(later(ms), Event::Message { from: Address([2; 32]), message }, &mut out);
        machine.handle(later(ms + 10), Event::Tick, &mut out);
        range_asked(&out)
    };
    let mut asked = tell(&mut machine, 100, 0).unwrap();
    for (height, block) in [(1, &first), (2, &second)] {
        assert_eq!(asked.1, Height(height));
        give(&mut machine, &mut asked, vec![block.clone()]);
    }
    assert_eq!((machine.status().final_height, machine.agreement().epoch()), (Height(2), Epoch(1)));
    assert_eq!(tell(&mut machine, 4000, 0), None);
    asked = tell(&mut machine, 5000, 1).unwrap();
    assert_eq!(asked.1, Height(1));
    // It has executed it and not put it where it is read from: nobody is asked until he says more.
    let mut out = Vec::new();
    machine.handle(later(5020), Event::Blocks { from: asked.0, blocks: Vec::new() }, &mut out);
    (5021..7000).for_each(|ms| machine.handle(later(ms), Event::Tick, &mut out));
    assert_eq!(range_asked(&out), None);
    asked = tell(&mut machine, 7000, 1).unwrap();
    let out = give(&mut machine, &mut asked, vec![FetchedBlock { batches, ..first }]);
    assert_eq!(heights_executed(&out), [1, 2]);
}
