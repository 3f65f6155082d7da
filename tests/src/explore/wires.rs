//! The WebSocket path: cells in order, each way; the adapter's part of opening and closing.

use super::act::{Act, Age, Down, Heard, Said};
use super::check::broken;
use super::state::{Cell, End, Wire};
use super::world::{Result, World};

impl World<'_> {
    pub(super) fn readable(&self, wire: &Wire, side: usize) -> bool {
        let open = match wire.ends[side] {
            End::Open(_) | End::Mute => true,
            End::Knocking(age) => self.machines.listening(self.state.session[side]) == Some(age),
            _ => false,
        };
        open && !wire.pipes[side].is_empty()
    }

    pub(super) fn read(&mut self, wire: usize, side: usize) -> Result {
        let cell = self.wire(wire).pipes[side].take().expect("something to read");
        let end = self.wire(wire).ends[side];
        let Some(age) = age_of(end) else {
            if cell == Cell::Probe {
                self.wire(wire).put(1 - side, Cell::Pong);
            } else if matches!(cell, Cell::Reset | Cell::Close(_)) {
                self.wire(wire).leave(side);
            }
            return Ok(());
        };
        self.wire(wire).ends[side] = End::Open(age);
        let heard = match cell {
            // A receiver that can never take it says nothing.
            Cell::Data(message) if self.poisonous(message) => Heard::Other,
            Cell::Data(message) => Heard::Data(self.name(message)),
            Cell::Ack(message) => Heard::Ack(self.name(message)),
            Cell::Pong => Heard::Pong,
            Cell::Probe => {
                self.wire(wire).put(1 - side, Cell::Pong);
                Heard::Other
            }
            Cell::Word => Heard::Word,
            Cell::Ping => {
                self.wire(wire).put(1 - side, Cell::Word);
                Heard::Word
            }
            Cell::Close(code) => {
                self.wire(wire).put(1 - side, Cell::Close(code));
                return self.down(wire, side, Down::Closed(1000 + u16::from(code)));
            }
            Cell::Reset => return self.down(wire, side, Down::Closed(1006)),
        };
        let step = self.take(side, Act::Received(age, heard))?;
        if let (Said::Deliver { maybe_dup }, Cell::Data(message)) = (step.said, cell) {
            self.delivered(message, maybe_dup)?;
        }
        self.carry_out(side, &step)
    }

    pub(super) fn write(&mut self, side: usize, age: Age, cell: Cell) -> Result {
        let Some(wire) = self.wire_of(side, age) else {
            return Err(broken("G6", format!("{cell:?} goes to a connection that is over")));
        };
        self.wire(wire).put(1 - side, cell);
        Ok(())
    }

    pub(super) fn knock(&mut self, wire: usize) -> Result {
        if self.machines.over(self.state.session[1]) {
            return self.down(wire, 0, Down::Nobody);
        }
        let End::Dialling(dialled) = self.wire(wire).ends[0] else { unreachable!("it is dialled") };
        self.wire(wire).ends[0] = End::Answered(dialled);
        let step = self.take(1, Act::Accept)?;
        match step.said {
            Said::Opened => self.wire(wire).ends[1] = End::Open(0),
            Said::Probing => self.wire(wire).ends[1] = End::Knocking(0),
            Said::Refused => self.wire(wire).put(0, Cell::Close(8)),
            said => unreachable!("{said:?} to an Accept"),
        }
        self.carry_out(1, &step)
    }

    /// A side learns that a connection, or an attempt, is over.
    pub(super) fn down(&mut self, wire: usize, side: usize, down: Down) -> Result {
        let age = age_of(self.wire(wire).ends[side]).expect("it has this end");
        self.wire(wire).leave(side);
        self.tell(side, Act::LinkDown(age, down))?;
        Ok(())
    }

    pub(super) fn close(&mut self, side: usize, newest: Age, code: Option<u16>) {
        for wire in 0..self.state.wires.len() {
            let Some(age) = self.state.wires[wire].and_then(|wire| age_of(wire.ends[side])) else { continue };
            if age < newest {
                continue;
            }
            let wire = self.wire(wire);
            match code {
                Some(_) if age == newest && wire.ends[1 - side] == End::Gone => wire.put(side, Cell::Reset),
                Some(code) if age == newest => {
                    wire.put(1 - side, Cell::Close(u8::try_from(code - 1000).expect("a code of the standard's")))
                }
                Some(_) | None => {
                    wire.put(1 - side, Cell::Reset);
                    wire.leave(side);
                }
            }
        }
    }

    pub(super) fn wire(&mut self, wire: usize) -> &mut Wire {
        self.state.wires[wire].as_mut().expect("a wire")
    }

    pub(super) fn wire_of(&self, side: usize, age: Age) -> Option<usize> {
        self.state.wires.iter().position(|wire| wire.is_some_and(|wire| age_of(wire.ends[side]) == Some(age)))
    }

    pub(super) fn add_wire(&mut self, wire: Wire) {
        *self.state.wires.iter_mut().find(|slot| slot.is_none()).expect("a few at once") = Some(wire);
    }
}

/// The age of the connection to its side's session.
pub(super) fn age_of(end: End) -> Option<Age> {
    match end {
        End::Dialling(age) | End::Hanging(age) | End::Answered(age) | End::Knocking(age) | End::Open(age) => Some(age),
        End::Gone | End::Mute => None,
    }
}
