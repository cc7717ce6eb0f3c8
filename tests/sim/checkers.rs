//! What must hold in every world, checked always: on everything signed, executed, convicted and kept.

use std::collections::{HashMap, HashSet};

use tally_consensus::{Alarm, Evidence, Kept, Message, Order, Reject, Status};
use tally_ledger::{BlockInput, Discard, ExecutedTransaction, Failure, LaneInput, account::NONCE_WINDOW};
use tally_types::{
    Address, Epoch, Genesis, Hash, Header, Height, Nonce, Signature, SignedBatch, Tip, UnixMillis, VoteKind,
    header::Executed,
};

use crate::{marks::Mark, world::World};

/// Final blocks that wait for execution: those of two answers, and a stretch without certificates.
const UNEXECUTED_MAX: usize = 2 * 64 + 64 + 1000;

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// Two honest nodes hold different blocks of one height to be final.
    Fork,
    /// Two honest nodes have different states at one height.
    Roots,
    /// Tokens appeared or vanished.
    Supply,
    /// A transaction ran twice, or elsewhere on another node.
    RanTwice,
    /// A transaction ran that no node ever admitted.
    NeverAdmitted,
    /// Two transactions of one sender ran with one nonce.
    NonceTwice,
    /// A transaction ran with a nonce outside its sender's window.
    NonceOutside,
    /// A transaction ran in a block later than it allows.
    Expired,
    /// A transaction ran that allows less than its fee, or expires later than the chain allows.
    NotAllowed,
    /// A node took from a client what must be refused.
    Admitted,
    /// A final block is no later than its parent.
    Time,
    /// A lane of a final block stands lower than in its parent, or elsewhere.
    Lane,
    /// An honest key signed two things where it may sign one.
    SignedTwice,
    /// A node without its journal signed too early. Rule R3.
    SignedTooEarly,
    /// A journal lacks what was synced, and says nothing.
    Forgotten,
    /// A transaction was discarded without the reason that was given.
    Unexplained,
    /// Evidence against an honest validator, or that proves nothing.
    BadEvidence,
    /// Somebody contradicted himself to a node that had both in hand, and is not convicted.
    Unconvicted,
    /// An alarm that no faulty leader explains.
    Alarm,
    /// A node that keeps the protocol found what another such node sent to be forged or out of shape.
    Blamed,
    /// More is kept than the bounds allow.
    Bounds,
}

/// What a key may sign once only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Proposal,
    Prepare,
    Commit,
    ViewChange,
    Batch,
    Have,
}

/// What the checkers remember.
#[derive(Default)]
pub struct Checkers {
    /// Violations that a tolerant world has seen.
    pub violations: Vec<(Violation, String)>,
    /// What each key signed, as its last signature, by validator, kind, epoch, and view, sequence or counter.
    signed: HashMap<(usize, Kind, u64, u64), Signature>,
    /// The chain, by height: the first node to call a block final decides, the others must agree.
    pub chain: Vec<Hash>,
    /// Times of that chain's blocks.
    times: Vec<UnixMillis>,
    /// Where its lanes stand.
    lanes: (Epoch, Vec<Tip>),
    roots: HashMap<Height, Executed>,
    /// The transaction that used a nonce, and the highest one of each sender.
    nonces: HashMap<(Address, Nonce), Hash>,
    highest_nonces: HashMap<Address, Nonce>,
    /// Executed transactions, with the height and place that executed them.
    pub executed: HashMap<Hash, (Height, u32)>,
    /// Who convicted whom of what.
    pub evidence: Vec<(usize, Evidence)>,
    /// Epochs of the batches that carried a transaction.
    sealed_in: HashMap<Hash, Epoch>,
    /// Transactions and the nodes that sealed them: those are durable there.
    pub sealed_by: HashSet<(Hash, usize)>,
    /// VIEW-CHANGEs that honest validators signed.
    pub views_given_up: u64,
    looks: u64,
}

