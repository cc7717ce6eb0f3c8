//! What a machine asks to have signed. It has no keys: whoever has one turns the request into the message.

use std::sync::Arc;

use bytes::Bytes;
use tally_types::{
    Address, Batch, Certificate, Epoch, Hash, Header, Proposal, Signature, SignedBatch, SignedBytes, View, ViewChange,
    Vote, VoteKind, have::HaveVector, proposal, vote::Ballot,
};

use crate::event::Message;

/// Something to sign, send to all validators, and hand back.
#[derive(Clone, Debug, PartialEq)]
pub enum Unsigned {
    /// PROPOSAL.
    Proposal {
        /// Its epoch.
        epoch: Epoch,
        /// Its view.
        view: View,
        /// The block.
        header: Header,
        /// J.
        justification: Option<Arc<Certificate>>,
        /// Goes along.
        highest_commit: Option<Arc<Certificate>>,
    },
    /// PREPARE, COMMIT or VIEW-CHANGE.
    Ballot {
        /// Its epoch.
        epoch: Epoch,
        /// Place of the signer in that epoch.
        signer: u32,
        /// What is signed.
        ballot: Ballot,
        /// VIEW-CHANGE: the certificate of its h.
        highest: Option<Arc<Certificate>>,
    },
    /// A batch of this replica's lane.
    Batch(Batch),
    /// HAVE.
    Have {
        /// Place of the signer.
        signer: u32,
        /// What is signed.
        vector: HaveVector,
    },
}

impl Unsigned {
    /// The message that `sign` makes of it, for the validator `me` on the chain of `genesis`. The same request makes the
    /// same bytes.
    pub fn signed(self, genesis: &Hash, me: &Address, sign: impl FnOnce(&SignedBytes) -> Signature) -> Message {
        match self {
            Unsigned::Proposal { epoch, view, header, justification, highest_commit } => {
                let justification_bytes = justification.as_ref().map(|one| Bytes::from(one.encode()));
                let justification_bytes = justification_bytes.unwrap_or_default();
                let bytes = proposal::signed_bytes(genesis, epoch, view, &header.hash(), &justification_bytes);
                let signature = sign(&bytes);
                Message::Proposal(Arc::new(Proposal {
                    epoch,
                    view,
                    header,
                    justification,
                    justification_bytes,
                    signature,
                    highest_commit,
                }))
            }
            Unsigned::Ballot { epoch, signer, ballot, highest } => {
                let signature = sign(&ballot.signed_bytes(genesis, epoch));
                match ballot {
                    Ballot::Prepare(view, block) => {
                        Message::Vote(Vote { kind: VoteKind::Prepare, epoch, view, block, signer, signature })
                    }
                    Ballot::Commit(view, block) => {
                        Message::Vote(Vote { kind: VoteKind::Commit, epoch, view, block, signer, signature })
                    }
                    Ballot::ViewChange(view, highest_view) => {
                        Message::ViewChange(ViewChange { epoch, view, highest_view, highest, signer, signature })
                    }
                }
            }
            Unsigned::Batch(batch) => {
                let signature = sign(&batch.signed_bytes(genesis, me));
                Message::Batch(SignedBatch { batch, signature })
            }
            Unsigned::Have { signer, vector } => Message::Have(Arc::new(vector.signed(genesis, signer, sign))),
        }
    }
}
