//! The names of topics, and the filters that mean several.
//!
//! ```text
//!   name     training.run-7.loss        segments between dots; 1 to 64 bytes, none of them empty
//!   filter   training.run-7.loss        that one
//!            training.*.loss            `*`   any one segment
//!            training.**                `**`  at the end: one or more segments, whatever they are
//! ```
//!
//! One syntax, and no other: a `*` is a segment of its own or an error, and so is a `**` that is not the last.
//!
//! Invariants: what was parsed is valid; nothing allocates.
//! Rules: U4.

use core::fmt;
use core::str::FromStr;

/// The longest name and the longest filter, in bytes.
const LONGEST: usize = 64;

/// Text of a bounded length, in itself. Compared byte by byte, so it is ordered as text is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Text {
    /// Zeroes follow the text, which has none.
    bytes: [u8; LONGEST],
    len: u8,
}

impl Text {
    fn new(text: &str) -> Result<Self, BadTopic> {
        let len = u8::try_from(text.len()).ok().filter(|len| usize::from(*len) <= LONGEST).ok_or(BadTopic::Long)?;
        let mut bytes = [0; LONGEST];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Ok(Self { bytes, len })
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// What lies between the dots.
fn segments(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'.')
}

fn has_star(text: &[u8]) -> bool {
    text.contains(&b'*')
}

/// Why something is no topic's name, or no filter.
///
/// ```
/// use bowline::hub::{BadTopic, TopicName};
/// assert_eq!(TopicName::new("a..b"), Err(BadTopic::Empty));
/// assert_eq!(BadTopic::Empty.to_string(), "an empty segment");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BadTopic {
    /// More than 64 bytes.
    Long,
    /// Nothing at all, or nothing between two dots, before the first or after the last.
    Empty,
    /// A control character.
    Control,
    /// A `*` in a name; in a filter one beside other characters, or a `**` that is not the last segment.
    Wildcard,
}

impl fmt::Display for BadTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Long => "longer than 64 bytes",
            Self::Empty => "an empty segment",
            Self::Control => "a control character",
            Self::Wildcard => "a wildcard where none may be",
        })
    }
}

impl core::error::Error for BadTopic {}

/// A topic's name: segments separated by dots, 1 to 64 bytes, without wildcards and control characters.
///
/// ```
/// use bowline::hub::{BadTopic, TopicName};
/// let name: TopicName = "training.run-7.loss".parse()?;
/// assert_eq!(name.as_str(), "training.run-7.loss");
/// assert_eq!(TopicName::new("training.*"), Err(BadTopic::Wildcard));
/// # Ok::<(), BadTopic>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Text);

impl TopicName {
    /// The name, if it is one.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(name: &str) -> Result<Self, BadTopic> {
        check(name)?;
        if has_star(name.as_bytes()) { Err(BadTopic::Wildcard) } else { Text::new(name).map(Self) }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// One topic, or all that a pattern matches: `*` stands for any one segment, `**` at the end for one or more.
///
/// ```
/// use bowline::hub::{BadTopic, TopicFilter, TopicName};
/// let (short, long) = (TopicName::new("a.b")?, TopicName::new("a.b.c")?);
/// let matches = |filter: &str| TopicFilter::new(filter).map(|filter| (filter.matches(&short), filter.matches(&long)));
/// assert_eq!(matches("a.b")?, (true, false));
/// assert_eq!(matches("a.*")?, (true, false));
/// assert_eq!(matches("*.*.c")?, (false, true));
/// assert_eq!(matches("a.**")?, (true, true));
/// assert_eq!(matches("a.b.**")?, (false, true), "one or more");
/// assert_eq!(TopicFilter::new("**.c"), Err(BadTopic::Wildcard));
/// # Ok::<(), BadTopic>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Text);

impl TopicFilter {
    /// The filter, if it is one.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(filter: &str) -> Result<Self, BadTopic> {
        check(filter)?;
        let mut segments = segments(filter.as_bytes()).peekable();
        while let Some(segment) = segments.next() {
            let wildcard = segment == b"*" || (segment == b"**" && segments.peek().is_none());
            if !wildcard && has_star(segment) {
                return Err(BadTopic::Wildcard);
            }
        }
        Text::new(filter).map(Self)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The one topic that it means, if it has no wildcard.
    #[must_use]
    pub fn exact(&self) -> Option<TopicName> {
        (!has_star(self.0.as_bytes())).then_some(TopicName(self.0))
    }

