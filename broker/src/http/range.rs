//! Range requests (RFC 9110 §14): one range, of bytes.

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The whole, because there is no range, or one of a kind that may be ignored.
    Whole,
    /// A part.
    Part(Range<u64>),
    /// Nothing that there is.
    Unsatisfiable,
}

/// Reads a `Range` header for something `total` bytes long. Several ranges at once are answered with the whole, as the RFC
/// allows: they are of no use to a player and of much use to an attacker (CVE-2011-3192).
pub fn parse(header: Option<&str>, total: u64) -> Wanted {
    let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    let Some((first, last)) = spec.split_once('-').filter(|_| !spec.contains(',')) else {
        return Wanted::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| -> Option<u64> {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => {
            if suffix == 0 || total == 0 {
                Wanted::Unsatisfiable
            } else {
                Wanted::Part(total.saturating_sub(suffix)..total)
            }
        }
        (Some(start), None) if last.is_empty() => within(start, total, total),
        (Some(start), Some(last)) if start <= last => within(start, last.saturating_add(1), total),
        _ => Wanted::Whole,
    }
}

fn within(start: u64, end: u64, total: u64) -> Wanted {
    if start >= total { Wanted::Unsatisfiable } else { Wanted::Part(start..end.min(total)) }
}

/// The `Content-Range` of a part.
pub fn content_range(range: &Range<u64>, total: u64) -> String {
    format!("bytes {}-{}/{total}", range.start, range.end.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (header, expected) in [
            ("bytes=0-4", Wanted::Part(0..5)),
            ("bytes=5-", Wanted::Part(5..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=9-99999999999999999999999", Wanted::Part(9..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("", Wanted::Whole),
        ] {
            assert_eq!(parse(Some(header), 10), expected, "{header}");
        }
        assert_eq!(parse(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
        assert_eq!(parse(None, 10), Wanted::Whole);
    }
}
