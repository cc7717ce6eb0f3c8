//! Frozen bytes: everything that is hashed, signed or kept for ever, made from fixed content by the code as it is, beside
//! what it was when the format was fixed.
//!
//! `clients/vectors/vectors.txt` holds one `name value` per line. A line that changes is a change of format: nodes of before and after
//! could not run one chain, or not read their own journal. Libraries in other languages check themselves against it.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tally_consensus::{Message, Record, Unsigned};
use tally_node::signing::Signer;
use tally_proto::v1::{self, operation::Operation};
use tally_types::{
    Address, Batch, Certificate, Epoch, Genesis, Hash, Header, Height, Params, Proposal, SecretKey, Seq, Signature,
    SignedTransaction, Tip, UnixMillis, View, VoteKind,
    certificate::CertificateSignature,
    genesis::{FORMAT, GenesisAccount, GenesisFile, GenesisValidator},
    have::HaveVector,
    header::{Executed, HeaderFields},
    transaction,
    vote::Ballot,
};

const FROZEN: &str = include_str!("../../clients/vectors/vectors.txt");

/// Lines of the file, and what the next of them build on.
struct Vectors {
    lines: Vec<String>,
    genesis: Genesis,
    signer: Signer,
}

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn account(seed: u8) -> Address {
    secret(seed).public_key().address()
}

fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

fn genesis_file() -> GenesisFile {
    let validator = |seed: u8| GenesisValidator {
        address: account(seed).to_string(),
        consensus_public_key: secret(seed + 100).public_key().to_string(),
        stake: 1_000_000_000 * u64::from(seed),
        moniker: format!("v{seed}"),
    };
    GenesisFile {
        format: FORMAT,
        name: "frozen".into(),
        time_ms: 1_800_000_000_000,
        symbol: "TALLY".into(),
        decimals: 9,
        total_supply: 10_000_000_000 + 4_000,
        params: Params::default(),
        accounts: (1..=4).map(|seed| GenesisAccount { address: account(seed).to_string(), balance: 1000 }).collect(),
        validators: (1..=4).map(validator).collect(),
    }
}

impl Vectors {
    fn make() -> Vec<String> {
        let bytes = genesis_file().encode().unwrap();
        let genesis = Genesis::parse(&bytes).unwrap();
        let signer = Signer::new(secret(101), genesis.chain.genesis_hash, account(1));
        let mut vectors = Vectors { lines: Vec::new(), genesis, signer };
        vectors.text("key.seed", &hex::encode([1; 32]));
        vectors.text("key.public", &secret(1).public_key().to_string());
        vectors.text("key.address", &account(1).to_string());
        vectors.bytes("genesis.file", &bytes);
        vectors.hash("genesis.hash", vectors.genesis.chain.genesis_hash);
        vectors.text("genesis.chain_id", &vectors.genesis.chain.id.clone());
        vectors.hash("validators.hash", vectors.genesis.validators.hash());
        let leaders =
            (1..=16).map(|view| vectors.genesis.validators.leader(&hash(7), Epoch(3), View(view)).to_string());
        let leaders = leaders.collect::<Vec<_>>().join(",");
        vectors.text("leaders.seed_07.epoch_3.views_1_to_16", &leaders);
        let transaction = vectors.transaction();
        let batch = vectors.batch(transaction);
        let header = vectors.header(batch.tip());
        let certificate = vectors.votes(&header);
        vectors.proposals(&header, &certificate);
        vectors.have(batch.tip());
        let content = b"content";
        let envelope = tally_node::signing::envelope_bytes(&vectors.genesis_hash(), &account(2), 9, content);
        vectors.bytes("envelope.to_account_2.counter_9.signed_bytes", envelope.as_bytes());
        vectors.bytes("envelope.signature", &vectors.signer.envelope(&account(2), 9, content).0);
        vectors.records(&header, &batch, &certificate);
        vectors.lines
    }

    fn genesis_hash(&self) -> Hash {
        self.genesis.chain.genesis_hash
    }

    fn text(&mut self, name: &str, value: &str) {
        self.lines.push(format!("{name} {value}"));
    }

