// What docs/terminal.md shows, in its order: each scene is run, and yields a sentence and what the terminal showed.
import { setTimeout as sleep } from "node:timers/promises";

const ask = (body) =>
  `curl -s http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' -d ${body}`;
const longPrompt = ask("@examples/long-prompt.json");

/**
 * @param stage `run(command)`, which returns {lines, code} of a command that has ended, and `start(command)`, which returns its terminal
 * @returns scenes {heading, sentence, command, lines}; command is missing where the lines go on from an earlier scene's
 */
export async function* quickScenes({ run, start }) {
  const server = start("reprise serve");
  await server.until("room  ");
  yield {
    heading: "A start",
    sentence:
      "`reprise serve` with the model that ships; `npm start` in a clone installs and builds what is missing, and then does the same.",
    command: "reprise serve",
    lines: server.take(),
  };

  yield {
    heading: "A first request, and a second",
    sentence: "In another terminal: a prompt that nobody has sent before.",
    command: longPrompt,
    lines: (await run(longPrompt)).lines,
  };
  yield { sentence: "The server's terminal:", lines: await line(server) };
  yield {
    sentence: "The same once more; what differs is in `usage` and `reprise`.",
    command: longPrompt,
    lines: (await run(longPrompt)).lines,
  };
  yield { sentence: "The server's terminal:", lines: await line(server) };

  const refused = ask(`'{"messages": [{"role": "user", "content": "Hello"}], "n": 2}'`);
  yield {
    heading: "When something is wrong",
    sentence: "A field that cannot be honoured: the answer has status 400.",
    command: refused,
    lines: (await run(refused)).lines,
  };
  for (const [sentence, command] of [
    ["A flag that there is not, and one with a value that it cannot have", "reprise serve --prot 8081 --memory lots"],
    ["A command that there is not", "reprise server"],
    ["A model that is not there", "reprise serve ~/models/none.gguf"],
    ["A second server over the same data directory", "reprise serve --port 8081"],
    ["A port that is taken", "reprise serve --data-dir ~/another"],
  ]) {
    const { lines, code } = await run(command);
    yield { sentence: `${sentence}: exit code ${code}.`, command, lines };
  }

  server.type("\x03");
  await server.ended;
  yield { heading: "An end, and a start", sentence: "Ctrl-C in the server's terminal.", lines: server.take() };
  const again = start("reprise serve");
  await again.until("room  ");
  again.take();
  await run(longPrompt);
  yield { sentence: "Started again, and asked the same once more: the server's terminal.", lines: await line(again) };
  await sleep(1000); // what a request leaves is on disk by then
  yield {
    heading: "`reprise inspect`",
    sentence: "What the data directory holds.",
    command: "reprise inspect",
    lines: (await run("reprise inspect")).lines,
  };
  again.type("\x03");
  await again.ended;
}

/** Those that take longer than a test may. */
export async function* slowScenes({ run, passing }) {
  for (const [heading, sentence, command, columns] of [
    ["`reprise models`", "Which models lie on this machine; `--model NAME` takes one.", "reprise models"],
    [
      "`reprise verify`",
      "Whether the cache gives back what was computed, here with few prompts.",
      "reprise verify --prompts 3 --tokens 400",
    ],
    [
      "`reprise bench first-light`",
      "One prompt cold, warm, and after restarts, here a short one, on a terminal of 200 columns.",
      "reprise bench first-light --tokens 1000 --others 2 --rounds 2",
      200,
    ],
  ]) {
    const { lines } = await run(command, { columns });
    const before = passing();
    if (before.length > 0) yield { heading, sentence: `${sentence} While it runs:`, command, lines: before };
    yield before.length > 0 ? { sentence: "In the end:", lines } : { heading, sentence, command, lines };
  }
}

/** What a server says of a request. */
async function line(server) {
  await server.until("out in");
  return server.take();
}
