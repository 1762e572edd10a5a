// The page: what is on screen, and what a click does.

import {
  CHOSEN,
  REJECTED,
  chatRequest,
  distinctModels,
  judgedRows,
  keptConversation,
  keptMessages,
  lines,
  newConversation,
  newMessage,
  newestLeaf,
  now,
  openaiRow,
  ourRow,
  pathTo,
  readImport,
  readSetting,
  requestMessages,
  titleOf,
  tokenizeRequest,
  usualClasses,
  voted,
} from "./conversation.js";
import { ask, question } from "./dialogs.js";
import { announce, copyButton, direction, h, icon, iconButton } from "./dom.js";
import { showMessages, showReply } from "./messages.js";
import { ServerProblem, getJSON, postJSON, streamChat } from "./server.js";
import { key, openStore, remember, remembered } from "./store.js";
import { speed } from "./stream.js";
import { readTokens } from "./tokens.js";

const byId = (id) => document.getElementById(id);
const LOST_AFTER = 5000; // ms without a word of a reply that isn't complete: the tab that asked for it is gone
const SAVE_EVERY = 1000; // ms, of a reply that is streaming
const MAX_LANES = 4;

let store;
let notKept = ""; // why there's no store
let unreached = false; // whether the notice says that the server can't be used
let conversations = []; // newest first
let current = newConversation(remembered("like"));
let messages = new Map(); // of the current conversation
const open = new Map(); // conversation id -> messages, of those with replies that are streaming
const live = new Map(); // message id -> AbortController
let models = [];
let known = null; // what /v1/conditions says; null where the server doesn't have it
let editing = null;
let waiting = []; // what goes on once there is a key
let inspected = null; // null: closed; else {message} or {message: null} for what would be sent next

const view = {
  isLive: (message) => live.has(message.id),
  isLost: (message) =>
    message.role === "assistant" &&
    !message.finish &&
    !message.error &&
    !live.has(message.id) &&
    Date.now() - (message.saved ?? message.created) > LOST_AFTER,
  get editing() {
    return editing;
  },
};
const isBusy = () => [...live.keys()].some((id) => messages.has(id));

// -- what is on screen

function show() {
  byId("change-key").hidden = !key.get();
  byId("title").textContent = current.title || "New conversation";
  document.title = current.title ? `${current.title} · ochat` : "ochat";
  showConversations();
  showPath();
  showLanes();
}

function showPath() {
  const place = byId("path");
  if (current.leaf) {
    place.querySelector(".welcome")?.remove();
    showMessages(place, current, messages, view, acts);
  } else {
    place.replaceChildren(welcome());
  }
  showSend();
}

// Who reads the end goes on seeing it, however the text above grows, until they scroll up. Messages that were never on screen have no
// height yet.
let follows = true;

function showEnd() {
  follows = true;
  byId("messages").scrollTop = byId("messages").scrollHeight;
}

function followEnd() {
  const place = byId("messages");
  let top = 0;
  place.addEventListener("scroll", () => {
    const isAtEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 80;
    follows = isAtEnd || (follows && place.scrollTop >= top); // the text may have grown since it was scrolled to its end
    top = place.scrollTop;
  });
  new ResizeObserver(() => follows && showEnd()).observe(byId("path"));
}

function welcome() {
  const about = known
    ? "The condition says which kind of answer you ask for. Put two side by side to see what it does, and vote for the better one: votes become training data."
    : "Put two models side by side, and vote for the better reply: votes become training data.";
  return h("div", { class: "welcome" }, h("h2", {}, "What would you like to ask?"), h("p", {}, about));
}

function showSend() {
  const stops = isBusy();
  const button = stops
    ? h(
        "button",
        { type: "button", id: "send", class: "stop", title: "Stop (Esc)", "aria-label": "Stop", onclick: () => stop() },
        icon("stop"),
      )
    : h("button", { type: "submit", id: "send", title: "Send (Enter)", "aria-label": "Send" }, icon("send"));
  const before = byId("send");
  if (before?.className === button.className) return;
  const focused = document.activeElement === before;
  byId("send-place").replaceChildren(button);
  if (focused) button.focus();
}

