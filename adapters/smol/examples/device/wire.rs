//! The protocol of a made-up thermometer: a wire and the application's own message type, all that a profile is.
//!
//! ```text
//! R <id> <sensor> <celsius>    a reading                  R d1d40c53-a972-4b83-8efe-0e939229ea87 4 21.5
//! A <id>                       it is stored               A d1d40c53-a972-4b83-8efe-0e939229ea87
//! K                            nothing, so that no line looks dead
//! ```
//!
//! The id is the session's own, as it prints. A counter would be shorter, and after a restart of the device a new reading
//! would be taken for an old one.

use bowline::wire::KeyedHash;
use bowline::{Frame, Head, MessageId};
use bowline_transport::http::{Bytes, HttpAnswer, Routes};
use bowline_transport::{Heard, Refused, Wire};
use serde::{Deserialize, Serialize};

/// What the application sends and receives.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reading {
    pub(crate) sensor: u16,
    pub(crate) celsius: f64,
}

/// The same for both ends; whoever dials is a question of the setup.
#[derive(Clone, Debug)]
pub(crate) struct Thermometer;

impl Thermometer {
    /// `None`: neither ours nor a later version's.
    fn parse(line: &str) -> Option<Heard<Reading>> {
        let mut words = line.split(' ');
        let heard = match (words.next()?, words.next().map(MessageId::parse_uuid)) {
            ("R", Some(Some(id))) => {
                let (sensor, celsius) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                Heard::message(Some(id), None, Some(Reading { sensor, celsius }).filter(|it| it.celsius.is_finite())?)
            }
            ("A", Some(Some(id))) => Heard::of(Head::Ack { id }),
            ("R" | "A", _) => return None,
            _ => return Some(Heard::of(Head::Other)),
        };
        words.next().is_none().then_some(heard)
    }
}

impl Wire for Thermometer {
    type Kind = ();
    type Outgoing = Reading;
    type Incoming = Reading;

    fn routes(&self) -> Routes<'static> {
        Routes { websockets: &["/device"], callbacks: &["/device/readings"], ..Routes::NONE }
    }

    fn prepare(&mut self, (): &(), json: &Bytes) -> Result<Reading, Refused> {
        serde_json::from_slice(json).map_err(|_| Refused::Invalid("no reading"))
    }

    fn size(Reading { sensor, celsius }: &Reading) -> usize {
        // The letter, the id and two spaces; some numbers have three hundred digits.
        39 + format!("{sensor} {celsius}").len()
    }

    fn read(&mut self, _: &KeyedHash, line: &str) -> Heard<Reading> {
        Self::parse(line).unwrap_or(Heard::of(Head::Malformed))
    }

    fn write(&mut self, frame: Frame<'_, Reading>) -> Option<String> {
        match frame {
            Frame::Data { id, payload, .. } => Some(format!("R {id} {} {}", payload.sensor, payload.celsius)),
            Frame::Ack { id } => Some(format!("A {id}")),
            Frame::Keepalive => Some("K".into()),
            // The WebSocket's own; the others are for numbered peers.
            Frame::Ping | Frame::Marks { .. } | Frame::Nack { .. } => None,
        }
    }

    /// The gateway is a Bowline as well, and marks what it answers.
    fn is_peers(&self, _: MessageId, answer: &HttpAnswer) -> bool {
        answer.is_marked()
    }

    fn describe(_: &Reading) -> (&str, usize) {
        ("reading", size_of::<Reading>())
    }
}
