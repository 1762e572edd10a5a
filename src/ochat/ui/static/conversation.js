// What a conversation is, and what is asked, kept, exported and imported of it. Pure.
//
// Messages form a tree: a message has a parent, and its siblings are other versions: regenerated, edited, side by side, or written
// in another tab. So nothing that was said is ever overwritten. The conversation on screen is the path to `leaf`.
//
// A message: {id, conversation, parent, role, content, created} and of a reply {model, condition, system, finish, error, speed, group,
// vote, editedFrom}. Replies of one `group` were asked for together. `vote` is "chosen" or "rejected".

export const CHOSEN = "chosen";
export const REJECTED = "rejected";
const MAX_TITLE = 60;
const ROLES = ["user", "assistant"];

let lastTime = 0;
// Milliseconds, never the same twice, so that siblings have an order.
export function now() {
  lastTime = Math.max(Date.now(), lastTime + 1);
  return lastTime;
}

// crypto.randomUUID is for https and localhost only.
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// `like` comes from the browser's storage, where another page of this host or an older version may have left anything.
export function newConversation(like) {
  const kept = like && typeof like === "object" ? like : {};
  const settings = Object.keys(SETTINGS).map((name) => [name, Number.isFinite(kept.settings?.[name]) ? kept.settings[name] : null]);
  const lanes = Array.isArray(kept.lanes) ? kept.lanes.filter((lane) => lane && typeof lane === "object") : [];
  const time = now();
  return {
    id: newId(),
    title: "",
    created: time,
    updated: time,
    leaf: null,
    system: typeof kept.system === "string" ? kept.system : "",
    settings: Object.fromEntries(settings),
    lanes: lanes.length ? lanes : [{}],
  };
}

// A conversation as the browser kept it, made whole; and of its messages those that can be shown, by their ids.
export function keptConversation(kept) {
  const { id, title, created, updated, leaf = null } = kept;
  const time = Number.isFinite(updated) ? updated : 0;
  return { ...newConversation(kept), id, title: typeof title === "string" && title ? title : "New conversation", created, updated: time, leaf };
}

export function keptMessages(kept) {
  const whole = kept.filter(({ role, content }) => ROLES.includes(role) && typeof content === "string");
  return new Map(whole.map((one) => [one.id, one]));
}

export function newMessage(conversation, parent, role, content, more = {}) {
  return { id: newId(), conversation: conversation.id, parent, role, content, created: now(), ...more };
}

export function titleOf(text) {
  const line = text.trim().split("\n")[0].replace(/\s+/g, " ");
  return Array.from(line).length > MAX_TITLE
    ? `${Array.from(line)
        .slice(0, MAX_TITLE - 1)
        .join("")}…`
    : line || "New conversation";
}

export function pathTo(messages, leaf) {
  const found = new Set(); // none twice, or a circle that somebody made would have no end
  for (let at = messages.get(leaf); at && !found.has(at); at = messages.get(at.parent)) found.add(at);
  return [...found].reverse();
}

export function childrenOf(messages, parent) {
  return [...messages.values()].filter((one) => one.parent === parent).sort((a, b) => a.created - b.created);
}

// The versions of what follows a message: each a list of one message, or of the replies that were asked for together.
export function versionsAfter(messages, parent) {
  const found = [];
  for (const child of childrenOf(messages, parent)) {
    const together = child.group && found.find(([first]) => first.group === child.group);
    if (together) together.push(child);
    else found.push([child]);
  }
  return found;
}

// The end of the newest branch through a message; of replies side by side, the one that was voted for.
export function newestLeaf(messages, id) {
  for (;;) {
    const next = versionsAfter(messages, id).at(-1);
    if (!next) return id;
    id = (next.find((one) => childrenOf(messages, one.id).length) ?? next.find((one) => one.vote === CHOSEN) ?? next[0]).id;
  }
}

// Replies that failed before their first word aren't part of what is said.
export function requestMessages(path, system) {
  const said = path.filter((one) => one.role !== "assistant" || one.content).map(({ role, content }) => ({ role, content }));
  return system ? [{ role: "system", content: system }, ...said] : said;
}

const SETTINGS = { temperature: [0, 2], top_p: [0, 1], max_tokens: [1, Infinity], seed: [0, Infinity] };

// What was typed for a setting -> a number, or null where it's left to the server. Throws an Error that says what would do.
export function readSetting(name, typed) {
  const [least, most] = SETTINGS[name];
  if (!typed.trim()) return null;
  const value = Number(typed);
  const whole = name === "max_tokens" || name === "seed";
  if (Number.isNaN(value) || value < least || value > most || (whole && !Number.isInteger(value))) {
    throw new Error(
      `${name} is ${typed}. Give ${whole ? "a whole number" : "a number"} ${most === Infinity ? `from ${least}` : `from ${least} to ${most}`}, or nothing.`,
    );
  }
  return value;
}

export function chatRequest({ model, condition }, messages, settings) {
  const given = Object.entries(settings ?? {}).filter(([, value]) => value !== null && value !== undefined);
  return {
    model,
    ...(condition ? { condition } : {}),
    messages,
    ...Object.fromEntries(given),
    stream: true,
    stream_options: { include_usage: true },
  };
}

