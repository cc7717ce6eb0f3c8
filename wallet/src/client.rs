//! Talking to one node: every call has a deadline, every refusal becomes words, another chain is refused.
//!
//! A node is believed here: nothing in its answers is proven. [`nodes`] asks several and believes what enough of them say.

pub mod chain;
pub mod explain;
pub mod node_error;
pub mod nodes;
pub mod trace;

use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tally_proto::v1::{
    self, account_service_client::AccountServiceClient, block_service_client::BlockServiceClient,
    chain_service_client::ChainServiceClient, node_service_client::NodeServiceClient,
    transaction_service_client::TransactionServiceClient, validator_service_client::ValidatorServiceClient,
};
use tally_types::{Address, Hash, genesis::GENESIS_BYTES_MAX};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    config::Network,
    error::{UsageError, WalletError},
    json,
    output::clean,
    token::Token,
};

pub use chain::{ChainError, ChainView, time};
pub use node_error::NodeError;
pub use nodes::Nodes;
pub use trace::Trace;

/// Longest a call that does not wait for anything may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);
/// Beyond what a long-poll was asked to wait, how long its answer may take: as long again, within these bounds.
const POLL_GRACE_MIN: Duration = Duration::from_millis(500);
const POLL_GRACE_MAX: Duration = Duration::from_secs(5);
/// Longest one long-poll asks for; the node's own limit is a minute.
pub const POLL_TIME_MAX: Duration = Duration::from_secs(30);
/// Most bytes of one answer: a full block may have 32 MiB.
const ANSWER_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Pieces that a genesis file may come in; a node makes 64 of the largest.
const GENESIS_CHUNKS_MAX: u32 = 1024;

/// A connection to a node.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    node: String,
    call_time: Duration,
    trace: Trace,
}

/// Which block is asked for.
#[derive(Clone, Debug)]
pub enum BlockId {
    /// The latest one.
    Latest,
    /// By height.
    Height(u64),
    /// By the hash of its header.
    Hash(Hash),
}

/// A page of the transactions of an account.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Whose.
    pub account: Address,
    /// Most to return, at most 1000.
    pub page_size: u32,
    /// Token of the page before; empty: the first.
    pub page_token: String,
    /// Highest height to look at: with it, nodes that are not equally far give equal pages.
    pub max_height: u64,
}

impl Client {
    /// Connects to `node`, within `timeout`.
    pub async fn connect(node: &str, timeout: Duration, trace: Trace) -> Result<Client, WalletError> {
        let call_time = timeout.min(CALL_TIME_MAX);
        let bad_url = || UsageError::NodeUrl(clean(node));
        if !node.starts_with("http://") {
            return Err(bad_url().into());
        }
        let endpoint = Endpoint::from_shared(node.to_owned()).map_err(|_| bad_url())?;
        let place = endpoint.uri().authority().map(|authority| authority.as_str()).unwrap_or_default();
        // Behind the brackets of an IPv6 address; a port that is none would be taken for port 80.
        let has_port = place.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        if has_port && endpoint.uri().port_u16().is_none() {
            return Err(bad_url().into());
        }
        // A name, a password or a path would be dropped in silence.
        if place.contains('@') || !matches!(endpoint.uri().path(), "" | "/") || endpoint.uri().query().is_some() {
            return Err(bad_url().into());
        }
        let endpoint = endpoint.connect_timeout(call_time).tcp_nodelay(true);
        let connecting = tokio::time::timeout(call_time, endpoint.connect());
        let problem = match connecting.await {
            Ok(Ok(channel)) => return Ok(Client { channel, node: node.to_owned(), call_time, trace }),
            Ok(Err(error)) => node_error::innermost(&error),
            Err(_) => "no connection in time".to_owned(),
        };
        Err(NodeError::unreachable(node, &problem).into())
    }

