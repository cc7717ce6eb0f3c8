//! `tally-node bench`: what a network of this machine carries, and how long a payment takes to be final.
//!
//! The load is open: every payment has an intended moment, is sent then whatever became of those before, and its time to
//! finality counts from that moment. A network that stalls therefore shows as late payments, never as fewer questions.
//! Payments are signed before the network starts, so that signing does not compete with it; the network is a throw-away
//! one of child processes, each an ordinary `tally-node start`.
//!
//! Known limit: load and network share the machine. The report says what the load itself cost, and what others took.

mod idle;
mod load;
mod network;
mod payments;
mod report;
mod signature_rate;
mod throttle;
mod usage;
mod watch;

use std::time::Duration;

use clap::{Args, ValueEnum};

use self::{network::Network, payments::Payments, report::Report};
use crate::{
    cli::{Failure, interrupted},
    words::{note, say},
};

/// Most payments of one run: each takes about half a kilobyte of memory until it is sent.
const PAYMENTS_MAX: u64 = 4_000_000;

/// Options of `tally-node bench`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Payments per second, over all nodes.
    #[arg(long, default_value_t = 5000, value_name = "TX/S", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long to measure.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How long the same goes on before anything is measured, in seconds.
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=600))]
    warmup: u32,
    /// How many validators, 1 to 16. Below 4 no fault is tolerated.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: u16,
    /// How many accounts pay each other, at least as many as nodes.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    accounts: u32,
    /// Calls on their way to one node, 1 to 1024; a payment whose moment finds as many is not sent, and counted.
    #[arg(long, default_value_t = 1024, value_name = "CALLS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    /// Measures an idle network instead: what its nodes cost over the seconds, then single payments one at a time.
    #[arg(long, conflicts_with = "rate")]
    idle: bool,
    /// Measures what a slow leader costs: the load once as usual, then with a tenth of its upload for the first
    /// validator, and all clients at the others.
    #[arg(long, conflicts_with = "idle")]
    throttle: bool,
    /// How to print the report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Clients are served from this port plus 1, peers from this plus 101.
    #[arg(long, default_value_t = 18_100)]
    base_port: u16,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs: one object on one line.
    Json,
}

/// Runs the benchmark; its report goes to standard output, its progress to standard error.
pub async fn run(options: Options) -> Result<(), Failure> {
    options.check()?;
    let stopped = interrupted();
    tokio::pin!(stopped);
    let prepared = tokio::select! {
        () = &mut stopped => return Err("interrupted before the network was started".into()),
        prepared = prepare(&options) => prepared,
    };
    let (mut network, payments, machine) = prepared?;
    let outcome = tokio::select! {
        () = &mut stopped => Ok(None),
        outcome = measure(&options, &mut network, payments) => outcome.map(Some),
    };
    network.stop().await;
    let measured = match outcome {
        Ok(Some(measured)) => measured,
        Ok(None) => return Err("interrupted; the network was stopped and its folder removed".into()),
        Err(error) => return Err(format!("{error}\nthe nodes' homes and logs are kept in {}", network.keep()).into()),
    };
    let report = Report::new(&options, &machine, measured);
    match options.output {
        Output::Text => say!("{}", report.to_string().trim_end()),
        Output::Json => say!("{}", serde_json::to_string(&report)?),
    }
    Ok(())
}

/// What the machine can do, and what it does beside this, before the network starts.
struct Machine {
    signature_checks: signature_rate::SignatureRate,
    load_average: f64,
}

/// What was measured.
enum Measured {
    Load(Box<load::Measured>),
    Idle(idle::Measured),
    Throttled(Box<throttle::Measured>),
}

async fn prepare(options: &Options) -> Result<(Network, Payments, Machine), Failure> {
    let load_average = usage::load_average()?;
    let accounts = payments::Accounts::new(options.accounts);
    let mut network = Network::create(options.nodes.into(), options.base_port, accounts.funded(options.payments()))?;
    if options.throttle {
        network.put_link().await?;
    }
    note!("measuring signature checks, then signing {} payments", options.payments());
    let signature_checks = signature_rate::measure().await?;
    let lifetime = Duration::from_secs((options.runs() * (options.warmup + options.seconds)).into());
    let payments = accounts.sign(options.payments(), network.chain(), lifetime).await?;
    Ok((network, payments, Machine { signature_checks, load_average }))
}

async fn measure(options: &Options, network: &mut Network, payments: Payments) -> Result<Measured, Failure> {
    network.start().await?;
    if options.idle {
        Ok(Measured::Idle(idle::run(options, network, payments).await?))
    } else if options.throttle {
        Ok(Measured::Throttled(Box::new(throttle::run(options, network, payments).await?)))
    } else {
        let urls = network.urls();
        Ok(Measured::Load(Box::new(load::run(options, network, payments, &urls).await?)))
    }
}

impl Options {
    /// How many payments the run takes.
    fn payments(&self) -> u64 {
        let seconds = self.runs() * (self.warmup + self.seconds);
        if self.idle { idle::PAYMENTS } else { u64::from(self.rate) * u64::from(seconds) }
    }

    /// How often the load runs.
    fn runs(&self) -> u32 {
        if self.throttle { 2 } else { 1 }
    }

    fn check(&self) -> Result<(), Failure> {
        if self.accounts < u32::from(self.nodes) {
            return Err(
                format!("{} accounts for {} nodes; give every node one at least", self.accounts, self.nodes).into()
            );
        }
        if self.throttle && self.nodes < 4 {
            return Err("with fewer than 4 validators every one is needed, and a slow one slows all".into());
        }
        if self.payments() > PAYMENTS_MAX {
            let payments = self.payments();
            return Err(format!(
                "{payments} payments would have to be signed ahead, at most {PAYMENTS_MAX} are; lower --rate or --seconds"
            )
            .into());
        }
        Ok(())
    }
}
