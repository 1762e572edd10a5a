"""Real tokenizers here: OpenChat 3.5's and the embedded base model's. The others are toys with awkward added tokens."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors
from toys import toy_tokenizer, write_tokenizer

from ochat.errors import ModelError
from ochat.registry import MODEL_TYPES, ModelType, model_type
from ochat.tokenizer import Tokenizer, load_tokenizer

OPENCHAT = model_type("openchat_3.5")
LLAMA = model_type("openchat_3.6")

# Added tokens as people's tokenizers have them; each becomes a control token whatever it says of itself.
AWKWARD_TOKENS = {
    "not_special": [AddedToken("<tool>", special=False, normalized=False), AddedToken("word", special=False, normalized=False)],
    "normalized": [AddedToken("<Tool>", special=False, normalized=True), AddedToken("Straße", special=True, normalized=True)],
    "stripping": [AddedToken("<l>", lstrip=True, normalized=False), AddedToken("<r>", rstrip=True, special=False)],
    "single_word": [
        AddedToken("tool", single_word=True, special=False),
        AddedToken("<a b>", single_word=True, normalized=True),
    ],
    "overlapping": [AddedToken("<|a"), AddedToken("<|a|>", special=True), AddedToken("a|><|end", special=False)],
    "unicode": [
        AddedToken("<｜end▁of▁sentence｜>", special=True),
        AddedToken("é", normalized=True),
        AddedToken("🚀", special=False),
    ],
}
NORMALIZERS = {"lowercase": normalizers.Lowercase(), "nfkc": normalizers.NFKC(), "strip_accents": normalizers.StripAccents()}


def awkward(folder: Path, kind: ModelType, name: str) -> Tokenizer:
    return load_tokenizer(toy_tokenizer(folder, kind, extra=AWKWARD_TOKENS[name]))


def normalizing(folder: Path, name: str) -> Tokenizer:
    path = toy_tokenizer(folder, LLAMA, extra=AWKWARD_TOKENS["normalized"]) / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
    tokenizer.normalizer = NORMALIZERS[name]
    tokenizer.save(str(path))
    return load_tokenizer(folder)


TOKENIZERS = [
    "openchat_3.5",
    "embedded",
    *(f"{kind.name} {style}" for kind in MODEL_TYPES for style in ("bytes", "sentencepiece")),
    *(f"{kind.name} {name}" for kind in (OPENCHAT, LLAMA) for name in AWKWARD_TOKENS),
    *NORMALIZERS,
]


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    openchat: Tokenizer,
    embedded: Tokenizer,
    toy_folder: Callable[..., Path],
) -> Tokenizer:
    name = request.param
    if name == "openchat_3.5":
        return openchat
    if name == "embedded":
        return embedded
    if name in NORMALIZERS:
        return normalizing(tmp_path_factory.mktemp(name), name)
    kind, how = name.split(" ")
    if how in AWKWARD_TOKENS:
        return awkward(tmp_path_factory.mktemp(how), model_type(kind), how)
    return load_tokenizer(toy_folder(kind, how))


@pytest.fixture(scope="module")
def plain_openchat(openchat_folder: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(openchat_folder / "tokenizer.json"))


def disguises(token: str) -> list[str]:
    """The token's text, and texts that a careless reader takes for it."""
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in token)
    return [token, token.upper(), token.lower(), wide, f" {token} ", token[:-1], token[1:], token[:3] + token + token[3:]]


@given(data=st.data())
def test_text_never_becomes_a_control_token(tokenizer: Tokenizer, data: st.DataObject) -> None:
    spellings = st.sampled_from(sorted(tokenizer.control_tokens)).flatmap(lambda token: st.sampled_from(disguises(token)))
    text = "".join(data.draw(st.lists(spellings | st.text(max_size=5) | st.sampled_from(" \n▁<|>"), max_size=8)))
    (ids,) = tokenizer.encode_text([text])
    assert tokenizer.control_ids(ids) == []


