"""Markdown, code and TeX become trees, from which the page makes elements."""

import time
from collections.abc import Callable
from typing import Any

import pytest

Js = Callable[..., Any]


def short(node: Any) -> str:
    """A tree in a line: em(a) for {tag: em, children: [a]}."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return "".join(map(short, node))
    return f"{node['tag']}({short(node['children'])})"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "p(plain)"),
        ("# A *b*", "h1(A em(b))"),
        ("a\nb", "p(abr()b)"),
        ("a\n\nb", "p(a)p(b)"),
        ("**a *b* c** ***d***", "p(strong(a em(b) c) em(strong(d)))"),
        ("snake_case_name _it_ 2*3*4", "p(snake_case_name em(it) 2em(3)4)"),
        ("a * b * c ~~d~~ ~e~", "p(a * b * c del(d) ~e~)"),
        ("`a *b*` ``c`d``", "p(code(a *b*) code(c`d))"),
        (r"\*a\* \\", "p(*a* \\)"),
        ("- a\n- b\n  - c\n\nd", "ul(li(a)li(bul(li(c))))p(d)"),
        ("1. a\n\n2. b\n   more", "ol(li(a)li(bbr()more))"),
        ("* a\n\n      code?\n* b", "ul(li(ap(code?))li(b))"),
        ("- [x] a\n- [ ] b", "ul(li(☑ a)li(☐ b))"),
        ("> a\n> > b", "blockquote(p(a)blockquote(p(b)))"),
        ("---", "hr()"),
        ("```py\na *b*\n  c\n```\nd", "code-block(a *b*\n  c)p(d)"),
        ("```\nnot closed yet", "code-block(not closed yet)"),
        ("- a\n  ```\n  b\n  ```", "ul(li(acode-block(b)))"),
        ("| a | b |\n|---|--:|\n| `c|` | d |\n", "table(thead(tr(th(a)th(b)))tbody(tr(td(`c)td(`))))"),
        (r"| a \| b | c |" + "\n|-|-|", "table(thead(tr(th(a | b)th(c)))tbody())"),
        ("$x_1$ and $5 or $6", "p(math(x_1) and $5 or $6)"),
        (r"\(a*b*c\) \[d\]", "p(math(a*b*c) math(d))"),
        ("$$\na\n$$\nb", "math(a)p(b)"),
        ("\\[\na\n\\]", "math(a)"),
        ("<b>a</b> <script>x</script>", "p(<b>a</b> <script>x</script>)"),
        ("[a *b*](https://x.y/z_(w)) <https://a.b>", "p(a(a em(b)) a(https://a.b))"),
        ("see https://a.b/c, ok", "p(see a(https://a.b/c), ok)"),
        ("![a](https://x.y/z.png)", "p(a(🖼 a))"),
    ],
)
def test_what_models_write_is_read(js: Js, text: str, expected: str) -> None:
    assert short(js("markdown", "markdown", text)) == expected


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "//x.y", "&#106;avascript:x"]
)
def test_an_address_that_is_no_web_page_makes_no_link(js: Js, address: str) -> None:
    for text in (f"[a]({address})", f"![a]({address})", f"<{address}>"):
        assert "a(" not in short(js("markdown", "markdown", text)).replace("(a)", "")


@pytest.mark.parametrize(
    "piece",
    [
        "*a ",
        "**",
        "[",
        "![",
        "> ",
        "- ",
        "`` ` ",
        "_a*b_c*",
        "$a ",
        "\\(",
        "<https://",
        "|a",
        "- a\n\n",
        "$$\n",
        "https://a",
        "[a](",
        "~~a",
        "1. ",
    ],
)
def test_a_hundred_thousand_letters_take_no_long_time(js: Js, piece: str) -> None:
    started = time.monotonic()
    js("markdown", "markdown", piece * (100_000 // len(piece)))
    assert time.monotonic() - started < 10  # a square of it would take minutes


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"\frac{a}{b}", "mfrac(mi(a)mi(b))"),
        (r"\frac12", "mfrac(mn(1)mn(2))"),
        (r"x_i^{2}", "msubsup(mi(x)mi(i)mn(2))"),
        (r"f'(x)", "msup(mi(f)mo(′))mo(()mi(x)mo())"),
        (r"\sqrt[3]{x}", "mroot(mi(x)mn(3))"),
        (r"\sum_{i=1}^n i", "munderover(mo(∑)mrow(mi(i)mo(=)mn(1))mi(n))mi(i)"),
        (r"\mathbb{R} \mathbf{x} \mathrm{kg}", "mi(ℝ)mi(𝐱)mi(kg)"),
        (r"\left(a\right)", "mrow(mo(()mi(a)mo()))"),
        (
            r"\begin{cases} a & b \\ c & d \end{cases}",
            "mrow(mo({)mtable(mtr(mtd(mrow(mi(a)))mtd(mrow(mi(b))))mtr(mtd(mrow(mi(c)))mtd(mrow(mi(d))))))",
        ),
        (r"\text{if } x \le 5\%", "mtext(if\u00a0)mi(x)mo(≤)mn(5)mi(%)"),
        (r"\nosuch x", r"mtext(\nosuch)mi(x)"),
    ],
)
def test_tex_becomes_mathml(js: Js, tex: str, expected: str) -> None:
    tree = js("math", "math", tex, True)
    formula, source = tree["children"][0]["children"]
    assert short(formula) == f"mrow({expected})"
    assert source["children"] == [tex]


@pytest.mark.parametrize(
    "tex", ["{", r"\frac", "}", r"\left(a", r"\begin{nosuch}a\end{nosuch}", "{" * 5000, r"\sqrt" * 3000, "a^" * 3000]
)
def test_tex_that_cannot_be_read_is_shown_as_it_is(js: Js, tex: str) -> None:
    assert js("math", "math", tex, False) == {"tag": "code", "children": [tex]}


CODE = {
    "python": ('def f(x):  # note\n    return "a\\"b" + 1.5', ["def", "return"], ["# note"], ['"a\\"b"']),
    "js": ("const a = `x${1}`; // note\n/* more */ f()", ["const"], ["// note", "/* more */"], ["`x${1}`"]),
    "c": ("#include <a>\nint main() { return 0; } // note", ["int", "return"], ["// note"], []),
    "sql": ("SELECT a FROM b -- note", ["SELECT", "FROM"], ["-- note"], []),
    "bash": ("echo $# 'a' # note", ["echo"], ["# note"], ["'a'"]),
    "json": ('{"a": [true, "b"]}', ["true"], [], ['"b"']),
    "html": ('<a href="x">t</a><!-- note -->', ["<a", ">", "</a>"], ["<!-- note -->"], ['"x"']),
    "nosuch": ("if a: # b", [], [], []),
}


@pytest.mark.parametrize("language", CODE)
def test_code_is_coloured_and_stays_the_same_text(js: Js, language: str) -> None:
    code, keywords, comments, strings = CODE[language]
    pieces = js("code", "highlight", code, language)
    assert "".join(text for _, text in pieces) == code
    for kind, expected in (("keyword", keywords), ("comment", comments), ("string", strings)):
        assert [text for name, text in pieces if name == kind] == expected


N = 60_000


@pytest.mark.parametrize(
    ("module", "name", "given"),
    [
        ("markdown", "markdown", ["|\n-" + " " * N + "x|"]),
        ("markdown", "markdown", ["# a" + " " * N + "x"]),
        ("markdown", "markdown", ["```" + " " * N + "`"]),
        ("markdown", "markdown", ["- a\n" + "\n" * N + "  b"]),
        ("markdown", "markdown", ["\\[ a\n" * (N // 4)]),
        ("markdown", "markdown", ["|a" * 3000 + "|\n" + "|-" * 3000 + "|\n" + "|\n" * 3000]),
        ("code", "highlight", ['"\\' * (N // 2), "js"]),
        ("code", "highlight", ["a-" * (N // 2), "html"]),
    ],
)
def test_no_text_costs_the_square_of_its_length(js: Js, module: str, name: str, given: list[str]) -> None:
    began = time.monotonic()
    js(module, name, *given)
    assert time.monotonic() - began < 5  # it was 10 to 60 s


def test_emphasis_in_emphasis_has_an_end(js: Js) -> None:
    def depth(nodes: list[Any]) -> int:
        return max((1 + depth(node["children"]) for node in nodes if isinstance(node, dict)), default=0)

    for text in ("*a " * 2000 + "a* " * 2000, "*" * 2000 + "a" + "*" * 2000):
        assert depth(js("markdown", "markdown", text)) < 300
