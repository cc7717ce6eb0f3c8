//! The server as its clients see it: reflection, health, limits of connections and messages, and how it ends.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tally_proto::v1::{
    self as tally, block_service_client::BlockServiceClient, chain_service_client::ChainServiceClient,
    transaction_service_client::TransactionServiceClient,
};
use tally_types::Height;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use super::world::{World, shown, until};
use crate::api::{Limits, health::SERVICES, serve_with};

struct Server {
    world: World,
    address: SocketAddr,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Server {
    async fn start(limits: Limits) -> Server {
        let world = World::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve_with(listener, world.shared.clone(), limits, std::future::pending()));
        Server { world, address, task }
    }

    async fn connect(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn health(&self, channel: &Channel, service: &str) -> Option<ServingStatus> {
        let message = HealthCheckRequest { service: service.to_owned() };
        let checked = HealthClient::new(channel.clone()).check(message).await;
        checked.ok().map(|response| response.into_inner().status())
    }
}

fn quick() -> Limits {
    Limits { health_interval: Duration::from_millis(5), ..Limits::default() }
}

/// Asks reflection, in the version of module `$version`, for the services and for the file of each symbol.
macro_rules! reflected {
    ($version:ident, $channel:expr, $symbols:expr) => {{
        use $version::{
            server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest as Ask,
            server_reflection_response::MessageResponse as Told,
        };
        let asked = [Ask::ListServices(String::new())].into_iter();
        let asked = asked.chain($symbols.iter().cloned().map(Ask::FileContainingSymbol));
        let asked: Vec<_> = asked
            .map(|ask| $version::ServerReflectionRequest { host: String::new(), message_request: Some(ask) })
            .collect();
        let mut client = ServerReflectionClient::new($channel.clone());
        let told = client.server_reflection_info(tokio_stream::iter(asked)).await.unwrap().into_inner();
        let mut told = told.map(|message| message.unwrap().message_response.unwrap());
        let Some(Told::ListServicesResponse(list)) = told.next().await else { panic!("no list") };
        let services: BTreeSet<_> = list.service.into_iter().map(|service| service.name).collect();
        let mut files = Vec::new();
        for symbol in &$symbols {
            match told.next().await {
                Some(Told::FileDescriptorResponse(file)) => files.push(file.file_descriptor_proto[0].clone()),
                other => panic!("{symbol} is not explained: {other:?}"),
            }
        }
        (services, files)
    }};
}

#[tokio::test]
async fn reflection_lists_and_explains_every_service_in_both_versions() {
    let server = Server::start(quick()).await;
    let channel = server.connect().await;
    let others =
        ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
    let expected: BTreeSet<_> = SERVICES.into_iter().chain(others).map(str::to_owned).collect();
    assert_eq!(expected.len(), 9);
    let details = ["tally.v1.ErrorReason", "google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo"];
    let symbols: Vec<_> = expected.iter().cloned().chain(details.map(str::to_owned)).collect();
    let (services, files) = reflected!(v1, channel, symbols);
    assert_eq!(services, expected);
    // The manual: comments are in it.
    let submit = b"Submit transactions and learn their outcome";
    assert!(files.iter().any(|file| file.windows(submit.len()).any(|window| window == submit)));
    assert_eq!(reflected!(v1alpha, channel, symbols), (expected, files));
}

#[tokio::test]
async fn health_follows_the_node() {
    let server = Server::start(quick()).await;
    let channel = server.connect().await;
    let names = || SERVICES.into_iter().chain([""]);
    for service in names() {
        assert_eq!(server.health(&channel, service).await, Some(ServingStatus::Serving), "{service}");
    }
    assert_eq!(server.health(&channel, "tally.v1.Unknown").await, None);
    server.world.stand(|standing| standing.status.highest_seen = Height(3));
    for service in names() {
        until(async || server.health(&channel, service).await == Some(ServingStatus::NotServing)).await;
    }
    let message = HealthCheckRequest { service: String::new() };
    let mut watch = HealthClient::new(channel.clone()).watch(message).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    server.world.stand(|standing| standing.status.highest_seen = Height(0));
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // The end of the node ends the watch, and with it the server.
    server.world.stopping.send_replace(true);
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.next().await.is_none());
    drop(channel);
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_that_stops_ends_streams_and_waits_at_once() {
    let server = Server::start(Limits { drain: Duration::from_secs(600), ..quick() }).await;
    let channel = server.connect().await;
    let message = tally::StreamBlocksRequest::default();
    let mut stream = BlockServiceClient::new(channel.clone()).stream_blocks(message).await.unwrap().into_inner();
    let waiting = tokio::spawn({
        let mut client = TransactionServiceClient::new(channel.clone());
        let timeout = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let message = tally::WaitTransactionRequest { tx_id: "00".repeat(32), timeout };
        async move { client.wait_transaction(message).await }
    });
    server.world.stopping.send_replace(true);
    let end = stream.next().await.unwrap().unwrap_err();
    assert_eq!(shown(&end), "Unavailable NOT_ACCEPTING retry");
    // Either it was there in time and is answered, or it came too late and never reached the node.
    if let Err(status) = waiting.await.unwrap() {
        assert_eq!(status.code(), Code::Unavailable);
    }
    drop((stream, channel));
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn calls_that_do_not_end_are_cut_off_after_the_drain() {
    let server = Server::start(Limits { drain: Duration::from_millis(20), ..quick() }).await;
    let channel = server.connect().await;
    // A reflection stream is the client's to end, and this one does not.
    let (_open, requests) = tokio::sync::mpsc::channel::<v1::ServerReflectionRequest>(1);
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let _told = client.server_reflection_info(requests).await.unwrap();
    server.world.stopping.send_replace(true);
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_and_the_connection_lives_on() {
    let server = Server::start(quick()).await;
    let channel = server.connect().await;
    let transaction = tally::Transaction { body: vec![0; 256 * 1024], signatures: vec![] };
    let message = tally::SubmitTransactionRequest { transaction: Some(transaction) };
    let refused = TransactionServiceClient::new(channel.clone()).submit_transaction(message).await.unwrap_err();
    assert_eq!(shown(&refused), "InvalidArgument REQUEST_TOO_LARGE maximum=262144");
    let transaction = tally::Transaction { body: vec![0; 250 * 1024], signatures: vec![] };
    let message = tally::SubmitTransactionRequest { transaction: Some(transaction) };
    let refused = TransactionServiceClient::new(channel.clone()).submit_transaction(message).await.unwrap_err();
    assert!(
        shown(&refused).starts_with("InvalidArgument BODY_TOO_LARGE maximum=8192 size=256000 tx_id="),
        "{refused:?}"
    );
    ChainServiceClient::new(channel).get_chain_info(tally::GetChainInfoRequest {}).await.unwrap();
}

#[tokio::test]
async fn what_no_service_sees_has_a_reason_too() {
    let server = Server::start(quick()).await;
    let mut client = tonic::client::Grpc::new(server.connect().await);
    for (path, expected) in [
        ("/tally.v1.TransactionService/GetTransaction", "InvalidArgument REQUEST_MALFORMED"),
        ("/tally.v1.TransactionService/NoSuchMethod", "Unimplemented METHOD_UNKNOWN"),
        ("/tally.v1.NoSuchService/Get", "Unimplemented METHOD_UNKNOWN"),
    ] {
        client.ready().await.unwrap();
        // Its first field has bytes that are no text, where the method's has text.
        let message = tally::Transaction { body: vec![0xff], signatures: Vec::new() };
        let codec = tonic_prost::ProstCodec::<_, tally::GetTransactionResponse>::default();
        let path = path.parse().unwrap();
        let refused = client.unary(tonic::Request::new(message), path, codec).await.map(|_| ()).unwrap_err();
        assert_eq!(shown(&refused), expected);
        assert!(!refused.message().is_empty());
    }
    // What belongs to another protocol keeps its own form.
    let unknown = HealthCheckRequest { service: "no.such.Service".into() };
    let refused = HealthClient::new(server.connect().await).check(unknown).await.unwrap_err();
    assert_eq!((refused.code(), refused.details()), (Code::NotFound, &[][..]));
}

#[tokio::test]
async fn an_error_s_details_reach_a_client() {
    let server = Server::start(quick()).await;
    let channel = server.connect().await;
    let body = tally::TransactionBody { chain_id: "x".repeat(7000), ..server.world.body(5, 1) };
    let transaction = Some(server.world.sign(5, &body));
    let message = tally::SubmitTransactionRequest { transaction };
    let refused = TransactionServiceClient::new(channel).submit_transaction(message).await.unwrap_err();
    assert!(shown(&refused).starts_with("FailedPrecondition CHAIN_ID_MISMATCH expected=test-"), "{refused:?}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_makes_room() {
    let limits = Limits { connections_max: 1, first_bytes: Duration::from_millis(50), ..quick() };
    let server = Server::start(limits).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(b"PRI").await.unwrap();
    // The second connection gets its turn when the first is closed, which is not before its time is up.
    let channel = server.connect().await;
    ChainServiceClient::new(channel).get_chain_info(tally::GetChainInfoRequest {}).await.unwrap();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let server = Server::start(Limits { connections_max: 1, ..quick() }).await;
    let first = server.connect().await;
    let mut client = ChainServiceClient::new(first.clone());
    client.get_chain_info(tally::GetChainInfoRequest {}).await.unwrap();
    let second = Channel::from_shared(format!("http://{}", server.address)).unwrap().connect_lazy();
    let waiting =
        tokio::spawn(
            async move { ChainServiceClient::new(second).get_chain_info(tally::GetChainInfoRequest {}).await },
        );
    for _ in 0..20 {
        client.get_chain_info(tally::GetChainInfoRequest {}).await.unwrap();
    }
    assert!(!waiting.is_finished(), "the second connection was served beside the first");
    drop((first, client));
    waiting.await.unwrap().unwrap();
}

/// A wait for a transaction that nobody knows: it lasts as long as it is given.
fn long_wait() -> tally::WaitTransactionRequest {
    let timeout = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    tally::WaitTransactionRequest { tx_id: "00".repeat(32), timeout }
}

#[tokio::test]
async fn calls_on_one_connection_are_bounded_and_other_connections_go_on() {
    let server = Server::start(Limits { calls_per_connection_max: 2, ..quick() }).await;
    let (full, other) = (server.connect().await, server.connect().await);
    // The server's bound has arrived once a call was answered.
    ChainServiceClient::new(full.clone()).get_chain_info(tally::GetChainInfoRequest {}).await.unwrap();
    let waits: Vec<_> = (0..2)
        .map(|_| {
            let mut client = TransactionServiceClient::new(full.clone());
            tokio::spawn(async move { client.wait_transaction(long_wait()).await })
        })
        .collect();
    let mut another = ChainServiceClient::new(full.clone());
    let mut held = tokio::spawn(async move { another.get_chain_info(tally::GetChainInfoRequest {}).await });
    for _ in 0..50 {
        ChainServiceClient::new(other.clone()).get_chain_info(tally::GetChainInfoRequest {}).await.unwrap();
    }
    assert!(!held.is_finished(), "a third call was served beside two");
    // A caller that goes away makes room.
    waits.into_iter().for_each(|wait| wait.abort());
    tokio::time::timeout(Duration::from_secs(30), &mut held).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_is_cancelled_or_past_its_deadline_waits_no_longer() {
    let server = Server::start(Limits { waits_max: 1, ..quick() }).await;
    let channel = server.connect().await;
    let free = async || {
        let timeout = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
        let message = tally::WaitTransactionRequest { timeout, ..long_wait() };
        TransactionServiceClient::new(channel.clone()).wait_transaction(message).await.is_ok()
    };
    assert!(free().await);
    let mut client = TransactionServiceClient::new(channel.clone());
    // Again and again, until it has the one place there is.
    let cancelled = tokio::spawn(async move { while client.wait_transaction(long_wait()).await.is_err() {} });
    until(async || !free().await).await;
    cancelled.abort();
    until(free).await;
    // A deadline is the caller's word for the same, and the server keeps it: here the caller itself goes on listening.
    let mut raw = tonic::client::Grpc::new(channel.clone());
    raw.ready().await.unwrap();
    let mut message = tonic::Request::new(long_wait());
    message.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let codec = tonic_prost::ProstCodec::<_, tally::WaitTransactionResponse>::default();
    let path = "/tally.v1.TransactionService/WaitTransaction".parse().unwrap();
    let late = raw.unary(message, path, codec).await.map(|_| ()).unwrap_err();
    // Whose answer it is, is open: the caller's own clock runs, too.
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    until(free).await;
}

#[tokio::test]
async fn a_deadline_ends_a_stream_too() {
    let mut server = Server::start(quick()).await;
    let mut message = tonic::Request::new(tally::StreamBlocksRequest::default());
    message.metadata_mut().insert("grpc-timeout", "200m".parse().unwrap());
    let codec = tonic_prost::ProstCodec::<_, tally::StreamBlocksResponse>::default();
    let mut raw = tonic::client::Grpc::new(server.connect().await);
    raw.ready().await.unwrap();
    let path = "/tally.v1.BlockService/StreamBlocks".parse().unwrap();
    // Not as a header alone: tonic's client keeps the deadline of a stream until its first answer only.
    let mut stream = raw.server_streaming(message, path, codec).await.unwrap().into_inner();
    server.world.blocks(1);
    assert!(stream.message().await.unwrap().is_some());
    assert_eq!(shown(&stream.message().await.unwrap_err()), "DeadlineExceeded DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_request_that_does_not_come_whole_is_not_waited_for() {
    let server = Server::start(Limits { arrival: Duration::from_millis(100), ..quick() }).await;
    let mut raw = tonic::client::Grpc::new(server.connect().await);
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<tally::GetChainInfoRequest, tally::GetChainInfoResponse>::default();
    let path = "/tally.v1.ChainService/GetChainInfo".parse().unwrap();
    let never = tonic::Request::new(tokio_stream::pending());
    let refused = tokio::time::timeout(Duration::from_secs(30), raw.client_streaming(never, path, codec)).await;
    assert_eq!(shown(&refused.unwrap().map(|_| ()).unwrap_err()), "DeadlineExceeded REQUEST_INCOMPLETE");
}

#[tokio::test]
async fn bytes_of_requests_on_their_way_are_bounded() {
    let server = Server::start(Limits { arriving_bytes_max: 10_000, ..quick() }).await;
    let channel = server.connect().await;
    let call = async |bytes: usize| {
        let message = tally::GetTransactionRequest { tx_id: "0".repeat(bytes), ..Default::default() };
        let answer = TransactionServiceClient::new(channel.clone()).get_transaction(message).await;
        shown(&answer.unwrap_err())
    };
    assert!(call(20_000).await.starts_with("ResourceExhausted TOO_MANY_STREAMS maximum=10000"));
    // What was held for a request goes with it.
    for _ in 0..20 {
        assert!(call(9000).await.starts_with("InvalidArgument FIELD_INVALID"));
    }
}

#[tokio::test]
async fn a_client_that_takes_no_answers_loses_its_connection() {
    let mut server = Server::start(Limits { untaken: Duration::from_millis(300), streams_max: 1, ..quick() }).await;
    let closed = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    // A window of nothing: no byte of an answer may be sent, and the connection lives.
    let closed = closed.initial_stream_window_size(0).connect().await.unwrap();
    let soon = Duration::from_secs(30);
    let mut chain = ChainServiceClient::new(closed.clone());
    let ended = tokio::time::timeout(soon, chain.get_chain_info(tally::GetChainInfoRequest {})).await;
    assert!(ended.unwrap().is_err());
    let closed = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    let closed = closed.initial_stream_window_size(0).connect().await.unwrap();
    let mut stream =
        BlockServiceClient::new(closed).stream_blocks(tally::StreamBlocksRequest::default()).await.unwrap();
    server.world.blocks(1);
    assert!(tokio::time::timeout(soon, stream.get_mut().message()).await.unwrap().is_err());
    // Its place is free, and who merely waits for the next block keeps its own.
    let mut patient = BlockServiceClient::new(server.connect().await);
    let mut stream = patient.stream_blocks(tally::StreamBlocksRequest::default()).await.unwrap().into_inner();
    tokio::time::sleep(Duration::from_millis(900)).await;
    server.world.blocks(1);
    assert!(stream.message().await.unwrap().is_some());
}

/// A window of one byte takes an answer into the connection: what lies there is not seen to be untaken.
#[tokio::test]
async fn an_answer_is_not_out_of_sight_before_it_is_taken() {
    let server = Server::start(Limits { untaken: Duration::from_millis(200), ..quick() }).await;
    let narrow = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    let mut raw = tonic::client::Grpc::new(narrow.initial_stream_window_size(1).connect().await.unwrap());
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<tally::GetLeaderScheduleRequest, tally::GetLeaderScheduleResponse>::default();
    let path = "/tally.v1.ValidatorService/GetLeaderSchedule".parse().unwrap();
    let question = tonic::Request::new(tally::GetLeaderScheduleRequest { from_view: 0, count: 1000 });
    let mut answer = raw.server_streaming(question, path, codec).await.unwrap().into_inner();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(answer.message().await.is_err(), "it was kept for a client that takes nothing");
}

#[tokio::test]
async fn a_connection_that_no_longer_answers_is_closed() {
    let limits = Limits {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(50),
        ..quick()
    };
    let server = Server::start(limits).await;
    // HTTP/2's preface, empty settings, and then nothing: no answer to any PING.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut told = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(30), silent.read_to_end(&mut told)).await;
    assert!(closed.is_ok(), "still open");
    // One that answers lives on.
    let channel = server.connect().await;
    for _ in 0..5 {
        ChainServiceClient::new(channel.clone()).get_chain_info(tally::GetChainInfoRequest {}).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

#[tokio::test]
async fn as_many_payments_as_a_call_may_hold_are_taken_and_more_bytes_are_refused() {
    let server = Server::start(quick()).await;
    let channel = server.connect().await;
    let mut client = TransactionServiceClient::new(channel.clone());
    let submit = |count: u64, memo: usize| {
        let of = |nonce| {
            let body = tally::TransactionBody { memo: "m".repeat(memo), ..server.world.body(5, nonce) };
            server.world.sign(5, &body)
        };
        tally::SubmitTransactionsRequest { transactions: (1..=count).map(of).collect() }
    };
    let most = submit(1000, 0);
    let bytes = prost::Message::encoded_len(&most);
    let answer = client.submit_transactions(most).await;
    let results = answer.unwrap_or_else(|refused| panic!("{bytes} bytes: {refused:?}")).into_inner().results;
    assert_eq!(results.len(), 1000);
    assert!(results.iter().all(|result| !result.tx_id.is_empty()));
    let refused = client.submit_transactions(submit(1000, 100)).await.unwrap_err();
    assert_eq!(shown(&refused), "InvalidArgument REQUEST_TOO_LARGE maximum=262144");
}
