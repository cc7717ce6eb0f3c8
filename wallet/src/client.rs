//! Talking to a node: every call has a deadline, every refusal becomes words, another chain is refused.
//!
//! The node is believed here: its answers are not verified yet, and nothing in this crate says they are.

pub mod explain;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tally_proto::v1::{
    self, account_service_client::AccountServiceClient, chain_service_client::ChainServiceClient,
    transaction_service_client::TransactionServiceClient,
};
use tally_types::{Address, Amount, Hash, genesis::Chain};
use thiserror::Error;
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::{
    config::Network,
    error::{Exit, UsageError, WalletError},
    output::clean,
    token::Token,
};

/// Longest a call that does not wait for anything may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);
/// Beyond what a long-poll was asked to wait, how long its answer may take.
const POLL_GRACE: Duration = Duration::from_secs(5);
/// Longest one long-poll asks for; the node's own limit is a minute.
pub const POLL_TIME_MAX: Duration = Duration::from_secs(30);
/// Domain of the node's reasons.
const DOMAIN: &str = "tally.v1";

/// A connection to a node.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    node: String,
    call_time: Duration,
}

/// What a node says about its chain.
#[derive(Clone, Debug)]
pub struct ChainView {
    /// Id and genesis hash.
    pub chain: Chain,
    /// How amounts are written.
    pub token: Token,
    /// Fee of one operation.
    pub base_fee: Amount,
    /// Least opening balance.
    pub min_opening_balance: Amount,
    /// Greatest distance of an expire time from the latest block.
    pub max_expiry: Duration,
    /// Time of the latest block.
    pub latest_block_time: SystemTime,
    /// The whole answer.
    pub info: v1::GetChainInfoResponse,
}

/// The node follows another chain than the pinned one, or lies about it.
#[derive(Debug, Error)]
#[error("{node} is not on the network {network:?}: its {field} is {got}, pinned is {pinned}")]
pub struct ChainError {
    /// The node.
    pub node: String,
    /// Name of the network, or "--genesis-hash".
    pub network: String,
    /// What differs.
    pub field: &'static str,
    /// What it should be.
    pub pinned: String,
    /// What the node says.
    pub got: String,
}

/// The node refused, failed, or could not be reached.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct NodeError {
    /// Stable name of the reason.
    pub reason: String,
    /// What happened, in words.
    pub message: String,
    /// What to do next.
    pub next: String,
    /// What it means for the exit code of a query.
    pub exit: Exit,
    /// The node's facts.
    pub metadata: BTreeMap<String, String>,
    /// The gRPC code.
    pub code: Code,
    /// Whether a node gave the reason, so that it is known to have seen the call and to have refused it.
    pub from_node: bool,
    /// How long the node asks to wait before another try.
    pub retry_after: Option<Duration>,
}

