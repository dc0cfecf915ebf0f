/** The messages and tools of OpenAI's chats, as the engine's: checked by the tables of fields, contents as blocks. */
import type { ChatMessage, ContentBlock } from "../../engine.ts";
import { textContent } from "../../chat/content.ts";
import { chatRoles, knownRole } from "../../chat/roles.ts";
import { messageFields, toolFields, toolFunctionFields } from "../fields/chat-fields.ts";
import { type Body, checkRefused, type Fields, isBody, refuse } from "../fields/field.ts";
import { shorten } from "../fields/shorten.ts";

/** The tools as given; `functions` are what they were called before. */
export function toTools(tools: readonly Body[], functions: readonly Body[]): readonly Body[] {
  if (tools.length > 0 && functions.length > 0) refuse("functions", "is the old name of tools: send one of them");
  for (const [index, each] of functions.entries()) checkAll(toolFunctionFields, each, `functions[${index}]`);
  for (const [index, tool] of tools.entries()) {
    const at = `tools[${index}]`;
    const type = tool["type"] ?? "function";
    if (type !== "function") refuse(`${at}.type`, 'can only be "function"');
    checkAll(toolFields, tool, at);
    const { function: described } = tool;
    if (Array.isArray(described)) refuse(`${at}.function`, "must be an object");
    if (isBody(described)) checkAll(toolFunctionFields, described, `${at}.function`);
  }
  return tools.length > 0 ? tools : functions.map((each) => ({ type: "function", function: each }));
}

/** Content as blocks, whatever form it came in; all other fields go to the template as they are. */
export function toMessage(message: Body, index: number): ChatMessage {
  const at = `messages[${index}]`;
  const role = knownRole(message["role"]);
  if (role === undefined) return refuse(`${at}.role`, `must be one of ${chatRoles.join(", ")}`);
  checkAll(messageFields, message, at);
  return {
    ...message,
    role,
    content: toContent(message, role === "assistant", `${at}.content`),
  };
}

/** Only an assistant's message may have no content: one that calls tools, or whose refusal is played back. */
function toContent({ content, ...message }: Body, isAssistant: boolean, at: string): readonly ContentBlock[] {
  if (content !== undefined && content !== null && content !== "") return toBlocks(content, isAssistant, at);
  if (isAssistant && typeof message["refusal"] === "string") return textContent(message["refusal"]);
  if (content === "" || (isAssistant && (message["tool_calls"] ?? message["function_call"]))) return [];
  return refuse(at, isAssistant ? "is missing, and so are tool_calls and refusal" : "is missing");
}

function toBlocks(content: unknown, isAssistant: boolean, at: string): readonly ContentBlock[] {
  if (typeof content === "string") return textContent(content);
  if (!Array.isArray(content) || content.length === 0) return refuse(at, "must be a string or an array of text parts");
  return content.map((part: unknown, index) => toBlock(part, isAssistant, `${at}[${index}]`));
}

function toBlock(part: unknown, isAssistant: boolean, at: string): ContentBlock {
  const { type = "text", text, refusal } = isBody(part) ? part : {};
  const isText = type === "text" || type === "input_text";
  if (isText && typeof text === "string") return { kind: "text", text };
  if (isAssistant && type === "refusal" && typeof refusal === "string") return { kind: "text", text: refusal };
  const given = isText || typeof type !== "string" ? "is no text" : `cannot be of type "${shorten(type, 64)}"`;
  return refuse(at, `${given}: this model reads only text, sent as {"type": "text", "text": …}`);
}

function checkAll(rows: Fields, part: Body, at: string): void {
  for (const [name, row] of Object.entries(rows)) {
    if (row.rule === "refused") checkRefused(name, row, part, `${at}.${name}`);
  }
}
