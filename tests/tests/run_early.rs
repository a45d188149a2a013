//! Jobs that play before they have ended, on the real programs: what can be fetched when, that it goes on to the end as it began,
//! and that neither a killed process nor a film that cannot be finished serves what was not checked.

use mpegflow_tests::media;
use mpegflow_tests::system::{Client, Serve, mpegflow, run, signal_pid, text, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(400);
const SOON: Duration = Duration::from_secs(120);

/// An answer of the broker.
struct Answer {
    status: u16,
    cache: String,
    body: Vec<u8>,
}

/// Fetches a path, or a range of what is there; `None` while nobody answers. Who asks too often waits.
fn fetch(client: &Client, path: &str, range: Option<(u64, u64)>) -> Option<Answer> {
    loop {
        let answer = fetch_once(client, path, range)?;
        if answer.status != 429 {
            return Some(answer);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn fetch_once(client: &Client, path: &str, range: Option<(u64, u64)>) -> Option<Answer> {
    let host = client.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).ok()?;
    let range = range.map_or(String::new(), |(at, len)| format!("Range: bytes={at}-{}\r\n", at + len - 1));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n{range}\r\n",
        client.key
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all).ok()?;
    let end = all.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let cache =
        head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("cache-control: ").map(str::to_owned));
    Some(Answer { status, cache: cache.unwrap_or_default(), body: all[end + 4..].to_vec() })
}

/// A segment of a playlist: how long it lasts, where it is, and what is in it once it was fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    lasts: String,
    uri: String,
    offset: u64,
    bytes: u64,
}

fn segments(list: &str) -> Vec<Segment> {
    let mut lines = list.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(lasts) = line.strip_prefix("#EXTINF:") else { continue };
        let (bytes, offset) =
            lines.next().unwrap().strip_prefix("#EXT-X-BYTERANGE:").unwrap().split_once('@').unwrap();
        let (bytes, offset) = (bytes.parse().unwrap(), offset.parse().unwrap());
        found.push(Segment { lasts: lasts.into(), uri: lines.next().unwrap().into(), offset, bytes });
    }
    found
}

/// Follows what a job serves, and fails the test at the first thing that is not as it should be.
struct Viewer<'a> {
    client: &'a Client,
    id: String,
    /// The last version of each media playlist.
    lists: BTreeMap<String, String>,
    /// Every segment that was listed, with its bytes as they were first served.
    seen: BTreeMap<Segment, Vec<u8>>,
    versions: usize,
}

impl<'a> Viewer<'a> {
    fn new(client: &'a Client, id: &str) -> Self {
        Self { client, id: id.into(), lists: BTreeMap::new(), seen: BTreeMap::new(), versions: 0 }
    }

    fn get(&self, name: &str, range: Option<(u64, u64)>) -> Option<Answer> {
        fetch(self.client, &format!("/v1/objects/{}/{name}", self.id), range)
    }

    /// Looks once; whether there was something to play.
    fn look(&mut self) -> bool {
        let Some(master) = self.get("master.m3u8", None).filter(|a| a.status == 200) else { return false };
        let master_text = String::from_utf8(master.body).unwrap();
        if !master.cache.contains("no-store") {
            // Committed meanwhile.
            return true;
        }
        assert_eq!(master_text.matches("#EXT-X-STREAM-INF").count(), 1, "{master_text}");
        let uris = master_text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(str::to_owned);
        let sounds = master_text.split("URI=\"").skip(1).map(|t| t.split('"').next().unwrap().to_owned());
        for uri in uris.chain(sounds).collect::<Vec<_>>() {
            let Some(answer) = self.get(&uri, None) else { continue };
            assert_eq!(answer.status, 200, "{uri} is listed");
            if !answer.cache.contains("no-store") {
                continue;
            }
            let list = String::from_utf8(answer.body).unwrap();
            assert!(list.contains("#EXT-X-PLAYLIST-TYPE:EVENT\n"), "{list}");
            let before = self.lists.get(&uri).cloned().unwrap_or_default();
            assert!(list.starts_with(&before), "{uri}:\n{list}\ndoes not go on from\n{before}");
            self.versions += usize::from(list != before);
            for segment in segments(&list) {
                if self.seen.contains_key(&segment) {
                    continue;
                }
                let Some(answer) = self.get(&segment.uri, Some((segment.offset, segment.bytes))) else {
                    continue;
                };
                assert_eq!(answer.status, 206, "{segment:?}");
                assert!(answer.cache.contains("immutable"), "{segment:?}: {}", answer.cache);
                assert_eq!(answer.body.len() as u64, segment.bytes);
                assert_eq!(&answer.body[4..8], b"moof");
                self.seen.insert(segment, answer.body);
            }
            self.lists.insert(uri, list);
        }
        true
    }