let listed = "";

function showConversations() {
  const state = JSON.stringify([current.id, conversations.map(({ id, title }) => [id, title])]);
  if (state === listed) return; // made anew it would lose the focus
  listed = state;
  const items = conversations.map((one) => {
    const isCurrent = one.id === current.id;
    const openIt = h(
      "button",
      {
        type: "button",
        class: "open",
        dir: "auto",
        title: one.title,
        "aria-current": isCurrent ? "page" : null,
        onclick: () => openConversation(one.id),
      },
      one.title,
    );
    return h(
      "li",
      { class: isCurrent ? "current" : null },
      openIt,
      iconButton("edit", `Rename ${one.title}`, () => rename(one)),
      iconButton("trash", `Delete ${one.title}`, () => remove(one)),
    );
  });
  byId("conversations").replaceChildren(...items);
}

function lanes() {
  const usual = { model: models[0], condition: known ? known.default : undefined };
  return current.lanes.map(({ model, condition }) => ({
    model: models.includes(model) ? model : usual.model,
    condition: known?.data.some(({ id }) => id === condition) ? condition : usual.condition,
  }));
}

function showLanes() {
  const given = lanes();
  const choose = (i, name, label, values, value) =>
    h(
      "select",
      {
        class: name,
        "aria-label": given.length > 1 ? `${label} ${i + 1}` : label,
        onchange: ({ target }) => {
          setLanes(given.map((lane, j) => (i === j ? { ...lane, [name]: target.value } : lane)));
          byId("lanes").querySelectorAll(`.${name}`)[i].focus();
        },
      },
      values.map((one) => h("option", { value: one, selected: one === value }, one)),
    );
  const hasChoice = models.length > 1 || known;
  const made = !hasChoice
    ? []
    : given.map((lane, i) =>
        h(
          "span",
          { class: "lane" },
          models.length > 1 ? choose(i, "model", "Model", models, lane.model) : null,
          known
            ? choose(
                i,
                "condition",
                "Condition",
                known.data.map(({ id }) => id),
                lane.condition,
              )
            : null,
          given.length > 1
            ? iconButton("close", `Leave out reply ${i + 1}`, () => {
                setLanes(given.filter((_, j) => j !== i));
                byId("add-lane").focus();
              })
            : null,
        ),
      );
  const addLane = () => {
    setLanes([...given, another(given)]);
    [...byId("lanes").querySelectorAll("select")].at(-1).focus();
  };
  const add =
    given.length < MAX_LANES &&
    (models.length > 1 || known?.data.length > 1) &&
    h(
      "button",
      { type: "button", class: "quiet", id: "add-lane", onclick: addLane },
      icon("compare"),
      given.length > 1 ? "One more" : "Side by side",
    );
  byId("lanes").replaceChildren(...made, ...(add ? [add] : []));
}

// A lane that isn't there yet, if there is any.
function another(given) {
  const all = models.flatMap((model) => (known ? known.data.map(({ id }) => ({ model, condition: id })) : [{ model }]));
  const sameModel = all.filter(({ model }) => model === given.at(-1).model);
  const fresh = (lane) => !given.some((one) => one.model === lane.model && one.condition === lane.condition);
  return [...sameModel, ...all].find(fresh) ?? given.at(-1);
}

function setLanes(given) {
  current.lanes = given;
  keepLike();
  if (current.leaf) save(current, []);
  showLanes();
  refreshInspector();
}

const keepLike = () => remember("like", { system: current.system, settings: current.settings, lanes: current.lanes });

function notice(text, label, act) {
  const place = byId("notice");
  place.hidden = !text;
  place.replaceChildren(
    ...(text
      ? [
          h("span", {}, text),
          act ? h("button", { type: "button", onclick: act }, label) : iconButton("close", "Close", () => notice("")),
        ]
      : []),
  );
}

// -- keeping

