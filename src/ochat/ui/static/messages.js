// The messages of a conversation, as elements. What a button does is the caller's (`acts`).

import { CHOSEN, REJECTED, pathTo, versionsAfter } from "./conversation.js";
import { copyButton, direction, h, icon, iconButton, showMarkdown } from "./dom.js";
import { speedText } from "./stream.js";

const made = new Map(); // id of a message or group -> {element, state}: what is as before isn't made again

// Show the path to a leaf; replies that were asked for together stand side by side.
export function showMessages(place, conversation, messages, view, acts) {
  const path = pathTo(messages, conversation.leaf);
  const elements = path.map((message) => {
    const versions = versionsAfter(messages, message.parent);
    const group = versions.find((version) => version.includes(message));
    const at = { group, number: versions.indexOf(group), versions };
    return group.length > 1 ? together(message, at, view, acts) : single(message, at, view, acts);
  });
  const ids = new Set([...messages.values()].flatMap(({ id, group }) => [id, group]));
  for (const id of made.keys()) if (!ids.has(id)) made.delete(id);
  // Only what moved is touched: replacing all would lose the reader's place.
  keepingFocus(place, () => {
    elements.forEach((element, i) => {
      if (place.children[i] !== element) place.insertBefore(element, place.children[i] ?? null);
    });
    while (place.children.length > elements.length) place.lastChild.remove();
  });
  return path;
}

// A message that is made anew has its buttons anew: who pressed one stays at it or, where it's gone, at the message's first.
function keepingFocus(place, change) {
  const before = document.activeElement;
  const at = [...place.children].findIndex((one) => one.contains(before));
  const buttons = () => [...(place.children[at]?.querySelectorAll("button:not(:disabled)") ?? [])];
  const name = (button) => button.ariaLabel ?? button.textContent;
  const same = () => buttons().filter((one) => name(one) === name(before));
  const nth = same().indexOf(before);
  change();
  if (at >= 0 && !before.isConnected) (same()[nth] ?? buttons().find((one) => one.closest("footer")))?.focus({ preventScroll: true });
}

// While a reply is streaming: its text, in the element that is there.
export function showReply(message) {
  const body = made.get(message.id)?.element.querySelector(".body");
  if (body) showMarkdown(body, message.content);
}

function remade(id, state, make) {
  const key = JSON.stringify(state);
  const known = made.get(id);
  if (known?.state === key) return known.element;
  const element = make();
  made.set(id, { element, state: key });
  return element;
}

function single(message, at, view, acts) {
  const state = [
    message,
    at.number,
    at.versions.length,
    view.isLive(message),
    view.isLost(message),
    view.editing === message.id,
  ];
  return remade(message.id, state, () => {
    const element = message.role === "user" ? userMessage(message, view, acts) : reply(message, view, acts);
    element.append(footer(message, at, view, acts));
    return element;
  });
}

function together(message, at, view, acts) {
  const state = [
    at.group,
    message.id,
    at.number,
    at.versions.length,
    at.group.map((one) => [view.isLive(one), view.isLost(one)]),
    view.editing,
  ];
  const id = message.group;
  const isLive = at.group.some(view.isLive);
  const columns = () =>
    at.group.map((one) => {
      const column = reply(one, view, acts);
      const best = one.vote === CHOSEN && at.group.some((other) => other.vote === REJECTED);
      const vote = h(
        "button",
        {
          type: "button",
          class: "vote",
          "aria-pressed": String(best),
          disabled: isLive || !one.content,
          onclick: () => acts.vote(at.group, one.id),
        },
        icon("good"),
        "Better",
      );
      const goesOn =
        one.id === message.id
          ? h("span", { class: "goes-on" }, "goes on here")
          : h("button", { type: "button", class: "quiet", onclick: () => acts.select(one.id) }, "go on here");
      column.classList.toggle("selected", one.id === message.id);
      const actions = h("div", { class: "actions" }, vote, goesOn, h("span", { class: "end" }, replyButtons(one, view, acts)));
      column.append(h("footer", {}, actions, facts(one)));
      made.set(one.id, { element: column, state: "" });
      return column;
    });
  return remade(id, state, () => {
    const all = (verdict, label, name) =>
      h(
        "button",
        {
          type: "button",
          class: "vote",
          "aria-pressed": String(at.group.every((one) => one.vote === verdict)),
          disabled: isLive || !at.group.some((one) => one.content),
          onclick: () => acts.vote(at.group, null, verdict),
        },
        icon(name),
        label,
      );
    const judge = h(
      "div",
      { class: "actions" },
      all(CHOSEN, "All good", "good"),
      all(REJECTED, "All poor", "bad"),
      versionSwitch(at, acts),
    );
    return h(
      "section",
      { class: "together", "aria-label": "Replies side by side" },
      h("div", { class: "columns" }, columns()),
      judge,
    );
  });
}

