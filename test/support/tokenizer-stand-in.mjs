/**
 * The tokenizer process for tests, with texts that it dies of, hangs on or takes long for: a stand-in for a library that does
 * so by itself. Everything else goes to the real one.
 */
await import(new URL("../../dist/engines/llama/tokenizer/tokenizer-process.js", import.meta.url).href);
const [serve] = process.listeners("message");
process.removeAllListeners("message");

/** The real one says again that it has begun: a text begins once. */
const send = process.send.bind(process);
let hasBegun = false;
process.send = (message, ...rest) => {
  if (message.kind !== "begun") return send(message, ...rest);
  const isRepeated = hasBegun;
  hasBegun = false;
  return isRepeated || send(message, ...rest);
};

process.on("message", (message) => {
  const text = message.kind === "work" ? JSON.stringify(message.task) : "";
  const begin = (then) => {
    send({ kind: "begun" }, then);
    hasBegun = true;
  };
  const takes = Number(/takes (\d+) ms/.exec(text)?.[1] ?? 0);
  if (text.includes("ends its process")) begin(() => process.kill(process.pid, "SIGSEGV"));
  else if (text.includes("never ends")) begin(() => spin(Infinity));
  else if (takes > 0) begin(() => (spin(takes), serve(message)));
  else serve(message);
});

function spin(ms) {
  const end = performance.now() + ms;
  while (performance.now() < end);
}
