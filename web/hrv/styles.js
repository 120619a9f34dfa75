// Styles of the pack's elements, each put into the page once.

/**
 * @param {string} id
 * @param {string} text
 */
export function addStyle(id, text) {
  if (document.getElementById(id)) return;
  const style = document.createElement("style");
  style.id = id;
  style.textContent = text;
  document.head.append(style);
}
