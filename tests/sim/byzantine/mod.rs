//! Validators that cheat: one behaviour per file.
//!
//! A Byzantine validator runs the production machine and twists what it says. It may sign anything with its own key and
//! nothing with another's. What convicts it is named, and scenarios assert that it is convicted.

mod amnesia;
mod censor;
mod double_commit;
mod double_prepare;
mod double_view_change;
mod drip;
mod eager_voter;
mod equivocating_leader;
mod every_trick;
mod false_answers;
mod false_have;
mod far_views;
mod forged_batch;
mod forgotten_disk;
mod invalid_block;
mod lane_equivocation;
mod lax_admission;
mod phantom_tip;
mod relayed_justification;
mod replay;
mod selective_sending;
mod silence;
mod stale_certificates;
mod strip;
mod withheld_batch;
mod withheld_commit;
mod wrong_root;

use std::sync::Arc;

use tally_consensus::{EvidenceKind, Fetch, Machine, Message, Status, Unsigned};
use tally_types::{Certificate, Genesis, Header, Proposal, ValidatorSet, header::HeaderFields, vote::Ballot};

use crate::{
    keys::{Keys, Signer},
    network::Answer,
    rng::Rng,
};

/// How a validator cheats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    EquivocatingLeader,
    DoublePrepare,
    DoubleCommit,
    DoubleViewChange,
    EagerVoter,
    WithheldBatch,
    WithheldCommit,
    FalseAnswers,
    FalseHave,
    InvalidBlock,
    WrongRoot,
    StaleCertificates,
    RelayedJustification,
    LaneEquivocation,
    ForgedBatch,
    Amnesia,
    ForgottenDisk,
    Silence,
    SelectiveSending,
    FarViews,
    Replay,
    EveryTrick,
    PhantomTip,
    Drip,
    Strip,
    LaxAdmission,
    Censor,
    /// Two honest machines with one key, each with its own journal.
    Twins,
}

impl Kind {
    /// Those whose misdeeds add up when several act in one world: two blocks in a view, and votes for both.
    pub const CONSPIRATORS: [Kind; 5] =
        [Kind::EquivocatingLeader, Kind::EagerVoter, Kind::Amnesia, Kind::EveryTrick, Kind::Twins];

    pub const ALL: [Kind; 28] = [
        Kind::EquivocatingLeader,
        Kind::DoublePrepare,
        Kind::DoubleCommit,
        Kind::DoubleViewChange,
        Kind::EagerVoter,
        Kind::WithheldBatch,
        Kind::WithheldCommit,
        Kind::FalseAnswers,
        Kind::FalseHave,
        Kind::InvalidBlock,
        Kind::WrongRoot,
        Kind::StaleCertificates,
        Kind::RelayedJustification,
        Kind::LaneEquivocation,
        Kind::ForgedBatch,
        Kind::Amnesia,
        Kind::ForgottenDisk,
        Kind::Silence,
        Kind::SelectiveSending,
        Kind::FarViews,
        Kind::Replay,
        Kind::EveryTrick,
        Kind::PhantomTip,
        Kind::Drip,
        Kind::Strip,
        Kind::LaxAdmission,
        Kind::Censor,
        Kind::Twins,
    ];

    pub fn behaviour(self) -> Option<Box<dyn Behaviour>> {
        Some(match self {
            Kind::EquivocatingLeader => Box::new(equivocating_leader::EquivocatingLeader),
            Kind::DoublePrepare => Box::new(double_prepare::DoublePrepare),
            Kind::DoubleCommit => Box::new(double_commit::DoubleCommit),
            Kind::DoubleViewChange => Box::new(double_view_change::DoubleViewChange),
            Kind::EagerVoter => Box::<eager_voter::EagerVoter>::default(),
            Kind::WithheldBatch => Box::<withheld_batch::WithheldBatch>::default(),
            Kind::WithheldCommit => Box::<withheld_commit::WithheldCommit>::default(),
            Kind::FalseAnswers => Box::new(false_answers::FalseAnswers),
            Kind::FalseHave => Box::new(false_have::FalseHave),
            Kind::InvalidBlock => Box::new(invalid_block::InvalidBlock),
            Kind::WrongRoot => Box::new(wrong_root::WrongRoot),
            Kind::StaleCertificates => Box::<stale_certificates::StaleCertificates>::default(),
            Kind::RelayedJustification => Box::<relayed_justification::RelayedJustification>::default(),
            Kind::LaneEquivocation => Box::new(lane_equivocation::LaneEquivocation),
            Kind::ForgedBatch => Box::new(forged_batch::ForgedBatch),
            Kind::Amnesia => Box::new(amnesia::Amnesia),
            Kind::ForgottenDisk => Box::new(forgotten_disk::ForgottenDisk),
            Kind::Silence => Box::<silence::Silence>::default(),
            Kind::SelectiveSending => Box::<selective_sending::SelectiveSending>::default(),
            Kind::FarViews => Box::new(far_views::FarViews),
            Kind::Replay => Box::<replay::Replay>::default(),
            Kind::EveryTrick => Box::<every_trick::EveryTrick>::default(),
            Kind::PhantomTip => Box::<phantom_tip::PhantomTip>::default(),
            Kind::Drip => Box::<drip::Drip>::default(),
            Kind::Strip => Box::<strip::Strip>::default(),
            Kind::LaxAdmission => Box::new(lax_admission::LaxAdmission),
            Kind::Censor => Box::<censor::Censor>::default(),
            Kind::Twins => return None,
        })
    }

