//! Bytes that are no message, at both ports.

use std::net::SocketAddr;

use tally_proto::v1;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;

use crate::network::{Network, Plan};

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that look like nothing, the same every time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Everything that is sent, by what it is.
fn all() -> Vec<(&'static str, Vec<u8>)> {
    let settings = frame(4, 0, 0, &[]);
    let started = |more: &[u8]| [PREFACE, &settings, more].concat();
    vec![
        ("noise", noise(100_000)),
        ("zeros", vec![0; 100_000]),
        ("an HTTP/1 request", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a TLS hello", [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &noise(196)].concat()),
        ("half a preface", PREFACE[..10].to_vec()),
        ("a preface and noise", [PREFACE, &noise(10_000)].concat()),
        ("a frame that is too long", started(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1])),
        ("data of no stream", started(&frame(0, 0, 77, &noise(1000)))),
        ("headers that are noise", started(&frame(1, 4, 1, &noise(1000)))),
        ("a thousand resets", started(&frame(3, 0, 1, &[0; 4]).repeat(1000))),
        ("ten thousand pings", started(&frame(6, 0, 0, &[7; 8]).repeat(10_000))),
        ("ten thousand settings", started(&settings.repeat(10_000))),
    ]
}

/// Sends and reads until the other side closes, or says nothing more for a moment.
async fn send(to: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let (mut read, mut write) = stream.split();
    let exchange = async {
        let send = async {
            let _ = write.write_all(bytes).await;
            let _ = write.shutdown().await;
        };
        let receive = async {
            let mut answer = vec![0; 65536];
            while read.read(&mut answer).await.is_ok_and(|count| count > 0) {}
        };
        tokio::join!(send, receive)
    };
    // A node may leave a connection that has said too little open for ten seconds; nobody has to wait for that.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(500), exchange).await;
}

#[tokio::test]
async fn garbage_at_both_ports_does_not_disturb_the_network() {
    let network = Network::start(Plan::of(4)).await;
    let [mut alice, bob, _] = network.people();
    let before = network.nodes[0].status().await.unwrap();
    // Connections that never say anything stay open meanwhile.
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(network.nodes[0].client).await.unwrap());
        silent.push(TcpStream::connect(network.nodes[0].peer).await.unwrap());
    }
    for port in [network.nodes[0].client, network.nodes[0].peer] {
        for (what, bytes) in all() {
            send(port, &bytes).await;
            assert!(network.nodes[0].status().await.is_ok(), "after {what} at {port}");
        }
    }
    network.nodes[0].execute(&alice.pay(&bob.address, 5)).await;
    let after = network.nodes[0].status().await.unwrap();
    assert_eq!(after.start_time, before.start_time);
    assert_eq!(after.validator, before.validator);
    network.grow(3).await;
    network.assert_equal().await;
    drop(silent);
}

#[tokio::test]
async fn an_oversized_message_is_refused_and_the_connection_lives() {
    let network = Network::start(Plan::of(1)).await;
    let node = &network.nodes[0];
    for size in [70_000, 5_000_000] {
        let transaction = v1::Transaction { body: noise(size), signatures: vec![] };
        let status = node.submit(&transaction).await.unwrap_err();
        // A limit on the size of requests, or on that of bodies.
        assert!(matches!(status.code(), Code::OutOfRange | Code::InvalidArgument), "{status:?}");
        assert!(node.status().await.is_ok());
    }
    let transaction = v1::Transaction { body: noise(3000), signatures: vec![] };
    assert_eq!(node.submit(&transaction).await.unwrap_err().code(), Code::InvalidArgument);
}
