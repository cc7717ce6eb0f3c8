//! Clients: payments, new accounts, floods, and transactions that must not pass.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message as _;
use tally_consensus::Event;
use tally_proto::v1;
use tally_types::{Amount, Genesis, Hash, Nonce, SignedTransaction, UnixMillis};

use crate::{
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
    /// Now and then hundreds come at once.
    pub floods: bool,
}

impl Load {
    pub fn none() -> Load {
        Load::payments(0)
    }

    pub fn payments(per_second: u64) -> Load {
        Load { per_second, creations: 0, invalid: 0, floods: false }
    }

    pub fn drawn(rng: &mut Rng) -> Load {
        Load {
            per_second: rng.choose(&[0, 5, 20, 60]),
            creations: rng.choose(&[0, 10, 50]),
            invalid: rng.choose(&[0, 10, 50]),
            floods: rng.percent(15),
        }
    }
}

/// What clients know.
pub struct Clients {
    /// Last nonce given out per client.
    nonces: [u64; CLIENTS],
    /// Ids that some node admitted: nothing else may ever be executed.
    pub admitted: HashSet<Hash>,
    /// Admitted ones that no honest node has executed or discarded yet, with the node and its incarnation that took them.
    pub pending: HashMap<Hash, (usize, u64)>,
    /// Transactions that went to a node.
    pub submitted: u64,
}

impl Default for Clients {
    fn default() -> Clients {
        Clients { nonces: [0; CLIENTS], admitted: HashSet::new(), pending: HashMap::new(), submitted: 0 }
    }
}

/// What may be wrong with a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// It is executed, fails, and pays its fee.
    Unfunded,
    /// Signed by another client.
    Forged,
    Garbage,
    Expired,
    UsedNonce,
}

struct Draft {
    client: usize,
    nonce: u64,
    wrong: Wrong,
    creation: bool,
    now: u64,
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
        // A client stays with its node: nonces of one lane arrive in order.
        let node = client % self.nodes.len();
        let flood = self.setup.load.floods && self.rng.below(200) == 0;
        let count = if flood { 100 + self.rng.below(300) } else { 1 };
        let mut admitted = Vec::new();
        for _ in 0..count {
            admitted.extend(self.submit(client, node));
        }
        if !admitted.is_empty() {
            self.handle(node, Event::Transactions(admitted));
        }
        self.next_client();
    }

    /// Transactions that a node took which has kept running since, keeps the protocol and votes: it must bring them into a
    /// block. Whatever a node had not sealed when it stopped is its client's to send again.
    pub fn owed(&self) -> usize {
        let owes = |(node, incarnation): &(usize, u64)| {
            let state = &self.nodes[*node];
            let votes = self.status(*node).is_some_and(|status| status.voting);
            state.honest && state.incarnation == *incarnation && votes
        };
        self.clients.pending.values().filter(|taker| owes(taker)).count()
    }

    /// One submission, up to its admission by the production rules.
    fn submit(&mut self, client: usize, node: usize) -> Option<Bytes> {
        let machine = self.nodes[node].machine.as_ref()?;
        if machine.room() == 0 {
            self.marks.hit(Mark::NoRoom);
            return None;
        }
        let wrong = if self.rng.percent(self.setup.load.invalid) {
            use Wrong::{Expired, Forged, Garbage, Unfunded, UsedNonce};
            self.rng.choose(&[Unfunded, Forged, Garbage, Expired, UsedNonce])
        } else {
            Wrong::Nothing
        };
        let creation = self.rng.percent(self.setup.load.creations);
        let nonce = self.clients.nonces[client] + 1;
        let draft = Draft { client, nonce, wrong, creation, now: self.now };
        let bytes = transaction(&self.genesis, &self.keys, &mut self.rng, &draft);
        self.clients.submitted += 1;
        let now = UnixMillis(START_MS + self.now);
        let verified = SignedTransaction::parse(&bytes, &self.genesis.chain)
            .ok()
            .filter(|transaction| self.keys.holds(transaction.check()))
            .map(SignedTransaction::ordered);
        let highest = Nonce(self.clients.nonces[client]);
        let admitted = verified.filter(|verified| self.nodes[node].ledger.admit(now, highest, verified).is_ok());
        let Some(admitted) = admitted else {
            self.marks.hit(Mark::Refused);
            self.note(client as u64 ^ 0xce, || format!("{node} refuses a transaction of client {client}: {wrong:?}"));
            return None;
        };
        if matches!(wrong, Wrong::Nothing | Wrong::Unfunded) {
            self.clients.nonces[client] = nonce;
        }
        self.clients.admitted.insert(admitted.id());
        self.clients.pending.insert(admitted.id(), (node, self.nodes[node].incarnation));
        Some(bytes)
    }
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
        let amount = if draft.wrong == Wrong::Unfunded { u64::MAX >> 2 } else { 1 + rng.below(1000) };
        v1::operation::Operation::Transfer(v1::Transfer { recipient, amount })
    };
    let unix_s = (START_MS + draft.now) as i64 / 1000;
    let seconds = if draft.wrong == Wrong::Expired { unix_s - 10 } else { unix_s + 3600 };
    let body = v1::TransactionBody {
        chain_id: genesis.chain.id.clone(),
        sender: sender.to_string(),
        nonce: if draft.wrong == Wrong::UsedNonce { 1 } else { draft.nonce },
        expire_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        max_fee: Amount::SUPPLY_MAX.0,
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
