// Markdown to a tree of plain values; pure, so that it's tested without a browser.
//
// A node is a string or {tag, attributes?, children}. `dom.js` makes elements of it, of known tags only: there is no way from a
// text to HTML. Raw HTML stays text, and an image is a link, since the page loads nothing from other hosts. It reads what chat
// models write of CommonMark and GitHub's tables, tasks and strikethrough, and TeX between $…$, $$…$$, \(…\) and \[…\]. A line
// break is a line break, as chats have it.

// No pattern may read a stretch of text in two ways: a long line that fits none would cost its square.
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}>/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const MATH = /^ {0,3}(\$\$|\\\[)/;
const DELIMITER_ROW = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*(?:\|[ \t]*)?$/;
const MAX_DEPTH = 12; // of lists and quotes in each other
const MAX_OPEN = 40; // marks of emphasis that wait for their end; more are text, as longer runs are
const MAX_RUN = 6;
const MAX_COLUMNS = 100; // each row has them all, so a table of more isn't one
const MAX_FORMULA_LINES = 200;
const LINK = /^(?:https?:\/\/|mailto:)/i;

export function markdown(text) {
  return blocks(text.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n"), 0);
}

function blocks(lines, depth) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [node, next] = block(lines, at, depth);
    found.push(node);
    at = next;
  }
  return found;
}

function block(lines, at, depth) {
  const line = lines[at];
  let match = FENCE.exec(line);
  if (match) return fenced(lines, at, match);
  match = MATH.exec(line);
  if (match) {
    const math = mathBlock(lines, at, match[1]);
    if (math) return math;
  }
  match = HEADING.exec(line);
  if (match) {
    const title = (match[2] ?? "").trimEnd().replace(/(?<=^|[ \t])#+$/, "");
    return [{ tag: `h${match[1].length}`, children: inline(title.trim()) }, at + 1];
  }
  if (RULE.test(line)) return [{ tag: "hr", children: [] }, at + 1];
  if (depth < MAX_DEPTH && QUOTE.test(line)) {
    let end = at;
    while (end < lines.length && QUOTE.test(lines[end])) end += 1;
    const inner = lines.slice(at, end).map((one) => one.replace(/^ {0,3}> ?/, ""));
    return [{ tag: "blockquote", children: blocks(inner, depth + 1) }, end];
  }
  if (depth < MAX_DEPTH && ITEM.test(line)) return list(lines, at, depth);
  if (line.includes("|") && lines[at + 1]?.includes("|") && DELIMITER_ROW.test(lines[at + 1])) {
    if (cells(lines[at + 1]).length <= MAX_COLUMNS) return table(lines, at);
  }
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !interrupts(lines[end], depth)) end += 1;
  return [
    {
      tag: "p",
      children: inline(
        lines
          .slice(at, end)
          .map((one) => one.trimStart())
          .join("\n"),
      ),
    },
    end,
  ];
}

function interrupts(line, depth) {
  const item = depth < MAX_DEPTH && ITEM.exec(line);
  return (
    FENCE.test(line) ||
    HEADING.test(line) ||
    RULE.test(line) ||
    MATH.test(line) ||
    (depth < MAX_DEPTH && QUOTE.test(line)) ||
    Boolean(item && /^(?:[-*+]|1[.)])$/.test(item[2]) && item[3])
  );
}

