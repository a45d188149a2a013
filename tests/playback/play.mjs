// Plays DIR/master.m3u8 in headless Chromium with hls.js: plays, seeks, switches rung, and prints what it saw as one JSON
// object. Exit 1 when the browser or hls.js reports an error.
//   node play.mjs DIR
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, normalize } from 'node:path';
import { chromium } from 'playwright-core';

const dir = process.argv[2];
const hls = readFileSync(new URL('./node_modules/hls.js/dist/hls.min.js', import.meta.url));
const page_html = '<!doctype html><meta charset=utf-8><video id=v muted playsinline width=640></video><script src=/hls.js></script>';
const types = { m3u8: 'application/vnd.apple.mpegurl', mp4: 'video/mp4' };

const server = createServer((req, res) => {
  const path = new URL(req.url, 'http://x').pathname;
  if (path === '/') return res.setHeader('content-type', 'text/html').end(page_html);
  if (path === '/hls.js') return res.setHeader('content-type', 'text/javascript').end(hls);
  const file = join(dir, normalize(path));
  let size;
  try { size = statSync(file).size; } catch { return res.writeHead(404).end(); }
  res.setHeader('content-type', types[file.split('.').pop()] ?? 'application/octet-stream');
  const range = /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? '');
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
  report = await page.evaluate(async () => {
    const video = document.getElementById('v');
    const errors = [];
    const player = new window.Hls({ startLevel: 0 });
    player.on(window.Hls.Events.ERROR, (_, e) => errors.push(`${e.type}/${e.details}${e.fatal ? ' fatal' : ''}`));
    const until = (what, test, ms) => new Promise((ok, no) => {
      const started = performance.now();
      const timer = setInterval(() => {
        if (test()) { clearInterval(timer); ok(); }
        else if (performance.now() - started > ms) { clearInterval(timer); no(new Error(`${what}: not within ${ms} ms; errors: ${errors}`)); }
      }, 50);
    });
    player.loadSource('/master.m3u8');
    player.attachMedia(video);
    await until('manifest', () => player.levels?.length > 0 && video.readyState >= 1, 20000);
    await video.play();
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
} finally {
  await context.close();
  server.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(JSON.stringify(report));
process.exit(report.errors.length === 0 && report.ended ? 0 : 1);
