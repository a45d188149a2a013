//! What a worker tells of where an attempt's time went, and of how much it did: names of closed lists, and numbers. Hostile, on
//! both ways that it takes (codec → supervisor → broker).
//!
//! A worker names no trace, no tenant, no pool and no attempt: those are the broker's to say. Each name is told once for an attempt,
//! so that there are never more spans than names. Times are offsets; whoever takes them holds them to what it has seen itself.

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// What a span of a worker is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanName {
    /// The codec process was started.
    Launch,
    /// It locked itself, and was looked at from outside.
    Lock,
    /// It ran, from its task to its exit.
    Codec,
    /// Inputs were fetched: from the first byte to the last.
    Fetch,
    /// Outputs were sent: from the first part to the last.
    Upload,
    /// Of the codec: inputs were opened and streams found.
    Open,
    /// Of the codec: an input was described.
    Probe,
    /// Of the codec: packets were read and decoded.
    Decode,
    /// Of the codec: pictures and sound were encoded, until the last encoder was done.
    Encode,
    /// Of the codec: objects were made.
    Package,
    /// Of the codec: objects were read back.
    Check,
}

impl SpanName {
    /// Every name.
    pub const ALL: [Self; 11] = [
        Self::Launch,
        Self::Lock,
        Self::Codec,
        Self::Fetch,
        Self::Upload,
        Self::Open,
        Self::Probe,
        Self::Decode,
        Self::Encode,
        Self::Package,
        Self::Check,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Lock => "lock",
            Self::Codec => "codec",
            Self::Fetch => "fetch",
            Self::Upload => "upload",
            Self::Open => "open",
            Self::Probe => "probe",
            Self::Decode => "decode",
            Self::Encode => "encode",
            Self::Package => "package",
            Self::Check => "check",
        }
    }

    /// A bit of its own.
    pub const fn bit(self) -> u32 {
        1_u32.wrapping_shl(self as u32)
    }

    /// The span that it is a part of, where that is not the attempt's.
    pub const fn parent(self) -> Option<Self> {
        match self {
            Self::Launch | Self::Lock | Self::Codec | Self::Fetch | Self::Upload => None,
            Self::Open | Self::Probe | Self::Decode | Self::Encode | Self::Package | Self::Check => {
                Some(Self::Codec)
            }
        }
    }
}

/// A phase that a codec process may tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Inputs were opened and streams found.
    Open,
    /// An input was described.
    Probe,
    /// Packets were read and decoded.
    Decode,
    /// Pictures and sound were encoded.
    Encode,
    /// Objects were made.
    Package,
    /// Objects were read back.
    Check,
}

impl Phase {
    /// Its span.
    pub const fn span(self) -> SpanName {
        match self {
            Self::Open => SpanName::Open,
            Self::Probe => SpanName::Probe,
            Self::Decode => SpanName::Decode,
            Self::Encode => SpanName::Encode,
            Self::Package => SpanName::Package,
            Self::Check => SpanName::Check,
        }
    }
}

/// A phase of a codec process that is over. Times are microseconds since it was told its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// When it began.
    pub start_us: u64,
    /// How long it took.
    pub duration_us: u64,
}

/// A span of a worker that is over. Times are microseconds since it got its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSpan {
    /// What it is of.
    pub name: SpanName,
    /// When it began.
    pub start_us: u64,
    /// How long it took.
    pub duration_us: u64,
    /// Bytes that it moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Parts that it moved them in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u64>,
}

/// Spans of one heartbeat: none twice, so never more than there are names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct WorkerSpans(Vec<WorkerSpan>);

impl WorkerSpans {
    /// Those of `spans` that come first under their name.
    pub fn new(spans: impl IntoIterator<Item = WorkerSpan>) -> Self {
        let mut all = Self::default();
        for span in spans {
            all.push(span);
        }
        all
    }

    /// Whether it was taken: its name was free.
    fn push(&mut self, span: WorkerSpan) -> bool {
        let free = self.0.iter().all(|known| known.name != span.name);
        if free {
            self.0.push(span);
        }
        free
    }

    /// The spans.
    pub fn as_slice(&self) -> &[WorkerSpan] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for WorkerSpans {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Spans;
        impl<'de> Visitor<'de> for Spans {
            type Value = WorkerSpans;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {} spans, none twice", SpanName::ALL.len())
            }

            // Not into a list first: the second of a name ends the reading, so there is never more than one of each.
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<WorkerSpans, A::Error> {
                let mut spans = WorkerSpans::default();
                while let Some(span) = seq.next_element::<WorkerSpan>()? {
                    if !spans.push(span) {
                        return Err(A::Error::custom(format!("`{}` is told twice", span.name.as_str())));
                    }
                }
                Ok(spans)
            }
        }
        deserializer.deserialize_seq(Spans)
    }
}