impl Client {
    /// Connects to `node`, within `timeout`.
    pub async fn connect(node: &str, timeout: Duration) -> Result<Client, WalletError> {
        let call_time = timeout.min(CALL_TIME_MAX);
        let bad_url = || UsageError::NodeUrl(clean(node));
        if !node.starts_with("http://") {
            return Err(bad_url().into());
        }
        let endpoint = Endpoint::from_shared(node.to_owned()).map_err(|_| bad_url())?;
        let endpoint = endpoint.connect_timeout(call_time).tcp_nodelay(true);
        let connecting = tokio::time::timeout(call_time, endpoint.connect());
        let problem = match connecting.await {
            Ok(Ok(channel)) => return Ok(Client { channel, node: node.to_owned(), call_time }),
            Ok(Err(error)) => innermost(&error),
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
        let request = self.request(v1::GetChainInfoRequest {}, self.call_time);
        let info = within(self.call_time, service.get_chain_info(request)).await;
        let info = info.map_err(|status| NodeError::new(&status, &self.node, None))?;
        let view = ChainView::read(info).map_err(|problem| NodeError::garbled(&self.node, problem))?;
        if let Some((name, network)) = pinned {
            view.check(&self.node, name, network)?;
        }
        Ok(view)
    }

    /// An account, and the height of the state that holds it.
    pub async fn account(&self, address: &Address, token: &Token) -> Result<(v1::Account, u64), NodeError> {
        let mut service = AccountServiceClient::new(self.channel.clone());
        let message = v1::GetAccountRequest { address: address.to_string(), min_height: 0 };
        let answer = within(self.call_time, service.get_account(self.request(message, self.call_time))).await;
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
        let message = v1::SubmitTransactionRequest { transaction: Some(transaction) };
        within(limit, service.submit_transaction(self.request(message, limit))).await
    }

    /// Waits up to `limit` for the outcome of a transaction.
    pub async fn wait(&self, id: &Hash, limit: Duration) -> Result<v1::WaitTransactionResponse, Status> {
        let poll = limit.min(POLL_TIME_MAX);
        let timeout = prost_types::Duration::try_from(poll).ok();
        let deadline = poll.saturating_add(POLL_GRACE);
        let mut service = TransactionServiceClient::new(self.channel.clone());
        let message = v1::WaitTransactionRequest { tx_id: id.to_string(), timeout };
        within(deadline, service.wait_transaction(self.request(message, deadline))).await
    }

    /// A transaction as the node knows it now.
    pub async fn transaction(&self, id: &Hash, token: &Token) -> Result<v1::GetTransactionResponse, NodeError> {
        let mut service = TransactionServiceClient::new(self.channel.clone());
        let message = v1::GetTransactionRequest { tx_id: id.to_string(), view: v1::TransactionView::Basic.into() };
        let answer = within(self.call_time, service.get_transaction(self.request(message, self.call_time))).await;
        answer.map_err(|status| NodeError::new(&status, &self.node, Some(token)))
    }

    /// One page of the final transactions that touch `account`, newest first.
    pub async fn history_page(
        &self,
        account: &Address,
        page_size: i32,
        page_token: String,
        token: &Token,
    ) -> Result<v1::ListTransactionsResponse, NodeError> {
        let mut service = TransactionServiceClient::new(self.channel.clone());
        let message = v1::ListTransactionsRequest {
            page_size,
            page_token,
            account: account.to_string(),
            order: v1::Order::NewestFirst.into(),
            ..Default::default()
        };
        let answer = within(self.call_time, service.list_transactions(self.request(message, self.call_time))).await;
        answer.map_err(|status| NodeError::new(&status, &self.node, Some(token)))
    }

    /// A request that tells the node how long the answer is of use.
    fn request<T>(&self, message: T, limit: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(limit);
        request
    }
}

/// The whole answer within `limit`: tonic's own timeout ends at the response's headers.
async fn within<T>(limit: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

impl ChainView {
    fn read(info: v1::GetChainInfoResponse) -> Result<ChainView, &'static str> {
        let genesis_hash = Hash::from_hex(&info.genesis_hash).ok_or("the genesis hash is not 64 hex digits")?;
        let params = info.params.as_ref().ok_or("the chain's parameters are missing")?;
        let token = Token::new(&params.symbol, params.decimals).ok_or("symbol or decimals are out of bounds")?;
        let latest_block_time =
            info.latest_block_time.and_then(time).ok_or("the time of the latest block is missing")?;
        let max_expiry = params.max_expiry.and_then(|limit| Duration::try_from(limit).ok());
        Ok(ChainView {
            chain: Chain { id: info.chain_id.clone(), genesis_hash },
            token,
            base_fee: Amount(params.base_fee),
            min_opening_balance: Amount(params.min_opening_balance),
            max_expiry: max_expiry.ok_or("the greatest expiry is missing")?,
            latest_block_time,
            info,
        })
    }

    /// This chain, to be pinned.
    pub fn pin(&self, node: &str) -> Network {
        Network {
            node: node.to_owned(),
            chain_id: self.chain.id.clone(),
            genesis_hash: self.chain.genesis_hash.to_string(),
            symbol: self.token.symbol().to_owned(),
            decimals: self.token.places(),
        }
    }

    fn check(&self, node: &str, name: &str, network: &Network) -> Result<(), ChainError> {
        let got = self.pin(&network.node);
        let pairs = [
            ("genesis hash", &network.genesis_hash, &got.genesis_hash),
            ("chain id", &network.chain_id, &got.chain_id),
            ("token symbol", &network.symbol, &got.symbol),
            ("number of decimals", &network.decimals.to_string(), &got.decimals.to_string()),
        ];
        match pairs.into_iter().find(|(_, pinned, got)| pinned != got) {
            None => Ok(()),
            Some((field, pinned, got)) => Err(ChainError {
                node: node.to_owned(),
                network: name.to_owned(),
                field,
                pinned: pinned.clone(),
                got: clean(got),
            }),
        }
    }
}

/// A timestamp as a time, when it is one.
pub fn time(timestamp: prost_types::Timestamp) -> Option<SystemTime> {
    SystemTime::try_from(timestamp).ok()
}

impl NodeError {
    /// `status` in words. `token` writes the amounts in it, when the chain is known already.
    pub fn new(status: &Status, node: &str, token: Option<&Token>) -> NodeError {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let Some(info) = info else { return NodeError::without_reason(status, node) };
        let metadata: BTreeMap<_, _> = info.metadata.iter().map(|(key, value)| (clean(key), clean(value))).collect();
        let explained = explain::explain(&info.reason, &explain::Facts { metadata: &metadata, token });
        let mut message = explained.message;
        // For what the reason alone cannot tell: which field, and what the node calls the problem.
        if let Some(violation) = details.bad_request().and_then(|request| request.field_violations.first()) {
            message = format!("{message}: {} {}", clean(&violation.field), clean(&violation.description));
        } else if explained.vague && !status.message().is_empty() {
            message = format!("{message}: {}", clean(status.message()));
        }
        NodeError {
            reason: clean(&info.reason),
            message,
            next: explained.next,
            exit: explained.exit,
            metadata,
            code: status.code(),
            from_node: true,
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }

    /// Nobody answers.
    pub fn unreachable(node: &str, problem: &str) -> NodeError {
        NodeError {
            reason: "UNREACHABLE".into(),
            message: format!("{} cannot be reached: {}", clean(node), clean(problem)),
            next: "check that the node runs and that its URL is right, or ask another node with --node URL".into(),
            exit: Exit::Unreachable,
            metadata: BTreeMap::new(),
            code: Code::Unavailable,
            from_node: false,
            retry_after: None,
        }
    }

    /// An answer that cannot be.
    pub fn garbled(node: &str, problem: &str) -> NodeError {
        NodeError {
            reason: "ANSWER_INVALID".into(),
            message: format!("{} gave an answer that cannot be: {problem}", clean(node)),
            next: "check the versions of node and wallet, or ask another node with --node URL".into(),
            code: Code::Internal,
            ..NodeError::unreachable(node, problem)
        }
    }

    /// Whether nobody can tell from this error if the node took what it was sent.
    pub fn is_uncertain(&self) -> bool {
        let refusing = matches!(
            self.code,
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::ResourceExhausted
                | Code::Unimplemented
        );
        !self.from_node && !refusing
    }

    fn without_reason(status: &Status, node: &str) -> NodeError {
        let problem = match std::error::Error::source(status) {
            Some(source) => innermost(source),
            None => status.message().to_owned(),
        };
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled => {
                NodeError { code: status.code(), ..NodeError::unreachable(node, &problem) }
            }
            Code::DeadlineExceeded => NodeError {
                reason: "NO_ANSWER".into(),
                message: format!("{} did not answer in time", clean(node)),
                next: "try again, with a longer --timeout, or ask another node with --node URL".into(),
                code: status.code(),
                ..NodeError::unreachable(node, &problem)
            },
            Code::Unimplemented => NodeError {
                reason: "UNIMPLEMENTED".into(),
                message: format!("{} does not offer this call", clean(node)),
                next: "check that the URL is that of a Tally node's client API, and that it is new enough".into(),
                code: status.code(),
                ..NodeError::unreachable(node, &problem)
            },
            code => NodeError {
                reason: "NODE_ERROR".into(),
                message: format!("{} answered {code:?}: {}", clean(node), clean(&problem)),
                next: "try again, or ask another node with --node URL".into(),
                code,
                ..NodeError::unreachable(node, &problem)
            },
        }
    }
}

/// The cause at the bottom: "Connection refused" says more than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn info() -> v1::GetChainInfoResponse {
        let genesis_hash = Hash::of(b"genesis").to_string();
        v1::GetChainInfoResponse {
            chain_id: format!("local-{}", &genesis_hash[..8]),
            genesis_hash,
            latest_block_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            params: Some(v1::ChainParams {
                symbol: "TALLY".into(),
                decimals: 9,
                max_expiry: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn another_chain_and_another_token_are_refused() {
        let view = ChainView::read(info()).unwrap();
        let pinned = view.pin("http://n:1");
        assert!(view.check("http://other:1", "local", &pinned).is_ok(), "another node of the same chain");
        let differs = |change: fn(&mut v1::GetChainInfoResponse)| {
            let mut other = info();
            change(&mut other);
            ChainView::read(other).unwrap().check("http://n:1", "local", &pinned).unwrap_err().field
        };
        assert_eq!(differs(|info| info.genesis_hash = Hash::of(b"other").to_string()), "genesis hash");
        assert_eq!(differs(|info| info.chain_id.push('x')), "chain id");
        assert_eq!(differs(|info| info.params.as_mut().unwrap().symbol = "GOLD".into()), "token symbol");
        assert_eq!(differs(|info| info.params.as_mut().unwrap().decimals = 0), "number of decimals");
    }

    #[test]
    fn a_reason_of_the_node_is_put_into_words() {
        let facts = [("balance", "3000000000"), ("needed", "12501000000"), ("missing", "9501000000")];
        let facts: HashMap<String, String> = facts.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let details = ErrorDetails::with_error_info("INSUFFICIENT_FUNDS", DOMAIN, facts.clone());
        let status = tonic::Status::with_error_details(Code::FailedPrecondition, "no", details);
        let error = NodeError::new(&status, "http://n:1", Token::new("TALLY", 9).as_ref());
        assert_eq!(error.message, "balance 3 TALLY is 9.501 TALLY short of the 12.501 TALLY needed");
        assert_eq!((error.exit, error.from_node), (Exit::Rejected, true));
        assert!(!error.is_uncertain());
        // Another domain's reasons are another's.
        let details = ErrorDetails::with_error_info("INSUFFICIENT_FUNDS", "example.com", facts);
        let status = Status::with_error_details(Code::Unavailable, "no", details);
        let error = NodeError::new(&status, "http://n:1", None);
        assert_eq!((error.reason.as_str(), error.from_node), ("UNREACHABLE", false));
    }

    #[test]
    fn only_an_answer_of_the_node_makes_a_refusal_certain() {
        for (code, uncertain) in [
            (Code::Unavailable, true),
            (Code::DeadlineExceeded, true),
            (Code::Unknown, true),
            (Code::Cancelled, true),
            (Code::Internal, true),
            (Code::Aborted, true),
            (Code::DataLoss, true),
            (Code::Unimplemented, false),
            (Code::InvalidArgument, false),
        ] {
            assert_eq!(
                NodeError::new(&Status::new(code, "x"), "http://n:1", None).is_uncertain(),
                uncertain,
                "{code:?}"
            );
        }
        let details = ErrorDetails::with_error_info("NODE_SYNCING", DOMAIN, HashMap::new());
        let status = Status::with_error_details(Code::Unavailable, "x", details);
        let error = NodeError::new(&status, "http://n:1", None);
        assert!(!error.is_uncertain() && error.exit == Exit::Unreachable);
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_unreachable() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = Client::connect(&format!("http://127.0.0.1:{port}"), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Unreachable, "{error}");
        for url in ["https://n:1", "127.0.0.1:1", "http://", ""] {
            let error = Client::connect(url, Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{url}: {error}");
        }
    }
}
