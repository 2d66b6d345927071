// Resolves `./x` as `./x.js` or `./x/index.js`, and sqlite (Continue's own cache and statistics) as something that holds nothing.
const NOTHING =
  "data:text/javascript," +
  encodeURIComponent(
    "const db = { exec: async () => {}, run: async () => {}, get: async () => undefined, all: async () => [] };" +
      "export const open = async () => db; export const Database = class {}; export default { Database };",
  );

export async function resolve(specifier, context, next) {
  if (specifier === "sqlite" || specifier === "sqlite3") return { url: NOTHING, shortCircuit: true };
  const endings = /^(\.|@continuedev\/core\/)/.test(specifier) ? ["", ".js", "/index.js"] : [""];
  let failure;
  for (const ending of endings) {
    try {
      return await next(specifier + ending, context);
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure;
}
