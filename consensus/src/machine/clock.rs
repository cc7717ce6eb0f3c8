//! Time: timeouts, silence, sending again, heartbeats. Rules W1, V2, V3, D1, D3.

use tally_types::{Address, Stake, have::HaveVector};

use super::{Machine, Round};
use crate::{
    config::{INACTIVE_VIEWS, TIMEOUT_DOUBLINGS_MAX},
    event::Action,
    record::Record,
    unsigned::Unsigned,
};

impl Machine {
    /// Rule V1: a new view began.
    pub(super) fn enter_view(&mut self) {
        self.count_silence();
        self.round = Round::default();
        self.start_round();
        self.moves = self.moves.wrapping_add(1);
    }

    pub(super) fn start_round(&mut self) {
        self.round.entered_ms = self.now.mono_ms;
        self.round.resend_interval_ms = self.config.resend_ms;
        self.round.resend_at_ms = self.now.mono_ms.saturating_add(self.config.resend_ms);
    }

    /// Rule V2: views in which a quorum was heard count against those that were not.
    fn count_silence(&mut self) {
        let set = self.agreement.set().clone();
        let heard = |address: &Address| Some(*address) == self.config.me || self.round.heard.contains(address);
        let heard_places = set.places().zip(set.members()).filter(|(_, member)| heard(&member.address));
        if set.stake_of(heard_places.map(|(place, _)| place)) < set.quorum() {
            return;
        }
        let missed: Vec<_> = set.members().iter().map(|member| member.address).filter(|a| !heard(a)).collect();
        for address in missed {
            let peer = self.peers.entry(address).or_default();
            peer.missed_views = peer.missed_views.saturating_add(1);
        }
    }

    /// Rule V2: whether `place` was silent for so long that its views are given up at once.
    fn is_silent(&self, place: u32) -> bool {
        let set = self.agreement.set();
        let patience = self.config.heartbeat_ms.saturating_mul(2);
        let silent = |address: &Address| {
            Some(*address) != self.config.me
                && self.peers.get(address).is_some_and(|peer| {
                    peer.missed_views >= INACTIVE_VIEWS && self.now.mono_ms.saturating_sub(peer.heard_ms) >= patience
                })
        };
        let is = |place: u32| set.get(place).is_some_and(|member| silent(&member.address));
        if !is(place) {
            return false;
        }
        // With a third of the stake silent nobody is: then the network is what fails.
        let stake: Stake = set.stake_of(set.places().filter(|place| is(*place)));
        stake < set.weak_quorum() && u128::from(stake.0).saturating_mul(3) < u128::from(set.total().0)
    }

    /// Rule V3: base · 2^min(cap, max(0, v−3−w)).
    pub(super) fn view_timeout_ms(&self) -> u64 {
        let doublings = self.agreement.view().above(self.agreement.floor().plus(3)).min(TIMEOUT_DOUBLINGS_MAX);
        let factor = 1u64.checked_shl(u32::try_from(doublings).unwrap_or(u32::MAX)).unwrap_or(u64::MAX);
        self.config.params.view_timeout_ms.saturating_mul(factor)
    }

    /// When this view is given up if nothing more happens. Rules W1, V2.
    fn view_deadline_ms(&self) -> u64 {
        let timeout = self.view_timeout_ms();
        let from = match (&self.round.proposal, self.round.work_since_ms) {
            // The prepare timeout.
            (Some((_, received)), _) => *received,
            // The propose timeout: from entering the view or the first work, whichever is later.
            (None, Some(work)) => work.max(self.round.entered_ms),
            (None, None) => self.round.entered_ms.saturating_add(self.config.params.idle_interval_ms),
        };
        from.saturating_add(timeout)
    }

    pub(super) fn time_out(&mut self, out: &mut Vec<Action>) {
        // Whether there is work does not depend on the time: it is asked again only when something moved.
        if self.round.work_since_ms.is_none() && self.round.work_asked_at != self.moves {
            self.round.work_asked_at = self.moves;
            if self.has_work() {
                self.round.work_since_ms = Some(self.now.mono_ms);
            }
        }
        if !self.signs() || self.agreement.gave_up_here() {
            return;
        }
        let leader = self.leader();
        let over = self.now.mono_ms >= self.view_deadline_ms();
        if over || self.agreement.gave_up(leader) || self.is_silent(leader) {
            self.give_up(out);
        }
    }

    /// Rule V3: sends again what had no effect, with the certificates that let others follow.
    pub(super) fn resend(&mut self, out: &mut Vec<Action>) {
        let now = self.now.mono_ms;
        self.stream_to_those_behind(out);
        if now < self.round.resend_at_ms || !self.signs() {
            return;
        }
        self.round.resend_interval_ms =
            self.round.resend_interval_ms.saturating_mul(2).min(self.config.resend_ms.saturating_mul(8));
        self.round.resend_at_ms = now.saturating_add(self.round.resend_interval_ms);
        let ballots = self.agreement.open_ballots();
        if ballots.is_empty() && self.round.own_proposal.is_none() {
            return;
        }
        out.push(Action::Broadcast(self.certificates()));
        out.extend(self.round.own_proposal.clone().map(Action::Sign));
        for ballot in ballots {
            self.ask_for_signature(ballot, out);
        }
    }

