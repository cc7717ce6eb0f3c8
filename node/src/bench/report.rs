//! What a run came to, for people and for programs.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::{Machine, Measured, Options, load, signature_rate::SignatureRate, throttle, usage::Usage};

/// A span of time.
pub(super) type Seconds = f64;

const MIB: f64 = 1024.0 * 1024.0;

/// Exact quantiles, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Quantiles {
    count: usize,
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

impl Quantiles {
    /// Of `times`, in any order; all zero without any.
    pub(super) fn of(mut times: Vec<Duration>) -> Quantiles {
        times.sort_unstable();
        // The smallest time that at least so many of a hundred do not exceed.
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).map_or(0.0, |time| round(time.as_secs_f64() * 1000.0, 2))
        };
        Quantiles { count: times.len(), p50: at(50), p95: at(95), p99: at(99), max: at(100) }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quantiles { count, p50, p95, p99, max } = self;
        write!(f, "p50 {p50} ms, p95 {p95} ms, p99 {p99} ms, max {max} ms, of {count} payments")
    }
}

/// What one node process cost over the measured time.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeCost {
    /// User and system time.
    pub(super) cpu_seconds: Seconds,
    /// Memory at the end.
    rss_mib: f64,
    /// The most memory since it started.
    rss_peak_mib: f64,
}

impl NodeCost {
    /// Between two readings.
    pub(super) fn new(before: &Usage, after: &Usage) -> NodeCost {
        NodeCost {
            cpu_seconds: round(after.cpu - before.cpu, 2),
            rss_mib: round(after.rss_bytes as f64 / MIB, 1),
            rss_peak_mib: round(after.rss_peak_bytes as f64 / MIB, 1),
        }
    }
}

/// See the module.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    nodes: u16,
    accounts: u32,
    warmup_seconds: u32,
    seconds: u32,
    /// Processes that wanted to run in the minute before.
    load_average_before: f64,
    signature_checks_per_second: SignatureRate,
    node_costs: Vec<NodeCost>,
    /// CPU time of everything on this machine but this run, over the measured time.
    others_cpu_seconds: Seconds,
    finality_ms: Quantiles,
    #[serde(flatten)]
    part: Part,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Part {
    Load(Load),
    Idle(Idle),
    Throttled(Throttled),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    rate: u32,
    submitted: u64,
    overruns: u64,
    refused: BTreeMap<String, u64>,
    lost: u64,
    committed: u64,
    committed_per_second: f64,
    blocks_per_second: f64,
    payments_per_block: f64,
    /// Views that led to no block: their leaders were not heard in time.
    views_lost: u64,
    sent_late_max_ms: f64,
    nodes_cpu_micros_per_payment: f64,
    bench_cpu_seconds: Seconds,
    stolen_cpu_seconds: Seconds,
    /// committed per second × nodes / signature checks per second on all cores.
    share_of_signature_rate: f64,
}

/// The load with a tenth of its upload for one validator, beside the same load without. What stands outside is of the
/// throttled run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttled {
    upload_bytes_per_second: u64,
    free: Load,
    throttled: Load,
    /// Committed per second, throttled by free.
    share_kept: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Idle {
    admission_ms: Quantiles,
}

impl Report {
    pub(super) fn new(options: &Options, machine: &Machine, measured: Measured) -> Report {
        let checks = machine.signature_checks;
        let (node_costs, others, finality_ms, part) = match measured {
            Measured::Idle(idle) => {
                (idle.nodes, idle.others_cpu, idle.finality_ms, Part::Idle(Idle { admission_ms: idle.admission_ms }))
            }
            Measured::Load(load) => {
                let part = Part::Load(Load::new(options, checks, &load));
                (load.nodes, load.others_cpu, load.finality_ms, part)
            }
            Measured::Throttled(runs) => {
                let throttle::Measured { upload, free, throttled } = *runs;
                let part = Throttled {
                    upload_bytes_per_second: upload,
                    free: Load::new(options, checks, &free),
                    throttled: Load::new(options, checks, &throttled),
                    share_kept: round(throttled.committed as f64 / free.committed.max(1) as f64, 3),
                };
                (throttled.nodes, throttled.others_cpu, throttled.finality_ms, Part::Throttled(part))
            }
        };
        Report {
            nodes: options.nodes,
            accounts: options.accounts,
            warmup_seconds: options.warmup,
            seconds: options.seconds,
            load_average_before: machine.load_average,
            signature_checks_per_second: checks,
            node_costs,
            others_cpu_seconds: round(others, 2),
            finality_ms,
            part,
        }
    }
}

