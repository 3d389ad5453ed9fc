"use strict";

// work.js URL QUEUES COUNT [NAMESPACE]
// Perform jobs from QUEUES (a comma list, or *) until COUNT have succeeded or failed, or
// stdin closes. Jobs tell the ledger at LEDGER_URL what they did.

const Redis = require("ioredis");
const { Worker } = require("node-resque");
const { connection, onStdinClosed, run } = require("./connection");

run(async () => {
  const [url, queues, count, namespace] = process.argv.slice(2);
  const ledger = new Redis(process.env.LEDGER_URL);
  const jobs = {
    note: { perform: (mark) => ledger.rpush("node:runs", mark) },
    node_sum: { perform: (a, b) => ledger.rpush("node:sums", a + b) },
    boom: {
      perform: (message) => {
        throw new Error(message);
      },
    },
    // Fails with something that has no name, no message and no stack.
    slow: {
      perform: (mark) => {
        throw `${mark} is too slow for node`;
      },
    },
  };
  const worker = new Worker(
    {
      connection: connection(url, namespace),
      queues: queues === "*" ? queues : queues.split(","),
      timeout: 50,
    },
    jobs,
  );

  let left = Number(count);
  let stopping = false;
  const stop = async () => {
    if (stopping) return;
    stopping = true;
    await worker.end();
    await ledger.quit();
    process.exit();
  };
  const finished = () => {
    left -= 1;
    if (left === 0) run(stop);
  };
  worker.on("success", finished);
  worker.on("failure", finished);
  worker.on("error", (error) => console.error(error));
  onStdinClosed(() => run(stop));
  await worker.connect();
  await worker.start();
  console.log("started", worker.name);
});
