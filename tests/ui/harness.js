// What the tests call of the page's pure modules, with lists of messages where those take maps.
export * from "../../src/ochat/ui/static/conversation.js";
import * as all from "../../src/ochat/ui/static/conversation.js";
import * as stream from "../../src/ochat/ui/static/stream.js";
export { readTokens } from "../../src/ochat/ui/static/tokens.js";
export const { explain, speed, speedText } = stream;
const mapped = (list) => new Map(list.map((one) => [one.id, one]));
export const path = (list, leaf) => all.pathTo(mapped(list), leaf).map(({ id }) => id);
export const versions = (list, parent) => all.versionsAfter(mapped(list), parent).map((some) => some.map(({ id }) => id));
export const keptPath = (list, leaf) => all.pathTo(all.keptMessages(list), leaf).map(({ id }) => id);
export const newest = (list, id) => all.newestLeaf(mapped(list), id);
export const judged = (list, conversation, classes) => all.judgedRows(conversation, mapped(list), classes);
export function replyOf(pieces) {
  const reader = new stream.EventReader();
  let reply = stream.newReply();
  for (const piece of pieces) for (const data of reader.read(piece)) reply = stream.withEvent(reply, data);
  return reply;
}
