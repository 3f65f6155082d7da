//! The canonical form against Python's own writer, against documents written to hurt it, and against chance. (That it is
//! what the original systems sign, the recorded messages show: `bettensor_vectors`.)

mod json;

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use bowline::SplitMix64;
use bowline::wire::canonical::{self, MAX_DEPTH, MAX_DIGITS, MAX_TEXT, Uncanonical};
use proptest::prelude::*;

use self::json::{Json, marred};

#[test]
fn keys_are_sorted_by_code_point_however_they_are_spelt() {
    let keys = [
        "", "\\u0000", "\\n", " ", "!", "A", "Z", "a", "aa", "b", "\u{7f}", "é", "\u{d7ff}", "\\uD800", "\\udfff",
        "\u{e000}", "\\uffff", "😀",
    ];
    let text = |keys: &mut dyn Iterator<Item = &&str>| {
        format!("{{{}}}", keys.map(|key| format!("\"{key}\":0")).collect::<Vec<String>>().join(","))
    };
    let form = canonical::value(&text(&mut keys.iter())).unwrap();
    assert_eq!(canonical::value(&text(&mut keys.iter().rev())).unwrap(), form);
    let spelt: Vec<&str> = form[2..form.len() - 5].split("\": 0, \"").collect();
    let ascii = [
        "",
        "\\u0000",
        "\\n",
        " ",
        "!",
        "A",
        "Z",
        "a",
        "aa",
        "b",
        "\\u007f",
        "\\u00e9",
        "\\ud7ff",
        "\\ud800",
        "\\udfff",
        "\\ue000",
        "\\uffff",
        "\\ud83d\\ude00",
    ];
    assert_eq!(spelt, ascii);
    for (one, same) in [("é", "\\u00E9"), ("😀", "\\ud83D\\uDe00"), ("\\n", "\\u000a"), ("/", "\\/"), ("", "")] {
        assert_eq!(canonical::value(&text(&mut [one, "x", same].iter())), Err(Uncanonical::Twice));
    }
}

