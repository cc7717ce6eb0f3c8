//! Certificates: votes of a quorum of stake for one thing. PrepareQC, CommitQC and TC share this one shape.

use std::sync::Arc;

use bytes::BytesMut;
use prost::Message as _;
use tally_proto::consensus as proto;
use thiserror::Error;

use crate::{
    hash::Hash,
    header::bytes_of,
    number::{Epoch, Stake, View},
    signature::{Signature, SignatureCheck},
    validators::ValidatorSet,
    vote::{Ballot, MessageError, VoteKind, kind_from_proto, kind_to_proto, signature_of},
};

/// Votes of a quorum for one thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// What the votes say.
    pub kind: VoteKind,
    /// Epoch.
    pub epoch: Epoch,
    /// View.
    pub view: View,
    /// Header hash; [`Hash::ZERO`] in a view-change certificate.
    pub block: Hash,
    /// By rising place of the signer.
    pub signatures: Vec<CertificateSignature>,
    /// View-change certificates: the prepare or commit certificate of the highest view any signer names.
    pub highest: Option<Arc<Certificate>>,
}

/// One validator's part of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateSignature {
    /// Place of the signer.
    pub signer: u32,
    /// View-change certificates: the signer's h.
    pub highest_view: View,
    /// Its signature.
    pub signature: Signature,
}

/// Why a certificate does not verify, whatever its signatures say. Rules C1 and C2.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CertificateError {
    /// A signer twice, or not in rising order.
    #[error("the signers do not stand in rising order")]
    Order,
    /// No member of the set.
    #[error("a signer is no validator of that epoch")]
    Stranger,
    /// Too little stake.
    #[error("the signers hold {got} of stake, a quorum is {quorum}")]
    Quorum {
        /// Their stake.
        got: Stake,
        /// What is needed.
        quorum: Stake,
    },
    /// View 0 does not exist.
    #[error("a certificate for view 0")]
    ViewZero,
    /// A prepare or commit certificate with parts of a view-change certificate, or the reverse.
    #[error("a field of another kind of certificate is set")]
    Shape,
    /// A signer's h is not below the view given up.
    #[error("a signer names a view that is not below the one given up")]
    HighestView,
    /// The attached certificate is not of the highest view named, or missing, or of another epoch.
    #[error("the attached certificate is not the one the signers name")]
    Highest,
    /// A signature does not hold.
    #[error("a signature does not hold")]
    Signature,
}

impl Certificate {
    /// Whether this proves a prepare certificate of its view (a commit certificate proves that one exists).
    pub fn proves_prepared(&self) -> bool {
        matches!(self.kind, VoteKind::Prepare | VoteKind::Commit)
    }