async function save(conversation, changed) {
  for (const message of changed) if (message.role === "assistant") message.saved = Date.now();
  try {
    await store?.save([conversation ?? []].flat(), changed);
  } catch (error) {
    notice(`This browser doesn't keep the conversation (${error.message}). Export it before you close the page.`);
  }
}

async function saveReply(reply) {
  if (conversations.some(({ id }) => id === reply.conversation)) await save(null, [reply]); // else it was deleted
}

async function openConversation(id) {
  if (id !== current.id) {
    current = conversations.find((one) => one.id === id);
    messages = open.get(id) ?? keptMessages(await store.messages(id));
    editing = null;
    byId("path").replaceChildren();
  }
  closeSidebar();
  show();
  refreshInspector();
  showEnd();
  focusPrompt();
  setTimeout(showPath, LOST_AFTER + 100); // a reply may turn out to be lost
}

function startConversation() {
  current = newConversation(remembered("like") ?? current);
  messages = new Map();
  editing = null;
  byId("path").replaceChildren();
  closeSidebar();
  show();
  refreshInspector();
  focusPrompt();
}

// Not where that opens a keyboard over half of the screen.
function focusPrompt() {
  if (!matchMedia("(pointer: coarse)").matches) byId("prompt").focus();
}

// Another tab has changed a conversation. Replies of both are kept; this tab stays where it is, or follows where it was the end.
async function changedElsewhere(id) {
  conversations = await keptConversations();
  const changed = conversations.find((one) => one.id === id);
  if (id === current.id) {
    if (!changed) {
      stop();
      startConversation();
      notice("The conversation was deleted in another tab.");
      return;
    }
    const leaf = current.leaf;
    for (const one of keptMessages(await store.messages(id)).values()) if (!live.has(one.id)) messages.set(one.id, one);
    Object.assign(current, changed, {
      leaf: pathTo(messages, changed.leaf).some((one) => one.id === leaf) ? changed.leaf : leaf,
    });
    conversations = conversations.map((one) => (one.id === id ? current : one));
    showPath();
    byId("title").textContent = current.title;
  }
  showConversations();
}

const keptConversations = async () => newestFirst((await store.conversations()).map(keptConversation));
const newestFirst = (all) => all.sort((a, b) => b.updated - a.updated);

async function rename(conversation) {
  const title = await question("Rename the conversation", "Rename", conversation.title);
  if (!title?.trim()) return;
  conversation.title = title.trim();
  await save(conversation, []);
  show();
}

async function remove(conversation) {
  if ((await question(`Delete “${conversation.title}”?`, "Delete")) === null) return;
  stop(conversation.id === current.id ? messages : (open.get(conversation.id) ?? new Map()));
  await store?.remove(conversation.id);
  conversations = conversations.filter((one) => one.id !== conversation.id);
  if (conversation.id === current.id) startConversation();
  else showConversations();
}

// -- asking

async function send(text) {
  if (!text.trim() || isBusy()) return;
  const conversation = current;
  if (!conversation.title) conversation.title = titleOf(text);
  const message = newMessage(conversation, conversation.leaf, "user", text);
  messages.set(message.id, message);
  await askAfter(message);
}

// Ask for a reply to the user's message, one of each lane.
async function askAfter(message, given = lanes()) {
  const conversation = current;
  const group = given.length > 1 ? message.id + now() : null;
  const replies = given.map((lane) =>
    newMessage(conversation, message.id, "assistant", "", { ...lane, model: lane.model ?? models[0], group }),
  );
  for (const one of replies) messages.set(one.id, one);
  conversation.leaf = replies[0].id;
  conversation.updated = now();
  conversations = newestFirst([conversation, ...conversations.filter((one) => one.id !== conversation.id)]);
  open.set(conversation.id, messages);
  for (const one of replies) live.set(one.id, new AbortController());
  const saved = save(conversation, [message, ...replies]);
  show();
  showEnd();
  await Promise.all([saved, ...replies.map((one) => generate(conversation, messages, one))]);
}

