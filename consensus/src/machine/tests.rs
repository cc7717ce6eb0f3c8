//! One machine alone, told what a leader proposes: it votes, waits, or gives up.

mod catching_up;
mod finality;
mod ranges;

use bytes::Bytes;
use tally_types::{
    Amount, Params, PublicKey, Signature, Stake, UnixMillis, Validator, Vote, VoteKind,
    certificate::CertificateSignature, have::HaveVector, header::HeaderFields,
};

use super::*;
use crate::{
    config::{BLOCK_BATCHES_MAX, FETCH_BLOCKS, OPEN_HEADERS_MAX},
    event::{Fetch, FetchedBlock, Message},
    verify::Judgement,
};

const NOW: Now = Now { mono_ms: 1000, unix: UnixMillis(1_000_000) };

fn config(me: u32) -> Config {
    let member = |name: u8| Validator { address: Address([name; 32]), key: PublicKey([name; 32]), stake: Stake(1) };
    let set = ValidatorSet::new((1..=4).map(member).collect()).unwrap();
    let genesis_executed =
        Executed { height: Height(0), state_root: Hash::of(b"state"), receipts_root: Hash::of(b"receipts") };
    Config {
        me: set.get(me).map(|member| member.address),
        genesis_hash: Hash::of(b"genesis"),
        genesis_time: UnixMillis(1000),
        genesis_executed,
        genesis_validators: set,
        params: Params { base_fee: Amount::ZERO.0, ..Params::default() },
        batch_delay_ms: 10,
        block_interval_ms: 25,
        heartbeat_ms: 1000,
        resend_ms: 500,
        waiting_bytes_max: 1 << 20,
    }
}

/// A machine that does not lead view 1, and the leader's place.
fn follower() -> (Machine, u32) {
    let leader = config(0).genesis_validators.leader(&Hash::of(b"genesis"), Epoch(0), View(1));
    let config = config((leader + 1) % 4);
    let executed = config.genesis_executed;
    let mut machine = Machine::new(config, Voting::Allowed, executed);
    machine.resume(NOW, &mut Vec::new());
    (machine, leader)
}

fn good_header(machine: &Machine, leader: u32) -> HeaderFields {
    let set = machine.agreement().set();
    HeaderFields {
        epoch: Epoch(0),
        height: Height(1),
        view: View(1),
        parent: machine.config.genesis_hash,
        proposer: leader,
        time: NOW.unix,
        cut: vec![Tip::START; 4],
        executed: machine.config.genesis_executed,
        validators: set.hash(),
        next_validators: set.hash(),
    }
}

fn proposal(header: HeaderFields, highest_commit: Option<Arc<Certificate>>) -> Event {
    let proposal = Proposal {
        epoch: Epoch(0),
        view: View(1),
        header: Header::new(header),
        justification: None,
        justification_bytes: Bytes::new(),
        signature: Signature([7; 64]),
        highest_commit,
    };
    Event::Message { from: Address([1; 32]), message: Message::Proposal(Arc::new(proposal)) }
}

fn have(signer: u32, counter: u64, tips: Vec<Tip>) -> Event {
    Event::Message { from: Address([signer as u8 + 1; 32]), message: have_at(signer, counter, tips, Height(0)) }
}

fn have_at(signer: u32, counter: u64, tips: Vec<Tip>, final_height: Height) -> Message {
    let vector = HaveVector { epoch: Epoch(0), counter, tips, executed: final_height, view: View(1), final_height };
    Message::Have(Arc::new(vector.signed(&Hash::ZERO, signer, |_| Signature([signer as u8; 64]))))
}

/// What is done to a good header.
type Change = fn(&mut HeaderFields);

fn ballots(actions: &[Action]) -> Vec<Ballot> {
    let ballot = |action: &Action| match action {
        Action::Sign(Unsigned::Ballot { ballot, .. }) => Some(*ballot),
        _ => None,
    };
    // What is sent again is the same ballot.
    let mut ballots: Vec<_> = actions.iter().filter_map(ballot).collect();
    ballots.dedup();
    ballots
}

fn judged(change: impl FnOnce(&mut HeaderFields)) -> Vec<Ballot> {
    let (mut machine, leader) = follower();
    let mut header = good_header(&machine, leader);
    change(&mut header);
    let mut out = Vec::new();
    machine.handle(NOW, proposal(header, None), &mut out);
    ballots(&out)
}

