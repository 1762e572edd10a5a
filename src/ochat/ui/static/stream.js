// The server's answers: from the bytes of a stream to a reply, and from a failure to words. Pure.

// Pieces of text of an event stream, however they are cut -> the data of each event. At the end a line feed is to be read: the last
// line may lack its own.
export class EventReader {
  #rest = "";

  read(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    return lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, ""));
  }
}

export const newReply = () => ({
  content: "",
  finish: null,
  condition: null,
  usage: null,
  done: false,
  error: null,
});

const text = (value, otherwise) => (typeof value === "string" ? value : otherwise);

// The reply after one more event. What a chunk lacks, or has of another kind, stays as it was.
export function withEvent(reply, data) {
  if (data.trim() === "[DONE]") return { ...reply, done: true };
  let chunk = null;
  try {
    chunk = JSON.parse(data);
  } catch {
    // a comment of a proxy
  }
  if (chunk === null) return reply;
  if (chunk.error) {
    const status = Number.isInteger(chunk.error.code) ? chunk.error.code : 500;
    return { ...reply, error: explain(status, JSON.stringify(chunk), null) };
  }
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  return {
    ...reply,
    content: reply.content + text(delta.content, ""),
    finish: text(choice?.finish_reason, reply.finish),
    condition: text(chunk.condition, reply.condition),
    usage: chunk.usage ?? reply.usage,
  };
}

// Tokens, time to the first one and tokens/s after it; times in seconds. Where the server doesn't count, null.
export function speed(usage, asked, first, last) {
  const count = (number) => (Number.isFinite(number) ? number : null);
  const tokens = count(usage?.completion_tokens);
  const rate = tokens > 1 && last > first ? (tokens - 1) / (last - first) : null;
  return { tokens, promptTokens: count(usage?.prompt_tokens), firstAfter: first === null ? null : first - asked, rate };
}

export function speedText({ tokens, promptTokens, firstAfter, rate }) {
  const parts = [];
  if (tokens !== null) parts.push(`${tokens} token${tokens === 1 ? "" : "s"}`);
  if (promptTokens !== null) parts.push(`prompt ${promptTokens}`);
  if (firstAfter !== null) parts.push(`first after ${firstAfter < 9.95 ? firstAfter.toFixed(2) : firstAfter.toFixed(0)} s`);
  if (rate !== null) parts.push(`${rate < 99.5 ? rate.toFixed(1) : rate.toFixed(0)} tokens/s`);
  return parts.join(" · ");
}

// A 429 is of the key's own limits or of the whole server's; the server's words tell which.
function tooMany(detail) {
  if (/\bkey\b/i.test(detail)) return "Too many requests for this key.";
  return /\b(?:busy|queue|overloaded|capacity)\b/i.test(detail) ? "The server's queue is full." : "Too many requests at the moment.";
}

const TOO_LONG = /context (length|size|window)|too long/i;

// What went wrong, as {kind, title, detail}: `detail` is the server's own words, with its numbers.
export function explain(status, body, retryAfter) {
  let detail = body;
  try {
    const parsed = JSON.parse(body);
    const error = parsed.error ?? parsed;
    const own = typeof error === "string" ? error : (error.message ?? error.detail ?? parsed.detail);
    if (typeof own === "string") detail = own;
  } catch {
    if (/^\s*</.test(body)) detail = ""; // a proxy's page
  }
  const wait = /^\d{1,9}$/.test(retryAfter ?? "") ? ` It asks to wait ${retryAfter} s.` : "";
  const said = (kind, title) => ({ kind, status, title, detail: detail.slice(0, 2000) });
  if (status === 401) return said("key", "The server wants a key, and this one isn't right.");
  if (status === 403) return said("refused", "The key doesn't allow this.");
  if (status === 429) return said("busy", `${tooMany(detail)}${wait}`);
  if (status === 503) return said("busy", `The server's queue is full, or it is starting or stopping.${wait}`);
  if (status === 502 || status === 504) return said("gone", "The server can't be reached.");
  if (status === 404) return said("unknown", "The server doesn't have this.");
  if (status === 413) return said("long", "The conversation is too large for the server.");
  if (status === 400 && TOO_LONG.test(detail)) return said("long", "The conversation is too long for the model.");
  if (status >= 400 && status < 500) return said("refused", "The server refused the request.");
  return said("failed", `The server failed (${status}).`);
}

export const unreachable = () => ({
  kind: "gone",
  status: 0,
  title: "The server can't be reached.",
  detail: "Is it running? Nothing of the conversation is lost.",
});
export const strange = () => ({
  kind: "strange",
  status: 0,
  title: "The server's answer isn't that of a server with OpenAI's API.",
  detail: "Is its address right? Mostly it ends in /v1.",
});
export const brokenOff = () => ({
  kind: "gone",
  status: 0,
  title: "The connection broke off before the reply was complete.",
  detail: "",
});
