//! Clients: payments, new accounts, floods, and transactions that must not pass.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use prost::Message as _;
use tally_consensus::Event;
use tally_ledger::{Discard, Rejection, account::NONCE_WINDOW};
use tally_proto::v1;
use tally_types::{Address, Amount, Genesis, Hash, Nonce, SignedTransaction, UnixMillis, body::Body};

use crate::{
    byzantine::Kind,
    checkers::Violation,
    keys::{self, CLIENTS, Keys},
    marks::Mark,
    rng::Rng,
    setup::START_MS,
    world::{Happening, World},
};

/// What clients send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Transactions per second of simulated time, in all.
    pub per_second: u64,
    /// Of these, percent, open an account.
    pub creations: u64,
    /// Of these, percent, are wrong in some way.
    pub invalid: u64,
    /// Of these, percent, go to a second node as well: the same again, or another one with the same nonce.
    pub doubles: u64,
    /// Now and then hundreds come at once.
    pub floods: bool,
}

impl Load {
    pub fn none() -> Load {
        Load::payments(0)
    }

    pub fn payments(per_second: u64) -> Load {
        Load { per_second, creations: 0, invalid: 0, doubles: 0, floods: false }
    }

    pub fn drawn(rng: &mut Rng) -> Load {
        Load {
            per_second: rng.choose(&[0, 5, 20, 60]),
            creations: rng.choose(&[0, 10, 50]),
            invalid: rng.choose(&[0, 10, 50]),
            doubles: rng.choose(&[0, 10, 30]),
            floods: rng.percent(15),
        }
    }
}

/// What an admitted transaction says of its own fate.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    pub sender: Address,
    pub nonce: Nonce,
    pub expire_time: UnixMillis,
    pub max_fee: Amount,
}

/// Transactions kept for a validator that admits what its ledger refuses.
const OLD_KEPT: usize = 64;

/// What clients know.
pub struct Clients {
    /// Last nonce given out per client.
    nonces: [u64; CLIENTS],
    /// What some node admitted, by id: nothing else may ever be executed.
    pub admitted: HashMap<Hash, Promise>,
    /// Admitted ones that no honest node has executed or discarded yet, with the nodes and their incarnations that took them.
    pub pending: HashMap<Hash, Vec<(usize, u64)>>,
    /// Senders with more on the way than one transaction per nonce, in the order of nonces, to one node.
    disturbed: HashSet<Address>,
    /// Signed ones of late, whatever became of them.
    old: VecDeque<Bytes>,
    /// Transactions that went to a node.
    pub submitted: u64,
}

impl Default for Clients {
    fn default() -> Clients {
        Clients {
            nonces: [0; CLIENTS],
            admitted: HashMap::new(),
            pending: HashMap::new(),
            disturbed: HashSet::new(),
            old: VecDeque::new(),
            submitted: 0,
        }
    }
}

/// What may be wrong with a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// More than there is.
    Unfunded,
    /// Most of what there is: of two on the way the second is executed, fails, and pays its fee.
    Overdraft,
    /// Signed by another client.
    Forged,
    Garbage,
    Expired,
    /// It expires later than the chain allows.
    FarExpiry,
    /// It allows no fee.
    LowFee,
    UsedNonce,
}

struct Draft {
    client: usize,
    nonce: u64,
    wrong: Wrong,
    creation: bool,
    amount: u64,
    expire_time: UnixMillis,
}

/// Transactions a node took and waits for, as its admission keeps them: by sender and nonce, each with its expiry. They go with the
/// process.
#[derive(Default)]
pub struct OnTheWay(HashMap<Address, BTreeMap<Nonce, (Hash, UnixMillis)>>);

impl OnTheWay {
    fn highest(&self, sender: &Address) -> Nonce {
        self.0.get(sender).and_then(|own| own.last_key_value()).map(|(nonce, _)| *nonce).unwrap_or_default()
    }

    /// Whether another transaction holds this nonce, or those on their way will have left it behind.
    fn is_taken(&self, sender: &Address, nonce: Nonce) -> bool {
        let left_behind = self.highest(sender).above(nonce) >= NONCE_WINDOW;
        left_behind || self.0.get(sender).is_some_and(|own| own.contains_key(&nonce))
    }

