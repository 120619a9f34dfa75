// What the page offers to extensions: its modules lie outside the pack, wherever that is installed.
declare module "*/scripts/app.js" {
  export const app: import("@comfyorg/comfyui-frontend-types").ComfyApp;
}
declare module "*/scripts/api.js" {
  export const api: import("@comfyorg/comfyui-frontend-types").ComfyApi;
}

// The graph library's settings, which the host puts on the window.
declare const LiteGraph: {
  NODE_ERROR_COLOUR: string;
  WIDGET_OUTLINE_COLOR: string;
  vueNodesMode?: boolean;
  ContextMenu: new (values: string[], options: object) => unknown;
};

declare const LGraphBadge: new (options: { text: string }) => { text: string };
