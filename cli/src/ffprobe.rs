//! A media description in the words of `ffprobe -show_format -show_streams -of json`, so that scripts need not change.
//!
//! Same field names, same types (numbers that ffprobe writes as text are text), and nothing that was not read: a field that
//! is not known is left out, as ffprobe does.

use mpegflow_protocol::media::{AudioInfo, MediaInfo, Ratio, StreamInfo, StreamKind, VideoInfo};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The document for one file.
pub(crate) fn document(media: &MediaInfo, file: &Path) -> Value {
    json!({ "streams": media.streams.iter().map(stream).collect::<Vec<_>>(), "format": format(media, file) })
}

fn format(media: &MediaInfo, file: &Path) -> Value {
    let mut map = Map::new();
    put(&mut map, "filename", file.display().to_string());
    put(&mut map, "nb_streams", media.streams.len());
    put(&mut map, "format_name", media.format.as_str());
    put(&mut map, "start_time", seconds_us(media.start_us));
    put_some(&mut map, "duration", media.duration_ms.map(seconds_ms));
    put(&mut map, "size", media.size.to_string());
    put_some(&mut map, "bit_rate", media.bit_rate.map(|rate| rate.to_string()));
    if !media.tags.is_empty() {
        put(&mut map, "tags", json!(media.tags));
    }
    Value::Object(map)
}

fn stream(stream: &StreamInfo) -> Value {
    let mut map = Map::new();
    put(&mut map, "index", stream.index);
    put(&mut map, "codec_name", stream.codec.as_str());
    put_some(&mut map, "profile", stream.profile.as_deref());
    put(
        &mut map,
        "codec_type",
        match &stream.kind {
            StreamKind::Video(_) => "video",
            StreamKind::Audio(_) => "audio",
            StreamKind::Subtitle {} => "subtitle",
            StreamKind::Data {} => "data",
        },
    );
    put_some(&mut map, "codec_tag_string", stream.codec_tag.as_deref());
    match &stream.kind {
        StreamKind::Video(info) => video(&mut map, info),
        StreamKind::Audio(info) => audio(&mut map, info),
        StreamKind::Subtitle {} | StreamKind::Data {} => {
            put(&mut map, "r_frame_rate", "0/0");
            put(&mut map, "avg_frame_rate", "0/0");
        }
    }
    put(&mut map, "time_base", ratio(stream.time_base, '/'));
    put(&mut map, "start_time", seconds_us(stream.start_us));
    put_some(&mut map, "duration", stream.duration_ms.map(seconds_ms));
    put_some(&mut map, "bit_rate", stream.bit_rate.map(|rate| rate.to_string()));
    put_some(&mut map, "nb_frames", stream.frames.map(|frames| frames.to_string()));
    put(
        &mut map,
        "disposition",
        json!({
            "default": u8::from(stream.default),
            "attached_pic": u8::from(stream.attached_picture),
        }),
    );
    let mut tags = stream.tags.clone();
    if let Some(language) = &stream.language {
        tags.entry("language".into()).or_insert_with(|| language.clone());
    }
    if !tags.is_empty() {
        put(&mut map, "tags", json!(tags));
    }
    if let StreamKind::Video(info) = &stream.kind
        && (info.rotation != 0 || info.mirrored)
    {
        put(
            &mut map,
            "side_data_list",
            json!([{
                "side_data_type": "Display Matrix",
                "rotation": counter_clockwise(info.rotation),
            }]),
        );
    }
    Value::Object(map)
}

fn video(map: &mut Map<String, Value>, info: &VideoInfo) {
    put(map, "width", info.width);
    put(map, "height", info.height);
    put(map, "coded_width", info.width);
    put(map, "coded_height", info.height);
    put(map, "sample_aspect_ratio", ratio(info.sample_aspect, ':'));
    put_some(map, "display_aspect_ratio", display_aspect(info));
    put_some(map, "pix_fmt", info.pixel_format.as_deref());
    put_some(map, "level", info.level);
    put_some(map, "color_range", info.color_range.as_deref());
    put_some(map, "color_space", info.color_space.as_deref());
    put_some(map, "color_transfer", info.color_transfer.as_deref());
    put_some(map, "color_primaries", info.color_primaries.as_deref());
    put_some(map, "field_order", info.field_order.as_deref());
    put(map, "r_frame_rate", info.real_frame_rate.map_or_else(|| "0/0".into(), |rate| ratio(rate, '/')));
    put(map, "avg_frame_rate", info.frame_rate.map_or_else(|| "0/0".into(), |rate| ratio(rate, '/')));
}

