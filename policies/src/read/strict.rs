//! What the parser accepts and the API server's reader (go-yaml v2, a port of libyaml) refuses: tabs that indent, the escape
//! `\/`, anchors with special characters. And one thing that they read differently: `{a:}`. A manifest that cannot be
//! applied protects nothing, so it is no proof.
//!
//! The text between two events and the text of a scalar are looked at again.

use saphyr_parser::{Event, ScalarStyle, Span};

/// Looks again at a document's text, event by event.
pub(crate) struct Strict<'t> {
    text: &'t str,
    /// How far the text is known: a character's number and its byte.
    chars: usize,
    bytes: usize,
    /// Where the last event ended, in bytes.
    last_end: usize,
    /// Open collections from the outermost flow collection on.
    flow_depth: usize,
}

const TAB: &str = "a tab where the API server's reader takes only spaces";

impl<'t> Strict<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, chars: 0, bytes: 0, last_end: 0, flow_depth: 0 }
    }

    /// What the API server's reader has against this event, or the text before it.
    pub(crate) fn check(&mut self, event: &Event<'_>, span: Span) -> Result<(), &'static str> {
        let in_flow = self.flow_depth > 0;
        if matches!(event, Event::SequenceEnd | Event::MappingEnd) {
            self.flow_depth = self.flow_depth.saturating_sub(1);
        }
        // Such an event may also lie a little before the last one.
        let Some(start) = self.byte(span.start.index()) else { return Ok(()) };
        let before = self.text.get(..self.last_end).unwrap_or_default();
        let gap = self.text.get(self.last_end..start).unwrap_or_default();
        if !in_flow && tab_in_gap(gap, before.is_empty() || before.ends_with(['\n', '\r'])) {
            return Err(TAB);
        }
        // An event without a text of its own has the span of the token behind it, which is still to come.
        let own_text = match event {
            Event::Scalar(text, ScalarStyle::Plain, 0, None) => !text.is_empty(),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::StreamEnd => false,
            _ => true,
        };
        let end = own_text.then(|| self.byte(span.end.index())).flatten().unwrap_or(start);
        self.last_end = end;
        let own = self.text.get(start..end).unwrap_or_default();
        let after = self.text.get(end..).unwrap_or_default();
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) if in_flow || own.ends_with(['[', '{']) => {
                self.flow_depth = self.flow_depth.saturating_add(1);
            }
            // Its span may reach over its first `-`, and that line is still to be looked at.
            Event::SequenceStart(..) => self.last_end = start,
            Event::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded, ..)
                if tab_in_block_scalar(own, span.start.col()) =>
            {
                return Err(TAB);
            }
            Event::Scalar(_, ScalarStyle::Plain, ..) if tab_after_break(own) => return Err(TAB),
            Event::Scalar(_, ScalarStyle::Plain, ..) if in_flow && colon_without_space(after) => {
                return Err("a colon without a space: `{a:}` has the key `a:` for the API server's reader");
            }
            Event::Scalar(_, ScalarStyle::Plain, ..) if in_flow && odd_in_flow(own) => {
                return Err(
                    "an unquoted word that some readers of Kubernetes take apart inside `[]` and `{}`",
                );
            }
            Event::Scalar(_, ScalarStyle::DoubleQuoted, ..) if escaped_slash(own) => {
                return Err("the escape `\\/`, which only JSON has");
            }
            _ => {}
        }
        let named = match event {
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _) => *anchor > 0,
            Event::Alias(_) => true,
            _ => false,
        };
        if named && odd_name(self.text.get(start..).unwrap_or_default()) {
            return Err("an anchor or alias may have letters, digits, `_` and `-`");
        }
        Ok(())
    }

    /// The byte of a character's number, or `None` if it was passed already.
    fn byte(&mut self, index: usize) -> Option<usize> {
        let ahead = index.checked_sub(self.chars)?;
        let rest = self.text.get(self.bytes..)?;
        // Most text is ASCII, where characters are bytes.
        let bytes = match rest.as_bytes().get(..ahead) {
            Some(run) if run.is_ascii() => ahead,
            _ => rest.char_indices().nth(ahead).map_or(rest.len(), |(at, _)| at),
        };
        self.chars = index;
        self.bytes = self.bytes.saturating_add(bytes);
        Some(self.bytes)
    }
}

/// Whether a tab indents between two events in block context: at a line's beginning, also after `-` or `?`.
fn tab_in_gap(gap: &str, at_line_start: bool) -> bool {
    gap.split(['\n', '\r']).enumerate().any(|(n, line)| {
        let rest = line.trim_start_matches([' ', '-', '?']);
        let lead = line.get(..line.len().saturating_sub(rest.len())).unwrap_or_default();
        let indicator = lead.contains(['-', '?']);
        rest.starts_with('\t') && (n > 0 || at_line_start || indicator)
    })
}

/// Whether a line of a block scalar has a tab among the spaces that indent it. The parser lets the scalar's text begin at
/// `column` of its first line with content, or at the anchor or tag before its `|`.
fn tab_in_block_scalar(own: &str, column: usize) -> bool {
    let mut indent = (!own.starts_with(['&', '!', '|', '>'])).then_some(column);
    own.split(['\n', '\r']).skip(1).any(|line| {
        let content = line.trim_start_matches(' ');
        let spaces = line.len().saturating_sub(content.len());
        let indents = indent.is_none_or(|indent| spaces < indent);
        if indent.is_none() && !content.trim().is_empty() {
            indent = Some(spaces);
        }
        content.starts_with('\t') && indents
    })
}

