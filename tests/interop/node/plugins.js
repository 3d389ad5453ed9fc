"use strict";

// plugins.js work URL, or: plugins.js enqueue URL NAME ARGS COUNT
// Perform jobs with node-resque's plugins from queue q until stdin closes; or enqueue one job
// COUNT times, ARGS being JSON, and print what `enqueue` has returned.

const Redis = require("ioredis");
const { Queue, Worker } = require("node-resque");
const { connection, onStdinClosed, run } = require("./connection");

const jobs = (ledger) => ({
  locked: {
    plugins: ["JobLock"],
    perform: async (mark) => {
      await ledger.rpush("node:started", mark);
      await ledger.blpop("node:release", 20);
      await ledger.rpush("node:runs", mark);
    },
  },
  retried: {
    plugins: ["Retry"],
    pluginOptions: { Retry: { retryLimit: 4, retryDelay: 60000 } },
    perform: async (mark) => {
      await ledger.rpush("node:tries", mark);
      if (!(await ledger.exists("node:heal"))) throw new Error("BUSTED");
    },
  },
  waiting: {
    plugins: ["QueueLock"],
    pluginOptions: { QueueLock: { lockTimeout: 60 } },
    perform: (mark) => ledger.rpush("node:runs", mark),
  },
});

const work = async (url) => {
  const ledger = new Redis(process.env.LEDGER_URL);
  const options = { connection: connection(url), queues: ["q"], timeout: 50 };
  const worker = new Worker(options, jobs(ledger));
  worker.on("error", (error) => console.error(error));
  onStdinClosed(() =>
    run(async () => {
      await worker.end();
      ledger.disconnect();
      process.exit();
    }),
  );
  await worker.connect();
  await worker.start();
  console.log("started", worker.name);
};

const enqueue = async (url, name, args, count) => {
  const queue = new Queue({ connection: connection(url) }, jobs(null));
  queue.on("error", (error) => console.error(error));
  await queue.connect();
  const answers = [];
  for (let i = 0; i < Number(count); i += 1) {
    answers.push(await queue.enqueue("q", name, JSON.parse(args)));
  }
  console.log(JSON.stringify(answers));
  await queue.end();
};

run(() => {
  const [command, ...rest] = process.argv.slice(2);
  return command === "work" ? work(...rest) : enqueue(...rest);
});
