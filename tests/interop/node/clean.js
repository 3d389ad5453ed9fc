"use strict";

// clean.js URL NAME [NAMESPACE]
// Unregister the worker `host:pid` as if it were dead. Prints the failure record, or null.

const { Queue } = require("node-resque");
const { connection, run } = require("./connection");

run(async () => {
  const [url, name, namespace] = process.argv.slice(2);
  const queue = new Queue({ connection: connection(url, namespace) });
  queue.on("error", (error) => console.error(error));
  await queue.connect();
  const entry = await queue.forceCleanWorker(name);
  await queue.end();
  console.log(JSON.stringify(entry ?? null));
});
