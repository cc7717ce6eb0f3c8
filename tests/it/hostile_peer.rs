//! A validator that breaks every rule of the peer port, with the key of a node that is down: what it sends is dropped and
//! counted, a stream that lies ends, and the others go on.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use prost::Message as _;
use tally_proto::{
    consensus::{
        self as proto, ExchangeRequest, ExchangeResponse, PeerMessage,
        consensus_service_client::ConsensusServiceClient, peer_message::Payload,
    },
    v1,
};
use tally_types::{
    Address, Batch, Certificate, Epoch, Hash, Height, SecretKey, Signature, SignedBatch, SignedBytes, Tip, View,
    ViewChange, Vote, VoteKind, certificate::CertificateSignature, hash::TAG_PEER, have::HaveVector, vote::Ballot,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    network::{DEADLINE, Network, Node, Plan, until},
    payer::{Payer, key, transfer},
};

/// Views and epochs above those the network is in: further than any test lasts.
const FAR: u64 = 1_000_000;

/// One who holds a validator's key, and speaks to one other validator.
struct Hostile {
    key: SecretKey,
    address: Address,
    place: u32,
    genesis: Hash,
    receiver: Address,
    channel: Channel,
    counter: AtomicU64,
}

impl Hostile {
    /// With the key of `thief`'s home, which is down, against `victim`.
    async fn new(network: &Network, thief: &Node, victim: &Node) -> Hostile {
        let seed = std::fs::read_to_string(thief.home.join("validator.key")).unwrap();
        let key = SecretKey::from_seed(&Hash::from_hex(seed.trim_end()).expect("64 hex digits").0);
        let set = &network.genesis.validators;
        let member = set.members().iter().find(|member| member.key == key.public_key()).expect("a validator");
        Hostile {
            address: member.address,
            place: set.place_of(&member.address).unwrap(),
            key,
            genesis: network.genesis.chain.genesis_hash,
            receiver: victim.status().await.unwrap().validator.parse().unwrap(),
            channel: Endpoint::from_shared(format!("http://{}", victim.peer)).unwrap().connect_lazy(),
            counter: AtomicU64::new(0),
        }
    }

    /// A payload in the envelope that a message without a signature of its own travels in.
    fn enveloped(&self, counter: u64, content: Vec<u8>, payload: fn(Bytes) -> Payload) -> PeerMessage {
        let digest = Hash::of(&content);
        let parts = [&self.receiver.0[..], &counter.to_be_bytes(), &digest.0];
        let signature = self.key.sign(&SignedBytes::new(TAG_PEER, &self.genesis, &parts));
        let signature = Bytes::copy_from_slice(&signature.0);
        PeerMessage { sender: Bytes::new(), counter, signature, payload: Some(payload(content.into())) }
    }

