// Elements, made one by one: nothing here or elsewhere reads HTML, so no text can become a script. The page's policy
// (`require-trusted-types-for 'script'`) makes the browser refuse to.

import { highlight } from "./code.js";
import { markdown } from "./markdown.js";
import { math } from "./math.js";

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "disabled" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SHAPES = {
  bad: "M17 14V3M7 3h12.5a1.5 1.5 0 0 1 1.5 1.5v8a1.5 1.5 0 0 1-1.5 1.5H17l-4 7a2.2 2.2 0 0 1-2-2.5V14H5.200a2 2 0 0 1-2-2.400l1.200-7A2 2 0 0 1 6.400 3z",
  close: "M6 6l12 12M18 6L6 18",
  compare: "M4 5h7v14H4zM13 5h7v14h-7z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  edit: "M4 20l1-4L16 5l3 3L8 19z",
  good: "M7 10v11M17 21H4.500A1.500 1.500 0 0 1 3 19.500v-8A1.500 1.500 0 0 1 4.500 10H7l4-7a2.200 2.200 0 0 1 2 2.500V10h5.800a2 2 0 0 1 2 2.400l-1.200 7a2 2 0 0 1-2 1.600z",
  key: "M8 11.500a4 4 0 1 0 .010 0zM11 12.700L20 4M16 8l3 3",
  left: "M15 5l-7 7 7 7",
  menu: "M4 7h16M4 12h16M4 17h16",
  moon: "M20 14A8 8 0 1 1 10 4a6.500 6.500 0 0 0 10 10z",
  redo: "M20 11A8 8 0 1 0 18 17M20 5v6h-6",
  right: "M9 5l7 7-7 7",
  send: "M12 20V5M6 11l6-6 6 6",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.500v5M9 14.500v5",
  stop: "M7 7h10v10H7z",
  tokens: "M4 6h6v5H4zM12 6h8v5h-8zM4 13h9v5H4zM15 13h5v5h-5z",
  trash: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13",
};

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", SHAPES[name]);
  svg.append(path);
  return svg;
}

// A button of an icon alone, named for those who can't see it.
export function iconButton(name, label, onclick, more = {}) {
  return h("button", { type: "button", class: "icon", title: label, "aria-label": label, onclick, ...more }, icon(name));
}

const HTML = new Set(
  "p h1 h2 h3 h4 h5 h6 hr blockquote ul ol li table thead tbody tr th td br code em strong del a".split(" "),
);
const MATHML = new Set(
  "semantics annotation mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd".split(
    " ",
  ),
);
const ATTRIBUTES = new Set(
  "class start mathvariant stretchy fence form largeop linethickness accent width displaystyle encoding display".split(" "),
);

// The element of a node that markdown() or math() made. Throws for a tag that they don't make.
function treeElement(node) {
  if (typeof node === "string") return document.createTextNode(node);
  if (node.tag === "code-block") return codeBlock(node.children[0], node.language);
  if (node.tag === "math") return treeElement(math(node.children[0], node.display));
  const space = "http://www.w3.org/1998/Math/MathML";
  let element;
  if (node.tag === "mathml") element = document.createElementNS(space, "math");
  else if (MATHML.has(node.tag)) element = document.createElementNS(space, node.tag);
  else if (HTML.has(node.tag))
    element = document.createElement(node.tag.replace(/^h([1-6])$/, (_, level) => `h${Math.min(6, Number(level) + 2)}`));
  else throw new Error(`no tag ${node.tag}`);
  for (const [name, value] of Object.entries(node.attributes ?? {})) {
    if (value !== undefined && ATTRIBUTES.has(name)) element.setAttribute(name, value);
  }
  if (node.tag === "a" && /^(https?:|mailto:)/i.test(node.attributes.href)) {
    element.href = node.attributes.href;
    element.target = "_blank";
    element.rel = "noopener noreferrer";
  }
  element.append(...node.children.map(treeElement));
  const kind = node.tag === "table" ? "table" : node.attributes?.display === "block" ? "formula" : null;
  return kind ? h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": kind }, element) : element; // wide ones scroll
}

function codeBlock(text, language) {
  const pieces = highlight(text, language).map(([kind, piece]) => (kind ? h("span", { class: `c-${kind}` }, piece) : piece));
  const head = h(
    "figcaption",
    {},
    h("span", {}, language || "text"),
    copyButton(() => text, "Copy code"),
  );
  return h("figure", { class: "code" }, head, h("pre", { tabindex: "0" }, h("code", {}, pieces)));
}

export function copyButton(text, label = "Copy") {
  const button = iconButton("copy", label, async () => {
    await copy(text());
    button.classList.add("done");
    announce("Copied");
    setTimeout(() => button.classList.remove("done"), 1200);
  });
  return button;
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = h("textarea", { value: text, class: "unseen" }); // over plain http to another host there's no clipboard
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// The direction of a text, by its first letter. A text area's own `dir=auto` costs seconds a key in a long text.
export const direction = (text) => (/^\P{L}*[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/u.test(text.slice(0, 200)) ? "rtl" : "ltr");

// Said to those who don't see it.
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

// Each block runs as its own first letter does, since a reply may hold several languages. The first one's is the whole text's too, which
// `dir=auto` reads from what has no direction of its own.
function blockElement(node, i) {
  const element = treeElement(node);
  if (i > 0 && node.tag !== "code-block") element.dir = "auto";
  return element;
}

const shown = new WeakMap(); // element -> the blocks in it, as JSON

// Show a Markdown text; of one that has grown, only what changed is made anew.
export function showMarkdown(element, text) {
  const before = shown.get(element) ?? [];
  const blocks = markdown(text);
  const after = blocks.map((block) => JSON.stringify(block));
  let same = 0;
  while (same < after.length && after[same] === before[same]) same += 1;
  while (element.childNodes.length > same) element.lastChild.remove();
  element.append(...blocks.slice(same).map((node, i) => blockElement(node, same + i)));
  shown.set(element, after);
}
