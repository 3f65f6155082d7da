//! Random JSON: values as Python has them, their many spellings, and documents with a mistake.

use std::collections::BTreeMap;

use bowline::SplitMix64;

/// Any JSON value Python can read and write.
pub(super) enum Json {
    Word(&'static str),
    Integer(String),
    Float(f64),
    /// Code points, half pairs among them.
    Text(Vec<u32>),
    List(Vec<Self>),
    Object(BTreeMap<Vec<u32>, Self>),
}

/// One of these.
fn pick<T: Copy>(rng: &mut SplitMix64, from: &[T]) -> T {
    from[rng.up_to(from.len() as u64 - 1) as usize]
}

impl Json {
    pub(super) fn any(rng: &mut SplitMix64, depth: u64) -> Self {
        match rng.up_to(if depth == 0 { 6 } else { 9 }) {
            0 => Self::Word(pick(rng, &["null", "true", "false"])),
            1 | 2 => Self::integer(rng),
            3 | 4 => Self::Float(float(rng)),
            5 | 6 => Self::Text(text(rng)),
            7 => Self::List((0..rng.up_to(5)).map(|_| Self::any(rng, depth - 1)).collect()),
            _ => Self::object(rng, depth),
        }
    }

    pub(super) fn object(rng: &mut SplitMix64, depth: u64) -> Self {
        Self::Object((0..rng.up_to(6)).map(|_| (text(rng), Self::any(rng, depth - 1))).collect())
    }

    fn integer(rng: &mut SplitMix64) -> Self {
        let sign = pick(rng, &["", "-"]);
        let first = rng.up_to(9);
        let digits = if first == 0 { 0 } else { pick(rng, &[0, 1, 3, 18, 60]) };
        let rest: String = (0..digits).map(|_| rng.up_to(9).to_string()).collect();
        Self::Integer(format!("{sign}{first}{rest}"))
    }

    /// One of the many texts that mean this.
    fn spell(&self, rng: &mut SplitMix64, out: &mut String) {
        match self {
            Self::Word(word) => out.push_str(word),
            Self::Integer(digits) => out.push_str(digits),
            Self::Float(float) => out.push_str(&spell_float(rng, *float)),
            Self::Text(points) => spell_text(rng, points, out),
            Self::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    space(rng, out);
                    item.spell(rng, out);
                    space(rng, out);
                }
                space(rng, out);
                out.push(']');
            }
            Self::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                for i in 1..members.len() {
                    members.swap(i, rng.up_to(i as u64) as usize);
                }
                out.push('{');
                for (i, (name, value)) in members.into_iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    space(rng, out);
                    spell_text(rng, name, out);
                    space(rng, out);
                    out.push(':');
                    space(rng, out);
                    value.spell(rng, out);
                    space(rng, out);
                }
                space(rng, out);
                out.push('}');
            }
        }
    }

    pub(super) fn spelt(&self, seed: u64) -> String {
        let (mut rng, mut out) = (SplitMix64::new(seed), String::new());
        space(&mut rng, &mut out);
        self.spell(&mut rng, &mut out);
        space(&mut rng, &mut out);
        out
    }
}

/// No line feed, so that a document is a line.
fn space(rng: &mut SplitMix64, out: &mut String) {
    out.push_str(pick(rng, &["", "", "", " ", "\t", "\r", " \r\t  "]));
}

fn text(rng: &mut SplitMix64) -> Vec<u32> {
    let mut points = Vec::new();
    for _ in 0..rng.up_to(6) {
        let edge =
            [0x22, 0x2f, 0x5c, 0x7e, 0x7f, 0x80, 0xff, 0x2028, 0xd7ff, 0xe000, 0xfeff, 0xffff, 0x1_0000, 0x10_ffff];
        match rng.up_to(9) {
            0 => points.push(rng.up_to(0x1f) as u32),
            1 => points.push(pick(rng, &edge)),
            2 => points.push(0x80 + rng.up_to(0x7ff) as u32),
            3 => points.push(0x1_f600 + rng.up_to(0x4f) as u32),
            // Not followed by the other half, or it would be a whole pair.
            4 => points.extend([0xd800 + rng.up_to(0x7ff) as u32, u32::from(b'x')]),
            _ => points.push(0x20 + rng.up_to(0x5e) as u32),
        }
    }
    points
}