    /// Looks until the job has ended.
    fn watch(&mut self) -> Value {
        until("the end of the job", LIMIT, || {
            self.look();
            std::thread::sleep(Duration::from_millis(50));
            let job = show(self.client, &self.id)?;
            ["succeeded", "failed", "canceled"].contains(&job["state"].as_str()?).then_some(job)
        })
    }

    /// What has come of it: every playlist that grew is there to its end, with the same segments and the same bytes.
    fn compare_with_the_end(&self) {
        assert!(self.versions > 4, "it never grew: {} versions", self.versions);
        for (uri, list) in &self.lists {
            let done = self.get(uri, None).unwrap();
            assert!(done.status == 200 && done.cache.contains("immutable"), "{uri}");
            let done = String::from_utf8(done.body).unwrap();
            assert!(
                done.contains("#EXT-X-PLAYLIST-TYPE:VOD\n") && done.ends_with("#EXT-X-ENDLIST\n"),
                "{done}"
            );
            let (was, is) = (segments(list), segments(&done));
            assert_eq!(is[..was.len()], was[..], "{uri}");
        }
        for (segment, bytes) in &self.seen {
            let answer = self.get(&segment.uri, Some((segment.offset, segment.bytes))).unwrap();
            assert!(answer.status == 206 && answer.body == *bytes, "{segment:?} is another one now");
        }
    }
}

/// The job as the API gives it; `None` while nobody answers.
fn show(client: &Client, id: &str) -> Option<Value> {
    let answer = fetch(client, &format!("/v1/jobs/{id}"), None)?;
    serde_json::from_slice(&answer.body).ok()
}

fn kinds(job: &Value) -> Vec<&str> {
    job["tasks"].as_array().unwrap().iter().map(|t| t["kind"].as_str().unwrap()).collect()
}

fn download(client: &Client, id: &str, folder: &Path) -> PathBuf {
    let out = folder.join(id);
    let output = run(client.command().args(["download", id, "--out", out.to_str().unwrap()]), SOON);
    assert!(output.status.success(), "{}", text(&output));
    out
}

/// When each frame or packet of a track is shown, sorted.
fn times(file: &Path, select: &str) -> Vec<f64> {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-select_streams",
            select,
            "-show_entries",
            "packet=pts_time",
            "-of",
            "csv=p=0",
        ])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut times: Vec<f64> = text.lines().filter_map(|l| l.trim_end_matches(',').parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    times
}

