// `node one-answer.mjs LLAMA_SERVER MODEL.gguf`: starts that llama-server on a socket in a temporary folder, asks the shipped model
// one question, and exits 0 when the answer is right, else 1 with what was seen. Everything it starts is ended.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Loading and one short answer, on a machine that does other work. */
const deadlineMs = 120_000;
const question =
  "Note 1. Here are some facts about the Toledo bakery. The Toledo bakery was opened in October 1944. Its door code is WJ222.\n" +
  "Note 2. The Denver print shop closes at nine on Wednesdays. The Denver print shop employs 62 people.\n\n" +
  "Question: When was the Toledo bakery opened?";
const rightAnswer = "October 1944";

const [binary, model] = process.argv.slice(2);
if (binary === undefined || model === undefined) {
  process.stderr.write("usage: node one-answer.mjs LLAMA_SERVER MODEL.gguf\n");
  process.exit(2);
}
process.exitCode = await main();

async function main() {
  const folder = mkdtempSync(join(tmpdir(), "one-answer-"));
  const socketPath = join(folder, "peer.sock");
  const flags = ["--model", model, "--host", socketPath, "--ctx-size", "2048", "--parallel", "1", "--threads", "2"];
  const server = spawn(binary, flags, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  server.stderr.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-4000)));
  const ended = new Promise((resolve) => {
    server.once("error", (error) => resolve(`could not be started: ${error.message}`));
    server.once("close", (status, signal) => resolve(`ended with ${signal ?? `exit code ${status}`}`));
  });
  const timer = new AbortController();
  try {
    const outcome = await Promise.race([
      answerOf(socketPath, timer.signal),
      ended.then((how) => ({ failure: how })),
      sleep(deadlineMs, { failure: `gave no answer in ${deadlineMs / 1000} s` }, { signal: timer.signal, ref: false }),
    ]);
    if (outcome.text?.includes(rightAnswer)) return 0;
    const failure = outcome.failure ?? `answered ${JSON.stringify(outcome.text)} where "${rightAnswer}" is right`;
    process.stderr.write(`${said}\n${binary} ${failure}\n`);
    return 1;
  } finally {
    timer.abort();
    server.kill("SIGKILL");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Asks as soon as the model is loaded. */
async function answerOf(socketPath, signal) {
  const body = JSON.stringify({
    messages: [{ role: "user", content: question }],
    temperature: 0,
    max_tokens: 24,
  });
  while (!signal.aborted) {
    const answer = await post(socketPath, "/v1/chat/completions", body, signal).catch(() => undefined);
    if (answer?.status === 200) return { text: JSON.parse(answer.text).choices[0].message.content };
    if (answer !== undefined && answer.status !== 503) return { failure: `answered ${answer.status}: ${answer.text}` };
    await sleep(200);
  }
  return { failure: "was given up" };
}

function post(socketPath, path, body, signal) {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
    const asked = request({ socketPath, path, method: "POST", headers, signal }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part) => (text += part));
      response.once("end", () => resolve({ status: response.statusCode, text }));
      response.once("error", reject);
    });
    asked.once("error", reject);
    asked.end(body);
  });
}
