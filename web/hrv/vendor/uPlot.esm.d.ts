// The package's own typings (package.json pins the version that is copied here).
export { default } from "uplot";