fn spell_text(rng: &mut SplitMix64, points: &[u32], out: &mut String) {
    out.push('"');
    for point in points {
        let c = char::from_u32(*point);
        let short = match point {
            0x22 => "\\\"",
            0x5c => "\\\\",
            0x2f => "\\/",
            0x08 => "\\b",
            0x09 => "\\t",
            0x0a => "\\n",
            0x0c => "\\f",
            0x0d => "\\r",
            _ => "",
        };
        match (c, rng.up_to(3)) {
            (Some(c), 0..=2) if *point >= 0x20 && c != '"' && c != '\\' => out.push(c),
            (_, 0 | 1) if !short.is_empty() => out.push_str(short),
            (Some(c), n) => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| push_unit(out, *unit, n)),
            (None, n) => push_unit(out, u16::try_from(*point).unwrap(), n),
        }
    }
    out.push('"');
}

fn push_unit(out: &mut String, unit: u16, n: u64) {
    out.push_str(&if n.is_multiple_of(2) { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") });
}

/// Floats as they are met, and all those where a spelling changes.
fn float(rng: &mut SplitMix64) -> f64 {
    let around = |rng: &mut SplitMix64, float: f64| f64::from_bits(float.to_bits() + rng.up_to(6) - 3);
    let float = match rng.up_to(10) {
        0 => pick(rng, &[0.0, 1.0, 5e-324, 2.225_073_858_507_201e-308, f64::MAX, f64::MIN_POSITIVE, 0.1, 1.0 / 3.0]),
        1 => around(rng, 1e-4),
        2 => around(rng, 1e16),
        3 => around(rng, 9_007_199_254_740_992.0),
        4 | 5 => (rng.up_to(1_000_000) as f64) / 1000.0,
        6 => {
            let exponent = i32::try_from(rng.up_to(600)).unwrap() - 300;
            let power: f64 = format!("1e{exponent}").parse().unwrap();
            around(rng, power)
        }
        // Times of day; those of the second kind lie halfway between two of 17 digits.
        7 => 1_795_212_930.0 + rng.up_to(1 << 30) as f64 / 1_048_576.0,
        8 => 1_795_212_930.0 + (2 * rng.up_to(1 << 20) + 1) as f64 / 256.0,
        _ => f64::from_bits(rng.next_u64()),
    };
    let sign = if rng.up_to(1) == 0 { 1.0 } else { -1.0 };
    if float.is_finite() { float * sign } else { 1.5 }
}

fn spell_float(rng: &mut SplitMix64, float: f64) -> String {
    let scientific = format!("{float:e}");
    match rng.up_to(5) {
        0 => format!("{float:?}"),
        1 => scientific,
        2 => scientific.to_uppercase(),
        3 => format!("{float:.30e}"),
        4 => {
            let (digits, exponent) = scientific.split_once('e').unwrap();
            let dot = if digits.contains('.') { "" } else { "." };
            let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |exponent| ("-", exponent));
            format!("{digits}{dot}000e{sign}00{exponent}")
        }
        _ if float == 0.0 || (1e-9..1e20).contains(&float.abs()) => {
            let decimal = format!("{float}");
            if decimal.contains('.') { decimal + "00" } else { decimal + ".000" }
        }
        _ => scientific,
    }
}

/// A document with one mistake, or none that matters.
pub(super) fn marred(rng: &mut SplitMix64, document: &str) -> String {
    let mut chars: Vec<char> = document.chars().collect();
    for _ in 0..=rng.up_to(1) {
        let at = rng.up_to(chars.len() as u64) as usize;
        let syntax: Vec<char> = "{}[]\",:\\0-+1.eEuNtd8 \u{1}\u{a0}é/".chars().collect();
        match rng.up_to(2) {
            0 => chars.insert(at, pick(rng, &syntax)),
            1 if at < chars.len() => chars[at] = pick(rng, &syntax),
            _ if at < chars.len() => drop(chars.remove(at)),
            _ => chars.push('x'),
        }
    }
    chars.into_iter().collect()
}
