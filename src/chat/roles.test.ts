import { expect, test } from "vitest";
import { ChatTemplate } from "./chat-template.ts";
import { chatRoles, knownRole } from "./roles.ts";

function render(chatTemplate: string, role: string) {
  return new ChatTemplate({ chatTemplate, beginText: "", endText: "" }).render({ messages: [{ role, content: [] }] });
}

test("a developer is the system for templates that do not know one", () => {
  expect(render("{{ messages[0].role }}", "developer").text).toBe("system");
  expect(render("{# developer #}{{ messages[0].role }}", "developer").text).toBe("developer");
});

test("known roles are the template's own text, any other was typed", () => {
  for (const role of chatRoles) expect(render("<{{ messages[0].role }}>", role).typed).toEqual([]);
  expect(render("<{{ messages[0].role }}>", "User").typed).toEqual([[1, 5]]);
  expect(knownRole("user")).toBe("user");
  for (const other of ["User", "", 7, null, undefined]) expect(knownRole(other)).toBeUndefined();
});
