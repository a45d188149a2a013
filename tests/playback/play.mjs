// Plays DIR/master.m3u8 in headless Chromium with hls.js: plays, seeks, switches rung, and prints what it saw as one JSON
// object. Exit 1 when the browser or hls.js reports an error.
//   node play.mjs DIR
import { stage } from './stage.mjs';

const report = await stage(process.argv[2], './node_modules/hls.js/dist/hls.min.js', async () => {
  const { errors, until, within } = window;
  const video = document.getElementById('v');
  const player = new window.Hls({ startLevel: 0 });
  player.on(window.Hls.Events.ERROR, (_, e) => errors.push(`${e.type}/${e.details}${e.fatal ? ' fatal' : ''}`));
  player.loadSource('/master.m3u8');
  player.attachMedia(video);
  await until('manifest', () => player.levels?.length > 0 && video.readyState >= 1, 20000);
  await within('the start of playback', video.play());
  await until('two seconds of playback', () => video.currentTime >= 2, 30000);
  const duration = video.duration;
  const first = { width: video.videoWidth, height: video.videoHeight };
  const levels = player.levels.map((l) => ({ width: l.width, height: l.height, bitrate: l.bitrate, codecs: [l.videoCodec, l.audioCodec] }));
  // Switch to the last rung at once. A short clip is buffered whole by now, so that on a busy machine the first rung could
  // play to its end before the switch takes effect: the seek near the end waits for the new picture.
  player.currentLevel = player.levels.length - 1;
  await until('the last rung', () => video.videoHeight !== first.height, 30000);
  video.currentTime = Math.max(0, duration - 2);
  await until('playback after the seek', () => !video.seeking && video.readyState >= 3, 20000);
  await until('the end', () => video.ended, 30000);
  const quality = video.getVideoPlaybackQuality();
  return {
    duration, levels, first, last: { width: video.videoWidth, height: video.videoHeight },
    ended: video.ended, frames: quality.totalVideoFrames, corrupted: quality.corruptedVideoFrames,
    audioBytes: video.webkitAudioDecodedByteCount, audioTracks: player.audioTracks.length, errors,
  };
});
console.log(JSON.stringify(report));
process.exit(report.errors.length === 0 && report.ended ? 0 : 1);
