// The pack's templates in the order of their names: the host lists files as they happen to lie on the disk.

import { api } from "../../../scripts/api.js";

/** Sort our own entry of the list that the page gets when it first shows templates. */
export function sortTemplates() {
  const pack = decodeURIComponent(new URL("..", import.meta.url).pathname.split("/").at(-2) ?? "");
  const list = api.getWorkflowTemplates.bind(api);
  api.getWorkflowTemplates = async () => {
    const templates = await list();
    templates[pack]?.sort();
    return templates;
  };
}
