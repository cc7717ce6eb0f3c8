//! A machine that lacks something: a header, a payload, its journal.

use super::*;

/// In the journal a batch may come after the certificate of its block: the epoch is over by then, and what is held below the
/// gap is part of the block all the same.
#[test]
fn rule_r1_what_a_final_block_waits_for_outlives_its_epoch() {
    for order in [[0, 1, 2], [0, 2, 1], [2, 0, 1], [1, 0, 2]] {
        let (mut machine, header, batches) = short_epochs();
        let stored = |place: usize| Record::Stored(batches[place].clone());
        let mut out = Vec::new();
        for record in [
            stored(order[0]),
            stored(order[1]),
            Record::Header(Header::new(header.clone())),
            Record::Certificate(committed(&header)),
            stored(order[2]),
        ] {
            assert!(executed_lanes(&out).is_empty());
            machine.replay(record, &mut out).unwrap();
        }
        assert_eq!(machine.agreement().epoch(), Epoch(1));
        assert_eq!(executed_lanes(&out)[1], batches, "{order:?}");
    }
}

/// A journal leads through epochs whose validators it names, however far execution is behind. A block that waits for its
/// payload is taken from peers as a whole, and both that and its execution need the validators of its epoch.
#[test]
fn rule_s2_a_block_that_waits_keeps_the_validators_of_its_epoch() {
    let (mut machine, header, batches) = short_epochs();
    let set = machine.config.genesis_validators.clone();
    let (first, commit) = (Header::new(header.clone()), committed(&header));
    let mut next = header.clone();
    (next.epoch, next.height, next.parent) = (Epoch(1), Height(2), first.hash());
    (next.time, next.cut) = (UnixMillis(header.time.0 + 1), vec![Tip::START; 4]);
    let mut out = Vec::new();
    for record in [
        Record::Header(first.clone()),
        Record::Certificate(commit.clone()),
        Record::Validators(Epoch(2), set),
        Record::Header(Header::new(next.clone())),
        Record::Certificate(committed(&next)),
    ] {
        machine.replay(record, &mut out).unwrap();
    }
    machine.resume(NOW, &mut out);
    assert_eq!(machine.agreement().epoch(), Epoch(2));
    let told = out.iter().rev().find_map(|action| if let Action::Sets(sets) = action { Some(sets) } else { None });
    let mut blocks = vec![FetchedBlock { header: first, batches: batches.clone(), commit: Some(commit) }];
    assert!(matches!(told.unwrap().judge_blocks(&Hash::of(b"genesis"), &mut blocks), Judgement::Check(_)));
    assert_eq!(blocks.len(), 1, "a block of a known epoch is not cut off");

    // A peer that claims to have it is asked once it has been missed for a while.
    let vector = HaveVector {
        epoch: Epoch(2),
        counter: 1,
        tips: vec![Tip::START; 4],
        executed: Height(2),
        view: View(1),
        final_height: Height(2),
    };
    let have = vector.signed(&Hash::ZERO, 1, |_| Signature([1; 64]));
    let peer = Address([2; 32]);
    let later = Now { mono_ms: NOW.mono_ms + machine.config.resend_ms, unix: NOW.unix };
    machine.handle(NOW, Event::Message { from: peer, message: Message::Have(Arc::new(have)) }, &mut out);
    machine.handle(later, Event::Tick, &mut out);
    let wanted = Fetch::Blocks { from: Height(1), to: Height(1).plus(FETCH_BLOCKS) };
    assert!(out.iter().any(|action| matches!(action, Action::Ask(asked, fetch) if *asked == peer && *fetch == wanted)));
    out.clear();
    machine.handle(later, Event::Blocks { from: peer, blocks }, &mut out);
    assert_eq!(executed_lanes(&out)[1], batches);
}

/// What it may propose depends on ancestors that a certificate it came by late has made its own.
#[test]
fn rule_s0_a_leader_asks_for_the_ancestors_of_its_parent() {
    let (machine, _) = follower();
    let mut machine =
        Machine::new(config(machine.leader_of(View(6))), Voting::Allowed, machine.config.genesis_executed);
    machine.resume(NOW, &mut Vec::new());
    let tell = |machine: &mut Machine, entry: Arc<Certificate>| {
        let message = Message::Certificates { entry: Some(entry), highest_commit: None };
        machine.handle(NOW, Event::Message { from: Address([1; 32]), message }, &mut Vec::new());
    };
    tell(&mut machine, gave_up(4));
    // It gives view 5 up without a prepare certificate: it may not commit what was prepared there, nor look at its ancestors
    // for that.
    let params = machine.config.params.clone();
    let timeout = later(64 * (params.idle_interval_ms + params.view_timeout_ms));
    machine.handle(timeout, Event::Tick, &mut Vec::new());
    assert!(machine.agreement().gave_up_here());
    let mut header = good_header(&machine, machine.leader_of(View(5)));
    (header.height, header.view, header.parent) = (Height(2), View(5), Hash::of(b"prepared in view 3"));
    let header = Header::new(header);
    tell(&mut machine, prepared(5, header.hash()));
    let mut out = Vec::new();
    machine.handle(timeout, Event::Headers(vec![header.clone()]), &mut out);
    assert!(out.iter().any(|action| matches!(action, Action::Persist(Record::Header(kept)) if *kept == header)));
    let asks = |action: &Action| matches!(action, Action::Ask(_, Fetch::Headers(hashes)) if *hashes == [header.parent]);
    assert!(out.iter().any(asks), "{out:?}");
}

