//! The structure of a JPEG that another codec process made: what a viewer needs, and nothing beside it (ITU-T T.81).

/// Whether `bytes` are one baseline JPEG of that size, from its first byte to its last, without comments or metadata.
///
/// # Errors
/// What is wrong.
pub(crate) fn check(bytes: &[u8], width: u32, height: u32) -> Result<(), String> {
    let mut rest = bytes.strip_prefix(&[0xff, 0xd8]).ok_or("it does not start like a JPEG")?;
    let mut size = None;
    loop {
        let [0xff, marker, high, low, ..] = *rest else { return Err("it ends inside its headers".into()) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let end = length.checked_add(2).filter(|_| length >= 2).ok_or("a segment has no length")?;
        let segment = rest.get(4..end).ok_or("it ends inside a segment")?;
        rest = rest.get(end..).ok_or("it ends inside a segment")?;
        match marker {
            // APP0 of JFIF, tables, restart interval.
            0xe0 if segment.starts_with(b"JFIF\0") => {}
            0xdb | 0xc4 | 0xdd => {}
            0xc0 if size.is_none() => {
                let [8, h1, h0, w1, w0, ..] = *segment else { return Err("its frame is not 8-bit".into()) };
                size = Some((u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0])));
            }
            0xda => break,
            other => return Err(format!("it has a segment {other:#04x}")),
        }
    }
    match size {
        Some((w, h)) if (u32::from(w), u32::from(h)) == (width, height) => {}
        other => return Err(format!("its size is {other:?}")),
    }
    // Coded data: a 0xff is followed by a zero or a restart marker, until the end marker.
    let mut codes = rest.windows(2).enumerate().filter(|(_, w)| w.first() == Some(&0xff));
    let end = codes.find(|(_, w)| !matches!(w.get(1), Some(0 | 0xd0..=0xd7)));
    match end {
        Some((at, [_, 0xd9])) if at.checked_add(2) == Some(rest.len()) => Ok(()),
        Some((at, _)) => Err(format!("something else begins {at} bytes into its picture")),
        None => Err("it has no end".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    fn jpeg(extra: &[u8], tail: &[u8]) -> Vec<u8> {
        let mut out = vec![0xff, 0xd8];
        out.extend_from_slice(extra);
        out.extend_from_slice(&[0xff, 0xc0, 0, 11, 8, 0, 48, 0, 64, 1, 1, 0x11, 0]);
        out.extend_from_slice(&[0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, 1, 2, 0xff, 0, 3]);
        out.extend_from_slice(tail);
        out
    }

    #[test]
    fn a_jpeg_is_a_picture_and_nothing_else() {
        const END: &[u8] = &[0xff, 0xd9];
        assert_eq!(check(&jpeg(b"", END), 64, 48), Ok(()));
        for (bad, w) in [
            (jpeg(b"", b""), 64),
            (jpeg(b"", END), 63),
            (jpeg(b"", &[0xff, 0xd9, 0]), 64),
            (jpeg(b"", &[0xff, 0xd8, 0xff, 0xd9]), 64),
            (jpeg(&[0xff, 0xfe, 0, 4, b'h', b'i'], END), 64),
            (jpeg(&[0xff, 0xe1, 0, 8, b'E', b'x', b'i', b'f', 0, 0], END), 64),
            (b"GIF89a".to_vec(), 64),
            (Vec::new(), 64),
        ] {
            assert!(check(&bad, w, 48).is_err(), "{bad:?}");
        }
    }
}