/// Whether a line of a plain scalar, but the first, begins with a tab among its spaces.
fn tab_after_break(own: &str) -> bool {
    own.split(['\n', '\r']).skip(1).any(|line| line.trim_start_matches(' ').starts_with('\t'))
}

/// Whether a colon and a flow indicator follow at once. libyaml takes the colon for a part of the word before it.
fn colon_without_space(after: &str) -> bool {
    after.strip_prefix(':').is_some_and(|rest| rest.starts_with([',', '[', ']', '{', '}']))
}

/// libyaml takes a question mark in flow context for the sign of a key, and some other characters for nothing.
fn odd_in_flow(own: &str) -> bool {
    own.contains('?') || own.starts_with([':', '>', '|'])
}

fn escaped_slash(own: &str) -> bool {
    let mut escaped = false;
    own.bytes().any(|byte| {
        let found = escaped && byte == b'/';
        escaped = !escaped && byte == b'\\';
        found
    })
}

/// Whether a text begins with an anchor or alias that has special characters. After a tag it is not looked at.
fn odd_name(text: &str) -> bool {
    let Some(name) = text.strip_prefix(['&', '*']) else { return false };
    let end = |c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}');
    let name = name.split(end).next().unwrap_or_default();
    !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{tree, yaml_as_json};

    /// Each row was compared with go-yaml v2.4.5, which refuses the first column.
    #[test]
    fn what_the_api_server_refuses_is_refused() {
        let table = [
            ("-\tx", "x.yaml:1:3: a tab where the API server's reader takes only spaces"),
            ("a: &x\n  -\tb", "x.yaml:2:5: a tab where the API server's reader takes only spaces"),
            ("- a\n-\tb: c", "x.yaml:2:3: a tab where the API server's reader takes only spaces"),
            ("a: 1\n\t\nb: 2", "x.yaml:3:1: a tab where the API server's reader takes only spaces"),
            ("a: 1\n\t# note\nb: 2", "x.yaml:3:1: a tab where the API server's reader takes only spaces"),
            ("a: |\n  x\n\t\nb: 1", "x.yaml:4:1: a tab where the API server's reader takes only spaces"),
            ("a: \"\\/\"", "x.yaml:1:4: the escape `\\/`, which only JSON has"),
            ("a: &x.y 1", "x.yaml:1:4: an anchor or alias may have letters, digits, `_` and `-`"),
            ("a: &x{b: 1}", "x.yaml:1:4: an anchor or alias may have letters, digits, `_` and `-`"),
            ("a: &x\n-\tb", "x.yaml:2:3: a tab where the API server's reader takes only spaces"),
            ("a: &é 1", "x.yaml:1:4: an anchor or alias may have letters, digits, `_` and `-`"),
        ];
        for (text, error) in table {
            assert_eq!(tree(text).map(|_| ()), Err(error.into()), "{text:?}");
        }
    }

    #[test]
    fn what_readers_take_apart_differently_is_refused() {
        let colon = "a colon without a space: `{a:}` has the key `a:` for the API server's reader";
        let word = "an unquoted word that some readers of Kubernetes take apart inside `[]` and `{}`";
        let table = [
            ("{a:}", colon),
            ("[a:,b]", colon),
            ("[?a]", word),
            ("[a?b]", word),
            ("{:a}", word),
            ("[a, >b]", word),
        ];
        for (text, what) in table {
            let error =
                tree(text).map(|_| ()).err().unwrap_or_else(|| format!("read: {}", yaml_as_json(text)));
            assert!(error.ends_with(what), "{text:?}: {error}");
        }
    }

    /// Each row was compared with go-yaml v2.4.5, which reads the same.
    #[test]
    fn tabs_and_signs_that_do_no_harm_are_read() {
        let table = [
            ("a: 1\t\nb: \t2 \t# x\ty\n#\tz", r#"{"a":1,"b":2}"#),
            ("a: |\n  all:\n  \tcc\n\n  \tld\nb: 1", "{\"a\":\"all:\\n\\tcc\\n\\n\\tld\\n\",\"b\":1}"),
            ("é: |\n  日\n  \tcc\nb: 1", "{\"é\":\"日\\n\\tcc\\n\",\"b\":1}"),
            ("a: {\n  b: 1,\t\n  c: [\t2\n  ]\n}", r#"{"a":{"b":1,"c":[2]}}"#),
            ("a: \"x\n \ty\"", r#"{"a":"x y"}"#),
            ("{\"a\":[1],\"b\":{}}", r#"{"a":[1],"b":{}}"#),
            ("a: b?c\nd: [\"e?\", '>']", r#"{"a":"b?c","d":["e?",">"]}"#),
            ("a: \"\\\\/\"", r#"{"a":"\\/"}"#),
            ("a: &x_1-y 1\nb: *x_1-y", r#"{"a":1,"b":1}"#),
        ];
        for (text, json) in table {
            assert_eq!(yaml_as_json(text), json, "{text:?}");
        }
    }
}
