//! Server-sent events, as the WHATWG's HTML standard parses them, with every buffer bounded.

/// Bytes of one line, and of one event's data.
const MAX: usize = 256 << 10;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its type; `message` where the stream names none.
    pub(crate) event: String,
    /// Its data; lines joined by `\n`.
    pub(crate) data: String,
    /// The last id the stream has given, empty before the first.
    pub(crate) id: String,
}

/// The stream sent a line or an event longer than is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event stream holds a line or an event of more than {MAX} bytes")]
pub(crate) struct TooLong;

/// An incremental parser: bytes in, however they are cut, events out.
#[derive(Debug, Default)]
pub(crate) struct SseParser {
    line: Vec<u8>,
    after_cr: bool,
    started: bool,
    event: String,
    data: String,
    has_data: bool,
    id: String,
}

impl SseParser {
    /// Takes the next bytes and appends the events they complete.
    ///
    /// # Errors
    /// [`TooLong`]; the stream is of no use after that.
    pub(crate) fn push(&mut self, bytes: &[u8], events: &mut Vec<SseEvent>) -> Result<(), TooLong> {
        for &byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                // CR LF is one line end, even when a chunk ends between the two.
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    self.end_line(events)?;
                }
                _ if self.line.len() >= MAX => return Err(TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<SseEvent>) -> Result<(), TooLong> {
        let line = std::mem::take(&mut self.line);
        let mut text = String::from_utf8_lossy(&line);
        if !std::mem::replace(&mut self.started, true)
            && let Some(rest) = text.strip_prefix('\u{feff}')
        {
            text = rest.to_owned().into();
        }
        if text.is_empty() {
            self.dispatch(events);
            return Ok(());
        }
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if self.data.len().saturating_add(value.len()) >= MAX {
                    return Err(TooLong);
                }
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // A comment (empty field), `retry` and whatever may come later.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, events: &mut Vec<SseEvent>) {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            let event = if event.is_empty() { "message".into() } else { event };
            events.push(SseEvent { event, data, id: self.id.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(chunks: &[&[u8]]) -> Vec<SseEvent> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.push(chunk, &mut events).unwrap();
        }
        events
    }

    fn event(event: &str, data: &str, id: &str) -> SseEvent {
        SseEvent { event: event.into(), data: data.into(), id: id.into() }
    }

    #[test]
    fn fields_comments_and_the_three_line_ends_are_understood() {
        let text = b"\xef\xbb\xbf: hello\nid: 7\r\nevent: job\rdata: {\"a\":1}\ndata:two\n\nretry: 5\nnonsense\ndata\n\n";
        assert_eq!(parse(&[text]), [event("job", "{\"a\":1}\ntwo", "7"), event("message", "", "7")]);
    }

    #[test]
    fn an_unfinished_event_is_not_given_out() {
        assert_eq!(parse(&[b"data: half"]), []);
        assert_eq!(parse(&[b"event: x\n\n"]), []);
    }

    #[test]
    fn an_endless_line_or_event_is_an_error_and_not_memory() {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        assert_eq!(parser.push(&vec![b'a'; MAX + 1], &mut events), Err(TooLong));
        let mut parser = SseParser::default();
        let lines = "data: 0123456789\n".repeat(MAX / 10);
        assert_eq!(parser.push(lines.as_bytes(), &mut events), Err(TooLong));
        assert_eq!(events, []);
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anywhere_give_the_same_events(
            bytes in prop::collection::vec(prop_oneof![
                any::<u8>(),
                prop::sample::select(b"\n\r: data:id:event:\0".to_vec()),
            ], 0..400),
            cut in 0usize..400,
        ) {
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let whole = parse(&[&bytes]);
            prop_assert_eq!(&whole, &parse(&[a, b]));
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&whole, &parse(&single));
        }

        #[test]
        fn what_was_said_is_what_is_heard(data in "[a-zA-Z0-9 {}\":,]{0,60}", id in "[0-9]{1,9}") {
            let text = format!("id: {id}\ndata: {data}\n\n");
            prop_assert_eq!(parse(&[text.as_bytes()]), vec![event("message", &data, &id)]);
        }
    }
}