#[test]
fn rule_p2_a_good_proposal_is_prepared_and_what_it_needs_is_durable_first() {
    let (mut machine, leader) = follower();
    let header = good_header(&machine, leader);
    let hash = Header::new(header.clone()).hash();
    let mut out = Vec::new();
    machine.handle(NOW, proposal(header, None), &mut out);
    assert_eq!(ballots(&out), [Ballot::Prepare(View(1), hash)]);
    let at = |wanted: &dyn Fn(&Action) -> bool| out.iter().position(wanted).unwrap();
    let header = at(&|action| matches!(action, Action::Persist(Record::Header(_))));
    let prepared = at(&|action| matches!(action, Action::Persist(Record::Prepared { .. })));
    let sign = at(&|action| matches!(action, Action::Sign(Unsigned::Ballot { .. })));
    assert!(header < sign && prepared < sign);
}

#[test]
fn rule_p2_each_broken_rule_is_an_invalid_proposal() {
    let given_up = [Ballot::ViewChange(View(1), View(0))];
    let rules: [(&str, Change); 11] = [
        ("parent", |h| h.parent = Hash::of(b"other")),
        ("height", |h| h.height = Height(2)),
        ("epoch", |h| h.epoch = Epoch(1)),
        ("view", |h| h.view = View(2)),
        ("proposer", |h| h.proposer = (h.proposer + 1) % 4),
        ("validators", |h| h.validators = Hash::of(b"other")),
        ("lanes", |h| h.cut.truncate(3)),
        ("P2.3 limit", |h| h.cut[0] = Tip { seq: tally_types::Seq(33), digest: Hash::of(b"tip") }),
        ("P2.4 roots of the parent's height", |h| h.executed.state_root = Hash::of(b"other")),
        ("P2.5 time", |h| h.time = UnixMillis(1000)),
        ("next validators", |h| h.next_validators = Hash::ZERO),
    ];
    for (name, change) in rules {
        assert_eq!(judged(change), given_up, "{name}");
    }
}

#[test]
fn rule_p2_what_may_still_come_is_waited_for() {
    assert_eq!(judged(|h| h.cut[0] = Tip { seq: tally_types::Seq(1), digest: Hash::of(b"tip") }), []);
    assert_eq!(judged(|h| h.time = UnixMillis(NOW.unix.0 + 1001)), []);
    assert_eq!(judged(|h| h.time = UnixMillis(NOW.unix.0 + 1000)).len(), 1);

    let (mut machine, leader) = follower();
    let mut header = good_header(&machine, leader);
    let tip = Tip { seq: tally_types::Seq(1), digest: Hash::of(b"tip") };
    header.cut[0] = tip;
    let mut out = Vec::new();
    machine.handle(NOW, proposal(header, None), &mut out);
    machine.handle(NOW, have(0, 1, vec![tip, Tip::START, Tip::START, Tip::START]), &mut out);
    assert_eq!(ballots(&out), []);
    machine.handle(NOW, have(leader, 2, vec![tip, Tip::START, Tip::START, Tip::START]), &mut out);
    machine.handle(NOW, have((leader + 2) % 4, 2, vec![tip, Tip::START, Tip::START, Tip::START]), &mut out);
    assert!(matches!(ballots(&out)[..], [Ballot::Prepare(View(1), _)]));
}

fn prepared(view: u64, block: Hash) -> Arc<Certificate> {
    let part = |signer| CertificateSignature { signer, highest_view: View(0), signature: Signature([1; 64]) };
    Arc::new(Certificate {
        kind: VoteKind::Prepare,
        epoch: Epoch(0),
        view: View(view),
        block,
        signatures: (0..3).map(part).collect(),
        highest: None,
    })
}

/// Proposes `fields` in their view on top of `justification`, and returns the ballots cast.
fn propose(
    machine: &mut Machine,
    fields: HeaderFields,
    justification: Option<Arc<Certificate>>,
    highest_commit: Option<Arc<Certificate>>,
) -> Vec<Ballot> {
    let proposal = Proposal {
        epoch: Epoch(0),
        view: fields.view,
        header: Header::new(fields),
        justification_bytes: justification.as_ref().map(|one| Bytes::from(one.encode())).unwrap_or_default(),
        justification,
        signature: Signature([7; 64]),
        highest_commit,
    };
    let mut out = Vec::new();
    let message = Message::Proposal(Arc::new(proposal));
    machine.handle(NOW, Event::Message { from: Address([1; 32]), message }, &mut out);
    ballots(&out)
}

