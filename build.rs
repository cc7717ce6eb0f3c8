//! Build script of the `proto` package: compiles every `.proto` file below `proto/` in pure Rust (protox), so that a
//! Rust toolchain is all a build needs, and keeps the descriptor set with its comments for server reflection.

use std::{env, error::Error, fs, path::PathBuf};

/// Every file of the contract; a file missing here is not compiled, one missing on disk fails the build.
const FILES: [&str; 10] = [
    "tally/v1/transaction.proto",
    "tally/v1/error.proto",
    "tally/v1/account_service.proto",
    "tally/v1/block_service.proto",
    "tally/v1/chain_service.proto",
    "tally/v1/node_service.proto",
    "tally/v1/transaction_service.proto",
    "tally/v1/validator_service.proto",
    "tally/consensus/v1/consensus.proto",
    "tally/consensus/v1/consensus_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    // The build script of a package runs in that package's folder: here, proto/.
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("tally.fds"), compiler.encode_file_descriptor_set())?;

    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .bytes(".tally.consensus.v1")
        .compile_fds(compiler.file_descriptor_set())?;

    println!("cargo::rerun-if-changed=../build.rs");
    println!("cargo::rerun-if-changed=tally");
    Ok(())
}
