//! What a job that plays early can be played from: the files whose checks are done, and playlists written from what those checks
//! listed. Pure; a playlist says nothing that is not in the rows of tasks that have succeeded.
//!
//! While the job is under way its media playlists are of type EVENT: each version begins with the one before, up to the end that only
//! the last one has (RFC 8216, 4.3.3.5). When it has succeeded, the playlists that the packager wrote and the check read take their
//! place, but for that of the chunks, which goes on to be written here, as VOD.

use super::graph::early::{self, Chunks};
use crate::model::{JobView, ManifestEntry, Step};
use crate::secret;
use mpegflow_protocol::api::JobState;
use mpegflow_protocol::task::{AudioEncode, ListedTrack, PackageTrack, TaskSpec};
use mpegflow_protocol::text;
use std::fmt::Write as _;

/// The multivariant playlist, early and late.
pub const MASTER: &str = "master.m3u8";

/// The media type of a playlist.
pub const CONTENT_TYPE: &str = "application/vnd.apple.mpegurl";

/// What can be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Playable {
    /// Playlists that are written for whoever asks.
    pub lists: Vec<Playlist>,
    /// Files that are served beside the committed ones.
    pub files: Vec<ManifestEntry>,
    /// Milliseconds of the film that are there.
    pub milliseconds: u64,
}

/// A playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Playlist {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl Playlist {
    /// The digest of its text, as an object that was sent in one part has it.
    pub fn digest(&self) -> String {
        secret::digest_of_parts([secret::sha256(self.text.as_bytes())].iter())
    }
}

/// What of a job can be played before, or after, it has ended; `None` where that was not asked for, or nothing was checked yet.
pub fn of(view: &JobView) -> Option<Playable> {
    if !view.job.spec.output.early {
        return None;
    }
    // Whatever does not fit is not shown.
    let chunks = Chunks::of(&view.tasks).ok()?;
    let video: Vec<(PackageTrack, ListedTrack)> = (0..chunks.count)
        .map(|number| {
            let lists = early::lists(&view.tasks, Step::Chunk(number)).ok()?;
            lists.first().map(|(track, list)| ((*track).clone(), (*list).clone()))
        })
        .collect::<Option<_>>()?;
    let micros = video.iter().map(|(_, list)| micros(list)).fold(0, u64::saturating_add);
    let state = view.job.state;
    let form = match state {
        JobState::Succeeded => Form::Vod,
        JobState::Failed | JobState::Canceled => Form::Ended,
        _ if chunks.complete => Form::Ended,
        _ => Form::Growing,
    };
    let segment_ms = chunks.segment_ms;
    let mut list = Media::new(segment_ms, form);
    for (track, listed) in &video {
        list.file(track, listed, u64::MAX);
    }
    let mut playable = Playable {
        lists: vec![list.finish(&chunks.playlist_uri)],
        files: Vec::new(),
        milliseconds: micros / 1_000,
    };
    if state == JobState::Succeeded {
        return Some(playable);
    }
    for number in 0..chunks.count {
        playable.files.extend(early::chunk_file(&view.tasks, number).ok()?);
    }
    let sound = sound(view)?;
    for (track, listed, _) in &sound {
        let mut list = Media::new(segment_ms, form);
        // As far as there are pictures; all of it where these are complete, for sound may last a little longer.
        list.file(track, listed, if chunks.complete { u64::MAX } else { micros });
        playable.lists.push(list.finish(&track.playlist_uri));
    }
    if !sound.is_empty() {
        let package = early::sound_files(&view.tasks).ok()?;
        let media = |entry: &ManifestEntry| sound.iter().any(|(track, ..)| track.media_uri == entry.name);
        playable.files.extend(package.into_iter().filter(media));
    }
    let text = multivariant(view, &chunks, &video, &sound)?;
    playable.lists.push(Playlist { name: MASTER.into(), text });
    Some(playable)
}

/// The sound tracks of a job; none where it has no sound.
fn sound(view: &JobView) -> Option<Vec<(&PackageTrack, &ListedTrack, &AudioEncode)>> {
    let is_sound = |t: &&crate::model::TaskRecord| t.plan.step == Step::Sound;
    let Some(encode) = view.tasks.iter().find(is_sound) else { return Some(Vec::new()) };
    let TaskSpec::Encode(plan) = &encode.plan.spec else { return None };
    let lists = early::lists(&view.tasks, Step::Sound).ok()?;
    // A film with sound is not shown without.
    (lists.len() == plan.audio.len()).then(|| {
        lists.into_iter().zip(&plan.audio).map(|((track, list), plan)| (track, list, plan)).collect()
    })
}

fn micros(list: &ListedTrack) -> u64 {
    list.segments.iter().map(|s| s.micros).fold(0, u64::saturating_add)
}

/// Whether a playlist will go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Growing,
    Ended,
    Vod,
}

