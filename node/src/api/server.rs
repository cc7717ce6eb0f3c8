//! The server: all services, reflection and health on one listener, from start to the end of the last call.

use std::{future::Future, sync::Arc};

use tally_proto::v1::{
    account_service_server::AccountServiceServer, block_service_server::BlockServiceServer,
    chain_service_server::ChainServiceServer, node_service_server::NodeServiceServer,
    transaction_service_server::TransactionServiceServer, validator_service_server::ValidatorServiceServer,
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{body::Body, transport::Server};
use tonic_health::pb::health_server;
use tonic_reflection::{
    pb::{v1, v1alpha},
    server::Builder,
};
use tower::util::MapResponseLayer;

use super::{
    Api, Limits,
    health::{self, SERVICES},
    limits::REQUEST_BYTES_MAX,
    transport,
};
use crate::{
    calls::CallsLayer,
    context::Shared,
    incoming::{self, Entry},
};

/// Serves clients on `listener` until `shutdown` resolves or the node stops, then lets open calls end for a few seconds.
pub async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    serve_with(listener, shared, Limits::default(), shutdown).await
}

/// [`serve`] with other bounds.
pub async fn serve_with(
    listener: TcpListener,
    shared: Arc<Shared>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (close, closing) = watch::channel(false);
    let mut stopping = shared.stopping.clone();
    let api = Api::new(shared, limits.clone(), closing);
    let (reporter, health_server) = tonic_health::server::health_reporter();
    health::report(&reporter, &api).await;

    let compiled_in = "the descriptors are compiled in, and a test builds this";
    let reflection_v1 = reflection().build_v1().expect(compiled_in);
    let reflection_v1alpha = reflection().build_v1alpha().expect(compiled_in);
    let server = Server::builder()
        .max_concurrent_streams(limits.calls_per_connection_max)
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .max_connection_age(limits.connection_age_max)
        .layer(MapResponseLayer::new(transport::explain::<Body>))
        .layer(CallsLayer::new(limits.of_calls()))
        .add_service(reflection_v1.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(reflection_v1alpha.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(health_server.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(TransactionServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(AccountServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(BlockServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(ValidatorServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(ChainServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(NodeServiceServer::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
        .serve_with_incoming_shutdown(
            incoming::accept(listener, limits.connections_max, Entry::Speaks, limits.first_bytes),
            async {
                tokio::select! {
                    () = shutdown => {}
                    // An error means that whoever could stop the node is gone, which is as good as stopping.
                    _ = stopping.wait_for(|stopping| *stopping) => {}
                }
                close.send_replace(true);
            },
        );

    let housekeeping = tokio::spawn(health::keep(reporter, api.clone()));
    let served = tokio::select! {
        served = server => served,
        () = async { api.closed().await; tokio::time::sleep(limits.drain).await } => {
            tracing::warn!("client API: calls were still open after {:?} and are cut off", limits.drain);
            Ok(())
        }
    };
    drop(close);
    if let Err(error) = housekeeping.await {
        tracing::error!(%error, "client API: the task that reports health is gone");
    }
    served
}

/// What reflection tells: the services that are here, and everything about their messages, errors' details included.
fn reflection() -> Builder<'static> {
    let names = [
        v1::server_reflection_server::SERVICE_NAME,
        v1alpha::server_reflection_server::SERVICE_NAME,
        health_server::SERVICE_NAME,
    ];
    let builder = Builder::configure()
        .register_encoded_file_descriptor_set(tally_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(v1alpha::FILE_DESCRIPTOR_SET);
    SERVICES.into_iter().chain(names).fold(builder, Builder::with_service_name)
}
