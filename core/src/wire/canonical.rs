//! The canonical form of JSON that signatures are made over: what Python's `json.dumps(value, sort_keys=True)` writes.
//!
//! It decides, for a text that came from anywhere, which bytes a Python peer signed, in two passes with an index between
//! them:
//!
//! ```text
//! text ──▶ JSON? ──▶ index: where each object's members lie, sorted ──▶ written in that order
//!            │            │                                               │
//!            Json, Long   Deep, Twice                                     Number
//!
//! {"é":1,"a":[1E16,"/"],"Z":-0}        {"Z": 0, "a": [1e+16, "/"], "\u00e9": 1}
//! ```
//!
//! * Members are sorted by the code points of their names, at every level; the separators are `", "` and `": "`.
//! * Text is ASCII: all but `' '` to `'~'` is written `\n \r \t \b \f` or `\u00e9`, lower-case, beyond the basic plane as
//!   a pair. Half a pair stays one, as in Python. `/` is not escaped, DEL is.
//! * A number without `.` and exponent is an integer of any size, and stays as it is, but for `-0`, which is `0`. Any
//!   other is the shortest decimal of its `f64`: `1.0`, `1e-07`, `1e+16`, `-0.0`; with an exponent below 10⁻⁴ and from 10¹⁶.
//!
//! Invariants: no panic for any text; time n log n; memory of the order of ten times the text, recursion of [`MAX_DEPTH`].
//! The form of a form is itself, and the order and spacing of what came do not show in it.
//!
//! It is stricter than Python, where readers would disagree on what was signed: we refuse `NaN` and `Infinity`, which are
//! no JSON, numbers that overflow to them (`1e999`), and names that occur twice in an object (Python takes the last).
//! Python refuses nesting beyond about 1,000 levels, we beyond [`MAX_DEPTH`]; both refuse integers over [`MAX_DIGITS`].
//!
//! Field facts this guards against:
//! * the validator reads a message and writes it anew before it verifies, so a signature over the bytes of the frame, or
//!   over another language's spelling of `1e-7`, never holds;
//! * where two shortest decimals are equally near, Python takes the even one and others the upper one, Rust among them:
//!   that is one in ten thousand times of day (`1795213203.00390625`), whose message would be refused for ever.

mod spelling;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde_json::value::RawValue;

use self::spelling::{Points, is, push_point, push_scalar, push_string};
use super::WHITE;

/// How deep arrays and objects may nest; what the systems we know send has five levels.
pub const MAX_DEPTH: usize = 64;
/// The longest text in bytes, 16 MiB: the most that a validator reads.
pub const MAX_TEXT: usize = 16 << 20;
/// The most digits of an integer: Python's own limit since 3.11.
pub const MAX_DIGITS: usize = 4300;

/// Why a text has no canonical form.
///
/// ```
/// use bowline::wire::canonical::{self, Uncanonical};
/// assert_eq!(canonical::value("[NaN]"), Err(Uncanonical::Json));
/// assert_eq!(canonical::value(r#"{"a":1,"\u0061":2}"#), Err(Uncanonical::Twice));
/// assert_eq!(canonical::value("1e999"), Err(Uncanonical::Number));
/// assert_eq!(Uncanonical::Deep.to_string(), "nested deeper than 64 levels");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Uncanonical {
    /// Not one JSON value, or not an object where there must be one.
    Json,
    /// An object with two members of one name.
    Twice,
    /// More than [`MAX_DEPTH`] levels.
    Deep,
    /// An integer of more than [`MAX_DIGITS`] digits, or a number too large for an `f64`.
    Number,
    /// More than [`MAX_TEXT`] bytes.
    Long,
}

impl fmt::Display for Uncanonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json => f.write_str("not one JSON value, or not an object"),
            Self::Twice => f.write_str("a name that occurs twice in an object"),
            Self::Deep => write!(f, "nested deeper than {MAX_DEPTH} levels"),
            Self::Number => write!(f, "an integer of more than {MAX_DIGITS} digits or a number beyond all floats"),
            Self::Long => write!(f, "longer than {MAX_TEXT} bytes"),
        }
    }
}

impl core::error::Error for Uncanonical {}