#[test]
fn fields_are_left_out_by_what_they_are_called_and_at_the_top_only() {
    let object = r#"{"b":1,"\u0061":{"a":2,"c":3},"c":[]}"#;
    assert_eq!(canonical::without(object, &["a"]).unwrap(), r#"{"b": 1, "c": []}"#);
    assert_eq!(canonical::only(object, &["a"]).unwrap(), r#"{"a": {"a": 2, "c": 3}}"#);
    assert_eq!(canonical::only(object, &["aa", ""]).unwrap(), "{}");
    assert_eq!(canonical::without(object, &["a", "b", "c"]).unwrap(), "{}");
    assert_eq!(canonical::without(" { } ", &["a"]).unwrap(), "{}");
    assert_eq!(canonical::without(r#"{"a":1,"a":1}"#, &["a"]), Err(Uncanonical::Twice));
    for other in ["[]", "7", "\"{\"", "null", ""] {
        assert_eq!(canonical::without(other, &[]), Err(Uncanonical::Json), "{other}");
        assert_eq!(canonical::only(other, &[]), Err(Uncanonical::Json), "{other}");
    }
}

#[test]
fn what_no_two_readers_agree_on_is_refused() {
    for (text, why) in [
        ("NaN", Uncanonical::Json),
        ("[Infinity]", Uncanonical::Json),
        ("-Infinity", Uncanonical::Json),
        ("1e999", Uncanonical::Number),
        ("[0,-1.8e308]", Uncanonical::Number),
        (&"7".repeat(MAX_DIGITS + 1), Uncanonical::Number),
        (r#"{"a":1,"a":1}"#, Uncanonical::Twice),
        (r#"[{"a":{"b":1,"a":0,"b":2}}]"#, Uncanonical::Twice),
    ] {
        assert_eq!(canonical::value(text), Err(why), "{text}");
    }
}

#[test]
fn g4_a_text_of_the_longest_is_written_and_a_longer_one_refused() {
    assert_eq!(canonical::value(&(" ".repeat(MAX_TEXT - 1) + "7")).as_deref(), Ok("7"));
    assert_eq!(canonical::value(&(" ".repeat(MAX_TEXT) + "7")), Err(Uncanonical::Long));
}

/// What grows most, what has the largest index, and what is hardest to sort: each would take minutes if anything were
/// quadratic.
#[test]
fn g4_hostile_texts_of_a_megabyte_take_no_longer_than_others() {
    let size = 1_000_000;
    assert_eq!(canonical::value(&format!("\"{}\"", "\u{7f}".repeat(size))).unwrap().len(), 2 + 6 * size);
    let objects = format!("[{}{{}}]", r#"{"":0},"#.repeat(size / 7));
    assert_eq!(canonical::value(&objects).unwrap(), objects.replace(':', ": ").replace(',', ", "));
    let prefix = "p".repeat(1000);
    let members = |order: &mut dyn Iterator<Item = usize>| {
        let member = |n: usize| format!("\"{prefix}{n:04}\":{{\"b\":{n},\"a\":0}}");
        format!("{{{}}}", order.map(member).collect::<Vec<String>>().join(","))
    };
    let [up, down] = [members(&mut (0..1000)), members(&mut (0..1000).rev())];
    assert_eq!(canonical::value(&up).unwrap(), canonical::value(&down).unwrap());
    let rungs = MAX_DEPTH - 1;
    let rung = |level: usize| "x".repeat(size / rungs) + &level.to_string();
    let ladder =
        (1..=rungs).fold(String::from("[0]"), |inner, level| format!(r#"{{"z":{inner},"a":"{}"}}"#, rung(level)));
    let form =
        (1..=rungs).fold(String::from("[0]"), |inner, level| format!(r#"{{"a": "{}", "z": {inner}}}"#, rung(level)));
    assert_eq!(canonical::value(&ladder).unwrap(), form);
}

/// What Python writes for each document, `None` where it raises; or no answer at all, if there is no Python.
fn python(documents: &[String]) -> Option<Vec<Option<String>>> {
    const PROGRAM: &str = "
import json, sys
for line in sys.stdin.buffer.read().decode().split('\\n'):
    try:
        message = json.loads(line)
        message.pop('signature', None)
        print(json.dumps(message, sort_keys=True))
    except (ValueError, AttributeError, TypeError, IndexError, RecursionError):
        print()
";
    let python = std::env::var_os("BOWLINE_PYTHON").unwrap_or_else(|| "python3".into());
    let piped = Command::new(python).args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match piped {
        Ok(child) => child,
        Err(why) if why.kind() == ErrorKind::NotFound && std::env::var_os("BOWLINE_REQUIRE_PEERS").is_none() => {
            return None;
        }
        Err(why) => panic!("no Python to compare with: {why}"),
    };
    child.stdin.take().unwrap().write_all(documents.join("\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let forms: Vec<_> = lines.lines().map(|form| (!form.is_empty()).then(|| form.to_owned())).collect();
    assert_eq!(forms.len(), documents.len());
    Some(forms)
}

#[test]
fn pythons_own_writer_agrees_on_thousands_of_documents() {
    let mut rng = SplitMix64::new(20_261_120);
    let mut documents: Vec<String> = Vec::new();
    for n in 0..3000 {
        let mut fields = match Json::object(&mut rng, 5) {
            Json::Object(fields) => fields,
            _ => unreachable!(),
        };
        if n % 2 == 0 {
            fields.insert("signature".chars().map(u32::from).collect(), Json::any(&mut rng, 1));
        }
        documents.push(Json::Object(fields).spelt(rng.next_u64()));
    }
    let sound = documents.len();
    let marred: Vec<String> = documents.iter().map(|document| marred(&mut rng, document)).collect();
    documents.extend(marred);
    let Some(forms) = python(&documents) else {
        println!("skipped: there is no python3 here, and BOWLINE_PYTHON names no other");
        return;
    };
    let (mut refused, mut stricter) = (0, 0);
    for (n, (document, form)) in documents.iter().zip(&forms).enumerate() {
        match (canonical::without(document, &["signature"]), form) {
            (Ok(ours), Some(form)) => assert_eq!(&ours, form, "{document}"),
            (Err(_), None) => refused += 1,
            // These are the differences we mean, and there is no other.
            (Err(Uncanonical::Twice), Some(_)) => stricter += 1,
            (Err(Uncanonical::Number), Some(form)) if form.contains("Infinity") => stricter += 1,
            (ours, form) => panic!("{document}\nours {ours:?}\ntheirs {form:?}"),
        }
        assert!(n >= sound || form.is_some(), "{document}");
    }
    println!("{} agreed, {refused} refused by both, {stricter} by us alone", documents.len() - refused - stricter);
    assert!((1000..2900).contains(&refused), "{refused}: the marred ones prove little");
}

#[test]
fn python_refuses_what_we_say_it_refuses() {
    let documents = [
        r#"{"a":[NaN,-Infinity,1e999]}"#.to_owned(),
        r#"{"a":1,"a":{"b":2}}"#.to_owned(),
        format!(r#"{{"a":{}}}"#, "9".repeat(MAX_DIGITS)),
        format!(r#"{{"a":-{}}}"#, "9".repeat(MAX_DIGITS)),
        format!(r#"{{"a":{}}}"#, "9".repeat(MAX_DIGITS + 1)),
        "\u{feff}{}".to_owned(),
        r#"{"a":"\u00zz"}"#.to_owned(),
        "{\"a\":\"\t\"}".to_owned(),
    ];
    let Some(forms) = python(&documents) else {
        println!("skipped: there is no python3 here, and BOWLINE_PYTHON names no other");
        return;
    };
    assert_eq!(forms[0].as_deref(), Some(r#"{"a": [NaN, -Infinity, Infinity]}"#), "so nobody else could verify it");
    assert_eq!(forms[1].as_deref(), Some(r#"{"a": {"b": 2}}"#), "it keeps the last");
    let ours: Vec<Option<String>> = documents.iter().map(|document| canonical::value(document).ok()).collect();
    assert_eq!(ours[..2], [None, None]);
    assert_eq!(ours[2..4], forms[2..4]);
    assert!(forms[2].is_some());
    // A Python before 3.11 has no limit.
    assert_eq!(ours[4], None);
    assert_eq!((&ours[5..], &forms[5..]), ([None, None, None].as_slice(), [None, None, None].as_slice()));
}

proptest! {
    #[test]
    fn the_form_does_not_depend_on_order_spacing_and_escapes(seed in any::<u64>(), one in any::<u64>(), other in any::<u64>()) {
        let json = Json::any(&mut SplitMix64::new(seed), 5);
        let form = canonical::value(&json.spelt(one)).unwrap();
        prop_assert_eq!(&canonical::value(&json.spelt(other)).unwrap(), &form);
        prop_assert_eq!(&canonical::value(&form).unwrap(), &form);
        prop_assert!(form.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
}
