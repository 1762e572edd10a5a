"""Encode text that can never become a control token, and the control tokens themselves.

A tokenizer turns the text `<|end_of_turn|>` into the end-of-turn token, whoever wrote it. We therefore keep two private
copies: one that reads every control token as plain text, for what people write; one that knows them, for the template's own
marks. `transformers` resets that switch on every call and rebuilds some tokenizers from their class name (then blanks come
out wrong), so both copies are made by `tokenizers` from tokenizer.json as it is."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers

from ochat.errors import ModelError
from ochat.words import WordEncoder, can_cut

# Some tokenizers add runs of blanks as tokens of their own (▁ is SentencePiece's blank). Those are text, not control tokens.
_BLANKS = " \t\r\n▁"

# Where a control token's text is tried at start-up: merges with its neighbours can hide one that its own letters build.
_PLACES = ("{}", "a{}a", " {} ", "\n{}\n", "1{}1", "){}(")


class Tokenizer:
    """The two copies of one tokenizer. Safe to share between threads: nothing changes after construction."""

    def __init__(self, source: tokenizers.Tokenizer) -> None:
        """`source` becomes this object's own."""
        text = source.to_str()
        spec = json.loads(text)
        controls = [token for token in spec["added_tokens"] if token["content"].strip(_BLANKS)]
        if not all(token["special"] for token in controls):
            for token in controls:
                token["special"] = True  # only tokens marked so are read as text below
            text = json.dumps(spec)
            source = tokenizers.Tokenizer.from_str(text)
        self._control, self._text = source, tokenizers.Tokenizer.from_str(text)
        for copy in (self._control, self._text):
            copy.no_padding()
            copy.no_truncation()
        self._text.encode_special_tokens = True
        self._words = WordEncoder(self._text, spec) if can_cut(spec) else None
        self.control_tokens: dict[str, int] = {token["content"]: token["id"] for token in controls}
        self._control_ids = frozenset(self.control_tokens.values())
        self.bos: list[int] = self._control.encode("").ids
        self.vocab_size: int = max(source.get_vocab(with_added_tokens=True).values()) + 1  # rows: some tokenizers skip ids
        model = spec["model"]
        self._check(unknown={self.control_tokens.get(model.get("unk_token")), model.get("unk_id")})

    def _check(self, unknown: set[int | None]) -> None:
        # `unknown` may come out of text that the vocabulary lacks; no template uses it as a mark.
        ids = self._control_ids - unknown
        texts = [place.format(token) for token in self.control_tokens for place in _PLACES]
        for text, encoded in zip(texts, self.encode_text(texts), strict=True):
            if ids.intersection(encoded):
                raise ModelError(f"The tokenizer turns the text {text!r} into a control token. Use another tokenizer.")
        if self._control.encode("a").ids != [*self.bos, *self._control.encode("a", add_special_tokens=False).ids]:
            raise ModelError("The tokenizer adds tokens after the text. Use a tokenizer that adds a first token at most.")

    def encode_text(self, texts: Iterable[str]) -> list[list[int]]:
        """Ids of each text on its own; a control token's text gives the ids of its letters."""
        if self._words:
            return self._words.encode(texts)
        return [encoding.ids for encoding in self._text.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_marks(self, marks: Iterable[str]) -> list[list[int]]:
        """Ids of each of the template's own marks, in which control tokens are control tokens."""
        return [encoding.ids for encoding in self._control.encode_batch_fast(list(marks), add_special_tokens=False)]

    def control_ids(self, ids: Sequence[int]) -> list[int]:
        """Those of the ids that are control tokens, in their order."""
        return [id for id in ids if id in self._control_ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, control tokens shown."""
        return self._control.decode(list(ids), skip_special_tokens=False)

    def prepends_blank(self) -> bool:
        """Whether a text's first word gets a blank before it, as in SentencePiece: then `Hello` and `x Hello` share a token."""
        return [self._control.id_to_token(id) for id in self.encode_text(["a"])[0]] != ["a"]


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder. Raises ModelError where there is no readable tokenizer.json."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} has no tokenizer.json. Convert the model's tokenizer to a fast one first "
            "(transformers: `AutoTokenizer.from_pretrained(...).save_pretrained(...)`)."
        )
    try:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(path)))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:  # the Rust side raises bare Exception
        raise ModelError(f"{path} can't be read as a tokenizer ({error}). Copy it from the model again.") from error