fn audio(map: &mut Map<String, Value>, info: &AudioInfo) {
    put_some(map, "sample_fmt", info.sample_format.as_deref());
    put(map, "sample_rate", info.sample_rate.to_string());
    put(map, "channels", info.channels);
    put_some(map, "channel_layout", info.channel_layout.as_deref());
    put(map, "r_frame_rate", "0/0");
    put(map, "avg_frame_rate", "0/0");
}

/// Picture shape as it is shown, in lowest terms.
fn display_aspect(info: &VideoInfo) -> Option<String> {
    let of = |a: u32, b: i32| u64::from(a).checked_mul(u64::try_from(b).ok()?);
    let width = of(info.width, info.sample_aspect.num)?;
    let height = of(info.height, info.sample_aspect.den)?;
    let divisor = gcd(width, height);
    Some(format!("{}:{}", width.checked_div(divisor)?, height.checked_div(divisor)?))
        .filter(|_| width > 0 && height > 0)
}

fn gcd(a: u64, b: u64) -> u64 {
    match a.checked_rem(b) {
        None => a,
        Some(rest) => gcd(b, rest),
    }
}

/// ffprobe turns the other way round, from -180 (excluded for us: it writes -180 for half a turn) to 90.
fn counter_clockwise(clockwise: u16) -> i32 {
    match clockwise {
        90 => -90,
        180 => -180,
        270 => 90,
        _ => 0,
    }
}

fn ratio(ratio: Ratio, separator: char) -> String {
    format!("{}{separator}{}", ratio.num, ratio.den)
}

fn seconds_ms(ms: u64) -> String {
    format!("{}.{:03}000", ms / 1_000, ms % 1_000)
}

fn seconds_us(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    format!("{sign}{}.{:06}", us / 1_000_000, us % 1_000_000)
}

fn put(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    map.insert(key.into(), value.into());
}

fn put_some<T: Into<Value>>(map: &mut Map<String, Value>, key: &str, value: Option<T>) {
    if let Some(value) = value {
        put(map, key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types_are_those_of_ffprobe() {
        let media: MediaInfo = serde_json::from_value(json!({
            "format": "mov,mp4,m4a,3gp,3g2,mj2", "size": 1000, "duration_ms": 20021, "start_us": -21333,
            "bit_rate": 4242, "tags": { "encoder": "x" },
            "streams": [
                { "index": 0, "codec": "h264", "profile": "High", "codec_tag": "avc1", "time_base": { "num": 1, "den": 15360 },
                  "start_us": 0, "duration_ms": 20000, "frames": 600, "bit_rate": null, "language": "und", "default": true,
                  "attached_picture": false, "decodable": true, "tags": {}, "kind": { "video": {
                    "width": 1440, "height": 1080, "sample_aspect": { "num": 4, "den": 3 }, "rotation": 90, "mirrored": false,
                    "pixel_format": "yuv420p", "frame_rate": { "num": 30, "den": 1 }, "real_frame_rate": { "num": 30, "den": 1 },
                    "color_range": null, "color_space": null, "color_transfer": null, "color_primaries": null,
                    "field_order": "progressive", "level": 31 } } },
                { "index": 1, "codec": "aac", "profile": "LC", "codec_tag": "mp4a", "time_base": { "num": 1, "den": 48000 },
                  "start_us": -21333, "duration_ms": 20021, "frames": null, "bit_rate": 128000, "language": null, "default": true,
                  "attached_picture": false, "decodable": true, "tags": {}, "kind": { "audio": {
                    "sample_rate": 48000, "channels": 2, "channel_layout": "stereo", "sample_format": "fltp" } } },
            ],
        }))
        .unwrap();
        let document = document(&media, Path::new("/a/in.mp4"));
        assert_eq!(
            document["format"],
            json!({ "filename": "/a/in.mp4", "nb_streams": 2, "format_name": "mov,mp4,m4a,3gp,3g2,mj2",
                "start_time": "-0.021333", "duration": "20.021000", "size": "1000", "bit_rate": "4242", "tags": { "encoder": "x" } })
        );
        let video = &document["streams"][0];
        assert_eq!(
            (
                &video["codec_name"],
                &video["codec_type"],
                &video["width"],
                &video["r_frame_rate"],
                &video["duration"]
            ),
            (&json!("h264"), &json!("video"), &json!(1440), &json!("30/1"), &json!("20.000000"))
        );
        assert_eq!((&video["display_aspect_ratio"], &video["nb_frames"]), (&json!("16:9"), &json!("600")));
        assert_eq!(video["side_data_list"][0]["rotation"], json!(-90));
        assert_eq!(document["streams"][1]["sample_rate"], json!("48000"));
    }
}
