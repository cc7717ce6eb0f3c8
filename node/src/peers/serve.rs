//! Streams in, and peers' questions answered.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use prost::Message as _;
use tally_consensus::{Event, Judgement, Message, Reject};
use tally_proto::consensus::{
    self as proto,
    consensus_service_server::{ConsensusService, ConsensusServiceServer},
};
use tally_types::{Address, Batch, Header, Signature, signature::SignatureCheck};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};

use super::{Input, MESSAGE_BYTES_MAX, PROTOCOL_VERSION, Peers, wire};
use crate::{
    calls::{Bounds, CallsLayer, KeptWhileLeaving},
    incoming::{self, ConnectionHandle, ConnectionUse, Entry},
    signing::envelope_bytes,
    store::journal::Position,
};

/// How long a peer may take for its greeting, and for the first signature on a connection.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// The one call whose request does not end.
const EXCHANGE: &str = "/tally.consensus.v1.ConsensusService/Exchange";
/// What holds for every call between validators.
const CALLS: Bounds = Bounds {
    arrival: Duration::from_secs(30),
    arriving_bytes_max: 64 * 1024 * 1024,
    untaken: Duration::from_secs(20),
    leaving_bytes_max: 512 * 1024 * 1024,
    endless: Some(EXCHANGE),
};
/// Connections to the peer port, in all.
const CONNECTIONS_MAX: usize = 1024;
/// Streams of one validator: votes and batches, and the same again while it reconnects.
const STREAMS_PER_PEER_MAX: usize = 4;
/// Questions of one validator open at once, from the signature to the last byte of the answer.
const QUESTIONS_PER_PEER_MAX: usize = 8;
/// Of these, ranges of blocks; a validator asks for one at a time, and for one more while it reconnects.
const RANGES_PER_PEER_MAX: usize = 2;
/// Questions of anybody how far this validator is, at once.
const STATUS_QUESTIONS_MAX: usize = 4;
/// Counters remembered of one validator's greetings, and of its questions.
const COUNTERS_KEPT: usize = 1024;
/// Batches in one answer.
const BATCHES_MAX: usize = 64;
/// Bytes of an answer after which no block comes with its payload. Headers follow up to the next block that has a commit certificate
/// of its own: without one at its end an answer would prove nothing.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Serves the peer port until the node stops.
pub async fn serve(listener: TcpListener, peers: Arc<Peers>) -> Result<(), tonic::transport::Error> {
    let mut stopping = peers.stopping.clone();
    let service = Service { peers, open: Arc::default(), status: Semaphore::new(STATUS_QUESTIONS_MAX) };
    let service = ConsensusServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let connections = incoming::accept(listener, CONNECTIONS_MAX, Entry::Known, GREETING_TIMEOUT);
    Server::builder()
        .max_concurrent_streams(16)
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        .layer(CallsLayer::new(CALLS))
        .add_service(service)
        .serve_with_incoming_shutdown(connections, async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        })
        .await
}

/// Open streams and questions per validator, and what each has begun them with.
#[derive(Debug, Default)]
struct Open {
    /// By the counter of the greeting; the end of the sender ends the stream.
    streams: BTreeMap<Address, BTreeMap<u64, oneshot::Sender<()>>>,
    questions: BTreeMap<(Address, Kind), usize>,
    greeted_with: BTreeMap<Address, Counters>,
    asked_with: BTreeMap<Address, Counters>,
}

/// Questions are counted by kind: a range takes minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Range,
    Piece,
}

/// Counters one validator has sealed greetings, or questions, with lately. Whoever recorded one cannot use it again to take
/// that validator's places. Only the very same counter is refused, never a lower one: counters begin with the clock of the
/// process, and a clock that was put back must not lock a validator out.
#[derive(Debug, Default)]
struct Counters(VecDeque<u64>);

impl Counters {
    /// Takes a counter that is new.
    fn take(&mut self, counter: u64) -> bool {
        if self.0.contains(&counter) {
            return false;
        }
        self.0.push_back(counter);
        if self.0.len() > COUNTERS_KEPT {
            self.0.pop_front();
        }
        true
    }
}