    /// The places of its signers.
    pub fn signers(&self) -> impl Iterator<Item = u32> + '_ {
        self.signatures.iter().map(|signature| signature.signer)
    }

    /// Checks all that needs no cryptography and returns the signatures left to check, those of an attached certificate
    /// included. Rules C1 and C2. `set` is the validator set of [`Certificate::epoch`].
    pub fn checks(&self, genesis: &Hash, set: &ValidatorSet) -> Result<Vec<SignatureCheck>, CertificateError> {
        let mut checks = Vec::new();
        self.collect_checks(genesis, set, &mut checks)?;
        Ok(checks)
    }

    /// The whole verdict, signatures included.
    pub fn verify(&self, genesis: &Hash, set: &ValidatorSet) -> Result<(), CertificateError> {
        let checks = self.checks(genesis, set)?;
        if crate::signature::all_hold(&checks) { Ok(()) } else { Err(CertificateError::Signature) }
    }

    /// As [`Certificate::checks`], adding them to others.
    pub fn collect_checks(
        &self,
        genesis: &Hash,
        set: &ValidatorSet,
        checks: &mut Vec<SignatureCheck>,
    ) -> Result<(), CertificateError> {
        if self.view == View::ZERO {
            return Err(CertificateError::ViewZero);
        }
        checks.reserve(self.signatures.len());
        // Of a block all sign the same.
        let of_block = match self.kind {
            VoteKind::Prepare => Some(Ballot::Prepare(self.view, self.block)),
            VoteKind::Commit => Some(Ballot::Commit(self.view, self.block)),
            VoteKind::ViewChange => None,
        };
        let of_block = of_block.map(|ballot| ballot.signed_bytes(genesis, self.epoch));
        let mut last = None;
        let mut highest_view = View::ZERO;
        for part in &self.signatures {
            // Rule C1: rising order makes the signers distinct.
            if last.is_some_and(|last| part.signer <= last) {
                return Err(CertificateError::Order);
            }
            last = Some(part.signer);
            let member = set.get(part.signer).ok_or(CertificateError::Stranger)?;
            // Rule C2: every h is below v.
            if part.highest_view >= self.view {
                return Err(CertificateError::HighestView);
            }
            highest_view = highest_view.max(part.highest_view);
            let bytes = of_block
                .clone()
                .unwrap_or_else(|| Ballot::ViewChange(self.view, part.highest_view).signed_bytes(genesis, self.epoch));
            checks.push(SignatureCheck { key: member.key, bytes, signature: part.signature });
        }
        let (got, quorum) = (set.stake_of(self.signers()), set.quorum());
        if got < quorum {
            return Err(CertificateError::Quorum { got, quorum });
        }
        match (self.kind, &self.highest) {
            (VoteKind::Prepare | VoteKind::Commit, None) => match highest_view == View::ZERO {
                true => Ok(()),
                false => Err(CertificateError::Shape),
            },
            (VoteKind::Prepare | VoteKind::Commit, Some(_)) => Err(CertificateError::Shape),
            (VoteKind::ViewChange, _) if !self.block.is_zero() => Err(CertificateError::Shape),
            (VoteKind::ViewChange, None) => match highest_view == View::ZERO {
                true => Ok(()),
                false => Err(CertificateError::Highest),
            },
            (VoteKind::ViewChange, Some(highest)) => {
                // Rule C2: exactly the highest view any signer names, in the same epoch.
                if highest.view != highest_view || highest.epoch != self.epoch || !highest.proves_prepared() {
                    return Err(CertificateError::Highest);
                }
                // One level deep only: an attached certificate has none of its own.
                highest.collect_checks(genesis, set, checks)
            }
        }
    }

    /// The message that travels.
    pub fn to_proto(&self) -> proto::Certificate {
        // One buffer for all.
        let mut rest = BytesMut::with_capacity(self.signatures.len().saturating_mul(64));
        self.signatures.iter().for_each(|part| rest.extend_from_slice(&part.signature.0));
        let mut rest = rest.freeze();
        proto::Certificate {
            kind: kind_to_proto(self.kind).into(),
            epoch: self.epoch.0,
            view: self.view.0,
            block_hash: if self.block.is_zero() { Default::default() } else { bytes_of(&self.block) },
            signatures: self
                .signatures
                .iter()
                .map(|part| proto::CertificateSignature {
                    signer: part.signer,
                    highest_view: part.highest_view.0,
                    signature: rest.split_to(part.signature.0.len()),
                })
                .collect(),
            highest: self.highest.as_ref().map(|highest| Box::new(highest.to_proto())),
        }
    }

    /// Reads what travelled.
    pub fn from_proto(message: &proto::Certificate) -> Result<Certificate, MessageError> {
        if message.signatures.len() > crate::validators::VALIDATORS_MAX {
            return Err(MessageError("certificate: too many signatures"));
        }
        if message.highest.as_ref().is_some_and(|highest| highest.highest.is_some()) {
            return Err(MessageError("certificate: nested too deep"));
        }
        let signatures = message.signatures.iter().map(|part| {
            Ok(CertificateSignature {
                signer: part.signer,
                highest_view: View(part.highest_view),
                signature: signature_of(&part.signature)?,
            })
        });
        Ok(Certificate {
            kind: kind_from_proto(message.kind)?,
            epoch: Epoch(message.epoch),
            view: View(message.view),
            block: match message.block_hash.is_empty() {
                true => Hash::ZERO,
                false => {
                    Hash::from_slice(&message.block_hash).ok_or(MessageError("certificate: block hash not 32 bytes"))?
                }
            },
            signatures: signatures.collect::<Result<_, MessageError>>()?,
            highest: message.highest.as_deref().map(Certificate::from_proto).transpose()?.map(Arc::new),
        })
    }

    /// Serialized.
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// Reads what [`Certificate::encode`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Certificate, MessageError> {
        let message = proto::Certificate::decode(bytes).map_err(|_| MessageError("certificate: not protobuf"))?;
        Certificate::from_proto(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::Address, signature::SecretKey, validators::Validator};

    const EPOCH: Epoch = Epoch(3);

    fn genesis() -> Hash {
        Hash::of(b"genesis")
    }

    fn secret(place: u32) -> SecretKey {
        SecretKey::from_seed(&[place as u8 + 1; 32])
    }

    fn set(stakes: [u64; 4]) -> ValidatorSet {
        let members = (0..4).zip(stakes).map(|(place, stake)| Validator {
            address: Address([place as u8; 32]),
            key: secret(place).public_key(),
            stake: Stake(stake),
        });
        ValidatorSet::new(members.collect()).unwrap()
    }

    fn sign(signer: u32, ballot: Ballot, highest_view: View) -> CertificateSignature {
        let signature = secret(signer).sign(&ballot.signed_bytes(&genesis(), EPOCH));
        CertificateSignature { signer, highest_view, signature }
    }

    fn qc(kind: VoteKind, view: u64, block: Hash, signers: &[u32]) -> Certificate {
        let view = View(view);
        let ballot = if kind == VoteKind::Prepare { Ballot::Prepare(view, block) } else { Ballot::Commit(view, block) };
        let signatures = signers.iter().map(|signer| sign(*signer, ballot, View::ZERO)).collect();
        Certificate { kind, epoch: EPOCH, view, block, signatures, highest: None }
    }

    fn tc(view: u64, signers: &[(u32, u64)], highest: Option<Certificate>) -> Certificate {
        let view = View(view);
        let signatures =
            signers.iter().map(|(signer, h)| sign(*signer, Ballot::ViewChange(view, View(*h)), View(*h))).collect();
        let kind = VoteKind::ViewChange;
        Certificate { kind, epoch: EPOCH, view, block: Hash::ZERO, signatures, highest: highest.map(Arc::new) }
    }

    fn verify(certificate: &Certificate) -> Result<(), CertificateError> {
        certificate.verify(&genesis(), &set([1, 1, 1, 1]))
    }

    #[test]
    fn rule_c1_distinct_members_with_a_quorum_of_stake_signed_exactly_this() {
        let block = Hash::of(b"block");
        let good = qc(VoteKind::Prepare, 5, block, &[0, 2, 3]);
        assert_eq!(verify(&good), Ok(()));
        assert_eq!(verify(&qc(VoteKind::Commit, 5, block, &[0, 1, 2])), Ok(()));
        let quorum = Err(CertificateError::Quorum { got: Stake(2), quorum: Stake(3) });
        assert_eq!(verify(&qc(VoteKind::Prepare, 5, block, &[0, 2])), quorum);
        assert_eq!(verify(&qc(VoteKind::Prepare, 5, block, &[0, 2, 2])), Err(CertificateError::Order));
        assert_eq!(verify(&qc(VoteKind::Prepare, 5, block, &[2, 0, 3])), Err(CertificateError::Order));
        assert_eq!(verify(&qc(VoteKind::Prepare, 5, block, &[0, 2, 4])), Err(CertificateError::Stranger));
        assert_eq!(verify(&qc(VoteKind::Prepare, 0, block, &[0, 2, 3])), Err(CertificateError::ViewZero));
        for change in [
            |c: &mut Certificate| c.kind = VoteKind::Commit,
            |c: &mut Certificate| c.epoch = Epoch(4),
            |c: &mut Certificate| c.view = View(6),
            |c: &mut Certificate| c.block = Hash::ZERO,
            |c: &mut Certificate| c.signatures[1].signer = 1,
        ] {
            let mut changed = good.clone();
            change(&mut changed);
            assert_eq!(verify(&changed), Err(CertificateError::Signature));
        }
        assert_eq!(good.verify(&Hash::of(b"other"), &set([1, 1, 1, 1])), Err(CertificateError::Signature));
        // By stake, not by head: three of four heads are too few here, one head and a half are enough.
        let skewed = set([1, 1, 1, 6]);
        assert!(matches!(
            qc(VoteKind::Prepare, 5, block, &[0, 1, 2]).verify(&genesis(), &skewed),
            Err(CertificateError::Quorum { .. })
        ));
        assert_eq!(qc(VoteKind::Prepare, 5, block, &[0, 3]).verify(&genesis(), &skewed), Ok(()));
    }

    #[test]
    fn rule_c2_the_highest_certificate_is_attached_and_no_other() {
        let block = Hash::of(b"block");
        let prepared = |view| qc(VoteKind::Prepare, view, block, &[0, 1, 2]);
        assert_eq!(verify(&tc(5, &[(0, 0), (1, 0), (2, 0)], None)), Ok(()));
        let named = [(0, 2), (1, 4), (2, 0)];
        assert_eq!(verify(&tc(5, &named, Some(prepared(4)))), Ok(()));
        assert_eq!(verify(&tc(5, &named, Some(qc(VoteKind::Commit, 4, block, &[1, 2, 3])))), Ok(()));
        let highest = Err(CertificateError::Highest);
        assert_eq!(verify(&tc(5, &named, Some(prepared(2)))), highest);
        assert_eq!(verify(&tc(5, &named, None)), highest);
        assert_eq!(verify(&tc(5, &[(0, 0), (1, 0), (2, 0)], Some(prepared(4)))), highest);
        assert_eq!(verify(&tc(5, &named, Some(tc(4, &named, None)))), highest);
        let mut other_epoch = prepared(4);
        other_epoch.epoch = Epoch(2);
        assert_eq!(verify(&tc(5, &named, Some(other_epoch))), highest);
        assert_eq!(verify(&tc(5, &[(0, 0), (1, 5), (2, 0)], None)), Err(CertificateError::HighestView));
        let mut hidden = tc(5, &named, Some(prepared(4)));
        hidden.signatures[1].highest_view = View::ZERO;
        hidden.signatures[0].highest_view = View::ZERO;
        hidden.highest = None;
        assert_eq!(verify(&hidden), Err(CertificateError::Signature));
        let mut forged = prepared(4);
        forged.signatures[0].signature.0[0] ^= 1;
        assert_eq!(verify(&tc(5, &named, Some(forged))), Err(CertificateError::Signature));
        let mut with_block = tc(5, &named, Some(prepared(4)));
        with_block.block = block;
        assert_eq!(verify(&with_block), Err(CertificateError::Shape));
        let mut with_highest = prepared(4);
        with_highest.highest = Some(Arc::new(prepared(2)));
        assert_eq!(verify(&with_highest), Err(CertificateError::Shape));
    }

    #[test]
    fn certificates_are_read_back_and_deep_nests_are_not() {
        let highest = qc(VoteKind::Prepare, 4, Hash::of(b"b"), &[0, 1, 2]);
        let certificate = tc(5, &[(0, 4), (1, 0), (2, 0)], Some(highest));
        assert_eq!(Certificate::parse(&certificate.encode()), Ok(certificate.clone()));
        let nested = tc(6, &[(0, 5)], Some(certificate));
        assert_eq!(Certificate::parse(&nested.encode()), Err(MessageError("certificate: nested too deep")));
    }
}
