//! TransactionService: the way in, and every way to learn what became of a transaction.

use std::time::Duration;

use tally_proto::v1::{self, ErrorReason, TransactionState, transaction_service_server::TransactionService};
use tally_types::{Address, Genesis, Hash, UnixMillis};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{
    Api, address_in,
    errors::Refusal,
    history::{self, Span},
    pages::{Query, page_size},
    render::{Renderer, is_full_transaction, is_oldest_first, timestamp},
    streams::{Delivery, Feed, Piece},
};
use crate::store::index::{Index, Order, Place};

/// Calls that wait for one transaction at a time, as admission bounds them; told to whoever is one too many.
const WAITERS_PER_TRANSACTION_MAX: usize = 64;
/// Transactions a stream reads at a time.
const STREAM_TRANSACTIONS_MAX: usize = 500;
/// Height and index.
const POSITION_BYTES: usize = 12;

#[tonic::async_trait]
impl TransactionService for Api {
    type StreamTransactionsStream = Delivery<v1::StreamTransactionsResponse>;

    async fn submit_transaction(
        &self,
        request: Request<v1::SubmitTransactionRequest>,
    ) -> Result<Response<v1::SubmitTransactionResponse>, Status> {
        let transaction = request.into_inner().transaction;
        let transaction = transaction.ok_or_else(|| Refusal::field("transaction", "is missing"))?;
        let (id, outcome) = self.submit(&transaction).await;
        Ok(Response::new(v1::SubmitTransactionResponse { tx_id: id.to_string(), state: outcome?.into() }))
    }

    async fn submit_transactions(
        &self,
        request: Request<v1::SubmitTransactionsRequest>,
    ) -> Result<Response<v1::SubmitTransactionsResponse>, Status> {
        let results = self.submit_all(&request.into_inner().transactions).await?;
        Ok(Response::new(v1::SubmitTransactionsResponse { results }))
    }

    async fn simulate_transaction(
        &self,
        request: Request<v1::SimulateTransactionRequest>,
    ) -> Result<Response<v1::SimulateTransactionResponse>, Status> {
        let body = request.into_inner().body.ok_or_else(|| Refusal::field("body", "is missing"))?;
        Ok(Response::new(self.simulate(body)?))
    }

    async fn wait_transaction(
        &self,
        request: Request<v1::WaitTransactionRequest>,
    ) -> Result<Response<v1::WaitTransactionResponse>, Status> {
        let request = request.into_inner();
        let id = id_in(&request.tx_id)?;
        let limits = self.limits();
        let timeout = request.timeout.map_or(Ok(limits.wait_default), timeout)?.min(limits.wait_max);
        let _permit = self.wait_permit()?;
        // Before the first look, so that nothing happens between the look and the wait.
        let settled = self.shared().admission.wait(id).ok_or_else(too_many_waiters)?;
        let mut known = self.look_up(id, false).await?;
        if !known.is_settled() && !self.is_closing() {
            tokio::select! {
                // An error means that whoever settles is gone: look again and answer.
                _ = settled => {}
                () = tokio::time::sleep_until(Instant::now() + timeout) => {}
                () = self.closed() => {}
            }
            known = self.look_up(id, false).await?;
        }
        Ok(Response::new(v1::WaitTransactionResponse {
            transaction: Some(known.record),
            height: known.height,
            block_time: Some(timestamp(known.time)),
        }))
    }

    async fn get_transaction(
        &self,
        request: Request<v1::GetTransactionRequest>,
    ) -> Result<Response<v1::GetTransactionResponse>, Status> {
        let request = request.into_inner();
        let id = id_in(&request.tx_id)?;
        let known = self.look_up(id, is_full_transaction(request.view)?).await?;
        if known.record.state() == TransactionState::Unknown {
            let message = format!("this node does not know transaction {id} as of height {}", known.height);
            let refusal = Refusal::new(ErrorReason::TransactionNotFound, message)
                .with("tx_id", id)
                .with("height", known.height)
                .with("block_time", known.time);
            return Err(refusal.into());
        }
        Ok(Response::new(v1::GetTransactionResponse {
            transaction: Some(known.record),
            height: known.height,
            block_time: Some(timestamp(known.time)),
        }))
    }

    async fn list_transactions(
        &self,
        request: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size, 50, 1000)?;
        let account = account_in(&request.account)?;
        let is_full = is_full_transaction(request.view)?;
        let is_oldest_first = is_oldest_first(request.order)?;
        let page_token = request.page_token.clone();
        let asked = v1::ListTransactionsRequest { page_size: 0, page_token: String::new(), ..request };
        let query = Query::new("ListTransactions", &self.shared().genesis.chain.genesis_hash, &asked);
        let from = query.position(&page_token)?.map(|position| read_position(&position));
        let tip = self.latest().height.0;
        let last = if asked.max_height == 0 { tip } else { asked.max_height.min(tip) };
        let mut span = Span {
            account,
            first: Place { height: asked.min_height.max(1), index: 0 },
            last: Place { height: last, index: u32::MAX },
            order: if is_oldest_first { Order::OldestFirst } else { Order::NewestFirst },
        };
        match span.order {
            Order::OldestFirst => span.first = span.first.max(from.unwrap_or(span.first)),
            Order::NewestFirst => span.last = span.last.min(from.unwrap_or(span.last)),
        }
        let genesis = self.shared().genesis.clone();
        let page = self.read(move |index| {
            let piece = history::read(index, &span, size)?;
            let mut renderer = Renderer::new(index, &genesis, is_full);
            let records = piece.transactions.iter().map(|found| renderer.record(found)).collect::<Result<_, _>>()?;
            Ok((records, piece.next))
        });
        let (transactions, next) = page.await?;
        let next_page_token = next.map(|next| query.token(&position(next))).unwrap_or_default();
        Ok(Response::new(v1::ListTransactionsResponse { transactions, next_page_token }))
    }

    async fn stream_transactions(
        &self,
        request: Request<v1::StreamTransactionsRequest>,
    ) -> Result<Response<Self::StreamTransactionsStream>, Status> {
        let request = request.into_inner();
        let account = account_in(&request.account)?;
        let is_full = is_full_transaction(request.view)?;
        let height = self.first_height(request.from_height).await?;
        let feed = Transactions { next: Place { height, index: 0 }, account, is_full };
        Ok(Response::new(self.follow(feed, height)?))
    }
}

