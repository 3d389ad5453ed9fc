"use strict";

// produce.js URL QUEUE NAME COUNT [--in-ms N] [NAMESPACE]
// Enqueue COUNT jobs with the arguments [0], [1], ...; or have them due in N ms.

const { parseArgs } = require("node:util");
const { Queue } = require("node-resque");
const { connection, run } = require("./connection");

run(async () => {
  const { values, positionals } = parseArgs({
    options: { "in-ms": { type: "string" } },
    allowPositionals: true,
  });
  const [url, queueName, job, count, namespace] = positionals;
  const queue = new Queue({ connection: connection(url, namespace) });
  queue.on("error", (error) => console.error(error));
  await queue.connect();
  for (let i = 0; i < Number(count); i += 1) {
    if (values["in-ms"] === undefined) await queue.enqueue(queueName, job, [i]);
    else await queue.enqueueIn(Number(values["in-ms"]), queueName, job, [i]);
  }
  await queue.end();
});
