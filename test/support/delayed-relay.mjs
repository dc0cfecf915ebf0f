// Passes TCP on with a delay each way, where the kernel has no netem: `node delayed-relay.mjs LISTEN-PORT TO-PORT MILLISECONDS [TO-HOST]`.
// What it cannot show is what a delay does to TCP's windows: it takes bytes at once and delivers them late.
import { connect, createServer } from "node:net";

const [listenPort, toPort, delay] = process.argv.slice(2).map(Number);
const toHost = process.argv[5] ?? "127.0.0.1";
/** Bytes on their way in one direction: a link of 10 Gbit/s holds 25 MB in 20 ms. */
const mostQueued = 64 * 1024 * 1024;

createServer({ noDelay: true }, (client) => {
  const server = connect({ port: toPort, host: toHost, noDelay: true });
  pass(client, server);
  pass(server, client);
}).listen(listenPort, "0.0.0.0", () => process.stdout.write("relaying\n"));

function pass(from, to) {
  let queued = 0;
  from.on("data", (bytes) => {
    queued += bytes.length;
    if (queued > mostQueued) from.pause();
    setTimeout(() => {
      queued -= bytes.length;
      if (queued <= mostQueued) from.resume();
      to.write(bytes);
    }, delay);
  });
  from.on("end", () => setTimeout(() => to.end(), delay));
  from.on("error", () => to.destroy());
  from.on("close", () => setTimeout(() => to.destroy(), delay));
}
