// What the page says, in the language that it is set to. The code has the English texts, which are looked up.

/** @type {Readonly<Record<string, string>>} */
let translations = {};

/**
 * Say other texts from now on.
 * @param {Readonly<Record<string, string>>} found translations by their English texts
 */
export function setTranslations(found) {
  translations = found;
}

/**
 * A text in the page's language, or as it is if that has no translation.
 * @param {string} english with names in braces where values go
 * @param {Record<string, string | number>} [values]
 */
export function say(english, values = {}) {
  return (translations[english] ?? english).replaceAll(/\{(\w+)\}/g, (place, name) => String(values[name] ?? place));
}

// Texts of the server (host/work) that are the same whatever is worked on.
const TOLD = new Map([
  ["images", () => say("images")],
  ["pairs", () => say("pairs")],
  ["checks", () => say("checks")],
  ["steps", () => say("steps")],
  ["updates", () => say("updates")],
  ["heads weakened", () => say("heads weakened")],
  ["expected agreement", () => say("expected agreement")],
  ["share of attention, and loss", () => say("share of attention, and loss")],
  ["all concepts", () => say("all concepts")],
  ["least settled concept", () => say("least settled concept")],
  ["most relevant first", () => say("most relevant first")],
  ["least relevant first", () => say("least relevant first")],
  ["random", () => say("random")],
  ["loss", () => say("loss")],
]);

/** @type {[RegExp, (...parts: string[]) => string][]} */
const TOLD_WITH_VALUES = [
  [/^score of (.+)$/, (_, concept = "") => say("score of {concept}", { concept })],
  [/^maximum of (.+)$/, (_, words = "") => say("maximum of {words}", { words })],
  [/^agreement ([\d.]+)/, (_, value = "") => say("agreement {value}", { value })],
  [/(\d+) workers?, (\S+) (\w+)\/s$/, (_, count = "", speed = "", unit = "") => say("{count} workers, {speed} {unit}/s", { count, speed, unit: told(unit) })], // prettier-ignore
];

/**
 * A text of the server in the page's language, as far as it is one that the page knows.
 * @param {string} text
 */
export function told(text) {
  const whole = TOLD.get(text);
  if (whole) return whole();
  return TOLD_WITH_VALUES.reduce((found, [pattern, put]) => found.replace(pattern, put), text);
}
