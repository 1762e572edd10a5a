// Code to coloured pieces: [kind, text] pairs whose texts joined are the code. Pure.
//
// One scanner for all languages: comments, strings, numbers, words. It needn't understand a language, only look right.

const C_WORDS =
  "if else for while do switch case default break continue return goto sizeof struct union enum typedef static const void int long short char float double unsigned signed bool true false";
const JS_WORDS =
  "if else for while do switch case default break continue return function class extends new this super import export from as async await yield let const var typeof instanceof in of delete void null undefined true false try catch finally throw static get set interface type enum implements public private protected readonly declare namespace abstract";
const WORDS = {
  python:
    "and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield match case None True False self",
  javascript: JS_WORDS,
  c:
    C_WORDS +
    " auto class namespace template typename public private protected virtual override new delete this try catch throw using nullptr constexpr inline operator friend include define ifdef ifndef endif pragma",
  java: "abstract assert boolean break byte case catch char class const continue default do double else enum extends final finally float for if implements import instanceof int interface long new null package private protected public return short static super switch synchronized this throw throws try var void volatile while true false record sealed fun val when object companion override data using namespace string async await get set in out ref",
  rust: "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while",
  go: "break case chan const continue default defer else fallthrough for func go goto if import interface map package range return select struct switch type var nil true false string int error",
  shell:
    "if then else elif fi for while do done case esac in function return export local readonly declare set unset source echo cd exit sudo",
  sql: "select from where and or not insert into values update set delete create table drop alter add primary key foreign references join left right inner outer full on as group by order having limit offset distinct union all null is in like between case when then else end exists index view with asc desc",
  ruby: "def end if elsif else unless while until for in do class module return yield self nil true false begin rescue ensure require include attr_accessor puts function local then repeat foreach echo public private",
  json: "true false null",
};
const C_LIKE = { line: "//", block: true };
const FAMILIES = [
  [["python", "py", "python3", "ipython", "starlark"], { words: WORDS.python, line: "#", triple: true }],
  [
    ["javascript", "js", "jsx", "typescript", "ts", "tsx", "mjs", "svelte", "vue"],
    { words: WORDS.javascript, ...C_LIKE, tick: true },
  ],
  [["c", "cpp", "c++", "h", "hpp", "cc", "cuda", "objc", "glsl", "swift"], { words: WORDS.c, ...C_LIKE, preprocessor: true }],
  [["java", "kotlin", "scala", "csharp", "c#", "cs", "dart"], { words: WORDS.java, ...C_LIKE }],
  [["rust", "rs", "zig"], { words: WORDS.rust, ...C_LIKE, noSingle: true }],
  [["go", "golang"], { words: WORDS.go, ...C_LIKE, tick: true }],
  [["css", "scss", "less"], { words: "important", block: true }],
  [["bash", "sh", "shell", "zsh", "console", "powershell", "dockerfile", "makefile"], { words: WORDS.shell, line: "#" }],
  [["sql", "postgresql", "mysql", "sqlite"], { words: WORDS.sql, line: "--", block: true, anyCase: true }],
  [["ruby", "rb", "lua", "php", "perl", "r", "julia"], { words: WORDS.ruby, line: "#" }],
  [["yaml", "yml", "toml", "ini"], { words: "true false null yes no", line: "#", keys: true }],
  [["json", "jsonl", "json5"], { words: WORDS.json, line: "//", keys: true }],
];
const MARKUP = new Set(["html", "xml", "svg", "xhtml"]);
const MAX_LETTERS = 100_000; // beyond, it's shown plain

const quoted = (mark) => `${mark}(?:[^${mark}\\\\\\n]|\\\\[^])*\\\\?(?:${mark}|$|(?=\\n))`;
const scanners = new Map();
for (const [names, family] of FAMILIES) {
  const scanner = makeScanner(family);
  for (const name of names) scanners.set(name, scanner);
}

function makeScanner({ words, line, block, triple, tick, noSingle, preprocessor, keys, anyCase }) {
  const comments = [];
  if (block) comments.push("/\\*[^]*?(?:\\*/|$)");
  if (line) comments.push(`${line === "#" ? "(?<![\\w$&])#" : line}[^\\n]*`);
  const strings = [quoted('"')];
  if (triple) strings.unshift('[rbfuRBFU]{0,2}"""[^]*?(?:"""|$)', "[rbfuRBFU]{0,2}'''[^]*?(?:'''|$)");
  if (!noSingle) strings.push(quoted("'"));
  if (tick) strings.push("`(?:[^`\\\\]|\\\\[^])*(?:`|$)");
  const parts = [
    comments.length ? `(?<comment>${comments.join("|")})` : "(?<comment>(?!))",
    preprocessor ? "(?<meta>^[ \\t]*#[ \\t]*\\w+)" : "(?<meta>@[A-Za-z_][\\w.]*)",
    keys ? '(?<key>"(?:[^"\\\\\\n]|\\\\.)*"(?=\\s*:)|^[ \\t-]*[\\w.-]+(?=\\s*[:=](?:\\s|$)))' : "(?<key>(?!))",
    `(?<string>${strings.join("|")})`,
    "(?<number>\\b(?:0[xXbBoO][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d[\\d_]*)?(?:[eE][+-]?\\d+)?)\\w*)",
    "(?<word>[A-Za-z_$][\\w$]*)",
  ];
  return { pattern: new RegExp(parts.join("|"), "gm"), words: new Set(words.split(" ")), anyCase };
}

export function highlight(code, language) {
  if (code.length > MAX_LETTERS) return [["", code]];
  if (MARKUP.has(language))
    return scan(
      code,
      /(?<comment><!--[^]*?(?:-->|$))|(?<keyword><\/?[A-Za-z][\w:-]*|\/?>)|(?<string>"[^"\n]*"|'[^'\n]*')|(?<key>(?<![\w:-])[\w:-]+(?==["']))/g,
    );
  if (language === "diff" || language === "patch")
    return scan(code, /(?<meta>^@@[^\n]*)|(?<string>^\+[^\n]*)|(?<deleted>^-[^\n]*)/gm);
  const scanner = scanners.get(language);
  return scanner ? scan(code, scanner.pattern, scanner) : [["", code]];
}

function scan(code, pattern, scanner) {
  const pieces = [];
  const push = (kind, text) => {
    if (!text) return;
    if (pieces.length && pieces.at(-1)[0] === kind) pieces.at(-1)[1] += text;
    else pieces.push([kind, text]);
  };
  let end = 0;
  for (const match of code.matchAll(pattern)) {
    if (!match[0]) continue;
    push("", code.slice(end, match.index));
    end = match.index + match[0].length;
    let kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    if (kind === "word") {
      const known = scanner.words.has(scanner.anyCase ? match[0].toLowerCase() : match[0]);
      kind = known ? "keyword" : code[end] === "(" ? "call" : "";
    }
    push(kind, match[0]);
  }
  push("", code.slice(end));
  return pieces;
}
