// Asks Continue's own CompletionProvider for a completion, as its editor extensions do.
//
// In:  argv: JSON {provider, apiBase, apiKey, folder, file, line, character, keys}; `keys` are typed one by one, 30 ms apart
// Out: stdout, last line: JSON {completion, prompts, errors, milliseconds}
import { pathToFileURL } from "node:url";
import fs from "node:fs";

const core = process.env.CONTINUE_CORE + "/dist/";
const load = async (path) => import(pathToFileURL(core + path).href);
const { CompletionProvider } = await load("autocomplete/CompletionProvider.js");
const { default: FileSystemIde } = await load("util/filesystem.js");
const { default: LlamaCpp } = await load("llm/llms/LlamaCpp.js");
const { default: OpenAI } = await load("llm/llms/OpenAI.js");

const asked = JSON.parse(process.argv[2]);
const settings = { model: "qwen2.5-coder:0.5b", apiBase: asked.apiBase, apiKey: asked.apiKey, contextLength: 32768 };
const llm = asked.provider === "openai" ? new OpenAI(settings) : new LlamaCpp(settings);
const errors = [];
const options = { useCache: false, debounceDelay: 10, modelTimeout: 3000 };
const provider = new CompletionProvider(
  { loadConfig: async () => ({ config: { tabAutocompleteOptions: options } }) },
  new FileSystemIde(pathToFileURL(asked.folder).href),
  async () => llm,
  (error) => errors.push(String(error.message ?? error)),
  async () => [],
);

const filepath = pathToFileURL(asked.file).href;
const ask = async (text, character, id) =>
  provider.provideInlineCompletionItems({
    isUntitledFile: false,
    completionId: id,
    filepath,
    pos: { line: asked.line, character },
    recentlyVisitedRanges: [],
    recentlyEditedRanges: [],
    manuallyPassFileContents: text,
  });

const lines = fs.readFileSync(asked.file, "utf8").split("\n");
// An editor has run for a while: before its parsers are loaded, seconds long, Continue sends the first key's request and no other
if (asked.keys) await ask(lines.join("\n"), asked.character, "warm");
const started = Date.now();
const answers = [];
for (let typed = 0; typed <= asked.keys.length; typed++) {
  const line = lines[asked.line];
  const text = line.slice(0, asked.character) + asked.keys.slice(0, typed) + line.slice(asked.character);
  const now = [...lines.slice(0, asked.line), text, ...lines.slice(asked.line + 1)].join("\n");
  answers.push(ask(now, asked.character + typed, `c${typed}`));
  if (typed < asked.keys.length) await new Promise((done) => setTimeout(done, 30));
}
const outcome = (await Promise.all(answers)).at(-1);
const said = { completion: outcome?.completion ?? null, prompt: outcome?.prompt ?? null, errors, milliseconds: Date.now() - started };
process.stdout.write("\n" + JSON.stringify(said) + "\n", () => process.exit(0));
