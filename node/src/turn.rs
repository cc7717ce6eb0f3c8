//! The end of a turn: what has to be durable is written, and only then is there anything to do. Driver and simulated world both
//! have this from here, so the order is tried where everything goes wrong.

use tally_consensus::{Action, Record};
use tally_types::{Hash, Height};

use crate::store::journal::{self, Journal, JournalError, Position};

/// A turn whose records are on disk.
#[derive(Debug, Default)]
pub struct Durable {
    /// What is to be done now, in the machine's order.
    pub actions: Vec<Action>,
    /// Where the batches that were written lie.
    pub batches: Vec<(Hash, Position)>,
    /// The highest execution among the records.
    pub executed: Option<Height>,
}

/// Writes the records among `actions` as one group, with one sync; an overfull turn takes several. After an error the process
/// must end: what the disk holds is unknown then.
pub fn make_durable(journal: &mut Journal, mut actions: Vec<Action>) -> Result<Durable, JournalError> {
    let mut durable = Durable::default();
    let mut writes = false;
    for action in &actions {
        let Action::Persist(record) = action else { continue };
        writes = true;
        let position = append(journal, &raw(record))?;
        match record {
            Record::Accepted(batch, _) | Record::Sealed(batch) | Record::Stored(batch) => {
                durable.batches.extend(position.map(|position| (batch.digest(), position)));
            }
            Record::Executed(result) => durable.executed = Some(result.height),
            _ => {}
        }
    }
    if writes {
        journal.sync()?;
    }
    actions.retain(|action| !matches!(action, Action::Persist(_)));
    durable.actions = actions;
    Ok(durable)
}

/// The record as the journal takes it.
pub fn raw(record: &Record) -> journal::Record {
    journal::Record { kind: record.kind(), vital: record.vital(), bytes: record.encode() }
}

fn append(journal: &mut Journal, record: &journal::Record) -> Result<Option<Position>, JournalError> {
    let record = std::slice::from_ref(record);
    let positions = match journal.append(record) {
        Err(JournalError::GroupFull { .. }) => {
            journal.sync()?;
            journal.append(record)?
        }
        other => other?,
    };
    Ok(positions.first().copied())
}
