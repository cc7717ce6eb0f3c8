//! Signatures are not looked at here: the agreement is given verified messages only.

use tally_types::{Address, PublicKey, Stake, Validator};

use super::*;

const A: Hash = Hash([1; 32]);
const B: Hash = Hash([2; 32]);
const START: Hash = Hash([9; 32]);

fn set() -> ValidatorSet {
    let member = |name: u8| Validator { address: Address([name; 32]), key: PublicKey([name; 32]), stake: Stake(1) };
    ValidatorSet::new((1..=4).map(member).collect()).unwrap()
}

fn agreement() -> Agreement {
    Agreement::new(Epoch(0), set(), Some(0), START, None)
}

fn signature(signer: u32) -> Signature {
    Signature([signer as u8; 64])
}

fn qc(kind: VoteKind, view: u64, block: Hash) -> Arc<Certificate> {
    let part = |signer| CertificateSignature { signer, highest_view: View::ZERO, signature: signature(signer) };
    let signatures = (1..4).map(part).collect();
    Arc::new(Certificate { kind, epoch: Epoch(0), view: View(view), block, signatures, highest: None })
}

fn tc(view: u64, highest: Option<Arc<Certificate>>) -> Arc<Certificate> {
    let h = highest.as_ref().map_or(View::ZERO, |highest| highest.view);
    let part = |signer| CertificateSignature { signer, highest_view: h, signature: signature(signer) };
    let signatures = (1..4).map(part).collect();
    let kind = VoteKind::ViewChange;
    Arc::new(Certificate { kind, epoch: Epoch(0), view: View(view), block: Hash::ZERO, signatures, highest })
}

fn vote(kind: VoteKind, signer: u32, view: u64, block: Hash) -> Vote {
    Vote { kind, epoch: Epoch(0), view: View(view), block, signer, signature: signature(signer) }
}

fn view_change(signer: u32, view: u64, highest: Option<Arc<Certificate>>) -> ViewChange {
    let highest_view = highest.as_ref().map_or(View::ZERO, |highest| highest.view);
    ViewChange { epoch: Epoch(0), view: View(view), highest_view, highest, signer, signature: signature(signer) }
}

fn take(agreement: &mut Agreement, certificate: &Arc<Certificate>) -> Vec<Output> {
    let mut out = Vec::new();
    agreement.on_certificate(certificate, &mut out);
    out
}

fn signed(out: &[Output]) -> Vec<Ballot> {
    out.iter().filter_map(|output| if let Output::Sign(ballot) = output { Some(*ballot) } else { None }).collect()
}

fn convictions(out: &[Output]) -> Vec<EvidenceKind> {
    let kind = |output: &Output| if let Output::Convicted { kind, .. } = output { Some(*kind) } else { None };
    out.iter().filter_map(kind).collect()
}

#[test]
fn rule_p2_one_prepare_per_view_and_none_after_giving_up() {
    let mut one = agreement();
    let mut out = Vec::new();
    assert!(one.prepare(A, &mut out));
    assert!(!one.prepare(B, &mut out));
    assert_eq!(signed(&out), [Ballot::Prepare(View(1), A)]);
    take(&mut one, &tc(1, None));
    out.clear();
    one.give_up(&mut out);
    assert!(!one.prepare(A, &mut out));
    assert_eq!(signed(&out), [Ballot::ViewChange(View(2), View(0))]);
}

#[test]
fn rule_p3_no_commit_that_a_view_change_of_ones_own_hides() {
    // Gave up view 1 with h = 0; its prepare certificate comes too late.
    let mut late = agreement();
    let mut out = Vec::new();
    late.give_up(&mut out);
    take(&mut late, &qc(VoteKind::Prepare, 1, A));
    assert_eq!(late.committable().count(), 0);
    // Held it when it gave up view 2: h = 1 names it, and COMMIT(1) may follow after the view was left.
    let mut held = agreement();
    take(&mut held, &qc(VoteKind::Prepare, 1, A));
    held.give_up(&mut out);
    assert_eq!(held.committable().collect::<Vec<_>>(), [(View(1), A)]);
    // Gave up view 3 with h = 1, so a certificate of view 2 that turns up then cannot be committed.
    take(&mut held, &tc(2, None));
    out.clear();
    held.give_up(&mut out);
    assert_eq!(signed(&out), [Ballot::ViewChange(View(3), View(1))]);
    take(&mut held, &qc(VoteKind::Prepare, 2, A));
    assert_eq!(held.committable().collect::<Vec<_>>(), [(View(1), A)]);
}

