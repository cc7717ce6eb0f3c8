//! Placeholder
use clap::Args;
#[derive(Debug, Args)]
pub struct Options {}
pub async fn run(_options: Options) -> Result<(), crate::cli::Failure> { Ok(()) }
