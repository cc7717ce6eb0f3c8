//! Mistakes that the check must find: each is one rule of docs/protocol.md done wrong.
//!
//! All of them sit in the model's glue, which stands where `Machine` stands; the agreement itself has no switches.

use clap::ValueEnum;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Mutant {
    /// Rule P3 without its last clause: COMMIT(v) also after VIEW-CHANGE(u ≥ v, h < v).
    CommitAfterHiding,
    /// A TC without the highest PrepareQC that its signers name.
    CertificateForgetsHighest,
    /// COMMIT leaves before the PrepareQC is durable.
    PreparedNotDurable,
    /// PREPARE and VIEW-CHANGE leave before they are durable.
    VoteNotDurable,
    /// Rule S3 dropped what is at or below the floor, and a restart forgets the floor.
    FloorLowered,
    /// Rule S3 drops the votes of views above w too.
    DropsAboveFloor,
    /// The TC that let a replica into its view is not durable; it resumes in the view it signed in (rule R1) and can
    /// prove it to nobody.
    EntryNotDurable,
    /// CommitQC(L_e) is neither durable nor sent to those who stayed behind.
    EpochEndForgotten,
}