#[test]
fn rule_p3_holds_over_a_restart() {
    let mut restarted = agreement();
    restarted.replay_view_change(View(1), None);
    take(&mut restarted, &qc(VoteKind::Prepare, 1, A));
    assert_eq!(restarted.committable().count(), 0);
}

#[test]
fn rule_v1_enters_the_next_view_on_any_certificate_and_never_goes_back() {
    for (certificate, view) in [
        (qc(VoteKind::Prepare, 4, A), 5),
        (qc(VoteKind::Commit, 4, A), 5),
        (tc(4, Some(qc(VoteKind::Prepare, 2, A))), 5),
    ] {
        let mut one = agreement();
        let out = take(&mut one, &certificate);
        assert!(out.contains(&Output::Entered(View(view))));
        assert_eq!(one.entry(), Some(&certificate));
        take(&mut one, &qc(VoteKind::Prepare, 1, A));
        take(&mut one, &tc(3, None));
        assert_eq!(one.view(), View(view));
    }
}

#[test]
fn rule_v2_names_the_highest_prepare_certificate_and_gives_up_once() {
    let mut one = agreement();
    take(&mut one, &tc(5, Some(qc(VoteKind::Prepare, 2, A))));
    take(&mut one, &qc(VoteKind::Prepare, 3, B));
    let mut out = Vec::new();
    one.give_up(&mut out);
    one.give_up(&mut out);
    assert_eq!(signed(&out), [Ballot::ViewChange(View(6), View(3))]);
    assert_eq!(one.view_change_certificate(View(6)), Some(qc(VoteKind::Prepare, 3, B)));
}

