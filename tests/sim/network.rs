//! The network of the world: delay, reordering, loss, duplicates, partitions, and what peers ask each other.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use tally_consensus::{Event, Fetch, FetchedBlock, Judgement, Message, Reject};
use tally_node::peers::wire::{self, transaction_checks};
use tally_proto::consensus as proto;
use tally_types::{Batch, Certificate, Header, View};

use crate::{
    checkers::Violation,
    marks::Mark,
    world::{Happening, World},
};

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Headers(Vec<Header>),
    Batches(Vec<Batch>),
    Blocks(Vec<FetchedBlock>),
}

/// A network divided in two for what is said in one view, from the first word of that view on.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    /// Bit n is the side of node n.
    pub sides: u32,
    pub lasts_ms: u64,
    pub until: Option<u64>,
}

impl World {
    /// Sends to every node of every other validator.
    pub fn broadcast(&mut self, from: usize, message: &Message) {
        let message = Rc::new(through_the_wire(message));
        for to in 0..self.nodes.len() {
            if self.nodes[to].validator != self.nodes[from].validator {
                self.send_read(from, to, &message);
            }
        }
    }

    /// Sends to one node.
    pub fn send(&mut self, from: usize, to: usize, message: &Message) {
        let message = Rc::new(through_the_wire(message));
        self.send_read(from, to, &message);
    }

    fn send_read(&mut self, from: usize, to: usize, message: &Rc<Message>) {
        if self.are_divided(from, to, view_of(message)) {
            return;
        }
        let copies = if self.faulty() && self.rng.percent(self.setup.faults.duplicates) { 2 } else { 1 };
        for copy in 0..copies {
            let digest = digest_of(message) ^ (to as u64) << 8 ^ from as u64 ^ copy << 16;
            match self.travel(from, to) {
                Some(delay) => {
                    let again = if copy > 0 { "again " } else { "" };
                    self.note(digest, || format!("{from} sends {again}to {to}, for {delay} ms: {}", describe(message)));
                    let incarnation = self.nodes[to].incarnation;
                    self.at(delay, Happening::Deliver { to, incarnation, from, message: message.clone() });
                }
                None => self.note(digest, || format!("{from} sends to {to} and it is lost: {}", describe(message))),
            }
        }
    }

    /// How long a message takes; none: it is lost.
    pub fn travel(&mut self, from: usize, to: usize) -> Option<u64> {
        if self.is_cut(from, to) {
            return None;
        }
        if !self.faulty() {
            return Some(1 + self.rng.below(5));
        }
        if self.rng.percent(self.setup.faults.loss) {
            return None;
        }
        // Most are quick, some take up to the longest delay: reordering.
        let longest =
            if self.rng.percent(90) { self.setup.faults.delay_ms.min(20) } else { self.setup.faults.delay_ms };
        Some(1 + self.rng.below(longest.max(1)))
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.get(from * self.nodes.len() + to).copied().unwrap_or(false)
    }

    /// Whether what is said in a view does not get from one node to the other; without a view: in that of the speaker.
    fn are_divided(&mut self, from: usize, to: usize, view: Option<View>) -> bool {
        if self.divisions.is_empty() {
            return false;
        }
        let view = view.or_else(|| self.status(from).map(|status| status.view)).unwrap_or_default();
        let now = self.now;
        let division = view.previous().and_then(|before| self.divisions.get_mut(before.0 as usize));
        division.is_some_and(|division| {
            let until = *division.until.get_or_insert(now + division.lasts_ms);
            now < until && (division.sides >> from ^ division.sides >> to) & 1 == 1
        })
    }

    /// Which pairs cannot talk, from now on.
    pub fn cut_where(&mut self, is_cut: impl Fn(usize, usize) -> bool) {
        let n = self.nodes.len();
        self.cut = (0..n * n).map(|pair| pair / n != pair % n && is_cut(pair / n, pair % n)).collect();
    }

