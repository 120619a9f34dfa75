// The pack's routes on the server (host/routes), asked once for each question until something may have changed.

import { api } from "../../../scripts/api.js";

/** @typedef {{ answer?: any, error?: string }} Reply without either until the server has answered */

/** @type {Map<string, Reply>} */
const replies = new Map();

/** @type {Set<() => void>} */
const listeners = new Set();

/**
 * What is known of the answer to a question. It is asked when it is new; whoever waits is told by {@link onReply}.
 * @param {string} path such as "/hrv/concepts"
 * @param {object} request
 * @returns {Reply}
 */
export function known(path, request) {
  const body = JSON.stringify(request);
  const key = `${path} ${body}`;
  let reply = replies.get(key);
  if (!reply) {
    reply = {};
    replies.set(key, reply);
    void post(path, body).then((found) => {
      Object.assign(/** @type {Reply} */ (reply), found);
      for (const listener of listeners) listener();
    });
  }
  return reply;
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

/**
 * Call ``listener`` after every reply.
 * @param {() => void} listener
 */
export function onReply(listener) {
  listeners.add(listener);
}

/** Ask again from now on: files or results may have changed. */
export function forget() {
  replies.clear();
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
    return { error: `ComfyUI does not answer: ${error}` };
  }
}
