//! Jobs that play before they have ended, with a worker that makes results up: what is served when, and what becomes of it in bad
//! times. Over whichever store the file that takes this in makes its worlds with.

use super::common::*;
use super::{world, world_with};
use mpegflow_protocol::api::{Job, JobPage, JobState};
use mpegflow_protocol::failure::{Failure, FailureCode};
use mpegflow_protocol::task::{
    CheckResult, Cut, EncodeResult, ExpectTrack, MadeChunk, TaskResult, TaskSpec, VideoEncode,
};
use mpegflow_protocol::worker::{Complete, Fail, Lease, LeaseReply};
use std::time::Duration;

/// The chain of a film of ten seconds in segments of two: the sound, chunks of two, four and four seconds, and the rest.
const CHAIN: usize = 1 + 3 * (1 + 3 + 1);

async fn submit_early(client: &Client) -> Job {
    let upload = upload(client, b"the media").await;
    let spec = format!(
        r#"{{"version":1,"input":{{"upload":"{}"}},"preset":"web","video":{{"segment_seconds":2}},"output":{{"early":true}}}}"#,
        upload.id
    );
    let answer = client.call("POST", "/v1/jobs", spec).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

async fn object(client: &Client, job: &Job, name: &str) -> Answer {
    client.get(&format!("/v1/objects/{}/{name}", job.id)).await
}

/// Does `count` tasks.
async fn steps(worker: &Worker, count: usize) {
    for _ in 0..count {
        let lease = worker.lease().await;
        let answer = worker.finish(&lease).await;
        assert_eq!(answer.status, 204, "{}: {}", lease.task.name(), answer.text());
    }
}

/// Tasks until the first chunk was checked: probe, the sound's three, the chunk's three.
const PLAYABLE: usize = 7;

/// Sends a result that a change was made to, and gives the answer.
async fn lie(worker: &Worker, lease: &Lease, change: impl FnOnce(&mut Complete)) -> Answer {
    let mut complete = worker.work(lease).await;
    change(&mut complete);
    worker.end(lease, "complete", serde_json::to_vec(&complete).unwrap()).await
}

fn encoded(complete: &mut Complete) -> (&mut EncodeResult, MadeChunk) {
    let TaskResult::Encode(result) = &mut complete.result else { panic!("no encode") };
    let made = result.chunk.unwrap();
    (result, made)
}

fn checked(complete: &mut Complete) -> &mut CheckResult {
    let TaskResult::Check(result) = &mut complete.result else { panic!("no check") };
    result
}

fn uris(list: &str) -> Vec<String> {
    let mut lines = list.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with("#EXTINF:") {
            found.push(format!("{line} {} {}", lines.next().unwrap(), lines.next().unwrap()));
        }
    }
    found
}

/// The bytes of each segment that a playlist lists.
async fn segments(client: &Client, job: &Job, list: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for segment in uris(list) {
        let (_, rest) = segment.split_once("#EXT-X-BYTERANGE:").unwrap();
        let (range, uri) = rest.split_once(' ').unwrap();
        let (len, at) = range.split_once('@').unwrap();
        let (len, at): (usize, usize) = (len.parse().unwrap(), at.parse().unwrap());
        let answer = object(client, job, uri).await;
        assert_eq!(answer.status, 200, "{uri}: {}", answer.text());
        assert_eq!(answer.headers["cache-control"], "private, max-age=3600, immutable");
        found.push(answer.body[at..at + len].to_vec());
    }
    found
}

