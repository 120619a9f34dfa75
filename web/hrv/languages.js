// The pack's texts in the language that the page is set to (locales/), for what the page does not translate by itself.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { setTranslations } from "./texts.js";

/**
 * @typedef {object} Translations
 * @property {Record<string, string>} [texts] by their English texts
 * @property {Record<string, string[]>} [search] by node class, what people may type to find it
 */

/** @type {Translations} */
let translations = {};

/** Say everything in the page's language from now on, or in English what has no translation. */
export async function loadTranslations() {
  const language = String(app.extensionManager.setting.get("Comfy.Locale"));
  try {
    const response = language === "en" ? null : await api.fetchApi("/i18n");
    translations = response?.ok ? ((await response.json())[language]?.hrv ?? {}) : {};
  } catch {
    translations = {}; // the page stays in English
  }
  setTranslations(translations.texts ?? {});
}

/**
 * Let the pack's nodes be found by what people call them in the page's language; the page translates titles alone.
 * @param {Record<string, any>} definitions of all nodes by class
 */
export function translateSearch(definitions) {
  for (const [name, words] of Object.entries(translations.search ?? {})) {
    const definition = definitions[name];
    if (definition) definition.search_aliases = [...new Set([...(definition.search_aliases ?? []), ...words])];
  }
}
