//! Questions to peers: what the machine misses. Nothing in an answer is believed that is not proved by hash or certificate.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use tally_consensus::{Event, Fetch, Judgement};
use tally_proto::consensus::{self as proto, consensus_service_client::ConsensusServiceClient};
use tally_types::{Address, Batch};
use tokio::time::{Instant, timeout};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};

use super::{Input, MESSAGE_BYTES_MAX, Peers, codec::BlocksCodec, wire};

/// The call for blocks; the client that is generated would read them without looking how much they hold.
const FETCH_BLOCKS: &str = "/tally.consensus.v1.ConsensusService/FetchBlocks";
/// How long headers may take, and each next batch.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each next block may take: one of the largest in the time that a megabyte a second needs for it.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(40);
/// How long an answer may take in all. What came until then is used.
const WHOLE_ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Batches taken of one answer.
const BATCHES_MAX: usize = 64;
/// A block with its payload, in bytes: 128 batches of 256 KiB, and framing.
const BLOCK_BYTES_MAX: usize = 40 * 1024 * 1024;

impl Peers {
    /// Asks `peer` in a task of its own; the answer reaches the driver as an event. With too many questions to it open it
    /// is not asked: the machine asks again, or another.
    pub fn ask(self: &Arc<Peers>, peer: Address, fetch: Fetch) {
        let Some(outbound) = self.outbound.get(&peer) else { return };
        let range = matches!(fetch, Fetch::Blocks { .. });
        let places = if range { &outbound.range } else { &outbound.questions };
        let Ok(place) = places.clone().try_acquire_owned() else { return };
        let peers = self.clone();
        tokio::spawn(async move {
            let event = match peers.answer_of(peer, fetch).await {
                Ok(event) => event,
                Err(error) => {
                    tracing::debug!(%peer, %error, "a question was not answered");
                    if !range {
                        return;
                    }
                    Event::Blocks { from: peer, blocks: Vec::new() }
                }
            };
            // The machine may ask this peer again as soon as it has the answer: its place is free by then, and not before the
            // answer has one with the driver.
            let Ok(slot) = peers.bulk.reserve().await else { return };
            drop(place);
            slot.send(Input::Event(event));
        });
    }

    async fn answer_of(&self, peer: Address, fetch: Fetch) -> Result<Event, Status> {
        let outbound = self.outbound.get(&peer).ok_or_else(|| Status::not_found("no way to that peer"))?;
        let client = ConsensusServiceClient::new(outbound.channel.clone());
        match fetch {
            Fetch::Headers(hashes) => self.headers_of(client, peer, hashes).await,
            Fetch::Batches(chains) => self.batches_of(client, peer, chains).await,
            Fetch::Blocks { from, to } => self.blocks_of(outbound.channel.clone(), peer, from.0, to.0).await,
        }
    }

    fn caller(&self, peer: &Address, question: &[u8]) -> Option<proto::Caller> {
        let counter = self.next_counter();
        let signature = self.signer.envelope(peer, counter, question);
        Some(proto::Caller {
            sender: self.signer.address().0.to_vec().into(),
            counter,
            signature: signature.0.to_vec().into(),
        })
    }

    async fn headers_of(
        &self,
        client: ConsensusServiceClient<Channel>,
        peer: Address,
        hashes: Vec<tally_types::Hash>,
    ) -> Result<Event, Status> {
        let hashes = hashes.iter().map(|hash| hash.0.to_vec().into()).collect();
        let mut question = proto::FetchHeadersRequest { caller: None, hashes };
        question.caller = self.caller(&peer, &question.encode_to_vec());
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = in_time(ANSWER_TIMEOUT, client.fetch_headers(question)).await?.into_inner();
        Ok(Event::Headers(wire::headers(&answer)))
    }

