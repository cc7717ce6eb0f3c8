//! Votes kept per signer, within the bounds of rule V5.

use std::collections::BTreeMap;

use tally_types::{Hash, Signature, Stake, ValidatorSet, View};

/// Votes of one kind: for every signer, at most one per view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Votes {
    by_signer: BTreeMap<u32, BTreeMap<View, (Hash, Signature)>>,
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
        match own.get(&view) {
            Some((known, _)) if *known == block => return Kept::Known,
            Some((known, signature)) => return Kept::Contradicts(*known, *signature),
            None => {}
        }
        own.insert(view, (block, signature));
        while own.len() > most {
            own.pop_first();
        }
        Kept::New
    }

    /// The views `signer` voted in, with the votes.
    pub fn of(&self, signer: u32) -> impl Iterator<Item = (View, Hash, Signature)> + '_ {
        let own = self.by_signer.get(&signer).into_iter().flatten();
        own.map(|(view, (block, signature))| (*view, *block, *signature))
    }

    /// The votes for `block` in `view`, by signer, if their stake is a quorum.
    pub fn quorum(&self, set: &ValidatorSet, view: View, block: Hash) -> Option<Vec<(u32, Signature)>> {
        let votes: Vec<_> = self
            .by_signer
            .iter()
            .filter_map(|(signer, own)| {
                own.get(&view).filter(|(voted, _)| *voted == block).map(|(_, signature)| (*signer, *signature))
            })
            .collect();
        let stake = set.stake_of(votes.iter().map(|(signer, _)| *signer));
        (stake >= set.quorum()).then_some(votes)
    }

    /// Stake of those who voted for `block` in `view`.
    pub fn stake(&self, set: &ValidatorSet, view: View, block: Hash) -> Stake {
        let voted = |own: &BTreeMap<View, (Hash, Signature)>| own.get(&view).is_some_and(|(voted, _)| *voted == block);
        set.stake_of(self.by_signer.iter().filter(|(_, own)| voted(own)).map(|(signer, _)| *signer))
    }

    /// Forgets all views below `view`.
    pub fn drop_below(&mut self, view: View) {
        for own in self.by_signer.values_mut() {
            *own = own.split_off(&view);
        }
        self.by_signer.retain(|_, own| !own.is_empty());
    }

    /// How many votes are kept.
    pub fn len(&self) -> usize {
        self.by_signer.values().map(BTreeMap::len).sum()
    }
}