impl Api {
    /// What this node knows of a transaction.
    async fn look_up(&self, id: Hash, is_full: bool) -> Result<Known, Refusal> {
        // In this order: what leaves the pool is in the index by then, and the index has every block up to `latest`.
        let latest = self.latest();
        let pending = self.shared().admission.pending(&id);
        let expired = self.shared().admission.expired(&id);
        let genesis = self.shared().genesis.clone();
        let record = self.read(move |index| {
            let mut renderer = Renderer::new(index, &genesis, is_full);
            let state = match (index.transaction(id.as_bytes())?, &pending, expired) {
                (Some(found), ..) => return renderer.record(&found),
                (None, Some(pending), _) => return renderer.pending(pending),
                (None, None, true) => TransactionState::Expired,
                (None, None, false) => TransactionState::Unknown,
            };
            Ok(v1::TransactionRecord { tx_id: id.to_string(), state: state.into(), ..Default::default() })
        });
        let record = record.await?;
        let mut known = Known { record, height: latest.height.0, time: latest.time };
        // The index may be a block ahead.
        let receipt = known.record.receipt.as_ref();
        if let Some(receipt) = receipt.filter(|receipt| receipt.height > latest.height.0) {
            let time = receipt.block_time.unwrap_or_default();
            let millis = time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000));
            known.height = receipt.height;
            known.time = UnixMillis(u64::try_from(millis).unwrap_or_default());
        }
        Ok(known)
    }
}

/// What is known of a transaction, and as of when.
#[derive(Debug)]
struct Known {
    record: v1::TransactionRecord,
    height: u64,
    time: UnixMillis,
}

impl Known {
    fn is_settled(&self) -> bool {
        matches!(self.record.state(), TransactionState::Finalized | TransactionState::Expired)
    }
}

fn too_many_waiters() -> Refusal {
    let message = "as many calls wait for this transaction here as may; ask with GetTransaction, or another node";
    Refusal::new(ErrorReason::TooManyStreams, message).with("maximum", WAITERS_PER_TRANSACTION_MAX)
}

fn id_in(text: &str) -> Result<Hash, Refusal> {
    Hash::from_hex(text).ok_or_else(|| Refusal::field("tx_id", "is not 64 lower-case hex digits"))
}

fn account_in(text: &str) -> Result<Option<Address>, Refusal> {
    if text.is_empty() { Ok(None) } else { address_in("account", text).map(Some) }
}

fn timeout(asked: prost_types::Duration) -> Result<Duration, Refusal> {
    let wrong = || Refusal::field("timeout", "is negative or no duration");
    // First, because the conversion cannot negate the lowest numbers there are.
    if asked.seconds < 0 || asked.nanos < 0 {
        return Err(wrong());
    }
    Duration::try_from(asked).map_err(|_| wrong())
}

fn position(place: Place) -> [u8; POSITION_BYTES] {
    let mut position = [0; POSITION_BYTES];
    let (height, index) = position.split_at_mut(8);
    height.copy_from_slice(&place.height.to_be_bytes());
    index.copy_from_slice(&place.index.to_be_bytes());
    position
}

fn read_position(position: &[u8; POSITION_BYTES]) -> Place {
    let height = position.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let index = position.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    Place { height, index }
}

/// Transactions, one message per block that has any; a block too large for one message comes in several, of which only
/// the last says that its height is complete.
#[derive(Debug)]
struct Transactions {
    next: Place,
    account: Option<Address>,
    is_full: bool,
}

impl Feed for Transactions {
    type Message = v1::StreamTransactionsResponse;

    fn read(&mut self, index: &Index, genesis: &Genesis, tip: u64) -> Result<Piece<Self::Message>, Refusal> {
        let last = Place { height: tip, index: u32::MAX };
        let span = Span { account: self.account, first: self.next, last, order: Order::OldestFirst };
        let read = history::read(index, &span, STREAM_TRANSACTIONS_MAX)?;
        self.next = read.next.unwrap_or(Place { height: tip.saturating_add(1), index: 0 });
        let through = self.next.height.saturating_sub(1);
        let mut renderer = Renderer::new(index, genesis, self.is_full);
        let mut messages: Vec<(u64, Self::Message)> = Vec::new();
        let mut block = None;
        for found in &read.transactions {
            let record = renderer.record(found)?;
            match messages.last_mut() {
                Some((_, message)) if block == Some(found.place.height) => message.transactions.push(record),
                _ => {
                    let height = found.place.height.min(through);
                    messages.push((height, v1::StreamTransactionsResponse { height, transactions: vec![record] }));
                    block = Some(found.place.height);
                }
            }
        }
        Ok(Piece { messages, through })
    }

    fn heartbeat(height: u64) -> Self::Message {
        v1::StreamTransactionsResponse { height, transactions: Vec::new() }
    }
}