    /// A block of this time has executed or discarded some: these are on the way no more, nor is what can run no more.
    pub fn settle<'a>(&mut self, time: UnixMillis, gone: impl Iterator<Item = &'a Hash>) {
        let gone: HashSet<_> = gone.collect();
        for own in self.0.values_mut() {
            own.retain(|_, (id, expire_time)| *expire_time >= time && !gone.contains(id));
        }
        self.0.retain(|_, own| !own.is_empty());
    }
}

impl World {
    pub fn next_client(&mut self) {
        if self.setup.load.per_second == 0 {
            return;
        }
        let mean = (1000 / self.setup.load.per_second).max(1);
        let next = 1 + self.rng.below(2 * mean);
        self.at(next, Happening::Client);
    }

    pub fn client(&mut self) {
        let client = self.rng.index(CLIENTS);
        let node = self.home(client);
        let flood = self.setup.load.floods && self.rng.below(200) == 0;
        let count = if flood { 100 + self.rng.below(300) } else { 1 };
        let mut admitted = Vec::new();
        for _ in 0..count {
            admitted.extend(self.submit(client, node));
        }
        if !admitted.is_empty() {
            self.handle(node, Event::Transactions(admitted));
        }
        self.admit_anything();
        self.next_client();
    }

    /// A client stays with its node: nonces of one lane arrive in order.
    fn home(&self, client: usize) -> usize {
        (client + self.setup.seed as usize) % self.nodes.len()
    }

    /// Transactions that a node took which keeps the protocol, votes, and has kept running since or had sealed them: it must bring
    /// them into a block. Whatever a node had not sealed when it stopped is its client's to send again.
    pub fn owed(&self) -> usize {
        let owes = |id: &Hash, (node, incarnation): &(usize, u64)| {
            let state = &self.nodes[*node];
            let votes = self.status(*node).is_some_and(|status| status.voting);
            let knows = state.incarnation == *incarnation || self.checkers.sealed_by.contains(&(*id, *node));
            state.honest && votes && knows
        };
        self.clients.pending.iter().filter(|(id, takers)| takers.iter().any(|taker| owes(id, taker))).count()
    }

    /// One submission to a node, up to its admission by the production rules.
    fn submit(&mut self, client: usize, node: usize) -> Option<Bytes> {
        if self.nodes[node].machine.as_ref()?.room() == 0 {
            self.marks.hit(Mark::NoRoom);
            return None;
        }
        let draft = self.draft(client, node);
        let bytes = transaction(&self.genesis, &self.keys, &mut self.rng, &draft);
        let admitted = self.admit(node, &draft, bytes.clone());
        if self.rng.percent(self.setup.load.doubles) {
            self.submit_double(&draft, bytes);
        }
        admitted
    }

    /// Validators that admit whatever is signed take something old now and then: executed, discarded, refused, or on its way.
    fn admit_anything(&mut self) {
        for node in 0..self.nodes.len() {
            let lax = self.setup.byzantine.contains(&(self.nodes[node].validator, Kind::LaxAdmission));
            if !lax || self.clients.old.is_empty() || self.rng.percent(50) {
                continue;
            }
            let bytes = self.clients.old[self.rng.index(self.clients.old.len())].clone();
            let transaction = SignedTransaction::parse(&bytes, &self.genesis.chain).expect("it was read before");
            let admitted = transaction.ordered();
            self.clients.disturbed.insert(admitted.body().sender);
            self.clients.admitted.entry(admitted.id()).or_insert(promise(admitted.body()));
            self.handle(node, Event::Transactions(vec![bytes]));
            self.note_lie(node);
        }
    }

    /// Whether more of `sender` is on the way than it sent to its node in order: there were other ones, or that node lost some,
    /// or does as it likes.
    pub fn is_disturbed(&self, sender: &Address) -> bool {
        let client = (0..CLIENTS).find(|client| keys::client(*client) == *sender);
        let home = client.map(|client| &self.nodes[self.home(client)]);
        self.clients.disturbed.contains(sender) || !home.is_some_and(|home| home.honest && home.incarnation <= 1)
    }

