// Plays a job of a broker in headless Chromium with hls.js from when there is something to play, while it still grows, to the end of its
// lowest rung, and prints what it saw as one JSON object. Exit 1 when the browser or hls.js gives up.
//   node early.mjs URL KEY PATH-OF-MASTER
import { stage } from './stage.mjs';

const [url, key, master] = process.argv.slice(2);
const report = await stage({ url, key }, './node_modules/hls.js/dist/hls.min.js', async (master) => {
  const { errors, until, within } = window;
  const video = document.getElementById('v');
  let there = false;
  const ask = setInterval(async () => { there ||= (await fetch(master)).ok; }, 200);
  await until('something to play', () => there, 200000);
  clearInterval(ask);
  const player = new window.Hls();
  // One that waits for more to come says so, and that is no fault.
  player.on(window.Hls.Events.ERROR, (_, e) => { if (e.fatal) errors.push(`${e.type}/${e.details}`); });
  const lengths = [];
  let grew = false;
  player.on(window.Hls.Events.LEVEL_LOADED, (_, { details }) => {
    grew ||= details.live;
    lengths.push(details.fragments.length);
  });
  player.loadSource(master);
  player.attachMedia(video);
  await until('the first picture', () => video.readyState >= 2, 60000);
  const start = video.currentTime;
  const levels = player.levels.length;
  video.playbackRate = 4;
  await within('the start of playback', video.play());
  await until('two seconds of playback', () => video.currentTime >= 2, 60000);
  await until('the end', () => video.ended, 200000);
  const quality = video.getVideoPlaybackQuality();
  return {
    start, levels, grew, lengths, duration: video.duration, at: video.currentTime, height: video.videoHeight,
    frames: quality.totalVideoFrames, corrupted: quality.corruptedVideoFrames, audioBytes: video.webkitAudioDecodedByteCount,
    gaps: video.buffered.length, ended: video.ended, errors,
  };
}, master);
console.log(JSON.stringify(report));
process.exit(report.errors.length === 0 && report.ended ? 0 : 1);