macro_rules! counts {
    ($(#[doc = $doc:literal] $name:ident $most:literal,)*) => {
        /// What a worker did since the heartbeat before this one.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Counts { $(#[doc = $doc] #[serde(skip_serializing_if = "is_zero")] pub $name: u64,)* }

        impl Counts {
            /// Each name, and what it counts.
            pub const NAMES: [(&str, &str); [$(stringify!($name)),*].len()] = [$((stringify!($name), $doc)),*];

            /// Each count, in the order of the names.
            pub const fn all(&self) -> [u64; Self::NAMES.len()] {
                [$(self.$name),*]
            }

            /// No more of any than one heartbeat can be true to tell.
            #[must_use]
            pub fn clamped(self) -> Self {
                Self { $($name: self.$name.min($most)),* }
            }

            /// The sums.
            #[must_use]
            pub const fn plus(self, more: Self) -> Self {
                Self { $($name: self.$name.saturating_add(more.$name)),* }
            }

            /// What is left of each.
            #[must_use]
            pub const fn minus(self, less: Self) -> Self {
                Self { $($name: self.$name.saturating_sub(less.$name)),* }
            }
        }
    };
}

counts! {
    /// Codec processes that were started.
    codec_starts 1,
    /// CPU time that codec processes had, in milliseconds.
    codec_cpu_ms 1_000_000_000,
    /// Video frames (or audio packets) done.
    frames 1_000_000_000,
    /// Media time done, in milliseconds.
    media_ms 1_000_000_000,
    /// Bytes of inputs that were fetched.
    fetched_bytes 1_000_000_000_000,
    /// Bytes of outputs that were sent.
    sent_bytes 1_000_000_000_000,
    /// Transfers that failed and were tried again.
    transfer_retries 1_000_000,
}

impl Counts {
    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{from_json, to_json};
    use proptest::prelude::*;

    fn spans(text: &str) -> Result<WorkerSpans, crate::ParseError> {
        from_json("spans", text.as_bytes(), 1 << 20)
    }

    #[test]
    fn every_name_is_one_word_with_a_bit_of_its_own() {
        let mut seen = 0;
        for name in SpanName::ALL {
            assert_eq!(to_json(&name), format!("\"{}\"", name.as_str()).into_bytes());
            assert_eq!(seen & name.bit(), 0);
            seen |= name.bit();
            assert!(name.parent().is_none_or(|parent| parent.parent().is_none()), "two levels at most");
        }
        assert_eq!(seen.count_ones() as usize, SpanName::ALL.len());
    }

    #[test]
    fn a_span_says_names_and_whole_numbers_and_nothing_else() {
        let good = r#"[{"name":"lock","start_us":1,"duration_us":2},{"name":"upload","start_us":0,"duration_us":18446744073709551615,"bytes":3,"parts":1}]"#;
        assert_eq!(spans(good).unwrap().as_slice().len(), 2);
        for bad in [
            // A name that is not in the list, however long.
            r#"[{"name":"evil","start_us":0,"duration_us":0}]"#.to_owned(),
            format!(r#"[{{"name":"{}","start_us":0,"duration_us":0}}]"#, "x".repeat(100_000)),
            // Another trace, attempt, tenant or attribute.
            r#"[{"name":"lock","start_us":0,"duration_us":0,"trace_id":"0af7651916cd43dd8448eb211c80319c"}]"#.into(),
            r#"[{"name":"lock","start_us":0,"duration_us":0,"attempt":"att_0192f0c1a2b37c4d8e9f001122334455"}]"#.into(),
            r#"[{"name":"lock","start_us":0,"duration_us":0,"attributes":{"a":"b"}}]"#.into(),
            // Numbers that are none, negative, broken, or too large for any clock.
            r#"[{"name":"lock","start_us":-1,"duration_us":0}]"#.into(),
            r#"[{"name":"lock","start_us":0,"duration_us":1.5}]"#.into(),
            r#"[{"name":"lock","start_us":0,"duration_us":1e400}]"#.into(),
            r#"[{"name":"lock","start_us":NaN,"duration_us":0}]"#.into(),
            r#"[{"name":"lock","start_us":0,"duration_us":null}]"#.into(),
            r#"[{"name":"lock","start_us":0,"duration_us":18446744073709551616}]"#.into(),
            r#"[{"name":"lock","start_us":0,"duration_us":"1"}]"#.into(),
            r#"[{"name":"lock","start_us":0,"start_us":1,"duration_us":0}]"#.into(),
            r#"[{"name":"lock"}]"#.into(),
            r#"{"lock":{}}"#.into(),
        ] {
            assert!(spans(&bad).is_err(), "{}", &bad[..bad.len().min(100)]);
        }
    }

    #[test]
    fn a_flood_of_spans_ends_at_the_second_of_a_name() {
        let one = r#"{"name":"lock","start_us":0,"duration_us":0}"#;
        let flood = format!("[{}]", vec![one; 20_000].join(","));
        let error = spans(&flood).unwrap_err().to_string();
        assert!(error.contains("`lock` is told twice"), "{error}");
        let all = SpanName::ALL.map(|name| WorkerSpan {
            name,
            start_us: 0,
            duration_us: 0,
            bytes: None,
            parts: None,
        });
        let all = WorkerSpans::new(all.into_iter().chain(all));
        assert_eq!(all.as_slice().len(), SpanName::ALL.len());
        assert_eq!(from_json::<WorkerSpans>("spans", &to_json(&all), 1 << 20), Ok(all));
    }

    #[test]
    fn counts_are_of_a_closed_list_and_bounded() {
        let counts = |text: &str| from_json::<Counts>("counts", text.as_bytes(), 1 << 10);
        assert_eq!(counts("{}"), Ok(Counts::default()));
        assert_eq!(counts(r#"{"frames":7}"#), Ok(Counts { frames: 7, ..Counts::default() }));
        for bad in [
            r#"{"frames":-7}"#,
            r#"{"frames":0.5}"#,
            r#"{"frames":NaN}"#,
            r#"{"x":1}"#,
            r#"{"frames":1,"frames":2}"#,
        ] {
            assert!(counts(bad).is_err(), "{bad}");
        }
        let most = counts(r#"{"frames":18446744073709551615,"codec_starts":9}"#).unwrap().clamped();
        assert_eq!(most, Counts { frames: 1_000_000_000, codec_starts: 1, ..Counts::default() });
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes: Vec<u8>) {
            let _ = from_json::<WorkerSpans>("spans", &bytes, 1 << 20);
            let _ = from_json::<Counts>("counts", &bytes, 1 << 20);
            let _ = from_json::<PhaseTime>("phase", &bytes, 1 << 20);
        }
    }
}