// Fill the reply. `all` are the conversation's messages, which may leave the screen meanwhile.
async function generate(conversation, all, reply) {
  const control = live.get(reply.id) ?? new AbortController();
  live.set(reply.id, control);
  Object.assign(reply, { content: "", error: null, finish: null, speed: null, system: conversation.system });
  const asked = performance.now() / 1000;
  let first = null;
  let last = null;
  let usage = null;
  let painting = false;
  // A long reply takes long to paint; three times that are left to the reader's clicks and keys.
  const paint = () => {
    if (!live.has(reply.id)) return;
    const began = performance.now();
    const { content } = reply;
    showReply(reply);
    setTimeout(
      () => (reply.content === content ? (painting = false) : requestAnimationFrame(paint)),
      3 * (performance.now() - began),
    );
  };
  let savedAt = 0;
  try {
    const said = requestMessages(pathTo(all, reply.parent), conversation.system);
    await streamChat(chatRequest(reply, said, conversation.settings), control.signal, (soFar) => {
      if (soFar.content !== reply.content) {
        last = performance.now() / 1000;
        first ??= last;
      }
      reply.content = soFar.content;
      reply.finish = soFar.finish;
      reply.condition = soFar.condition ?? reply.condition;
      usage = soFar.usage;
      if (!painting) {
        painting = true;
        requestAnimationFrame(paint);
      }
      if (Date.now() - savedAt > SAVE_EVERY) {
        savedAt = Date.now();
        saveReply(reply);
      }
    });
    reply.finish ??= "stop";
  } catch (error) {
    if (error.name === "AbortError") reply.finish = "stopped";
    else if (error instanceof ServerProblem) reply.error = error.told;
    else throw error;
  } finally {
    reply.speed = speed(usage, asked, first, last);
    live.delete(reply.id);
    if (store && ![...live.keys()].some((id) => all.has(id))) open.delete(conversation.id);
    await saveReply(reply);
  }
  if (messages === all) showPath();
  if (reply.error?.kind === "key") askForKey(reply.error.detail, () => retry(reply));
  else if (!live.size) announce(reply.error ? reply.error.title : "The reply is complete.");
}

function stop(all = messages) {
  for (const [id, control] of live) if (all.has(id)) control.abort();
}

async function retry(reply) {
  if (reply.error?.kind === "key" && !key.get()) return askForKey("", () => retry(reply));
  if (live.has(reply.id)) return;
  const strange = !models.length || reply.error?.kind === "unknown"; // another server may have come in its place
  if (strange && !(await meetServer(() => retry(reply)))) return;
  if (!models.includes(reply.model)) reply.model = models[0];
  live.set(reply.id, new AbortController());
  open.set(current.id, messages);
  const running = generate(current, messages, reply);
  showPath();
  await running;
}

const BUSY = "A reply is still coming. Stop it first (Esc), or wait for its end.";

const acts = {
  retry,
  regenerate: (reply) => {
    const asked = messages.get(reply.parent);
    if (isBusy()) notice(BUSY);
    else askAfter(asked);
  },
  select(id) {
    current.leaf = newestLeaf(messages, id);
    save(current, []);
    showPath();
    refreshInspector();
  },
  edit(id) {
    editing = id;
    showPath();
  },
  async edited(message, text) {
    if (isBusy()) return notice(BUSY);
    editing = null;
    if (!text.trim() || (text === message.content && message.role === "assistant")) return showPath();
    const { role, parent, model, condition, system } = message;
    const version = newMessage(
      current,
      parent,
      role,
      text,
      role === "assistant" ? { model, condition, system, finish: "stop", editedFrom: message.id } : {},
    );
    messages.set(version.id, version);
    if (role === "user") return askAfter(version);
    current.leaf = version.id;
    await save(current, [version]);
    showPath();
  },
  async vote(group, best, verdict) {
    const changed = voted(group, best, verdict);
    for (const one of changed) messages.set(one.id, one);
    if (best && changed.some((one) => one.vote) && !pathTo(messages, current.leaf).some((one) => one.id === best))
      current.leaf = newestLeaf(messages, best);
    await save(current, changed);
    showPath();
    announce(changed[0].vote ? "Vote kept" : "Vote taken back");
  },
  inspect: (message) => inspect({ message }),
};

