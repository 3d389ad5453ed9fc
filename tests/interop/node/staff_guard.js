"use strict";

// staff_guard.js URL SECONDS [NAMESPACE]
// Lead, and clean up after workers that have not pinged for SECONDS, until stdin closes. Prints
// `polled` after each round, and `cleaned` with the name of each worker that is cleaned up after.

const { Scheduler } = require("node-resque");
const { connection, onStdinClosed, run } = require("./connection");

run(async () => {
  const [url, seconds, namespace] = process.argv.slice(2);
  const scheduler = new Scheduler({
    connection: connection(url, namespace),
    timeout: 200,
    stuckWorkerTimeout: Number(seconds) * 1000,
  });
  scheduler.on("poll", () => scheduler.leader && console.log("polled"));
  scheduler.on("cleanStuckWorker", (name) => console.log("cleaned", name));
  scheduler.on("error", (error) => console.error(error));
  onStdinClosed(() =>
    run(async () => {
      await scheduler.end();
      process.exit();
    }),
  );
  await scheduler.connect();
  await scheduler.start();
  console.log("started", scheduler.options.name);
});
