//! It justifies its proposals with old certificates, and hands out forged ones.

use std::sync::Arc;

use tally_consensus::Message;
use tally_types::{Certificate, Hash, View, VoteKind, certificate::CertificateSignature, vote::Ballot};

use super::{Behaviour, Scene};

const KEPT: usize = 32;

#[derive(Default)]
pub struct StaleCertificates {
    seen: Vec<Arc<Certificate>>,
}

impl Behaviour for StaleCertificates {
    fn on_receive(&mut self, _scene: &mut Scene<'_>, _from: usize, message: &Message) {
        let found: Vec<_> = match message {
            Message::Proposal(proposal) => proposal.justification.iter().chain(&proposal.highest_commit).collect(),
            Message::Certificates { entry, highest_commit } => entry.iter().chain(highest_commit).collect(),
            Message::ViewChange(change) => change.highest.iter().collect(),
            _ => Vec::new(),
        };
        for certificate in found {
            if self.seen.len() >= KEPT {
                self.seen.remove(0);
            }
            self.seen.push(certificate.clone());
        }
    }

    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        match message {
            Message::Proposal(proposal) if !self.seen.is_empty() && scene.rng.percent(70) => {
                let stale = self.seen[scene.rng.index(self.seen.len())].clone();
                let stale = scene.propose(proposal, proposal.header.clone(), Some(stale));
                scene.say(to, stale);
            }
            _ => scene.say(to, message.clone()),
        }
    }

    fn on_time(&mut self, scene: &mut Scene<'_>) {
        if self.seen.is_empty() || !scene.rng.percent(30) {
            return;
        }
        let mut certificate = Certificate::clone(&self.seen[scene.rng.index(self.seen.len())]);
        match scene.rng.below(10) {
            0 => {}
            1 => certificate.view = View(certificate.view.0 + 1),
            2 => certificate.block = Hash::of(b"mine"),
            3 => {
                certificate.signatures.pop();
            }
            4 => certificate.signatures.truncate(1),
            5 => {
                // Another liar may have left none.
                if let Some(first) = certificate.signatures.first().cloned() {
                    certificate.signatures.insert(0, first);
                }
            }
            6 => certificate.kind = VoteKind::Commit,
            7 => certificate.epoch = certificate.epoch.next(),
            // It alone, as often as a quorum has members.
            8 => {
                let ballot = Ballot::Commit(certificate.view, certificate.block);
                if let Message::Vote(vote) = scene.sign_ballot(certificate.epoch, ballot, None) {
                    let own = CertificateSignature {
                        signer: vote.signer,
                        highest_view: View::ZERO,
                        signature: vote.signature,
                    };
                    certificate.kind = VoteKind::Commit;
                    certificate.highest = None;
                    certificate.signatures.iter_mut().for_each(|part| *part = own.clone());
                }
            }
            _ => certificate.highest = None,
        }
        let certificate = Some(Arc::new(certificate));
        let (entry, highest_commit) = match scene.rng.below(2) {
            0 => (certificate, None),
            _ => (None, certificate),
        };
        scene.say(None, Message::Certificates { entry, highest_commit });
    }
}