    /// URL of the node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What the node says about its chain; refused when that is not what `pinned` (a network with its name) says.
    pub async fn chain(&self, pinned: Option<(&str, &Network)>) -> Result<ChainView, WalletError> {
        let mut service = ChainServiceClient::new(self.channel.clone());
        let asked = Asked { method: "ChainService/GetChainInfo", request: json!({}), limit: self.call_time };
        let info = self.call(asked, service.get_chain_info(self.request(v1::GetChainInfoRequest {}))).await;
        let info = info.map_err(|status| NodeError::new(&status, &self.node, None))?;
        let view = ChainView::read(info).map_err(|problem| NodeError::garbled(&self.node, problem))?;
        if let Some((name, network)) = pinned {
            view.check(&self.node, name, network)?;
        }
        Ok(view)
    }

    /// The genesis file, proven by its hash.
    pub async fn genesis(&self, hash: &Hash) -> Result<Vec<u8>, NodeError> {
        let mut service = ChainServiceClient::new(self.channel.clone());
        let mut bytes = Vec::new();
        let mut chunk = 0;
        loop {
            let request = json!({ "chunk": chunk });
            let asked = Asked { method: "ChainService/GetGenesis", request, limit: self.call_time };
            let answer = self.call(asked, service.get_genesis(self.request(v1::GetGenesisRequest { chunk }))).await;
            let answer = answer.map_err(|status| NodeError::new(&status, &self.node, None))?;
            // Without end, and without bytes, is no answer; nor are more pieces than a node makes of the largest.
            let is_empty = answer.data.is_empty();
            bytes.extend(answer.data);
            chunk += 1;
            let enough = bytes.len() > GENESIS_BYTES_MAX || chunk >= GENESIS_CHUNKS_MAX || chunk >= answer.chunk_count;
            if is_empty || enough {
                break;
            }
        }
        if Hash::of(&bytes) != *hash {
            return Err(NodeError::garbled(&self.node, "its genesis file does not have the genesis hash"));
        }
        Ok(bytes)
    }

    /// What the node says about itself.
    pub async fn status(&self) -> Result<v1::GetNodeStatusResponse, NodeError> {
        let mut service = NodeServiceClient::new(self.channel.clone());
        let asked = Asked { method: "NodeService/GetNodeStatus", request: json!({}), limit: self.call_time };
        let answer = self.call(asked, service.get_node_status(self.request(v1::GetNodeStatusRequest {}))).await;
        answer.map_err(|status| NodeError::new(&status, &self.node, None))
    }

    /// An account, and the height of the state that holds it.
    pub async fn account(&self, address: &Address, token: &Token) -> Result<(v1::Account, u64), NodeError> {
        let mut service = AccountServiceClient::new(self.channel.clone());
        let message = v1::GetAccountRequest { address: address.to_string(), min_height: 0 };
        let request = json!({ "address": message.address });
        let asked = Asked { method: "AccountService/GetAccount", request, limit: self.call_time };
        let answer = self.call(asked, service.get_account(self.request(message))).await;
        let answer = answer.map_err(|status| NodeError::new(&status, &self.node, Some(token)))?;
        match answer.account {
            Some(account) if account.address == address.to_string() => Ok((account, answer.height)),
            _ => Err(NodeError::garbled(&self.node, "the account is missing or another one")),
        }
    }

    /// Hands a signed transaction over.
    pub async fn submit(
        &self,
        transaction: v1::Transaction,
        limit: Duration,
    ) -> Result<v1::SubmitTransactionResponse, Status> {
        let limit = limit.min(self.call_time);
        let mut service = TransactionServiceClient::new(self.channel.clone());
        let signatures: Vec<Value> = transaction
            .signatures
            .iter()
            .map(|signature| json!({ "signature": BASE64_STANDARD.encode(&signature.signature) }))
            .collect();
        let body = BASE64_STANDARD.encode(&transaction.body);
        let request = json!({ "transaction": { "body": body, "signatures": signatures } });
        let message = v1::SubmitTransactionRequest { transaction: Some(transaction) };
        let asked = Asked { method: "TransactionService/SubmitTransaction", request, limit };
        self.call(asked, service.submit_transaction(within(message, limit))).await
    }