// -- what the model sees

async function inspect(what) {
  inspected = what;
  const place = byId("inspector");
  place.hidden = false;
  document.body.classList.add("inspecting");
  const { lane, said, isNext } = promptOf(what.message);
  const head = h("div", { class: "head" }, h("h2", {}, "What the model sees"), iconButton("close", "Close", closeInspector));
  const about = h(
    "p",
    { class: "facts" },
    isNext ? "The prompt of the next reply" : what.message ? "The prompt of this reply" : "The prompt of the last reply",
    lane.condition ? ", under " : "",
    lane.condition ? h("span", { class: "condition" }, lane.condition) : "",
  );
  place.replaceChildren(head, about);
  if (!said.some(({ role }) => role === "user")) return place.append(h("p", {}, "Nothing yet: write a message."));
  try {
    const [read, most] = await postJSON("tokenize", tokenizeRequest(lane, said), (given) => [
      readTokens(given.tokens, given.token_strs),
      Number.isFinite(given.max_model_len) ? ` of ${given.max_model_len}` : "",
    ]);
    if (inspected !== what) return;
    const pieces = read.map(({ id, text, control }, i) =>
      h("span", { class: control ? "token control" : i % 2 ? "token odd" : "token", title: String(id) }, text || "�"),
    );
    const text = () => read.map((one) => one.text).join("");
    const ids = read.map(({ id }) => id);
    place.append(
      h("p", { class: "facts" }, `${read.length}${most} tokens · control tokens are marked · point at a token for its id`),
      h("div", { class: "actions" }, h("h3", {}, "Text"), copyButton(text, "Copy the prompt")),
      h("pre", { class: "prompt", tabindex: "0", "aria-label": "The prompt's text" }, pieces),
      h(
        "div",
        { class: "actions" },
        h("h3", {}, "Ids"),
        copyButton(() => JSON.stringify(ids), "Copy the ids"),
      ),
      h("pre", { class: "ids", tabindex: "0", "aria-label": "The prompt's ids" }, ids.join(" ")),
    );
  } catch (error) {
    if (!(error instanceof ServerProblem)) throw error;
    if (inspected !== what) return;
    const { title, detail, kind } = explained(error.told);
    const again = kind !== "unknown" && kind !== "strange" && h("button", { type: "button", onclick: () => inspect(what) }, "Try again");
    place.append(h("div", { class: "problem", role: "alert" }, h("strong", {}, title), h("p", {}, detail), again));
  }
}

const explained = (told) =>
  told.kind === "unknown" || told.kind === "strange"
    ? {
        ...told,
        title: "This server doesn't tell what its model sees.",
        detail: "It has no /tokenize, as ochat's and vLLM's have.",
      }
    : told;

// What a reply was asked with; without one, what the draft would be asked with, or else the last reply was.
function promptOf(message) {
  const path = pathTo(messages, current.leaf);
  const draft = byId("prompt").value;
  const last = path.at(-1);
  const asked = message ?? (!draft.trim() && last?.role === "assistant" ? last : null);
  if (asked) return { lane: asked, said: requestMessages(pathTo(messages, asked.parent), asked.system ?? current.system), isNext: false };
  return {
    lane: lanes()[0],
    isNext: true,
    said: [...requestMessages(path, current.system), ...(draft.trim() ? [{ role: "user", content: draft }] : [])],
  };
}

function closeInspector() {
  inspected = null;
  byId("inspector").hidden = true;
  document.body.classList.remove("inspecting");
  byId("inspect")?.focus();
}

function refreshInspector() {
  if (inspected) inspect({ message: null });
}