impl Checkers {
    /// For a chain that begins with this block and this state.
    pub fn new(genesis: &Genesis, executed: Executed) -> Checkers {
        Checkers {
            chain: vec![genesis.chain.genesis_hash],
            times: vec![genesis.time],
            roots: HashMap::from([(Height::ZERO, executed)]),
            ..Checkers::default()
        }
    }
}

impl World {
    /// Names the seed and how to see it again: every failure begins with this.
    pub fn name(&self) -> String {
        format!("seed {}", self.setup.seed)
    }

    pub fn violate(&mut self, violation: Violation, what: String) {
        self.note(violation as u64, || format!("VIOLATION {violation:?}: {what}"));
        assert!(self.setup.tolerant, "{}: {violation:?}: {what}", self.name());
        self.checkers.violations.push((violation, what));
    }

    /// An honest key signs one thing per (kind, epoch, view) and per place of its lane, ever, also over restarts. Whether it signed
    /// this for the first time. Signatures of the world differ when what is signed does.
    pub fn check_signed(&mut self, node: usize, message: &Message) -> bool {
        if !self.nodes[node].honest {
            return false;
        }
        let (kind, epoch, number, signature) = match message {
            Message::Proposal(one) => (Kind::Proposal, one.epoch, one.view.0, one.signature),
            Message::Vote(one) if one.kind == VoteKind::Prepare => {
                (Kind::Prepare, one.epoch, one.view.0, one.signature)
            }
            Message::Vote(one) => (Kind::Commit, one.epoch, one.view.0, one.signature),
            Message::ViewChange(one) => (Kind::ViewChange, one.epoch, one.view.0, one.signature),
            Message::Batch(one) => (Kind::Batch, one.batch.epoch(), one.batch.seq().0, one.signature),
            Message::Have(one) => (Kind::Have, one.vector.epoch, one.vector.counter, one.signature),
            Message::Certificates { .. } => return false,
        };
        if self.nodes[node].forbidden.is_some_and(|up_to| epoch <= up_to) {
            self.violate(
                Violation::SignedTooEarly,
                format!("{node} signs {kind:?} in epoch {epoch} without its journal"),
            );
        }
        let known = self.checkers.signed.insert((node, kind, epoch.0, number), signature);
        self.checkers.views_given_up += u64::from(known.is_none() && kind == Kind::ViewChange);
        if known.is_some() && kind == Kind::Proposal {
            self.marks.hit(Mark::ProposalAgain);
        }
        if known.is_some_and(|known| known != signature) {
            self.violate(Violation::SignedTwice, format!("{node} signs a second {kind:?} {epoch}/{number}"));
        }
        known.is_none()
    }

    /// The highest epoch that an honest node has signed anything in.
    pub fn highest_epoch_signed(&self, node: usize) -> Option<Epoch> {
        let signed = self.checkers.signed.keys().filter(|(by, ..)| *by == node);
        signed.map(|(_, _, epoch, _)| Epoch(*epoch)).max()
    }

    /// Execution, by the real ledger, and what must hold of it.
    pub fn execute(&mut self, node: usize, order: Order) -> Executed {
        let header = order.header.clone();
        let height = header.height.0 as usize;
        assert_eq!(self.nodes[node].blocks.len() + 1, height, "{}: {node} executes out of order", self.name());
        let lanes = order.validators.members().iter().zip(&order.lanes).map(|(member, batches)| LaneInput {
            fee_recipient: member.address,
            transactions: batches.iter().flat_map(|batch| batch.transactions()).map(|bytes| &bytes[..]).collect(),
        });
        let input = BlockInput { height: header.height, time: header.time, lanes: lanes.collect() };
        let outcome = self.nodes[node].ledger.execute(&input).expect("the supply is what it was");
        let executed = outcome.executed;
        if order.commit.is_none() {
            self.marks.hit(Mark::FinalByDescendant);
        }
        self.note(executed.height.0 << 8 ^ node as u64, || {
            format!("{node} executes {header:?} with {} transactions", outcome.transactions.len())
        });
        // Whatever its disk did to it: what it takes for final is final, and leads to the same.
        if self.nodes[node].correct {
            // Whoever executes a block first is judged by what ran before it.
            let before = self.checkers.chain.len() == height;
            let before = before.then(|| self.checkers.highest_nonces.clone());
            self.check_block(node, &header, executed);
            for done in &outcome.transactions {
                self.check_transaction(node, &header, done);
            }
            for (id, discard) in &outcome.discarded {
                self.check_discarded(node, &header, id, discard, before.as_ref());
            }
        }
        let gone = outcome.transactions.iter().map(|done| &done.receipt.tx_id);
        let gone = gone.chain(outcome.discarded.iter().map(|(id, _)| id));
        self.nodes[node].on_the_way.settle(header.time, gone);
        self.nodes[node].blocks.push((order, executed));
        self.nodes[node].note_executed();
        executed
    }

