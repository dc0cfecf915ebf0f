/** What a reload must not lose: the text and the chat, kept for this tab alone, and forgotten when it is closed. */

const name = "reprise-chat";

/** @param chat what {@link keptChat} gives back after a reload; undefined forgets it */
export function keepChat(chat) {
  try {
    if (chat === undefined) sessionStorage.removeItem(name);
    else sessionStorage.setItem(name, JSON.stringify(chat));
  } catch {
    sessionStorage.removeItem(name); // more than the browser keeps for a tab: a reload begins anew
  }
}

/** The chat before the reload; undefined when there was none, or it was kept by another version of this page. */
export function keptChat() {
  try {
    const chat = JSON.parse(sessionStorage.getItem(name) ?? "null");
    return typeof chat?.longText === "string" && Array.isArray(chat.turns) && Array.isArray(chat.history)
      ? chat
      : undefined;
  } catch {
    return undefined;
  }
}