    /// Whether it means this topic too.
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        let mut segments = segments(topic.as_bytes());
        for wanted in self::segments(self.0.as_bytes()) {
            match (wanted, segments.next()) {
                (b"**", Some(_)) => return true,
                (b"*", Some(_)) => {}
                (wanted, Some(segment)) if wanted == segment => {}
                (_, _) => return false,
            }
        }
        segments.next().is_none()
    }
}

impl From<TopicName> for TopicFilter {
    fn from(name: TopicName) -> Self {
        Self(name.0)
    }
}

/// What names and filters have in common.
fn check(text: &str) -> Result<(), BadTopic> {
    if text.len() > LONGEST {
        Err(BadTopic::Long)
    } else if segments(text.as_bytes()).any(<[u8]>::is_empty) {
        Err(BadTopic::Empty)
    } else if text.chars().any(char::is_control) {
        Err(BadTopic::Control)
    } else {
        Ok(())
    }
}

impl FromStr for TopicName {
    type Err = BadTopic;

    fn from_str(name: &str) -> Result<Self, BadTopic> {
        Self::new(name)
    }
}

impl FromStr for TopicFilter {
    type Err = BadTopic;

    fn from_str(filter: &str) -> Result<Self, BadTopic> {
        Self::new(filter)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn u4_what_is_no_name_and_no_filter_is_refused() {
        let name = TopicName::new;
        let long = "a".repeat(65);
        assert_eq!(name(""), Err(BadTopic::Empty));
        for empty in [".", "a.", ".a", "a..b"] {
            assert_eq!((name(empty), TopicFilter::new(empty)), (Err(BadTopic::Empty), Err(BadTopic::Empty)));
        }
        assert_eq!(name(&long), Err(BadTopic::Long));
        assert_eq!(name(&long[1..]).unwrap().as_str(), &long[1..]);
        assert_eq!(name("é".repeat(32).as_str()).unwrap().as_str(), "é".repeat(32));
        for control in ["a\nb", "\u{7f}", "a.\0", "\u{85}"] {
            assert_eq!((name(control), TopicFilter::new(control)), (Err(BadTopic::Control), Err(BadTopic::Control)));
        }
        for wildcard in ["*", "a.*", "a*", "**"] {
            assert_eq!(name(wildcard), Err(BadTopic::Wildcard));
        }
        for wildcard in ["a*", "*a.b", "**.a", "a.**.b", "***", "a.***"] {
            assert_eq!(TopicFilter::new(wildcard), Err(BadTopic::Wildcard), "{wildcard}");
        }
        for fine in ["*", "**", "a.*", "*.a", "*.**", "a.*.b.**"] {
            assert_eq!(TopicFilter::new(fine).unwrap().as_str(), fine);
        }
    }

    /// The definition, by recursion.
    fn matches(filter: &[&str], name: &[&str]) -> bool {
        match (filter, name) {
            ([], []) => true,
            (["**"], [_, ..]) => true,
            ([first, filter @ ..], [segment, name @ ..]) => {
                (*first == "*" || first == segment) && matches(filter, name)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn u4_a_filter_matches_as_defined(
            name in "[ab](\\.[ab]){0,3}",
            filter in "[ab*](\\.[ab*]){0,3}(\\.\\*\\*)?",
        ) {
            let (topic, parsed) = (TopicName::new(&name).unwrap(), TopicFilter::new(&filter).unwrap());
            let (names, filters): (Vec<_>, Vec<_>) = (name.split('.').collect(), filter.split('.').collect());
            prop_assert_eq!(parsed.matches(&topic), matches(&filters, &names));
            prop_assert_eq!(parsed.exact().is_some(), !filter.contains('*'));
        }

        #[test]
        fn u4_no_text_does_any_harm(text in ".{0,80}") {
            if let Ok(name) = TopicName::new(&text) {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(TopicFilter::from(name).matches(&name));
            }
            if let Ok(filter) = TopicFilter::new(&text) {
                prop_assert_eq!(filter.as_str(), &text);
            }
        }
    }
}
