// The prompt as the model reads it: from the server's token strings to texts and marks. Pure.

// A conversation's own text can't hold these as one token (the server encodes it without them), so one that does is a control token.
const CONTROL = /^<\|[^|<>]+\|>$|^<\/?s>$|^<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>$/;

// GPT-2's letters for bytes, which most tokenizers write tokens in.
const BYTES = new Map();
for (let byte = 0, spare = 256; byte < 256; byte += 1) {
  const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  BYTES.set(String.fromCodePoint(printable ? byte : spare++), byte);
}

// [{id, text, control}]; the texts joined are the prompt. A letter that several tokens share is the last one's.
export function readTokens(ids, strings) {
  const sentencepiece = strings.some((one) => one.includes("▁")) && !strings.some((one) => one.includes("Ġ"));
  const decoder = new TextDecoder();
  return strings.map((string, i) => {
    if (CONTROL.test(string)) return { id: ids[i], text: string, control: true };
    const bytes = sentencepiece ? pieceBytes(string) : letterBytes(string);
    return { id: ids[i], text: decoder.decode(bytes, { stream: true }), control: false };
  });
}

function pieceBytes(string) {
  const byte = /^<0x([\dA-F]{2})>$/.exec(string);
  return byte ? Uint8Array.of(Number.parseInt(byte[1], 16)) : new TextEncoder().encode(string.replaceAll("▁", " "));
}

function letterBytes(string) {
  const bytes = Array.from(string, (letter) => BYTES.get(letter));
  return bytes.includes(undefined) ? new TextEncoder().encode(string) : Uint8Array.from(bytes);
}
