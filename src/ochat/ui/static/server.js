// Requests to the server that the page came from: paths are the page's own, so that it works under any path of a proxy.

import { key } from "./store.js";
import { EventReader, brokenOff, explain, newReply, strange, unreachable, withEvent } from "./stream.js";

// Throws what explain() tells, also where there's no answer at all.
export class ServerProblem extends Error {
  constructor(told) {
    super(told.title);
    this.told = told;
  }
}

async function ask(path, body, signal) {
  const headers = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  const post = body && {
    method: "POST",
    body: JSON.stringify(body),
    headers: { ...headers, "Content-Type": "application/json" },
  };
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { headers, cache: "no-store", signal, ...post });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerProblem(unreachable());
  }
  if (response.ok) return response;
  throw new ServerProblem(explain(response.status, await response.text().catch(() => ""), response.headers.get("Retry-After")));
}

// `read` makes of the answer what the caller needs; where it can't, the answer is another service's.
async function readJSON(response, read) {
  try {
    return read(await response.json());
  } catch {
    throw new ServerProblem(strange());
  }
}

export const getJSON = async (path, read) => readJSON(await ask(path), read);
export const postJSON = async (path, body, read) => readJSON(await ask(path, body), read);

// Calls `onReply` with the reply so far, at each piece. Returns at its end; throws ServerProblem or, when stopped, AbortError.
export async function streamChat(body, signal, onReply) {
  const response = await ask("v1/chat/completions", body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const events = new EventReader();
  let reply = newReply();
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerProblem(brokenOff());
    }
    for (const data of events.read(piece.done ? "\n" : piece.value)) reply = withEvent(reply, data);
    onReply(reply);
    if (reply.error) throw new ServerProblem(reply.error);
    if (piece.done || reply.done) break;
  }
  if (reply.done || reply.finish) return;
  const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
  throw new ServerProblem(isStream ? brokenOff() : strange());
}