    /// Draws another partition, or none.
    pub fn partition(&mut self) {
        let n = self.nodes.len();
        let kind = self.rng.below(6);
        match kind {
            0 => {
                let sides: Vec<u64> = (0..n).map(|_| self.rng.below(2)).collect();
                self.cut_where(|one, two| sides[one] != sides[two]);
                self.marks.hit(Mark::SymmetricPartition);
            }
            1 => {
                // Each direction by itself.
                let cut: Vec<bool> = (0..n * n).map(|_| self.rng.percent(30)).collect();
                self.cut_where(|one, two| cut[one * n + two]);
                self.marks.hit(Mark::AsymmetricPartition);
            }
            2 if n > 3 => {
                self.cut_where(|one, two| (one + 1) % n != two && (two + 1) % n != one);
                self.marks.hit(Mark::RingPartition);
            }
            _ => self.cut.clear(),
        }
        let cut: Vec<String> = (0..n * n)
            .filter(|pair| self.is_cut(pair / n, pair % n))
            .map(|pair| format!("{}>{}", pair / n, pair % n))
            .collect();
        self.note(kind, || format!("partition, these do not reach each other: {}", cut.join(" ")));
        let next = 500 + self.rng.below(8000);
        self.at(next, Happening::Partition);
    }

    pub fn deliver(&mut self, to: usize, from: usize, message: &Message) {
        if self.nodes[to].machine.is_none() {
            return;
        }
        let from_address = self.nodes[from].signer.address;
        if self.hung_up.get(&(to, from)).is_some_and(|until| *until > self.now) {
            return self.note(to as u64 ^ 0xf1, || format!("{to} does not listen to {from}"));
        }
        self.show(to, from, message);
        match self.nodes[to].sets.judge(self.keys.genesis(), message) {
            Judgement::Check(checks) => {
                if !checks.iter().all(|check| self.keys.holds(check)) {
                    self.marks.hit(Mark::ForgedDropped);
                    return self.end_connection(to, from, "forged");
                }
                if let Message::Batch(batch) = message
                    && !self.has_good_transactions(&batch.batch)
                {
                    self.marks.hit(Mark::BadTransactionsDropped);
                    return self.end_connection(to, from, "a batch with transactions that nobody signed");
                }
                let digest = digest_of(message) ^ (to as u64) << 8 ^ from as u64;
                self.note(digest, || format!("{from} -> {to}: {}", describe(message)));
                self.hand_over(to, from_address, message.clone());
            }
            Judgement::Ahead => {
                self.note(digest_of(message), || format!("{from} -> {to}, of an epoch ahead: {}", describe(message)));
                if self.nodes[from].honest {
                    self.marks.hit(Mark::HeardAhead);
                }
                self.handle(to, Event::Ahead { from: from_address });
            }
            Judgement::Over => {
                self.note(digest_of(message), || {
                    format!("{from} -> {to}, of an epoch that is over: {}", describe(message))
                });
                if self.nodes[from].honest {
                    self.marks.hit(Mark::HeardBehind);
                }
                self.handle(to, Event::Behind { from: from_address });
            }
            Judgement::Drop(reject) => {
                self.note(digest_of(message), || format!("{from} -> {to}, dropped, {reject:?}: {}", describe(message)));
                if reject == Reject::Forged {
                    self.marks.hit(Mark::ForgedDropped);
                }
                self.end_connection(to, from, "forged, or out of shape");
            }
        }
    }

    /// Nobody who keeps the protocol says what another such node cannot use.
    fn blame(&mut self, to: usize, from: usize, what: &str) {
        if self.nodes[from].correct && self.nodes[to].correct {
            self.violate(Violation::Blamed, format!("{to} got from {from}: {what}"));
        }
    }

    /// Rule P2: what does not verify is dropped and ends that connection; it comes up again soon.
    fn end_connection(&mut self, to: usize, from: usize, why: &str) {
        self.note(to as u64 ^ 0xf0, || format!("{to} hangs up on {from}: {why}"));
        self.blame(to, from, why);
        let due = self.hung_up.get(&(to, from)).copied().unwrap_or(0);
        if due <= self.now {
            self.hung_up.insert((to, from), self.now + 500);
            self.at(500, Happening::Reconnect { one: to, two: from });
        }
    }

    /// Rule D2: every transaction of a batch is well formed and signed. Asked once per batch: the answer is the same
    /// everywhere.
    pub fn has_good_transactions(&mut self, batch: &Batch) -> bool {
        if let Some(known) = self.good_batches.get(&batch.digest()) {
            return *known;
        }
        let checks = transaction_checks(batch, &self.genesis.chain);
        let good = checks.is_some_and(|checks| checks.iter().all(|check| self.keys.holds(check)));
        self.good_batches.insert(batch.digest(), good);
        good
    }