def test_no_control_token_can_be_written_anywhere_in_a_text(tokenizer: Tokenizer) -> None:
    places = ("{}", "{}{}", "a{}a", " {} ", "\n{}\n", "▁{}▁", "<{}>", "0{}0", "é{}é", "\u200b{}\u200b", "I say {}, you say {}.")
    texts = [place.replace("{}", form) for token in tokenizer.control_tokens for form in disguises(token) for place in places]
    assert [text for text, ids in zip(texts, tokenizer.encode_text(texts), strict=True) if tokenizer.control_ids(ids)] == []


def test_each_control_token_is_one_mark(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.control_tokens
    assert dict(zip(tokens, tokenizer.encode_marks(tokens), strict=True)) == {token: [id] for token, id in tokens.items()}


@given(text=st.text())
def test_byte_tokens_give_back_the_text_they_were_made_from(toy_folder: Callable[..., Path], text: str) -> None:
    tokenizer = load_tokenizer(toy_folder("openchat_3.6"))
    assert tokenizer.decode(tokenizer.encode_text([text])[0]) == text


@given(text=st.text(st.characters(exclude_characters="<", codec="utf-8")))
def test_ordinary_text_is_encoded_as_by_the_tokenizer_itself(
    plain_openchat: tokenizers.Tokenizer, openchat: Tokenizer, text: str
) -> None:
    assert openchat.encode_text([text]) == [plain_openchat.encode(text, add_special_tokens=False).ids]


def test_a_token_written_by_a_person_is_its_letters(openchat: Tokenizer) -> None:
    (ids,) = openchat.encode_text(["</s>"])
    assert ids == [1867, 28713, 28767]
    assert openchat.decode(ids).strip() == "</s>"


def test_texts_are_encoded_one_by_one_and_in_order(openchat: Tokenizer) -> None:
    texts = ["Hello", "", "How are you today?", "Hello"]
    assert openchat.encode_text(texts) == [[22557], [], [1602, 460, 368, 3154, 28804], [22557]]
    assert openchat.encode_text([]) == []


def test_the_order_of_encoding_does_not_matter(openchat: Tokenizer) -> None:
    before = openchat.encode_text(["<s>"]), openchat.encode_marks(["<s>"])
    after = openchat.encode_marks(["<s>"]), openchat.encode_text(["<s>"])
    assert before == after[::-1]
    assert before[1] == [[1]]


@pytest.mark.parametrize("blanks", ["  ", "\n\n", "\t", "▁▁"])
def test_runs_of_blanks_stay_tokens_of_text(tmp_path: Path, blanks: str) -> None:
    tokenizer = load_tokenizer(toy_tokenizer(tmp_path, LLAMA, extra=[AddedToken(blanks, special=False, normalized=False)]))
    assert blanks not in tokenizer.control_tokens
    (ids,) = tokenizer.encode_text([f"a{blanks}b"])
    assert len(ids) == 3
    assert tokenizer.decode(ids) == f"a{blanks}b"


def test_padding_and_truncation_kept_in_the_file_are_not_ours(tmp_path: Path) -> None:
    path = toy_tokenizer(tmp_path, LLAMA) / "tokenizer.json"
    source = tokenizers.Tokenizer.from_file(str(path))
    plain = Tokenizer(source).encode_text(["Hello", "Hello there, all of you"])
    source.enable_padding(length=64)
    source.enable_truncation(max_length=3)
    source.save(str(path))
    assert load_tokenizer(tmp_path).encode_text(["Hello", "Hello there, all of you"]) == plain


@pytest.mark.parametrize(
    ("name", "style", "blank"),
    [("openchat_3.5", "sentencepiece", True), ("openchat_3.6", "bytes", False), ("gemma_it", "sentencepiece", False)],
)
def test_whether_a_first_word_gets_a_blank_is_the_tokenizers_own(
    toy_folder: Callable[..., Path], name: str, style: str, blank: bool
) -> None:
    assert load_tokenizer(toy_folder(name, style)).prepends_blank() is blank


def test_real_tokenizers_tell_their_blank_and_their_first_token(openchat: Tokenizer, embedded: Tokenizer) -> None:
    assert (openchat.prepends_blank(), openchat.bos, openchat.vocab_size) == (True, [1], 32002)
    assert (embedded.prepends_blank(), embedded.bos, embedded.vocab_size) == (False, [], 49152)


def test_the_vocabulary_reaches_to_the_highest_id(tmp_path: Path) -> None:
    path = toy_tokenizer(tmp_path, LLAMA) / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    spec["model"]["vocab"]["\u0100x"] = 999  # some tokenizers leave ids out
    path.write_text(json.dumps(spec), encoding="utf-8")
    assert load_tokenizer(tmp_path).vocab_size == 1000


def _adds_an_end(folder: Path) -> None:
    source = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    source.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, source.token_to_id(token)) for token in ("<s>", "</s>")]
    )
    write_tokenizer(source, folder)