#[test]
fn rule_v2_joins_a_weak_quorum_that_gives_up_and_a_quorum_makes_a_certificate() {
    let mut one = agreement();
    let mut out = Vec::new();
    one.on_view_change(&view_change(1, 1, None), &mut out);
    assert_eq!(signed(&out), []);
    one.on_view_change(&view_change(2, 1, None), &mut out);
    assert_eq!(signed(&out), [Ballot::ViewChange(View(1), View(0))]);
    one.on_view_change(&view_change(0, 1, None), &mut out);
    assert_eq!(one.view(), View(2));
    assert_eq!(one.entry().unwrap().signers().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_view_change_certificate_carries_the_highest_certificate_named() {
    let mut one = agreement();
    take(&mut one, &tc(4, None));
    let mut out = Vec::new();
    for change in [
        view_change(1, 5, Some(qc(VoteKind::Prepare, 2, A))),
        view_change(2, 5, Some(qc(VoteKind::Prepare, 3, B))),
        view_change(3, 5, None),
    ] {
        one.on_view_change(&change, &mut out);
    }
    assert_eq!(one.view(), View(6));
    assert_eq!(one.entry().unwrap().highest, Some(qc(VoteKind::Prepare, 3, B)));
    assert_eq!(one.parent(View(6), one.entry().map(Arc::as_ref)), Some(B));
}

#[test]
fn rule_p1_each_justification_dictates_its_parent_and_no_other() {
    let mut one = agreement();
    assert_eq!(one.parent(View(1), None), Some(START));
    assert_eq!(one.parent(View(2), None), None);
    assert_eq!(one.parent(View(2), Some(&qc(VoteKind::Prepare, 1, A))), Some(A));
    assert_eq!(one.parent(View(2), Some(&qc(VoteKind::Commit, 1, A))), Some(A));
    assert_eq!(one.parent(View(3), Some(&qc(VoteKind::Prepare, 1, A))), None);
    assert_eq!(one.parent(View(2), Some(&tc(1, None))), Some(START));
    assert_eq!(one.parent(View(6), Some(&tc(5, Some(qc(VoteKind::Prepare, 3, B))))), Some(B));
    let mut other_epoch = (*qc(VoteKind::Prepare, 1, A)).clone();
    other_epoch.epoch = Epoch(1);
    assert_eq!(one.parent(View(2), Some(&other_epoch)), None);
    // Holding PrepareQC(v−1) it does not use TC(v−1).
    take(&mut one, &tc(1, None));
    assert_eq!(one.justification(), Some(tc(1, None)));
    take(&mut one, &qc(VoteKind::Prepare, 1, A));
    assert_eq!(one.justification(), Some(qc(VoteKind::Prepare, 1, A)));
    // A later epoch starts from the block its entry certificate names.
    let entry = qc(VoteKind::Commit, 7, START);
    let next = Agreement::new(Epoch(1), set(), Some(0), START, Some(entry.clone()));
    assert_eq!(next.parent(View(1), Some(&entry)), Some(START));
    assert_eq!(next.parent(View(1), Some(&qc(VoteKind::Commit, 7, A))), None);
    assert_eq!(next.parent(View(1), Some(&qc(VoteKind::Prepare, 7, START))), None);
    assert_eq!(next.parent(View(1), None), None);
}

#[test]
fn certificates_are_durable_before_what_depends_on_them() {
    let mut one = agreement();
    let prepared = qc(VoteKind::Prepare, 1, A);
    let out = take(&mut one, &prepared);
    let persisted = out.iter().position(|output| *output == Output::Persist(prepared.clone())).unwrap();
    let entered = out.iter().position(|output| matches!(output, Output::Entered(_))).unwrap();
    assert!(persisted < entered);
    // An entry certificate is durable though it proves nothing new otherwise.
    let entry = tc(2, None);
    assert!(take(&mut one, &entry).contains(&Output::Persist(entry)));
    let commit = qc(VoteKind::Commit, 1, A);
    let out = take(&mut one, &commit);
    assert_eq!(out, [Output::Persist(commit.clone()), Output::Committed(commit)]);
}

#[test]
fn rule_s3_a_commit_certificate_clears_up_to_its_view_and_nothing_above() {
    let mut one = agreement();
    for view in 1..=4 {
        take(&mut one, &qc(VoteKind::Prepare, view, A));
    }
    let mut out = Vec::new();
    one.give_up(&mut out);
    take(&mut one, &qc(VoteKind::Commit, 2, A));
    assert_eq!(one.floor(), View(2));
    assert_eq!(one.prepared().map(|certificate| certificate.view.0).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(one.committable().map(|(view, _)| view.0).collect::<Vec<_>>(), [3, 4]);
    assert!(one.gave_up_here());
    // The floor never falls, and votes at or below it are dropped.
    take(&mut one, &qc(VoteKind::Commit, 1, A));
    assert_eq!(one.floor(), View(2));
    out.clear();
    one.on_vote(&vote(VoteKind::Commit, 1, 2, A), &mut out);
    assert_eq!(out, [Output::Dropped(Reject::Old)]);
    one.replay_prepare(View(2), A);
    one.replay_view_change(View(2), None);
    assert_eq!(one.committable().map(|(view, _)| view.0).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn rule_r1_a_prepare_from_the_journal_is_not_cast_again_for_another_block() {
    let mut restarted = agreement();
    restarted.replay_prepare(View(1), A);
    let mut out = Vec::new();
    assert!(!restarted.prepare(B, &mut out));
    assert_eq!(restarted.open_ballots(), [Ballot::Prepare(View(1), A)]);
}

#[test]
fn rule_v5_a_flood_of_far_views_displaces_nobody_elses_votes() {
    let mut one = agreement();
    let mut out = Vec::new();
    one.on_vote(&vote(VoteKind::Commit, 1, 1, A), &mut out);
    one.on_vote(&vote(VoteKind::Commit, 2, 1, A), &mut out);
    for view in 2..5000 {
        one.on_vote(&vote(VoteKind::Commit, 3, view, B), &mut out);
        one.on_vote(&vote(VoteKind::Prepare, 3, view, B), &mut out);
        one.on_view_change(&view_change(3, view, None), &mut out);
    }
    assert!(one.votes_kept() < 50, "{}", one.votes_kept());
    one.on_vote(&vote(VoteKind::Commit, 0, 1, A), &mut out);
    assert_eq!(one.floor(), View(1));
}

#[test]
fn votes_of_a_quorum_make_certificates_by_stake_and_per_block() {
    let mut one = agreement();
    let mut out = Vec::new();
    for (signer, block) in [(0, A), (1, A), (2, B)] {
        one.on_vote(&vote(VoteKind::Prepare, signer, 1, block), &mut out);
    }
    assert_eq!(one.view(), View(1));
    one.on_vote(&vote(VoteKind::Prepare, 3, 1, A), &mut out);
    assert_eq!(one.view(), View(2));
    assert_eq!(one.highest().unwrap().signers().collect::<Vec<_>>(), [0, 1, 3]);
}

#[test]
fn contradictions_convict_and_repetitions_do_not() {
    let kinds = [(VoteKind::Prepare, EvidenceKind::DoublePrepare), (VoteKind::Commit, EvidenceKind::DoubleCommit)];
    for (kind, evidence) in kinds {
        let mut one = agreement();
        let mut out = Vec::new();
        one.on_vote(&vote(kind, 1, 1, A), &mut out);
        one.on_vote(&vote(kind, 1, 1, A), &mut out);
        assert_eq!(convictions(&out), []);
        one.on_vote(&vote(kind, 1, 1, B), &mut out);
        assert_eq!(convictions(&out), [evidence]);
    }
    let mut one = agreement();
    let mut out = Vec::new();
    take(&mut one, &tc(3, None));
    one.on_view_change(&view_change(1, 4, None), &mut out);
    one.on_view_change(&view_change(1, 4, None), &mut out);
    assert_eq!(convictions(&out), []);
    one.on_view_change(&view_change(1, 4, Some(qc(VoteKind::Prepare, 2, A))), &mut out);
    assert_eq!(convictions(&out), [EvidenceKind::DoubleViewChange]);
}

/// The second names a certificate of the view itself, which ends it here.
#[test]
fn a_second_view_change_convicts_also_if_it_ends_its_view() {
    let mut one = agreement();
    let mut out = Vec::new();
    take(&mut one, &tc(3, None));
    one.on_view_change(&view_change(1, 4, None), &mut out);
    one.on_view_change(&view_change(1, 4, Some(qc(VoteKind::Prepare, 4, A))), &mut out);
    assert_eq!((convictions(&out), one.view()), (vec![EvidenceKind::DoubleViewChange], View(5)));
}

#[test]
fn a_hidden_commit_convicts_in_either_order() {
    for commit_first in [true, false] {
        let mut one = agreement();
        take(&mut one, &tc(2, None));
        let mut out = Vec::new();
        if commit_first {
            one.on_vote(&vote(VoteKind::Commit, 1, 2, A), &mut out);
            one.on_view_change(&view_change(1, 3, None), &mut out);
        } else {
            one.on_view_change(&view_change(1, 3, None), &mut out);
            one.on_vote(&vote(VoteKind::Commit, 1, 2, A), &mut out);
        }
        assert_eq!(convictions(&out), [EvidenceKind::HiddenCommit]);
        // One that names the committed view hides nothing.
        let mut honest = agreement();
        out.clear();
        honest.on_vote(&vote(VoteKind::Commit, 1, 2, A), &mut out);
        honest.on_view_change(&view_change(1, 3, Some(qc(VoteKind::Prepare, 2, A))), &mut out);
        assert_eq!(convictions(&out), []);
    }
}

#[test]
fn rule_p5_a_closed_agreement_signs_nothing() {
    let mut one = agreement();
    take(&mut one, &qc(VoteKind::Prepare, 1, A));
    one.close();
    let mut out = Vec::new();
    assert!(!one.prepare(B, &mut out));
    one.give_up(&mut out);
    one.on_view_change(&view_change(1, 2, None), &mut out);
    one.on_view_change(&view_change(2, 2, None), &mut out);
    assert_eq!(signed(&out), []);
    assert_eq!(one.committable().count(), 0);
}

#[test]
fn the_last_number_there_is_ends_nothing_but_its_own_view() {
    let mut one = agreement();
    take(&mut one, &tc(u64::MAX - 1, None));
    assert_eq!(one.view(), View(u64::MAX));
    let mut out = Vec::new();
    for signer in 1..4 {
        one.on_view_change(&view_change(signer, u64::MAX, None), &mut out);
    }
    take(&mut one, &tc(u64::MAX, None));
    take(&mut one, &qc(VoteKind::Commit, u64::MAX, A));
    assert_eq!(one.view(), View(u64::MAX));
}
