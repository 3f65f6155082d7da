//! What can happen in a situation.
//!
//! A network and an application are prompt: time passes only when neither has anything to do, or when a jump is spent on
//! being slow. It passes to the next deadline of either session at once, because nothing happens before.

use super::state::{Cell, End, Stage, State};
use super::world::World;

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// A side reads what comes next on a wire.
    Read(u8, u8),
    /// The acknowledgement that comes next is lost.
    LoseAck(u8, u8),
    /// It comes twice.
    DoubleAck(u8, u8),
    /// An attempt reaches the acceptor.
    Knock(u8),
    /// The dialer learns that its attempt was answered.
    Opened(u8),
    /// Nobody will answer the attempt.
    Hang(u8),
    /// A go-between refuses it.
    Refuse(u8),
    /// A wire is cut; one bit for each side that sees it.
    Cut(u8, u8),
    /// A request arrives.
    Arrive(u8),
    /// An answer arrives.
    Answered(u8),
    /// It arrives, and once more later.
    AnsweredTwice(u8),
    /// A request arrives, and once more later.
    AskedTwice(u8),
    /// A request or its answer is lost.
    Lose(u8),
    /// Its sender learns that there will be no answer.
    NoAnswer(u8),
    /// Its sender gives it up while it is on its way.
    TooLate(u8),
    /// A go-between answers it, with the status of this number in the set-up.
    Proxy(u8, u8),
    /// An application completes a message.
    Complete(u8),
    /// An application sends its next message.
    Send(u8),
    /// A process starts anew with its memory.
    RestartKept(u8),
    /// A process starts anew without.
    RestartLost(u8),
    /// The acceptor's process starts anew without, and its old connection stays open.
    RestartMute,
    /// An application closes its session.
    Close(u8),
    /// Time passes to the next deadline.
    Pass,
}

impl Move {
    /// How many kinds there are.
    pub const KINDS: usize = 23;

    /// The number of its kind.
    pub const fn kind(self) -> usize {
        match self {
            Self::Read(..) => 0,
            Self::LoseAck(..) => 1,
            Self::DoubleAck(..) => 2,
            Self::Knock(_) => 3,
            Self::Opened(_) => 4,
            Self::Hang(_) => 5,
            Self::Refuse(_) => 6,
            Self::Cut(..) => 7,
            Self::Arrive(_) => 8,
            Self::Answered(_) => 9,
            Self::AnsweredTwice(_) => 10,
            Self::AskedTwice(_) => 11,
            Self::Lose(_) => 12,
            Self::NoAnswer(_) => 13,
            Self::TooLate(_) => 14,
            Self::Proxy(..) => 15,
            Self::Complete(_) => 16,
            Self::Send(_) => 17,
            Self::RestartKept(_) => 18,
            Self::RestartLost(_) => 19,
            Self::RestartMute => 20,
            Self::Close(_) => 21,
            Self::Pass => 22,
        }
    }
}

impl World<'_> {
    /// Everything that can happen now. What happens if nothing goes wrong comes first, in the order in which it would.
    pub(super) fn moves(&self, moves: &mut Vec<Move>) {
        moves.clear();
        self.prompt(moves);
        let busy = !moves.is_empty();
        for (c, call) in numbered(&self.state.calls) {
            match call.stage {
                Stage::Going if !call.waits() => moves.push(Move::Arrive(c)),
                Stage::Back(_) if !call.waits() => moves.push(Move::Answered(c)),
                _ => {}
            }
        }
        for side in [0, 1] {
            if self.next_message(side).is_some() && self.machines.has_room(self.state.session[side]) {
                moves.push(Move::Send(side as u8));
            }
        }
        if self.deadline().is_some() && (!busy || self.state.left.slow > 0) {
            moves.push(Move::Pass);
        }
        if !self.state.fair {
            self.faults(moves);
        }
    }

    /// What happens before time passes, if nobody is slow.
    pub(super) fn prompt(&self, moves: &mut Vec<Move>) {
        let State { wires, calls, messages, .. } = &self.state;
        for (w, wire) in numbered(wires) {
            for side in [0, 1] {
                if self.readable(wire, side) {
                    moves.push(Move::Read(w, side as u8));
                }
            }
            match wire.ends[0] {
                End::Dialling(_) => moves.push(Move::Knock(w)),
                End::Answered(_) => moves.push(Move::Opened(w)),
                _ => {}
            }
        }
        for (c, call) in numbered(calls) {
            match call.stage {
                Stage::Going if call.waits() => moves.push(Move::Arrive(c)),
                Stage::Back(_) if call.waits() => moves.push(Move::Answered(c)),
                Stage::Lost if call.waits() => moves.push(Move::NoAnswer(c)),
                _ => {}
            }
        }
        for (m, message) in (0..).zip(messages) {
            if message.held.is_some() && self.is_done_with(m) {
                moves.push(Move::Complete(m));
            }
        }
    }

    pub(super) fn faults(&self, moves: &mut Vec<Move>) {
        let State { wires, calls, left, closing, .. } = &self.state;
        for (w, wire) in numbered(wires) {
            for side in [0, 1] {
                if self.readable(wire, side) && matches!(wire.pipes[side].first(), Some(Cell::Ack(_))) {
                    spend(moves, left.lost_acks, Move::LoseAck(w, side as u8));
                    spend(moves, left.double_acks, Move::DoubleAck(w, side as u8));
                }
            }
            match wire.ends {
                [End::Dialling(_), _] => {
                    spend(moves, left.hangs, Move::Hang(w));
                    spend(moves, left.refusals, Move::Refuse(w));
                }
                [End::Open(_), End::Open(_)] if !wire.silent => {
                    for sides in [3, 1, 2] {
                        spend(moves, left.cuts, Move::Cut(w, sides));
                    }
                }
                _ => {}
            }
        }
        for (c, call) in numbered(calls) {
            if call.stage == Stage::Going && calls.iter().any(Option::is_none) {
                spend(moves, left.double_requests, Move::AskedTwice(c));
            }
            if !call.waits() || call.stage == Stage::Lost {
                continue;
            }
            spend(moves, left.late, Move::TooLate(c));
            spend(moves, left.lost_calls, Move::Lose(c));
            if call.stage == Stage::Going {
                for status in (0..).take(self.setup.go_between.len()) {
                    spend(moves, left.go_between, Move::Proxy(c, status));
                }
            }
            if matches!(call.stage, Stage::Back(_)) {
                spend(moves, left.double_answers, Move::AnsweredTwice(c));
            }
        }
        for side in [0, 1] {
            spend(moves, left.kept[side], Move::RestartKept(side as u8));
            spend(moves, left.lost[side], Move::RestartLost(side as u8));
            if side == 1 {
                spend(moves, left.mute, Move::RestartMute);
            }
            if !closing[side] {
                spend(moves, left.closes[side], Move::Close(side as u8));
            }
        }
    }
}

fn numbered<T>(slots: &[Option<T>]) -> impl Iterator<Item = (u8, &T)> {
    (0..).zip(slots).filter_map(|(at, slot)| slot.as_ref().map(|slot| (at, slot)))
}

fn spend(moves: &mut Vec<Move>, left: u8, what: Move) {
    if left > 0 {
        moves.push(what);
    }
}