    /// A peer asks: the behaviour of a Byzantine one may keep silent.
    pub fn answer(&mut self, node: usize, from: usize, fetch: Fetch) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        if self.nodes[node].behaviour.as_mut().is_some_and(|behaviour| !behaviour.answers(&fetch)) {
            return self.note_lie(node);
        }
        let Some(machine) = &self.nodes[node].machine else { return };
        let first = if let Fetch::Blocks { from, .. } = &fetch { from.0 } else { 0 };
        let answer = match fetch {
            Fetch::Headers(hashes) => {
                Answer::Headers(hashes.iter().filter_map(|hash| machine.lookup_header(hash)).cloned().collect())
            }
            Fetch::Batches(wanted) => Answer::Batches(
                wanted.iter().flat_map(|(tip, above)| machine.lookup_batches(tip, *above, 64)).take(64).collect(),
            ),
            Fetch::Blocks { from, to } => {
                // As a real node: past the end, up to the next block with a certificate of its own, without payload.
                let mut blocks = Vec::new();
                for (order, _) in self.nodes[node].blocks.iter().skip(from.0.saturating_sub(1) as usize) {
                    let whole = order.header.height <= to && blocks.len() < self.setup.answer_blocks;
                    let batches = order.lanes.iter().flatten().filter(|_| whole).cloned().collect();
                    let (header, commit) = (order.header.clone(), order.commit.clone());
                    let last = header.height >= to || blocks.len() + 1 >= self.setup.answer_blocks;
                    let enough = last && commit.is_some();
                    blocks.push(FetchedBlock { header, batches, commit });
                    if enough {
                        break;
                    }
                }
                // A line that breaks, or is too slow for the rest.
                if self.faulty() && self.rng.percent(self.setup.faults.loss) {
                    blocks.truncate(self.rng.index(blocks.len() + 1));
                }
                Answer::Blocks(blocks)
            }
        };
        let answer = match self.nodes[node].behaviour.take() {
            None => answer,
            Some(mut behaviour) => {
                let (mut twisted, honest) = (None, answer.clone());
                self.let_act(node, |scene| twisted = Some(behaviour.on_answer(scene, answer)));
                self.nodes[node].behaviour = Some(behaviour);
                let twisted = twisted.expect("every behaviour answers something");
                if twisted != honest {
                    self.note_lie(node);
                }
                twisted
            }
        };
        if self.are_divided(node, from, None) {
            return;
        }
        let answer = answer_through_the_wire(answer, first);
        match self.travel(node, from) {
            Some(delay) => self.at(delay, Happening::Answer { to: from, from: node, answer: Box::new(answer) }),
            None => self.note(from as u64 ^ 0xa3, || format!("{node} answers {from} and it is lost")),
        }
    }

    pub fn take_answer(&mut self, to: usize, from: usize, answer: Answer) {
        self.note((to as u64) << 8 ^ from as u64 ^ 0xa5_0000, || format!("{from} answers {to}: {answer:?}"));
        if self.nodes[to].machine.is_none() {
            return;
        }
        let event = match answer {
            Answer::Headers(headers) => {
                if !headers.is_empty() {
                    self.marks.hit(Mark::HeaderFetched);
                }
                Event::Headers(headers)
            }
            Answer::Batches(batches) => {
                // Up to the first that is none: the rest of the answer is not read.
                let good = batches.iter().take_while(|batch| self.has_good_transactions(batch)).count();
                if good < batches.len() {
                    self.blame(to, from, "an answer with a batch of transactions that nobody signed");
                }
                Event::Batches(batches.into_iter().take(good).collect())
            }
            Answer::Blocks(mut blocks) => {
                let (holds, is_false) = match self.nodes[to].sets.judge_blocks(self.keys.genesis(), &mut blocks) {
                    Judgement::Check(checks) => {
                        let holds = checks.iter().all(|check| self.keys.holds(check));
                        (holds, !holds)
                    }
                    Judgement::Ahead | Judgement::Over => (false, false),
                    Judgement::Drop(_) => (false, true),
                };
                if is_false {
                    self.blame(to, from, "an answer that is forged, or out of shape");
                }
                if !holds {
                    blocks.clear();
                }
                let from = self.nodes[from].signer.address;
                if !blocks.is_empty() {
                    self.marks.hit(Mark::RangeFetched);
                }
                if blocks.len() > self.setup.answer_blocks {
                    self.marks.hit(Mark::BareRangeFetched);
                }
                Event::Blocks { from, blocks }
            }
        };
        self.handle(to, event);
    }
}

