"use strict";

// inspect.js URL [NAMESPACE]
// Print what node-resque sees, as one JSON object.

const { Queue } = require("node-resque");
const { connection, run } = require("./connection");

run(async () => {
  const [url, namespace] = process.argv.slice(2);
  const queue = new Queue({ connection: connection(url, namespace) });
  queue.on("error", (error) => console.error(error));
  await queue.connect();
  const queues = (await queue.queues()).sort();
  const lengths = {};
  for (const name of queues) lengths[name] = await queue.length(name);
  const seen = {
    stats: await queue.stats(),
    workers: await queue.workers(),
    workingOn: await queue.allWorkingOn(),
    failed: await queue.failed(0, -1),
    queues,
    lengths,
    leader: await queue.leader(),
  };
  await queue.end();
  console.log(JSON.stringify(seen));
});
