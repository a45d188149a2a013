// Plays DIR in headless Chromium with hls.js, dash.js or Shaka Player: plays, switches rung without a break, seeks, switches back at once, and
// prints what it saw and heard as one JSON object. Exit 1 when the player reports an error.
//   node players.mjs DIR hlsjs|dashjs|shaka-dash|shaka-hls
import { stage } from './stage.mjs';

const [dir, player] = process.argv.slice(2);
const scripts = {
  hlsjs: './node_modules/hls.js/dist/hls.min.js',
  dashjs: './node_modules/dashjs/dist/modern/umd/dash.all.min.js',
  shaka: './node_modules/shaka-player/dist/shaka-player.compiled.js',
};
const report = await stage(dir, scripts[player.split('-')[0]], async (player) => {
  const { errors, until, within } = window;
  const video = document.getElementById('v');
  const watched = await window.watch();
  const byHeight = (list) => list.slice().sort((a, b) => a.height - b.height);
  // Each player: load the lowest rung, of which six seconds are buffered ahead, and go to another: with the next segment, or at once,
  // dropping what was buffered.
  let rungs, soon, now;
  if (player === 'hlsjs') {
    const hls = new window.Hls({ startLevel: 0, maxBufferLength: 6, maxMaxBufferLength: 6 });
    // No faults: a request that was given up because of a switch, and a wait, which is counted where it has no excuse.
    const harmless = ['aborted', 'bufferStalledError'];
    hls.on(window.Hls.Events.ERROR, (_, { type, details, fatal }) => {
      if (fatal || !harmless.includes(details)) errors.push(`${type}/${details}${fatal ? ' fatal' : ''}`);
    });
    hls.on(window.Hls.Events.MANIFEST_PARSED, () => { hls.loadLevel = 0; });
    hls.loadSource('/master.m3u8');
    hls.attachMedia(video);
    await until('manifest', () => hls.levels?.length > 0 && video.readyState >= 1, 30000);
    rungs = () => byHeight(hls.levels);
    soon = (rung) => { hls.loadLevel = hls.levels.indexOf(rung); };
    now = (rung) => { hls.currentLevel = hls.levels.indexOf(rung); };
  } else if (player === 'dashjs') {
    const dash = window.dashjs.MediaPlayer().create();
    dash.updateSettings({ streaming: {
      abr: { autoSwitchBitrate: { video: false }, initialBitrate: { video: 1 } },
      buffer: { fastSwitchEnabled: true, bufferTimeDefault: 6, bufferTimeAtTopQuality: 6 },
    } });
    dash.on(window.dashjs.MediaPlayer.events.ERROR, (e) => errors.push(JSON.stringify(e.error)));
    dash.initialize(video, '/manifest.mpd', false);
    rungs = () => byHeight(dash.getRepresentationsByType('video'));
    await until('manifest', () => video.readyState >= 1 && rungs().length > 0, 30000);
    soon = (rung) => dash.setRepresentationForTypeById('video', rung.id, false);
    now = (rung) => dash.setRepresentationForTypeById('video', rung.id, true);
  } else {
    const shaka = new window.shaka.Player();
    await shaka.attach(video);
    shaka.configure({ abr: { enabled: false }, streaming: { bufferingGoal: 6 } });
    shaka.addEventListener('error', (e) => errors.push(`${e.detail.code} ${e.detail.message}`));
    await within('the manifest', shaka.load(player === 'shaka-dash' ? '/manifest.mpd' : '/master.m3u8'));
    rungs = () => byHeight(shaka.getVariantTracks());
    soon = (rung) => shaka.selectVariantTrack(rung, false);
    now = (rung) => shaka.selectVariantTrack(rung, true);
    now(rungs()[0]);
  }
  const heights = rungs().map((r) => r.height);
  const duration = video.duration;
  const shows = (height) => until(`the rung of ${height} lines`, () => video.videoHeight === height, 30000);
  await shows(heights[0]);
  await within('the start of playback', video.play());
  await until('two seconds of playback', () => video.currentTime >= 2, 30000);
  // From here to the end of this part nothing has a reason to wait.
  watched.calm(true);
  const first = video.videoHeight;
  soon(rungs().at(-1));
  await shows(heights.at(-1));
  const last = video.videoHeight;
  await until('playback of the other rung', () => video.currentTime >= 11.5, 30000);
  watched.calm(false);
  // One thing at a time: back to where there is time left, and when that is done another rung.
  video.pause();
  video.currentTime = 1;
  await until('the seek back', () => !video.seeking && video.readyState >= 3, 30000);
  now(rungs()[0]);
  await within('playback after the seek back', video.play());
  await shows(heights[0]);
  video.currentTime = duration - 3.5;
  await until('playback after the seek', () => !video.seeking && video.readyState >= 3, 30000);
  await until('the end', () => video.ended || video.currentTime > duration - 0.1, 30000);
  const quality = video.getVideoPlaybackQuality();
  return { player, duration, heights, first, last, ended: video.ended, frames: quality.totalVideoFrames,
    corrupted: quality.corruptedVideoFrames, audioBytes: video.webkitAudioDecodedByteCount, errors, ...watched.report() };
}, player);
console.log(JSON.stringify(report));
process.exit(report.errors.length === 0 && report.first !== report.last ? 0 : 1);
