// Chromium without a window, cut off from everything but this machine.

import { chromium } from "playwright-core";

/**
 * @param {string} executablePath
 * @param {string} profile a folder for what the browser keeps
 * @param {object} options of playwright's launchPersistentContext
 */
export function openBrowser(executablePath, profile, options = {}) {
  return chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    viewport: { width: 1920, height: 1080 },
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ],
    ...options,
  });
}
