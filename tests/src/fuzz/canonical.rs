//! The canonical form of any text: it is a form, it says what the text said, and another spelling of the text has the same.

use bowline::wire::canonical::{self, Uncanonical};
use serde_json::Value;
use serde_json::value::RawValue;

pub(super) fn run(input: &[u8]) {
    let Ok(text) = core::str::from_utf8(input) else { return };
    let json = serde_json::from_str::<&RawValue>(text).is_ok();
    let form = canonical::value(text);
    assert_eq!(form == Err(Uncanonical::Json), !json, "every JSON text and no other has a form, or a reason: {form:?}");
    let spaced = text.replace(['\n', '\r', '\t'], " ");
    if json {
        assert_eq!(canonical::value(&format!(" \r\n{spaced}\t")), form, "white space shows");
    }
    let Ok(form) = form else { return };
    assert!(form.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "beyond ASCII: {form}");
    assert_eq!(canonical::value(&form).as_deref(), Ok(form.as_str()), "the form of a form is another");
    assert!(is_sorted(&form), "the names are not sorted: {form}");
    // Half of a pair is no text to this reader.
    if let (Ok(said), Ok(says)) = (serde_json::from_str::<Value>(text), serde_json::from_str::<Value>(&form)) {
        assert!(same(&said, &says), "it says something else: {form}");
    }
    // Without an object there is no other order.
    if !text.contains('{') {
        let floats = |text: &str| -> Vec<u64> {
            numbers(text).map(|number| number.parse::<f64>().expect("a number")).map(|f| (f + 0.0).to_bits()).collect()
        };
        assert_eq!(floats(text), floats(&form), "another number: {form}");
    }
    let whole = canonical::without(text, &[]);
    assert_eq!(whole.is_ok(), form.starts_with('{'), "only an object has members");
    let Ok(whole) = whole else { return };
    assert_eq!(whole, form);
    assert_eq!(canonical::only(text, &[]).as_deref(), Ok("{}"));
    for name in ["signature", "a", ""] {
        let (with, without) = (canonical::only(text, &[name]), canonical::without(text, &[name]));
        let (Ok(with), Ok(without)) = (with, without) else { panic!("a part of {form} has no form") };
        let parts = [&with, &without].map(|part| part.len() - "{}".len());
        let between = if parts.contains(&0) { 0 } else { ", ".len() };
        assert_eq!(parts.iter().sum::<usize>() + between + "{}".len(), form.len(), "{with} and {without}");
        assert!(canonical::value(&with).as_ref() == Ok(&with) && canonical::value(&without).as_ref() == Ok(&without));
    }
}

/// Equal but for the sign of a zero (`-0` is an integer here, and a float to the other reader) and for the last bit of a
/// float, which that reader may get wrong.
pub(super) fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(a), Value::Number(b)) => {
            let near = |(a, b): (f64, f64)| a == b || (a - b).abs() <= a.abs().max(b.abs()) * 4.0 * f64::EPSILON;
            a == b || a.as_f64().zip(b.as_f64()).is_some_and(near)
        }
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len() && one.iter().all(|(name, one)| two.get(name).is_some_and(|two| same(one, two)))
        }
        _ => one == two,
    }
}

/// The numbers of a JSON text, in their order.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    // Between quotation marks that are not escaped lie strings.
    let mut inside = false;
    let mut escaped = false;
    let outside = text.split(move |c: char| {
        let mark = c == '"' && !escaped;
        escaped = inside && c == '\\' && !escaped;
        inside ^= mark;
        inside || !(c.is_ascii_digit() || "+-.eE".contains(c))
    });
    outside.filter(|token| token.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
}

/// Whether the names in each object of a form grow, by code points.
fn is_sorted(form: &str) -> bool {
    // For each open array or object: the last name, where it is an object.
    let mut open: Vec<Option<Vec<u32>>> = Vec::new();
    let (mut rest, mut before) = (form, ' ');
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '{' | '[' => open.push(None),
            '}' | ']' => drop(open.pop()),
            '"' => {
                let text = rest;
                while !rest.starts_with('"') {
                    rest = &rest[if rest.starts_with('\\') { 2 } else { 1 }..];
                }
                let name = points(&text[..text.len() - rest.len()]);
                rest = &rest[1..];
                if rest.starts_with(": ") && "{,".contains(before) {
                    let Some(last) = open.last_mut() else { return false };
                    if last.as_ref().is_some_and(|last| *last >= name) {
                        return false;
                    }
                    *last = Some(name);
                }
            }
            _ => {}
        }
        before = if c == ' ' { before } else { c };
    }
    true
}

/// The code points of a JSON string; half a pair of surrogates is one.
fn points(text: &str) -> Vec<u32> {
    let mut units = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        units.push(match (c, if c == '\\' { rest.next() } else { None }) {
            (_, Some('u')) => {
                let digits: String = rest.by_ref().take(4).collect();
                u16::from_str_radix(&digits, 16).expect("four digits")
            }
            (_, Some('n')) => 10,
            (_, Some('r')) => 13,
            (_, Some('t')) => 9,
            (_, Some('b')) => 8,
            (_, Some('f')) => 12,
            (_, Some(other)) | (other, None) => u16::try_from(u32::from(other)).expect("ASCII"),
        });
    }
    char::decode_utf16(units)
        .map(|point| point.map_or_else(|half| u32::from(half.unpaired_surrogate()), u32::from))
        .collect()
}
