// What plays a folder in headless Chromium: a server with ranges, a browser, and a page with a video element and one script.
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join, normalize } from 'node:path';
import { chromium } from 'playwright-core';
import { watch } from './watch.mjs';

const html = '<!doctype html><meta charset=utf-8><video id=v muted playsinline width=640></video><script src=/player.js></script>';
const types = { m3u8: 'application/vnd.apple.mpegurl', mpd: 'application/dash+xml', mp4: 'video/mp4' };

// The page's own: errors that the player told, and waits that tell them, and the video's state, where they are in vain.
function own() {
  window.errors = [];
  const vain = (what, ms) => {
    const v = document.getElementById('v');
    const buffered = [...Array(v.buffered.length).keys()].map((i) => `${v.buffered.start(i)}–${v.buffered.end(i)}`);
    return new Error(`${what}: not within ${ms} ms; errors: ${window.errors}; at ${v.currentTime} of ${v.duration}, buffered ${buffered}, ` +
      `height ${v.videoHeight}, ready ${v.readyState}, network ${v.networkState}, paused ${v.paused}, seeking ${v.seeking}`);
  };
  window.until = (what, test, ms) => new Promise((ok, no) => {
    const started = performance.now();
    const timer = setInterval(() => {
      if (test()) { clearInterval(timer); ok(); }
      else if (performance.now() - started > ms) { clearInterval(timer); no(vain(what, ms)); }
    }, 50);
  });
  // A promise of a player may stay open for good, as play() does while nothing can be played.
  window.within = (what, promise, ms = 30000) => Promise.race([
    promise, new Promise((_, no) => setTimeout(() => no(vain(what, ms)), ms))]);
}

// Passes a request on to a broker, with the key that the page does not have.
async function pass({ url, key }, req, res) {
  const headers = { authorization: `Bearer ${key}` };
  if (req.headers.range) headers.range = req.headers.range;
  const answer = await fetch(url + req.url, { method: req.method, headers });
  for (const name of ['content-type', 'content-range', 'cache-control']) {
    if (answer.headers.has(name)) res.setHeader(name, answer.headers.get(name));
  }
  res.writeHead(answer.status).end(Buffer.from(await answer.arrayBuffer()));
}

// Runs `play` in the page with `argument`, once the script at the path is loaded there, and gives what it returns. What is played is in
// a folder, or at a broker: `{ url, key }`.
export async function stage(dir, path, play, argument) {
  const script = readFileSync(new URL(path, import.meta.url));
  const server = createServer((req, res) => {
    const path = new URL(req.url, 'http://x').pathname;
    if (path === '/') return res.setHeader('content-type', 'text/html').end(html);
    if (path === '/player.js') return res.setHeader('content-type', 'text/javascript').end(script);
    if (typeof dir !== 'string') return pass(dir, req, res).catch((e) => res.writeHead(502).end(String(e)));
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

  const browser = await launched();
  try {
    const page = await browser.context.newPage();
    await page.addInitScript(own);
    await page.addInitScript(watch);
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    return await page.evaluate(play, argument);
  } finally {
    await browser.close();
    server.close();
  }
}

// A browser of its own profile. What is tested is what plays, not how Chromium starts: one that does not come up in half a minute
// is given up for another, twice.
async function launched() {
  for (let left = 2; ; left--) {
    const profile = mkdtempSync(join(tmpdir(), 'playback-'));
    const gone = () => rmSync(profile, { recursive: true, force: true });
    try {
      const context = await chromium.launchPersistentContext(profile, {
        executablePath: '/usr/bin/chromium',
        headless: true,
        timeout: 30000,
        args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
          '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required'],
      });
      // Nothing is lost with a browser that does not end in time: this process ends next, and takes it along.
      const close = () => Promise.race([context.close(), new Promise((ok) => setTimeout(ok, 10000))]).then(gone);
      return { context, close };
    } catch (e) {
      gone();
      if (left === 0) throw e;
      console.error(`the browser did not start, once more: ${e.message.split('\n')[0]}`);
    }
  }
}
