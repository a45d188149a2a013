// BullMQ on an empty Redis: PORT COUNT CONCURRENCY; jobs that do nothing, by one worker; prints {"seconds": …}.
import { Queue, Worker } from "bullmq";

const [port, count, concurrency] = process.argv.slice(2).map(Number);
const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
const queue = new Queue("bench", { connection });
for (let at = 0; at < count; at += 1000) {
  const size = Math.min(1000, count - at);
  await queue.addBulk(Array.from({ length: size }, (_, n) => ({ name: "nothing", data: { n: at + n } })));
}
let left = count;
const began = process.hrtime.bigint();
await new Promise((done, failed) => {
  const worker = new Worker("bench", async () => {}, {
    connection,
    concurrency,
    removeOnComplete: { count: 1000 },
  });
  worker.on("completed", () => --left === 0 && done());
  worker.on("failed", (_, error) => failed(error));
  worker.on("error", failed);
});
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
console.log(JSON.stringify({ seconds }));
process.exit(0);
