//! What is checked: stakes, leaders, bounds, and what is wrong on purpose.

use tally_types::{Address, Epoch, PublicKey, Stake, Validator, ValidatorSet, View};

use crate::mutant::Mutant;

/// Validators of every configuration.
pub const VALIDATORS: u32 = 4;

/// How finely the turns of a replica are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// A step ends when something is sent or lost: what a replica takes in is put off until just before. Sound for
    /// safety: taking in a certificate is visible to nobody, and what can be taken in now can be taken in later, because
    /// messages once sent stay deliverable.
    Sends,
    /// Every certificate taken in is a step of its own. For liveness, where the state between matters.
    Receipts,
}

/// One configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Stake by place.
    pub stakes: [u64; VALIDATORS as usize],
    /// Place of the Byzantine validator.
    pub byzantine: u32,
    /// Leader's place, by epoch and view; views past these are led in turn.
    pub leaders: &'static [&'static [u32]],
    /// By epoch: the highest view in which anything is signed. Epochs past these are not entered.
    pub views: &'static [u64],
    /// Heights of an epoch.
    pub epoch_blocks: u64,
    /// Crashes of all honest validators together.
    pub crashes: u8,
    /// Whether honest validators prepare different blocks in one view. If not, a Byzantine leader that equivocates is
    /// heard by some and by others not at all. As long as nobody prepares twice in a view, which is a property of one
    /// replica by itself and checked with rivals, that leaves out nothing: only one block of a view can have a quorum, and
    /// to have prepared another is to have abstained.
    pub rivals: bool,
    /// See [`Grain`].
    pub grain: Grain,
    /// From every state, and every state in which any of the replicas also restarted, a commit must be reachable.
    pub liveness: bool,
    /// What is wrong on purpose.
    pub mutant: Option<Mutant>,
}

/// The Byzantine validator of all named configurations leads every view: it may do whatever an honest leader would.
const BYZANTINE_LEADS: &[&[u32]] = &[&[0, 0, 0], &[0, 0, 0]];

/// Names of the configurations, with what each is for.
pub const NAMES: &[(&str, &str)] = &[
    ("equal", "stakes 1,1,1,1; 3 views, all led by the Byzantine validator; one crash"),
    ("weighted", "the same with stakes 2,2,2,1, of which the Byzantine validator holds 2"),
    (
        "equal-one",
        "as equal, but honest validators that prepare in one view prepare one block: small enough to exhaust",
    ),
    ("weighted-one", "as weighted, with the same reduction"),
    ("equal-fork", "as equal-one, without the crash"),
    ("honest-leaders", "stakes 1,1,1,1; views 1 and 3 led by honest validators, view 2 by the Byzantine; one crash"),
    ("epoch-end", "stakes 1,1,1,1; epoch 0 ends at height 2 within 3 views, epoch 1 has one view; no crash"),
    ("epoch-end-crash", "stakes 2,2,2,1; epoch 0 ends at height 1 within 2 views, epoch 1 has one view; one crash"),
    ("live", "stakes 1,1,1,1; 2 views, every receipt a step; from every state a commit is reachable"),
    ("live-weighted", "the same with stakes 2,2,2,1, of which the Byzantine validator holds 2, and one crash"),
    ("live-three-views", "as live-weighted, with 3 views"),
    ("live-epoch-end", "as live, over an epoch's end at height 1 and one view of epoch 1"),
];

impl Config {
    /// The configuration of that name.
    pub fn named(name: &str) -> Option<Config> {
        let equal = Config {
            stakes: [1, 1, 1, 1],
            byzantine: 0,
            leaders: BYZANTINE_LEADS,
            views: &[3],
            epoch_blocks: u64::MAX,
            crashes: 1,
            rivals: true,
            grain: Grain::Sends,
            liveness: false,
            mutant: None,
        };
        let live = Config { views: &[2], crashes: 0, grain: Grain::Receipts, liveness: true, ..equal.clone() };
        Some(match name {
            "equal" => equal,
            "equal-one" => Config { rivals: false, ..equal },
            "weighted-one" => Config { stakes: [2, 2, 2, 1], rivals: false, ..equal },
            "equal-fork" => Config { rivals: false, crashes: 0, ..equal },
            "weighted" => Config { stakes: [2, 2, 2, 1], ..equal },
            "honest-leaders" => Config { leaders: &[&[1, 0, 2]], ..equal },
            "epoch-end" => Config { views: &[3, 1], epoch_blocks: 2, crashes: 0, ..equal },
            "epoch-end-crash" => Config { stakes: [2, 2, 2, 1], views: &[2, 1], epoch_blocks: 1, ..equal },
            "live" => live,
            "live-weighted" => Config { stakes: [2, 2, 2, 1], crashes: 1, ..live },
            "live-three-views" => Config { stakes: [2, 2, 2, 1], views: &[3], crashes: 1, ..live },
            "live-epoch-end" => Config { views: &[2, 1], epoch_blocks: 1, ..live },
            _ => return None,
        })
    }

    /// Places of the honest validators.
    pub fn honest(&self) -> [u32; 3] {
        let mut places = (0..VALIDATORS).filter(|place| *place != self.byzantine);
        std::array::from_fn(|_| places.next().expect("three of four are honest"))
    }

    /// The validators of every epoch.
    pub fn set(&self) -> ValidatorSet {
        let members = (0u8..).zip(self.stakes).map(|(name, stake)| Validator {
            address: Address([name; 32]),
            key: PublicKey([name; 32]),
            stake: Stake(stake),
        });
        ValidatorSet::new(members.collect()).expect("four members with stake")
    }

    /// Who leads.
    pub fn leader(&self, epoch: Epoch, view: View) -> u32 {
        let fixed = self.leaders.get(epoch.0 as usize).and_then(|leaders| leaders.get(view.0 as usize - 1));
        fixed.copied().unwrap_or((epoch.0 + view.0) as u32 % VALIDATORS)
    }

    /// The highest view of `epoch` in which anything is signed.
    pub fn last_view(&self, epoch: Epoch) -> View {
        View(self.views.get(epoch.0 as usize).copied().unwrap_or(0))
    }

    /// Height of L_e.
    pub fn last_height(&self, epoch: Epoch) -> u64 {
        self.epoch_blocks.saturating_mul(epoch.0 + 1)
    }

    /// Whether it makes no difference what certificate of its highest view a TC had that let a replica in, once it took that
    /// in as well: the agreement reads its entry certificate only to propose and to show it to others. Then TCs lose it on
    /// the way in, and states that differ in nothing else are one.
    pub fn forgets_entries(&self) -> bool {
        let honest = self.honest();
        let honest_leads = self.leaders.iter().flat_map(|views| views.iter()).any(|leader| honest.contains(leader));
        !honest_leads && !self.liveness
    }

    /// Of each honest validator, the first that is like it: equal stake, and both lead no view in bounds. The model treats
    /// such validators as one: their states may be exchanged.
    pub fn classes(&self) -> [usize; 3] {
        let honest = self.honest();
        let leads = |place: u32| self.leaders.iter().any(|views| views.contains(&place));
        let stake = |place: u32| self.stakes[place as usize];
        std::array::from_fn(|at| {
            let like = |other: &usize| stake(honest[*other]) == stake(honest[at]) && !leads(honest[*other]);
            if leads(honest[at]) { at } else { (0..at).find(like).unwrap_or(at) }
        })
    }
}