#[test]
fn the_first_segments_play_within_a_tenth_and_the_rest_joins_them() {
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), 0, &[]);
    let source = media::clip(90, 640, 360);
    let id = serve.client.submit(&source, &["--early"]);
    let mut viewer = Viewer::new(&serve.client, &id);
    until("something to play", LIMIT, || viewer.look().then_some(()));
    let job = show(&serve.client, &id).unwrap();
    // Two rungs of 2,700 frames: what has been encoded is less than a tenth of that.
    assert!(job["progress"]["frames"].as_u64().unwrap() <= 540, "{job}");
    assert!(job["progress"]["percent"].as_f64().unwrap() < 20.0, "{}", job["progress"]);
    assert_eq!(job["early"]["url"], format!("/v1/objects/{id}/master.m3u8"));
    assert!(job["outputs"].as_array().unwrap().is_empty());
    assert_eq!(kinds(&job)[..7], ["probe", "encode", "package", "check", "encode", "package", "check"]);

    let job = viewer.watch();
    assert_eq!(job["state"], "succeeded", "{job}");
    viewer.compare_with_the_end();
    let master = String::from_utf8(viewer.get("master.m3u8", None).unwrap().body).unwrap();
    assert_eq!(master.matches("#EXT-X-STREAM-INF").count(), 2, "the other rung has joined: {master}");
    assert!(kinds(&job).len() > 13, "{:?}", kinds(&job));
    assert!(
        job["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|t| t["state"] == "succeeded" && t["evidence"].is_object())
    );

    let out = download(&serve.client, &id, folder.path());
    let (chunked, other) =
        (times(&out.join("video-240p.m3u8"), "v:0"), times(&out.join("video-360p.m3u8"), "v:0"));
    assert_eq!(chunked.len(), 2_700);
    let near =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.002);
    assert!(near(&chunked, &other), "frames are where they are in the rung that was encoded at once");
    assert!(near(&chunked, &times(&out.join("video-240p.mp4"), "v:0")), "and in the file for DASH");
    // Every frame shows what it should, over every joint.
    let ssim = media::ssim(&source, &out.join("video-240p.m3u8"), ["scale=426:240:flags=bicubic", "null"]);
    assert!(ssim > 0.95, "{ssim}");
    // Sound is one piece, from the beginning to the end, and stands where the pictures do.
    let sound = times(&out.join("audio.m3u8"), "a:0");
    assert!(
        sound.windows(2).all(|w| (w[1] - w[0] - 1_024.0 / 48_000.0).abs() < 0.001),
        "there is a gap in the sound"
    );
    assert!((sound.last().unwrap() - chunked.last().unwrap()).abs() < 0.1);
    assert!(sound[0] <= 0.0 && chunked[0].abs() < 0.001);
    // Segments of both begin together.
    let starts = |name: &str| -> Vec<f64> {
        let list = std::fs::read_to_string(out.join(name)).unwrap();
        segments(&list)
            .iter()
            .scan(0.0, |at, s| {
                let start = *at;
                *at += s.lasts.trim_end_matches(',').parse::<f64>().unwrap();
                Some(start)
            })
            .collect()
    };
    let (video, audio) = (starts("video-240p.m3u8"), starts("audio.m3u8"));
    assert_eq!(video.len(), audio.len());
    assert!(video.iter().zip(&audio).all(|(v, a)| (v - a).abs() < 0.05), "{video:?} {audio:?}");
    assert_eq!(video, starts("video-360p.m3u8"));
}

#[test]
fn killed_codecs_workers_and_brokers_lose_nothing_that_was_served() {
    let folder = tempfile::tempdir().unwrap();
    let (data, port) = (folder.path().join("data"), mpegflow_test_ports::port());
    let mut serve = Serve::start(&data, port, &[]);
    let client = serve.client.clone();
    let id = client.submit(&media::clip(60, 640, 360), &["--early"]);
    let mut viewer = Viewer::new(&client, &id);
    until("something to play", LIMIT, || viewer.look().then_some(()));
    for victim in ["mpegflow-codec", "mpegflow-worker", "broker"] {
        // The next part is under way.
        let done = viewer.versions;
        until("more to play", LIMIT, || {
            viewer.look();
            (viewer.versions > done).then_some(())
        });
        if victim == "broker" {
            serve.process.kill();
            serve = Serve::start(&data, port, &[]);
        } else {
            let pid = until(victim, SOON, || serve.running(victim).first().copied());
            signal_pid(pid, "KILL");
        }
        viewer.look();
    }
    let job = viewer.watch();
    assert_eq!(job["state"], "succeeded", "{job}");
    viewer.compare_with_the_end();
    assert_eq!(times(&download(&client, &id, folder.path()).join("video-240p.m3u8"), "v:0").len(), 1_800);
}

