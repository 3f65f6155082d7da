//! What a move leads to, and what the two sessions ask for.

use super::act::{Act, Down, Name, Out, Said, Word};
use super::check::{Broken, broken};
use super::machine::{Machines, Step};
use super::moves::Move;
use super::setup::Setup;
use super::state::{Asker, Call, Cell, End, Pipe, Stage, State, Wire};

/// A state, the set-up it belongs to, and the sessions in it.
#[derive(Debug)]
pub(super) struct World<'a> {
    /// What is explored.
    pub(super) setup: &'a Setup,
    /// The sessions.
    pub(super) machines: &'a mut Machines,
    /// The present situation.
    pub(super) state: State,
}

pub(super) type Result<T = ()> = core::result::Result<T, Broken>;

impl<'a> World<'a> {
    /// Two fresh sides, started.
    ///
    /// # Errors
    /// What a session breaks at once.
    pub(super) fn begin(setup: &'a Setup, machines: &'a mut Machines) -> Result<Self> {
        let session = [0, 1].map(|side| machines.begin(setup.config(side, 0), Name::origin(side as u8, 0)));
        let state = State {
            session,
            life: [0; 2],
            closing: [false; 2],
            wires: Default::default(),
            calls: Default::default(),
            work: [0; 2],
            messages: Default::default(),
            left: setup.budget,
            fair: false,
        };
        let mut world = Self { setup, machines, state };
        for side in [1, 0] {
            world.tell(side, Act::Start)?;
        }
        world.state.tidy();
        Ok(world)
    }

