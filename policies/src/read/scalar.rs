//! What an unquoted YAML word means to Kubernetes.
//!
//! kubectl, Helm and the API server turn YAML into JSON with `sigs.k8s.io/yaml`, which resolves words by the rules of
//! go-yaml v2 (`go.yaml.in/yaml/v2`, `resolve.go`), a mix of YAML 1.1 and 1.2: `y` is a boolean, `0777` and `0o777` are 511,
//! `08` is 8 (by way of a float), `1_000` is 1000, and a date stays text. Whoever reads `app: y` as a string sees another
//! policy than the cluster does.

use std::borrow::Cow;

/// A word's meaning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// Nothing, `~`, `null`.
    Null,
    /// `y`, `yes`, `on`, `true`, their opposites, and their spellings with capitals.
    Bool(bool),
    /// An integer of 64 bits, or a float without a fraction that fits one (JSON writes both alike).
    Int(i64),
    /// Any other finite number.
    Float(f64),
    /// Text.
    String(&'a str),
}

/// What an explicit tag asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// `!!str`
    Str,
    /// `!!int`
    Int,
    /// `!!float`
    Float,
    /// `!!bool`
    Bool,
    /// `!!null`
    Null,
    /// `!!map`
    Map,
    /// `!!seq`
    Seq,
}

impl Tag {
    const PREFIX: &str = "tag:yaml.org,2002:";

    /// The tag of a full name such as `tag:yaml.org,2002:str`; `None` for a tag that Kubernetes has no use for.
    pub fn of(handle: &str, suffix: &str) -> Option<Self> {
        let name = match handle {
            Self::PREFIX => suffix,
            "" => suffix.strip_prefix(Self::PREFIX)?,
            _ => return None,
        };
        match name {
            "str" => Some(Self::Str),
            "int" => Some(Self::Int),
            "float" => Some(Self::Float),
            "bool" => Some(Self::Bool),
            "null" => Some(Self::Null),
            "map" => Some(Self::Map),
            "seq" => Some(Self::Seq),
            _ => None,
        }
    }

    /// How it is written: `!!str`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Str => "!!str",
            Self::Int => "!!int",
            Self::Float => "!!float",
            Self::Bool => "!!bool",
            Self::Null => "!!null",
            Self::Map => "!!map",
            Self::Seq => "!!seq",
        }
    }
}

/// Why a word has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScalarError {
    /// `.inf` and `.nan` have no JSON form; the API server refuses them.
    #[error("infinity and not-a-number cannot be sent to the API server")]
    NotFinite,
    /// The word is not what its tag says.
    #[error("this is not a value of its tag {}", .0.name())]
    NotOfItsTag(Tag),
}

/// What a scalar means. `plain` is false for quoted and block scalars, which are text unless a tag says otherwise.
///
/// # Errors
/// Infinity, not-a-number, and a word that contradicts its tag.
pub fn resolve(text: &str, plain: bool, tag: Option<Tag>) -> Result<Scalar<'_>, ScalarError> {
    match tag {
        None if plain => word(text),
        None | Some(Tag::Str) => Ok(Scalar::String(text)),
        Some(tag) => {
            let scalar = word(text)?;
            let fits = match scalar {
                Scalar::Null => tag == Tag::Null,
                Scalar::Bool(_) => tag == Tag::Bool,
                Scalar::Int(_) => tag == Tag::Float || (tag == Tag::Int && !is_float(text)),
                Scalar::Float(_) => tag == Tag::Float && is_float(text),
                Scalar::String(_) => false,
            };
            if fits { Ok(scalar) } else { Err(ScalarError::NotOfItsTag(tag)) }
        }
    }
}

/// The text of a map's key in JSON, or `None` where `sigs.k8s.io/yaml` refuses it: null, and integers beyond 63 bits.
///
/// # Errors
/// As [`resolve`].
pub fn key<'a>(text: &'a str, plain: bool, tag: Option<Tag>) -> Result<Option<Cow<'a, str>>, ScalarError> {
    Ok(match resolve(text, plain, tag)? {
        Scalar::Null => None,
        Scalar::Bool(value) => Some(if value { "true" } else { "false" }.into()),
        // Keys are made from the resolved value, not from its JSON form: 1e6 is still a float here.
        Scalar::Int(_) if is_float(text) => {
            parse_float(&text.replace('_', "")).map(float_key).map(Cow::Owned)
        }
        Scalar::Int(value) => Some(value.to_string().into()),
        Scalar::Float(value) if is_float(text) => Some(float_key(value).into()),
        Scalar::Float(_) => None,
        Scalar::String(text) => Some(text.into()),
    })
}

