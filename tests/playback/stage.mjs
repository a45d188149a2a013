// What plays a folder in headless Chromium: a server with ranges, a browser, and a page with a video element and one script.
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join, normalize } from 'node:path';
import { chromium } from 'playwright-core';

const html = '<!doctype html><meta charset=utf-8><video id=v muted playsinline width=640></video><script src=/player.js></script>';
const types = { m3u8: 'application/vnd.apple.mpegurl', mpd: 'application/dash+xml', mp4: 'video/mp4' };

// The page's own: errors that the player told, and a wait that tells them where it is in vain.
function own() {
  window.errors = [];
  window.until = (what, test, ms) => new Promise((ok, no) => {
    const started = performance.now();
    const timer = setInterval(() => {
      if (test()) { clearInterval(timer); ok(); }
      else if (performance.now() - started > ms) { clearInterval(timer); no(new Error(`${what}: not within ${ms} ms; errors: ${window.errors}`)); }
    }, 50);
  });
}

// Runs `play` in the page with `argument`, once the script at the path is loaded there, and gives what it returns.
export async function stage(dir, path, play, argument) {
  const script = readFileSync(new URL(path, import.meta.url));
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

  const profile = mkdtempSync(join(tmpdir(), 'playback-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: '/usr/bin/chromium',
    headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required'],
  });
  try {
    const page = await context.newPage();
    await page.addInitScript(own);
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    return await page.evaluate(play, argument);
  } finally {
    await context.close();
    server.close();
    rmSync(profile, { recursive: true, force: true });
  }
}
