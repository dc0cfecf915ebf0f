/**
 * The page: a long text, a chat about it, and for each answer what it cost to read the prompt.
 *
 * A turn is a question with the messages that were sent for it; sending the same messages again adds a run to the turn, so
 * that cold and warm stand below each other. What the model says is inserted as text, never as HTML.
 */
import { ApiError, readModel, readState, streamChat } from "./api.js";
import { notes as exampleNotes, questions as exampleQuestions } from "./example-notes.js";
import { keepChat, keptChat } from "./kept-chat.js";
import { createRun, element } from "./prompt-bar.js";

const byId = (id) => document.getElementById(id);
const model = byId("model");
const state = byId("state");
const modelNote = byId("model-note");
const newChat = byId("new-chat");
const example = byId("example");
const longText = byId("long-text");
const longTextHint = byId("long-text-hint");
const keyForm = byId("key-form");
const keyLabel = byId("key-label");
const key = byId("key");
const turns = byId("turns");
const empty = byId("empty");
const form = byId("ask");
const question = byId("question");
const suggestions = byId("suggestions");
const stop = byId("stop");
const send = byId("send");

const stateWords = {
  ok: "ready",
  loading: "loading the model",
  hung: "engine does not answer",
  failed: "engine failed",
  gone: "not reachable",
};
const keyName = "reprise-api-key";
const pollMs = 5000;

/** The model that ships with Reprise, by the beginning of its file's name. */
const shippedModel = "reprise-22m";

/** The messages so far, the turns as they are kept for a reload, and the request that is under way. */
let history = [];
let records = [];
let running;
/** Asked again once a key was given. */
let afterKey;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (text === "" || running) return;
  question.value = "";
  question.focus();
  void startTurn(text);
});

question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

stop.addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

newChat.addEventListener("click", () => {
  running?.abort();
  history = [];
  records = [];
  keepChat(undefined);
  turns.replaceChildren(empty);
  longText.readOnly = false;
  example.hidden = false;
  suggestions.replaceChildren();
  describeLongText();
  question.focus();
});

example.addEventListener("click", () => {
  showExample();
  question.focus();
});

function showExample() {
  longText.value = exampleNotes;
  longText.scrollTop = 0;
  describeLongText();
  suggestions.replaceChildren(...exampleQuestions.map(suggestion));
}

for (const [target, event] of [
  [window, "pagehide"],
  [document, "visibilitychange"],
])
  target.addEventListener(event, () => {
    const isEmpty = records.length === 0 && longText.value === "";
    keepChat(isEmpty ? undefined : { longText: longText.value, history, turns: records });
  });

/** A button that asks one of the example's questions. */
function suggestion(text) {
  const button = element("button", "small", text.replace(/^Question: /, ""));
  button.type = "button";
  button.addEventListener("click", () => {
    if (running) return;
    button.remove();
    question.focus();
    void startTurn(text);
  });
  return button;
}

longText.addEventListener("input", describeLongText);

keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(keyName, key.value.trim());
  key.value = "";
  keyForm.hidden = true;
  const next = afterKey;
  afterKey = undefined;
  void showServer();
  void next?.();
});

try {
  restore(keptChat());
} catch {
  newChat.click(); // another version of this page kept it, or somebody has changed it
}
void watchServer();

/** Shows the chat that was there before the page was loaded again. */
function restore(chat) {
  if (chat === undefined) return;
  longText.value = chat.longText;
  history = chat.history;
  for (const record of chat.turns) {
    const turn = addTurn(record);
    turn.answer.textContent = record.answer;
    for (const { report, word } of record.runs) {
      const shown = createRun(turn.count + 1);
      turn.runs.append(shown.root);
      if (report === undefined) shown.end(word);
      else shown.show(report, turn.coldMs);
      turn.coldMs ??= report?.ttft_ms;
      turn.count += 1;
    }
    turn.button.hidden = false;
    if (record.withNotes) longText.readOnly = example.hidden = true;
  }
  if (longText.value.trim() === exampleNotes.trim()) {
    const asked = chat.turns.map(({ text }) => text);
    suggestions.replaceChildren(...exampleQuestions.filter((text) => !asked.includes(text)).map(suggestion));
  }
  describeLongText();
  follow();
}

/** Asks a new question: the long text goes before the first one of a chat. */
async function startTurn(text) {
  const notes = history.length === 0 ? longText.value.trim() : "";
  const content = notes === "" ? text : `${notes}\n\n${text}`;
  const messages = [...history, { role: "user", content }];
  if (notes !== "") {
    longText.readOnly = true;
    example.hidden = true;
  }
  describeLongText();
  await run(addTurn({ text, withNotes: notes !== "", messages, answer: "", runs: [] }), messages);
}

/** A turn at the end of the chat, and what a reload keeps of it. */
function addTurn(record) {
  records.push(record);
  const turn = createTurn(record.text, record.withNotes, () => run(turn, record.messages));
  turn.record = record;
  empty.remove();
  turns.append(turn.root);
  return turn;
}