/// HAVEs of a quorum may all be old: one validator that speaks of an epoch unknown here shows it.
#[test]
fn rule_r3_while_anybody_speaks_of_unknown_epochs_an_observer_learns_nothing() {
    let config = config(3);
    let executed = config.genesis_executed;
    let mut machine = Machine::new(config, Voting::From(None), executed);
    machine.resume(NOW, &mut Vec::new());
    machine.handle(NOW, have(0, 1, vec![Tip::START; 4]), &mut Vec::new());
    machine.handle(NOW, Event::Ahead { from: Address([1; 32]) }, &mut Vec::new());
    machine.handle(NOW, have(1, 1, vec![Tip::START; 4]), &mut Vec::new());
    machine.handle(NOW, have(2, 1, vec![Tip::START; 4]), &mut Vec::new());
    assert_eq!(machine.voting(), Voting::From(None));
    machine.handle(NOW, have(0, 2, vec![Tip::START; 4]), &mut Vec::new());
    assert_eq!(machine.voting(), Voting::From(Some(Epoch(2))));
}

/// Those asked, in the order of asking, when nobody answers, at each of `times`.
fn asked_for_header(machine: &mut Machine, hash: Hash, times: &[u64]) -> Vec<Vec<Address>> {
    let mut asked = Vec::new();
    for (at, ms) in times.iter().enumerate() {
        let mut out = Vec::new();
        if at == 0 {
            let mut entry = (*prepared(1, hash)).clone();
            let last = CertificateSignature { signer: 3, ..entry.signatures[0] };
            entry.signatures.push(last);
            let message = Message::Certificates { entry: Some(Arc::new(entry)), highest_commit: None };
            machine.handle(later(*ms), Event::Message { from: Address([1; 32]), message }, &mut out);
        }
        machine.handle(later(*ms), Event::Tick, &mut out);
        let to = |action: &Action| match action {
            Action::Ask(to, Fetch::Headers(hashes)) if *hashes == [hash] => Some(*to),
            _ => None,
        };
        asked.push(out.iter().filter_map(to).collect());
    }
    asked
}

/// Liars may be the first asked. They must not be the first for everybody, nor cost a wait each.
#[test]
fn what_is_missing_is_asked_of_twice_as_many_each_time_in_an_order_of_its_own() {
    let mut first_asked = std::collections::BTreeSet::new();
    for name in 0..32u8 {
        let (mut machine, _) = follower();
        let me = machine.config.me.unwrap();
        let resend = machine.config.resend_ms;
        let times = [0, resend - 1, resend, 2 * resend, 4 * resend - 1, 4 * resend];
        let mut asked = asked_for_header(&mut machine, Hash::of(&[name]), &times);
        let again = asked.split_off(3);
        assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 2]);
        let mut all = asked.concat();
        first_asked.insert(all[0]);
        // Everybody who signed, but itself; then all of it again, slower.
        assert_eq!(again.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(again.concat(), all);
        all.sort_unstable();
        let others: Vec<Address> = (1..=4).map(|name| Address([name; 32])).filter(|other| *other != me).collect();
        assert_eq!(all, others);
    }
    assert_eq!(first_asked.len(), 3);
}

/// What a snapshot covers is not executed again; its results are needed only as long as a header can name them.
#[test]
fn rule_s3_results_taken_back_from_the_journal_go_once_no_header_can_name_them() {
    let (machine, mut header, _) = first_block(0, 1000);
    let result = |height: u64| Executed {
        height: Height(height),
        state_root: Hash::of(&[height as u8]),
        receipts_root: Hash::of(b"receipts"),
    };
    let mut machine = Machine::new(machine.config.clone(), Voting::Allowed, result(50));
    header.cut = vec![Tip::START; 4];
    let mut last = header.clone();
    for height in 1..=50 {
        last = header.clone();
        let block = Header::new(header.clone());
        machine.replay(Record::Header(block.clone()), &mut Vec::new()).unwrap();
        (header.height, header.view, header.parent) = (Height(height + 1), View(height + 1), block.hash());
        (header.time, header.executed) = (header.time.next(), result(height));
    }
    // One certificate for all of them: what execution led to comes after it.
    machine.replay(Record::Certificate(committed(&last)), &mut Vec::new()).unwrap();
    for height in 1..=50 {
        machine.replay(Record::Executed(result(height)), &mut Vec::new()).unwrap();
    }
    let kept = machine.kept();
    assert_eq!((kept.unexecuted, kept.unreleased, kept.results), (0, 1, 2));
}

/// One peer may have them all, and tells them again and again.
#[test]
fn rule_p4_lower_commits_above_a_gap_are_not_written_down_in_a_circle() {
    let (mut machine, mut header, _) = first_block(0, 1000);
    machine.resume(NOW, &mut Vec::new());
    let mut out = Vec::new();
    let mut tell = |machine: &mut Machine, commit: &Arc<Certificate>| {
        let message = Message::Certificates { entry: None, highest_commit: Some(commit.clone()) };
        machine.handle(NOW, Event::Message { from: Address([2; 32]), message }, &mut out);
        out.drain(..).filter(|action| matches!(action, Action::Persist(Record::Certificate(_)))).count()
    };
    header.cut = vec![Tip::START; 4];
    header.parent = Hash::of(b"missing");
    let mut commits = Vec::new();
    for height in 2..=2 + LOWER_COMMITS_MAX as u64 + 1 {
        (header.height, header.view) = (Height(height), View(height));
        let block = Header::new(header.clone());
        machine.keep_header(&block, &mut Vec::new());
        commits.push(committed(&header));
        header.parent = block.hash();
    }
    // One of a block far above raises the floor.
    (header.height, header.view) = (Height(50), View(50));
    assert_eq!(tell(&mut machine, &committed(&header)), 1);
    let written: usize = (0..3).flat_map(|_| &commits).map(|commit| tell(&mut machine, commit)).sum();
    assert_eq!(written, commits.len());
}
