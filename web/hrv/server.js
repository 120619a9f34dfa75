// The pack's routes on the server (host/routes), asked once for each question until something may have changed.

import { api } from "../../../scripts/api.js";
import { say } from "./texts.js";

/** @typedef {{ answer?: any, error?: string }} Reply without either until the server has answered */

/** @typedef {{ reply: Reply, text: string, isCurrent: boolean, used: number }} Entry */

// What nobody asked for so long is forgotten when something new is asked: builds have one HRV after the other.
const KEPT_MS = 60_000;

/** @type {Map<string, Entry>} */
const entries = new Map();

/**
 * What is known of the answer to a question. It is asked when it is new; an old answer stands until the next is there,
 * and stays the same object if that is no other.
 * @param {string} path such as "/hrv/concepts"
 * @param {object} request
 * @returns {Reply}
 */
export function known(path, request) {
  const body = JSON.stringify(request);
  const key = `${path} ${body}`;
  const now = Date.now();
  const entry = entries.get(key) ?? { reply: {}, text: "", isCurrent: false, used: now };
  entry.used = now;
  if (!entry.isCurrent) {
    for (const [other, { used }] of entries) if (now - used > KEPT_MS) entries.delete(other);
    entry.isCurrent = true;
    entries.set(key, entry);
    void post(path, body).then((reply) => {
      const text = JSON.stringify(reply);
      if (text !== entry.text) Object.assign(entry, { reply, text });
    });
  }
  return entry.reply;
}

/**
 * The answer to a question that is not to be kept.
 * @param {string} path
 * @param {object} request
 * @returns {Promise<Reply>}
 */
export function ask(path, request) {
  return post(path, JSON.stringify(request));
}

/** Ask again from now on: files or results may have changed. */
export function forget() {
  for (const entry of entries.values()) entry.isCurrent = false;
}

/**
 * @param {string} path
 * @param {string} body
 * @returns {Promise<Reply>}
 */
async function post(path, body) {
  try {
    const response = await api.fetchApi(path, { method: "POST", body, headers: { "Content-Type": "application/json" } });
    const found = await response.json();
    return response.ok ? { answer: found } : { error: String(found.error) };
  } catch (error) {
    return { error: say("ComfyUI does not answer: {error}", { error: String(error) }) };
  }
}
