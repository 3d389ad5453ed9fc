"use strict";

// client.js URL
// Do with node-resque's objects what is ordered, until stdin closes. An order is one line of
// JSON on stdin and its answer one line on stdout, with the same id:
//
//   {"id": 1, "make": "Queue", "as": "queue", "options": {}, "events": ["error"]}
//   {"id": 2, "of": "queue", "method": "length", "args": ["math"]}
//   {"id": 2, "value": 0}
//
// `source` is the array of arguments in JavaScript, for what JSON cannot say; `read` instead of
// `method` names a property. What throws is answered with `error`, its message. The wanted
// events of an object are lines as well: {"of": "worker", "event": "ping", "args": [1]}.

const readline = require("node:readline");
const { runInThisContext } = require("node:vm");
const resque = require("node-resque");
const { connection } = require("./connection");
const { jobs } = require("./jobs");

const url = process.argv[2];
const objects = new Map();

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const shown = (value) => (value instanceof Error ? value.message : value);

const make = async ({ make: kind, as: name, options, namespace, events }) => {
  const all = { ...options, connection: connection(url, namespace) };
  const object = new resque[kind](all, jobs);
  object.on("error", (error) => console.error(name, error));
  for (const event of events) {
    object.on(event, (...args) => say({ of: name, event, args: args.map(shown) }));
  }
  objects.set(name, object);
  await object.connect();
  return object.name;
};

const carryOut = (order) => {
  if (order.make) return make(order);
  const object = objects.get(order.of);
  if (order.read) return object[order.read];
  const args = order.source ? runInThisContext(order.source) : order.args;
  return object[order.method](...args);
};

const answer = async ({ id, ...order }) => {
  try {
    say({ id, value: await carryOut(order) });
  } catch (error) {
    say({ id, error: String(error.message) });
  }
};

readline
  .createInterface({ input: process.stdin })
  .on("line", (line) => answer(JSON.parse(line)))
  .once("close", async () => {
    await Promise.all([...objects.values()].map((object) => object.end()));
    process.exit();
  });
say({ id: 0 });
