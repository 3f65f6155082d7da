//! Something worth a line: words for people, fields for programs.

use core::fmt::Write as _;
use core::time::Duration;
use serde_json::Value;

/// One thing that happened.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Note {
    /// Its kind, the `event` of a JSON line.
    kind: &'static str,
    /// In words; `None`: for programs alone.
    pub(crate) words: Option<String>,
    /// A phase begins: it stands out.
    pub(crate) heading: bool,
    fields: Vec<(&'static str, Value)>,
}

impl Note {
    /// For programs alone.
    pub(crate) const fn new(kind: &'static str) -> Self {
        Self { kind, words: None, heading: false, fields: Vec::new() }
    }

    /// In words, too.
    pub(crate) fn words(mut self, words: impl Into<String>) -> Self {
        self.words = Some(words.into());
        self
    }

    /// As the heading of what follows.
    pub(crate) fn heading(mut self, words: impl Into<String>) -> Self {
        self.heading = true;
        self.words(words)
    }

    /// A field of the JSON line.
    pub(crate) fn field(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The JSON line, its fields in the order they were given.
    pub(crate) fn json(&self, at: Duration) -> String {
        let mut line = format!(r#"{{"event":"{}","at":{}"#, self.kind, seconds(at));
        for (name, value) in &self.fields {
            // Writing to a string cannot fail.
            let _ = write!(line, r#","{name}":{value}"#);
        }
        line.push('}');
        line
    }
}

/// In seconds, to the millisecond.
pub(crate) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_the_fields_say() {
        let note = Note::new("down").field("why", "say \"no\"\n").field("count", 3).field("list", vec![1, 2]);
        let line = note.json(Duration::from_micros(1_234_567));
        assert_eq!(line, r#"{"event":"down","at":1.235,"why":"say \"no\"\n","count":3,"list":[1,2]}"#);
        assert!(serde_json::from_str::<Value>(&line).is_ok());
    }
}
