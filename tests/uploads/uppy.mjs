// Uploads with Uppy in headless Chromium, from a page of another origin, over a line that breaks. The page's port is given, since the
// broker has to know its origin. Prints what Uppy says, and what was asked.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { line } from './line.mjs';

const [url, port, bytes] = process.argv.slice(2);
const script = readFileSync(new URL('node_modules/uppy/dist/uppy.min.js', import.meta.url));
const page = createServer((req, res) => {
  if (req.url === '/uppy.js') return res.setHeader('content-type', 'text/javascript').end(script);
  res.setHeader('content-type', 'text/html').end('<!doctype html><meta charset=utf-8><script src=/uppy.js></script>');
});
await new Promise((ok) => page.listen(Number(port), '127.0.0.1', ok));
const broker = new URL(url);
const broken = await line(broker.hostname, broker.port, [{ after: 2 << 20, how: 'cut' }]);
const profile = mkdtempSync(join(tmpdir(), 'uppy-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
  const tab = await context.newPage();
  await tab.goto(`http://127.0.0.1:${port}/`);
  const said = await tab.evaluate(async ({ endpoint, key, bytes }) => {
    const uppy = new Uppy.Uppy().use(Uppy.Tus, {
      endpoint, headers: { Authorization: `Bearer ${key}` }, chunkSize: 4 << 20, retryDelays: [0, 200, 1000],
    });
    // The same bytes as the test's: a byte is its place modulo 251.
    const content = new Uint8Array(bytes);
    for (let n = 0; n < bytes; n += 1) content[n] = n % 251;
    uppy.addFile({ name: 'holiday.mov', type: 'video/quicktime', data: new Blob([content]) });
    const result = await uppy.upload();
    return {
      urls: result.successful.map((f) => f.response?.uploadURL ?? f.uploadURL),
      failed: result.failed.map((f) => f.error),
    };
  }, { endpoint: `${broken.url}/v1/uploads/tus`, key: process.env.MPEGFLOW_API_KEY, bytes: Number(bytes) });
  console.log(JSON.stringify({ ...said, asked: broken.asked }));
} finally {
  await context.close();
  broken.close();
  page.close();
  rmSync(profile, { recursive: true, force: true });
}
