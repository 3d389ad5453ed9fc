// node-resque's workers, its scheduler and its producer. Everything has its defaults, but for
// BENCH_POLL, after how many ms the scheduler looks.
//
//     node bench/peers/node_resque.mjs worker|multi|scheduler
//     node bench/peers/node_resque.mjs put KIND COUNT FIRST HOW      see producing.py
//     node bench/peers/node_resque.mjs overdue COUNT                 schedules no-ops in the past

import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { KINDS, QUEUE, SENT, record } from "./kinds.mjs";

const require = createRequire(new URL("../.peers/node/package.json", import.meta.url));
const { MultiWorker, Queue, Scheduler, Worker } = require("node-resque");

const { hostname, port, pathname } = new URL(process.env.BENCH_REDIS);
const connection = {
  pkg: "ioredis",
  host: hostname,
  port: Number(port),
  database: Number(pathname.slice(1)),
};
const jobs = Object.fromEntries(Object.entries(KINDS).map(([name, perform]) => [name, { perform }]));

const endOnTerm = (object) => {
  process.once("SIGTERM", async () => {
    await object.end();
    process.exit();
  });
};

const work = async () => {
  const worker = new Worker({ connection, queues: [QUEUE] }, jobs);
  worker.on("error", (error) => console.error(error));
  worker.on("failure", (_queue, _job, failure) => console.error(failure));
  endOnTerm(worker);
  await worker.connect();
  await worker.start();
};

const workMany = async () => {
  const workers = new MultiWorker({ connection, queues: [QUEUE] }, jobs);
  workers.on("error", (error) => console.error(error));
  endOnTerm(workers);
  workers.start();
};

const schedule = async () => {
  const scheduler = new Scheduler({ connection, timeout: Number(process.env.BENCH_POLL ?? 5000) });
  scheduler.on("error", (error) => console.error(error));
  endOnTerm(scheduler);
  await scheduler.connect();
  await scheduler.start();
};

const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

const put = async (kind, count, first, how) => {
  const queue = new Queue({ connection }, jobs);
  await queue.connect();
  if (how !== "one" && how !== "bulk") {
    for (let number = first; number < first + count; number++) {
      record(SENT, number);
      await queue.enqueue(QUEUE, kind, [number]);
      await sleep(Number(how) * 1000);
    }
  } else {
    await queue.enqueue(QUEUE, kind, [first]);
    const [began, used] = [performance.now(), cpu()];
    for (let number = first + 1; number < first + count; number++) {
      await queue.enqueue(QUEUE, kind, [number]);
    }
    const seconds = (performance.now() - began) / 1000;
    console.log(JSON.stringify({ jobs: count - 1, seconds, cpu: cpu() - used }));
  }
  await queue.end();
};

const overdue = async (count) => {
  const queue = new Queue({ connection }, jobs);
  await queue.connect();
  const since = Date.now() - 3_600_000;
  for (let number = 0; number < count; number++) {
    await queue.enqueueAt(since + 1000 * Math.floor(number / 1000), QUEUE, "noop", [number]);
  }
  await queue.end();
};

const [what, ...words] = process.argv.slice(2);
if (what === "worker") await work();
if (what === "multi") await workMany();
if (what === "scheduler") await schedule();
if (what === "overdue") await overdue(Number(words[0]));
if (what === "put") await put(words[0], Number(words[1]), Number(words[2]), words[3]);
