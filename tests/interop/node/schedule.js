"use strict";

// schedule.js URL [NAMESPACE]
// Promote what is due until stdin closes. Prints `leader` when it leads, and each job that
// it promotes.

const { Scheduler } = require("node-resque");
const { connection, onStdinClosed, run } = require("./connection");

run(async () => {
  const [url, namespace] = process.argv.slice(2);
  const scheduler = new Scheduler({ connection: connection(url, namespace), timeout: 100 });
  scheduler.on("leader", () => console.log("leader"));
  scheduler.on("transferredJob", (second, job) =>
    console.log("promoted", second, JSON.stringify(job)),
  );
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