    /// One of them happens.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub(super) fn apply(&mut self, what: Move) -> Result {
        match what {
            Move::Read(wire, side) => self.read(wire.into(), side.into())?,
            Move::LoseAck(wire, side) => {
                self.state.left.lost_acks -= 1;
                self.wire(wire.into()).pipes[usize::from(side)].take();
            }
            Move::DoubleAck(wire, side) => {
                self.state.left.double_acks -= 1;
                let pipe = &mut self.wire(wire.into()).pipes[usize::from(side)];
                pipe.put(pipe.first().expect("an acknowledgement"));
                self.read(wire.into(), side.into())?;
            }
            Move::Knock(wire) => self.knock(wire.into())?,
            Move::Opened(wire) => {
                let End::Answered(age) = self.wire(wire.into()).ends[0] else { unreachable!("it was answered") };
                self.wire(wire.into()).ends[0] = End::Open(age);
                let said = self.tell(0, Act::LinkUp(age))?;
                if said != Said::Done {
                    return Err(broken("G6", format!("an attempt that nobody gave up is {said:?}")));
                }
            }
            Move::Hang(wire) => {
                self.state.left.hangs -= 1;
                let End::Dialling(age) = self.wire(wire.into()).ends[0] else { unreachable!("it is dialled") };
                self.wire(wire.into()).ends[0] = End::Hanging(age);
            }
            Move::Refuse(wire) => {
                self.state.left.refusals -= 1;
                self.down(wire.into(), 0, Down::Login)?;
            }
            Move::Cut(wire, sides) => {
                self.state.left.cuts -= 1;
                let wire = self.wire(wire.into());
                for side in [0, 1] {
                    wire.pipes[side] = Pipe::default();
                    if sides & (1 << side) != 0 {
                        wire.put(side, Cell::Reset);
                    }
                }
                wire.silent = true;
            }
            Move::Arrive(call) => self.arrive(call.into())?,
            Move::Answered(call) => self.answered(call.into(), false)?,
            Move::AnsweredTwice(call) => {
                self.state.left.double_answers -= 1;
                self.answered(call.into(), true)?;
            }
            Move::AskedTwice(call) => {
                self.state.left.double_requests -= 1;
                let copy = Call { asker: Asker::Nobody, ..self.call(call.into()) };
                self.arrive(call.into())?;
                self.add_call(copy);
            }
            Move::Lose(call) => {
                self.state.left.lost_calls -= 1;
                self.lose(call.into())?;
            }
            Move::NoAnswer(call) => {
                let Call { message, attempt, .. } = self.state.calls[usize::from(call)].take().expect("a call");
                self.posted(message, attempt, Word::Unknown)?;
            }
            Move::TooLate(call) => {
                self.state.left.late -= 1;
                let Call { message, attempt, .. } = self.call(call.into());
                self.call_mut(call.into()).asker = Asker::GaveUp;
                self.posted(message, attempt, Word::Unknown)?;
            }
            Move::Proxy(call, status) => {
                self.state.left.go_between -= 1;
                let status = self.setup.go_between[usize::from(status)];
                self.back(call.into(), Word::Foreign(status));
            }
            Move::Complete(message) => self.complete(message)?,
            Move::Send(side) => self.send(side.into())?,
            Move::RestartKept(side) => {
                self.state.left.kept[usize::from(side)] -= 1;
                self.restart_kept(side.into())?;
            }
            Move::RestartLost(side) => {
                self.state.left.lost[usize::from(side)] -= 1;
                self.restart_lost(side.into())?;
            }
            Move::RestartMute => {
                self.state.left.mute -= 1;
                for wire in self.state.wires.iter_mut().flatten() {
                    if let End::Open(_) = wire.ends[1] {
                        wire.ends[1] = End::Mute;
                    }
                }
                self.restart_lost(1)?;
            }
            Move::Close(side) => {
                let side = usize::from(side);
                self.state.left.closes[side] -= 1;
                self.state.closing[side] = true;
                self.tell(side, Act::Close(self.setup.drain))?;
            }
            Move::Pass => {
                let span = self.deadline().expect("somebody waits");
                let mut waits = Vec::new();
                self.prompt(&mut waits);
                if !waits.is_empty() {
                    self.state.left.slow -= 1;
                }
                for side in [0, 1] {
                    self.state.work[side] = self.state.work[side].saturating_sub(span);
                    self.tell(side, Act::Pass(span))?;
                }
            }
        }
        self.state.tidy();
        Ok(())
    }

    /// Milliseconds to the next deadline of either session, or until an application has done its work.
    pub(super) fn deadline(&self) -> Option<u32> {
        let sessions = self.state.session.iter().filter_map(|at| self.machines.deadline(*at));
        sessions.chain(self.state.work.into_iter().filter(|work| *work > 0)).min()
    }

    /// A step of a side's session; what it asks for is not carried out yet.
    pub(super) fn take(&mut self, side: usize, act: Act) -> Result<Step> {
        let step = self.machines.step(self.state.session[side], act);
        if let Some(what) = self.machines.take_broken() {
            return Err(broken("the surface", what));
        }
        self.state.session[side] = step.to;
        let setup = self.setup;
        self.state.age(side, step.links, step.deliveries, |message| setup.sender(message));
        Ok(step)
    }

    pub(super) fn tell(&mut self, side: usize, act: Act) -> Result<Said> {
        let step = self.take(side, act)?;
        self.carry_out(side, &step)?;
        Ok(step.said)
    }

    pub(super) fn carry_out(&mut self, side: usize, step: &Step) -> Result {
        for at in 0..self.machines.outputs(step).len() {
            match self.machines.outputs(step)[at] {
                Out::Close(age, code) => self.close(side, age, code),
                Out::Refuse(age) => {
                    if let Some(wire) = self.wire_of(side, age) {
                        self.wire(wire).put(1 - side, Cell::Close(8));
                        self.wire(wire).leave(side);
                    }
                }
                Out::Connect(age) => self.add_wire(Wire { ends: [End::Dialling(age), End::Gone], ..Wire::default() }),
                Out::Settled(seq, outcome) => {
                    let message = self.named(Name { side: side as u8, life: self.state.life[side], seq });
                    self.settled(side, message, outcome)?;
                }
                Out::Told => {}
                Out::Respond(request, word) => self.respond(side, request, word)?,
                Out::Ack(age, name) => {
                    let message = self.named(name);
                    self.acknowledges(message)?;
                    self.write(side, age, Cell::Ack(message))?;
                }
                Out::Probe(age) => self.write(side, age, Cell::Probe)?,
                Out::Ping(age) => self.write(side, age, Cell::Ping)?,
                Out::Data(age, seq, payload) => {
                    self.names(side, seq, payload)?;
                    self.write(side, age, Cell::Data(payload))?;
                }
                Out::Post(seq, attempt, payload) => {
                    self.names(side, seq, payload)?;
                    self.goes_again(payload)?;
                    self.add_call(Call { message: payload, attempt, asker: Asker::Waits, stage: Stage::Going });
                }
            }
        }
        Ok(())
    }

    /// The message that has this name.
    pub(super) fn named(&self, name: Name) -> u8 {
        let is = |message: &u8| self.name(*message) == name;
        (0..self.setup.messages()).find(is).expect("a name that was given")
    }

    pub(super) fn name(&self, message: u8) -> Name {
        self.state.messages[usize::from(message)].name
    }
}