/// A validator that says something else of its lane to each, and a leader that holds it: who can link nothing prepares what
/// those who can have prepared.
#[test]
fn rule_d4_a_weak_quorum_of_prepares_vouches_for_the_tips_of_a_block() {
    let (mut machine, leader) = follower();
    let me = machine.agreement().me().unwrap();
    let mut header = good_header(&machine, leader);
    header.cut[0] = Tip { seq: tally_types::Seq(32), digest: Hash::of(b"tip") };
    let block = Header::new(header.clone()).hash();
    let mut out = Vec::new();
    machine.handle(NOW, proposal(header, None), &mut out);
    let mut vote = |signer: u32, block: Hash, out: &mut Vec<Action>| {
        let signature = Signature([signer as u8; 64]);
        let vote = Vote { kind: VoteKind::Prepare, epoch: Epoch(0), view: View(1), block, signer, signature };
        machine.handle(NOW, Event::Message { from: Address([1; 32]), message: Message::Vote(vote) }, out);
    };
    let others: Vec<u32> = (0..4).filter(|place| *place != me).collect();
    vote(others[0], block, &mut out);
    vote(others[1], Hash::of(b"another block"), &mut out);
    assert_eq!(ballots(&out), []);
    vote(others[2], block, &mut out);
    assert_eq!(ballots(&out)[0], Ballot::Prepare(View(1), block));
}

/// The commit certificate of a proposal is not signed: whoever passes the proposal on can leave it out.
#[test]
fn rule_p2_4_a_proposal_without_its_commit_certificate_waits_for_execution() {
    let (mut machine, header, batches) = blocks_of_three();
    for batch in &batches {
        machine.replay(Record::Stored(batch.clone()), &mut Vec::new()).unwrap();
    }
    machine.resume(NOW, &mut Vec::new());
    let first = Header::new(header.clone());
    let mut second = header.clone();
    (second.height, second.view, second.parent) = (Height(2), View(2), first.hash());
    (second.proposer, second.time) = (machine.leader_of(View(2)), UnixMillis(header.time.0 + 1));
    second.executed = Executed { height: Height(1), state_root: Hash::of(b"new"), receipts_root: Hash::of(b"new") };
    let mut out = Vec::new();
    machine.handle(NOW, proposal(header.clone(), None), &mut out);
    let block = Header::new(second.clone()).hash();
    let cast = propose(&mut machine, second.clone(), Some(prepared(1, first.hash())), None);
    assert!(cast.iter().all(|ballot| ballot.view() == View(1)), "{cast:?}");
    let message = Message::Certificates { entry: None, highest_commit: Some(committed(&header)) };
    machine.handle(NOW, Event::Message { from: Address([1; 32]), message }, &mut out);
    out.clear();
    let validators = machine.config.genesis_validators.clone();
    machine.handle(NOW, Event::Executed { executed: second.executed, validators }, &mut out);
    assert_eq!(ballots(&out), [Ballot::Prepare(View(2), block)]);
}

#[test]
fn rule_p2_4_the_executed_height_never_falls() {
    let (mut machine, leader) = follower();
    let mut first = good_header(&machine, leader);
    first.executed.height = Height(3);
    let block = Header::new(first.clone()).hash();
    // It waits: this replica has not executed that far.
    assert_eq!(propose(&mut machine, first.clone(), None, None), []);
    let mut second = first;
    (second.height, second.view, second.parent) = (Height(2), View(2), block);
    second.time = UnixMillis(second.time.0 + 1);
    second.proposer = machine.leader_of(View(2));
    second.executed.height = Height(2);
    let cast = propose(&mut machine, second, Some(prepared(1, block)), None);
    assert_eq!(cast[0], Ballot::ViewChange(View(2), View(1)));
}