    /// What honest validators that hear all of it must convict it of, in a network that loses nothing.
    pub fn convicted_of(self) -> &'static [EvidenceKind] {
        match self {
            Kind::EquivocatingLeader => &[EvidenceKind::DoubleProposal],
            Kind::DoublePrepare => &[EvidenceKind::DoublePrepare],
            Kind::DoubleCommit => &[EvidenceKind::DoubleCommit],
            Kind::DoubleViewChange => &[EvidenceKind::DoubleViewChange],
            Kind::LaneEquivocation => &[EvidenceKind::DoubleBatch],
            Kind::Amnesia => &[EvidenceKind::HiddenCommit],
            Kind::EveryTrick => &[EvidenceKind::DoubleProposal, EvidenceKind::HiddenCommit],
            Kind::Twins => &[EvidenceKind::DoubleProposal, EvidenceKind::DoubleBatch],
            _ => &[],
        }
    }

    /// Whether it does something with its lane, or what is in it, only.
    pub fn needs_load(self) -> bool {
        matches!(
            self,
            Kind::WithheldBatch
                | Kind::FalseHave
                | Kind::LaneEquivocation
                | Kind::ForgedBatch
                | Kind::Drip
                | Kind::Strip
                | Kind::LaxAdmission
                | Kind::Censor
                | Kind::PhantomTip
        )
    }

    /// Whether honest validators may find a leader's roots to differ from theirs.
    pub fn names_wrong_roots(self) -> bool {
        matches!(self, Kind::WrongRoot | Kind::InvalidBlock)
    }
}

/// What a Byzantine validator does with what its machine wants to say. Unless it says otherwise, it is honest.
pub trait Behaviour {
    /// The machine speaks, to one validator or (none) to all.
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        scene.say(to, message.clone());
    }

    /// Whether its own machine counts what it says.
    fn hears_itself(&mut self, _message: &Message) -> bool {
        true
    }

    /// Something arrived; the machine gets it as well.
    fn on_receive(&mut self, _scene: &mut Scene<'_>, _from: usize, _message: &Message) {}

    /// Time passed.
    fn on_time(&mut self, _scene: &mut Scene<'_>) {}

    /// Whether it answers what others ask for.
    fn answers(&mut self, _fetch: &Fetch) -> bool {
        true
    }

    /// What it answers instead.
    fn on_answer(&mut self, _scene: &mut Scene<'_>, answer: Answer) -> Answer {
        answer
    }

    /// Whether it loses its disk with every crash.
    fn forgets(&self) -> bool {
        false
    }
}

/// Where a behaviour acts: what it knows, and what it says.
pub struct Scene<'a> {
    /// Its place.
    pub me: usize,
    pub genesis: &'a Genesis,
    pub machine: Option<&'a Machine>,
    pub rng: &'a mut Rng,
    pub keys: &'a Keys,
    pub signer: &'a Signer,
    /// To a validator, or (none) to all.
    pub said: Vec<(Option<usize>, Message)>,
}

impl Scene<'_> {
    pub fn say(&mut self, to: Option<usize>, message: Message) {
        self.said.push((to, message));
    }

    pub fn status(&self) -> Option<Status> {
        self.machine.map(Machine::status)
    }

    pub fn validators(&self) -> &ValidatorSet {
        &self.genesis.validators
    }

    /// Everybody else.
    pub fn others(&self) -> Vec<usize> {
        (0..self.validators().len()).filter(|other| *other != self.me).collect()
    }

    /// Signs with its own key, whatever it signed before.
    pub fn sign(&self, unsigned: Unsigned) -> Message {
        self.keys.message(self.signer, unsigned)
    }

    pub fn sign_ballot(&self, epoch: tally_types::Epoch, ballot: Ballot, highest: Option<Arc<Certificate>>) -> Message {
        self.sign(Unsigned::Ballot { epoch, signer: self.me as u32, ballot, highest })
    }

    /// The proposal with another header, or another justification.
    pub fn propose(&self, like: &Proposal, header: Header, justification: Option<Arc<Certificate>>) -> Message {
        self.sign(Unsigned::Proposal {
            epoch: like.epoch,
            view: like.view,
            header,
            justification,
            highest_commit: like.highest_commit.clone(),
        })
    }

    /// One message for each of the others: the first for some, the second for others, both for the rest.
    pub fn say_by_halves(&mut self, first: &Message, second: &Message) {
        for to in self.others() {
            let draw = self.rng.below(3);
            if draw != 1 {
                self.say(Some(to), first.clone());
            }
            if draw != 0 {
                self.say(Some(to), second.clone());
            }
        }
    }
}

/// `header` with some fields changed.
pub fn changed(header: &Header, change: impl FnOnce(&mut HeaderFields)) -> Header {
    let mut fields = header.fields().clone();
    change(&mut fields);
    Header::new(fields)
}
