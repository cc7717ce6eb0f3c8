//! What a client finds out from a node alone: services by reflection, health, the chain's facts.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorProto;
use tally_proto::v1;
use tally_types::Hash;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb;

use crate::network::{Network, Node, Plan, until};

const SERVICES: [&str; 6] =
    ["TransactionService", "AccountService", "BlockService", "ValidatorService", "ChainService", "NodeService"];

/// A client of one version of reflection: lists services, and gets the file that defines a symbol.
macro_rules! reflection {
    ($list:ident, $file_of:ident, $version:ident) => {
        async fn $list(node: &Node) -> BTreeSet<String> {
            use pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let ask = MessageRequest::ListServices("*".into());
            let ask = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
            let mut client = ServerReflectionClient::new(node.channel());
            let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
            match answers.message().await.unwrap().unwrap().message_response {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    list.service.into_iter().map(|service| service.name).collect()
                }
                other => panic!("{other:?}"),
            }
        }

        async fn $file_of(node: &Node, symbol: &str) -> FileDescriptorProto {
            use pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let ask = MessageRequest::FileContainingSymbol(symbol.into());
            let ask = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
            let mut client = ServerReflectionClient::new(node.channel());
            let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
            match answers.message().await.unwrap().unwrap().message_response {
                Some(MessageResponse::FileDescriptorResponse(file)) => {
                    FileDescriptorProto::decode(&file.file_descriptor_proto[0][..]).unwrap()
                }
                other => panic!("{symbol}: {other:?}"),
            }
        }
    };
}

reflection!(list_v1, file_of_v1, v1);
reflection!(list_v1alpha, file_of_v1alpha, v1alpha);

#[tokio::test]
async fn both_versions_of_reflection_tell_every_service() {
    let network = Network::start(Plan::of(1)).await;
    let node = &network.nodes[0];
    let expected: BTreeSet<String> = SERVICES
        .iter()
        .map(|name| format!("tally.v1.{name}"))
        .chain(
            [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
            ]
            .map(String::from),
        )
        .collect();
    assert_eq!(list_v1(node).await, expected);
    assert_eq!(list_v1alpha(node).await, expected);
    for service in expected {
        let file = file_of_v1(node, &service).await;
        assert_eq!(file, file_of_v1alpha(node, &service).await);
        let name = service.rsplit('.').next().unwrap();
        assert!(file.service.iter().any(|one| one.name() == name && !one.method.is_empty()), "{service}");
    }
    // What a client needs to build a transaction and to read an error.
    for message in
        ["tally.v1.TransactionBody", "tally.v1.ErrorReason", "google.rpc.ErrorInfo", "google.protobuf.Timestamp"]
    {
        file_of_v1(node, message).await;
    }
}

async fn health(node: &Node, service: &str) -> Option<ServingStatus> {
    let request = HealthCheckRequest { service: service.into() };
    Some(HealthClient::new(node.channel()).check(request).await.ok()?.into_inner().status())
}

#[tokio::test]
async fn health_is_serving_for_the_node_and_each_service() {
    let mut network = Network::start(Plan::of(4)).await;
    for node in &network.nodes {
        until("the node is at the tip", async || {
            (health(node, "").await == Some(ServingStatus::Serving)).then_some(())
        })
        .await;
        for service in SERVICES {
            assert_eq!(health(node, &format!("tally.v1.{service}")).await, Some(ServingStatus::Serving), "{service}");
        }
        assert_eq!(health(node, "tally.v1.NoSuchService").await, None);
    }
    // Whoever watches is told when the node stops.
    let mut client = HealthClient::new(network.nodes[0].channel());
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert!(network.nodes[0].terminate().await.success());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn a_client_learns_the_chain_its_validators_and_its_peers() {
    let network = Network::start(Plan::of(4)).await;
    let node = &network.nodes[0];
    let info = node.chain().get_chain_info(v1::GetChainInfoRequest {}).await.unwrap().into_inner();
    let genesis = &network.genesis;
    assert_eq!((&info.chain_id, &info.genesis_hash), (&genesis.chain.id, &genesis.chain.genesis_hash.to_string()));
    let params = info.params.unwrap();
    assert_eq!((params.symbol.as_str(), params.decimals, params.total_supply), ("TALLY", 9, genesis.total_supply.0));
    let chunk = node.chain().get_genesis(v1::GetGenesisRequest { chunk: 0 }).await.unwrap().into_inner();
    assert_eq!((chunk.chunk_count, Hash::of(&chunk.data)), (1, genesis.chain.genesis_hash));

    let set = node.validators().list_validators(v1::ListValidatorsRequest::default()).await.unwrap().into_inner();
    assert_eq!((set.validators.len(), set.total_voting_power), (4, 4 * crate::network::STAKE));
    assert!(set.quorum_voting_power > set.total_voting_power * 2 / 3);
    let peers = until("all peers are connected", async || {
        let peers = node.node().list_peers(v1::ListPeersRequest::default()).await.ok()?.into_inner().peers;
        peers.iter().all(|peer| peer.connected).then_some(peers)
    })
    .await;
    assert_eq!(peers.len(), 3);
    assert_eq!(node.status().await.unwrap().peer_count, 3);
    let known = set.validators.iter().map(|validator| &validator.address);
    assert!(peers.iter().all(|peer| known.clone().any(|address| *address == peer.validator)));
}
