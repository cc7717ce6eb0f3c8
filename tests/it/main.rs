//! The real binaries, as people and machines use them: networks of `tally-node` processes on free ports of this machine,
//! spoken to over gRPC and with `tally-wallet`.
//!
//! One file per subject. [`network`] starts, stops and kills nodes and waits on conditions; [`payer`] signs transactions.
//! Nothing here reaches into a process: what a test knows, a client or an operator could know.

mod crashes;
mod damage;
mod discovery;
mod flood;
mod full_disk;
mod garbage;
mod hostile_peer;
mod load;
mod network;
mod observer;
mod pages;
mod payer;
mod payments;
mod quickstart;
mod quorum;
mod rejections;
mod shutdown;
mod stream_limits;
mod streams;
mod supply;
mod syncing;
mod terminal;
mod twins;
mod wallet;
mod wallet_batch;
mod wallet_commands;
mod wallet_inputs;
mod wallet_interrupted;
mod wallet_memory;
mod wallet_nodes;
mod wallet_offline;
mod wallet_outcomes;
mod wallet_prompts;
mod wallet_screens;