/// The canonical form of any JSON value.
///
/// ```
/// use bowline::wire::canonical;
/// let form = r#"{"Z": 0, "a": [1e+16, 0.1, "/\n"], "\u00e9": "\ud83d\ude00"}"#;
/// assert_eq!(canonical::value(r#"{"é":"😀","a":[1E16,0.10,"\/\u000A"],"Z":-0}"#).as_deref(), Ok(form));
/// ```
///
/// # Errors
///
/// [`Uncanonical`] says what is wrong with the text.
pub fn value(json: &str) -> Result<String, Uncanonical> {
    form(json, 0, None)
}

/// The canonical form of an object, of its own members only those that are not listed.
///
/// ```
/// use bowline::wire::canonical;
/// let form = canonical::without(r#"{"signature":"00","nonce":"1","a":{"signature":1}}"#, &["signature"]);
/// assert_eq!(form.as_deref(), Ok(r#"{"a": {"signature": 1}, "nonce": "1"}"#));
/// ```
///
/// # Errors
///
/// [`Uncanonical`] says what is wrong with the text.
pub fn without(object: &str, names: &[&str]) -> Result<String, Uncanonical> {
    form(object, 0, Some(&|key| !names.iter().any(|name| is(&key, name))))
}

/// The canonical form of an object, of its own members only those that are listed.
///
/// ```
/// use bowline::wire::canonical;
/// let form = canonical::only(r#"{"signature":"00","nonce":"1","a":{}}"#, &["nonce", "b"]);
/// assert_eq!(form.as_deref(), Ok(r#"{"nonce": "1"}"#));
/// ```
///
/// # Errors
///
/// [`Uncanonical`] says what is wrong with the text.
pub fn only(object: &str, names: &[&str]) -> Result<String, Uncanonical> {
    form(object, 0, Some(&|key| names.iter().any(|name| is(&key, name))))
}

/// The canonical form of a value that goes so many levels deep into a larger one.
pub(super) fn inner(json: &str, levels: usize) -> Result<String, Uncanonical> {
    form(json, levels, None)
}

/// The canonical form of an object that goes so many levels deep into a larger value.
pub(super) fn inner_object(json: &str, levels: usize) -> Result<String, Uncanonical> {
    form(json, levels, Some(&|_| true))
}

/// A text as a JSON string.
pub(super) fn string(text: &str) -> String {
    let mut out = String::from('"');
    text.chars().for_each(|c| push_point(&mut out, c.into()));
    out.push('"');
    out
}

/// Which members of the outermost object to keep, by name.
type Keep<'k> = Option<&'k dyn Fn(Points<'_>) -> bool>;

fn form(json: &str, levels: usize, keep: Keep<'_>) -> Result<String, Uncanonical> {
    if json.len() > MAX_TEXT {
        return Err(Uncanonical::Long);
    }
    // From here on the text is known to be JSON, and whatever a `?` or a default below stands for cannot happen.
    let text = serde_json::from_str::<&RawValue>(json).map_err(|_| Uncanonical::Json)?.get();
    let mut index = Index::of(text, MAX_DEPTH.saturating_sub(levels))?;
    if let Some(keep) = keep {
        if !text.starts_with('{') {
            return Err(Uncanonical::Json);
        }
        index.keep(keep);
    }
    let mut out = String::with_capacity(text.len());
    index.write(&mut out, text)?;
    Ok(out)
}

/// Where a member lies in the text: its name after the quotation mark, its value after the colon.
#[derive(Clone, Copy)]
struct Member {
    name: u32,
    value: u32,
}

/// An object that is not empty: where it begins, where the text goes on after it, and which members it has.
struct Object {
    begin: u32,
    after: u32,
    first: u32,
    last: u32,
}

/// The objects in the order in which they begin, and the members of each together, sorted.
struct Index<'a> {
    text: &'a str,
    objects: Vec<Object>,
    members: Vec<Member>,
}

impl<'a> Index<'a> {
    fn of(text: &'a str, levels: usize) -> Result<Self, Uncanonical> {
        let mut index = Self { text, objects: Vec::new(), members: Vec::new() };
        // For each array or object that is open: its place among the objects, and where its own members begin in `found`.
        let mut open: Vec<(usize, usize)> = Vec::new();
        let mut found: Vec<Member> = Vec::new();
        let (mut rest, mut name) = (text, 0);
        while let Some((token, after)) = first(rest) {
            let begin = rest;
            rest = after;
            match token {
                '{' | '[' if open.len() >= levels => return Err(Uncanonical::Deep),
                '{' => match after.trim_start_matches(WHITE).strip_prefix('}') {
                    Some(after) => rest = after,
                    None => {
                        open.push((index.objects.len(), found.len()));
                        let begin = index.offset(begin);
                        index.objects.push(Object { begin, after: 0, first: 0, last: 0 });
                    }
                },
                '[' => open.push((0, 0)),
                ']' => drop(open.pop()),
                '}' => {
                    let (object, own) = open.pop().unwrap_or_default();
                    index.close(object, found.get_mut(own..).unwrap_or_default(), index.offset(after))?;
                    found.truncate(own);
                }
                '"' => {
                    name = index.offset(after);
                    rest = Points::of(after).rest();
                }
                ':' => found.push(Member { name, value: index.offset(after) }),
                // White space, a comma, or a character of a number or a word.
                _ => {}
            }
        }
        Ok(index)
    }

