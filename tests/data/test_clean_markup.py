"""Markup: what a chat page left behind goes; code, comparisons and talk about HTML stay byte for byte."""

import pytest

from ochat.conversation import Conversation, Message
from ochat.data.clean.markup import load_converter, mend, mended

CONVERT = load_converter()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>One <b>two</b></p><p>three</p>", "One **two**\n\nthree"),
        ("<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>", "- a\n- b\n  - c"),
        ("<ol><li>a</li><li>b</li></ol>", "1. a\n2. b"),
        ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "| a | b |\n| --- | --- |\n| 1 | 2 |"),
        ('<pre><code class="language-python">if a &lt; b:\n    c()\n</code></pre>', "```python\nif a < b:\n    c()\n```"),
        ("<h2>Title</h2>\nText", "## Title\n\nText"),
        ('See <a href="https://x.org/a_b">it</a>.', "See [it](https://x.org/a_b)."),
        ("one<br>two<br/>\nthree", "one\ntwo\nthree"),
        ('<div class="markdown prose"><p>Hello</p></div>', "Hello"),
        ('<div class="flex flex-col">\nHello *you*', "Hello *you*"),  # the closing tag was lost
        ('A <span class="x">word</span> here', "A word here"),
        ("70 m<sup>2</sup>, <b>that</b>", "70 m<sup>2</sup>, **that**"),
        ("<p>m<sup>2</sup></p>", "m<sup>2</sup>"),
        ("**bold** and\n\n* a\n* b\n\n<p>end</p>", "**bold** and\n\n* a\n* b\n\nend"),  # Markdown beside it stays
        ("<p>x</p>\n\n\n\n<p>y</p>", "x\n\ny"),
    ],
)
def test_a_pages_prose_becomes_markdown(text: str, expected: str) -> None:
    assert mend(text, CONVERT) == (expected, ("HTML to Markdown",))


@pytest.mark.parametrize(
    ("text", "expected", "change"),
    [
        ("```\npythonCopy codex = 1\nprint(x)\n```", "```python\nx = 1\nprint(x)\n```", "copied block fenced"),
        ("```python Copy code x = 1```", "```python\nx = 1\n```", "copied block fenced"),
        ("```\nCopy code\nls\n```", "```\nls\n```", "copied block fenced"),
        ("So:\n\n```\nc++Copy codeint a;\n```\nDone.", "So:\n\n```c++\nint a;\n```\nDone.", "copied block fenced"),
        (
            "Run\n\nbash\nCopy code\nls -l\n\ncd x\n\nThen look at it.",
            "Run\n\n```bash\nls -l\n\ncd x\n```\n\nThen look at it.",
            "",
        ),
        ("Before\n\n```\nCopy code\n```\n\nAfter", "Before\n\nAfter", "empty copied block removed"),
        ("Copy123 chars / 45 words\nHello", "Hello", "copy count removed"),
        ("1 / 3\n\nHello", "Hello", "page number removed"),
    ],
)
def test_what_a_pages_buttons_left_is_repaired(text: str, expected: str, change: str) -> None:
    assert mend(text, CONVERT) == (expected, (change or "copied block fenced",))


UNTOUCHED = [
    "if a < b and c > d: pass",
    "a <b and c> d",
    "List<int> and Map<String, List<T>> and vector<a>",
    "x << 2 >> 1; i<p; p>i",
    "Write <your name> and <user_id> here",
    "The <p> tag opens a paragraph",
    "Use <div> for a block",
    "```html\n<p>code</p>\n```\nand `<b>x</b>`",
    "    ```\n<p>not closed",
    "~~~\n<p>a</p>\n~~~",
    "<!DOCTYPE html>\n<html><body><p>x</p></body></html>",
    "<script>alert('<p>x</p>')</script>",
    'echo "<td>" . $row["name"] . "</td>";',
    "return (\n  <div>\n    <h1>{title}</h1>\n  </div>\n)",
    "<?php echo '<b>x</b>'; ?>",
    "2 / 3",
    "3 / 2\nis 1.5",
    "Copy code, then paste it",
    "a\n\n\n\nb",
    "\n leading and trailing \n\n",
    "&lt;p&gt; &amp; so on",
    "5 < 6 \ue0000\ue001 <p>x</p>",
    "<p>" * 3000,
    "<b>" * 3000 + "x" + "</b>" * 3000,
    "1" * 5000 + " / 3\nx",
    "",
]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_text_without_a_pages_traces_comes_out_byte_for_byte(text: str) -> None:
    assert mend(text, CONVERT) == (text, ())


def test_code_beside_converted_html_keeps_every_byte() -> None:
    code = "```python\nif a < b:\n\n\n\n    x = '<p>a</p>'  # *not* _this_\n```"
    text, _ = mend(f"<p>Look at <i>this</i>: `List<b>` and `</b>`</p>\n\n{code}\n\n<p>done</p>", CONVERT)
    assert text == f"Look at *this*: `List<b>` and `</b>`\n\n{code}\n\ndone"


def test_html_stays_where_it_is_what_the_talk_is_about() -> None:
    items = (Message(role="user", content="Show me HTML for a paragraph"), Message(role="assistant", content="<p>x</p>"))
    row = Conversation(items=items)
    assert mended(row, CONVERT).rows == (row,)


def test_a_rows_other_fields_stay() -> None:
    items = (Message(role="user", content="Hi"), Message(role="assistant", content="<p>x</p>", weight=0.5))
    outcome = mended(Conversation(items=items, condition="GPT4", system="<p>s</p>", class_name="expert"), CONVERT)
    (row,) = outcome.rows
    assert row == Conversation(
        items=(items[0], Message(role="assistant", content="x", weight=0.5)),
        condition="GPT4",
        system="<p>s</p>",
        class_name="expert",
    )
    assert outcome.evidence == "<p>x</p>"