// Ask until the server takes the key, then go on; or until the reader gives up.
async function askForKey(detail, then) {
  if (then) waiting.push(then);
  if (byId("key").open) return;
  const given = await keyDialog("This server wants a key", key.get() ? `This key isn't right. ${detail}` : "");
  const next = waiting;
  waiting = [];
  if (given === null) return;
  const goOn = () => Promise.all(next.map((one) => one()));
  if (await meetServer(goOn)) await goOn();
}

async function changeKey() {
  if ((await keyDialog("The server's key", "")) !== null) await meetServer();
}

// Keep the key that is typed, or none where that is chosen. Returns null where the reader leaves the dialog.
async function keyDialog(title, problem) {
  const check = (given) => {
    if (!/^[!-~]+$/.test(given.get("key").trim())) throw new Error("A key has letters, digits and signs of ASCII alone. Copy it again.");
  };
  const data = await ask(
    "key",
    (form) => {
      byId("key-title").textContent = title;
      form.querySelector("[value=forget]").hidden = !key.get();
      form.querySelector(".problem").textContent = problem;
    },
    check,
  );
  if (data) key.set(byId("key").returnValue === "forget" ? "" : data.get("key").trim());
  show();
  return data;
}

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

async function settings() {
  const read = (data) => Object.fromEntries(NUMBERS.map((name) => [name, readSetting(name, data.get(name))]));
  const data = await ask(
    "settings",
    (form) => {
      form.elements.system.value = current.system;
      for (const name of NUMBERS) form.elements[name].value = current.settings[name] ?? "";
    },
    read,
  );
  if (!data) return;
  current.system = data.get("system");
  current.settings = read(data);
  keepLike();
  if (current.leaf) save(current, []);
  refreshInspector();
}

async function exportFile() {
  const usual = usualClasses(known);
  const weight = (data, name) => {
    const value = Number(data.get(`${name}-weight`));
    if (!(value >= 0 && value <= 1e6) || !data.get(`${name}-weight`).trim())
      throw new Error(`The weight is ${data.get(`${name}-weight`)}. Give a number from 0, such as 1 or 0.1.`);
    return value;
  };
  const classes = (data) =>
    Object.fromEntries(
      [CHOSEN, REJECTED].map((name) => [name, { condition: data.get(`${name}-condition`).trim(), weight: weight(data, name) }]),
    );
  const data = await ask(
    "export-dialog",
    (form) => {
      for (const [name, { condition, weight }] of Object.entries(usual)) {
        form.elements[`${name}-condition`].value = condition;
        form.elements[`${name}-weight`].value = weight;
      }
    },
    classes,
  );
  if (!data) return;
  const chosen = data.get("of") === "all" ? conversations : [current];
  const rows = [];
  for (const one of chosen) {
    const all =
      one.id === current.id
        ? messages
        : (open.get(one.id) ?? keptMessages(await store.messages(one.id)));
    const path = pathTo(all, one.leaf);
    if (data.get("as") === "judged") rows.push(...judgedRows(one, all, classes(data)));
    else if (path.some((message) => message.content)) rows.push((data.get("as") === "ours" ? ourRow : openaiRow)(one, path));
  }
  if (!rows.length)
    return notice(
      data.get("as") === "judged" ? "There is no vote and no edited answer to export yet." : "There is nothing to export yet.",
    );
  download(lines(rows), `ochat-${{ ours: "conversations", openai: "messages", judged: "votes" }[data.get("as")]}.jsonl`);
}

function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

async function importFile(file) {
  let rows;
  notice("");
  try {
    rows = readImport(new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()));
  } catch (error) {
    return notice(`${file.name} can't be imported. ${error instanceof TypeError ? "It isn't UTF-8 text." : error.message}`);
  }
  const imported = rows.map((row) => {
    const conversation = newConversation({ ...current, system: row.system });
    const made = new Map();
    for (const { role, content } of row.messages) {
      const message = newMessage(
        conversation,
        conversation.leaf,
        role,
        content,
        role === "assistant" ? { finish: "stop", condition: row.condition } : {},
      );
      made.set(message.id, message);
      conversation.leaf = message.id;
    }
    conversation.title = titleOf(row.messages.find((one) => one.role === "user")?.content ?? "");
    return { conversation, made };
  });
  const all = imported.map(({ conversation }) => conversation);
  await save(
    all,
    imported.flatMap(({ made }) => [...made.values()]),
  );
  if (!store) for (const { conversation, made } of imported) open.set(conversation.id, made);
  conversations = newestFirst([...all, ...conversations]);
  announce(`${rows.length} imported`);
  await openConversation(conversations[0].id);
}

