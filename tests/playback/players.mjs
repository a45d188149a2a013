// Plays DIR in headless Chromium with dash.js or Shaka Player: plays, seeks, switches rung, and prints what it saw as one JSON
// object. Exit 1 when the player reports an error.
//   node players.mjs DIR dashjs|shaka-dash|shaka-hls
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join, normalize } from 'node:path';
import { chromium } from 'playwright-core';

const [dir, player] = process.argv.slice(2);
const scripts = {
  dashjs: './node_modules/dashjs/dist/modern/umd/dash.all.min.js',
  shaka: './node_modules/shaka-player/dist/shaka-player.compiled.js',
};
const script = readFileSync(new URL(scripts[player === 'dashjs' ? 'dashjs' : 'shaka'], import.meta.url));
const html = '<!doctype html><meta charset=utf-8><video id=v muted playsinline width=640></video><script src=/player.js></script>';
const types = { m3u8: 'application/vnd.apple.mpegurl', mpd: 'application/dash+xml', mp4: 'video/mp4' };

const server = createServer((req, res) => {
  const path = new URL(req.url, 'http://x').pathname;
  if (path === '/') return res.setHeader('content-type', 'text/html').end(html);
  if (path === '/player.js') return res.setHeader('content-type', 'text/javascript').end(script);
  const file = join(dir, normalize(path));
  let size;
  try { size = statSync(file).size; } catch { return res.writeHead(404).end(); }
  res.setHeader('content-type', types[file.split('.').pop()] ?? 'application/octet-stream');
  const range = /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? '');
  if (req.method === 'HEAD') return res.setHeader('content-length', size).end();
  if (!range) return createReadStream(file).pipe(res);
  const start = Number(range[1]);
  const end = range[2] === '' ? size - 1 : Math.min(Number(range[2]), size - 1);
  res.writeHead(206, { 'content-range': `bytes ${start}-${end}/${size}`, 'content-length': end - start + 1 });
  createReadStream(file, { start, end }).pipe(res);
});
await new Promise((ok) => server.listen(0, '127.0.0.1', ok));
const origin = `http://127.0.0.1:${server.address().port}`;

const profile = mkdtempSync(join(tmpdir(), 'playback-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required'],
});
let report;
try {
  const page = await context.newPage();
  await page.goto(origin + '/');
  report = await page.evaluate(async (player) => {
    const video = document.getElementById('v');
    const errors = [];
    const until = (what, test, ms) => new Promise((ok, no) => {
      const started = performance.now();
      const timer = setInterval(() => {
        if (test()) { clearInterval(timer); ok(); }
        else if (performance.now() - started > ms) { clearInterval(timer); no(new Error(`${what}: not within ${ms} ms; errors: ${errors}`)); }
      }, 50);
    });
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
      await shaka.load(player === 'shaka-dash' ? '/manifest.mpd' : '/master.m3u8');
      const all = () => shaka.getVariantTracks().slice().sort((a, b) => a.height - b.height);
      shaka.selectVariantTrack(all()[0], true);
      rungs = () => all().map((t) => t.height);
      highest = () => shaka.selectVariantTrack(all().at(-1), true);
    }
    const heights = rungs();
    await until('the lowest rung', () => video.videoHeight === heights[0], 30000);
    await video.play();
    await until('two seconds of playback', () => video.currentTime >= 2, 30000);
    const first = video.videoHeight;
    video.pause();
    highest();
    video.currentTime = 1;
    await video.play();
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
} finally {
  await context.close();
  server.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(JSON.stringify(report));
process.exit(report.errors.length === 0 && report.first !== report.last ? 0 : 1);
