// Graphile Worker on an empty database: URL COUNT CONCURRENCY MODE; jobs that do nothing, by one runner; prints {"seconds": …}.
// "batched": its local queue fetches many jobs at once and its completions are batched.
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";

const [connectionString, text, concurrency, mode] = process.argv.slice(2);
const count = Number(text);
const logger = new Logger(() => () => {});
const pool = new pg.Pool({ connectionString, max: 20 });
const utils = await makeWorkerUtils({ pgPool: pool, logger });
await utils.migrate();
for (let at = 0; at < count; at += 1000) {
  const size = Math.min(1000, count - at);
  await pool.query(
    "select graphile_worker.add_job('nothing', json_build_object('n', n)) from generate_series(1, $1) n",
    [size],
  );
}
const batched = { localQueue: { size: 500, refetchDelay: { durationMs: 5 } }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
let left = count;
let done;
const finished = new Promise((resolve) => (done = resolve));
const began = process.hrtime.bigint();
const runner = await run({
  pgPool: pool,
  logger,
  noHandleSignals: true,
  preset: { worker: { concurrentJobs: Number(concurrency), pollInterval: 50, ...(mode === "batched" ? batched : {}) } },
  taskList: { nothing: async () => void (--left === 0 && done()) },
});
await finished;
// What has run counts once it is recorded.
while (Number((await pool.query("select count(*) n from graphile_worker.jobs")).rows[0].n) > 0) {
  await new Promise((resolve) => setTimeout(resolve, 2));
}
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
console.log(JSON.stringify({ seconds }));
await runner.stop().catch(() => {});
process.exit(0);