// -- start

// Learn the models and conditions. Returns whether the server told them; where it wants a key, `then` is done once it has one.
async function meetServer(then) {
  try {
    [models, known] = await Promise.all([
      getJSON("v1/models", ({ data }) => distinctModels(data)),
      getJSON("v1/conditions", readConditions).catch(() => null),
    ]);
    if (unreached || notKept) notice(notKept); // another notice stays: it may tell of what went wrong meanwhile
    unreached = false;
    show();
    return true;
  } catch (error) {
    if (!(error instanceof ServerProblem)) throw error;
    if (error.told.kind === "key") askForKey(error.told.detail, then);
    else {
      unreached = true;
      notice(`${error.told.title} ${error.told.detail}`, "Try again", () => meetServer(then));
    }
    return false;
  }
}

// {data: [{id}], default} of a list of conditions; null where it's empty. Throws for anything else.
function readConditions({ data, default: given }) {
  if (!data.every(({ id }) => typeof id === "string")) throw new TypeError("a condition without a name");
  return data[0] ? { data, default: data.some(({ id }) => id === given) ? given : data[0].id } : null;
}

function closeSidebar() {
  document.body.classList.remove("menu");
}

function changeTheme() {
  const dark =
    (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) ===
    "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  remember("theme", document.documentElement.dataset.theme);
}

function listen() {
  followEnd();
  const field = byId("prompt");
  byId("menu-place").replaceWith(
    iconButton("menu", "Conversations", () => document.body.classList.toggle("menu"), { id: "menu" }),
  );
  byId("header-tools").append(
    h(
      "button",
      {
        type: "button",
        class: "quiet",
        id: "inspect",
        title: "What the model sees",
        onclick: () => (inspected ? closeInspector() : inspect({ message: null })),
      },
      icon("tokens"),
      h("span", {}, "What the model sees"),
    ),
    iconButton("key", "The server's key", changeKey, { id: "change-key", hidden: true }),
    iconButton("settings", "Settings", settings, { id: "open-settings" }),
    iconButton("moon", "Light or dark", changeTheme),
  );
  byId("shade").onclick = closeSidebar;
  byId("new").onclick = startConversation;
  byId("import").onclick = () => byId("file").click();
  byId("export").onclick = exportFile;
  byId("file").onchange = async ({ target }) => {
    if (target.files[0]) await importFile(target.files[0]);
    target.value = "";
  };
  byId("composer").onsubmit = (event) => {
    event.preventDefault();
    if (isBusy() || !field.value.trim()) return;
    const text = field.value;
    field.value = "";
    field.dir = "ltr";
    send(text).then(refreshInspector);
  };
  field.onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("composer").requestSubmit();
  };
  let waiting;
  field.oninput = () => {
    field.dir = direction(field.value);
    if (!inspected) return;
    clearTimeout(waiting);
    waiting = setTimeout(refreshInspector, 300);
  };
  // What nobody foresaw, such as a database that the browser closed, is told too.
  addEventListener("unhandledrejection", ({ reason }) => notice(`The page failed at this (${reason?.message}). Reload it if that happens again.`));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    if (isBusy()) stop();
    else if (document.body.classList.contains("menu")) closeSidebar();
    else if (inspected) closeInspector();
  });
}

async function start() {
  listen();
  show();
  byId("prompt").focus();
  try {
    store = await openStore(changedElsewhere);
    conversations = await keptConversations();
    showConversations();
  } catch (error) {
    notKept = `This browser keeps no conversations for this page (${error.message}). Export what you want to keep.`;
  }
  await meetServer();
}

start();