    async fn batches_of(
        &self,
        client: ConsensusServiceClient<Channel>,
        peer: Address,
        chains: Vec<(tally_types::Tip, tally_types::Seq)>,
    ) -> Result<Event, Status> {
        let chain = |(tip, above): &(tally_types::Tip, tally_types::Seq)| proto::BatchChain {
            digest: tip.digest.0.to_vec().into(),
            seq: tip.seq.0,
            above: above.0,
        };
        let mut question = proto::FetchBatchesRequest { caller: None, chains: chains.iter().map(chain).collect() };
        question.caller = self.caller(&peer, &question.encode_to_vec());
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
        let due = Instant::now() + WHOLE_ANSWER_TIMEOUT;
        let mut answer = in_time(ANSWER_TIMEOUT, client.fetch_batches(question)).await?.into_inner();
        let mut batches = Vec::new();
        while let Some(next) = next_of(&mut answer, ANSWER_TIMEOUT, due).await {
            let Ok(batch) = Batch::parse(&next.batch) else { break };
            // Rule D2: by digest or not, its transactions are well formed and signed.
            if batches.len() >= BATCHES_MAX || !self.batch_is_good(&batch).await {
                break;
            }
            batches.push(batch);
        }
        Ok(Event::Batches(batches))
    }

    async fn blocks_of(&self, channel: Channel, peer: Address, from: u64, to: u64) -> Result<Event, Status> {
        let mut question = proto::FetchBlocksRequest { caller: None, from_height: from, to_height: to };
        question.caller = self.caller(&peer, &question.encode_to_vec());
        let mut client = Grpc::new(channel).max_decoding_message_size(BLOCK_BYTES_MAX);
        let due = Instant::now() + WHOLE_ANSWER_TIMEOUT;
        let asking = async {
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            client.server_streaming(Request::new(question), PathAndQuery::from_static(FETCH_BLOCKS), BlocksCodec).await
        };
        let mut answer = in_time(ANSWER_TIMEOUT, asking).await?.into_inner();
        let mut range = wire::Range::starting_at(from);
        while let Some(next) = next_of(&mut answer, BLOCK_TIMEOUT, due).await {
            if !range.take(&next) {
                break;
            }
        }
        let mut blocks = range.into_blocks();
        let holds = match self.sets().judge_blocks(&self.genesis, &mut blocks) {
            Judgement::Check(checks) => self.signatures.hold(checks).await,
            Judgement::Ahead | Judgement::Over | Judgement::Drop(_) => false,
        };
        if !holds {
            blocks.clear();
        }
        Ok(Event::Blocks { from: peer, blocks })
    }
}

/// What `answer` came to, if it came in time.
async fn in_time<T>(most: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(most, answer).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

/// The next part of an answer; none: it has ended, in whatever way. A slow line must not cost what came over it already: the
/// parts prove themselves, and the next question goes on from there.
async fn next_of<T>(
    answer: &mut (impl Stream<Item = Result<T, Status>> + Unpin),
    most: Duration,
    due: Instant,
) -> Option<T> {
    let left = due.saturating_duration_since(Instant::now());
    timeout(most.min(left), answer.next()).await.ok()??.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken of an answer of two parts, behind which `end` comes.
    async fn taken(end: impl Stream<Item = Result<u8, Status>> + Unpin, most: Duration, whole: Duration) -> Vec<u8> {
        let mut answer = tokio_stream::iter([Ok(1), Ok(2)]).chain(end);
        let due = Instant::now() + whole;
        let mut parts = Vec::new();
        while let Some(part) = next_of(&mut answer, most, due).await {
            parts.push(part);
        }
        parts
    }

    #[tokio::test]
    async fn an_answer_that_ends_early_in_whatever_way_is_used_as_far_as_it_came() {
        let (short, long) = (Duration::from_millis(10), Duration::from_secs(3600));
        assert_eq!(taken(tokio_stream::empty(), long, long).await, [1, 2]);
        assert_eq!(taken(tokio_stream::once(Err(Status::internal("broken"))), long, long).await, [1, 2]);
        assert_eq!(taken(tokio_stream::pending(), short, long).await, [1, 2]);
        assert_eq!(taken(tokio_stream::pending(), long, short).await, [1, 2]);
    }
}