def _merges_a_token(*above: tuple[str, str]) -> Callable[[Path], None]:
    """Merges that build the control token `<x>` from its letters; `above` are more merges, which come first."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        spec = json.loads(path.read_text(encoding="utf-8"))
        merges = [*above, ("<", "x"), ("<x", ">")]
        first = len(spec["model"]["vocab"]) + len(OPENCHAT.tokens)
        spec["model"]["vocab"] |= {left + right: first + number for number, (left, right) in enumerate(merges)}
        spec["model"]["merges"] = [list(merge) for merge in merges] + spec["model"]["merges"]
        path.write_text(json.dumps(spec), encoding="utf-8")
        source = tokenizers.Tokenizer.from_file(str(path))
        source.add_special_tokens([AddedToken("<x>", special=True, normalized=False)])
        write_tokenizer(source, folder)

    return change


def _whole_words(folder: Path) -> None:
    source = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "<s>": 2}, unk_token="<unk>"))
    source.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    source.add_special_tokens(["<unk>", "<s>"])
    write_tokenizer(source, folder)


def _unigram(folder: Path) -> None:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -1.0) for letter in "abs</>")]
    source = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    source.add_special_tokens(["<unk>", "</s>"])
    write_tokenizer(source, folder)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json. Convert"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), r"tokenizer\.json can't be read as a tokenizer \("),
        (
            lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff\xfe"),
            r"tokenizer\.json can't be read as a tokenizer \(",
        ),
        (_adds_an_end, r"tokenizer\.json: The tokenizer adds tokens after the text"),
        (_merges_a_token(), "turns the text '<x>' into a control token"),
        (_merges_a_token(("▁", "<")), "turns the text 'a<x>a' into a control token"),
        (_merges_a_token(("▁", "<"), ("a", "<")), r"turns the text '\\n<x>\\n' into a control token"),
        (_whole_words, "turns the text '<s>' into a control token"),
        (_unigram, "turns the text '</s>' into a control token"),
    ],
    ids=["absent", "cut", "not_utf8", "adds_an_end", "merges", "merges_inside", "merges_on_a_line", "whole_words", "unigram"],
)
def test_a_tokenizer_that_cannot_keep_the_promise_is_refused(
    tmp_path: Path, change: Callable[[Path], object], problem: str
) -> None:
    change(toy_tokenizer(tmp_path, OPENCHAT))
    with pytest.raises(ModelError, match=problem):
        load_tokenizer(tmp_path)


def test_text_that_the_vocabulary_lacks_may_be_unknown(tmp_path: Path) -> None:
    source = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), *((letter, -1.0) for letter in "abc")], unk_id=0))
    source.add_special_tokens(["<unk>", "<|end|>"])
    tokenizer = load_tokenizer(write_tokenizer(source, tmp_path))
    assert tokenizer.encode_text(["abz"]) == [[1, 2, 0]]