#[test]
fn rule_p2_6_lanes_stand_still_while_execution_lags_and_an_empty_block_is_always_allowed() {
    for moves in [false, true] {
        let mut config = config(0);
        config.params.execution_window = 4;
        let executed = config.genesis_executed;
        let mut machine = Machine::new(config, Voting::Allowed, executed);
        machine.resume(NOW, &mut Vec::new());
        let mut fields = good_header(&machine, machine.leader_of(View(1)));
        let mut justification = None;
        for view in 1..=5 {
            fields.view = View(view);
            fields.height = Height(view);
            fields.proposer = machine.leader_of(View(view));
            fields.time = UnixMillis(NOW.unix.0 + view);
            let lags = view == 5;
            if lags && moves {
                fields.cut[1] = Tip { seq: tally_types::Seq(1), digest: Hash::of(b"tip") };
            }
            let block = Header::new(fields.clone()).hash();
            let cast = propose(&mut machine, fields.clone(), justification.take(), None);
            let prepare = Ballot::Prepare(View(view), block);
            let expected = if lags && moves { Ballot::ViewChange(View(5), View(4)) } else { prepare };
            assert_eq!(
                cast.iter().find(|ballot| ballot.view() == View(view) && ballot.kind() != VoteKind::Commit),
                Some(&expected)
            );
            fields.parent = block;
            justification = Some(prepared(view, block));
        }
    }
}

#[test]
fn rule_p3_a_block_is_committed_only_with_its_payload() {
    let (mut machine, leader) = follower();
    let lane = (leader + 2) % 4;
    let batch = Batch::new(Epoch(0), lane, Tip::START, vec![Bytes::from_static(b"transaction")]);
    let mut fields = good_header(&machine, leader);
    fields.cut[lane as usize] = batch.tip();
    let block = Header::new(fields.clone()).hash();
    let mut tips = vec![Tip::START; 4];
    tips[lane as usize] = batch.tip();
    for place in (0..4).filter(|place| *place != (leader + 1) % 4) {
        machine.handle(NOW, have(place, 1, tips.clone()), &mut Vec::new());
    }
    assert_eq!(propose(&mut machine, fields, None, None), [Ballot::Prepare(View(1), block)]);
    let mut out = Vec::new();
    let message = Message::Certificates { entry: Some(prepared(1, block)), highest_commit: None };
    machine.handle(NOW, Event::Message { from: Address([1; 32]), message }, &mut out);
    assert_eq!(ballots(&out), []);
    let signed = tally_types::SignedBatch { batch, signature: Signature([1; 64]) };
    machine.handle(NOW, Event::Message { from: Address([1; 32]), message: Message::Batch(signed) }, &mut out);
    assert_eq!(ballots(&out), [Ballot::Commit(View(1), block)]);
    let stored = out.iter().position(|action| matches!(action, Action::Persist(Record::Accepted(..)))).unwrap();
    let sign = out.iter().position(|action| matches!(action, Action::Sign(Unsigned::Ballot { .. }))).unwrap();
    assert!(stored < sign);
}

#[test]
fn a_second_proposal_convicts_and_is_given_up_on() {
    let (mut machine, leader) = follower();
    let header = good_header(&machine, leader);
    let mut second = header.clone();
    second.time = UnixMillis(NOW.unix.0 + 1);
    let mut out = Vec::new();
    machine.handle(NOW, proposal(header.clone(), None), &mut out);
    machine.handle(NOW, proposal(header, None), &mut out);
    assert!(!out.iter().any(|action| matches!(action, Action::Evidence(_))));
    machine.handle(NOW, proposal(second, None), &mut out);
    let convicted =
        out.iter().find_map(|action| if let Action::Evidence(one) = action { Some(one.kind) } else { None });
    assert_eq!(convicted, Some(EvidenceKind::DoubleProposal));
    assert_eq!(ballots(&out)[1..], [Ballot::ViewChange(View(1), View(0))]);
}

#[test]
fn an_invalid_header_is_not_kept() {
    // Junk headers of one leader must not displace those that count.
    let (mut machine, leader) = follower();
    let mut header = good_header(&machine, leader);
    header.height = Height(u64::MAX);
    machine.handle(NOW, proposal(header, None), &mut Vec::new());
    assert_eq!(machine.kept().open_headers, 0);
}