    /// Every envelope has its own number.
    fn next_counter(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The first message of a stream, below every other envelope.
    fn hello(&self) -> PeerMessage {
        let hello = proto::Hello { genesis_hash: Bytes::copy_from_slice(&self.genesis.0), protocol_version: 1 };
        let hello = self.enveloped(self.next_counter(), hello.encode_to_vec(), Payload::Hello);
        PeerMessage { sender: Bytes::copy_from_slice(&self.address.0), ..hello }
    }

    fn certificates(&mut self, entry: Option<&Certificate>) -> PeerMessage {
        let content = proto::Certificates { entry: entry.map(Certificate::to_proto), highest_commit: None };
        self.enveloped(FAR + self.next_counter(), content.encode_to_vec(), Payload::Certificates)
    }

    fn vote(&self, kind: VoteKind, epoch: u64, view: u64) -> proto::Vote {
        let (epoch, view, block) = (Epoch(epoch), View(view), Hash::of(&view.to_be_bytes()));
        let mut vote = Vote { kind, epoch, view, block, signer: self.place, signature: Signature([0; 64]) };
        vote.signature = self.key.sign(&vote.ballot().signed_bytes(&self.genesis, epoch));
        vote.to_proto()
    }

    fn view_change(&self, epoch: u64, view: u64) -> PeerMessage {
        let (epoch, view, highest_view) = (Epoch(epoch), View(view), View(0));
        let ballot = Ballot::ViewChange(view, highest_view);
        let signature = self.key.sign(&ballot.signed_bytes(&self.genesis, epoch));
        let change = ViewChange { epoch, view, highest_view, highest: None, signer: self.place, signature };
        bare(Payload::ViewChange(change.to_proto()))
    }

    /// Says that it holds every block up to [`FAR`].
    fn have(&self, epoch: u64, lanes: usize) -> PeerMessage {
        let (counter, tips) = (FAR, vec![Tip::START; lanes]);
        let far = (Height(FAR), View(FAR));
        let vector =
            HaveVector { epoch: Epoch(epoch), counter, tips, executed: far.0, view: far.1, final_height: far.0 };
        bare(Payload::Have(vector.signed(&self.genesis, self.place, |bytes| self.key.sign(bytes)).to_proto()))
    }

    /// The first batch of a lane.
    fn batch(&self, lane: u32, transactions: Vec<Bytes>) -> PeerMessage {
        let batch = Batch::new(Epoch(0), lane, Tip::START, transactions);
        let signature = self.key.sign(&batch.signed_bytes(&self.genesis, &self.address));
        bare(Payload::Batch(SignedBatch { batch, signature }.to_proto()))
    }

    /// A certificate that names everybody and is signed by one.
    fn forged_certificate(&self, epoch: u64, view: u64, signers: u32) -> Certificate {
        let block = Hash::of(b"a block that pays the thief");
        let signature = self.key.sign(&Ballot::Commit(View(view), block).signed_bytes(&self.genesis, Epoch(epoch)));
        let part = |signer| CertificateSignature { signer, highest_view: View(0), signature };
        Certificate {
            kind: VoteKind::Commit,
            epoch: Epoch(epoch),
            view: View(view),
            block,
            signatures: (0..signers).map(part).collect(),
            highest: None,
        }
    }

    /// Opens a stream whose first message is `first`.
    async fn open(&self, first: PeerMessage) -> Result<Stream, Status> {
        let (sender, receiver) = mpsc::channel(16);
        sender.try_send(ExchangeRequest { message: Some(first) }).unwrap();
        let mut client = ConsensusServiceClient::new(self.channel.clone());
        let answer = client.exchange(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Stream { sender, answer })
    }

    /// Opens a stream as an honest validator does.
    async fn greeted(&self) -> Stream {
        self.open(self.hello()).await.expect("a validator is let in")
    }
}

/// A stream that was let in.
struct Stream {
    sender: mpsc::Sender<ExchangeRequest>,
    answer: Streaming<ExchangeResponse>,
}

impl Stream {
    /// Sends; false once the stream has ended.
    async fn send(&self, message: Option<PeerMessage>) -> bool {
        self.sender.send(ExchangeRequest { message }).await.is_ok()
    }