    fn check_block(&mut self, node: usize, header: &Header, executed: Executed) {
        let height = header.height.0 as usize;
        if self.checkers.chain.len() == height {
            if self.checkers.times.last().is_some_and(|parent| header.time <= *parent) {
                self.violate(Violation::Time, format!("{header:?} at {:?} is no later than its parent", header.time));
            }
            let lanes = (header.epoch, header.cut.clone());
            let (epoch, lanes) = std::mem::replace(&mut self.checkers.lanes, lanes);
            let back = |(tip, before): (&Tip, &Tip)| tip.seq < before.seq || tip.seq == before.seq && tip != before;
            let follows = epoch == header.epoch && self.checkers.chain.last() == Some(&header.parent);
            if follows && header.cut.iter().zip(&lanes).any(back) {
                self.violate(Violation::Lane, format!("{header:?} orders {:?} after {lanes:?}", header.cut));
            }
            self.checkers.chain.push(header.hash());
            self.checkers.times.push(header.time);
        }
        if self.checkers.chain.get(height) != Some(&header.hash()) {
            self.violate(Violation::Fork, format!("{node} has {header:?} final at height {height}"));
        }
        let supply = self.nodes[node].ledger.state().supply();
        if supply != self.genesis.total_supply {
            self.violate(Violation::Supply, format!("{node} has {supply:?} at height {height}"));
        }
        let known = *self.checkers.roots.entry(header.height).or_insert(executed);
        if known != executed {
            self.violate(Violation::Roots, format!("{node} has another state at height {height}"));
        }
        // A final header certifies the state it names: somebody honest compared it before it voted.
        if self.checkers.roots.get(&header.executed.height) != Some(&header.executed) {
            self.violate(Violation::Roots, format!("{header:?} names {:?}", header.executed));
        }
    }

    /// A transaction that leaves no trace had its reason.
    fn check_discarded(
        &mut self,
        node: usize,
        header: &Header,
        id: &Hash,
        discard: &Discard,
        before: Option<&HashMap<Address, Nonce>>,
    ) {
        self.clients.pending.remove(id);
        self.marks.hit(Mark::Discarded);
        let Some(promise) = self.clients.admitted.get(id).copied() else {
            return self.violate(Violation::NeverAdmitted, format!("{node} discards {id:?}"));
        };
        let disturbed = self.is_disturbed(&promise.sender);
        let explained = match discard {
            Discard::Expired { .. } => promise.expire_time < header.time,
            // By itself or by another one; or the window has passed it, and with it whatever has used it.
            Discard::NonceInUse { .. } => {
                disturbed && self.checkers.nonces.contains_key(&(promise.sender, promise.nonce))
            }
            Discard::NonceTooLow { .. } => {
                let highest = self.checkers.highest_nonces.get(&promise.sender);
                disturbed && highest.is_some_and(|highest| highest.0 >= promise.nonce.0 + NONCE_WINDOW)
            }
            // Ordered before those below it.
            Discard::NonceTooHigh { .. } => {
                let highest = before.map_or(0, |before| before.get(&promise.sender).map_or(0, |highest| highest.0));
                disturbed && promise.nonce.0 > highest + NONCE_WINDOW
            }
            // Somebody took what no ledger admits.
            Discard::FeeTooLow { needed, .. } => disturbed && promise.max_fee < *needed,
            Discard::ExpiryTooFar { latest_allowed, .. } => disturbed && promise.expire_time > *latest_allowed,
            _ => false,
        };
        if !explained {
            self.violate(Violation::Unexplained, format!("{node} discards {id:?} at {:?}: {discard}", header.time));
        }
    }