    /// Works out what `body` would do now.
    pub async fn simulate(
        &self,
        body: v1::TransactionBody,
        token: &Token,
    ) -> Result<v1::SimulateTransactionResponse, NodeError> {
        let mut service = TransactionServiceClient::new(self.channel.clone());
        let request = json!({ "body": json::body(&body) });
        let message = v1::SimulateTransactionRequest { body: Some(body) };
        let asked = Asked { method: "TransactionService/SimulateTransaction", request, limit: self.call_time };
        let answer = self.call(asked, service.simulate_transaction(self.request(message))).await;
        answer.map_err(|status| NodeError::new(&status, &self.node, Some(token)))
    }

    /// Waits up to `limit` for the outcome of a transaction.
    pub async fn wait(&self, id: &Hash, limit: Duration) -> Result<v1::WaitTransactionResponse, Status> {
        let poll = limit.min(POLL_TIME_MAX);
        let timeout = prost_types::Duration::try_from(poll).ok();
        let limit = poll.saturating_add(poll.clamp(POLL_GRACE_MIN, POLL_GRACE_MAX));
        let mut service = TransactionServiceClient::new(self.channel.clone());
        let message = v1::WaitTransactionRequest { tx_id: id.to_string(), timeout };
        let request = json!({ "txId": message.tx_id, "timeout": json::duration(timeout) });
        let asked = Asked { method: "TransactionService/WaitTransaction", request, limit };
        self.call(asked, service.wait_transaction(within(message, limit))).await
    }

    /// A transaction as the node knows it now.
    pub async fn transaction(&self, id: &Hash, token: &Token) -> Result<v1::GetTransactionResponse, NodeError> {
        let mut service = TransactionServiceClient::new(self.channel.clone());
        let message = v1::GetTransactionRequest { tx_id: id.to_string(), view: v1::TransactionView::Basic.into() };
        let request = json!({ "txId": message.tx_id });
        let asked = Asked { method: "TransactionService/GetTransaction", request, limit: self.call_time };
        let answer = self.call(asked, service.get_transaction(self.request(message))).await;
        answer.map_err(|status| NodeError::new(&status, &self.node, Some(token)))
    }

    /// One page of the final transactions that touch an account, newest first.
    pub async fn history_page(
        &self,
        query: &HistoryQuery,
        token: &Token,
    ) -> Result<v1::ListTransactionsResponse, NodeError> {
        let mut service = TransactionServiceClient::new(self.channel.clone());
        let message = v1::ListTransactionsRequest {
            page_size: i32::try_from(query.page_size).unwrap_or(i32::MAX),
            page_token: query.page_token.clone(),
            account: query.account.to_string(),
            max_height: query.max_height,
            order: v1::Order::NewestFirst.into(),
            ..Default::default()
        };
        let mut request = json!({
            "account": message.account,
            "pageSize": message.page_size,
            "maxHeight": message.max_height.to_string(),
            "order": "ORDER_NEWEST_FIRST",
        });
        if !message.page_token.is_empty() {
            request["pageToken"] = message.page_token.clone().into();
        }
        let asked = Asked { method: "TransactionService/ListTransactions", request, limit: self.call_time };
        let answer = self.call(asked, service.list_transactions(self.request(message))).await;
        answer.map_err(|status| NodeError::new(&status, &self.node, Some(token)))
    }

    /// Follows the transactions that touch `account`, or all of them, from a height on; 0: from the next block.
    pub async fn stream_transactions(
        &self,
        from_height: u64,
        account: Option<&Address>,
    ) -> Result<Streaming<v1::StreamTransactionsResponse>, NodeError> {
        let mut service = TransactionServiceClient::new(self.channel.clone());
        let account = account.map(ToString::to_string).unwrap_or_default();
        let message = v1::StreamTransactionsRequest { from_height, account, ..Default::default() };
        let mut request = json!({ "fromHeight": from_height.to_string() });
        if !message.account.is_empty() {
            request["account"] = message.account.clone().into();
        }
        let method = "TransactionService/StreamTransactions";
        self.trace.asks(&self.node, method, &request);
        // No deadline: a stream lasts as long as somebody reads it.
        let answer = tokio::time::timeout(self.call_time, service.stream_transactions(Request::new(message))).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let code = answer.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        self.trace.opened(&self.node, method, code);
        answer.map(Response::into_inner).map_err(|status| NodeError::new(&status, &self.node, None))
    }