struct Service {
    peers: Arc<Peers>,
    open: Arc<Mutex<Open>>,
    status: Semaphore,
}

/// Gives the place of a stream back when it ends.
struct StreamPlace {
    open: Arc<Mutex<Open>>,
    peer: Address,
    counter: u64,
    _connection: Option<ConnectionUse>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(streams) = open.streams.get_mut(&self.peer) {
            streams.remove(&self.counter);
        }
    }
}

/// Gives the place of a question back when the answer has left.
struct QuestionPlace {
    open: Arc<Mutex<Open>>,
    peer: Address,
    kind: Kind,
    _connection: Option<ConnectionUse>,
}

impl Drop for QuestionPlace {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.questions.get_mut(&(self.peer, self.kind)) {
            *count = count.saturating_sub(1);
        }
    }
}

impl Open {
    /// A place for a stream that began with `counter`, and what tells that it is over. With all places taken the oldest
    /// stream goes: counters rise, so whoever plays back greetings of before takes no place of one who greets now.
    fn take_stream(&mut self, peer: Address, counter: u64) -> Result<oneshot::Receiver<()>, Status> {
        let streams = self.streams.entry(peer).or_default();
        if streams.len() >= STREAMS_PER_PEER_MAX {
            if streams.first_key_value().is_some_and(|(oldest, _)| *oldest > counter) {
                return Err(too_many());
            }
            streams.pop_first();
        }
        let (stay, over) = oneshot::channel();
        streams.insert(counter, stay);
        Ok(over)
    }

    fn take_question(&mut self, peer: Address, kind: Kind) -> Result<(), Status> {
        let most = match kind {
            Kind::Range => RANGES_PER_PEER_MAX,
            Kind::Piece => QUESTIONS_PER_PEER_MAX,
        };
        let count = self.questions.entry((peer, kind)).or_default();
        if *count >= most {
            return Err(too_many());
        }
        *count += 1;
        Ok(())
    }
}

fn too_many() -> Status {
    Status::resource_exhausted("too many streams or questions of this validator are open")
}

/// An answer that keeps the place of its question until it has left.
fn answer<T>(message: T, place: QuestionPlace) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(KeptWhileLeaving { validator: place.peer, place: Arc::new(place) });
    response
}

impl Service {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sender of a greeting: a validator of a known epoch, with its signature over this very receiver.
    fn greet(&self, first: proto::PeerMessage) -> Result<Address, Status> {
        let Some(proto::peer_message::Payload::Hello(content)) = first.payload else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        let hello =
            proto::Hello::decode(content.clone()).map_err(|_| Status::invalid_argument("hello: not protobuf"))?;
        if hello.genesis_hash[..] != self.peers.genesis.0[..] {
            return Err(Status::failed_precondition("this validator is on another chain"));
        }
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(Status::failed_precondition("this validator speaks protocol version 1 only"));
        }
        let sender = self.check_caller(&first.sender, first.counter, &first.signature, &content)?;
        self.check_first_use(|open| &mut open.greeted_with, sender, first.counter)
    }

    fn check_first_use(
        &self,
        used: impl FnOnce(&mut Open) -> &mut BTreeMap<Address, Counters>,
        sender: Address,
        counter: u64,
    ) -> Result<Address, Status> {
        match used(&mut self.open()).entry(sender).or_default().take(counter) {
            true => Ok(sender),
            false => Err(Status::unauthenticated("this signature was used before")),
        }
    }

    fn check_caller(&self, sender: &[u8], counter: u64, signature: &[u8], content: &[u8]) -> Result<Address, Status> {
        let sender = Address::from_slice(sender).ok_or_else(|| Status::invalid_argument("sender: not 32 bytes"))?;
        let signature =
            Signature::from_slice(signature).ok_or_else(|| Status::invalid_argument("signature: not 64 bytes"))?;
        let check = self.peers.envelope_check(&sender, counter, signature, content);
        match check {
            Some(check) if check.holds() => Ok(sender),
            Some(_) => Err(Status::unauthenticated("the signature does not hold")),
            None => Err(Status::permission_denied("the sender is no validator of this chain")),
        }
    }

    /// Who asks, by its signature over the question, and a place for that question.
    fn caller(
        &self,
        connection: Option<ConnectionHandle>,
        caller: Option<proto::Caller>,
        question: &[u8],
        kind: Kind,
    ) -> Result<QuestionPlace, Status> {
        let caller = caller.ok_or_else(|| Status::unauthenticated("caller is missing"))?;
        let peer = self.check_caller(&caller.sender, caller.counter, &caller.signature, question)?;
        self.check_first_use(|open| &mut open.asked_with, peer, caller.counter)?;
        self.open().take_question(peer, kind)?;
        let _connection = connection.as_ref().map(ConnectionHandle::enter);
        Ok(QuestionPlace { open: self.open.clone(), peer, kind, _connection })
    }
}