    /// An object ends: its own members, all found now, are sorted and told from each other.
    fn close(&mut self, object: usize, own: &mut [Member], after: u32) -> Result<(), Uncanonical> {
        let name = |member: &Member| Points::of(self.at(member.name));
        own.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        if own.windows(2).any(|pair| matches!(pair, [a, b] if name(a).eq(name(b)))) {
            return Err(Uncanonical::Twice);
        }
        let first = narrow(self.members.len());
        self.members.extend_from_slice(own);
        let last = narrow(self.members.len());
        if let Some(object) = self.objects.get_mut(object) {
            *object = Object { begin: object.begin, after, first, last };
        }
        Ok(())
    }

    /// Forgets members of the outermost object. It began first and ended last, so they lie behind all others.
    fn keep(&mut self, keep: &dyn Fn(Points<'_>) -> bool) {
        let Some(outermost) = self.objects.first_mut() else { return };
        let own = self.members.split_off(wide(outermost.first).min(self.members.len()));
        self.members.extend(own.into_iter().filter(|member| keep(Points::of(tail(self.text, member.name)))));
        outermost.last = narrow(self.members.len());
    }

    /// Writes the value with which `rest` begins, and gives back the text after it. As deep as the index found the text.
    fn write(&self, out: &mut String, rest: &'a str) -> Result<&'a str, Uncanonical> {
        let rest = rest.trim_start_matches(WHITE);
        let (token, after) = first(rest).unwrap_or_default();
        match token {
            '{' => {
                let (members, after) = self.object(rest);
                let mut separator = "{";
                for member in members {
                    out.push_str(separator);
                    push_string(out, self.at(member.name));
                    out.push_str(": ");
                    self.write(out, self.at(member.value))?;
                    separator = ", ";
                }
                out.push_str(if members.is_empty() { "{}" } else { "}" });
                Ok(after)
            }
            '[' => {
                out.push('[');
                let mut rest = after.trim_start_matches(WHITE);
                while let Some((token, after)) = first(rest)
                    && token != ']'
                {
                    if token == ',' {
                        out.push_str(", ");
                        rest = after;
                    }
                    rest = self.write(out, rest)?.trim_start_matches(WHITE);
                }
                out.push(']');
                Ok(first(rest).unwrap_or_default().1)
            }
            '"' => Ok(push_string(out, after)),
            _ => {
                let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
                let (scalar, after) = rest.split_at_checked(end).unwrap_or_default();
                push_scalar(out, scalar)?;
                Ok(after)
            }
        }
    }

    /// The members of the object with which `rest` begins, and the text after it.
    fn object(&self, rest: &'a str) -> (&[Member], &'a str) {
        let begin = self.offset(rest);
        let known = self.objects.binary_search_by_key(&begin, |object| object.begin);
        match known.ok().and_then(|place| self.objects.get(place)) {
            Some(object) => {
                let members = self.members.get(wide(object.first)..wide(object.last));
                (members.unwrap_or_default(), self.at(object.after))
            }
            // Only an empty one has no entry.
            None => (&[], rest.split_once('}').unwrap_or_default().1),
        }
    }

    /// Where in the text its tail `rest` begins.
    fn offset(&self, rest: &str) -> u32 {
        narrow(self.text.len().saturating_sub(rest.len()))
    }

    fn at(&self, offset: u32) -> &'a str {
        tail(self.text, offset)
    }
}

fn tail(text: &str, offset: u32) -> &str {
    text.get(wide(offset)..).unwrap_or_default()
}

/// An offset; [`MAX_TEXT`] leaves room for it.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

fn wide(offset: u32) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// The first character and what comes after it.
fn first(text: &str) -> Option<(char, &str)> {
    let mut chars = text.chars();
    chars.next().map(|c| (c, chars.as_str()))
}
