//! Matroska and WebM: a segment that states its size, of elements that state theirs (RFC 8794, 6; RFC 9559, 5.1).

use super::{MAX_PARTS, read};
use crate::ff::io::ReadAt;

const EBML: u32 = 0x1a45_dfa3;
const SEGMENT: u32 = 0x1853_8067;
const SEEK_HEAD: u32 = 0x114d_9b74;
const CLUSTER: u32 = 0x1f43_b675;
/// Index, tags, attachments, chapters, padding: behind the last picture they are missed by nobody. Tags may stand before the first too.
const BEHIND: [u32; 5] = [0x1c53_bb6b, 0x1254_c367, 0x1941_a469, 0x1043_a770, 0xec];
/// What of a list of places is looked at.
const PLACES: u64 = 4 << 10;

/// A file that ends before its segment does, and not just before or in what stands behind the last picture.
pub(super) fn matroska(source: &mut dyn ReadAt) -> Option<String> {
    let len = source.len();
    let head = Element::read(source, 0).filter(|e| e.id == EBML)?;
    let segment = Element::read(source, head.end()?).filter(|e| e.id == SEGMENT)?;
    let end = segment.end()?;
    if end <= len {
        return None;
    }
    let cut = Some(format!("the Matroska file is cut off: {len} of {end} bytes are there"));
    let mut at = segment.content;
    let (mut places, mut pictures) = (Vec::new(), false);
    for _ in 0..MAX_PARTS {
        let behind = pictures && places.contains(&at.saturating_sub(segment.content));
        let Some(element) = Element::read(source, at) else { return cut.filter(|_| !behind) };
        if element.id == SEEK_HEAD {
            places = element.places(source);
        }
        // Live clusters end where the next one begins.
        let Some(next) = element.end() else { return cut };
        if next > len {
            return cut.filter(|_| !pictures || !BEHIND.contains(&element.id));
        }
        pictures |= element.id == CLUSTER;
        at = next;
    }
    cut
}

/// An element: where its content begins, and how much that is.
struct Element {
    id: u32,
    content: u64,
    /// `None` where it is left open.
    size: Option<u64>,
}

impl Element {
    fn read(source: &mut dyn ReadAt, at: u64) -> Option<Self> {
        let mut head = [0; 12];
        let got = read(source, at, &mut head);
        Self::parse(head.get(..got)?, at)
    }

    /// The element whose head these bytes begin with, which stand at a place.
    fn parse(head: &[u8], at: u64) -> Option<Self> {
        let width = usize::try_from(head.first()?.leading_zeros()).ok()?.saturating_add(1);
        let id = head.get(..width).filter(|_| width <= 4)?;
        let id = id.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
        let rest = head.get(width..)?;
        let zeros = rest.first()?.leading_zeros();
        let size = rest.get(..=usize::try_from(zeros).ok()?).filter(|_| zeros < 8)?;
        let mask = 1u64.checked_shl(zeros.saturating_add(1).saturating_mul(7))?.wrapping_sub(1);
        let value = size.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)) & mask;
        let content = at.checked_add(width.checked_add(size.len())? as u64)?;
        Some(Self { id, content, size: (value != mask).then_some(value) })
    }

    fn end(&self) -> Option<u64> {
        self.content.checked_add(self.size?)
    }

    /// The places that a list of places names, of what stands behind the pictures.
    fn places(&self, source: &mut dyn ReadAt) -> Vec<u64> {
        const SEEK: u32 = 0x4dbb;
        const SEEK_ID: u32 = 0x53ab;
        const SEEK_POSITION: u32 = 0x53ac;
        let mut list = vec![0; usize::try_from(self.size.unwrap_or(0).min(PLACES)).unwrap_or(0)];
        let got = read(source, self.content, &mut list);
        list.truncate(got);
        let (mut at, mut behind, mut out) = (0usize, false, Vec::new());
        while let Some(element) = list.get(at..).and_then(|rest| Self::parse(rest, at as u64)) {
            let Ok(content) = usize::try_from(element.content) else { break };
            // Of an entry the content is read, the rest is passed over.
            at = match (element.id, element.end().map(usize::try_from)) {
                (SEEK, _) => content,
                (_, Some(Ok(end))) => end,
                _ => break,
            };
            let value = list.get(content..at).unwrap_or(&[]);
            let value = value.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
            match element.id {
                SEEK_ID => behind = BEHIND.iter().any(|id| u64::from(*id) == value),
                SEEK_POSITION if behind => out.push(value),
                _ => {}
            }
        }
        out
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of a test")]
mod tests {
    use super::super::tests::said;
    use super::*;

    const CUES: u32 = BEHIND[0];
    const TAGS: u32 = BEHIND[1];

    fn element(id: u32, content: &[u8]) -> Vec<u8> {
        let id = id.to_be_bytes();
        let id = &id[id.iter().position(|b| *b != 0).unwrap()..];
        [id, &(1u64 << 56 | content.len() as u64).to_be_bytes(), content].concat()
    }

    /// Ten clusters, with cues and tags behind them to which a list of places leads. And where the cues begin.
    fn film() -> (Vec<u8>, usize) {
        let cluster = element(CLUSTER, &[1; 400]);
        let list = |cues: usize| {
            let seek = |id: u32, at: usize| {
                element(
                    0x4dbb,
                    &[element(0x53ab, &id.to_be_bytes()), element(0x53ac, &(at as u32).to_be_bytes())]
                        .concat(),
                )
            };
            element(SEEK_HEAD, &[seek(0x1549_a966, 60), seek(CUES, cues), seek(TAGS, cues + 62)].concat())
        };
        let cues = list(0).len() + cluster.len() * 10;
        let content =
            [list(cues), cluster.repeat(10), element(CUES, &[2; 50]), element(TAGS, &[3; 90])].concat();
        let film = [element(EBML, &[0; 20]), element(SEGMENT, &content)].concat();
        (film, 32 + 12 + cues)
    }

    #[test]
    fn a_matroska_file_that_ends_in_or_between_clusters_is_cut_and_one_that_lacks_its_index_is_not() {
        let (film, cues) = film();
        let matroska = |there: usize| said("matroska", &film[..there]);
        for there in [film.len(), film.len() - 1, cues + 62 + 3, cues + 62, cues + 20, cues] {
            assert_eq!(matroska(there), None, "{there} of {}", film.len());
        }
        let cluster = 400 + 12;
        for there in [cues - 1, cues - 399, cues - 408, cues - cluster, cues - 3 * cluster, 45, 60] {
            let expected = format!("the Matroska file is cut off: {there} of {} bytes are there", film.len());
            assert_eq!(matroska(there).unwrap(), expected);
        }
    }

    #[test]
    fn a_segment_that_is_left_open_states_nothing() {
        let (mut film, cues) = film();
        film[32 + 4..32 + 12].copy_from_slice(&[1, 255, 255, 255, 255, 255, 255, 255]);
        for there in [film.len(), cues, cues - 100] {
            assert_eq!(said("matroska", &film[..there]), None);
        }
    }
}
