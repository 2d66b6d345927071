// Lets node read @continuedev/core as npm has it: its imports lack extensions, and two native packages are left out.
import { register } from "node:module";

globalThis.__dirname = process.env.CONTINUE_CORE + "/dist/util"; // where it looks for its grammars
register("./hooks.mjs", import.meta.url);