impl Peers {
    /// The check that `sender`, a validator of a known epoch, sealed `content` for this node; none: it is no validator.
    fn envelope_check(
        &self,
        sender: &Address,
        counter: u64,
        signature: Signature,
        content: &[u8],
    ) -> Option<SignatureCheck> {
        let sets = self.sets();
        let member = sets.0.iter().rev().find_map(|(_, set, _)| set.get(set.place_of(sender)?).cloned())?;
        let bytes = envelope_bytes(&self.genesis, &self.signer.address(), counter, content);
        Some(SignatureCheck { key: member.key, bytes, signature })
    }

    /// Passes on one message of `from` to the driver. An error ends the stream.
    async fn take(&self, from: Address, last_counter: &mut u64, message: proto::PeerMessage) -> Result<(), Status> {
        let payload = message.payload.ok_or_else(|| self.malformed("a message without payload"))?;
        if let proto::peer_message::Payload::Certificates(content) = &payload {
            let signature =
                Signature::from_slice(&message.signature).ok_or_else(|| self.malformed("signature: not 64 bytes"))?;
            let check = self.envelope_check(&from, message.counter, signature, content);
            if message.counter <= *last_counter || !check.is_some_and(|check| check.holds()) {
                self.rejected.forged.fetch_add(1, Ordering::Relaxed);
                return Err(Status::unauthenticated("an envelope that is replayed or not the sender's"));
            }
            *last_counter = message.counter;
        }
        let message = wire::read(payload).map_err(|error| self.malformed(error.0))?;
        let sets = self.sets();
        let forged = || {
            self.rejected.forged.fetch_add(1, Ordering::Relaxed);
            // A message whose certificate does not verify ends the connection; it says nothing about any leader.
            Status::unauthenticated("a signature or certificate does not hold")
        };
        match sets.judge(&self.genesis, &message) {
            Judgement::Check(checks) => {
                if !self.signatures.hold(checks).await {
                    return Err(forged());
                }
                let queue = match &message {
                    Message::Batch(signed) => {
                        if !self.batch_is_good(&signed.batch).await {
                            self.rejected.bad_transactions.fetch_add(1, Ordering::Relaxed);
                            return Err(Status::invalid_argument("a batch with a malformed or unsigned transaction"));
                        }
                        &self.bulk
                    }
                    _ => &self.control,
                };
                self.pass_on(queue, Event::Message { from, message }).await
            }
            Judgement::Ahead => self.pass_on(&self.control, Event::Ahead { from }).await,
            Judgement::Over => {
                self.rejected.old_epoch.fetch_add(1, Ordering::Relaxed);
                // Its sender may be behind: certificates will tell it.
                self.pass_on(&self.control, Event::Behind { from }).await
            }
            Judgement::Drop(Reject::Forged) => Err(forged()),
            Judgement::Drop(_) => Err(self.malformed("a message out of shape")),
        }
    }

    fn malformed(&self, problem: &'static str) -> Status {
        self.rejected.malformed.fetch_add(1, Ordering::Relaxed);
        Status::invalid_argument(problem)
    }

