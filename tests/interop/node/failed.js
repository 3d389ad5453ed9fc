"use strict";

// failed.js URL retry|remove INDEX [NAMESPACE]
// Do to one failed job what node's dashboards do: read it, and find it again by its bytes.
// Prints node's answer as JSON.

const { Queue } = require("node-resque");
const { connection, run } = require("./connection");

run(async () => {
  const [url, verb, index, namespace] = process.argv.slice(2);
  const queue = new Queue({ connection: connection(url, namespace) });
  queue.on("error", (error) => console.error(error));
  await queue.connect();
  const [entry] = await queue.failed(Number(index), Number(index));
  const verbs = {
    retry: () => queue.retryAndRemoveFailed(entry),
    remove: () => queue.removeFailed(entry),
  };
  const answer = await verbs[verb]();
  await queue.end();
  console.log(JSON.stringify(answer));
});