    fn bytes(&mut self, name: &str, value: &[u8]) {
        self.text(name, &hex::encode(value));
    }

    fn hash(&mut self, name: &str, value: Hash) {
        self.bytes(name, value.as_bytes());
    }

    /// Signed as a client signs: every kind of operation, and every field set.
    fn transaction(&mut self) -> Vec<u8> {
        let transfer = v1::Transfer { recipient: account(2).to_string(), amount: 5 };
        let create = v1::CreateAccount { new_account: account(9).to_string(), opening_balance: 7_000_000 };
        let operations = [Operation::Transfer(transfer), Operation::CreateAccount(create)];
        let body = v1::TransactionBody {
            chain_id: self.genesis.chain.id.clone(),
            sender: account(1).to_string(),
            nonce: 300,
            expire_time: Some(prost_types::Timestamp { seconds: 1_800_000_600, nanos: 250_000_000 }),
            max_fee: 2_000_000,
            memo: "Grüße".into(),
            operations: operations.map(|operation| v1::Operation { operation: Some(operation) }).into(),
        };
        let body = body.encode_to_vec();
        let bytes = transaction::sign(&secret(1), &self.genesis_hash(), &body);
        let parsed = SignedTransaction::parse(&bytes, &self.genesis.chain).unwrap();
        self.bytes("transaction.body", &body);
        self.bytes("transaction.signed_bytes", transaction::signed_bytes(&self.genesis_hash(), &body).as_bytes());
        self.hash("transaction.id", parsed.id());
        self.bytes("transaction.bytes", &bytes);
        parsed.verify().unwrap();
        bytes
    }

    fn batch(&mut self, transaction: Vec<u8>) -> Batch {
        let parent = Tip { seq: Seq(4), digest: hash(4) };
        let batch = Batch::new(Epoch(2), 0, parent, vec![Bytes::from(transaction)]);
        self.bytes("batch.bytes", batch.bytes());
        self.hash("batch.digest", batch.digest());
        self.bytes("batch.signed_bytes", batch.signed_bytes(&self.genesis_hash(), &account(1)).as_bytes());
        self.signed("batch", Unsigned::Batch(batch.clone()));
        let first = Batch::new(Epoch(2), 3, Tip::START, batch.transactions().to_vec());
        self.hash("batch.first_of_lane_3.digest", first.digest());
        batch
    }

    fn header(&mut self, tip: Tip) -> Header {
        let header = Header::new(HeaderFields {
            epoch: Epoch(2),
            height: Height(2049),
            view: View(3),
            parent: hash(10),
            proposer: 1,
            time: UnixMillis(1_800_000_000_123),
            cut: vec![tip, Tip::START, Tip { seq: Seq(1), digest: hash(11) }, Tip::START],
            executed: Executed { height: Height(2047), state_root: hash(12), receipts_root: hash(13) },
            validators: hash(14),
            next_validators: Hash::ZERO,
        });
        self.bytes("header.bytes", header.bytes());
        self.hash("header.hash", header.hash());
        header
    }

    /// The ballots, and certificates made of them.
    fn votes(&mut self, header: &Header) -> Arc<Certificate> {
        let (epoch, view, block) = (Epoch(2), View(3), header.hash());
        let ballots = [
            ("prepare", Ballot::Prepare(view, block)),
            ("commit", Ballot::Commit(view, block)),
            ("view_change", Ballot::ViewChange(View(4), View(3))),
        ];
        let mut certificates = Vec::new();
        for (name, ballot) in ballots {
            self.bytes(&format!("{name}.signed_bytes"), ballot.signed_bytes(&self.genesis_hash(), epoch).as_bytes());
            let highest = certificates.first().cloned().filter(|_| ballot.kind() == VoteKind::ViewChange);
            self.signed(name, Unsigned::Ballot { epoch, signer: 0, ballot, highest: highest.clone() });
            let highest_view = if highest.is_some() { View(3) } else { View(0) };
            let signature = |signer: u32| {
                let key = secret(101 + u8::try_from(signer).unwrap());
                let signature = key.sign(&ballot.signed_bytes(&self.genesis_hash(), epoch));
                CertificateSignature { signer, highest_view, signature }
            };
            let certificate = Arc::new(Certificate {
                kind: ballot.kind(),
                epoch,
                view: ballot.view(),
                block: if highest.is_some() { Hash::ZERO } else { block },
                signatures: (0..3).map(signature).collect(),
                highest,
            });
            assert_eq!(Certificate::parse(&certificate.encode()).unwrap(), *certificate);
            self.bytes(&format!("{name}.certificate"), &certificate.encode());
            certificates.push(certificate);
        }
        certificates.pop().unwrap()
    }