// The same conversation, to be told its tokens.
export function tokenizeRequest({ model, condition }, messages) {
  return { model, ...(condition ? { condition } : {}), messages, add_generation_prompt: true, return_token_strs: true };
}

// A server lists a model under each of its names. One of each is enough.
export function distinctModels(listed) {
  const seen = new Set();
  return listed
    .filter(({ id, root }) => {
      if (typeof id !== "string") return false;
      const known = root && root !== id && seen.has(root);
      if (root && root !== id) seen.add(root);
      return !known;
    })
    .map(({ id }) => id);
}

// The replies of a group after a vote for one (`best` its id), or one judgement of all. A second same vote takes it back.
export function voted(group, best, verdict) {
  const votes = group.map((one) => (best ? (one.id === best ? CHOSEN : REJECTED) : verdict));
  const same = group.every((one, i) => one.vote === votes[i]);
  return group.map((one, i) => ({ ...one, vote: same ? null : votes[i] }));
}

// A reply is good or poor by its vote; an edited one is poor, and its edited version good.
export function judgement(messages, reply) {
  if (reply.vote) return reply.vote;
  if ([...messages.values()].some((one) => one.editedFrom === reply.id)) return REJECTED;
  return reply.editedFrom ? CHOSEN : null;
}

// Export. Rows are objects; `lines` makes a file of them.
export const lines = (rows) => rows.map((one) => `${JSON.stringify(one)}\n`).join("");

const said = (path) => path.filter((one) => one.content).map(({ role, content }) => ({ role, content }));

export function ourRow(conversation, path) {
  const conditions = new Set(path.filter((one) => one.role === "assistant").map((one) => one.condition ?? ""));
  const condition = conditions.size === 1 ? [...conditions][0] : "";
  return {
    items: said(path),
    ...(condition ? { condition } : {}),
    ...(conversation.system ? { system: conversation.system } : {}),
  };
}

export function openaiRow(conversation, path) {
  return { messages: requestMessages(said(path), conversation.system) };
}

// Rows of what was judged, for C-RLFT: the reply is learned from, what stands before it isn't. `classes` maps a verdict to its
// {condition, weight}.
export function judgedRows(conversation, messages, classes) {
  const replies = [...messages.values()]
    .filter((one) => one.role === "assistant" && one.content)
    .sort((a, b) => a.created - b.created);
  return replies.flatMap((reply) => {
    const verdict = judgement(messages, reply);
    if (!verdict) return [];
    const context = said(pathTo(messages, reply.parent)).map((one) => ({ ...one, weight: 0 }));
    const { condition, weight } = classes[verdict];
    const items = [...context, { role: "assistant", content: reply.content, weight }];
    const system = reply.system ?? conversation.system; // it may have been changed since
    return [{ items, condition, ...(system ? { system } : {}), class: verdict }];
  });
}

// The conditions that good and poor replies get when nobody says otherwise.
export function usualClasses(known) {
  return {
    [CHOSEN]: { condition: known?.default || CHOSEN, weight: 1 },
    [REJECTED]: { condition: known?.data.some(({ id }) => id === "GPT3") ? "GPT3" : REJECTED, weight: 0.1 },
  };
}

// Import: our rows or OpenAI's, as JSON lines, an array, or one object -> [{system, messages: [{role, content}], condition}]. All of it or, by an
// Error that names the place, nothing.
export function readImport(text) {
  const rows = parseRows(text.replace(/^\ufeff/, ""));
  if (!rows.length) throw new Error("The file is empty. Give one conversation a line, as JSON.");
  return rows.map(([place, row]) => readRow(row, place));
}

function parseRows(text) {
  try {
    const whole = JSON.parse(text);
    if (!Array.isArray(whole)) return [["The file", whole]];
    if (whole.length && whole.every((one) => one && typeof one === "object" && "role" in one))
      return [["The file", { messages: whole }]];
    return whole.map((row, i) => [`Row ${i + 1}`, row]);
  } catch {
    return text
      .split("\n")
      .map((line, i) => [`Line ${i + 1}`, line])
      .filter(([, line]) => line.trim())
      .map(([place, line]) => {
        try {
          return [place, JSON.parse(line)];
        } catch {
          throw new Error(`${place} isn't JSON. Give one conversation a line.`);
        }
      });
  }
}

function readRow(row, place) {
  const listed = row?.items ?? row?.messages;
  if (!Array.isArray(listed) || !listed.length)
    throw new Error(`${place} has neither \`items\` nor \`messages\`. Give a list of {"role", "content"}.`);
  const messages = listed.map((one, i) => {
    const content =
      Array.isArray(one?.content) && one.content.every((part) => part?.type === "text")
        ? one.content.map((part) => part.text).join("")
        : one?.content;
    if (typeof content !== "string") throw new Error(`${place}: message ${i + 1} has no text. Only text can be imported.`);
    if (!ROLES.includes(one.role) && (one.role !== "system" || i > 0)) {
      throw new Error(
        `${place}: message ${i + 1} has the role ${JSON.stringify(one.role)}. Use user and assistant, and system for the first.`,
      );
    }
    return { role: one.role, content };
  });
  const [first, ...rest] = messages;
  const system = typeof row.system === "string" ? row.system : "";
  const condition = typeof row.condition === "string" && row.condition ? row.condition : null;
  return first.role === "system" ? { system: first.content, messages: rest, condition } : { system, messages, condition };
}