    async fn pass_on(&self, queue: &mpsc::Sender<Input>, event: Event) -> Result<(), Status> {
        queue.send(Input::Event(event)).await.map_err(|_| Status::unavailable("this validator is shutting down"))
    }

    /// Rule D2: every transaction is well formed and correctly signed.
    pub(super) async fn batch_is_good(&self, batch: &Batch) -> bool {
        match wire::transaction_checks(batch, &self.chain) {
            Some(checks) => self.signatures.hold_once(checks).await,
            None => false,
        }
    }
}

/// A stream whose items are made one by one, each once somebody asks for it: what lies here is counted nowhere.
struct OnDemand<T> {
    wanted: mpsc::Sender<()>,
    made: mpsc::Receiver<T>,
    is_asked: bool,
}

/// Where its items are asked for.
struct Wanted<T> {
    wanted: mpsc::Receiver<()>,
    made: mpsc::Sender<T>,
}

fn on_demand<T>() -> (Wanted<T>, OnDemand<T>) {
    let ((wanted, asked), (made, taken)) = (mpsc::channel(1), mpsc::channel(1));
    (Wanted { wanted: asked, made }, OnDemand { wanted, made: taken, is_asked: false })
}

impl<T> Wanted<T> {
    /// Waits until the next item is wanted; none: no more will be.
    async fn next(&mut self) -> Option<mpsc::Permit<'_, T>> {
        self.wanted.recv().await?;
        self.made.reserve().await.ok()
    }
}

impl<T> Stream for OnDemand<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if !self.is_asked {
            self.is_asked = true;
            // There is room, or nobody makes any more.
            let _ = self.wanted.try_send(());
        }
        let item = ready!(self.made.poll_recv(context));
        self.is_asked = false;
        Poll::Ready(item)
    }
}

type AnswerStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ConsensusService for Service {
    type ExchangeStream = AnswerStream<proto::ExchangeResponse>;
    type FetchBlocksStream = AnswerStream<proto::FetchBlocksResponse>;
    type FetchBatchesStream = AnswerStream<proto::FetchBatchesResponse>;

    async fn exchange(
        &self,
        request: Request<Streaming<proto::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let connection = request.extensions().get::<ConnectionHandle>().cloned();
        let mut inbound = request.into_inner();
        let first = timeout(GREETING_TIMEOUT, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no greeting in time"))??
            .and_then(|request| request.message)
            .ok_or_else(|| Status::invalid_argument("the stream ended before the greeting"))?;
        let mut last_counter = first.counter;
        let from = self.greet(first)?;
        let mut over = self.open().take_stream(from, last_counter)?;
        let _connection = connection.as_ref().map(ConnectionHandle::enter);
        let place = StreamPlace { open: self.open.clone(), peer: from, counter: last_counter, _connection };
        let peers = self.peers.clone();
        let (answer, answers) = mpsc::channel(1);
        let mut stopping = peers.stopping.clone();
        tokio::spawn(async move {
            let _place = place;
            let ended = loop {
                let next = tokio::select! {
                    _ = stopping.wait_for(|stopping| *stopping) => break Status::unavailable("shutting down"),
                    () = answer.closed() => return,
                    _ = &mut over => break Status::resource_exhausted("a newer stream took the place of this one"),
                    next = inbound.message() => next,
                };
                let taken = match next {
                    Ok(Some(request)) => peers.take(from, &mut last_counter, request.message.unwrap_or_default()).await,
                    Ok(None) => return,
                    // Too large, no protobuf, or a connection that broke.
                    Err(status) => {
                        if status.code() == Code::OutOfRange {
                            peers.rejected.malformed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(status)
                    }
                };
                if let Err(status) = taken {
                    break status;
                }
            };
            tracing::debug!(peer = %from, status = %ended, "stream of a peer ended");
            let _ = answer.send(Err(ended)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn fetch_blocks(
        &self,
        request: Request<proto::FetchBlocksRequest>,
    ) -> Result<Response<Self::FetchBlocksStream>, Status> {
        let connection = request.extensions().get().cloned();
        let mut question = request.into_inner();
        let caller = question.caller.take();
        let place = self.caller(connection, caller, &question.encode_to_vec(), Kind::Range)?;
        let (mut wanted, blocks) = on_demand();
        let peers = self.peers.clone();
        let asked = wire::asked_blocks(&question);
        tokio::spawn(async move {
            let mut sent = 0usize;
            for height in asked.first..=asked.last {
                let Some(wanted) = wanted.next().await else { return };
                let reading = peers.clone();
                let whole = height <= asked.last_whole && sent <= ANSWER_BYTES_MAX;
                let block = tokio::task::spawn_blocking(move || reading.read_block(height, whole)).await;
                let Ok(Some(block)) = block else { return };
                sent = sent.saturating_add(block.encoded_len());
                let enough = (height >= asked.last_whole || sent > ANSWER_BYTES_MAX) && block.commit.is_some();
                wanted.send(Ok(block));
                if enough {
                    return;
                }
            }
        });
        Ok(answer(Box::pin(blocks), place))
    }

    async fn fetch_batches(
        &self,
        request: Request<proto::FetchBatchesRequest>,
    ) -> Result<Response<Self::FetchBatchesStream>, Status> {
        let connection = request.extensions().get().cloned();
        let mut question = request.into_inner();
        let caller = question.caller.take();
        let place = self.caller(connection, caller, &question.encode_to_vec(), Kind::Piece)?;
        let wanted = wire::asked_batches(&question).map_err(|error| Status::invalid_argument(error.0))?;
        let (reply, found) = oneshot::channel();
        let input = Input::Batches(wanted, reply);
        let gone = |_| Status::unavailable("this validator is shutting down");
        self.peers.control.send(input).await.map_err(|_| gone(()))?;
        let found = found.await.map_err(|_| gone(()))?;
        let answers = found
            .into_iter()
            .take(BATCHES_MAX)
            .map(|batch| Ok(proto::FetchBatchesResponse { batch: batch.bytes().clone() }));
        Ok(answer(Box::pin(tokio_stream::iter(answers.collect::<Vec<_>>())), place))
    }

    async fn fetch_headers(
        &self,
        request: Request<proto::FetchHeadersRequest>,
    ) -> Result<Response<proto::FetchHeadersResponse>, Status> {
        let connection = request.extensions().get().cloned();
        let mut question = request.into_inner();
        let caller = question.caller.take();
        let place = self.caller(connection, caller, &question.encode_to_vec(), Kind::Piece)?;
        let hashes = wire::asked_headers(&question).map_err(|error| Status::invalid_argument(error.0))?;
        let (reply, found) = oneshot::channel();
        let gone = |_| Status::unavailable("this validator is shutting down");
        self.peers.control.send(Input::Headers(hashes, reply)).await.map_err(|_| gone(()))?;
        let found: Vec<Header> = found.await.map_err(|_| gone(()))?;
        let headers = found.iter().map(|header| header.bytes().clone()).collect();
        Ok(answer(proto::FetchHeadersResponse { headers }, place))
    }

    async fn get_peer_status(
        &self,
        _request: Request<proto::GetPeerStatusRequest>,
    ) -> Result<Response<proto::GetPeerStatusResponse>, Status> {
        // Nobody signs for this one, and the driver has votes to read.
        let _place = self.status.try_acquire().map_err(|_| too_many())?;
        let (answer, status) = oneshot::channel();
        let gone = |_| Status::unavailable("this validator is shutting down");
        self.peers.control.send(Input::Status(answer)).await.map_err(|_| gone(()))?;
        let status = status.await.map_err(|_| gone(()))?;
        Ok(Response::new(proto::GetPeerStatusResponse {
            genesis_hash: self.peers.genesis.0.to_vec().into(),
            epoch: status.epoch.0,
            view: status.view.0,
            final_height: status.final_height.0,
            executed_height: status.executed.0,
            earliest_height: 1,
        }))
    }
}

impl Peers {
    /// A final block out of index and journal, with its payload if it is to be `whole`; none: above what is indexed, or not
    /// readable.
    fn read_block(&self, height: u64, whole: bool) -> Option<proto::FetchBlocksResponse> {
        let block = self.index.block(height).ok()??;
        let mut batches = Vec::new();
        for position in block.batches.iter().filter(|_| whole) {
            let record = self.journal.read(Position::from_u64(*position)).ok()?;
            let batch = match tally_consensus::Record::parse(record.kind, &record.bytes).ok()? {
                tally_consensus::Record::Accepted(batch, _)
                | tally_consensus::Record::Sealed(batch)
                | tally_consensus::Record::Stored(batch) => batch,
                _ => return None,
            };
            batches.push(batch.bytes().clone());
        }
        let commit = block.commit.as_ref().and_then(|bytes| proto::Certificate::decode(&bytes[..]).ok());
        Some(proto::FetchBlocksResponse { header: block.header.into(), batches, commit })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio_stream::StreamExt as _;

    use super::*;

    #[test]
    fn a_counter_is_good_once_and_a_clock_that_was_put_back_locks_nobody_out() {
        let mut counters = Counters::default();
        for counter in (10_000..10_000 + 2 * COUNTERS_KEPT as u64).chain([12, 11, 5000]) {
            assert!(counters.take(counter));
            assert!(!counters.take(counter));
        }
        assert_eq!(counters.0.len(), COUNTERS_KEPT);
    }

    #[test]
    fn a_greeting_of_before_takes_no_place_of_one_of_now() {
        let (peer, mut open) = (Address([1; 32]), Open::default());
        let mut recorded: Vec<_> = (1..=4).map(|counter| open.take_stream(peer, counter).unwrap()).collect();
        assert!(open.take_stream(peer, 0).is_err());
        let _now = open.take_stream(peer, 10).unwrap();
        assert!(recorded[0].try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        assert!(recorded[1..].iter_mut().all(|stream| stream.try_recv() == Err(oneshot::error::TryRecvError::Empty)));
        assert_eq!(open.streams[&peer].len(), STREAMS_PER_PEER_MAX);
        // Another's places are its own.
        assert!(open.take_stream(Address([2; 32]), 1).is_ok());
    }

    #[tokio::test]
    async fn a_block_is_read_once_it_is_asked_for() {
        let (mut wanted, mut blocks) = on_demand();
        let (reads, slowly) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counting, waiting) = (reads.clone(), slowly.clone());
        tokio::spawn(async move {
            while let Some(wanted) = wanted.next().await {
                let read = counting.fetch_add(1, Ordering::SeqCst) + 1;
                waiting.acquire().await.unwrap().forget();
                wanted.send(read);
            }
        });
        let read = async || {
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            reads.load(Ordering::SeqCst)
        };
        assert_eq!(read().await, 0);
        for block in 1..=3 {
            // However often it is asked for before it is there.
            for _ in 0..3 {
                let polled =
                    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut blocks).poll_next(context))).await;
                assert!(polled.is_pending());
                assert_eq!(read().await, block);
            }
            slowly.add_permits(1);
            assert_eq!((blocks.next().await, read().await), (Some(block), block));
        }

        let (mut wanted, mut blocks) = on_demand();
        tokio::spawn(async move { wanted.next().await.unwrap().send(1) });
        assert_eq!((blocks.next().await, blocks.next().await), (Some(1), None));
    }

    #[test]
    fn ranges_have_places_of_their_own() {
        let (peer, mut open) = (Address([1; 32]), Open::default());
        for (kind, most) in [(Kind::Range, RANGES_PER_PEER_MAX), (Kind::Piece, QUESTIONS_PER_PEER_MAX)] {
            for _ in 0..most {
                open.take_question(peer, kind).unwrap();
            }
            assert!(open.take_question(peer, kind).is_err());
        }
    }
}