    fn check_transaction(&mut self, node: usize, header: &Header, done: &ExecutedTransaction) {
        let (id, place) = (done.receipt.tx_id, (header.height, done.receipt.index));
        let body = done.transaction.body();
        self.clients.pending.remove(&id);
        let is_first = !self.checkers.executed.contains_key(&id);
        let known = *self.checkers.executed.entry(id).or_insert(place);
        if known != place {
            self.violate(Violation::RanTwice, format!("{node} executes {id:?} at {place:?} and at {known:?}"));
        }
        if !self.clients.admitted.contains_key(&id) {
            self.violate(Violation::NeverAdmitted, format!("{node} executes {id:?}"));
        }
        let used_by = *self.checkers.nonces.entry((body.sender, body.nonce)).or_insert(id);
        let highest = self.checkers.highest_nonces.entry(body.sender).or_default();
        let far = body.nonce.0 > highest.0 + NONCE_WINDOW || body.nonce.0 + NONCE_WINDOW <= highest.0;
        *highest = body.nonce.max(*highest);
        if far && is_first {
            self.violate(Violation::NonceOutside, format!("{node} executes {id:?} with {:?}", body.nonce));
        }
        if used_by != id {
            self.violate(Violation::NonceTwice, format!("{node} executes {id:?} with the nonce of {used_by:?}"));
        }
        if body.expire_time < header.time {
            self.violate(Violation::Expired, format!("{node} executes {id:?} at {:?}", header.time));
        }
        let latest = header.time.plus(self.genesis.params.max_expiry_ms);
        if body.max_fee < done.receipt.fee || body.expire_time > latest {
            self.violate(Violation::NotAllowed, format!("{node} executes {id:?} at {:?}: {body:?}", header.time));
        }
        if let Err((_, failure)) = &done.receipt.result {
            self.marks.hit(match failure {
                Failure::InsufficientFunds { .. } => Mark::OverdraftFailed,
                _ => Mark::FailedWithFee,
            });
        }
    }

    /// Other roots are alarming; they are explained by a Byzantine leader only, who named others than all found. A payload that does
    /// not fit never is.
    pub fn check_alarm(&mut self, node: usize, alarm: &Alarm) {
        self.note(node as u64 ^ 0xa1, || format!("{node} raises {alarm:?}"));
        let lied = self.setup.byzantine.iter().any(|(_, kind)| kind.names_wrong_roots());
        match alarm {
            Alarm::StateMismatch { height, here, named }
                if lied && self.checkers.roots.get(height) == Some(here) && named != here =>
            {
                self.marks.hit(Mark::RootsAlarm);
            }
            _ if self.nodes[node].correct => self.violate(Violation::Alarm, format!("{node} raises {alarm:?}")),
            _ => {}
        }
    }

    /// What shows in a machine after a turn, now and then.
    pub fn look_at(&mut self, node: usize) {
        self.checkers.looks += 1;
        if self.checkers.looks.is_multiple_of(32) {
            self.check_final(node);
            self.check_bounds(node);
        }
    }

    /// What a node takes for final is what others have executed there, whether or not it ever executes it.
    fn check_final(&mut self, node: usize) {
        let Some(Status { final_height, final_hash, .. }) = self.status(node).filter(|_| self.nodes[node].correct)
        else {
            return;
        };
        if self.checkers.chain.get(final_height.0 as usize).is_some_and(|known| *known != final_hash) {
            self.violate(Violation::Fork, format!("{node} takes {final_hash:?} for final at height {final_height}"));
        }
    }