function createTurn(text, withNotes, again) {
  const root = element("article", "turn");
  const asked = element("p", "question", text.replace(/^Question: /, "")); // as the shipped model wants it
  if (withNotes) asked.append(element("span", "with-text", "with the text"));
  const answer = element("div", "answer");
  const runs = element("div", "runs");
  const button = element("button", "small again", "Same again");
  button.type = "button";
  button.title = "Send exactly the same prompt once more";
  button.hidden = true;
  button.addEventListener("click", () => {
    if (!running) void again();
  });
  root.append(asked, answer, runs, button);
  return { root, answer, runs, button, count: 0, coldMs: undefined };
}

/** Sends `messages` and shows the answer in `turn`; the first answer becomes a part of the chat. */
async function run(turn, messages) {
  turn.root.querySelector(".failure")?.remove();
  const shown = createRun(turn.count + 1);
  turn.runs.append(shown.root);
  turn.answer.textContent = "";
  setRunning(new AbortController());
  const { signal } = running;
  follow();
  let text = "";
  try {
    const { reprise } = await streamChat({
      messages,
      key: sessionStorage.getItem(keyName),
      signal,
      onText(piece) {
        if (text === "") shown.answering();
        text += piece;
        turn.answer.append(piece);
        follow();
      },
    });
    shown.show(reprise, turn.coldMs);
    if (state.dataset.state !== "ok") void showServer(); // it is back, as this answer shows
    turn.record.runs.push({ report: reprise });
    turn.record.answer = text;
    turn.coldMs ??= reprise.ttft_ms;
    turn.count += 1;
    turn.button.textContent = "Same again";
    remember(turn, messages, text);
  } catch (error) {
    if (signal.aborted) {
      shown.end("stopped");
      turn.record.runs.push({ word: "stopped" });
      turn.record.answer = text;
      turn.count += 1;
      remember(turn, messages, text);
    } else {
      shown.root.remove();
      turn.button.textContent = "Try again";
      fail(turn, error, () => run(turn, messages));
    }
  } finally {
    setRunning(undefined);
    turn.button.hidden = false;
    // A button that was switched off while it had the focus has lost it.
    if (document.activeElement === document.body && turn.count > 1) turn.button.focus();
    follow();
  }
}

/** Not when it was asked again later on, and not when its chat is gone. */
function remember(turn, messages, text) {
  if (text === "" || !turn.root.isConnected || history.length !== messages.length - 1) return;
  history = [...messages, { role: "assistant", content: text }];
}

function fail(turn, error, again) {
  const known = error instanceof ApiError;
  const message = known ? error.message : `Something went wrong in this page: ${error.message}`;
  const box = element("p", "failure", message);
  box.setAttribute("role", "alert");
  turn.runs.before(box);
  if (isAboutKey(error)) askForKey(again);
}

/** No key, a wrong one, or an admin key, which gets no answers. */
function isAboutKey(error) {
  return error instanceof ApiError && (error.status === 401 || error.code === "api_key_needed");
}

function askForKey(again) {
  afterKey = again ?? afterKey;
  keyForm.hidden = false;
  keyLabel.textContent = sessionStorage.getItem(keyName)
    ? "The server did not accept this API key. Try another."
    : "This server asks for an API key.";
  key.focus();
}

function setRunning(controller) {
  running = controller;
  stop.hidden = controller === undefined;
  send.disabled = controller !== undefined;
  for (const button of turns.querySelectorAll(".again")) button.disabled = controller !== undefined;
}

/** Keeps the end in view, unless the reader scrolled up. */
function follow() {
  // On a narrow screen the whole page scrolls, not the conversation in it.
  const scroller = turns.scrollHeight > turns.clientHeight ? turns : document.scrollingElement;
  const room = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop;
  if (room < 240) scroller.scrollTop = scroller.scrollHeight;
}

function describeLongText() {
  const words = longText.value.split(/\s+/).filter((word) => word !== "").length;
  const size = `${words.toLocaleString("en")} words.`;
  if (longText.readOnly) longTextHint.textContent = `${size} Part of this chat; start a new chat to change it.`;
  else if (words > 0) longTextHint.textContent = `${size} It goes before your first question.`;
  else longTextHint.textContent = "Ask about it, then ask again: what was read once is not computed twice.";
}

async function watchServer() {
  if (!document.hidden) await showServer();
  setTimeout(watchServer, pollMs);
}

async function showServer() {
  const now = await readState();
  const changed = state.dataset.state !== now;
  if (changed) {
    state.dataset.state = now;
    state.textContent = stateWords[now] ?? now;
  }
  const known = !changed && model.textContent !== "";
  if (now !== "ok" || known || !keyForm.hidden) return;
  try {
    introduce(await readModel(sessionStorage.getItem(keyName)));
  } catch (error) {
    if (isAboutKey(error)) askForKey();
  }
}

/** Says which model is there, and what it is good for where that is not plain. */
function introduce({ name, reuseRefused }) {
  model.textContent = name;
  if (reuseRefused !== undefined) {
    modelNote.textContent = `Every prompt is computed whole: this model’s KV is not reused, since ${reuseRefused}.`;
    modelNote.hidden = false;
  } else if (name.startsWith(shippedModel)) {
    modelNote.textContent =
      "The small model that ships answers questions about notes like these, and nothing else. For talk, start Reprise with a model of your own.";
    modelNote.hidden = false;
    if (records.length === 0 && longText.value === "") showExample();
  }
}
