//! The wire contract of Tally, compiled from the `.proto` files beside this crate.
//!
//! Messages always; the tonic clients and servers with feature `grpc`. Every comment of the contract is in
//! [`FILE_DESCRIPTOR_SET`], which nodes serve by reflection: `grpcurl describe` is the manual.

/// What clients speak: `tally.v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, unused_qualifications)]
    include!(concat!(env!("OUT_DIR"), "/tally.v1.rs"));
}

/// What validators speak among themselves: `tally.consensus.v1`.
pub mod consensus {
    #![allow(missing_docs, clippy::all, unused_qualifications)]
    include!(concat!(env!("OUT_DIR"), "/tally.consensus.v1.rs"));
}

/// The serialized descriptor set of every file, imports and comments included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tally.fds"));