function fenced(lines, at, match) {
  const indent = indentOf(lines[at]);
  const close = new RegExp(`^ {0,3}${match[1][0] === "`" ? "`" : "~"}{${match[1].length},}[ \\t]*$`);
  let end = at + 1;
  while (end < lines.length && !close.test(lines[end])) end += 1;
  const text = lines
    .slice(at + 1, end)
    .map((one) => one.slice(Math.min(indent, indentOf(one))))
    .join("\n");
  return [{ tag: "code-block", language: /^[^\s{]*/.exec(match[2].trim())[0].toLowerCase(), children: [text] }, Math.min(end + 1, lines.length)];
}

function indentOf(line) {
  return line.length - line.trimStart().length;
}

function mathBlock(lines, at, open) {
  const close = open === "$$" ? "$$" : "\\]";
  const first = lines[at].trimStart().slice(2);
  for (let end = at; end < Math.min(lines.length, at + MAX_FORMULA_LINES); end += 1) {
    const text = end === at ? first : lines[end];
    const stop = text.indexOf(close);
    if (stop >= 0) {
      if (text.slice(stop + 2).trim()) return null; // text goes on after it, so it's part of a paragraph
      const body = [...(end === at ? [] : [first]), ...lines.slice(at + 1, end), text.slice(0, stop)].join("\n");
      return [{ tag: "math", display: true, children: [body.trim()] }, end + 1];
    }
    if (end > at && !text.trim()) return null;
  }
  return null;
}

function list(lines, at, depth) {
  const [, margin, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const ending = mark.slice(-1);
  const items = [];
  let loose = false;
  while (at < lines.length) {
    const match = ITEM.exec(lines[at]);
    if (!match || match[1].length > margin.length + 3 || match[1].length < margin.length) break;
    if (/\d/.test(match[2]) !== ordered || match[2].slice(-1) !== ending || RULE.test(lines[at])) break;
    const width = match[1].length + match[2].length + Math.min(Math.max(match[3].length, 1), 4);
    const inner = [lines[at].slice(match[0].length)];
    let end = at + 1;
    while (end < lines.length) {
      if (!lines[end].trim()) {
        let next = end;
        while (next < lines.length && !lines[next].trim()) next += 1;
        if (next === lines.length) break;
        const after = lines[next];
        const goesOn = indentOf(after) >= Math.min(width, match[1].length + 2);
        const sibling = ITEM.exec(after);
        if (!goesOn && !(sibling && indentOf(after) >= margin.length)) break;
        if (!goesOn) {
          loose = true;
          break;
        }
        for (; end < next; end += 1) inner.push("");
        continue;
      }
      const indent = indentOf(lines[end]);
      if (indent >= match[1].length + 2) inner.push(lines[end].slice(Math.min(indent, width)));
      else if (ITEM.test(lines[end]) || interrupts(lines[end], depth) || !lines[end - 1].trim()) break;
      else inner.push(lines[end]);
      end += 1;
    }
    items.push(inner);
    at = end;
    while (loose && at < lines.length && !lines[at].trim()) at += 1;
  }
  const start = Number.parseInt(mark, 10);
  const attributes = ordered && start !== 1 ? { start: String(start) } : undefined;
  return [{ tag: ordered ? "ol" : "ul", attributes, children: items.map((inner) => item(inner, depth)) }, at];
}

function item(lines, depth) {
  const task = /^\[([ xX])\]\s+/.exec(lines[0]);
  if (task) lines = [lines[0].slice(task[0].length), ...lines.slice(1)];
  let children = blocks(lines, depth + 1);
  if (children[0]?.tag === "p") children = [...children[0].children, ...children.slice(1)]; // tight, however it was written
  return { tag: "li", children: task ? [task[1] === " " ? "☐ " : "☑ ", ...children] : children };
}

function table(lines, at) {
  const sides = cells(lines[at + 1]).map((cell) => {
    const left = cell.startsWith(":");
    const right = cell.endsWith(":");
    return left && right ? "centre" : right ? "right" : "";
  });
  const row = (line, tag) => {
    const given = cells(line);
    const made = sides.map((side, i) => ({
      tag,
      attributes: side ? { class: side } : undefined,
      children: inline(given[i] ?? ""),
    }));
    return { tag: "tr", children: made };
  };
  const body = [];
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) body.push(row(lines[end++], "td"));
  const head = { tag: "thead", children: [row(lines[at], "th")] };
  return [{ tag: "table", children: [head, { tag: "tbody", children: body }] }, end];
}

function cells(line) {
  const inner = line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

// Inline: pieces are strings, nodes, and runs of emphasis marks that `emphasised` pairs.
export function inline(text, inLink = false) {
  const pieces = [];
  const noEnd = new Set(); // marks that nothing closes any more: each is searched for once
  let plain = "";
  const push = (piece) => {
    if (plain) pieces.push(plain);
    plain = "";
    pieces.push(piece);
  };
  const find = (mark, from) => {
    if (noEnd.has(mark)) return -1;
    const end = text.indexOf(mark, from);
    if (end < 0) noEnd.add(mark);
    return end;
  };
  let at = 0;
  for (;;) {
    SPECIAL.lastIndex = at;
    const next = SPECIAL.exec(text)?.index ?? text.length;
    plain += text.slice(at, next);
    if (next === text.length) break;
    at = READERS[text[next]](text, next, { push, find, inLink, noEnd });
    if (at) continue;
    plain += text[next];
    at = next + 1;
  }
  if (plain) pieces.push(plain);
  return emphasised(pieces);
}

const SPECIAL = /[\\`$![<\n*_~]|http/g;
const READERS = {
  "\\": escape,
  "`": codeSpan,
  $: dollars,
  "!": image,
  "[": link,
  "<": angle,
  h: bareLink,
  "\n": lineBreak,
  "*": marks,
  _: marks,
  "~": marks,
};

function lineBreak(text, at, { push }) {
  push({ tag: "br", children: [] });
  return at + 1;
}

function escape(text, at, { push, find }) {
  const next = text[at + 1];
  if (next === "(" || next === "[") {
    const end = find(next === "(" ? "\\)" : "\\]", at + 2);
    if (end < 0) return 0;
    push({ tag: "math", display: next === "[", children: [text.slice(at + 2, end).trim()] });
    return end + 2;
  }
  if (next === "\n") return 0;
  if (next && /[!-/:-@[-`{-~]/.test(next)) {
    push(next);
    return at + 2;
  }
  return 0;
}

function codeSpan(text, at, { push, noEnd }) {
  const mark = /^`+/.exec(text.slice(at, at + 64))[0];
  if (!noEnd.has(mark)) {
    for (let from = at + mark.length; ;) {
      const end = text.indexOf(mark, from);
      if (end < 0) break;
      if (text[end + mark.length] === "`") {
        from = end + mark.length;
        while (text[from] === "`") from += 1;
        continue;
      }
      const inner = text.slice(at + mark.length, end).replaceAll("\n", " ");
      push({ tag: "code", children: [/^ .*\S.* $/.test(inner) ? inner.slice(1, -1) : inner] });
      return end + mark.length;
    }
    noEnd.add(mark);
  }
  push(mark);
  return at + mark.length;
}

function dollars(text, at, { push, find }) {
  if (text[at + 1] === "$") {
    const end = find("$$", at + 2);
    if (end < 0) return 0;
    push({ tag: "math", display: true, children: [text.slice(at + 2, end).trim()] });
    return end + 2;
  }
  // Pandoc's rule, which leaves prices alone: no blank inside of the marks, and no digit after the second.
  const end = find("$", at + 1);
  if (end < 0 || /\s/.test(text[at + 1]) || /\s/.test(text[end - 1]) || /\d/.test(text[end + 1] ?? "")) return 0;
  if (text.slice(at, end).includes("\n\n") || /\w/.test(text[at - 1] ?? "")) return 0;
  push({ tag: "math", display: false, children: [text.slice(at + 1, end)] });
  return end + 1;
}

function linkNode(address, children) {
  return LINK.test(address) ? { tag: "a", attributes: { href: address }, children } : null;
}

function image(text, at, tools) {
  if (text[at + 1] !== "[") return 0;
  const found = bracket(text, at + 1);
  const node = found && !tools.inLink && linkNode(found.address, [`🖼 ${found.label || found.address}`]);
  if (!node) return 0;
  tools.push(node);
  return found.end;
}

function link(text, at, tools) {
  const found = !tools.inLink && tools.find("](", at) > 0 && bracket(text, at);
  const node = found && linkNode(found.address, inline(found.label, true));
  if (!node) return 0;
  tools.push(node);
  return found.end;
}

// [label](address "title") from `at`, or null. Labels are bounded, so that many open brackets don't cost their square.
function bracket(text, at) {
  let depth = 0;
  for (let end = at; end < Math.min(text.length, at + 1000); end += 1) {
    if (text[end] === "\\") end += 1;
    else if (text[end] === "[") depth += 1;
    else if (text[end] === "]" && --depth === 0) {
      const rest = /^\(\s*<?((?:[^\s()<>]|\([^\s()<>]*\))+)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(
        text.slice(end + 1, end + 2050),
      );
      return rest && { label: text.slice(at + 1, end), address: rest[1], end: end + 1 + rest[0].length };
    }
  }
  return null;
}

function angle(text, at, tools) {
  if (tools.inLink || tools.find(">", at) < 0) return 0;
  const match = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/i.exec(text.slice(at, at + 2050));
  if (!match) return 0;
  tools.push(linkNode(match[1], [match[1]]));
  return at + match[0].length;
}

function bareLink(text, at, tools) {
  if (tools.inLink || !/^https?:\/\//.test(text.slice(at, at + 8)) || /\w/.test(text[at - 1] ?? "")) return 0;
  const address = /^https?:\/\/[^\s<>"'`|\\^{}]+/.exec(text.slice(at, at + 2050))?.[0].replace(/[.,;:!?*_~]+$/, "");
  const trimmed = address && !address.includes("(") ? address.replace(/[)\]]+$/, "") : address;
  if (!trimmed || trimmed.length < 10) return 0;
  tools.push(linkNode(trimmed, [trimmed]));
  return at + trimmed.length;
}

const BLANK = /^[\s]?$/u;
const PUNCTUATION = /^[\p{P}\p{S}]$/u;

function marks(text, at, { push }) {
  const char = text[at];
  let end = at;
  while (text[end] === char) end += 1;
  const count = end - at;
  if ((char === "~" && count !== 2) || count > MAX_RUN) {
    push(text.slice(at, end));
    return end;
  }
  const before = text[at - 1] ?? "";
  const after = text[end] ?? "";
  const left = !BLANK.test(after) && (!PUNCTUATION.test(after) || BLANK.test(before) || PUNCTUATION.test(before));
  const right = !BLANK.test(before) && (!PUNCTUATION.test(before) || BLANK.test(after) || PUNCTUATION.test(after));
  const opens = char === "_" ? left && (!right || PUNCTUATION.test(before)) : left;
  const closes = char === "_" ? right && (!left || PUNCTUATION.test(after)) : right;
  push({ mark: char, count, opens, closes });
  return end;
}

function emphasised(pieces) {
  const stack = [];
  const openers = { "*": 0, _: 0, "~": 0 };
  const asText = (piece) => (piece.mark ? piece.mark.repeat(piece.count) : piece);
  for (const piece of pieces) {
    if (!piece.mark) {
      stack.push(piece);
      continue;
    }
    let count = piece.count;
    while (piece.closes && count > 0 && openers[piece.mark] > 0) {
      let open = stack.length - 1;
      while (stack[open].mark !== piece.mark) open -= 1;
      const inside = stack.splice(open + 1);
      for (const one of inside) if (one.mark) openers[one.mark] -= 1;
      const opener = stack[open];
      const width = Math.min(2, count, opener.count);
      opener.count -= width;
      count -= width;
      if (opener.count === 0) {
        stack.pop();
        openers[piece.mark] -= 1;
      }
      const tag = width === 1 ? "em" : piece.mark === "~" ? "del" : "strong";
      stack.push({ tag, children: joined(inside.map(asText)) });
    }
    if (count > 0 && piece.opens && openers["*"] + openers._ + openers["~"] < MAX_OPEN) {
      stack.push({ ...piece, count });
      openers[piece.mark] += 1;
    } else if (count > 0) {
      stack.push(piece.mark.repeat(count));
    }
  }
  return joined(stack.map(asText));
}

function joined(nodes) {
  const found = [];
  for (const node of nodes) {
    if (typeof node === "string" && typeof found.at(-1) === "string") found[found.length - 1] += node;
    else found.push(node);
  }
  return found;
}
