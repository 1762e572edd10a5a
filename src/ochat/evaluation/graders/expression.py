"""Values of mathematical expressions, read by a small grammar of our own.

A model's text is never evaluated by a general parser: what isn't in the grammar isn't read, and what is takes little time, since
lengths, depths and sizes are bounded. Arithmetic is exact on rationals for as long as it can be; roots, π and functions are floats.
Expressions with letters are compared at a few fixed points, as polynomials that agree there by chance are not written by accident."""

import cmath
import math
import re
from fractions import Fraction

Node = tuple[str, *tuple["Node | Fraction | str", ...]]
Value = Fraction | complex

MAX_LENGTH, _MAX_DEPTH, _MAX_BITS = 300, 40, 4096
_TOKEN = re.compile(r"(\d+(?:\.\d+)?|\.\d+)|\\([a-zA-Z]+)|([a-zA-Z])|([-+*/^!(){}\[\]|])|\s+")
_CONSTANTS: dict[str, complex] = {"pi": math.pi, "e": math.e, "i": 1j}
_FUNCTIONS = {"sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "ln": cmath.log, "log": cmath.log10, "exp": cmath.exp}
_CLOSES = {"(": ")", "{": "}", "[": "]", "|": "|"}
_POINTS = [(Fraction(31, 7), Fraction(5, 3)), (Fraction(-19, 11), Fraction(13, 5)), (Fraction(8, 13), Fraction(-17, 9))]


class Unreadable(Exception):
    """Not in the grammar, or too large."""


def same_value(one: str, other: str) -> bool:
    """Whether both are expressions that have the same value, for any values of their letters. A decimal that goes on for long is an
    approximation: it equals no root."""
    try:
        first, second = parse(one), parse(other)
        return all(_close(_value(first, point), _value(second, point), exact=_goes_on(one + " " + other)) for point in _POINTS)
    except (Unreadable, ArithmeticError, ValueError):
        return False


def numeral(text: str) -> Fraction | None:
    """The value of a number that is worked out: whole, decimal, mixed, or a fraction in lowest terms. None for anything else."""
    try:
        node = parse(text)
    except Unreadable:
        return None
    return _numeral(node)


def _numeral(node: Node) -> Fraction | None:
    match node:
        case ("number", Fraction() as number):
            return number
        case ("-", tuple() as inner):
            found = _numeral(inner)
            return None if found is None else -found
        case ("/", ("number", Fraction() as above), ("number", Fraction() as below)) if below:
            whole = above.denominator == below.denominator == 1
            return above / below if whole and math.gcd(above.numerator, below.numerator) == 1 else None
        case ("/", ("-", ("number", Fraction()) as above), ("number", Fraction()) as below) | (
            "/",
            ("number", Fraction()) as above,
            ("-", ("number", Fraction()) as below),
        ):
            found = _numeral(("/", above, below))
            return None if found is None else -found
        case ("mixed", ("number", Fraction() as whole), tuple() as part):
            found = _numeral(part)
            return None if found is None else whole + found
    return None


def parse(text: str) -> Node:
    """The expression as a tree. Raises Unreadable."""
    if len(text) > MAX_LENGTH:
        raise Unreadable
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            raise Unreadable
        at = found.end()
        number, command, letter, sign = found.groups()
        if number:
            tokens.append(("number", number))
        elif command:
            tokens.append(("command", command))
        elif letter:
            tokens.append(("letter", letter))
        elif sign:
            tokens.append(("sign", sign))
    reader = _Reader(tokens)
    node = reader.sum()
    if reader.at < len(tokens):
        raise Unreadable
    return node


class _Reader:
    """Reads tokens by the grammar: a sum of products of signed powers."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens, self.at, self.depth = tokens, 0, 0

    @property
    def next(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, sign: str) -> bool:
        taken = self.next == ("sign", sign)
        self.at += taken
        return taken

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise Unreadable
        node = self.product()
        while True:
            if self.take("+"):
                node = ("+", node, self.product())
            elif self.take("-"):
                node = ("+", node, ("-", self.product()))
            else:
                self.depth -= 1
                return node

    def product(self) -> Node:
        if self.take("-"):
            return ("-", self.product())
        if self.take("+"):
            return self.product()
        node = self.power()
        while True:
            kind, text = self.next
            if self.take("*"):
                node = ("*", node, self.signed())
            elif self.take("/"):
                node = ("/", node, self.signed())
            elif kind == "number" and self._is_number(node):  # 7 3/4
                part = self.power()
                if not self.take("/"):
                    raise Unreadable
                node = ("mixed", node, ("/", part, self.power()))
            elif (kind, text) == ("command", "frac") and self._is_number(node):
                node = ("mixed", node, self.power())
            elif kind in ("number", "command", "letter") or text in ("(", "{", "["):
                node = ("*", node, self.power())
            else:
                return node

    def _is_number(self, node: Node) -> bool:
        return node[0] == "number" and self.tokens[self.at - 1][0] == "number"

    def signed(self) -> Node:
        return ("-", self.signed()) if self.take("-") else self.power()

    def power(self) -> Node:
        node = self.primary()
        while self.take("!"):
            node = ("!", node)
        if self.take("^"):
            self.depth += 1
            if self.depth > _MAX_DEPTH:
                raise Unreadable
            node = ("^", node, self.signed())
            self.depth -= 1
        return node

    def primary(self) -> Node:
        kind, text = self.next
        self.at += 1
        if kind == "number":
            return ("number", Fraction(text))
        if kind == "letter":
            return ("letter", text)
        if kind == "sign" and text in _CLOSES:
            node = self.sum()
            if not self.take(_CLOSES[text]):
                raise Unreadable
            return ("abs", node) if text == "|" else node
        if kind == "command":
            return self.command(text)
        raise Unreadable

    def command(self, name: str) -> Node:
        if name == "pi":
            return ("letter", name)
        if name == "frac":
            return ("/", self.argument(), self.argument())
        if name == "binom":
            return ("binom", self.argument(), self.argument())
        if name == "sqrt":
            degree: Node = ("number", Fraction(2))
            if self.take("["):
                degree = self.sum()
                if not self.take("]"):
                    raise Unreadable
            return ("^", self.argument(), ("/", ("number", Fraction(1)), degree))
        if name in _FUNCTIONS:
            return (name, self.signed())
        raise Unreadable

    def argument(self) -> Node:
        """In braces, or a single digit or letter, as TeX has it."""
        kind, text = self.next
        if kind == "number" and len(text) > 1:
            if not text.isdigit():
                raise Unreadable
            self.tokens[self.at : self.at + 1] = [("number", text[0]), ("number", text[1:])]
        elif (kind, text) == ("sign", "("):
            pass
        elif kind == "sign" and text != "{":
            raise Unreadable
        return self.primary()


def _value(node: Node, point: tuple[Fraction, Fraction]) -> Value:
    name, *parts = node
    if name == "number":
        assert isinstance(parts[0], Fraction)
        return parts[0]
    if name == "letter":
        letter = str(parts[0])
        # spread over the letters, so that none has the value of another
        return _CONSTANTS.get(letter) or point[0] + point[1] * (ord(letter) - 64) / 3
    first, *rest = [_value(part, point) for part in parts if isinstance(part, tuple)]
    if name == "-":
        return -first
    if name == "abs":
        return abs(first) if isinstance(first, Fraction) else complex(abs(first))
    if name == "!":
        return Fraction(math.factorial(_small(first)))
    if name == "binom":
        return Fraction(math.comb(_small(first), _small(rest[0])))
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](complex(first))
    return _bounded(_combined(name, first, rest[0]))


def _combined(name: str, first: Value, second: Value) -> Value:
    if name == "^":
        return _power(first, second)
    if not (isinstance(first, Fraction) and isinstance(second, Fraction)):
        first, second = complex(first), complex(second)
        return first + second if name in ("+", "mixed") else first * second if name == "*" else first / second
    return first + second if name in ("+", "mixed") else first * second if name == "*" else first / second


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator == 1 and bits * abs(exponent) <= _MAX_BITS:
            return base ** int(exponent)
        if 1 < exponent.denominator < 10 and base > 0:  # an exact root, if it has one
            root = Fraction(*(round(part ** (1 / exponent.denominator)) for part in (base.numerator, base.denominator)))
            if root**exponent.denominator == base:
                return _power(root, Fraction(exponent.numerator))
        if exponent.denominator == 3 and base < 0:
            return -1 * _power(-base, exponent) if exponent.numerator % 2 else _power(-base, exponent)
    return complex(base) ** complex(exponent)


def _small(value: Value) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= 200:
        raise Unreadable
    return int(value)


def _bounded(value: Value) -> Value:
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
            raise Unreadable
    elif not cmath.isfinite(value):
        raise Unreadable
    return value


def _goes_on(text: str) -> bool:
    return re.search(r"\.\d{5}", text) is not None


def _close(one: Value, other: Value, *, exact: bool) -> bool:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    return not exact and cmath.isclose(complex(one), complex(other), rel_tol=1e-10, abs_tol=1e-12)
