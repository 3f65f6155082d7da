//! A script for people.

use super::moves::Move;
use super::state::{Call, Cell, Stage, Wire};
use super::world::World;

const SIDES: [&str; 2] = ["dialer", "acceptor"];

impl World<'_> {
    /// What a move is in the present situation.
    pub(super) fn words(&self, what: Move) -> String {
        match what {
            Move::Read(wire, side) => format!("{} reads {}", name(side), self.cell(wire, side)),
            Move::LoseAck(wire, side) => format!("{} on its way to the {} is lost", self.cell(wire, side), name(side)),
            Move::DoubleAck(wire, side) => format!("{} reads {}, which comes twice", name(side), self.cell(wire, side)),
            Move::Knock(_) => "the attempt reaches the acceptor".into(),
            Move::Opened(_) => "the dialer's attempt is open".into(),
            Move::Hang(_) => "nobody answers the attempt".into(),
            Move::Refuse(_) => "a go-between refuses the attempt with 401".into(),
            Move::Cut(_, 3) => "the connection is cut".into(),
            Move::Cut(_, sides) => format!("the connection is cut, and only the {} sees it", name(sides - 1)),
            Move::Arrive(call) => format!("{} arrives", self.request(call)),
            Move::Answered(call) => format!("{} is answered: {:?}", self.request(call), self.called(call).stage),
            Move::AnsweredTwice(call) => {
                format!("{} is answered, and will be once more: {:?}", self.request(call), self.called(call).stage)
            }
            Move::AskedTwice(call) => format!("{} arrives, and will once more", self.request(call)),
            Move::Lose(call) => {
                let what = if self.called(call).stage == Stage::Going { "" } else { "the answer to " };
                format!("{what}{} is lost", self.request(call))
            }
            Move::NoAnswer(call) => format!("{} has no answer", self.request(call)),
            Move::TooLate(call) => format!("{} is given up by its sender, but goes on", self.request(call)),
            Move::Proxy(call, status) => {
                let status = self.setup.go_between[usize::from(status)];
                format!("a go-between answers {} with {status}", self.request(call))
            }
            Move::Complete(message) => {
                format!("{} completes message {message}", SIDES[1 - self.setup.sender(message.into())])
            }
            Move::Send(side) => {
                let message = self.next_message(side.into()).map_or_else(String::new, |message| message.to_string());
                format!("{} sends message {message}", name(side))
            }
            Move::RestartKept(side) => format!("{} starts anew, with its memory", name(side)),
            Move::RestartLost(side) => format!("{} starts anew, without its memory", name(side)),
            Move::RestartMute => "acceptor starts anew, without its memory; its old connection stays open".into(),
            Move::Close(side) => format!("{} closes", name(side)),
            Move::Pass => {
                format!("{} ms pass", self.deadline().unwrap_or_default())
            }
        }
    }

    fn cell(&self, wire: u8, side: u8) -> String {
        let wire: Wire = self.state.wires[usize::from(wire)].expect("a wire");
        match wire.pipes[usize::from(side)].first() {
            Some(Cell::Data(message)) => format!("message {message}"),
            Some(Cell::Ack(message)) => format!("the acknowledgement of message {message}"),
            Some(Cell::Close(code)) => format!("the close frame {}", 1000 + u16::from(code)),
            Some(cell) => format!("{cell:?}"),
            None => "nothing".into(),
        }
    }

    fn request(&self, call: u8) -> String {
        let call = self.called(call);
        let late = if call.waits() { "" } else { "late " };
        format!("{late}request {} with message {}", call.attempt, call.message)
    }

    fn called(&self, call: u8) -> Call {
        self.state.calls[usize::from(call)].expect("a call")
    }
}

fn name(side: u8) -> &'static str {
    SIDES[usize::from(side)]
}
