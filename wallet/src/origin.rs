//! Where the value of a global flag comes from.

use std::collections::BTreeMap;

use clap::{ArgMatches, parser::ValueSource};

/// Source of every global flag's value, by the flag's id.
#[derive(Clone, Debug, Default)]
pub struct Origins(BTreeMap<String, Origin>);

/// A source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag,
    /// `TALLY_…`.
    Environment,
    /// Nowhere: the default, or what the configuration says.
    Default,
}

impl Origins {
    /// What `matches` knows of the flags called `ids`. Global flags may stand behind any subcommand; clap hands them down to
    /// the last one.
    pub fn of(matches: &ArgMatches, ids: &[&str]) -> Origins {
        let mut last = matches;
        while let Some((_, deeper)) = last.subcommand() {
            last = deeper;
        }
        let origin = |id: &str| match last.try_contains_id(id).ok().and_then(|_| last.value_source(id)) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Environment,
            _ => Origin::Default,
        };
        Origins(ids.iter().map(|id| ((*id).to_owned(), origin(id))).collect())
    }

    /// Where the value of a flag comes from.
    pub fn get(&self, id: &str) -> Origin {
        self.0.get(id).copied().unwrap_or(Origin::Default)
    }
}
