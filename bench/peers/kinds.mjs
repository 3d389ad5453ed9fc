// The jobs that all contestants run, for node. See kinds.py, whose numbers these are, and
// recording.py, whose files these write.
//
//     node bench/peers/kinds.mjs calibrate          prints the loops that take about 5 ms here
//     node bench/peers/kinds.mjs alone LOOPS COUNT  prints the seconds one such job takes, alone

import { openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export const QUEUE = "bench";
export const [SENT, BEGAN, ENDED] = [1n, 2n, 3n];
const LOOPS = Number(process.env.BENCH_LOOPS ?? 50_000);
const [CPU_SECONDS, IO_MS, STORM_MS, LONG_MS] = [0.005, 50, 20, 2000];
const HEAVY_OBJECTS = 400_000;

const heavy = new Map();
if (process.env.BENCH_HEAVY) {
  for (let each = 0; each < HEAVY_OBJECTS; each++) heavy.set(`key-${each}`, [each, `value-${each}`]);
}

let file;
const bytes = Buffer.alloc(16);

export const record = (event, number) => {
  const moment = process.hrtime.bigint();
  file ??= openSync(join(process.env.BENCH_DIR, String(process.pid)), "a", 0o600);
  bytes.writeBigUInt64LE((event << 56n) | BigInt(number), 0);
  bytes.writeBigUInt64LE(moment, 8);
  writeSync(file, bytes);
};

const spin = (loops) => {
  let total = 0;
  for (let each = 0; each < loops; each++) total = (total + each * each) & 0xffff;
  return total;
};

const lasting = async (number, ms) => {
  record(BEGAN, number);
  await sleep(ms);
  record(ENDED, number);
};

export const KINDS = {
  noop: async (number) => record(BEGAN, number),
  cpu: async (number) => {
    record(BEGAN, number);
    return void spin(LOOPS);
  },
  io: async (number) => {
    record(BEGAN, number);
    await sleep(IO_MS);
  },
  storm: (number) => lasting(number, STORM_MS),
  long: (number) => lasting(number, LONG_MS),
  read: async (number) => {
    record(BEGAN, number);
    let length = 0;
    for (const [, text] of heavy.values()) length += text.length;
  },
};

const alone = (loops, count) => {
  const taken = [];
  for (let run = 0; run < count; run++) {
    const began = process.hrtime.bigint();
    spin(loops);
    taken.push(Number(process.hrtime.bigint() - began) / 1e9);
  }
  const best = taken.sort((a, b) => a - b).slice(0, (count + 1) >> 1);
  return best.reduce((sum, each) => sum + each, 0) / best.length;
};

const calibrate = () => {
  alone(LOOPS, 100); // until it is compiled
  return Math.round((LOOPS * CPU_SECONDS) / alone(LOOPS, 20));
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [what, loops, count] = process.argv.slice(2);
  console.log(what === "calibrate" ? calibrate() : alone(Number(loops), Number(count)));
}
