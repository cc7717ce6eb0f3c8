//! Which signatures a peer's message needs, and whether its shape allows them. Rules C1, C2, P2.1.
//!
//! The machine trusts what it is given; whoever drives it asks here first, checks the signatures (on as many threads as it
//! likes), and passes on what holds.

use tally_types::{Certificate, Epoch, Hash, ValidatorSet, View, signature::SignatureCheck, vote::Ballot};

use crate::event::{FetchedBlock, Message, Reject};

/// The epochs whose messages can be judged: validators, and the seed of the leader choice.
#[derive(Clone, Debug, Default)]
pub struct Sets(pub Vec<(Epoch, ValidatorSet, Hash)>);

/// What to do with a message.
#[derive(Debug)]
pub enum Judgement {
    /// Pass it on if all of these hold.
    Check(Vec<SignatureCheck>),
    /// Its epoch is above those known: pass on [`crate::Event::Ahead`] instead.
    Ahead,
    /// Of an epoch that is over.
    Over,
    /// It breaks a rule of its shape.
    Drop(Reject),
}

impl Sets {
    /// Validators and seed of `epoch`.
    pub fn get(&self, epoch: Epoch) -> Option<(&ValidatorSet, &Hash)> {
        self.0.iter().find(|(known, _, _)| *known == epoch).map(|(_, set, seed)| (set, seed))
    }

    fn unknown(&self, epoch: Epoch) -> Judgement {
        if self.0.iter().all(|(known, _, _)| *known < epoch) { Judgement::Ahead } else { Judgement::Over }
    }

    /// What `message`, of the chain of `genesis`, needs to be believed.
    pub fn judge(&self, genesis: &Hash, message: &Message) -> Judgement {
        let mut checks = Vec::new();
        match self.collect(genesis, message, &mut checks) {
            Ok(()) => Judgement::Check(checks),
            Err(judgement) => judgement,
        }
    }

    fn collect(&self, genesis: &Hash, message: &Message, checks: &mut Vec<SignatureCheck>) -> Result<(), Judgement> {
        match message {
            Message::Proposal(proposal) => {
                let (epoch, view) = (proposal.epoch, proposal.view);
                let (set, seed) = self.set(epoch)?;
                let leader = set.leader(seed, epoch, view);
                // What is kept of a leader's header stays small, whatever becomes of it.
                if proposal.header.epoch != epoch || proposal.header.cut.len() != set.len() {
                    return Err(Judgement::Drop(Reject::Shape));
                }
                // Rule P2.1: by the leader of its view, over the very J that came along.
                self.push(set, leader, proposal.signed_bytes(genesis), proposal.signature, checks)?;
                for certificate in proposal.justification.iter().chain(&proposal.highest_commit) {
                    self.certificate(genesis, certificate, checks)?;
                }
                Ok(())
            }
            Message::Vote(vote) => {
                let (set, _) = self.set(vote.epoch)?;
                let bytes = vote.ballot().signed_bytes(genesis, vote.epoch);
                self.push(set, vote.signer, bytes, vote.signature, checks)
            }
            Message::ViewChange(change) => {
                let (set, _) = self.set(change.epoch)?;
                let named = match &change.highest {
                    None => change.highest_view == View::ZERO,
                    Some(highest) => {
                        highest.view == change.highest_view
                            && highest.epoch == change.epoch
                            && highest.proves_prepared()
                            && highest.view > View::ZERO
                    }
                };
                if !named || change.highest_view >= change.view {
                    return Err(Judgement::Drop(Reject::Shape));
                }
                let ballot = Ballot::ViewChange(change.view, change.highest_view);
                self.push(set, change.signer, ballot.signed_bytes(genesis, change.epoch), change.signature, checks)?;
                change.highest.iter().try_for_each(|highest| self.certificate(genesis, highest, checks))
            }
            Message::Batch(signed) => {
                let (set, _) = self.set(signed.batch.epoch())?;
                let lane = signed.batch.lane();
                let member = set.get(lane).ok_or(Judgement::Drop(Reject::Stranger))?;
                let bytes = signed.batch.signed_bytes(genesis, &member.address);
                self.push(set, lane, bytes, signed.signature, checks)
            }
            Message::Have(have) => {
                let (set, _) = self.set(have.vector.epoch)?;
                if have.vector.tips.len() != set.len() {
                    return Err(Judgement::Drop(Reject::Shape));
                }
                self.push(set, have.signer, have.signed_bytes(genesis), have.signature, checks)
            }
            Message::Certificates { entry, highest_commit } => {
                entry.iter().chain(highest_commit).try_for_each(|one| self.certificate(genesis, one, checks))
            }
        }
    }

    /// What the commit certificates of a fetched range need. Blocks of epochs not known yet are cut off.
    pub fn judge_blocks(&self, genesis: &Hash, blocks: &mut Vec<FetchedBlock>) -> Judgement {
        let known = blocks.iter().take_while(|block| self.get(block.header.epoch).is_some()).count();
        blocks.truncate(known);
        let mut checks = Vec::new();
        for certificate in blocks.iter().filter_map(|block| block.commit.as_ref()) {
            if let Err(judgement) = self.certificate(genesis, certificate, &mut checks) {
                return judgement;
            }
        }
        Judgement::Check(checks)
    }

    fn set(&self, epoch: Epoch) -> Result<(&ValidatorSet, &Hash), Judgement> {
        self.get(epoch).ok_or_else(|| self.unknown(epoch))
    }

    fn push(
        &self,
        set: &ValidatorSet,
        signer: u32,
        bytes: tally_types::SignedBytes,
        signature: tally_types::Signature,
        checks: &mut Vec<SignatureCheck>,
    ) -> Result<(), Judgement> {
        let member = set.get(signer).ok_or(Judgement::Drop(Reject::Stranger))?;
        checks.push(SignatureCheck { key: member.key, bytes, signature });
        Ok(())
    }

    fn certificate(
        &self,
        genesis: &Hash,
        certificate: &Certificate,
        checks: &mut Vec<SignatureCheck>,
    ) -> Result<(), Judgement> {
        let (set, _) = self.set(certificate.epoch)?;
        certificate.collect_checks(genesis, set, checks).map_err(|_| Judgement::Drop(Reject::Forged))
    }
}
