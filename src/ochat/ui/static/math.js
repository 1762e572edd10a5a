// TeX, as chat models write it, to a tree of MathML, which browsers draw by themselves. Pure, as markdown.js.
//
// What it doesn't know stays to be read: an unknown command is shown by its name, and what can't be read at all as its source.

const MAX_DEPTH = 40;

const GREEK =
  "alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ lambda=λ mu=μ nu=ν xi=ξ omicron=ο pi=π varpi=ϖ rho=ρ varrho=ϱ sigma=σ varsigma=ς tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω";
const CAPITALS = "Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Upsilon=Υ Phi=Φ Psi=Ψ Omega=Ω";
const LETTERS =
  "infty=∞ ell=ℓ hbar=ℏ Re=ℜ Im=ℑ aleph=ℵ wp=℘ emptyset=∅ varnothing=∅ partial=∂ nabla=∇ imath=ı jmath=ȷ degree=° dagger=† ddagger=‡ angle=∠ triangle=△ square=□ Box=□ blacksquare=■ checkmark=✓ top=⊤ bot=⊥ forall=∀ exists=∃ nexists=∄ ldots=… dots=… cdots=⋯ vdots=⋮ ddots=⋱ dotsc=… dotsb=⋯ prime=′ clubsuit=♣ diamondsuit=♢ heartsuit=♡ spadesuit=♠ %=% $=$ #=# &=& _=_";
const OPERATORS =
  "pm=± mp=∓ times=× div=÷ cdot=⋅ ast=∗ star=⋆ circ=∘ bullet=∙ oplus=⊕ ominus=⊖ otimes=⊗ odot=⊙ wedge=∧ land=∧ vee=∨ lor=∨ neg=¬ lnot=¬ cap=∩ cup=∪ setminus=∖ le=≤ leq=≤ leqslant=⩽ ge=≥ geq=≥ geqslant=⩾ ll=≪ gg=≫ ne=≠ neq=≠ equiv=≡ sim=∼ simeq=≃ approx=≈ cong=≅ propto=∝ in=∈ notin=∉ ni=∋ subset=⊂ supset=⊃ subseteq=⊆ supseteq=⊇ subsetneq=⊊ mid=∣ nmid=∤ parallel=∥ perp=⊥ models=⊨ vdash=⊢ dashv=⊣ to=→ rightarrow=→ leftarrow=← gets=← leftrightarrow=↔ Rightarrow=⇒ Leftarrow=⇐ Leftrightarrow=⇔ implies=⟹ impliedby=⟸ iff=⟺ Longrightarrow=⟹ longrightarrow=⟶ longleftarrow=⟵ mapsto=↦ longmapsto=⟼ uparrow=↑ downarrow=↓ updownarrow=↕ nearrow=↗ searrow=↘ hookrightarrow=↪ rightharpoonup=⇀ rightleftharpoons=⇌ leadsto=⇝ therefore=∴ because=∵ colon=: doteq=≐ triangleq=≜ coloneqq=≔ prec=≺ succ=≻ preceq=⪯ succeq=⪰ asymp=≍ backslash=\\ surd=√ lt=< gt=>";
const LARGE = "sum=∑ prod=∏ coprod=∐ bigcup=⋃ bigcap=⋂ bigoplus=⨁ bigotimes=⨂ bigvee=⋁ bigwedge=⋀ bigsqcup=⨆";
const INTEGRALS = "int=∫ iint=∬ iiint=∭ oint=∮";
const FENCES =
  "langle=⟨ rangle=⟩ lfloor=⌊ rfloor=⌋ lceil=⌈ rceil=⌉ lvert=| rvert=| vert=| lVert=‖ rVert=‖ Vert=‖ |=‖ {={ }=} lbrace={ rbrace=} lbrack=[ rbrack=]";
