//! Questions to a peer that answers what it likes.

use std::{sync::atomic::AtomicUsize, time::Duration};

use tally_consensus::Fetch;
use tally_proto::{
    consensus::{
        consensus_service_client::ConsensusServiceClient,
        consensus_service_server::{ConsensusService, ConsensusServiceServer},
    },
    v1,
};
use tally_types::{Epoch, Height, SecretKey, Stake, Validator, ValidatorSet, genesis::Chain};
use tokio::{net::TcpListener, time::timeout};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::store::{
    journal::{Journal, JournalConfig},
    sim_disk::SimDisk,
};

const PEER: Address = Address([7; 32]);

type Answer<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Gives these batches to whoever asks, and takes its time for ranges of blocks.
#[derive(Clone, Default)]
struct Liar {
    batches: Vec<Bytes>,
    ranges: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl ConsensusService for Liar {
    type ExchangeStream = Answer<proto::ExchangeResponse>;
    type FetchBlocksStream = Answer<proto::FetchBlocksResponse>;
    type FetchBatchesStream = Answer<proto::FetchBatchesResponse>;

    async fn exchange(
        &self,
        _: Request<Streaming<proto::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        Err(Status::unimplemented("it only answers"))
    }

    async fn fetch_blocks(
        &self,
        _: Request<proto::FetchBlocksRequest>,
    ) -> Result<Response<Self::FetchBlocksStream>, Status> {
        self.ranges.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn fetch_batches(
        &self,
        _: Request<proto::FetchBatchesRequest>,
    ) -> Result<Response<Self::FetchBatchesStream>, Status> {
        let answers = self.batches.clone().into_iter().map(|batch| Ok(proto::FetchBatchesResponse { batch }));
        Ok(Response::new(Box::pin(tokio_stream::iter(answers.collect::<Vec<_>>()))))
    }

    async fn fetch_headers(
        &self,
        _: Request<proto::FetchHeadersRequest>,
    ) -> Result<Response<proto::FetchHeadersResponse>, Status> {
        Err(Status::unimplemented("it has none"))
    }

    async fn get_peer_status(
        &self,
        _: Request<proto::GetPeerStatusRequest>,
    ) -> Result<Response<proto::GetPeerStatusResponse>, Status> {
        Err(Status::unimplemented("it has none"))
    }
}

fn chain() -> Chain {
    Chain { id: "test-00000000".into(), genesis_hash: Hash::of(b"genesis") }
}

/// A payment, signed by its sender, or by somebody else.
fn payment(nonce: u64, forged: bool) -> Bytes {
    let key = SecretKey::from_seed(&[1; 32]);
    let sender = Address(key.public_key().0);
    let transfer = v1::Transfer { recipient: PEER.to_string(), amount: 1 };
    let body = v1::TransactionBody {
        chain_id: chain().id,
        sender: sender.to_string(),
        nonce,
        expire_time: Some(prost_types::Timestamp { seconds: 2_000_000_000, nanos: 0 }),
        max_fee: 10,
        memo: String::new(),
        operations: vec![v1::Operation { operation: Some(v1::operation::Operation::Transfer(transfer)) }],
    };
    let body = body.encode_to_vec();
    let signed = tally_types::transaction::signed_bytes(&chain().genesis_hash, &body);
    let signer = if forged { SecretKey::from_seed(&[2; 32]) } else { key };
    let signature = signer.sign(&signed).0.to_vec();
    let signatures = vec![v1::Signature { signer: String::new(), signature }];
    v1::Transaction { body, signatures }.encode_to_vec().into()
}

fn batch(parent: Tip, transaction: Bytes) -> Batch {
    Batch::new(Epoch(0), 0, parent, vec![transaction])
}

/// A node's side of the way to `liar`, and what reaches its driver.
async fn asking(liar: &Liar, folder: &std::path::Path) -> (Arc<Peers>, mpsc::Receiver<Input>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(ConsensusServiceServer::new(liar.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let (control, _) = mpsc::channel(8);
    let (bulk, inputs) = mpsc::channel(8);
    let (_, stopping) = watch::channel(false);
    (peers(endpoint, folder, control, bulk, stopping), inputs)
}

fn peers(
    endpoint: String,
    folder: &std::path::Path,
    control: mpsc::Sender<Input>,
    bulk: mpsc::Sender<Input>,
    stopping: watch::Receiver<bool>,
) -> Arc<Peers> {
    let genesis = chain().genesis_hash;
    let disk = Arc::new(SimDisk::new());
    let (journal, _) = Journal::open::<String>(disk, JournalConfig::new(genesis.0), &mut |_, _| Ok(())).unwrap();
    let config = PeersConfig {
        chain: chain(),
        signer: Signer::new(SecretKey::from_seed(&[9; 32]), genesis, Address([9; 32])),
        endpoints: vec![(PEER, endpoint)],
        signatures: Arc::new(Signatures::new(1)),
        control,
        bulk,
        index: Arc::new(Index::open(&folder.join("index.redb"), &genesis.0).unwrap()),
        journal: journal.reader(),
        stopping,
        first_counter: 1,
    };
    Peers::new(config).unwrap().0
}

/// A validator whose answers nobody takes would hold what they hold for as long as it likes.
#[tokio::test]
async fn answers_that_nobody_takes_keep_the_places_of_their_questions() {
    let folder = tempfile::tempdir().unwrap();
    let (control, mut questions) = mpsc::channel(8);
    let (bulk, _inputs) = mpsc::channel(8);
    let (_stop, stopping) = watch::channel(false);
    let served = peers("http://127.0.0.1:1".into(), folder.path(), control, bulk, stopping);
    let key = SecretKey::from_seed(&[3; 32]);
    let asker = Signer::new(key.clone(), chain().genesis_hash, PEER);
    let member = Validator { address: PEER, key: key.public_key(), stake: Stake(1) };
    served.set_sets(Sets(vec![(Epoch(0), ValidatorSet::new(vec![member]).unwrap(), Hash::ZERO)]));
    tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            let Input::Batches(_, reply) = question else { panic!("{question:?}") };
            let _ = reply.send(vec![batch(Tip::START, payment(1, false))]);
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, served.clone()));
    // A window of nothing: no byte of an answer may be sent.
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().initial_stream_window_size(0);
    let channel = channel.connect().await.unwrap();
    let ask = async |counter: u64| {
        let mut question = proto::FetchBatchesRequest { caller: None, chains: Vec::new() };
        let signature = asker.envelope(&Address([9; 32]), counter, &question.encode_to_vec());
        let sender = Bytes::copy_from_slice(&PEER.0);
        let signature = Bytes::copy_from_slice(&signature.0);
        question.caller = Some(proto::Caller { sender, counter, signature });
        let mut client = ConsensusServiceClient::new(channel.clone());
        client.fetch_batches(question).await.map_err(|status| status.code())
    };
    let mut untaken = Vec::new();
    for counter in 1..=8 {
        untaken.push(ask(counter).await.unwrap());
    }
    assert_eq!(ask(9).await.unwrap_err(), tonic::Code::ResourceExhausted);
    // Given up, they free their places.
    untaken.clear();
    timeout(Duration::from_secs(60), async {
        let mut counter = 10;
        while ask(counter).await.is_err() {
            counter += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("a free place");
}

/// Nobody signs for this question, and the driver, which answers it, has votes to read.
#[tokio::test]
async fn few_ask_at_once_how_far_a_validator_is() {
    let folder = tempfile::tempdir().unwrap();
    let (control, _busy) = mpsc::channel(8);
    let (bulk, _inputs) = mpsc::channel(8);
    let (_stop, stopping) = watch::channel(false);
    let served = peers("http://127.0.0.1:1".into(), folder.path(), control, bulk, stopping);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, served));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let ask =
        || async { ConsensusServiceClient::new(channel.clone()).get_peer_status(proto::GetPeerStatusRequest {}).await };
    // Four wait for a driver that does not answer; the fifth does not.
    let refused = timeout(Duration::from_secs(60), async {
        tokio::select! {
            _ = async { tokio::join!(ask(), ask(), ask(), ask()) } => panic!("they were answered"),
            refused = async { tokio::time::sleep(Duration::from_millis(300)).await; ask().await } => refused,
        }
    });
    assert_eq!(refused.await.expect("an answer").unwrap_err().code(), tonic::Code::ResourceExhausted);
}

/// Rule D2: a batch fetched by digest carries no signature of its producer, and its transactions are executed as they are.
#[tokio::test]
async fn batches_of_an_answer_are_taken_up_to_the_first_with_a_transaction_nobody_signed() {
    let first = batch(Tip::START, payment(1, false));
    let forged = batch(first.tip(), payment(2, true));
    let third = batch(forged.tip(), payment(3, false));
    let malformed = batch(first.tip(), Bytes::from_static(b"no transaction"));
    for bad in [forged, malformed] {
        let batches = [&first, &bad, &third].map(|batch| batch.bytes().clone()).to_vec();
        let liar = Liar { batches, ..Liar::default() };
        let folder = tempfile::tempdir().unwrap();
        let (peers, mut inputs) = asking(&liar, folder.path()).await;
        peers.ask(PEER, Fetch::Batches(vec![(third.tip(), tally_types::Seq(0))]));
        let Some(Input::Event(Event::Batches(taken))) = inputs.recv().await else { panic!("no answer") };
        assert_eq!(taken, std::slice::from_ref(&first));
    }
}

/// One range at a time per peer: the next question waits for no longer than the answer, and is not lost right behind it.
#[tokio::test]
async fn a_peer_is_asked_for_one_range_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let liar = Liar::default();
    let (peers, mut inputs) = asking(&liar, folder.path()).await;
    let range = || Fetch::Blocks { from: Height(1), to: Height(64) };
    for asked in 1..=3 {
        for _ in 0..5 {
            peers.ask(PEER, range());
        }
        let answer = timeout(Duration::from_secs(60), inputs.recv()).await.expect("an answer, be it empty");
        assert!(matches!(answer, Some(Input::Event(Event::Blocks { from: PEER, .. }))));
        assert_eq!(liar.ranges.load(Ordering::SeqCst), asked);
    }
}
