// Words of prompts as the controls find them (hrv/prompts/tokens.py).

import { splitNames, toggledName } from "./names.js";
import { say } from "./texts.js";

/** @typedef {{ text: string, pieces: string[], positions: number[], weight: number }} Word as the server gives it */

/**
 * @typedef {{ words: Word[], length: number, chunk: number, groups?: Record<string, number> }} Tokens likewise; `groups`
 * are the numbers of tokens beside the words by their names, of text encoders that are not CLIP
 */

/** The phrase that means all words. */
export const ALL_WORDS = "*";

/**
 * The form in which words are compared: composed letters without case.
 * @param {string} text
 */
function caseless(text) {
  return text.normalize("NFC").toUpperCase().toLowerCase().normalize("NFC");
}

/**
 * Whether a prompt has a phrase: from one word's beginning to another's end, each blank of the phrase between words.
 * @param {readonly string[]} words
 * @param {string} phrase
 */
export function hasPhrase(words, phrase) {
  const texts = words.map((word) => caseless(word).replace(/\s/g, ""));
  const parts = caseless(phrase).split(/\s+/).filter(Boolean);
  return parts.length > 0 && texts.some((_, first) => matchesAt(texts, first, parts));
}

/**
 * @param {string[]} texts
 * @param {number} first
 * @param {string[]} parts
 */
function matchesAt(texts, first, parts) {
  let index = first;
  for (const part of parts) {
    let rest = part;
    while (rest) {
      const text = texts[index];
      if (!text || !rest.startsWith(text)) return false;
      rest = rest.slice(text.length);
      index += 1;
    }
  }
  return true;
}

/**
 * A field for words of the prompt with one more, or without it if it is there.
 * @param {string} text
 * @param {string} word
 */
export function toggledWord(text, word) {
  return toggledName(text.trim() === ALL_WORDS ? "" : text, word);
}

/**
 * Whether a field for words of the prompt names one.
 * @param {string} text
 * @param {string} word
 */
export function namesWord(text, word) {
  return text.trim() === ALL_WORDS || splitNames(text).some((name) => caseless(name) === caseless(word));
}

/**
 * The subjects of Attend and Excite (hrv/attend_and_excite/subjects.py): words, or "words: concept".
 * @param {string} text
 */
function subjectsOf(text) {
  return text
    .split(/[,\n]/)
    .map((subject) => subject.trim())
    .filter(Boolean);
}

/**
 * @param {string} subject
 * @param {string} word
 */
function isOf(subject, word) {
  return caseless(subject.split(":")[0]?.trim() ?? "") === caseless(word);
}

/**
 * The subjects with a word as one more, or without its subject if it is there.
 * @param {string} text
 * @param {string} word
 */
export function toggledSubject(text, word) {
  const others = subjectsOf(text).filter((subject) => !isOf(subject, word));
  return (others.length < subjectsOf(text).length ? others : [...others, word]).join(", ");
}

/**
 * Whether a word is a subject.
 * @param {string} text
 * @param {string} word
 */
export function isSubject(text, word) {
  return subjectsOf(text).some((subject) => isOf(subject, word));
}

/**
 * The words that a menu offers: each once, in the order of the prompts, without punctuation.
 * @param {readonly (readonly string[])[]} prompts
 */
export function offeredWords(prompts) {
  /** @type {Map<string, string>} */
  const found = new Map();
  for (const word of prompts.flat()) {
    if (/[\p{L}\p{N}]/u.test(word) && !found.has(caseless(word))) found.set(caseless(word), word);
  }
  return [...found.values()];
}

/**
 * All that a control can name in a prompt.
 * @param {Tokens} tokens
 */
export function namesIn({ words, groups = {} }) {
  return [...words.map(({ text }) => text), ...Object.keys(groups)];
}

/**
 * What is wrong with some phrases in a sentence, or null.
 * @param {readonly string[]} phrases
 * @param {readonly (readonly string[])[]} prompts
 */
export function wordComplaint(phrases, prompts) {
  const [gone] = gonePhrases(phrases, prompts);
  if (gone === undefined) return null;
  const words = offeredWords(prompts);
  const listed = words.length > 20 ? `${words.slice(0, 20).join(", ")} …` : words.join(", ");
  return say("The prompt does not contain '{phrase}'. Its words are: {words}.", { phrase: gone, words: listed || say("none") });
}

/**
 * The phrases that no prompt has.
 * @param {readonly string[]} phrases
 * @param {readonly (readonly string[])[]} prompts
 */
export function gonePhrases(phrases, prompts) {
  return phrases.filter((phrase) => phrase !== ALL_WORDS && !prompts.some((words) => hasPhrase(words, phrase)));
}

/**
 * The words of each chunk that the text encoder reads on its own; a word may stand in two.
 * @param {Tokens} tokens
 * @returns {Word[][]}
 */
export function chunksOf({ words, length, chunk }) {
  return Array.from({ length: Math.max(1, Math.round(length / chunk)) }, (_, number) =>
    words.filter(({ positions }) => positions.some((position) => Math.floor(position / chunk) === number)),
  );
}

/**
 * How much of its chunks a prompt fills, in a sentence.
 * @param {Tokens} tokens
 */
export function describe({ words, length, chunk, groups }) {
  const used = words.reduce((sum, { positions }) => sum + positions.length, 0);
  if (groups) return say("{used} of {length} tokens are words", { used, length });
  const chunks = Math.max(1, Math.round(length / chunk));
  const values = { used, room: chunks * (chunk - 2), chunks };
  return chunks > 1 ? say("{used} of {room} tokens in {chunks} chunks", values) : say("{used} of {room} tokens", values);
}