const FUNCTIONS = new Set(
  "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp det dim ker deg gcd hom arg Pr".split(" "),
);
const LIMITS = new Set("lim max min sup inf limsup liminf argmax argmin".split(" "));
const ACCENTS =
  "hat=^ widehat=^ bar=¯ tilde=~ widetilde=~ vec=→ dot=˙ ddot=¨ check=ˇ breve=˘ acute=´ grave=` mathring=˚ overline=‾ overrightarrow=→ overleftarrow=← overbrace=⏞";
const UNDERS = "underline=_ underbrace=⏟";
const SPACES = {
  ",": 0.167,
  ":": 0.222,
  ">": 0.222,
  ";": 0.278,
  " ": 0.25,
  "!": -0.167,
  quad: 1,
  qquad: 2,
  thinspace: 0.167,
  enspace: 0.5,
};
const IGNORED = new Set(
  "displaystyle textstyle scriptstyle limits nolimits nonumber notag hline big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm middle allowbreak centering hfil".split(
    " ",
  ),
);
const STYLES = {
  mathbf: "bold",
  boldsymbol: "bold",
  bm: "bold",
  pmb: "bold",
  mathbb: "double",
  mathcal: "script",
  mathscr: "script",
  mathfrak: "fraktur",
  mathsf: "sans",
  mathtt: "mono",
  mathrm: "",
  mathit: "",
  mathnormal: "",
};
const TEXTS = new Set("text textrm textbf textit texttt textsf textnormal mbox hbox".split(" "));
const MATRICES = {
  matrix: ["", ""],
  smallmatrix: ["", ""],
  pmatrix: ["(", ")"],
  bmatrix: ["[", "]"],
  Bmatrix: ["{", "}"],
  vmatrix: ["|", "|"],
  Vmatrix: ["‖", "‖"],
  cases: ["{", ""],
  array: ["", ""],
};
const ALIGNED = new Set(
  "aligned align align* alignat alignat* split gathered gather gather* equation equation* eqnarray eqnarray* multline multline*".split(
    " ",
  ),
);

const table = (text) =>
  new Map(text.split(" ").map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]));
const identifiers = new Map([...table(GREEK), ...table(LETTERS)]);
const capitals = table(CAPITALS);
const operators = table(OPERATORS);
const large = table(LARGE);
const integrals = table(INTEGRALS);
const fences = table(FENCES);
const accents = table(ACCENTS);
const unders = table(UNDERS);