    /// Rule D1: a validator whose announced tip of this replica's lane stays behind gets the batches again.
    fn stream_to_those_behind(&mut self, out: &mut Vec<Action>) {
        let (now, tip) = (self.now.mono_ms, self.own_tip_seq());
        let set = self.agreement.set();
        // Both by rising address.
        let mut members = set.places().zip(set.members()).peekable();
        let mut behind = Vec::new();
        for (address, peer) in &mut self.peers {
            while members.next_if(|(_, member)| member.address < *address).is_some() {}
            let Some((place, _)) = members.next_if(|(_, member)| member.address == *address) else { continue };
            if Some(*address) == self.config.me {
                continue;
            }
            let announced = self.lanes.announced_of_own(place).seq;
            if announced >= tip || peer.behind != announced {
                (peer.behind, peer.behind_since_ms) = (announced, now);
            } else if now.saturating_sub(peer.behind_since_ms) >= self.config.resend_ms {
                peer.behind_since_ms = now;
                behind.push(*address);
            }
        }
        for address in behind {
            self.stream_again(address, out);
        }
    }

    /// Rule D3: announces what is held, when it changed or the heartbeat is due.
    pub(super) fn announce(&mut self, out: &mut Vec<Action>) {
        let now = self.now.mono_ms;
        let due = self.have.dirty || now.saturating_sub(self.have.sent_ms) >= self.config.heartbeat_ms;
        let Some(signer) = self.agreement.me().filter(|_| due && self.signs()) else { return };
        self.have.dirty = false;
        self.have.sent_ms = now;
        self.have.counter = self.have.counter.saturating_add(1);
        let vector = HaveVector {
            epoch: self.agreement.epoch(),
            counter: self.have.counter,
            tips: self.lanes.tips(),
            executed: self.execution.done,
            view: self.agreement.view(),
            final_height: self.chain.tip_height(),
        };
        out.push(Action::Sign(Unsigned::Have { signer, vector }));
    }

    /// When [`Event::Tick`](crate::Event::Tick) is due at the latest, in milliseconds of the monotonic clock.
    pub fn wake_at(&self) -> u64 {
        let now = self.now.mono_ms;
        let soon = if self.have.dirty && self.signs() { now } else { u64::MAX };
        let heartbeat = self.have.sent_ms.saturating_add(self.config.heartbeat_ms);
        let mut due = soon.min(heartbeat).min(self.round.resend_at_ms).min(self.view_deadline_ms().max(now));
        if self.agreement.gave_up_here() {
            due = soon.min(heartbeat).min(self.round.resend_at_ms);
        }
        if !self.signs() {
            // Whoever only follows wakes for what it is told, and for what it has asked for.
            due = now.saturating_add(self.config.heartbeat_ms);
        }
        let half = self.view_timeout_ms().checked_div(2).unwrap_or_default();
        let leads = self.agreement.me() == Some(self.leader()) && !self.round.proposed && self.signs();
        if leads {
            let from = self.round.work_since_ms.map(|since| since.max(self.round.entered_ms).saturating_add(half));
            let idle = self.round.entered_ms.saturating_add(self.config.params.idle_interval_ms);
            let weak = self.round.entered_ms.saturating_add(half);
            let paced = self.round.work_since_ms.map(|_| self.pace_due());
            for at in from.into_iter().chain(paced).chain([idle, weak]) {
                if at > now {
                    due = due.min(at);
                }
            }
        }
        let others = [self.lanes.seal_due(self.config.batch_delay_ms), self.fetching.due(), self.proposal_time_due()];
        let due = others.into_iter().flatten().fold(due, u64::min);
        // A deadline that has passed and changes nothing must not keep its driver busy.
        due.max(now.saturating_add(u64::from(soon != now)))
    }

    /// When a leader with work may propose.
    fn pace_due(&self) -> u64 {
        let interval = self.config.block_interval_ms;
        let parent = self.parent_time().unwrap_or_default();
        let by_parent = self.now.mono_ms.saturating_add(parent.plus(interval).above(self.now.unix));
        by_parent.min(self.round.entered_ms.saturating_add(interval))
    }

    pub(super) fn open_incarnation(&mut self, number: u64, out: &mut Vec<Action>) {
        // HAVE counters of this run are above those of every earlier one, whatever the clock says.
        self.have.counter = number.saturating_mul(1 << 32);
        self.persist(Record::Incarnation(number), out);
    }
}
