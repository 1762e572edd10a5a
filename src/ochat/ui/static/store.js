// Conversations in this browser's own database, and word to the other tabs when one changes.

const PLACE = new URL(".", document.baseURI).pathname; // pages under different paths of a host have nothing in common
const channel = new BroadcastChannel(`ochat ${PLACE}`);

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

export async function openStore(onChange) {
  const opening = indexedDB.open(`ochat ${PLACE}`, 1);
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore("conversations", { keyPath: "id" });
    opening.result.createObjectStore("messages", { keyPath: "id" }).createIndex("conversation", "conversation");
  };
  const database = await done(opening);
  channel.onmessage = ({ data }) => onChange(data);

  const write = (change) =>
    new Promise((resolve, reject) => {
      const transaction = database.transaction(["conversations", "messages"], "readwrite");
      change(transaction.objectStore("conversations"), transaction.objectStore("messages"));
      transaction.oncomplete = () => resolve();
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });

  return {
    conversations: () => done(database.transaction("conversations").objectStore("conversations").getAll()),
    messages: (id) => done(database.transaction("messages").objectStore("messages").index("conversation").getAll(id)),
    // Without a conversation, messages alone: what another tab has changed of it meanwhile stays.
    async save(changed, messages) {
      await write((conversations, all) => {
        for (const conversation of changed) conversations.put(conversation);
        for (const message of messages) all.put(message);
      });
      channel.postMessage(changed[0]?.id ?? messages[0].conversation);
    },
    async remove(id) {
      await write((conversations, messages) => {
        conversations.delete(id);
        messages.index("conversation").openKeyCursor(id).onsuccess = ({ target: { result: cursor } }) => {
          if (!cursor) return;
          messages.delete(cursor.primaryKey);
          cursor.continue();
        };
      });
      channel.postMessage(id);
    },
  };
}

// Small choices of the reader: the theme, what the last conversation was asked under. Where storage is off or full, this tab has them.
const here = new Map();

function read(place, name) {
  try {
    return here.get(name) ?? globalThis[place].getItem(`ochat ${PLACE} ${name}`);
  } catch {
    return null;
  }
}

function write(place, name, value) {
  try {
    globalThis[place].setItem(`ochat ${PLACE} ${name}`, value);
    here.delete(name);
  } catch {
    here.set(name, value);
  }
}

export function remembered(name) {
  try {
    return JSON.parse(read("localStorage", name));
  } catch {
    return null; // not what this page wrote
  }
}
export const remember = (name, value) => write("localStorage", name, JSON.stringify(value));

// The server's key: for this tab's session only.
export const key = {
  get: () => read("sessionStorage", "key") ?? "",
  set: (value) => write("sessionStorage", "key", value),
};