#[tokio::test]
async fn what_is_checked_plays_while_the_rest_is_made_and_stays_as_it_was() {
    let world = world().await;
    let (tenant, other, worker) = (world.tenant("a").await, world.tenant("b").await, world.worker().await);
    let job = submit_early(&tenant).await;
    let names = ["master.m3u8", "video-240p.m3u8", "audio.m3u8", "video-240p-01.mp4", "audio.mp4"];
    let mut kinds = Vec::new();
    let mut versions: Vec<String> = Vec::new();
    let mut sound: Vec<String> = Vec::new();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for step in 0..CHAIN {
        let playable = step >= PLAYABLE;
        for name in names {
            let answer = object(&tenant, &job, name).await;
            assert_eq!(answer.status, if playable { 200 } else { 404 }, "{name} before step {step}");
            assert_eq!(object(&other, &job, name).await.status, 404, "another tenant's");
            assert_eq!(world.anonymous().get(&format!("/v1/objects/{}/{name}", job.id)).await.status, 401);
            if name.ends_with(".m3u8") && playable {
                assert_eq!(answer.headers["cache-control"], "no-store");
                assert!(!answer.headers.contains_key("etag"));
            }
        }
        let shown = show(&tenant, &job).await;
        let early = shown.early.unwrap();
        assert_eq!((early.url.is_some(), early.whole_because), (playable, None));
        assert!(shown.outputs.is_empty(), "nothing is committed");
        if playable {
            assert_eq!(early.url.unwrap(), format!("/v1/objects/{}/master.m3u8", job.id));
            let list = object(&tenant, &job, "video-240p.m3u8").await.text();
            assert!(list.contains("#EXT-X-PLAYLIST-TYPE:EVENT\n"), "{list}");
            let before = versions.last().cloned().unwrap_or_default();
            assert!(list.starts_with(&before), "{list}\ndoes not go on from\n{before}");
            assert_eq!(
                segments(&tenant, &job, &list).await[..seen.len()],
                seen[..],
                "what was there is as it was"
            );
            seen = segments(&tenant, &job, &list).await;
            let audio = object(&tenant, &job, "audio.m3u8").await.text();
            assert!(audio.starts_with(sound.last().map_or("", |s| s)), "{audio}");
            // Sound and pictures end together, whatever there is of both.
            assert_eq!(uris(&audio).len(), uris(&list).len());
            versions.push(list);
            sound.push(audio);
        }
        if step == PLAYABLE {
            // Two of ten seconds of one of four rungs: a twentieth of the frames.
            assert_eq!(shown.progress.frames, 60);
            assert!(shown.progress.percent < 10.0, "{}", shown.progress.percent);
            assert_eq!(early.playable_ms, 2_000);
            let master = object(&tenant, &job, "master.m3u8").await.text();
            assert!(
                master.contains(",RESOLUTION=426x240,FRAME-RATE=30.000,AUDIO=\"audio\"\nvideo-240p.m3u8\n"),
                "{master}"
            );
            assert_eq!(master.matches("#EXT-X-STREAM-INF").count(), 1);
        }
        let lease = worker.lease().await;
        kinds.push(lease.task.name());
        assert_eq!(worker.finish(&lease).await.status, 204, "{} at {step}", lease.task.name());
    }
    let parts = ["encode", "package", "check"];
    let expected: Vec<&str> =
        std::iter::once("probe").chain(parts.iter().cycle().take(15).copied()).collect();
    assert_eq!(kinds, expected);
    assert!(matches!(worker.ask(100).await, LeaseReply::Idle {}));

    let done = show(&tenant, &job).await;
    assert_eq!((done.state, done.progress.percent, done.progress.frames), (JobState::Succeeded, 100.0, 300));
    let list = object(&tenant, &job, "video-240p.m3u8").await;
    assert_eq!(list.headers["cache-control"], "private, max-age=3600, immutable");
    let vod = list.text();
    let event = versions.last().unwrap();
    assert!(event.ends_with("#EXT-X-ENDLIST\n"), "the rung was whole before the others were");
    assert_eq!(vod, event.replace("EVENT\n#EXT-X-START:TIME-OFFSET=0,PRECISE=YES", "VOD"));
    assert_eq!(segments(&tenant, &job, &vod).await, seen);
    // The first version had one segment, and there were some in between.
    assert_eq!(uris(&versions[0]).len(), 1);
    assert!(versions.iter().any(|v| uris(v).len() == 3) && uris(&vod).len() == 5);

    let names: Vec<&str> = done.outputs.iter().map(|o| o.name.as_str()).collect();
    for name in [
        "manifest.mpd",
        "video-720p.mp4",
        "video-240p.mp4",
        "video-240p-01.mp4",
        "video-240p-03.mp4",
        "video-240p.m3u8",
        "audio.mp4",
        "poster.jpg",
    ] {
        assert_eq!(names.iter().filter(|n| **n == name).count(), 1, "{name}: {names:?}");
    }
    assert!(!names.iter().any(|n| n.starts_with("video-240p-") && n.ends_with(".m3u8")), "{names:?}");
    for output in &done.outputs {
        let got = tenant.get(&output.url).await;
        assert_eq!((got.status.as_u16(), got.body.len() as u64), (200, output.size), "{}", output.name);
        assert_eq!(output_digest(&[&got.body]).digest, output.digest, "{}", output.name);
        assert_eq!(got.headers["etag"], format!("\"{}\"", output.digest));
    }
    let half =
        tenant.with("range", "bytes=0-6").get(&format!("/v1/objects/{}/video-240p.m3u8", job.id)).await;
    assert_eq!((half.status.as_u16(), half.text().as_str()), (206, "#EXTM3U"));
    // What is in the manifest stays, chunks and all; the encoded tracks go.
    world.broker().engine().sweep().await.unwrap();
    assert_eq!(segments(&tenant, &job, &vod).await, seen);
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_nothing_more_is_served() {
    type Change = fn(&mut Complete);
    let cases: [(usize, &str, Change); 12] = [
        (7, "a chunk that is longer than it is", |c| {
            let (result, made) = encoded(c);
            result.chunk = Some(MadeChunk { end: made.end + 180_000, ..made });
        }),
        (7, "a chunk that is shorter than it is", |c| encoded(c).0.tracks[0].duration_ms -= 500),
        (7, "a chunk from elsewhere", |c| {
            let (result, made) = encoded(c);
            result.chunk = Some(MadeChunk { start: 0, ..made });
        }),
        (7, "one that goes on in the middle of the next", |c| {
            let (result, made) = encoded(c);
            let next = made.next.map(|cut| Cut { time: cut.time + 90_000, ..cut });
            result.chunk = Some(MadeChunk { next, ..made });
        }),
        (7, "no chunk at all", |c| encoded(c).0.chunk = None),
        (8, "another codec", |c| {
            let TaskResult::Package(package) = &mut c.result else { panic!() };
            package.tracks[0].codecs = "hvc1.1.6.L93.B0".into();
        }),
        (9, "a problem that the check found", |c| {
            checked(c).problems.push("segment 1 does not start with a key frame".into())
        }),
        (9, "a wrong number of frames", |c| checked(c).tracks[0].packets += 5),
        (9, "a list that leaves a segment out", |c| {
            checked(c).tracks[0].listed.as_mut().unwrap().segments.pop();
        }),
        (9, "a list with a segment that is too long", |c| {
            let list = checked(c).tracks[0].listed.as_mut().unwrap();
            list.segments[0].micros = 90_000_000;
        }),
        (9, "a line smuggled into a playlist", |c| {
            checked(c).tracks[0].listed.as_mut().unwrap().codecs = "avc1.64001f\"\n#EXT-X-KEY".into();
        }),
        (9, "no list", |c| checked(c).tracks[0].listed = None),
    ];
    let world = world().await;
    for (at, what, change) in cases {
        let (tenant, worker) = (world.tenant(what).await, world.worker().await);
        let job = submit_early(&tenant).await;
        steps(&worker, at).await;
        let before = object(&tenant, &job, "video-240p.m3u8").await.text();
        let lease = worker.lease().await;
        let answer = lie(&worker, &lease, change).await;
        assert!(!answer.status.is_success(), "{what}");
        let failed = show(&tenant, &job).await;
        // A lie about what was sent is the attempt's; one about what it is ends the job.
        if failed.state == JobState::Failed {
            assert_eq!(failed.failure.unwrap().code, FailureCode::OutputRejected, "{what}");
            let after = object(&tenant, &job, "video-240p.m3u8").await.text();
            assert_eq!(after, format!("{before}#EXT-X-ENDLIST\n"), "{what}");
        } else {
            assert_eq!(object(&tenant, &job, "video-240p.m3u8").await.text(), before, "{what}");
        }
        assert_eq!(object(&tenant, &job, "video-240p-02.mp4").await.status, 404, "{what}");
        tenant.call("POST", &format!("/v1/jobs/{}/cancel", job.id), "").await;
    }
}

#[tokio::test]
async fn the_whole_has_to_be_what_was_served() {
    let world = world().await;
    for what in ["other frames", "other sound"] {
        let (tenant, worker) = (world.tenant(what).await, world.worker().await);
        let job = submit_early(&tenant).await;
        steps(&worker, 13).await;
        let lease = worker.lease().await;
        let answer = if what == "other frames" {
            lie(&worker, &lease, |c| {
                let TaskResult::Encode(result) = &mut c.result else { panic!() };
                result.tracks.iter_mut().filter(|t| t.units == 300).for_each(|t| t.units = 299);
            })
            .await
        } else {
            assert_eq!(worker.finish(&lease).await.status, 204);
            let lease = worker.lease().await;
            let TaskSpec::Package(task) = &lease.task else { panic!() };
            let sound = task.tracks.iter().find(|t| matches!(t.expect, ExpectTrack::Audio { .. })).unwrap();
            let mut complete = Complete {
                result: TaskResult::Check(CheckResult { problems: vec![], tracks: vec![] }),
                outputs: vec![],
                evidence: evidence(),
            };
            for n in 0..lease.outputs.len() {
                let mut bytes = output_bytes(&lease, n);
                if n == sound.media_output as usize {
                    bytes.reverse();
                }
                assert_eq!(worker.put(&lease, n, 0, &bytes).await.status, 204);
                complete.outputs.push(output_digest(&[&bytes]));
            }
            complete.result = result_for(&lease, &complete.outputs);
            worker.end(&lease, "complete", serde_json::to_vec(&complete).unwrap()).await
        };
        assert!(!answer.status.is_success(), "{what}");
        let failed = show(&tenant, &job).await;
        assert_eq!(
            (failed.state, failed.failure.unwrap().code),
            (JobState::Failed, FailureCode::OutputRejected),
            "{what}"
        );
        assert!(failed.outputs.is_empty());
    }
}

#[tokio::test]
async fn a_job_that_fails_or_is_canceled_after_it_began_to_play_ends_its_playlists_and_its_files_go() {
    let world = world().await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    for canceled in [false, true] {
        let job = submit_early(&tenant).await;
        steps(&worker, PLAYABLE).await;
        let before = object(&tenant, &job, "video-240p.m3u8").await.text();
        assert!(!before.contains("ENDLIST"));
        let lease = worker.lease().await;
        if canceled {
            let path = format!("/v1/jobs/{}/cancel", job.id);
            assert_eq!(tenant.call("POST", &path, "").await.status, 200);
            assert_eq!(
                object(&tenant, &job, "video-240p.m3u8").await.text(),
                before,
                "a worker still has it"
            );
            // What it made comes too late.
            assert_eq!(worker.finish(&lease).await.status, 204);
        } else {
            let failure = Failure::new(FailureCode::InputCorrupt, "the second chunk cannot be read");
            let fail = serde_json::to_vec(&Fail { failure, evidence: None }).unwrap();
            assert_eq!(worker.end(&lease, "fail", fail).await.status, 204);
        }
        let state = if canceled { JobState::Canceled } else { JobState::Failed };
        assert_eq!(show(&tenant, &job).await.state, state);
        for name in ["video-240p.m3u8", "audio.m3u8"] {
            let list = object(&tenant, &job, name).await;
            assert_eq!(
                (list.status.as_u16(), &list.headers["cache-control"]),
                (200, &"no-store".parse().unwrap())
            );
            assert!(list.text().ends_with("#EXT-X-ENDLIST\n"), "{}", list.text());
        }
        assert_eq!(
            object(&tenant, &job, "video-240p.m3u8").await.text(),
            format!("{before}#EXT-X-ENDLIST\n")
        );
        world.broker().engine().sweep().await.unwrap();
        for name in ["video-240p-01.mp4", "audio.mp4"] {
            assert_eq!(object(&tenant, &job, name).await.status, 404, "{name}");
        }
        assert!(
            files(&world.dir.path().join("data/objects")).iter().all(|f| !f.contains(&job.id.to_string()))
        );
        assert_eq!(tenant.call("DELETE", &format!("/v1/jobs/{}", job.id), "").await.status, 204);
        assert_eq!(object(&tenant, &job, "video-240p.m3u8").await.status, 404);
    }
}

#[tokio::test]
async fn a_lost_workers_chunk_is_made_by_another_and_its_own_counts_no_more() {
    let world = world_with(|c| c.lease = Duration::from_secs(2)).await;
    let tenant = world.tenant("a").await;
    let (lost, other) = (world.worker().await, world.worker().await);
    let job = submit_early(&tenant).await;
    steps(&lost, PLAYABLE + 2).await;
    // It has all but said that the second chunk is right.
    let stale = lost.lease().await;
    assert_eq!(stale.task.name(), "check");
    let late = serde_json::to_vec(&lost.work(&stale).await).unwrap();
    let before = object(&tenant, &job, "video-240p.m3u8").await.text();
    let lease = other.lease().await;
    assert_eq!(lease.task, stale.task);
    assert_eq!(lost.end(&stale, "complete", late.clone()).await.status, 409);
    assert_eq!(object(&tenant, &job, "video-240p.m3u8").await.text(), before);
    assert_eq!(other.finish(&lease).await.status, 204);
    assert_eq!(lost.end(&stale, "complete", late).await.status, 409);
    assert_eq!(uris(&object(&tenant, &job, "video-240p.m3u8").await.text()).len(), 3);
    steps(&other, CHAIN - PLAYABLE - 3).await;
    assert_eq!(show(&tenant, &job).await.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_broker_that_dies_at_any_point_serves_the_same_when_it_is_back() {
    let mut world = world().await;
    let key = world.tenant("a").await.headers;
    let join = world.join_file().await;
    let client = |world: &World| {
        let mut client = world.anonymous();
        client.headers = key.clone();
        client
    };
    let job = submit_early(&client(&world)).await;
    for step in 0..CHAIN {
        let before = object(&client(&world), &job, "video-240p.m3u8").await;
        world.crash_and_restart().await;
        let after = object(&client(&world), &job, "video-240p.m3u8").await;
        assert_eq!((before.status, before.text()), (after.status, after.text()), "at step {step}");
        let worker = Worker::enroll(&join, world.broker().worker_addr()).await;
        steps(&worker, 1).await;
    }
    let done = show(&client(&world), &job).await;
    assert_eq!(done.state, JobState::Succeeded);
    assert!(done.tasks.iter().all(|t| t.attempts == 1) && done.tasks.len() == CHAIN);
}

#[tokio::test]
async fn a_deleted_tenants_early_films_are_gone_at_once_and_their_files_soon() {
    let world = world().await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    let job = submit_early(&tenant).await;
    steps(&worker, PLAYABLE).await;
    assert_eq!(object(&tenant, &job, "video-240p.m3u8").await.status, 200);
    let engine = world.broker().engine();
    assert!(engine.delete_tenant("a").await.unwrap().is_some());
    assert_eq!(object(&tenant, &job, "video-240p.m3u8").await.status, 401);
    eventually("its files are gone", async || {
        engine.retain(None).await.unwrap();
        engine.sweep().await.unwrap();
        files(&world.dir.path().join("data/objects")).is_empty()
    })
    .await;
}

#[tokio::test]
async fn without_leave_or_a_way_to_cut_it_a_job_is_made_as_every_other() {
    let world = world().await;
    let (tenant, worker) = (world.tenant("a").await, world.worker().await);
    // Not asked for: nothing but the four tasks, and nothing to play before they are done.
    let job = submit(&tenant, b"x").await;
    for name in ["probe", "encode", "package", "check"] {
        let lease = worker.lease().await;
        assert_eq!(lease.task.name(), name);
        if let TaskSpec::Encode(task) = &lease.task {
            let VideoEncode { rungs, .. } = task.video.as_ref().unwrap();
            assert_eq!((rungs.len(), task.audio.len(), task.chunk, &task.timeline), (4, 1, None, &None));
        }
        assert_eq!(object(&tenant, &job, "master.m3u8").await.status, 404);
        assert_eq!(worker.finish(&lease).await.status, 204);
    }
    let done = show(&tenant, &job).await;
    assert_eq!((done.state, done.early, done.outputs.len()), (JobState::Succeeded, None, 15));
    // Asked for, of a file that cannot be cut: made as a whole, and it says why.
    let job = submit_early(&tenant).await;
    let lease = worker.lease().await;
    let answer = lie(&worker, &lease, |c| {
        let TaskResult::Probe(probe) = &mut c.result else { panic!() };
        probe.media.format = "mpegts".into();
    })
    .await;
    assert_eq!(answer.status, 204);
    let early = show(&tenant, &job).await.early.unwrap();
    assert!(early.whole_because.unwrap().contains("container"), "{:?}", early.url);
    assert_eq!(worker.run().await, 3);
    let done = show(&tenant, &job).await;
    assert_eq!((done.state, done.outputs.len()), (JobState::Succeeded, 15));
    // Of a preset that makes no HLS: refused, and the field is named.
    let upload = upload(&tenant, b"x").await;
    let spec = format!(
        r#"{{"version":1,"input":{{"upload":"{}"}},"preset":"mp4","output":{{"early":true}}}}"#,
        upload.id
    );
    let refused = tenant.call("POST", "/v1/jobs", spec).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains(r#""field":"output.early""#), "{}", refused.text());
    assert_eq!(tenant.get("/v1/jobs").await.json::<JobPage>().jobs.len(), 2);
}