    fn proposals(&mut self, header: &Header, certificate: &Arc<Certificate>) {
        for (name, justification) in [("proposal.first", None), ("proposal", Some(certificate.clone()))] {
            let highest_commit = None;
            let (epoch, view, header) = (Epoch(2), View(5), header.clone());
            let unsigned = Unsigned::Proposal { epoch, view, header, justification, highest_commit };
            let Message::Proposal(proposal) = self.signed(name, unsigned) else {
                panic!("a proposal is signed as one")
            };
            let signed_bytes = proposal.signed_bytes(&self.genesis_hash());
            self.bytes(&format!("{name}.signed_bytes"), signed_bytes.as_bytes());
            assert_eq!(Proposal::from_proto(&proposal.to_proto()).unwrap(), *proposal);
        }
    }

    fn have(&mut self, tip: Tip) {
        let vector = HaveVector {
            epoch: Epoch(2),
            counter: 77,
            tips: vec![tip, Tip::START],
            executed: Height(2047),
            view: View(3),
            final_height: Height(2048),
        };
        let Message::Have(have) = self.signed("have", Unsigned::Have { signer: 0, vector }) else {
            panic!("a HAVE is signed as one")
        };
        self.bytes("have.signed_bytes", have.signed_bytes(&self.genesis_hash()).as_bytes());
    }

    /// The message as it travels, its signature within.
    fn signed(&mut self, name: &str, unsigned: Unsigned) -> Message {
        let message = self.signer.sign(unsigned);
        let bytes = match &message {
            Message::Proposal(proposal) => proposal.to_proto().encode_to_vec(),
            Message::Vote(vote) => vote.to_proto().encode_to_vec(),
            Message::ViewChange(change) => change.to_proto().encode_to_vec(),
            Message::Batch(batch) => batch.to_proto().encode_to_vec(),
            Message::Have(have) => have.to_proto().encode_to_vec(),
            Message::Certificates { .. } => panic!("certificates are not signed by a machine"),
        };
        self.bytes(&format!("{name}.message"), &bytes);
        message
    }

    fn records(&mut self, header: &Header, batch: &Batch, certificate: &Arc<Certificate>) {
        let (epoch, view, block) = (Epoch(2), View(3), header.hash());
        let executed = Executed { height: Height(2047), state_root: hash(12), receipts_root: hash(13) };
        let records = [
            Record::Certificate(certificate.clone()),
            Record::Header(header.clone()),
            Record::Accepted(batch.clone(), Signature([5; 64])),
            Record::Sealed(batch.clone()),
            Record::Stored(batch.clone()),
            Record::Proposed { epoch, view, block, justification: Some(certificate.clone()) },
            Record::Prepared { epoch, view, block },
            Record::ViewChanged { epoch, view, highest: None },
            Record::Observing(Some(Epoch(4))),
            Record::Executed(executed),
            Record::Validators(epoch, self.genesis.validators.clone()),
            Record::Incarnation(6),
        ];
        for (kind, record) in (1..).zip(records) {
            let bytes = record.encode();
            assert_eq!((record.kind(), Record::parse(kind, &bytes).unwrap()), (kind, record));
            self.bytes(&format!("journal.record.kind_{kind}"), &bytes);
        }
    }
}

#[test]
fn bytes_are_what_they_were() {
    let made = Vectors::make();
    let frozen: Vec<_> = FROZEN.lines().collect();
    let changed: Vec<_> = made.iter().filter(|line| !frozen.contains(&line.as_str())).collect();
    // Not `assert_eq`: it would print all lines twice.
    assert!(made == frozen, "the format changed in these lines: {changed:#?}");
}