#[test]
fn rule_w1_without_work_a_view_is_given_up_only_after_the_idle_interval() {
    let (mut machine, _) = follower();
    let params = machine.config.params.clone();
    let mut out = Vec::new();
    let at = |ms: u64| Now { mono_ms: NOW.mono_ms + ms, unix: NOW.unix };
    machine.handle(at(params.view_timeout_ms + 1), Event::Tick, &mut out);
    assert_eq!(ballots(&out), []);
    machine.handle(at(params.idle_interval_ms + params.view_timeout_ms), Event::Tick, &mut out);
    assert_eq!(ballots(&out), [Ballot::ViewChange(View(1), View(0))]);
    // With work, after the propose timeout.
    let (mut machine, leader) = follower();
    out.clear();
    let tips = |at: usize| {
        let mut tips = vec![Tip::START; 4];
        tips[at] = Tip { seq: tally_types::Seq(1), digest: Hash::of(b"tip") };
        tips
    };
    for place in (0..4).filter(|place| *place != (leader + 1) % 4) {
        machine.handle(at(10), have(place, 1, tips(0)), &mut out);
    }
    machine.handle(at(9 + params.view_timeout_ms), Event::Tick, &mut out);
    assert_eq!(ballots(&out), []);
    machine.handle(at(10 + params.view_timeout_ms), Event::Tick, &mut out);
    assert_eq!(ballots(&out), [Ballot::ViewChange(View(1), View(0))]);
}

#[test]
fn rule_v4_a_replica_behind_is_answered_once_per_interval() {
    let (mut machine, leader) = follower();
    let part = |signer| CertificateSignature { signer, highest_view: View(0), signature: Signature([1; 64]) };
    let entry = Arc::new(Certificate {
        kind: VoteKind::ViewChange,
        epoch: Epoch(0),
        view: View(6),
        block: Hash::ZERO,
        signatures: (0..3).map(part).collect(),
        highest: None,
    });
    let mut out = Vec::new();
    let message = Message::Certificates { entry: Some(entry.clone()), highest_commit: None };
    machine.handle(NOW, Event::Message { from: Address([1; 32]), message }, &mut out);
    assert_eq!(machine.agreement().view(), View(7));
    out.clear();
    let behind = leader;
    for counter in 1..5 {
        machine.handle(NOW, have(behind, counter, vec![Tip::START; 4]), &mut out);
    }
    let answers: Vec<_> = out.iter().filter(|action| matches!(action, Action::Send(..))).collect();
    let [Action::Send(to, Message::Certificates { entry: sent, .. })] = answers[..] else { panic!("{answers:?}") };
    assert_eq!((*to, sent.as_ref()), (Address([behind as u8 + 1; 32]), Some(&entry)));
}

#[test]
fn rule_r1_a_restarted_leader_does_not_propose_a_second_block() {
    let leader = config(0).genesis_validators.leader(&Hash::of(b"genesis"), Epoch(0), View(1));
    let new = || {
        let config = config(leader);
        let executed = config.genesis_executed;
        Machine::new(config, Voting::Allowed, executed)
    };
    let idle = new().config.params.idle_interval_ms;
    let mut first = new();
    let mut out = Vec::new();
    first.resume(NOW, &mut out);
    let later = Now { mono_ms: NOW.mono_ms + idle, unix: UnixMillis(NOW.unix.0 + idle) };
    first.handle(later, Event::Tick, &mut out);
    let proposed = |out: &[Action]| -> Vec<Hash> {
        let hash = |action: &Action| match action {
            Action::Sign(Unsigned::Proposal { header, .. }) => Some(header.hash()),
            _ => None,
        };
        out.iter().filter_map(hash).collect()
    };
    let before = proposed(&out);
    assert!(!before.is_empty() && before.iter().all(|hash| *hash == before[0]));
    let records: Vec<Record> = out
        .iter()
        .filter_map(|action| if let Action::Persist(record) = action { Some(record.clone()) } else { None })
        .collect();
    // With and without the header's record: the same block again, or none.
    for keep_header in [true, false] {
        let mut again = new();
        let mut out = Vec::new();
        for record in records.iter().filter(|record| keep_header || !matches!(record, Record::Header(_))) {
            let read = Record::parse(record.kind(), &record.encode()).unwrap();
            again.replay(read, &mut out).unwrap();
        }
        again.resume(later, &mut out);
        let much_later = Now { mono_ms: later.mono_ms + idle, unix: UnixMillis(later.unix.0 + idle) };
        again.handle(later, Event::Tick, &mut out);
        again.handle(much_later, Event::Tick, &mut out);
        assert!(proposed(&out).iter().all(|hash| *hash == before[0]), "{keep_header}");
        assert_eq!(proposed(&out).is_empty(), !keep_header);
    }
}

#[test]
fn a_journal_that_leads_nowhere_refuses_the_start() {
    let (machine, _) = follower();
    let mut again = Machine::new(machine.config.clone(), Voting::Allowed, machine.config.genesis_executed);
    let record = Record::Prepared { epoch: Epoch(3), view: View(1), block: Hash::of(b"block") };
    let error = again.replay(record, &mut Vec::new()).unwrap_err();
    assert_eq!((error.expected, error.found), (Epoch(0), Epoch(3)));
}

