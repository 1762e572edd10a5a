"""Mend texts that were copied from a chat page: HTML becomes Markdown, and what the page's buttons left behind goes.

The repairs are those that the original made to ShareGPT: "pythonCopy code" over a block of code becomes its fence, "Copy123
chars / 45 words" and a leading "1 / 3" go, and so do div and span tags and blocks with a button and no code.

A chat about code has HTML too, and there it's what is talked about. So only what a page's prose is made of is converted:
balanced elements such as <p>, <ul>, <table>, outside of fences and `code`, in texts without a sign of being a document or a
program (<html>, <script>, <?php, a tag in quotes, braces beside a tag), in conversations that don't speak of HTML. A text in which nothing is mended, with `a < b` and
`List<int>`, comes out byte for byte; one that is mended also loses its runs of empty lines. The step isn't on by default all
the same: in data that wasn't scraped, HTML is nearly always the answer itself."""

import re
from collections import defaultdict
from collections.abc import Callable

from ochat.conversation import Conversation
from ochat.data.clean.tally import Outcome
from ochat.errors import require

ToMarkdown = Callable[[str], str]

_FENCED = re.compile(r"^ {0,3}(?P<fence>```+|~~~+).*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_TICKED = re.compile(r"(?<!`)(?P<ticks>`+)(?!`)[^\n]+?(?<!`)(?P=ticks)(?!`)")
_BLOCK_NAMES = "p|ul|ol|li|h[1-6]|blockquote|table|pre"
_INLINE_NAMES = "b|i|em|strong|s|del|code|a"
_ATTRIBUTES = r"(?:\s+[\w:-]+(?:\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+))?)*\s*"
_TAG = re.compile(
    rf"<(?P<close>/?)(?:(?P<block>{_BLOCK_NAMES})|(?P<inline>{_INLINE_NAMES})|(?P<void>br|hr|img))(?P<rest>{_ATTRIBUTES})/?>",
    re.IGNORECASE,
)
_WRAPPER = re.compile(rf"<(?P<close>/?)(?P<name>div|span)(?P<rest>{_ATTRIBUTES})>", re.IGNORECASE)
_PROGRAM = re.compile(
    r"<(?:!doctype|html|head|body|script|style|meta|link|svg|form|input|button|select|textarea|label|nav|header|footer|section"
    r"|main|template|iframe|canvas|video|audio|option|title)\b|<[?%]|[?%]>|<!--|className=|\bon[a-z]+=[\"']"
    r"|[\"'`]\s*</?[a-z]|<[/a-z][^<>]*>\s*[\"'`]\s*[;+,.)]|[{}]\s*</?[a-z]|</?[a-z][^<>]*>\s*[{}]",
    re.IGNORECASE,
)
# In a talk about markup, tags are the subject.
_ABOUT_MARKUP = re.compile(r"\b(?:html5?|xml|css3?|jsx|tsx|react|svg|php|javascript|markdown|tags?)\b", re.IGNORECASE)
# Of a fenced block that was copied with its button: a language, the button, the code up to the closing fence.
_WITH_BUTTON = re.compile(
    r"(?P<fence>[`~]{3,})[ \t]*(?P<given>[\w+#.-]{0,20}?)[ \t]*\n?(?P<label>[\w+#./-]{0,20}?)[ \t]*Copy code[ \t]*\n?(?P<code>.*?)"
    r"\n?(?P<end>[ \t]*[`~]{3,}[ \t]*)?\Z",
    re.DOTALL,
)
# The same without a fence: the code goes on to an empty line with prose after it, or to the text's end.
_BARE_BUTTON = re.compile(
    r"^(?:(?P<label>[a-z][\w+#-]{0,15})[ \t]*\n?)?Copy code[ \t]*\n(?P<code>.+?)(?=\n\n[A-Z][a-z']* [a-z]+[^;{}=()]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_COPY_COUNT = re.compile(r"^Copy\d+ chars? / \d+ words?[ \t]*\n*", re.MULTILINE)
_PAGE_NUMBER = re.compile(r"\A\s*(\d{1,3}) / (\d{1,3})[ \t]*\n+(?=\S)")
_EMPTY_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")
# Private letters that stand for code while the rest is mended.
_HELD = re.compile("\ue000(\\d+)\ue001")


def load_converter() -> ToMarkdown:
    """HTML to Markdown, an element at a time. Raises OchatError where the library isn't installed."""
    require("markdownify", "data", "--steps markup")
    from bs4 import Tag
    from markdownify import ATX, MarkdownConverter

    def language(block: Tag) -> str:
        names = [name for tag in (block, block.code) if tag for name in tag.get_attribute_list("class") if name]
        return next((name.removeprefix("language-") for name in names if name.startswith("language-")), "")

    converter = MarkdownConverter(
        heading_style=ATX,
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        sub_symbol="<sub>",  # Markdown has no sign of its own, and x<sup>2</sup> isn't x2
        sup_symbol="<sup>",
        code_language_callback=language,
    )
    return lambda html: str(converter.convert(html))


class _Held:
    """Code taken out of a text, to be put back when the rest is mended."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def take(self, part: re.Match[str] | str) -> str:
        """The mark that stands for the code."""
        self._parts.append(part if isinstance(part, str) else part.group())
        return f"\ue000{len(self._parts) - 1}\ue001"

    def put_back(self, text: str) -> str:
        """The text with its code."""
        while _HELD.search(text):  # code may hold code: ticks in an element that became a fence
            text = _HELD.sub(lambda found: self._parts[int(found[1])], text)
        return text


def _ends_of_elements(text: str) -> dict[int, int]:
    """Where each element that has a closing tag starts, and where it ends."""
    opened: defaultdict[str, list[int]] = defaultdict(list)
    ends = {}
    for tag in _TAG.finditer(text):
        name = (tag["block"] or tag["inline"] or "").lower()
        if not tag["close"]:
            opened[name].append(tag.start())
        elif opened[name]:
            ends[opened[name].pop()] = tag.end()
    return ends


def _without_wrappers(text: str) -> str:
    """The text without its div and span tags: all where they are balanced, else those that open a line with attributes."""
    for name in ("div", "span"):
        tags = [tag for tag in _WRAPPER.finditer(text) if tag["name"].lower() == name]
        n_closing = sum(bool(tag["close"]) for tag in tags)
        if n_closing * 2 != len(tags):
            tags = [tag for tag in tags if tag["rest"].strip() and not text[: tag.start()].rpartition("\n")[2].strip()]
        for tag in reversed(tags):
            gap = "\n" if name == "div" else ""
            text = text[: tag.start()] + gap + text[tag.end() :]
    return text


def to_markdown(text: str, convert: ToMarkdown) -> str:
    """The text with the elements of a page's prose as Markdown; all else as it is."""
    out = []
    position = 0
    text = _without_wrappers(text)
    ends = _ends_of_elements(text)
    while tag := _TAG.search(text, position):
        out.append(text[position : tag.start()])
        position = tag.end()
        void = (tag["void"] or "").lower()
        if void == "br":
            out.append("\n")
            position += text.startswith("\n", position)
        elif void == "hr":
            out.append("\n\n---\n\n")
        elif void:
            out.append(convert(tag.group()))
        elif tag["close"] or (end := ends.get(tag.start())) is None:
            out.append(tag.group())
        else:
            element = convert(text[tag.start() : end]).strip("\n")
            out.append(f"\n\n{element}\n\n" if tag["block"] else element)
            position = end
    return "".join(out) + text[position:]


def mend(text: str, convert: ToMarkdown | None) -> tuple[str, tuple[str, ...]]:
    """The text without a page's traces, and what was done to it; the same text where nothing was. Without a converter its HTML
    stays."""
    if ("<" not in text and "Copy" not in text and not _PAGE_NUMBER.match(text)) or "\ue000" in text:
        return text, ()
    changes: list[str] = []
    held = _Held()

    def replace(pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str], text: str, change: str) -> str:
        new = pattern.sub(replacement, text)
        if new != text and change not in changes:
            changes.append(change)
        return new

    def fenced(found: re.Match[str]) -> str:
        block = found.group()
        button = _WITH_BUTTON.match(block.lstrip(" ")) if "Copy code" in block else None
        if not button:
            return held.take(block)
        if not button["code"].strip():
            changes.append("empty copied block removed")
            return ""
        changes.append("copied block fenced")
        language = button["label"] or button["given"]
        return held.take(f"{button['fence']}{language}\n{button['code']}\n{button['fence']}")

    def bare(found: re.Match[str]) -> str:
        return held.take(f"```{found['label'] or ''}\n{found['code'].rstrip()}\n```")

    mended = text
    numbers = _PAGE_NUMBER.match(mended)
    if numbers and 1 <= int(numbers[1]) <= int(numbers[2]) > 1:
        mended = mended[numbers.end() :]
        changes.append("page number removed")
    mended = _FENCED.sub(fenced, mended)
    mended = replace(_COPY_COUNT, lambda _: "", mended, "copy count removed")
    mended = replace(_BARE_BUTTON, bare, mended, "copied block fenced")
    mended = _TICKED.sub(held.take, mended)
    if convert and not _PROGRAM.search(mended):
        try:
            converted = to_markdown(mended, convert)
        except RecursionError:  # a thousand elements within each other; the text stays
            converted = mended
        if converted != mended and converted.strip():
            changes.append("HTML to Markdown")
            mended = converted
    if not changes:
        return text, ()
    mended = _EMPTY_LINES.sub("\n\n", mended).strip("\n")
    return held.put_back(mended), tuple(dict.fromkeys(changes))


def mended(row: Conversation, convert: ToMarkdown) -> Outcome:
    """The row with its texts mended."""
    items = []
    changes: dict[str, None] = {}
    evidence = ""
    is_about_markup = any(_ABOUT_MARKUP.search(item.content) for item in row.items)
    for item in row.items:
        content, done = mend(item.content, None if is_about_markup else convert)
        items.append(item.model_copy(update={"content": content}) if done else item)
        changes.update(dict.fromkeys(done))
        if done and not evidence:
            evidence = item.content
    if not changes:
        return Outcome((row,))
    return Outcome((row.model_copy(update={"items": tuple(items)}),), tuple(changes), evidence=evidence)
