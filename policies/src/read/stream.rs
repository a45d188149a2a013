//! One text → its documents' texts, split where kubectl splits.
//!
//! kubectl cuts a stream at lines that are `---`, then reads the first YAML document of each piece and nothing else
//! (apimachinery, `util/yaml/decoder.go`). A document that begins on the line of its `---` is therefore lost to it, and
//! refused here.

/// The text between two separators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'t> {
    pub(crate) text: &'t str,
    /// Line of its beginning, from 1.
    pub(crate) first_line: u32,
    /// What a leading comment `# Source: …` says (Helm writes the template's path there).
    pub(crate) origin: Option<&'t str>,
    /// Whether the separator above it has content that kubectl does not read as a document.
    pub(crate) bad_separator: bool,
}

/// The pieces of a text, at least one.
pub(crate) fn pieces(text: &str) -> Pieces<'_> {
    Pieces { rest: Some(text), line: 1, bad_separator: false }
}

pub(crate) struct Pieces<'t> {
    rest: Option<&'t str>,
    line: u32,
    bad_separator: bool,
}

impl<'t> Iterator for Pieces<'t> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        let text = self.rest.take()?;
        let mut piece =
            Piece { text, first_line: self.line, origin: None, bad_separator: self.bad_separator };
        let mut only_comments = true;
        let mut length = 0_usize;
        for line in text.split_inclusive('\n') {
            self.line = self.line.saturating_add(1);
            let separator = Separator::of(line);
            if separator != Separator::No {
                piece.text = text.get(..length).unwrap_or_default();
                self.rest = text.get(length.saturating_add(line.len())..);
                self.bad_separator = separator == Separator::Bad;
                break;
            }
            length = length.saturating_add(line.len());
            if only_comments {
                only_comments = line.starts_with('#') || line.trim().is_empty();
                if let Some(origin) = line.strip_prefix("# Source: ") {
                    piece.origin = Some(origin.trim());
                }
            }
        }
        Some(piece)
    }
}

#[derive(PartialEq, Eq)]
enum Separator {
    No,
    Yes,
    /// A document start to YAML, but not to kubectl; or the other way round.
    Bad,
}

impl Separator {
    fn of(line: &str) -> Self {
        let Some(rest) = line.strip_prefix("---") else { return Self::No };
        let said = rest.trim();
        let apart = rest.starts_with([' ', '\t']);
        match said.starts_with('#') {
            _ if said.is_empty() => Self::Yes,
            true if apart => Self::Yes,
            false if !apart => Self::No,
            _ => Self::Bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(&str, u32, bool)> {
        pieces(text).map(|p| (p.text, p.first_line, p.bad_separator)).collect()
    }

    #[test]
    fn a_text_is_split_at_lines_of_three_dashes() {
        assert_eq!(split(""), [("", 1, false)]);
        assert_eq!(split("a\n---\nb\n"), [("a\n", 1, false), ("b\n", 3, false)]);
        assert_eq!(split("a\r\n---\r\nb"), [("a\r\n", 1, false), ("b", 3, false)]);
        assert_eq!(split("---  # note\nb\n---"), [("", 1, false), ("b\n", 2, false), ("", 4, false)]);
    }

    #[test]
    fn a_longer_word_of_dashes_and_an_indented_separator_do_not_split() {
        for text in ["----\n", "---a\n", " ---\n", "a: |\n  ---\n"] {
            assert_eq!(split(text), [(text, 1, false)], "{text:?}");
        }
    }

    #[test]
    fn content_on_the_line_of_the_separator_is_marked() {
        for text in ["--- a: b\n", "---\t{a: b}\n", "--- !tag\n", "---# note\n"] {
            assert_eq!(split(text), [("", 1, false), ("", 2, true)], "{text:?}");
        }
    }

    #[test]
    fn helm_s_source_comment_is_the_origin_of_its_piece_only() {
        let text = "---\n# Source: c/templates/a.yaml\na: 1\n# Source: not.this\n---\nb: 1\n";
        let origins: Vec<_> = pieces(text).map(|p| p.origin).collect();
        assert_eq!(origins, [None, Some("c/templates/a.yaml"), None]);
    }
}