#[test]
fn a_view_change_is_durable_before_it_is_signed() {
    let (mut machine, _) = follower();
    let params = machine.config.params.clone();
    let mut out = Vec::new();
    let late = NOW.mono_ms + params.idle_interval_ms + params.view_timeout_ms;
    machine.handle(Now { mono_ms: late, unix: NOW.unix }, Event::Tick, &mut out);
    let stored = out.iter().position(|action| matches!(action, Action::Persist(Record::ViewChanged { .. }))).unwrap();
    let sign = out.iter().position(|action| matches!(action, Action::Sign(Unsigned::Ballot { .. }))).unwrap();
    assert!(stored < sign);
}

#[test]
fn rule_d1_a_validator_that_stays_behind_is_streamed_to_again() {
    let (mut machine, leader) = follower();
    let mut out = Vec::new();
    machine.handle(NOW, Event::Transactions(vec![Bytes::from_static(b"transaction")]), &mut out);
    let sealed = out.iter().position(|action| matches!(action, Action::Persist(Record::Sealed(_)))).unwrap();
    let sign = out.iter().position(|action| matches!(action, Action::Sign(Unsigned::Batch(_)))).unwrap();
    assert!(sealed < sign);
    let Some(Action::Sign(Unsigned::Batch(batch))) = out.get(sign).cloned() else { panic!("no batch") };
    let signed = tally_types::SignedBatch { batch, signature: Signature([1; 64]) };
    machine.handle(NOW, Event::Own(Message::Batch(signed.clone())), &mut out);
    machine.handle(NOW, have(leader, 1, vec![Tip::START; 4]), &mut out);
    machine.handle(NOW, Event::Tick, &mut out);
    out.clear();
    let later = Now { mono_ms: NOW.mono_ms + machine.config.resend_ms, unix: NOW.unix };
    machine.handle(later, Event::Tick, &mut out);
    let again: Vec<_> = out
        .iter()
        .filter_map(|action| if let Action::Send(to, message) = action { Some((*to, message.clone())) } else { None })
        .collect();
    assert_eq!(again, [(Address([leader as u8 + 1; 32]), Message::Batch(signed))]);
}

/// What a producer signs of a batch is its digest: its content may have gone by the time a second one comes.
#[test]
fn rule_d2_a_second_batch_convicts_when_the_first_is_executed_and_gone() {
    let (mut machine, leader) = follower();
    let from = Address([leader as u8 + 1; 32]);
    let signed = |content: &'static [u8], signature: u8| {
        let batch = Batch::new(Epoch(0), leader, Tip::START, vec![Bytes::from_static(content)]);
        tally_types::SignedBatch { batch, signature: Signature([signature; 64]) }
    };
    let (first, second) = (signed(b"one", 1), signed(b"two", 2));
    let mut out = Vec::new();
    machine.handle(NOW, Event::Message { from, message: Message::Batch(first.clone()) }, &mut out);
    machine.lanes.release(&[first.batch.digest()]);
    assert!(!machine.holds(&first.batch.digest()));
    out.clear();
    machine.handle(NOW, Event::Message { from, message: Message::Batch(second.clone()) }, &mut out);
    let evidence = out.iter().find_map(|action| if let Action::Evidence(found) = action { Some(found) } else { None });
    let evidence = evidence.expect("it convicts");
    for (half, signed) in [(&evidence.first, &first), (&evidence.second, &second)] {
        assert_eq!(half.0, signed.batch.signed_bytes(&machine.config.genesis_hash, &from));
        assert_eq!(half.1, signed.signature);
    }
}

fn committed(header: &HeaderFields) -> Arc<Certificate> {
    let mut commit = (*prepared(header.view.0, Header::new(header.clone()).hash())).clone();
    (commit.kind, commit.epoch) = (VoteKind::Commit, header.epoch);
    Arc::new(commit)
}

/// A machine whose epochs have one block each, and the only block of epoch 0: it orders three batches of lane 1.
fn short_epochs() -> (Machine, HeaderFields, Vec<Batch>) {
    first_block(0, 1)
}

/// The same with epochs of three blocks.
fn blocks_of_three() -> (Machine, HeaderFields, Vec<Batch>) {
    first_block(0, 3)
}