fn word(text: &str) -> Result<Scalar<'_>, ScalarError> {
    let Some(first) = text.bytes().next() else { return Ok(Scalar::Null) };
    let scalar = match first {
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~' => match text {
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
                Scalar::Bool(true)
            }
            "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
                Scalar::Bool(false)
            }
            "~" | "null" | "Null" | "NULL" => Scalar::Null,
            _ => Scalar::String(text),
        },
        b'.' | b'+' | b'-' if not_finite(text) => return Err(ScalarError::NotFinite),
        b'.' => fraction(text).map_or(Scalar::String(text), number),
        b'0'..=b'9' | b'+' | b'-' => digits(text),
        _ => Scalar::String(text),
    };
    Ok(scalar)
}

fn not_finite(text: &str) -> bool {
    matches!(text, ".nan" | ".NaN" | ".NAN")
        || matches!(text.strip_prefix(['+', '-']).unwrap_or(text), ".inf" | ".Inf" | ".INF")
}

/// A word that begins with a point is read by Go's `ParseFloat`, which allows `_` between digits only.
fn fraction(text: &str) -> Option<f64> {
    if !text.contains('_') {
        return parse_float(text);
    }
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let between = (0..bytes.len())
        .filter(|&at| bytes.get(at) == Some(&b'_'))
        .all(|at| digit(at.checked_sub(1)) && digit(at.checked_add(1)));
    if between { parse_float(&text.replace('_', "")) } else { None }
}

/// A word that begins with a digit or a sign: integer, float, or text. Underscores do not count, wherever they are.
fn digits(text: &str) -> Scalar<'_> {
    let without;
    let plain = if text.contains('_') {
        without = text.replace('_', "");
        without.as_str()
    } else {
        text
    };
    match integer(plain) {
        Some(Integer::Fits(value)) => Scalar::Int(value),
        #[expect(
            clippy::cast_precision_loss,
            reason = "JSON readers hold integers beyond 63 bits as floats, too"
        )]
        Some(Integer::Unsigned(value)) => Scalar::Float(value as f64),
        None => parse_float(plain).map_or(Scalar::String(text), number),
    }
}

enum Integer {
    Fits(i64),
    /// 64 bits without a sign.
    Unsigned(u64),
}

/// Go's `ParseInt` with base 0, then `ParseUint`: a sign, then `0x`, `0o`, `0b`, `0` (octal), or decimal.
fn integer(text: &str) -> Option<Integer> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (base, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, unsigned.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, unsigned.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, unsigned.get(2..)?),
        [b'0', _, ..] => (8, unsigned.get(1..)?),
        _ => (10, unsigned),
    };
    // Go takes a sign after `0b`, but not after the other prefixes.
    let (negative, digits) = match digits.as_bytes() {
        [b'-', ..] if base == 2 && text.starts_with("0b") => (true, digits.get(1..)?),
        [b'+', ..] if base == 2 && text.starts_with("0b") => (false, digits.get(1..)?),
        _ => (negative, digits),
    };
    // Rust's parser would take a sign.
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let value = u64::from_str_radix(digits, base).ok()?;
    match (i64::try_from(value), negative) {
        (Ok(value), false) => Some(Integer::Fits(value)),
        (Ok(value), true) => value.checked_neg().map(Integer::Fits),
        (Err(_), true) => (value == i64::MIN.unsigned_abs()).then_some(Integer::Fits(i64::MIN)),
        (Err(_), false) => text.bytes().next()?.is_ascii_digit().then_some(Integer::Unsigned(value)),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?` and finite. Go refuses what overflows; such a word is text.
fn parse_float(text: &str) -> Option<f64> {
    if !text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Whether a word that is a number is a float to go-yaml.
fn is_float(text: &str) -> bool {
    let plain = text.replace('_', "");
    plain.starts_with('.') || integer(&plain).is_none()
}

/// JSON writes a float without a fraction like an integer, below 10^21; the reader then finds an integer.
fn number<'a>(value: f64) -> Scalar<'a> {
    // Both JSON and this write the shortest digits that mean the value, then zeros.
    if value.fract() == 0.0
        && let Ok(integer) = value.to_string().parse()
    {
        return Scalar::Int(integer);
    }
    Scalar::Float(value)
}

/// Go's `FormatFloat(value, 'g', -1, 32)`: the shortest digits of the 32-bit float, with an exponent below 10^-4 and from
/// 10^6 on; and `.inf` where 32 bits do not suffice.
fn float_key(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "the original rounds to 32 bits as well")]
    let value = value as f32;
    if value.is_infinite() {
        return if value > 0.0 { ".inf" } else { "-.inf" }.into();
    }
    let short = format!("{value:e}");
    let (mantissa, exponent) = short.split_once('e').unwrap_or((&short, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests;
