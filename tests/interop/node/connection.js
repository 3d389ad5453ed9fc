"use strict";

// A node-resque connection from redis://host:port[/db] and an optional namespace.
exports.connection = (url, namespace = "resque") => {
  const { hostname, port, pathname } = new URL(url);
  return {
    pkg: "ioredis",
    host: hostname,
    port: Number(port),
    database: Number(pathname.slice(1)),
    namespace,
  };
};

// Call `stop` once when whoever started us closes our stdin.
exports.onStdinClosed = (stop) => process.stdin.resume().once("end", stop);

// Run `main`; a script that fails says why and ends.
exports.run = (main) =>
  main().catch((error) => {
    console.error(error);
    process.exit(1);
  });