/// A machine with epochs of so many blocks, and the first block: it orders three batches of lane 1.
fn first_block(me: u32, epoch_blocks: u64) -> (Machine, HeaderFields, Vec<Batch>) {
    let mut config = config(me);
    config.params.epoch_blocks = epoch_blocks;
    let executed = config.genesis_executed;
    let machine = Machine::new(config, Voting::Allowed, executed);
    let mut batches: Vec<Batch> = Vec::new();
    for name in 1..=3u8 {
        let parent = batches.last().map_or(Tip::START, Batch::tip);
        batches.push(Batch::new(Epoch(0), 1, parent, vec![Bytes::from(vec![name; 4])]));
    }
    let mut header = good_header(&machine, machine.leader_of(View(1)));
    header.cut[1] = batches[2].tip();
    (machine, header, batches)
}

fn executed_lanes(out: &[Action]) -> Vec<Vec<Batch>> {
    let lanes = |action: &Action| match action {
        Action::Execute(order) => Some(order.lanes.clone()),
        _ => None,
    };
    out.iter().find_map(lanes).unwrap_or_default()
}

/// What a machine proposes, if it does.
fn proposals(out: &[Action]) -> Vec<Header> {
    let header = |action: &Action| match action {
        Action::Sign(Unsigned::Proposal { header, .. }) => Some(header.clone()),
        _ => None,
    };
    out.iter().filter_map(header).collect()
}

fn later(ms: u64) -> Now {
    Now { mono_ms: NOW.mono_ms + ms, unix: UnixMillis(NOW.unix.0 + ms) }
}

fn gave_up(view: u64) -> Arc<Certificate> {
    let mut certificate = (*prepared(view, Hash::ZERO)).clone();
    certificate.kind = VoteKind::ViewChange;
    Arc::new(certificate)
}

/// The others have executed the epoch before, this replica has not: what it proposes must hold for them all the same.
#[test]
fn rule_p1_a_leader_behind_in_execution_names_the_validators_that_the_parent_names() {
    let (probe, ..) = blocks_of_three();
    let genesis = probe.config.genesis_hash;
    let me = probe.config.genesis_validators.leader(&genesis, Epoch(1), View(2));
    let (mut machine, mut header, _) = first_block(me, 3);
    // Epoch 0: its payload never comes, so nothing is executed here.
    for height in 1..=3 {
        let certified = Header::new(header.clone());
        machine.replay(Record::Header(certified.clone()), &mut Vec::new()).unwrap();
        machine.replay(Record::Certificate(committed(&header)), &mut Vec::new()).unwrap();
        (header.height, header.view, header.parent) = (Height(height + 1), View(height + 1), certified.hash());
        header.time = header.time.next();
    }
    assert_eq!((machine.agreement().epoch(), machine.execution.done), (Epoch(1), Height(0)));
    machine.resume(NOW, &mut Vec::new());
    // The first block of epoch 1 names the roots of height 3, and with them the validators of epoch 2.
    (header.epoch, header.view, header.proposer) = (Epoch(1), View(1), machine.leader_of(View(1)));
    header.cut = vec![Tip::START; 4];
    header.executed = Executed { height: Height(3), state_root: Hash::of(b"new"), receipts_root: Hash::of(b"new") };
    header.next_validators = Hash::of(b"validators of epoch 2");
    let mut prepared = (*prepared(1, Header::new(header.clone()).hash())).clone();
    prepared.epoch = Epoch(1);
    let mut out = Vec::new();
    let entry = Some(Arc::new(prepared));
    let message = Message::Certificates { entry, highest_commit: None };
    machine.handle(NOW, Event::Message { from: Address([1; 32]), message }, &mut out);
    machine.handle(NOW, Event::Headers(vec![Header::new(header.clone())]), &mut out);
    machine.handle(later(machine.config.params.idle_interval_ms), Event::Tick, &mut out);
    let [proposed] = &proposals(&out)[..1] else { panic!("nothing proposed") };
    assert_eq!((proposed.height, proposed.executed), (Height(5), header.executed));
    assert_eq!(proposed.next_validators, header.next_validators);
}

