//! What one validator can do next, given what the network can show.

use std::{fmt, sync::Arc};

use tally_types::{Certificate, Hash, VoteKind, vote::Ballot};

use crate::{
    block,
    config::Grain,
    network::Shown,
    validator::{Sent, Validator},
    world::World,
};

/// What happened before the end of a turn, to nobody's sight.
#[derive(Clone, Debug)]
enum Receipt {
    Certificate(Arc<Certificate>),
    LastHeader,
    NextValidators,
}

/// One turn: receipts, and what ends it.
#[derive(Clone, Debug)]
pub struct Turn {
    receipts: Vec<Receipt>,
    /// It ends with these messages.
    pub sent: Vec<Sent>,
    /// It ends with a crash.
    pub crashes: bool,
    /// What the validator becomes.
    pub to: u32,
}

/// All turns of a validator. With [`Grain::Sends`] each ends with a message or a crash, after any receipts in any order;
/// with [`Grain::Receipts`] each is one act.
pub fn turns(world: &World, validator: u32, shown: &Shown) -> Vec<Turn> {
    let mut found = Vec::new();
    let mut reached = vec![(validator, Vec::new())];
    let mut next = 0;
    while let Some((at, receipts)) = reached.get(next).cloned() {
        next += 1;
        ends(world, at, shown, &receipts, &mut found);
        for (receipt, to) in receive(world, at, shown) {
            let receipts: Vec<Receipt> = receipts.iter().cloned().chain([receipt]).collect();
            match world.config().grain {
                Grain::Receipts => found.push(Turn { receipts, sent: Vec::new(), crashes: false, to }),
                Grain::Sends if reached.iter().all(|(known, _)| *known != to) => reached.push((to, receipts)),
                Grain::Sends => {}
            }
        }
    }
    found
}

/// The receipts that change something.
fn receive(world: &World, at: u32, shown: &Shown) -> Vec<(Receipt, u32)> {
    let config = world.config();
    let validator = world.validator(at);
    let me = me(&validator);
    let epoch = validator.live.agreement.epoch();
    let mut found = Vec::new();
    for certificate in shown.certificates.iter().filter(|certificate| certificate.epoch == epoch) {
        found.push((Receipt::Certificate(certificate.clone()), world.taken(at, certificate)));
    }
    let mut finalized = validator.as_ref().clone();
    if finalized.finalize(config) {
        found.push((Receipt::LastHeader, world.number(finalized)));
    }
    let mut entered = validator.as_ref().clone();
    if entered.enter_epoch(config, me) {
        found.push((Receipt::NextValidators, world.number(entered)));
    }
    found.retain(|(_, to)| *to != at);
    found
}

/// What can end a turn.
fn ends(world: &World, at: u32, shown: &Shown, receipts: &[Receipt], found: &mut Vec<Turn>) {
    let config = world.config();
    let validator = world.validator(at);
    let mut end = |crashes: bool, act: &mut dyn FnMut(&mut Validator) -> Vec<Sent>| {
        let mut after = validator.as_ref().clone();
        let mut sent = act(&mut after);
        if config.grain == Grain::Sends && !sent.is_empty() {
            commit_all(world, &mut after, &mut sent);
        }
        let to = world.number(after);
        if !sent.is_empty() || (crashes && to != at) {
            found.push(Turn { receipts: receipts.to_vec(), sent, crashes, to });
        }
    };
    if config.crashes > 0 {
        end(true, &mut |after| {
            after.crash(config);
            Vec::new()
        });
    }
    for (view, block) in validator.live.committable(config) {
        if view <= config.last_view(validator.live.agreement.epoch()) {
            end(false, &mut |after| after.commit(config, view, block));
        }
    }
    if !validator.live.in_bounds(config) {
        return;
    }
    end(false, &mut |after| after.give_up(config));
    end(false, &mut |after| after.propose(config, me(&validator)));
    for block in proposed(world, at, &validator, shown) {
        end(false, &mut |after| after.prepare(config, block));
    }
}

