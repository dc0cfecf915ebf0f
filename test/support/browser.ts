/** Debian's chromium, as the tests of the page drive it. */
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const chromiumPath = "/usr/bin/chromium";

/** Where CI is set the browser must be there; elsewhere its tests are left out without it. */
export const browserIsHere = existsSync(chromiumPath) || process.env["CI"] !== undefined;

export function launchBrowser(): Promise<Browser> {
  const args = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ];
  return chromium.launch({ executablePath: chromiumPath, args });
}