    /// Why the victim hung up.
    async fn end(mut self) -> (Code, String) {
        let end = tokio::time::timeout(DEADLINE, self.answer.message()).await.expect("the stream ends");
        let status = end.expect_err("a status says why");
        (status.code(), status.message().to_owned())
    }
}

fn bare(payload: Payload) -> PeerMessage {
    PeerMessage { payload: Some(payload), ..Default::default() }
}

/// Messages dropped by `node` for `reason`.
async fn rejected(node: &Node, reason: &str) -> u64 {
    node.status().await.unwrap().rejected_messages.get(reason).copied().unwrap_or_default()
}

/// What is sent, all of it, and how the stream ends: code, a word of the message, and under which reason it is counted.
struct Lie {
    what: &'static str,
    messages: Vec<Option<PeerMessage>>,
    code: Code,
    says: &'static str,
    counted: &'static str,
}

fn lie(what: &'static str, message: PeerMessage, code: Code, says: &'static str, counted: &'static str) -> Lie {
    Lie { what, messages: vec![Some(message)], code, says, counted }
}

/// Messages that are none.
fn malformed(hostile: &mut Hostile) -> Vec<Lie> {
    let bad = Code::InvalidArgument;
    let hello = hostile.hello();
    let other_kind = proto::VoteKind::ViewChange.into();
    let other_kind = proto::Vote { kind: other_kind, ..hostile.vote(VoteKind::Prepare, 0, FAR) };
    let large = bare(Payload::Certificates(vec![0; 2 << 20].into()));
    let no_batch = proto::SignedBatch { batch: Bytes::from_static(b"\xff\xff"), signature: vec![0; 64].into() };
    let unproved = ViewChange {
        epoch: Epoch(0),
        view: View(FAR),
        highest_view: View(FAR - 1),
        highest: None,
        signer: hostile.place,
        signature: Signature([0; 64]),
    };
    let unsigned = PeerMessage { signature: Bytes::new(), ..hostile.certificates(None) };
    vec![
        Lie { what: "no message", messages: vec![None], code: bad, says: "without payload", counted: "malformed" },
        lie("no payload", PeerMessage::default(), bad, "without payload", "malformed"),
        lie("a second greeting", hello, bad, "not the first message", "malformed"),
        lie("a vote of another kind", bare(Payload::Vote(other_kind)), bad, "neither PREPARE nor COMMIT", "malformed"),
        lie("a batch that is none", bare(Payload::Batch(no_batch)), bad, "batch", "malformed"),
        lie("a view change without proof", bare(Payload::ViewChange(unproved.to_proto())), bad, "shape", "malformed"),
        lie("an HAVE of too few lanes", hostile.have(0, 1), bad, "shape", "malformed"),
        lie("an envelope without signature", unsigned, bad, "signature", "malformed"),
        lie("two mebibytes", large, Code::OutOfRange, "too large", "malformed"),
    ]
}

/// Messages whose signatures do not hold.
fn forged(hostile: &mut Hostile, lanes: u32) -> Vec<Lie> {
    let no = Code::Unauthenticated;
    let others = (0..lanes).find(|place| *place != hostile.place).unwrap();
    let vote = hostile.vote(VoteKind::Commit, 0, FAR);
    let changed = bare(Payload::Vote(proto::Vote { view: FAR + 1, ..vote.clone() }));
    let anothers = bare(Payload::Vote(proto::Vote { signer: others, ..vote }));
    let minority = hostile.forged_certificate(0, 1, 1);
    let all = hostile.forged_certificate(0, 1, lanes);
    let [minority, signed_by_one] = [minority, all.clone()].map(|one| hostile.certificates(Some(&one)));
    let genuine = hostile.certificates(None);
    let other_content = PeerMessage { payload: hostile.certificates(Some(&all)).payload, ..genuine.clone() };
    let batch = hostile.batch(others, vec![Bytes::from_static(b"a payment")]);
    vec![
        lie("a vote changed after it was signed", changed, no, "does not hold", "forged"),
        lie("a vote in another's name", anothers, no, "does not hold", "forged"),
        lie("a batch in another's lane", batch, no, "does not hold", "forged"),
        lie("a certificate without quorum", minority, no, "does not hold", "forged"),
        lie("a certificate with one's own signature for all", signed_by_one, no, "does not hold", "forged"),
        lie("an envelope with other content", other_content, no, "replayed or not the sender's", "forged"),
        Lie {
            what: "an envelope twice",
            messages: vec![Some(genuine.clone()), Some(genuine)],
            code: no,
            says: "replayed or not the sender's",
            counted: "forged",
        },
    ]
}

/// Batches, correctly signed, of transactions that are not.
fn bad_batches(hostile: &Hostile, network: &Network) -> Vec<Lie> {
    let [_, bob, _] = network.people();
    let genuine = bob.sign(&bob.body(vec![transfer(&hostile.address, 1_000_000)]));
    let stolen = Payer { key: key(99), ..bob.clone() }.sign(&bob.body(vec![transfer(&hostile.address, 1_000_000)]));
    let mut unsigned = genuine.clone();
    unsigned.signatures.clear();
    let bad = |what, transactions: Vec<Vec<u8>>| {
        let batch = hostile.batch(hostile.place, transactions.into_iter().map(Bytes::from).collect());
        lie(what, batch, Code::InvalidArgument, "malformed or unsigned transaction", "bad_transactions")
    };
    let genuine = genuine.encode_to_vec();
    vec![
        bad("a batch with an unsigned transaction", vec![genuine.clone(), unsigned.encode_to_vec()]),
        bad("a batch with a transaction signed by another", vec![genuine, stolen.encode_to_vec()]),
        bad("a batch with noise", vec![vec![7; 100]]),
    ]
}

/// Four validators that do not wait for the one that is down longer than they must.
fn plan() -> Plan {
    let mut plan = Plan::of(4);
    plan.params.view_timeout_ms = 300;
    plan
}

#[tokio::test]
async fn a_validator_that_lies_loses_its_stream_and_the_network_goes_on() {
    let mut network = Network::start(plan()).await;
    let [mut alice, bob, _] = network.people();
    network.nodes[3].kill();
    let node = &network.nodes[0];
    let mut hostile = Hostile::new(&network, &network.nodes[3], node).await;
    let mut lies = malformed(&mut hostile);
    lies.extend(forged(&mut hostile, 4));
    lies.extend(bad_batches(&hostile, &network));
    for Lie { what, messages, code, says, counted } in lies {
        let before = rejected(node, counted).await;
        let stream = hostile.greeted().await;
        for message in messages {
            stream.send(message).await;
        }
        let (found, message) = stream.end().await;
        assert_eq!(found, code, "{what}: {message}");
        assert!(message.contains(says), "{what}: {message:?}");
        until(&format!("{what} is counted"), async || (rejected(node, counted).await == before + 1).then_some(()))
            .await;
        node.execute(&alice.pay(&bob.address, 1)).await;
    }
    network.assert_equal().await;
}

/// Messages of each kind in a flood.
const FLOOD: u64 = 2000;

#[tokio::test]
async fn a_flood_of_far_views_and_epochs_is_dropped_and_counted_and_the_network_goes_on() {
    let mut network = Network::start(plan()).await;
    let [mut alice, bob, _] = network.people();
    network.nodes[3].kill();
    let node = &network.nodes[0];
    let hostile = Hostile::new(&network, &network.nodes[3], node).await;
    let before = node.status().await.unwrap();
    let epoch = before.current_epoch;
    let stream = hostile.greeted().await;
    // Four times the truth about nothing: each is signed as it should be, and none may be kept beyond the bounds of rule V5.
    for far in FAR..FAR + FLOOD {
        for message in [
            bare(Payload::Vote(hostile.vote(VoteKind::Prepare, epoch, far))),
            bare(Payload::Vote(hostile.vote(VoteKind::Commit, epoch, far))),
            hostile.view_change(epoch, far),
            bare(Payload::Vote(hostile.vote(VoteKind::Prepare, far, 1))),
        ] {
            assert!(stream.send(Some(message)).await, "the stream ended: {:?}", stream.end().await);
        }
    }
    // It claims to have final blocks that nobody else has heard of, and is alone with that.
    assert!(stream.send(Some(hostile.have(epoch, 4))).await);
    let dropped = async || (rejected(node, "FarView").await >= FLOOD).then_some(());
    until("every PREPARE of a far view is dropped", dropped).await;
    node.execute(&alice.pay(&bob.address, 1)).await;
    network.grow(3).await;
    let after = node.status().await.unwrap();
    assert_eq!(after.sync_state(), v1::SyncState::Synced, "{after:?}");
    assert!(after.highest_seen_height < FAR && after.current_view < FAR, "{after:?}");
    assert_eq!((after.current_epoch, after.start_time), (epoch, before.start_time));
    // The stream told no lie that can be proved on the spot, so it is still there.
    assert!(stream.send(Some(bare(Payload::Vote(hostile.vote(VoteKind::Prepare, epoch, FAR))))).await);
    until("the stream is still read", async || (rejected(node, "FarView").await > FLOOD).then_some(())).await;
    drop(stream);
    network.assert_equal().await;
    // The validator itself comes back, and is heard like before.
    network.nodes[3].start();
    let height = network.height().await;
    network.nodes[3].reach(height).await;
    network.nodes[3].execute(&alice.pay(&bob.address, 1)).await;
    network.assert_equal().await;
}

#[tokio::test]
async fn nobody_is_let_in_without_a_validators_greeting_and_a_validator_four_times() {
    let mut network = Network::start(plan()).await;
    network.nodes[3].kill();
    let [mut alice, bob, _] = network.people();
    let node = &network.nodes[0];
    let mut hostile = Hostile::new(&network, &network.nodes[3], node).await;
    let genuine = hostile.hello();
    let receiver = std::mem::replace(&mut hostile.receiver, hostile.address);
    let for_another = hostile.hello();
    hostile.receiver = receiver;
    let genesis = std::mem::replace(&mut hostile.genesis, Hash::of(b"another genesis"));
    let other_chain = hostile.hello();
    hostile.genesis = genesis;
    let hello = proto::Hello { genesis_hash: Bytes::copy_from_slice(&genesis.0), protocol_version: 2 };
    let other_version = hostile.enveloped(hostile.next_counter(), hello.encode_to_vec(), Payload::Hello);
    let stranger = PeerMessage { sender: Bytes::copy_from_slice(&key(9).public_key().address().0), ..genuine.clone() };
    let renumbered = PeerMessage { counter: 1000, ..genuine.clone() };
    let (bad, not_here) = (Code::InvalidArgument, Code::FailedPrecondition);
    for (what, first, code, says) in [
        ("no payload", PeerMessage::default(), bad, "first message must be a hello"),
        ("a vote first", bare(Payload::Vote(hostile.vote(VoteKind::Prepare, 0, 1))), bad, "must be a hello"),
        ("no sender", PeerMessage { sender: Bytes::new(), ..genuine.clone() }, bad, "sender"),
        ("another chain", other_chain, not_here, "another chain"),
        ("another version", other_version, not_here, "protocol version 1"),
        ("a stranger", stranger, Code::PermissionDenied, "no validator of this chain"),
        ("a greeting to another validator", for_another, Code::Unauthenticated, "does not hold"),
        ("a greeting with another number", renumbered, Code::Unauthenticated, "does not hold"),
    ] {
        let refused = hostile.open(first).await.err().unwrap_or_else(|| panic!("{what} was let in"));
        assert_eq!(refused.code(), code, "{what}: {refused:?}");
        assert!(refused.message().contains(says), "{what}: {refused:?}");
    }
    // Whoever recorded a greeting cannot take the validator's places with it.
    drop(hostile.open(genuine.clone()).await.expect("a greeting is good once"));
    let refused = hostile.open(genuine).await.err().expect("a greeting is good once");
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "this signature was used before"));
    // Recorded, and not used yet; each is good once, whatever comes of it.
    let mut recorded: Vec<PeerMessage> = (0..1000).map(|_| hostile.hello()).collect();
    let mut streams = std::collections::VecDeque::new();
    for _ in 0..4 {
        streams.push_back(until("there is room", async || hostile.open(hostile.hello()).await.ok()).await);
    }
    let refused = hostile.open(recorded.pop().unwrap()).await.err().expect("a fifth is one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    node.execute(&alice.pay(&bob.address, 1)).await;
    // One that greets now takes the place of the one that greeted first: nobody is kept out by what was recorded.
    streams.push_back(hostile.greeted().await);
    let (code, message) = streams.pop_front().unwrap().end().await;
    assert_eq!((code, &message[..]), (Code::ResourceExhausted, "a newer stream took the place of this one"));
    // Whoever leaves makes room.
    streams.pop_back();
    let again = until("there is room again", async || hostile.open(recorded.pop().unwrap()).await.ok()).await;
    streams.push_back(again);
    network.assert_equal().await;
}
