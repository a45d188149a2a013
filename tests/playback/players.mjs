// Plays DIR in headless Chromium with dash.js or Shaka Player: plays, seeks, switches rung, and prints what it saw as one JSON
// object. Exit 1 when the player reports an error.
//   node players.mjs DIR dashjs|shaka-dash|shaka-hls
import { stage } from './stage.mjs';

const [dir, player] = process.argv.slice(2);
const scripts = {
  dashjs: './node_modules/dashjs/dist/modern/umd/dash.all.min.js',
  shaka: './node_modules/shaka-player/dist/shaka-player.compiled.js',
};
const report = await stage(dir, scripts[player === 'dashjs' ? 'dashjs' : 'shaka'], async (player) => {
  const { errors, until, within } = window;
  const video = document.getElementById('v');
  // Each player: load, and go from the lowest rung to the highest, dropping what was buffered ahead.
  let rungs, highest;
  if (player === 'dashjs') {
    const dash = window.dashjs.MediaPlayer().create();
    dash.updateSettings({ streaming: {
      abr: { autoSwitchBitrate: { video: false }, initialBitrate: { video: 1 } },
      buffer: { fastSwitchEnabled: true, bufferTimeDefault: 2, bufferTimeAtTopQuality: 2 },
    } });
    dash.on(window.dashjs.MediaPlayer.events.ERROR, (e) => errors.push(JSON.stringify(e.error)));
    dash.initialize(video, '/manifest.mpd', false);
    const all = () => dash.getRepresentationsByType('video').slice().sort((a, b) => a.height - b.height);
    await until('manifest', () => video.readyState >= 1 && all().length > 0, 30000);
    rungs = () => all().map((r) => r.height);
    highest = () => dash.setRepresentationForTypeById('video', all().at(-1).id, true);
  } else {
    const shaka = new window.shaka.Player();
    await shaka.attach(video);
    shaka.configure({ abr: { enabled: false }, streaming: { bufferingGoal: 2 } });
    shaka.addEventListener('error', (e) => errors.push(`${e.detail.code} ${e.detail.message}`));
    await within('the manifest', shaka.load(player === 'shaka-dash' ? '/manifest.mpd' : '/master.m3u8'));
    const all = () => shaka.getVariantTracks().slice().sort((a, b) => a.height - b.height);
    shaka.selectVariantTrack(all()[0], true);
    rungs = () => all().map((t) => t.height);
    highest = () => shaka.selectVariantTrack(all().at(-1), true);
  }
  const heights = rungs();
  await until('the lowest rung', () => video.videoHeight === heights[0], 30000);
  await within('the start of playback', video.play());
  await until('two seconds of playback', () => video.currentTime >= 2, 30000);
  const first = video.videoHeight;
  // One thing at a time: back to where there is time left, and when that is done another rung.
  video.pause();
  video.currentTime = 1;
  await until('the seek back', () => !video.seeking && video.readyState >= 3, 30000);
  highest();
  await within('playback after the seek back', video.play());
  await until('the highest rung', () => video.videoHeight === heights.at(-1), 30000);
  const last = video.videoHeight;
  const duration = video.duration;
  video.currentTime = duration - 2;
  await until('playback after the seek', () => !video.seeking && video.readyState >= 3, 30000);
  await until('the end', () => video.ended || video.currentTime > duration - 0.1, 30000);
  const quality = video.getVideoPlaybackQuality();
  return { player, duration, heights, first, last, ended: video.ended, frames: quality.totalVideoFrames,
    corrupted: quality.corruptedVideoFrames, audioBytes: video.webkitAudioDecodedByteCount, errors };
}, player);
console.log(JSON.stringify(report));
process.exit(report.errors.length === 0 && report.first !== report.last ? 0 : 1);