/// The view a message speaks in, if it names one.
fn view_of(message: &Message) -> Option<View> {
    match message {
        Message::Proposal(proposal) => Some(proposal.view),
        Message::Vote(vote) => Some(vote.view),
        Message::ViewChange(change) => Some(change.view),
        Message::Batch(_) | Message::Have(_) | Message::Certificates { .. } => None,
    }
}

/// Every message goes through its bytes, as between real nodes.
fn through_the_wire(message: &Message) -> Message {
    let sent = proto::PeerMessage { payload: Some(wire::written(message)), ..proto::PeerMessage::default() };
    let received = proto::PeerMessage::decode(Bytes::from(sent.encode_to_vec())).expect("protobuf");
    wire::read(received.payload.expect("it was sent")).expect("what is written can be read")
}

/// And every answer, to a question for blocks from height `first` on: what cannot be read ends it.
fn answer_through_the_wire(answer: Answer, first: u64) -> Answer {
    let read = |batch: &Batch| Batch::parse(batch.bytes()).ok();
    match answer {
        Answer::Headers(headers) => {
            let headers = headers.iter().map(|header| header.bytes().clone()).collect();
            Answer::Headers(wire::headers(&proto::FetchHeadersResponse { headers }))
        }
        Answer::Batches(batches) => Answer::Batches(batches.iter().map_while(read).collect()),
        Answer::Blocks(blocks) => {
            let mut range = wire::Range::starting_at(first);
            for block in &blocks {
                let next = proto::FetchBlocksResponse {
                    header: block.header.bytes().clone(),
                    batches: block.batches.iter().map(|batch| batch.bytes().clone()).collect(),
                    commit: block.commit.as_ref().map(|commit| commit.to_proto()),
                };
                if !range.take(&next) {
                    break;
                }
            }
            Answer::Blocks(range.into_blocks())
        }
    }
}

/// Tells messages apart in the digest of a run.
fn digest_of(message: &Message) -> u64 {
    let of = |signature: &tally_types::Signature| {
        u64::from_le_bytes(signature.0[..8].try_into().expect("eight of 64 bytes"))
    };
    match message {
        Message::Proposal(proposal) => of(&proposal.signature),
        Message::Vote(vote) => of(&vote.signature),
        Message::ViewChange(change) => of(&change.signature),
        Message::Batch(batch) => of(&batch.signature),
        Message::Have(have) => of(&have.signature),
        Message::Certificates { entry, highest_commit } => {
            let views = [entry, highest_commit].map(|one| one.as_ref().map_or(0, |one| one.epoch.0 << 20 | one.view.0));
            views[0] << 32 ^ views[1]
        }
    }
}

fn describe(message: &Message) -> String {
    let name = |certificate: &Option<Arc<Certificate>>| match certificate {
        Some(one) => format!("{:?} {}/{}", one.kind, one.epoch, one.view),
        None => "none".into(),
    };
    match message {
        Message::Proposal(proposal) => {
            let by = name(&proposal.justification);
            format!("PROPOSAL {:?} in view {} on {by}", proposal.header, proposal.view)
        }
        Message::Vote(vote) => {
            format!("{:?} {}/{} {:?} by {}", vote.kind, vote.epoch, vote.view, vote.block, vote.signer)
        }
        Message::ViewChange(change) => {
            format!("VIEW-CHANGE {}/{} h={} by {}", change.epoch, change.view, change.highest_view, change.signer)
        }
        Message::Batch(batch) => format!("BATCH {:?}", batch.batch),
        Message::Have(have) => {
            let vector = &have.vector;
            let tips: BTreeMap<usize, _> = vector.tips.iter().enumerate().filter(|(_, tip)| tip.seq.0 > 0).collect();
            format!("HAVE {}/{} x={} {tips:?} by {}", vector.epoch, vector.view, vector.executed, have.signer)
        }
        Message::Certificates { entry, highest_commit } => {
            format!("CERTIFICATES entry {}, commit {}", name(entry), name(highest_commit))
        }
    }
}
