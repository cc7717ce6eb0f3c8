//! Votes kept per signer, within the bounds of rule V5.

use std::collections::BTreeMap;

use tally_types::{Hash, Signature, Stake, ValidatorSet, View};

/// Votes of one kind: for every signer, at most one per view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Votes {
    /// By rising view.
    by_signer: BTreeMap<u32, Vec<Cast>>,
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Cast {
    view: View,
    block: Hash,
    signature: Signature,
}

fn cast_in(own: &[Cast], view: View) -> Option<&Cast> {
    own.binary_search_by_key(&view, |cast| cast.view).ok().and_then(|place| own.get(place))
}

/// What became of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is new.
    New,
    /// It was here already.
    Known,
    /// The signer voted otherwise in that view before, with this signature.
    Contradicts(Hash, Signature),
}

impl Votes {
    /// Keeps a vote. A signer keeps its newest `most` views only, so a flood of far views displaces nobody else's votes.
    pub fn insert(&mut self, signer: u32, view: View, block: Hash, signature: Signature, most: usize) -> Kept {
        let own = self.by_signer.entry(signer).or_default();
        match cast_in(own, view) {
            Some(known) if known.block == block => return Kept::Known,
            Some(known) => return Kept::Contradicts(known.block, known.signature),
            None => {}
        }
        let place = own.partition_point(|cast| cast.view < view);
        own.insert(place, Cast { view, block, signature });
        let over = own.len().saturating_sub(most);
        own.drain(..over);
        Kept::New
    }

    /// The views `signer` voted in, with the votes.
    pub fn of(&self, signer: u32) -> impl Iterator<Item = (View, Hash, Signature)> + '_ {
        let own = self.by_signer.get(&signer).into_iter().flatten();
        own.map(|cast| (cast.view, cast.block, cast.signature))
    }

    fn for_block(&self, view: View, block: Hash) -> impl Iterator<Item = (u32, Signature)> + '_ {
        self.by_signer.iter().filter_map(move |(signer, own)| {
            cast_in(own, view).filter(|cast| cast.block == block).map(|cast| (*signer, cast.signature))
        })
    }

    /// The votes for `block` in `view`, by signer, if their stake is a quorum.
    pub fn quorum(&self, set: &ValidatorSet, view: View, block: Hash) -> Option<Vec<(u32, Signature)>> {
        (self.stake(set, view, block) >= set.quorum()).then(|| self.for_block(view, block).collect())
    }

    /// Stake of those who voted for `block` in `view`.
    pub fn stake(&self, set: &ValidatorSet, view: View, block: Hash) -> Stake {
        set.stake_of(self.for_block(view, block).map(|(signer, _)| signer))
    }

    /// Forgets all views below `view`.
    pub fn drop_below(&mut self, view: View) {
        self.by_signer.retain(|_, own| {
            own.retain(|cast| cast.view >= view);
            !own.is_empty()
        });
    }

    /// How many votes are kept.
    pub fn len(&self) -> usize {
        self.by_signer.values().map(Vec::len).sum()
    }
}