    /// The same transaction, or another with its nonce, to some node: one of the two runs.
    fn submit_double(&mut self, draft: &Draft, bytes: Bytes) {
        let node = self.rng.index(self.nodes.len());
        let other = self.rng.percent(50);
        let bytes = if other { transaction(&self.genesis, &self.keys, &mut self.rng, draft) } else { bytes };
        if self.nodes[node].machine.as_ref().is_some_and(|machine| machine.room() > 0)
            && let Some(bytes) = self.admit(node, draft, bytes)
        {
            self.marks.hit(if other { Mark::DoubleSpend } else { Mark::SentTwice });
            self.clients.disturbed.insert(keys::client(draft.client));
            self.handle(node, Event::Transactions(vec![bytes]));
        }
    }

    fn draft(&mut self, client: usize, node: usize) -> Draft {
        let wrong = if self.rng.percent(self.setup.load.invalid) {
            use Wrong::{Expired, FarExpiry, Forged, Garbage, LowFee, Overdraft, Unfunded, UsedNonce};
            self.rng.choose(&[Unfunded, Overdraft, Forged, Garbage, Expired, FarExpiry, LowFee, UsedNonce])
        } else {
            Wrong::Nothing
        };
        let next = self.clients.nonces[client] + 1;
        let nonce = match wrong {
            // Some lie at the end of the window, where what was used is forgotten.
            Wrong::UsedNonce => next.saturating_sub(self.rng.choose(&[1, 2, 127, 128, 129, 130])).max(1),
            _ => next,
        };
        let lasts_ms = if self.rng.percent(10) { 500 + self.rng.below(5000) } else { 3_600_000 };
        let unix_ms = START_MS + self.now;
        let expire_time = UnixMillis(match wrong {
            Wrong::Expired => unix_ms - 10_000,
            Wrong::FarExpiry => unix_ms + 1000 * 24 * 3_600_000,
            _ => unix_ms + lasts_ms,
        });
        let amount = match wrong {
            Wrong::Unfunded => self.genesis.total_supply.0,
            // Whoever is poor already could not pay the fees of what is on the way.
            Wrong::Overdraft if self.balance(client, node) > 1 << 40 => self.balance(client, node) / 3 * 2,
            _ => 1 + self.rng.below(1000),
        };
        let creation =
            self.rng.percent(self.setup.load.creations) && !matches!(wrong, Wrong::Unfunded | Wrong::Overdraft);
        Draft { client, nonce, wrong, creation, amount, expire_time }
    }

    fn balance(&self, client: usize, node: usize) -> u64 {
        let account = self.nodes[node].ledger.state().account(&keys::client(client));
        account.map_or(0, |account| account.balance.0)
    }

