"use strict";

// The jobs of a node that takes orders. They tell the ledger at LEDGER_URL what they did.

const Redis = require("ioredis");

const ledger = process.env.LEDGER_URL && new Redis(process.env.LEDGER_URL);

// Tell that this job has run, with the arguments that it was given.
const tell = (args) => ledger.rpush("node:ran", JSON.stringify(args));

const note = { perform: (...args) => tell(args) };

// Tell that it is in hand, and wait to be released.
const hold = {
  perform: async (...args) => {
    const waiting = ledger.duplicate();
    await ledger.rpush("node:held", JSON.stringify(args));
    await waiting.blpop("node:release", 20);
    waiting.disconnect();
    await tell(args);
  },
};

exports.jobs = {
  note,
  hold,
  boom: {
    perform: (message) => {
      throw new Error(message);
    },
  },
  queue_locked: { ...note, plugins: ["QueueLock"] },
  delay_locked: { ...note, plugins: ["DelayQueueLock"] },
  job_locked: { ...hold, plugins: ["JobLock"] },
};
