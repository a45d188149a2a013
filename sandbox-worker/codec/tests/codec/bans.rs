//! What is banned is not opened, whatever a plan says: a codec process trusts its broker to plan, not to remember.

use crate::{media, plans, supervisor};
use mpegflow_protocol::failure::FailureCode;
use mpegflow_protocol::job::DecoderSet;

#[test]
fn a_banned_decoder_does_not_even_probe_and_what_is_not_banned_goes_on() {
    let probe = || plans::probe(DecoderSet::Core);
    let outcome = supervisor::run_banned(&["h264"], probe(), &[media::plain()], 0);
    let streams = &outcome.probe().media.streams;
    assert_eq!(
        streams.iter().map(|s| (s.codec.as_str(), s.decodable)).collect::<Vec<_>>(),
        [("h264", false), ("aac", true)]
    );
    let video = || plans::encode(Some(plans::video(0, vec![plans::rung(0, 320, 240)])), vec![]);
    let refused = supervisor::run_banned(&["h264"], video(), &[media::plain()], 1);
    assert_eq!((refused.code(), refused.outputs[0].len()), (FailureCode::DecoderBanned, 0));
    let sound = plans::encode(None, vec![plans::audio(0, 1)]);
    assert_eq!(supervisor::run_banned(&["h264"], sound, &[media::plain()], 1).encode().decode_errors, 0);
    assert!(
        supervisor::run_banned(&["hevc", "avi"], video(), &[media::plain()], 1).encode().frames_decoded > 0
    );
}

#[test]
fn a_banned_demuxer_opens_nothing() {
    let outcome = supervisor::run_banned(&["mov"], plans::probe(DecoderSet::Core), &[media::plain()], 0);
    assert_eq!(outcome.code(), FailureCode::DecoderBanned);
}

#[test]
fn the_check_of_an_output_is_held_to_a_ban_as_well() {
    let input = media::plain();
    let task = plans::encode(Some(plans::video(0, vec![plans::rung(0, 320, 240)])), vec![plans::audio(1, 1)]);
    let encoded = supervisor::run(task.clone(), &[input], 2);
    let plan = plans::packaging(&task, encoded.encode(), Some(4_000));
    let tracks: Vec<_> = encoded.outputs.iter().cloned().map(std::sync::Arc::new).collect();
    let packaged = supervisor::run(plan.package, &tracks, plan.names.len());
    let objects: Vec<_> = packaged.outputs.iter().cloned().map(std::sync::Arc::new).collect();
    assert!(supervisor::run(plan.check.clone(), &objects, 0).check().problems.is_empty());
    let banned = supervisor::run_banned(&["h264"], plan.check, &objects, 0);
    assert!(!banned.check().problems.is_empty(), "it was decoded");
}