    /// Every queue of a machine stays within its bound, whatever it is sent.
    fn check_bounds(&mut self, node: usize) {
        let Some(machine) = &self.nodes[node].machine else { return };
        let n = self.setup.stakes.len();
        let kept = machine.kept();
        let status = machine.status();
        let waiting = status.waiting_bytes;
        // What a header that is final and executed here names is certified: what lies below has gone. Above there are the blocks
        // executed and those given out.
        let last = (status.executed.0 as usize).checked_sub(1).and_then(|at| self.nodes[node].blocks.get(at));
        let certified = last.map_or(0, |(order, _)| order.header.executed.height.0);
        let uncertified = status.executed.0.saturating_sub(certified) as usize + 1;
        let unexecuted = status.final_height.0.saturating_sub(status.executed.0) as usize;
        // PREPAREs of 17 views, COMMITs of 16, two VIEW-CHANGEs per signer: rule V5. Batches: four windows per lane, and those of
        // final blocks.
        let bounds = Kept {
            votes: n * 35,
            open_headers: 1024 + 64,
            batches: n * (4 * 64 + 8 + unexecuted),
            early_batches: 8,
            requests: 512,
            lower_commits: 8,
            whole: 1024 + 64,
            unexecuted: UNEXECUTED_MAX,
            unreleased: uncertified + unexecuted.min(64),
            results: uncertified,
        };
        let numbers = |kept: Kept| {
            let Kept { votes, open_headers, batches, early_batches, requests, lower_commits, whole, .. } = kept;
            let Kept { unexecuted, unreleased, results, .. } = kept;
            [
                votes,
                open_headers,
                batches,
                early_batches,
                requests,
                lower_commits,
                whole,
                unexecuted,
                unreleased,
                results,
            ]
        };
        let within = numbers(kept).iter().zip(numbers(bounds)).all(|(kept, bound)| *kept <= bound);
        // A flood may overshoot by what was admitted together; lapsed batches of a lane's window come on top.
        let waiting_bound = (64 << 10) + (400 * 512) + (512 << 10);
        if !within || waiting > waiting_bound {
            self.violate(Violation::Bounds, format!("{node} keeps {kept:?} of {bounds:?}, {waiting} bytes"));
        }
    }

    /// A client's transaction that lapsed with an epoch is sealed anew in the next.
    pub fn note_sealed(&mut self, node: usize, message: &Message) {
        let Message::Batch(SignedBatch { batch, .. }) = message else { return };
        for bytes in batch.transactions() {
            let transaction = Hash::of(bytes);
            self.checkers.sealed_by.insert((transaction, node));
            let before = self.checkers.sealed_in.insert(transaction, batch.epoch());
            if before.is_some_and(|before| before < batch.epoch()) {
                self.marks.hit(Mark::SealedAnew);
            }
        }
    }

    pub fn mark_dropped(&mut self, reject: Reject) {
        let mark = match reject {
            Reject::FarView => Mark::FarViewDropped,
            Reject::Gap => Mark::GapDropped,
            Reject::NotLeader => Mark::NotLeaderDropped,
            _ => return,
        };
        self.marks.hit(mark);
    }

    /// What a proposal that arrives shows.
    pub fn show(&mut self, to: usize, from: usize, message: &Message) {
        if let Some(mut behaviour) = self.nodes[to].behaviour.take() {
            let said = self.let_act(to, |scene| behaviour.on_receive(scene, from, message));
            self.nodes[to].behaviour = Some(behaviour);
            if !said.is_empty() {
                self.note_lie(to);
            }
        }
        let Message::Proposal(proposal) = message else { return };
        self.nodes[to].was_proposed_to = true;
        if !self.nodes[from].honest {
            return;
        }
        let header = &proposal.header;
        if header.view < proposal.view {
            self.marks.hit(Mark::LastBlockAgain);
        }
        if header.height.above(header.executed.height) > self.setup.params.execution_window {
            self.marks.hit(Mark::WindowClosed);
        }
        let unix = self.clock_of(to).unix;
        if header.time > unix.plus(self.setup.params.max_clock_drift_ms) {
            self.marks.hit(Mark::TimeWaited);
        }
        if let Some(certificate) = &proposal.justification
            && certificate.kind == VoteKind::Commit
            && certificate.epoch == proposal.epoch
        {
            self.marks.hit(Mark::CommitJustifies);
        }
    }
}