#[test]
fn a_film_that_breaks_off_after_it_began_ends_its_playlists_and_its_files_go() {
    let whole = media::ffmpeg(
        "early-silent-60s.mp4",
        "-f lavfi -i testsrc2=size=640x360:rate=30:duration=60 -c:v libx264 -preset veryfast -pix_fmt yuv420p -g 30 \
         -movflags +faststart",
    );
    let broken = media::made("early-broken-60s.mp4", |path| {
        let mut bytes = std::fs::read(&whole).unwrap();
        let (from, to) = (bytes.len() * 6 / 10, bytes.len() * 95 / 100);
        bytes[from..to].copy_from_slice(&media::noise(to - from));
        std::fs::write(path, bytes).unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), 0, &[]);
    let id = serve.client.submit(&broken, &["--early"]);
    let mut viewer = Viewer::new(&serve.client, &id);
    let job = viewer.watch();
    assert_eq!(job["state"], "failed", "{job}");
    assert!(job["outputs"].as_array().unwrap().is_empty());
    let before = viewer.lists.get("video-240p.m3u8").expect("its beginning played").clone();
    let list = viewer.get("video-240p.m3u8", None).unwrap();
    assert!(list.status == 200 && list.cache.contains("no-store"));
    let list = String::from_utf8(list.body).unwrap();
    assert!(list.starts_with(&before) && list.ends_with("#EXT-X-ENDLIST\n"), "{list}");
    until("its files are gone", SOON, || {
        (viewer.get("video-240p-01.mp4", None).unwrap().status == 404).then_some(())
    });
}

#[test]
fn a_film_that_is_canceled_while_it_plays_ends_there() {
    let folder = tempfile::tempdir().unwrap();
    let serve = Serve::start(&folder.path().join("data"), 0, &[]);
    let id = serve.client.submit(&media::clip(60, 640, 360), &["--early"]);
    let mut viewer = Viewer::new(&serve.client, &id);
    until("something to play", LIMIT, || viewer.look().then_some(()));
    let output = run(serve.client.command().args(["jobs", "cancel", &id]), SOON);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(viewer.watch()["state"], "canceled");
    let list = String::from_utf8(viewer.get("video-240p.m3u8", None).unwrap().body).unwrap();
    assert!(
        list.ends_with("#EXT-X-ENDLIST\n") && list.starts_with(&viewer.lists["video-240p.m3u8"]),
        "{list}"
    );
    let deleted = run(serve.client.command().args(["jobs", "delete", &id]), SOON);
    assert!(deleted.status.success(), "{}", text(&deleted));
    assert_eq!(viewer.get("video-240p.m3u8", None).unwrap().status, 404);
}

#[test]
fn the_command_line_says_where_it_plays_and_why_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let clip = media::clip(20, 320, 240);
    let mut command = mpegflow();
    command.args(["transcode", clip.to_str().unwrap(), "--early", "--out", out.to_str().unwrap()]);
    let output = run(&mut command, LIMIT);
    assert!(output.status.success(), "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("plays already: http://127.0.0.1:"), "{said}");
    // One rung alone, and stills: all of it is there.
    assert_eq!(
        media::ffprobe(&out.join("master.m3u8"), "v:0", "stream=nb_read_frames").lines().next(),
        Some("600")
    );
    assert!(
        out.join("video-240p-02.mp4").exists()
            && out.join("poster.jpg").exists()
            && out.join("manifest.mpd").exists()
    );
    let beside = |text: &[&str]| {
        let mut command = mpegflow();
        let other = folder.path().join("other");
        command.args(["transcode", text[0], "--early", "--out", other.to_str().unwrap()]).args(&text[1..]);
        run(&mut command, LIMIT)
    };
    let stream = media::ffmpeg("early-20s.ts", &format!("-i {} -c copy -f mpegts", clip.display()));
    let output = beside(&[stream.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("encoded as a whole, since places in its container"),
        "{}",
        text(&output)
    );
    let output = beside(&[clip.to_str().unwrap(), "--preset", "mp4", "--force"]);
    assert!(!output.status.success());
    assert!(text(&output).contains("output.early"), "{}", text(&output));
}
