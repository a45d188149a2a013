//! FLV: tags, each with its size before and after it ("Adobe Flash Video File Format Specification", E.3 and E.4), and a size of
//! the whole that many writers put into the first one.

use super::{bytes, read, short_of, tail};
use crate::ff::io::ReadAt;

/// What of the end is looked at: key frames are a few hundred kilobytes at most.
const TAIL: usize = 512 << 10;
/// What of the first tag is looked at.
const FIRST: usize = 64 << 10;
/// Kind, size, time and stream of a tag.
const HEAD: usize = 11;

/// A file that ends inside a tag, or before the size that it states.
pub(super) fn flv(source: &mut dyn ReadAt) -> Option<String> {
    let [b'F', b'L', b'V', _, _, body @ ..] = bytes::<9>(source, 0)? else { return None };
    let body = u64::from(u32::from_be_bytes(body)).checked_add(4)?;
    let (begins, end) = tail(source, TAIL);
    let first = usize::try_from(body.saturating_sub(begins)).ok()?;
    // In a file that is longer, from some tag near the end on: sizes that agree are no accident three times over.
    let in_step = |at: &usize| (0..3).try_fold(*at, |at, _| after(&end, at)).is_some();
    let mut at = if begins == 0 { first } else { (0..end.len()).find(in_step)? };
    while let Some(next) = after(&end, at) {
        at = next;
    }
    let there = begins.saturating_add(at as u64);
    let ends_inside = match end.get(at..)? {
        [] => false,
        rest @ [kind, ..] if is_tag(*kind) => match size(&end, at) {
            // The size behind the last tag is missed by nobody.
            Some(size) => rest.len() < size.saturating_add(HEAD),
            None => rest.len() < HEAD,
        },
        _ => false,
    };
    let inside = || format!("the FLV ends inside a tag: {there} bytes of whole tags are there");
    let stated = stated(source, body).and_then(|stated| short_of("FLV", stated, source.len()));
    stated.or_else(|| ends_inside.then(inside))
}

/// Sound, pictures, or what is said of them; encrypted or not.
const fn is_tag(kind: u8) -> bool {
    matches!(kind & 0xdf, 8 | 9 | 18)
}

/// Size of the content of the tag that stands there.
fn size(bytes: &[u8], at: usize) -> Option<usize> {
    let [kind, a, b, c, _, _, _, _, 0, 0, 0] = bytes.get(at..)?.first_chunk::<HEAD>()? else { return None };
    is_tag(*kind).then(|| usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c))
}

/// Where the next tag stands, if this one is whole and the size behind it is its own.
fn after(bytes: &[u8], at: usize) -> Option<usize> {
    let whole = size(bytes, at)?.checked_add(HEAD)?;
    let end = at.checked_add(whole)?;
    let again = u32::from_be_bytes(*bytes.get(end..)?.first_chunk::<4>()?);
    (usize::try_from(again).ok()? == whole).then(|| end.saturating_add(4))
}

/// `filesize` of the first tag, a number of AMF0.
fn stated(source: &mut dyn ReadAt, at: u64) -> Option<u64> {
    const NAME: &[u8] = b"\0\x08filesize\0";
    let mut first = vec![0; FIRST];
    let got = read(source, at, &mut first);
    first.truncate(got);
    first.truncate(size(&first, 0)?.checked_add(HEAD)?);
    if first.first()? & 0x1f != 18 {
        return None;
    }
    let place = first.windows(NAME.len()).position(|w| w == NAME)?.checked_add(NAME.len())?;
    let number = f64::from_be_bytes(*first.get(place..)?.first_chunk::<8>()?);
    // Whole bytes, of a size that a file can have.
    (1.0..1e15).contains(&number).then_some(number as u64)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use super::super::tests::said;
    use super::*;

    fn tag(kind: u8, content: &[u8]) -> Vec<u8> {
        let size = content.len() as u32;
        let mut out = vec![kind];
        out.extend(&size.to_be_bytes()[1..]);
        out.extend([0; 7]);
        out.extend(content);
        out.extend((size + HEAD as u32).to_be_bytes());
        out
    }

    fn file(stated: Option<f64>, tags: usize) -> Vec<u8> {
        let mut out = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        let mut about = b"\x02\0\x0aonMetaData\x08\0\0\0\x01".to_vec();
        if let Some(stated) = stated {
            about.extend(b"\0\x08filesize\0");
            about.extend(stated.to_be_bytes());
        }
        out.extend(tag(18, &about));
        for n in 0..tags {
            out.extend(tag(if n % 3 == 0 { 9 } else { 8 }, &vec![n as u8; 200 + n * 13 % 900]));
        }
        out
    }

    #[test]
    fn an_flv_that_ends_inside_a_tag_is_cut() {
        // Within what is looked at, and longer.
        for tags in [1, 5, 3_000] {
            let whole = file(None, tags);
            assert_eq!(said("flv", &whole), None, "{tags}");
            // Without the last size, and with something else behind it.
            assert_eq!(said("flv", &whole[..whole.len() - 4]), None, "{tags}");
            assert_eq!(said("flv", &[&whole[..], &[0; 900]].concat()), None, "{tags}");
            for there in [1, 10, 11, 300] {
                let next = tag(9, &[1; 400]);
                let cut = said("flv", &[&whole[..], &next[..there]].concat()).unwrap();
                assert!(cut.ends_with(&format!(": {} bytes of whole tags are there", whole.len())), "{cut}");
            }
        }
    }

    #[test]
    fn an_flv_that_ends_between_tags_is_cut_where_it_stated_more() {
        let there = file(Some(0.0), 50).len();
        let flv = |stated: f64| said("flv", &file(Some(stated), 50));
        assert_eq!(flv(there as f64), None);
        let cut = format!("the FLV is cut off: {there} of {} bytes are there", there * 2);
        assert_eq!(flv((there * 2) as f64).unwrap(), cut);
        for nonsense in [0.0, -5.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(flv(nonsense), None, "{nonsense}");
        }
    }
}