/// Somebody tells each validator of another tip, so that each sees it backed by a weak quorum, itself among them. One view may
/// fail by that, not every one.
#[test]
fn rule_p1_right_after_a_failed_view_a_leader_moves_no_lane_that_only_a_weak_quorum_announced() {
    for failed in [false, true] {
        let (machine, _) = follower();
        let view = if failed { View(2) } else { View(1) };
        let config = config(machine.leader_of(view));
        let executed = config.genesis_executed;
        let mut machine = Machine::new(config, Voting::Allowed, executed);
        machine.resume(NOW, &mut Vec::new());
        let me = machine.agreement().me().unwrap();
        let liar = (me + 1) % 4;
        let batch = Batch::new(Epoch(0), liar, Tip::START, vec![Bytes::from_static(b"transaction")]);
        let mut tips = vec![Tip::START; 4];
        tips[liar as usize] = batch.tip();
        let signed = tally_types::SignedBatch { batch, signature: Signature([1; 64]) };
        let from = Address([liar as u8 + 1; 32]);
        machine.handle(NOW, Event::Message { from, message: Message::Batch(signed) }, &mut Vec::new());
        for signer in [me, liar] {
            machine.handle(NOW, have(signer, 1, tips.clone()), &mut Vec::new());
        }
        let mut out = Vec::new();
        if failed {
            let message = Message::Certificates { entry: Some(gave_up(1)), highest_commit: None };
            machine.handle(NOW, Event::Message { from, message }, &mut out);
        }
        machine.handle(later(machine.config.params.idle_interval_ms), Event::Tick, &mut out);
        let proposed = proposals(&out);
        assert_eq!(proposed[0].view, view);
        assert_eq!(proposed[0].cut == tips, !failed);
    }
}

/// 1 shows its lane to two others only, block after block, and says nothing of lane 2. Whoever leads when: the lane that has
/// waited is the one that goes first.
#[test]
fn rule_p1_the_lane_that_has_waited_longest_comes_first() {
    let probe = config(0);
    let leader = |view: u64| probe.genesis_validators.leader(&probe.genesis_hash, Epoch(0), View(view));
    let view = (1..).find(|view| leader(view + 1) != 1).unwrap();
    let me = leader(view + 1);
    let (mut machine, mut header, _) = first_block(me, 1000);
    (header.view, header.proposer) = (View(view), leader(view));
    let first = Header::new(header.clone());
    machine.replay(Record::Header(first), &mut Vec::new()).unwrap();
    machine.replay(Record::Certificate(committed(&header)), &mut Vec::new()).unwrap();
    machine.resume(NOW, &mut Vec::new());
    let tip = |seq: u64, name: &[u8]| Tip { seq: tally_types::Seq(seq), digest: Hash::of(name) };
    let (fed, waits) = (tip(4, b"lane 1"), tip(1, b"lane 2"));
    let honest: Vec<u32> = (0..4).filter(|place| *place != 1).collect();
    let left_out = honest.iter().rev().find(|place| **place != me).copied().unwrap();
    let mut out = Vec::new();
    for place in 0..4 {
        let mut tips = header.cut.clone();
        if place != left_out {
            tips[1] = fed;
        }
        if place != 1 {
            tips[2] = waits;
        }
        machine.handle(NOW, have(place, 1, tips), &mut out);
    }
    machine.handle(later(100), Event::Tick, &mut out);
    let proposed = proposals(&out);
    assert_eq!((proposed[0].height, proposed[0].cut[2]), (Height(2), waits));
}

/// Leaders can have headers kept that nobody votes for. There is room for an epoch of them; then those go that no certificate needs.
#[test]
fn rule_v5_of_headers_that_are_not_final_an_epoch_full_is_kept() {
    let (mut machine, header, _) = first_block(0, 1000);
    machine.resume(NOW, &mut Vec::new());
    let certified = Header::new(HeaderFields { time: UnixMillis(header.time.0 + 1), ..header.clone() });
    machine.keep_header(&certified, &mut Vec::new());
    let message = Message::Certificates { entry: Some(prepared(1, certified.hash())), highest_commit: None };
    machine.handle(NOW, Event::Message { from: Address([2; 32]), message }, &mut Vec::new());
    for number in 2..=2 * OPEN_HEADERS_MAX as u64 {
        let other = Header::new(HeaderFields { time: UnixMillis(header.time.0 + number), ..header.clone() });
        machine.keep_header(&other, &mut Vec::new());
        assert!(machine.kept().open_headers <= OPEN_HEADERS_MAX && machine.chain.knows(&other.hash()));
        assert!(machine.chain.knows(&certified.hash()));
    }
}