/// COMMITs everything that may be committed. To have sent a COMMIT hinders its sender in nothing, neither now nor later, and
/// what is sent need not arrive: a run in which it is sent later, or never, shows nothing that this one does not.
fn commit_all(world: &World, after: &mut Validator, sent: &mut Vec<Sent>) {
    let config = world.config();
    for (view, block) in after.live.committable(config) {
        if view <= config.last_view(after.live.agreement.epoch()) {
            sent.extend(after.commit(config, view, block));
        }
    }
}

/// The blocks of proposals that this validator finds good in its view.
fn proposed(world: &World, at: u32, validator: &Validator, shown: &Shown) -> Vec<Hash> {
    let config = world.config();
    let agreement = &validator.live.agreement;
    let (epoch, view) = (agreement.epoch(), agreement.view());
    // `Machine::on_proposal` takes in J before anything else. Whoever has not taken it in yet does so in a receipt.
    let is_known = |certificate: &Arc<Certificate>| certificate.epoch != epoch || world.taken(at, certificate) == at;
    let mut blocks = Vec::new();
    if config.leader(epoch, view) == config.byzantine {
        // Two values under every justification that verifies.
        blocks.extend(validator.live.valid_blocks(config, None));
        for justification in shown.certificates.iter().filter(|certificate| is_known(certificate)) {
            blocks.extend(validator.live.valid_blocks(config, Some(justification)));
        }
        blocks.retain(|block| shown.may_prepare(config, epoch, view, block));
    } else {
        for (_, _, block, justification) in shown.proposals.iter().filter(|(e, v, ..)| (*e, *v) == (epoch, view)) {
            let valid = validator.live.valid_blocks(config, justification.as_deref());
            if justification.iter().all(is_known) && valid.contains(block) {
                blocks.push(*block);
            }
        }
    }
    blocks.sort();
    blocks.dedup();
    blocks
}

fn me(validator: &Validator) -> u32 {
    validator.live.agreement.me().expect("every validator of the model is a member")
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receipts = self.receipts.iter().map(|receipt| match receipt {
            Receipt::Certificate(certificate) => format!("takes in {}", name(certificate)),
            Receipt::LastHeader => String::from("has the epoch's last header"),
            Receipt::NextValidators => String::from("enters the next epoch"),
        });
        let crash = self.crashes.then(|| String::from("crashes and restarts"));
        let acts: Vec<String> = receipts.chain(self.sent.iter().map(sends)).chain(crash).collect();
        f.write_str(&acts.join(", "))
    }
}

fn sends(sent: &Sent) -> String {
    match sent {
        Sent::Proposal { view, block, justification, .. } => {
            let by = justification.as_ref().map_or_else(|| String::from("genesis"), |by| name(by));
            format!("sends PROPOSAL({view}, {}) by {by}", block::name(block))
        }
        Sent::Ballot { ballot: Ballot::Prepare(view, block), .. } => {
            format!("sends PREPARE({view}, {})", block::name(block))
        }
        Sent::Ballot { ballot: Ballot::Commit(view, block), .. } => {
            format!("sends COMMIT({view}, {})", block::name(block))
        }
        Sent::Ballot { ballot: Ballot::ViewChange(view, h), .. } => format!("sends VIEW-CHANGE({view}, h={h})"),
    }
}

/// A certificate as a trace shows it.
fn name(certificate: &Certificate) -> String {
    let Certificate { kind, epoch, view, .. } = certificate;
    match (kind, &certificate.highest) {
        (VoteKind::Prepare, _) => format!("PrepareQC(e{epoch} v{view}, {})", block::name(&certificate.block)),
        (VoteKind::Commit, _) => format!("CommitQC(e{epoch} v{view}, {})", block::name(&certificate.block)),
        (VoteKind::ViewChange, None) => format!("TC(e{epoch} v{view})"),
        (VoteKind::ViewChange, Some(highest)) => format!("TC(e{epoch} v{view}) with {}", name(highest)),
    }
}