    /// A block: header and transaction ids, or all of it if `full`.
    pub async fn block(&self, id: &BlockId, full: bool) -> Result<v1::Block, NodeError> {
        let mut service = BlockServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let view = if full { v1::BlockView::Full } else { v1::BlockView::Basic };
        let mut request = json!({ "view": view.as_str_name() });
        let block_id = match id {
            BlockId::Latest => None,
            BlockId::Height(height) => {
                request["height"] = height.to_string().into();
                Some(v1::get_block_request::BlockId::Height(*height))
            }
            BlockId::Hash(hash) => {
                request["blockHash"] = hash.to_string().into();
                Some(v1::get_block_request::BlockId::BlockHash(hash.to_string()))
            }
        };
        let message = v1::GetBlockRequest { block_id, view: view.into() };
        let asked = Asked { method: "BlockService/GetBlock", request, limit: self.call_time };
        let answer = self.call(asked, service.get_block(self.request(message))).await;
        let answer = answer.map_err(|status| NodeError::new(&status, &self.node, None))?;
        answer.block.ok_or_else(|| NodeError::garbled(&self.node, "the block is missing"))
    }

    /// The validators with the most votes, at most 1000.
    pub async fn validators(&self) -> Result<v1::ListValidatorsResponse, NodeError> {
        let mut service = ValidatorServiceClient::new(self.channel.clone());
        let message = v1::ListValidatorsRequest { page_size: 1000, ..Default::default() };
        let asked = Asked {
            method: "ValidatorService/ListValidators",
            request: json!({ "pageSize": 1000 }),
            limit: self.call_time,
        };
        let answer = self.call(asked, service.list_validators(self.request(message))).await;
        answer.map_err(|status| NodeError::new(&status, &self.node, None))
    }

    /// Who leads `count` views from `from_view` on; 0: from the one the node works on.
    pub async fn leaders(&self, from_view: u64, count: u32) -> Result<v1::GetLeaderScheduleResponse, NodeError> {
        let mut service = ValidatorServiceClient::new(self.channel.clone());
        let message = v1::GetLeaderScheduleRequest { from_view, count };
        let request = json!({ "fromView": from_view.to_string(), "count": count });
        let asked = Asked { method: "ValidatorService/GetLeaderSchedule", request, limit: self.call_time };
        let answer = self.call(asked, service.get_leader_schedule(self.request(message))).await;
        answer.map_err(|status| NodeError::new(&status, &self.node, None))
    }

    /// A request whose answer is of use for as long as a call may take.
    fn request<T>(&self, message: T) -> Request<T> {
        within(message, self.call_time)
    }

    /// The whole answer within the limit: tonic's own timeout ends at the response's headers.
    async fn call<T>(
        &self,
        asked: Asked,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        self.trace.asks(&self.node, asked.method, &asked.request);
        let begin = Instant::now();
        let answer = match tokio::time::timeout(asked.limit, call).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        };
        self.trace.answered(&self.node, asked.method, begin.elapsed(), &answer);
        answer
    }
}

/// A call as it is shown, and how long it may take.
struct Asked {
    method: &'static str,
    request: Value,
    limit: Duration,
}

/// A request that tells the node how long the answer is of use.
fn within<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::OutputForm, error::Exit, output::Output};

    #[tokio::test]
    async fn a_node_that_is_not_there_is_unreachable() {
        let trace = Trace::new(Output::new(OutputForm::Text, true), false, false);
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error =
            Client::connect(&format!("http://127.0.0.1:{port}"), Duration::from_secs(5), trace).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Unreachable, "{error}");
        for url in ["https://n:1", "127.0.0.1:1", "http://", "", "http://n:99999", "http://[::1]:x"] {
            let error = Client::connect(url, Duration::from_secs(5), trace).await.unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{url}: {error}");
        }
    }
}