    /// What the API of a node does with a submission. The bytes, if it takes them.
    fn admit(&mut self, node: usize, draft: &Draft, bytes: Bytes) -> Option<Bytes> {
        let Draft { client, wrong, .. } = *draft;
        self.clients.submitted += 1;
        // As the API: by the clock of the node, or the time of its last block where that is ahead.
        let last = self.nodes[node].blocks.last().map_or(self.genesis.time, |(order, _)| order.header.time);
        let now = self.clock_of(node).unix.max(last);
        let verified = SignedTransaction::parse(&bytes, &self.genesis.chain)
            .ok()
            .filter(|transaction| self.keys.holds(transaction.check()))
            .map(SignedTransaction::ordered);
        if verified.is_some() {
            self.clients.old.push_back(bytes.clone());
            if self.clients.old.len() > OLD_KEPT {
                self.clients.old.pop_front();
            }
        }
        let (sender, nonce) = (keys::client(client), Nonce(draft.nonce));
        let state = &self.nodes[node];
        let highest = state.on_the_way.highest(&sender);
        let judged = verified.map(|verified| (state.ledger.admit(now, highest, &verified), verified));
        if let Some((Err(Rejection::Discard(discard)), _)) = &judged
            && matches!(
                discard,
                Discard::NonceTooHigh { .. } | Discard::NonceTooLow { .. } | Discard::NonceInUse { .. }
            )
            && wrong != Wrong::UsedNonce
            && self.home(client) == node
        {
            // What the client sent before is lost, or the node was behind: it goes on from where the node stands.
            let known = state.ledger.state().account(&sender).map_or(Nonce(0), |account| account.nonces.highest());
            self.clients.nonces[client] = known.max(highest).0;
            self.clients.disturbed.insert(sender);
        }
        let taken = state.on_the_way.is_taken(&sender, nonce);
        let admitted = judged.filter(|(judgement, _)| judgement.is_ok() && !taken).map(|(_, verified)| verified);
        let Some(admitted) = admitted else {
            self.marks.hit(Mark::Refused);
            self.note(client as u64 ^ 0xce, || format!("{node} refuses a transaction of client {client}: {wrong:?}"));
            return None;
        };
        let must_be_refused = match wrong {
            Wrong::Unfunded | Wrong::Forged | Wrong::Garbage | Wrong::FarExpiry | Wrong::LowFee => true,
            Wrong::Expired => now > draft.expire_time,
            Wrong::Nothing | Wrong::Overdraft | Wrong::UsedNonce => false,
        };
        if must_be_refused {
            self.violate(Violation::Admitted, format!("{node} takes {:?}: {wrong:?}", admitted.id()));
        }
        let held = self.nodes[node].on_the_way.0.entry(sender).or_default();
        held.insert(nonce, (admitted.id(), admitted.body().expire_time));
        self.clients.nonces[client] = self.clients.nonces[client].max(draft.nonce);
        if wrong == Wrong::UsedNonce {
            self.clients.disturbed.insert(admitted.body().sender);
        }
        self.clients.admitted.insert(admitted.id(), promise(admitted.body()));
        let taker = (node, self.nodes[node].incarnation);
        self.clients.pending.entry(admitted.id()).or_default().push(taker);
        Some(bytes)
    }
}

fn promise(body: &Body) -> Promise {
    Promise { sender: body.sender, nonce: body.nonce, expire_time: body.expire_time, max_fee: body.max_fee }
}

fn transaction(genesis: &Genesis, keys: &Keys, rng: &mut Rng, draft: &Draft) -> Bytes {
    if draft.wrong == Wrong::Garbage {
        return Bytes::from((0..40).map(|_| rng.next() as u8).collect::<Vec<u8>>());
    }
    let sender = keys::client(draft.client);
    let operation = if draft.creation {
        v1::operation::Operation::CreateAccount(v1::CreateAccount {
            new_account: keys::fresh(rng.index(keys::FRESH)).to_string(),
            opening_balance: genesis.params.min_opening_balance,
        })
    } else {
        let recipient = keys::client(rng.index(CLIENTS)).to_string();
        v1::operation::Operation::Transfer(v1::Transfer { recipient, amount: draft.amount })
    };
    let expires_ms = draft.expire_time.0 as i64;
    let (seconds, nanos) = (expires_ms / 1000, (expires_ms % 1000) as i32 * 1_000_000);
    let body = v1::TransactionBody {
        chain_id: genesis.chain.id.clone(),
        sender: sender.to_string(),
        nonce: draft.nonce,
        expire_time: Some(prost_types::Timestamp { seconds, nanos }),
        max_fee: if draft.wrong == Wrong::LowFee { 0 } else { Amount::SUPPLY_MAX.0 },
        memo: String::new(),
        operations: vec![v1::Operation { operation: Some(operation) }],
    };
    let body = body.encode_to_vec();
    let signed = tally_types::transaction::signed_bytes(&genesis.chain.genesis_hash, &body);
    let signer = if draft.wrong == Wrong::Forged { (draft.client + 1) % CLIENTS } else { draft.client };
    let signature = keys.sign(&keys::client(signer).into(), &signed).0.to_vec();
    let signature = v1::Signature { signer: String::new(), signature };
    v1::Transaction { body, signatures: vec![signature] }.encode_to_vec().into()
}