function userMessage(message, view, acts) {
  const element = h("article", { class: "message user", "aria-label": "You", "data-id": message.id });
  element.append(view.editing === message.id ? editor(message, "Send", acts) : body(message));
  return element;
}

function reply(message, view, acts) {
  const { model, condition } = message;
  const name = h(
    "h2",
    {},
    condition ? h("span", { class: "condition" }, condition) : "",
    h("span", { class: "model" }, model ?? "assistant"),
  );
  const element = h(
    "article",
    {
      class: "message assistant",
      "aria-label": `Reply${condition ? `, ${condition}` : ""}`,
      "data-id": message.id,
      "aria-busy": view.isLive(message) ? "true" : null,
    },
    name,
  );
  if (view.editing === message.id) return (element.append(editor(message, "Keep", acts)), element);
  element.append(body(message));
  const problem = message.error ?? (view.isLost(message) ? { title: "This reply was interrupted.", detail: "" } : null);
  if (problem) {
    const again = problem.kind === "key" ? "Give a key" : "Try again";
    element.append(
      h(
        "div",
        { class: "problem", role: "alert" },
        h("strong", {}, problem.title),
        problem.detail && h("p", {}, problem.detail),
        h("button", { type: "button", onclick: () => acts.retry(message) }, again),
      ),
    );
  }
  return element;
}

function body(message) {
  const element = h("div", { class: "body", dir: "auto" });
  showMarkdown(element, message.content);
  return element;
}

function editor(message, label, acts) {
  const before = made.get(message.id)?.element.querySelector(".editor textarea")?.value; // another tab changed the message's versions
  const text = before ?? message.content;
  const field = h("textarea", { value: text, rows: "3", dir: direction(text), "aria-label": "Edited text" });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") acts.edit(null);
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) acts.edited(message, field.value);
    if (event.key === "Escape" || event.key === "Enter") event.stopPropagation();
  });
  const actions = h(
    "div",
    { class: "actions" },
    h("button", { type: "button", onclick: () => acts.edit(null) }, "Cancel"),
    h("button", { type: "button", class: "primary", onclick: () => acts.edited(message, field.value) }, label),
  );
  queueMicrotask(() => field.isConnected && field.focus());
  return h("div", { class: "editor" }, field, actions);
}

function versionSwitch({ versions, number }, acts) {
  if (versions.length < 2) return null;
  const step = (by) => () => acts.select(versions[number + by][0].id);
  return h(
    "span",
    { class: "versions" },
    iconButton("left", "Earlier version", step(-1), { disabled: number === 0 }),
    `${number + 1} / ${versions.length}`,
    iconButton("right", "Later version", step(1), { disabled: number === versions.length - 1 }),
  );
}

function replyButtons(message, view, acts) {
  const idle = !view.isLive(message);
  return [
    idle && message.content && copyButton(() => message.content),
    idle && message.content && iconButton("edit", "Edit the reply", () => acts.edit(message.id)),
    idle && message.parent && iconButton("redo", "Regenerate", () => acts.regenerate(message)),
    iconButton("tokens", "What the model saw", () => acts.inspect(message)),
  ];
}

function footer(message, at, view, acts) {
  const idle = !view.isLive(message);
  if (message.role === "user") {
    return h(
      "footer",
      {},
      h(
        "div",
        { class: "actions" },
        versionSwitch(at, acts),
        copyButton(() => message.content),
        iconButton("edit", "Edit and send again", () => acts.edit(message.id)),
      ),
    );
  }
  const judge = (verdict, label, name) =>
    iconButton(name, label, () => acts.vote([message], null, verdict), { "aria-pressed": String(message.vote === verdict) });
  const votes = idle && message.content ? [judge(CHOSEN, "Good reply", "good"), judge(REJECTED, "Poor reply", "bad")] : [];
  return h(
    "footer",
    {},
    h("div", { class: "actions" }, versionSwitch(at, acts), replyButtons(message, view, acts), votes),
    facts(message),
  );
}

const ENDS = { length: "cut off at the limit of tokens", stopped: "stopped", content_filter: "cut off by the server's filter" };

function facts(message) {
  const parts = [message.editedFrom ? "edited" : "", ENDS[message.finish] ?? "", message.speed ? speedText(message.speed) : ""];
  const said = parts.filter(Boolean).join(" · ").split(" · "); // each stays on a line
  return h("p", { class: "facts" }, said.map((one, i) => [i ? " · " : "", h("span", {}, one)]).flat());
}
