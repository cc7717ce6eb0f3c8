//! A replica that is told anything, and one that starts from what such a one wrote down.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use tally_consensus::{Action, Event, Machine, Now, Record, ReplayError, Voting};
use tally_types::{Hash, UnixMillis, VoteKind};

use crate::{
    chain::short_epochs,
    play::{Play, execution_of, machine},
};

/// Records of one journal that are bent.
const BENT_MAX: usize = 8;

/// How deep the inputs of this process got, in all.
#[derive(Debug, Default)]
pub struct Reached {
    /// Final blocks that were executed.
    pub executed: AtomicU64,
    /// Epochs that were entered.
    pub epochs: AtomicU64,
    /// Journals taken back to the end, as they were written and bent.
    pub whole_journals: AtomicU64,
    pub bent_journals: AtomicU64,
    /// Blocks executed from journals.
    pub executed_again: AtomicU64,
}

/// See [`Reached`].
pub static REACHED: Reached = Reached {
    executed: AtomicU64::new(0),
    epochs: AtomicU64::new(0),
    whole_journals: AtomicU64::new(0),
    bent_journals: AtomicU64::new(0),
    executed_again: AtomicU64::new(0),
};

fn count(what: &AtomicU64, more: u64) {
    what.fetch_add(more, Ordering::Relaxed);
}

/// Whatever the others say, it goes on, and what it keeps stays bounded.
pub fn replica(bytes: &[u8]) {
    let play = Play::of(bytes);
    count(&REACHED.executed, play.executed);
    count(&REACHED.epochs, play.machine.agreement().epoch().0);
}

/// What a journal may hold behind good checksums: what a replica wrote down, whole, and then with some of it missing, doubled,
/// elsewhere or changed. Whole, it leads at least as far as the replica was, which goes on from there and contradicts nothing that it
/// has signed. Bent, it leads somewhere or is refused, and where it led the replica starts.
pub fn replay(bytes: &[u8]) {
    let (bends, decisions) = bytes.split_at(bytes.len().min(4 * BENT_MAX));
    let mut play = Play::of(decisions);
    let mut records = play.records.clone();
    let (again, refused) = taken_back(records.clone());
    // What is executed while a journal is taken back may lead further than it had led. With two commit certificates that contradict
    // each other, which only these liars have, either may come first, and what is built on one does not follow from the other.
    let stands = |machine: &Machine| (machine.agreement().epoch(), machine.agreement().view());
    let is_final = |machine: &Machine| machine.status().final_height;
    let machine = &play.machine;
    let forked = are_forked(&again, machine);
    assert!(!forked || holds_contradiction(&records), "it leads elsewhere, and nothing in it contradicts itself");
    assert!(forked || refused.is_none(), "its own journal is refused: {refused:?}");
    assert!(forked || stands(&again) >= stands(machine), "{:?} after {:?}", stands(&again), stands(machine));
    assert!(forked || is_final(&again) >= is_final(machine), "{:?} after {:?}", is_final(&again), is_final(machine));
    if refused.is_none() {
        play.go_on(again, decisions);
    }
    count(&REACHED.whole_journals, u64::from(refused.is_none()));
    for bend in bends.chunks_exact(4) {
        let Some(at) = usize::from(u16::from_be_bytes([bend[0], bend[1]])).checked_rem(records.len()) else { return };
        match bend[2] % 4 {
            0 => drop(records.remove(at)),
            1 => records.insert(at, records[usize::from(bend[3]) % records.len()].clone()),
            2 => {
                let to = usize::from(bend[3]) % records.len();
                records.swap(at, to);
            }
            _ => {
                let mut content = records[at].encode().to_vec();
                let Some(place) = usize::from(bend[3]).checked_rem(content.len()) else { continue };
                content[place] ^= 1 << (bend[2] >> 5);
                if let Ok(changed) = Record::parse(records[at].kind(), &content) {
                    records[at] = changed;
                }
            }
        }
    }
    let (mut machine, refused) = taken_back(records);
    if refused.is_none() {
        count(&REACHED.bent_journals, 1);
        let unix = UnixMillis(short_epochs().time.0 + 1000);
        machine.resume(Now { mono_ms: 0, unix }, &mut Vec::new());
        for second in 1..20 {
            let now = Now { mono_ms: second * 1000, unix: unix.plus(second * 1000) };
            machine.handle(now, Event::Tick, &mut Vec::new());
        }
    }
}

/// Whether the final block of one does not lie on the other's chain.
fn are_forked(one: &Machine, two: &Machine) -> bool {
    let mut ends = [one, two].map(|machine| (machine, machine.status().final_height, machine.status().final_hash));
    ends.sort_by_key(|(_, height, _)| *height);
    let [(_, height, low), (machine, _, mut at)] = ends;
    while let Some(header) = machine.lookup_header(&at).filter(|header| header.height > height) {
        at = header.parent;
    }
    at != low
}

/// Whether two commit certificates are for blocks neither of which lies on the other's chain.
fn holds_contradiction(records: &[Record]) -> bool {
    let mut parents = BTreeMap::new();
    let mut committed = BTreeSet::new();
    for record in records {
        let certificate = match record {
            Record::Header(header) => {
                parents.insert(header.hash(), header.parent);
                continue;
            }
            Record::Certificate(certificate) => certificate,
            Record::Proposed { justification: Some(certificate), .. } => certificate,
            Record::ViewChanged { highest: Some(certificate), .. } => certificate,
            _ => continue,
        };
        let commits = [Some(certificate), certificate.highest.as_ref()].into_iter().flatten();
        committed.extend(commits.filter(|one| one.kind == VoteKind::Commit).map(|one| one.block));
    }
    let leads_to = |from: &Hash, to: &Hash| {
        std::iter::successors(Some(from), |at| parents.get(at)).take(records.len()).any(|at| at == to)
    };
    committed.iter().any(|one| committed.iter().any(|two| !leads_to(one, two) && !leads_to(two, one)))
}

/// What these records lead to, or where it stood when one was refused.
fn taken_back(records: Vec<Record>) -> (Machine, Option<ReplayError>) {
    let mut machine = machine(Voting::Allowed);
    for record in records {
        let mut out = Vec::new();
        if let Err(refused) = machine.replay(record, &mut out) {
            return (machine, Some(refused));
        }
        execute(&mut machine, out);
    }
    (machine, None)
}

fn execute(machine: &mut Machine, mut out: Vec<Action>) {
    while let Some(action) = out.pop() {
        if let Action::Execute(order) = action {
            count(&REACHED.executed_again, 1);
            let executed = execution_of(order.header.height);
            let validators = short_epochs().validators.clone();
            machine.handle(Now::default(), Event::Executed { executed, validators }, &mut out);
        }
    }
}
