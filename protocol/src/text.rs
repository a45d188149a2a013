//! Text that came from somewhere hostile, made fit for a log line, a terminal or a JSON field.

/// Returns `text` cut to `max_chars` characters, with every control character (terminal escapes among them), bidirectional
/// override and line break replaced by a space.
pub fn clean(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).map(|c| if is_unsafe(c) { ' ' } else { c }).collect()
}

// Bidirectional controls can make a log line or a terminal show something other than what is there (CVE-2021-42574).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// An error and what caused it, as one line: `what failed: why: why that`. Not cleaned.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

/// Whether `text` is 1 to `max` characters long and holds nothing that [`clean`] would replace.
pub fn is_label(text: &str, max: usize) -> bool {
    !text.is_empty() && text.chars().count() <= max && !text.chars().any(is_unsafe)
}

/// The language of a manifest for that of a track. RFC 5646 wants the two-letter code where there is one; MP4 and Matroska store three letters.
pub fn language_tag(iso639_2: &str) -> Option<&str> {
    const SHORT: [(&str, &str); 30] = [
        ("eng", "en"),
        ("deu", "de"),
        ("ger", "de"),
        ("fra", "fr"),
        ("fre", "fr"),
        ("spa", "es"),
        ("ita", "it"),
        ("por", "pt"),
        ("nld", "nl"),
        ("dut", "nl"),
        ("rus", "ru"),
        ("ukr", "uk"),
        ("pol", "pl"),
        ("ces", "cs"),
        ("cze", "cs"),
        ("tur", "tr"),
        ("ara", "ar"),
        ("heb", "he"),
        ("hin", "hi"),
        ("jpn", "ja"),
        ("kor", "ko"),
        ("zho", "zh"),
        ("chi", "zh"),
        ("swe", "sv"),
        ("dan", "da"),
        ("nor", "no"),
        ("fin", "fi"),
        ("ell", "el"),
        ("gre", "el"),
        ("ron", "ro"),
    ];
    let plain = iso639_2.len() == 3 && iso639_2.bytes().all(|b| b.is_ascii_lowercase()) && iso639_2 != "und";
    plain.then(|| SHORT.iter().find(|(long, _)| *long == iso639_2).map_or(iso639_2, |(_, short)| short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_overrides_become_spaces() {
        assert_eq!(clean("a\u{1b}[31mb\nc\u{202e}d", 100), "a [31mb c d");
        assert_eq!(clean("abcdef", 3), "abc");
    }
}
