//! What a peer was told of its messages, for as long as the machine remembers them: a copy gets the same answer.
//!
//! ```text
//!  arrived ─▶ note(id, name) ─▶ decide(id, word, frame) ─▶ frame(id): the encoded one once, then encoded anew from the word
//!                 │                                    └─▶ give_back(id): nothing to tell
//!                 └─ too many: those that the machine has forgotten are thrown away, all at once
//! ```
//!
//! Invariants: at most nine eighths of the entries that the machine has; a look-up takes constant time, whatever the ids are
//! (the map's hash is keyed by the system's randomness); a word that is the same as the last one is kept once.
//! Rules: S6, S14, S15.

use crate::hub::message::Name;
use crate::hub::wire::{HubWire, Text};
use bowline::{MessageId, Seen};
use std::collections::HashMap;
use std::sync::Arc;

/// What the application said of a message, or why it never can be processed.
pub(super) type Word<C> = Result<C, Box<str>>;

/// What a peer was told of a message. Small: of these there are as many as the machine remembers messages.
struct Told<C> {
    name: Name,
    /// Until there is one, a plain word of reception.
    word: Option<Arc<Word<C>>>,
    /// Encoded when it was decided, until it is sent.
    frame: Option<Box<Text>>,
}

/// See the module.
pub(super) struct ConfirmationLog<C> {
    told: HashMap<MessageId, Told<C>>,
    last: Option<Arc<Word<C>>>,
}

impl<C> Default for ConfirmationLog<C> {
    fn default() -> Self {
        Self { told: HashMap::new(), last: None }
    }
}

impl<C: From<()> + PartialEq> ConfirmationLog<C> {
    /// How many bytes are set aside for each message beside the machine's: an entry of the map, which may be half empty, and a
    /// name of 64 bytes.
    pub(super) const BYTES: usize = 2 * size_of::<(MessageId, Told<C>)>() + 64;

    /// How many messages fit into `bytes`.
    pub(super) const fn most(bytes: usize) -> usize {
        bytes / (Seen::BYTES + Self::BYTES)
    }

    /// A message of this name came, or came again. `most`: how many the machine remembers at the most.
    pub(super) fn note(&mut self, id: MessageId, name: &Name, most: usize, remembers: impl Fn(MessageId) -> bool) {
        if self.told.len() > most.saturating_add(most / 8) {
            self.told.retain(|id, _| remembers(*id));
        }
        self.told.entry(id).or_insert_with(|| Told { name: name.clone(), word: None, frame: None });
    }

    /// The application has decided about it.
    pub(super) fn decide(&mut self, id: MessageId, word: Word<C>, frame: Option<Text>) {
        let Some(told) = self.told.get_mut(&id) else { return };
        let word = match &self.last {
            Some(last) if **last == word => Arc::clone(last),
            _ => Arc::new(word),
        };
        self.last = Some(Arc::clone(&word));
        (told.word, told.frame) = (Some(word), frame.map(Box::new));
    }

    /// The application has given it back: there is nothing to tell.
    pub(super) fn give_back(&mut self, id: MessageId) {
        self.told.remove(&id);
    }

    /// The confirmation of a message; none if the machine has outlived its name, or the wire has none.
    pub(super) fn frame<W: HubWire<Confirmation = C>>(&mut self, id: MessageId, wire: &W) -> Option<Text> {
        let told = self.told.get_mut(&id)?;
        if let Some(frame) = told.frame.take() {
            return Some(*frame);
        }
        match told.word.as_deref() {
            Some(word) => wire.confirmation(&told.name.id, told.name.content, word.as_ref().map_err(|why| &**why)),
            None => wire.confirmation(&told.name.id, told.name.content, Ok(&C::from(()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::ContentKey;

    fn name() -> Name {
        Name { id: "p".into(), content: ContentKey::from_bits(1) }
    }

    #[test]
    fn s15_what_was_told_is_kept_as_long_as_it_is_remembered_and_no_longer() {
        let mut log = ConfirmationLog::<()>::default();
        let id = |n: u64| MessageId::from_bits(n.into());
        for n in 0..10_000 {
            // The machine remembers the last hundred.
            log.note(id(n), &name(), 100, |id| id.bits() + 100 > n.into());
            log.decide(id(n), Ok(()), None);
            assert!(log.told.len() <= 114, "{}", log.told.len());
            assert!((n.saturating_sub(99)..=n).all(|n| log.told.contains_key(&id(n))));
        }
    }

    #[test]
    fn s15_equal_words_are_kept_once() {
        let mut log = ConfirmationLog::<()>::default();
        for n in 0..3 {
            log.note(MessageId::from_bits(n), &name(), 10, |_| true);
            log.decide(MessageId::from_bits(n), Err("no such game".into()), None);
        }
        assert_eq!(log.last.map(|word| Arc::strong_count(&word)), Some(4));
    }
}