// Where Unicode's alphabets begin (capital, small, digit), and the letters that stood elsewhere before.
const ALPHABETS = {
  bold: [0x1d400, 0x1d41a, 0x1d7ce],
  double: [0x1d538, 0x1d552, 0x1d7d8],
  script: [0x1d49c, 0x1d4b6, 0],
  fraktur: [0x1d504, 0x1d51e, 0],
  sans: [0x1d5a0, 0x1d5ba, 0x1d7e2],
  mono: [0x1d670, 0x1d68a, 0x1d7f6],
};
const EARLIER = {
  double: { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" },
  script: { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" },
  fraktur: { C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" },
};

function inAlphabet(text, style) {
  const [capital, small, digit] = ALPHABETS[style];
  const moved = (letter) => {
    if (EARLIER[style]?.[letter]) return EARLIER[style][letter];
    const start = /[A-Z]/.test(letter)
      ? capital - 65
      : /[a-z]/.test(letter)
        ? small - 97
        : /\d/.test(letter) && digit
          ? digit - 48
          : 0;
    return start ? String.fromCodePoint(start + letter.codePointAt(0)) : letter;
  };
  return Array.from(text, moved).join("");
}

const node = (tag, children, attributes) => ({ tag, attributes, children });
const row = (children) => (children.length === 1 ? children[0] : node("mrow", children));
const operator = (text, attributes) => node("mo", [text], attributes);
const fence = (text) => operator(text, { fence: "true", stretchy: "true", form: "prefix" });

export function math(tex, display) {
  let children;
  try {
    const reader = new Reader(tex, display);
    children = reader.rows();
  } catch (problem) {
    if (!(problem instanceof Unreadable)) throw problem;
    return node("code", [tex]);
  }
  const attributes = { display: display ? "block" : "inline" };
  // The source goes with it, so that it can be copied, and read where there's no MathML.
  const source = node("annotation", [tex], { encoding: "application/x-tex" });
  return node("mathml", [node("semantics", [node("mrow", children), source])], attributes);
}

class Unreadable extends Error {}

class Reader {
  constructor(tex, display) {
    this.tokens = tex.replace(/(?<!\\)%[^\n]*/g, "").match(/\\[a-zA-Z]+\*?|\\[^]|\d+(?:\.\d+)?|\s+|[^]/gu) ?? [];
    this.at = 0;
    this.depth = 0;
    this.display = display;
  }

  peek() {
    while (/^\s+$/.test(this.tokens[this.at] ?? "")) this.at += 1;
    return this.tokens[this.at];
  }

  take() {
    const token = this.peek();
    if (token === undefined) throw new Unreadable();
    this.at += 1;
    return token;
  }

  // The whole text; line breaks outside of any environment make a table of it.
  rows() {
    const lines = this.cells(() => this.peek() === undefined);
    if (lines.length === 1 && lines[0].length === 1) return lines[0][0];
    return [this.table(lines, "aligned")];
  }

  // [line][cell] -> nodes, up to where `ends` says.
  cells(ends) {
    const lines = [[[]]];
    while (!ends()) {
      const token = this.peek();
      if (token === undefined) throw new Unreadable();
      if (token === "&") {
        this.take();
        lines.at(-1).push([]);
      } else if (token === "\\\\" || token === "\\cr") {
        this.take();
        if (this.peek() === "[" && /^\d/.test(this.tokens[this.at + 1] ?? "")) while (this.take() !== "]");
        lines.push([[]]);
      } else {
        lines
          .at(-1)
          .at(-1)
          .push(...this.scripted());
      }
    }
    if (lines.length > 1 && lines.at(-1).length === 1 && !lines.at(-1)[0].length) lines.pop();
    return lines;
  }

  table(lines, kind) {
    const rows = lines.map((line) =>
      node(
        "mtr",
        line.map((cell) => node("mtd", [node("mrow", cell)])),
      ),
    );
    return node("mtable", rows, { class: kind, displaystyle: kind === "aligned" ? "true" : undefined });
  }

  list(ends) {
    const found = [];
    while (!ends(this.peek())) {
      if (this.peek() === undefined) throw new Unreadable();
      found.push(...this.scripted());
    }
    return found;
  }

  // One argument: a group or the next token, of a number its first digit.
  argument() {
    const next = this.peek() ?? "";
    if (/^\d./.test(next)) {
      this.tokens[this.at] = next.slice(1);
      return node("mn", [next[0]]);
    }
    return row(this.atom());
  }

  raw() {
    if (this.take() !== "{") return this.tokens[this.at - 1];
    let text = "";
    for (let open = 1; ;) {
      const token = this.tokens[this.at++];
      if (token === undefined) throw new Unreadable();
      if (token === "{") open += 1;
      if (token === "}" && --open === 0) return text;
      text += token;
    }
  }

  optional() {
    if (this.peek() !== "[") return null;
    this.take();
    const found = this.list((token) => token === "]");
    this.take();
    return row(found);
  }

  // An atom with what stands above and below it.
  scripted() {
    const [base, ...more] = this.atom().reverse();
    const before = more.reverse();
    if (base === undefined) return before;
    let under;
    let over;
    let primes = "";
    for (let token = this.peek(); token === "^" || token === "_" || token === "'"; token = this.peek()) {
      this.take();
      if (token === "'") primes += "′";
      else if (token === "^") over = this.argument();
      else under = this.argument();
    }
    if (primes) over = over ? node("mrow", [operator(primes), over]) : operator(primes);
    if (!under && !over) return [...before, base];
    const [both, below, above] =
      base.limits && (this.display || base.limits === "always")
        ? ["munderover", "munder", "mover"]
        : ["msubsup", "msub", "msup"];
    if (under && over) return [...before, node(both, [base, under, over])];
    return [...before, under ? node(below, [base, under]) : node(above, [base, over])];
  }

  // Nodes of the next token, with its arguments.
  atom() {
    if (++this.depth > MAX_DEPTH) throw new Unreadable();
    const found = this.read(this.take());
    this.depth -= 1;
    return found;
  }

  read(token) {
    if (token === "{") {
      const inner = this.list((next) => next === "}");
      this.take();
      return [row(inner)];
    }
    if (token === "}") throw new Unreadable();
    if (token === "^" || token === "_") {
      this.at -= 1; // a script of nothing
      return [node("mrow", [])];
    }
    if (token === "~") return [node("mspace", [], { width: "0.25em" })];
    if (token === "'") return [operator("′")];
    if (/^\d/.test(token)) return [node("mn", [token])];
    if (token[0] !== "\\") return [this.letter(token)];
    return this.command(token.slice(1).replace(/(?<=[a-zA-Z])\*$/, ""));
  }

  letter(token) {
    if (/^\p{L}$/u.test(token)) return node("mi", [token]);
    if (token === "-") return operator("−");
    if (token === "*") return operator("∗");
    if ("([".includes(token)) return operator(token, { stretchy: "false" });
    if (")]|/".includes(token)) return operator(token, { stretchy: "false" });
    return operator(token);
  }

  command(name) {
    if (name in SPACES) return [node("mspace", [], { width: `${SPACES[name]}em` })];
    if (IGNORED.has(name)) return [];
    if (identifiers.has(name)) return [node("mi", [identifiers.get(name)])];
    if (capitals.has(name)) return [node("mi", [capitals.get(name)], { mathvariant: "normal" })];
    if (operators.has(name)) return [operator(operators.get(name))];
    if (fences.has(name)) return [operator(fences.get(name), { stretchy: "false" })];
    if (large.has(name)) return [{ ...operator(large.get(name), { largeop: "true" }), limits: "display" }];
    if (integrals.has(name)) return [operator(integrals.get(name), { largeop: this.display ? "true" : undefined })];
    if (FUNCTIONS.has(name)) return [node("mi", [name])];
    if (LIMITS.has(name)) return [{ ...node("mi", [name.replace(/^arg(?=m)|^lim(?=[is])/, "$& ")]), limits: "display" }];
    if (accents.has(name))
      return [
        {
          ...node(
            "mover",
            [this.argument(), operator(accents.get(name), { stretchy: /^(over|wide)/.test(name) ? "true" : "false" })],
            { accent: "true" },
          ),
          limits: name === "overbrace" && "always",
        },
      ];
    if (unders.has(name))
      return [
        {
          ...node("munder", [this.argument(), operator(unders.get(name), { stretchy: "true" })]),
          limits: name === "underbrace" && "always",
        },
      ];
    if (TEXTS.has(name)) return [node("mtext", [this.raw().replace(/^\s|\s$/g, "\u00a0")])];
    if (name in STYLES) return this.styled(STYLES[name]);
    switch (name) {
      case "frac":
      case "dfrac":
      case "tfrac":
      case "cfrac":
        return [node("mfrac", [this.argument(), this.argument()])];
      case "binom":
      case "dbinom":
      case "tbinom":
        return [
          node("mrow", [fence("("), node("mfrac", [this.argument(), this.argument()], { linethickness: "0" }), fence(")")]),
        ];
      case "sqrt": {
        const degree = this.optional();
        return [degree ? node("mroot", [this.argument(), degree]) : node("msqrt", [this.argument()])];
      }
      case "left":
        return [this.fenced()];
      case "begin":
        return [this.environment(this.raw())];
      case "overset":
      case "stackrel": {
        const above = this.argument();
        return [node("mover", [this.argument(), above])];
      }
      case "underset": {
        const below = this.argument();
        return [node("munder", [this.argument(), below])];
      }
      case "operatorname":
        return [{ ...node("mi", [this.raw()]), limits: "display" }];
      case "pmod":
        return [
          node("mrow", [
            node("mspace", [], { width: "0.5em" }),
            operator("("),
            node("mi", ["mod"]),
            node("mspace", [], { width: "0.3em" }),
            this.argument(),
            operator(")"),
          ]),
        ];
      case "bmod":
      case "mod":
        return [operator("mod")];
      case "not": {
        const [next] = this.atom();
        return next ? [node("mo", [`${next.children[0]}\u0338`])] : [];
      }
      case "boxed":
      case "fbox":
        return [node("mrow", [this.argument()], { class: "boxed" })];
      case "color":
      case "textcolor":
        this.raw();
        return name === "color" ? [] : [this.argument()];
      case "phantom":
      case "hspace":
      case "vspace":
      case "label":
        this.raw();
        return [];
      case "tag":
        return [node("mspace", [], { width: "2em" }), node("mtext", [`(${this.raw()})`])];
      case "hfill":
      case "\n":
        return [node("mspace", [], { width: "1em" })];
      default:
        return [node("mtext", [`\\${name}`], { class: "unknown" })];
    }
  }

  styled(style) {
    const alone = this.peek() !== "{";
    const found = alone ? this.atom() : [row(this.atom())];
    const apply = (one) => {
      if (typeof one === "string") return style ? inAlphabet(one, style) : one;
      const attributes = one.tag === "mi" && !style ? { ...one.attributes, mathvariant: "normal" } : one.attributes;
      return { ...one, attributes, children: one.children.map(apply) };
    };
    const styled = found.map(apply);
    // \mathrm{kg} is one word.
    const [only] = styled;
    if (only?.tag === "mrow" && only.children.length && only.children.every((child) => child.tag === "mi")) {
      return [
        node("mi", [only.children.flatMap((child) => child.children).join("")], style ? undefined : { mathvariant: "normal" }),
      ];
    }
    return styled;
  }

  delimiter() {
    const token = this.take();
    if (token === ".") return null;
    const name = token.replace("\\", "");
    return token[0] === "\\" ? (fences.get(name) ?? operators.get(name) ?? token) : ({ "<": "⟨", ">": "⟩" }[token] ?? token);
  }

  fenced() {
    const open = this.delimiter();
    const inner = [];
    while (this.peek() !== "\\right") {
      if (this.peek() === undefined) throw new Unreadable();
      if (this.peek() === "\\middle") {
        this.take();
        inner.push(fence(this.delimiter() ?? ""));
      } else {
        inner.push(...this.scripted());
      }
    }
    this.take();
    const close = this.delimiter();
    const end = close && operator(close, { fence: "true", stretchy: "true", form: "postfix" });
    return node("mrow", [open && fence(open), ...inner, end].filter(Boolean));
  }

  environment(kind) {
    const bare = kind.replace(/\*$/, "");
    if (!(bare in MATRICES) && !ALIGNED.has(kind)) throw new Unreadable();
    if (kind === "array" || /^alignat/.test(kind)) this.raw(); // the columns' sides
    const lines = this.cells(() => this.peek() === "\\end");
    this.take();
    if (this.raw() !== kind) throw new Unreadable();
    if (ALIGNED.has(kind)) return this.table(lines, "aligned");
    const [open, close] = MATRICES[bare];
    const made = this.table(lines, bare === "cases" ? "cases" : "matrix");
    const end = close && operator(close, { fence: "true", stretchy: "true", form: "postfix" });
    return node("mrow", [open && fence(open), made, end].filter(Boolean));
  }
}