/// A media playlist that is being written.
struct Media {
    text: String,
    form: Form,
    began: bool,
}

impl Media {
    fn new(segment_ms: u32, form: Form) -> Self {
        // Players take a list that grows for something live and would begin at its end.
        let kind = if form == Form::Vod { "VOD" } else { "EVENT\n#EXT-X-START:TIME-OFFSET=0,PRECISE=YES" };
        let target = early::target_seconds(segment_ms);
        let text = format!(
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:0\n\
             #EXT-X-PLAYLIST-TYPE:{kind}\n#EXT-X-INDEPENDENT-SEGMENTS\n"
        );
        Self { text, form, began: false }
    }

    /// Adds the segments of a file that begin before `until` microseconds of it. The first file's header is that of all.
    fn file(&mut self, track: &PackageTrack, list: &ListedTrack, until: u64) {
        let uri = &track.media_uri;
        // Writing to a string cannot fail.
        if !std::mem::replace(&mut self.began, true) {
            let _ = writeln!(self.text, "#EXT-X-MAP:URI=\"{uri}\",BYTERANGE=\"{}@0\"", list.header);
        }
        let (mut at, mut offset) = (0_u64, list.first);
        for segment in list.segments.iter() {
            if at >= until {
                break;
            }
            let (seconds, rest) = (segment.micros / 1_000_000, segment.micros % 1_000_000);
            let _ = writeln!(self.text, "#EXTINF:{seconds}.{rest:06},");
            let _ = writeln!(self.text, "#EXT-X-BYTERANGE:{}@{offset}\n{uri}", segment.bytes);
            at = at.saturating_add(segment.micros);
            offset = offset.saturating_add(segment.bytes);
        }
    }

    fn finish(mut self, name: &str) -> Playlist {
        if self.form != Form::Growing {
            self.text.push_str("#EXT-X-ENDLIST\n");
        }
        Playlist { name: name.to_owned(), text: self.text }
    }
}

fn multivariant(
    view: &JobView,
    chunks: &Chunks,
    video: &[(PackageTrack, ListedTrack)],
    sound: &[(&PackageTrack, &ListedTrack, &AudioEncode)],
) -> Option<String> {
    let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    for (number, (track, _, plan)) in (1_u32..).zip(sound) {
        let _ = write!(out, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"Audio {number}\"");
        if let Some(language) = track.language.as_deref().and_then(text::language_tag) {
            let _ = write!(out, ",LANGUAGE=\"{language}\"");
        }
        let default = if number == 1 { "YES" } else { "NO" };
        let (channels, uri) = (plan.channels, &track.playlist_uri);
        let _ = writeln!(out, ",DEFAULT={default},AUTOSELECT=YES,CHANNELS=\"{channels}\",URI=\"{uri}\"");
    }
    // What is still to come is not known, but for what the encoder may spend at most.
    let sound_rate =
        sound.iter().map(|(_, list, plan)| peak(list, chunks.segment_ms).max(u64::from(plan.bit_rate))).max();
    let most = u64::from(chunks.rung.max_bit_rate).saturating_mul(3) / 2;
    let bandwidth = video.iter().map(|(_, list)| peak(list, chunks.segment_ms)).max()?.max(most);
    let mut codecs: Vec<&str> = vec![&video.first()?.1.codecs];
    for (_, list, _) in sound {
        if !codecs.contains(&list.codecs.as_str()) {
            codecs.push(&list.codecs);
        }
    }
    let first = early::made(&view.tasks, 0).ok()?;
    let ticks = u64::try_from(first.end.saturating_sub(first.start)).ok().filter(|t| *t > 0)?;
    let frames = early::frames_of_first(&view.tasks).ok()?;
    let milli_rate = frames.saturating_mul(90_000_000).saturating_add(ticks / 2).checked_div(ticks)?;
    let _ = writeln!(
        out,
        "#EXT-X-STREAM-INF:BANDWIDTH={},CODECS=\"{}\",RESOLUTION={}x{},FRAME-RATE={}.{:03}{}\n{}",
        bandwidth.saturating_add(sound_rate.unwrap_or(0)),
        codecs.join(","),
        chunks.rung.width,
        chunks.rung.height,
        milli_rate / 1_000,
        milli_rate % 1_000,
        if sound.is_empty() { "" } else { ",AUDIO=\"audio\"" },
        chunks.playlist_uri
    );
    Some(out)
}

/// The highest bit rate of a segment that lasts at least half of what was asked for.
fn peak(list: &ListedTrack, segment_ms: u32) -> u64 {
    let rate = |s: &mpegflow_protocol::task::ListedSegment| {
        s.bytes.saturating_mul(8_000_000).div_ceil(s.micros.max(1))
    };
    let long =
        |s: &&mpegflow_protocol::task::ListedSegment| s.micros >= u64::from(segment_ms).saturating_mul(500);
    list.segments.iter().filter(long).map(rate).max().unwrap_or(0)
}