impl Load {
    fn new(options: &Options, checks: SignatureRate, load: &load::Measured) -> Load {
        let seconds = f64::from(options.seconds);
        let per_second = load.committed as f64 / seconds;
        let nodes_cpu: Seconds = load.nodes.iter().map(|node| node.cpu_seconds).sum();
        Load {
            rate: options.rate,
            submitted: load.submitted,
            overruns: load.overruns,
            refused: load.refused.clone(),
            lost: load.lost,
            committed: load.committed,
            committed_per_second: round(per_second, 1),
            blocks_per_second: round(load.blocks.count as f64 / seconds, 1),
            payments_per_block: round(load.blocks.payments as f64 / load.blocks.count.max(1) as f64, 1),
            views_lost: load.blocks.views_lost,
            sent_late_max_ms: round(load.sent_late_max.as_secs_f64() * 1000.0, 2),
            nodes_cpu_micros_per_payment: round(nodes_cpu * 1e6 / load.committed.max(1) as f64, 1),
            bench_cpu_seconds: round(load.bench_cpu, 2),
            stolen_cpu_seconds: round(load.stolen_cpu, 2),
            share_of_signature_rate: round(per_second * f64::from(options.nodes) / checks.all_cores, 3),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SignatureRate { one_thread, all_cores, cores } = self.signature_checks_per_second;
        writeln!(
            f,
            "network     {} nodes, {} accounts, {} s after {} s",
            self.nodes, self.accounts, self.seconds, self.warmup_seconds
        )?;
        writeln!(
            f,
            "machine     {cores} cores, load average {} before, others took {} CPU s",
            self.load_average_before, self.others_cpu_seconds
        )?;
        writeln!(f, "signatures  {one_thread:.0}/s checked on one thread, {all_cores:.0}/s on {cores}")?;
        match &self.part {
            Part::Load(load) => load.fmt(f)?,
            Part::Idle(idle) => writeln!(f, "admission   {}", idle.admission_ms)?,
            Part::Throttled(Throttled { upload_bytes_per_second, free, throttled, share_kept }) => {
                writeln!(f, "-- all nodes with clients; node 1 uploads {upload_bytes_per_second} bytes/s")?;
                free.fmt(f)?;
                writeln!(f, "-- node 1 with a tenth of that and no clients: {share_kept} of the payments per second")?;
                throttled.fmt(f)?;
            }
        }
        writeln!(f, "finality    {}", self.finality_ms)?;
        for (number, node) in self.node_costs.iter().enumerate() {
            let share = node.cpu_seconds / f64::from(self.seconds) * 100.0;
            writeln!(
                f,
                "node {:<6} {:.2} CPU s ({share:.1} % of a core), {} MiB, peak {} MiB",
                number + 1,
                node.cpu_seconds,
                node.rss_mib,
                node.rss_peak_mib
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "committed   {}/s ({} payments), asked for {}/s",
            self.committed_per_second, self.committed, self.rate
        )?;
        let refused: u64 = self.refused.values().sum();
        writeln!(
            f,
            "submitted   {}, refused {refused}, lost {}, overruns {}",
            self.submitted, self.lost, self.overruns
        )?;
        for (reason, count) in &self.refused {
            writeln!(f, "refused     {count} {reason}")?;
        }
        writeln!(
            f,
            "blocks      {}/s, {} payments each, {} views lost",
            self.blocks_per_second, self.payments_per_block, self.views_lost
        )?;
        let share = self.share_of_signature_rate;
        writeln!(f, "ratio       {share} = committed/s × nodes / signatures/s on all cores")?;
        writeln!(f, "nodes       {} µs of CPU per payment, all nodes together", self.nodes_cpu_micros_per_payment)?;
        writeln!(f, "bench       {:.2} CPU s; sent at most {} ms late", self.bench_cpu_seconds, self.sent_late_max_ms)
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_occurred() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(Quantiles::of(times), Quantiles { count: 200, p50: 100.0, p95: 190.0, p99: 198.0, max: 200.0 });
        let one = Quantiles::of(vec![Duration::from_micros(1500)]);
        assert_eq!(one, Quantiles { count: 1, p50: 1.5, p95: 1.5, p99: 1.5, max: 1.5 });
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}
