// A server for tests, in a process of its own: each stream ticks at an even pace, and each token's text is the moment at
// which it was written, in milliseconds of the machine's monotonic clock.
//
// Started with fork() it sends its port; started as a command it listens on the port in its first argument, and is ready at
// its third /health. The request says how many ticks, how far apart, and after what: {"ticks": 60, "everyMs": 50,
// "afterMs": 7}; without that two at once.
import { createServer } from "node:http";

let looks = 0;

const server = createServer((request, response) => {
  if (request.method === "GET") {
    looks += request.url === "/health" ? 1 : 0;
    if (request.url === "/health") response.writeHead(looks < 3 ? 503 : 200).end();
    else if (request.url === "/v1/models") response.end('{"data":[{"id":"ticks"}]}');
    else if (request.url === "/metrics") response.end(`pid ${process.pid}\n`);
    else response.writeHead(404).end();
    return;
  }
  let body = "";
  request.on("data", (bytes) => (body += bytes));
  request.on("end", () => {
    const { ticks = 2, everyMs = 1, afterMs = 0 } = JSON.parse(body);
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    setTimeout(tick, afterMs, response, { ticks, everyMs });
  });
});

// By the clock, not by the tick before: intervals would fall into step with each other whenever this process is late.
function tick(response, { ticks, everyMs }) {
  const beginAt = performance.now();
  let written = 0;
  const next = () => {
    const now = Number(process.hrtime.bigint()) / 1e6;
    response.write(`data: {"choices":[{"index":0,"delta":{"content":"${now.toFixed(4)} "}}]}\n\n`);
    written += 1;
    if (written < ticks) {
      setTimeout(next, beginAt + written * everyMs - performance.now());
      return;
    }
    response.end(`data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":${ticks}}}\n\ndata: [DONE]\n\n`);
  };
  setTimeout(next, everyMs);
}

server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => process.send?.(server.address().port));
process.on("disconnect", () => process.exit());
