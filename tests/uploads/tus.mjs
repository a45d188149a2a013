// Uploads a file with tus-js-client over a line that breaks, then another that the program itself gives up half-way and a fresh
// client goes on with. Prints what was asked, and where the uploads are.
import { createReadStream, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tus from 'tus-js-client';
import { line } from './line.mjs';

const [url, file, how] = process.argv.slice(2);
const broker = new URL(url);
const size = statSync(file).size;
const folder = mkdtempSync(join(tmpdir(), 'tus-'));

function upload(endpoint, more = {}) {
  return new Promise((ok, no) => {
    const upload = new tus.Upload(createReadStream(file), {
      endpoint: `${endpoint}/v1/uploads/tus`,
      headers: { Authorization: `Bearer ${process.env.MPEGFLOW_API_KEY}` },
      uploadSize: size,
      chunkSize: 8 << 20,
      retryDelays: [0, 100, 300, 1000, 3000],
      metadata: { filename: 'holiday ü.mov', filetype: 'video/quicktime' },
      onSuccess: () => ok(upload.url),
      onError: no,
      ...more.options,
    });
    (more.start ?? ((upload) => upload.start()))(upload, ok, no);
  });
}

const lines = [];
try {
  const broken = await line(broker.hostname, broker.port, [{ after: 3 << 20, how }, { after: 5 << 20, how }]);
  lines.push(broken);
  const over = await upload(broken.url);

  // Given up half-way; then found again by what the client noted, as after a page was loaded anew.
  const sound = await line(broker.hostname, broker.port, []);
  lines.push(sound);
  const urlStorage = new tus.FileUrlStorage(join(folder, 'uploads.json'));
  const options = { urlStorage, fingerprint: async () => 'this file', chunkSize: 1 << 20 };
  await upload(sound.url, {
    options: { ...options },
    start(upload, ok) {
      upload.options.onChunkComplete = (_, sent) => { if (sent >= size / 2) upload.abort().then(() => ok()); };
      upload.start();
    },
  });
  const before = sound.asked.length;
  const again = await upload(sound.url, {
    options,
    async start(upload) {
      const [previous] = await upload.findPreviousUploads();
      if (!previous) throw new Error('the client noted nothing');
      upload.resumeFromPreviousUpload(previous);
      upload.start();
    },
  });
  console.log(JSON.stringify({
    broken: { url: over, asked: broken.asked },
    resumed: { url: again, asked: sound.asked.slice(before) },
  }));
} finally {
  lines.forEach((l) => l.close());
  rmSync(folder, { recursive: true, force: true });
}
