"""What LaTeX commands stand for, in Unicode."""

from __future__ import annotations

import unicodedata


def _table(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


LETTERS = _table(r"""
    alpha α beta β gamma γ delta δ epsilon ε varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι kappa κ lambda λ mu μ nu ν xi ξ pi π
    varpi ϖ rho ρ varrho ϱ sigma σ varsigma ς tau τ upsilon υ phi φ varphi φ chi χ psi ψ omega ω
    Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ Upsilon Υ Phi Φ Psi Ψ Omega Ω
    infty ∞ partial ∂ nabla ∇ hbar ℏ ell ℓ Re ℜ Im ℑ aleph ℵ wp ℘ imath ı jmath ȷ emptyset ∅ varnothing ∅ angle ∠ triangle △ degree °
    forall ∀ exists ∃ nexists ∄ neg ¬ lnot ¬ top ⊤ bot ⊥ prime ′ square □ Box □ blacksquare ■ checkmark ✓ star ⋆ clubsuit ♣ spadesuit ♠
    heartsuit ♥ diamondsuit ♦ dots … ldots … cdots ⋯ vdots ⋮ ddots ⋱ dotsc … dotsb ⋯ dotsm ⋯ dotsi ⋯ dotso … bigcirc ◯ pounds £ therefore ∴ because ∵ qed ∎ complement ∁
    % % $ $ # # & & _ _
""")

BINARIES = _table(r"""
    pm ± mp ∓ times × div ÷ cdot · ast ∗ circ ∘ bullet • oplus ⊕ ominus ⊖ otimes ⊗ odot ⊙ cup ∪ cap ∩ setminus ∖ wedge ∧ land ∧ vee ∨
    lor ∨ sqcup ⊔ sqcap ⊓ uplus ⊎ dagger † wr ≀
""")

RELATIONS = _table(r"""
    le ≤ leq ≤ leqslant ≤ ge ≥ geq ≥ geqslant ≥ ne ≠ neq ≠ lt < gt > ll ≪ gg ≫ approx ≈ equiv ≡ sim ∼ simeq ≃ cong ≅ propto ∝ doteq ≐
    in ∈ notin ∉ ni ∋ subset ⊂ subseteq ⊆ subsetneq ⊊ supset ⊃ supseteq ⊇ prec ≺ preceq ⪯ succ ≻ succeq ⪰ mid | nmid ∤ parallel ∥ perp ⊥
    vdash ⊢ models ⊨ to → rightarrow → longrightarrow ⟶ leftarrow ← gets ← leftrightarrow ↔ Rightarrow ⇒ Longrightarrow ⟹ implies ⟹
    Leftarrow ⇐ impliedby ⟸ Leftrightarrow ⇔ Longleftrightarrow ⟺ iff ⟺ mapsto ↦ longmapsto ⟼ uparrow ↑ downarrow ↓ hookrightarrow ↪
    rightharpoonup ⇀ rightleftharpoons ⇌ nearrow ↗ searrow ↘ leadsto ⇝ coloneqq ≔ triangleq ≜ asymp ≍ not ̸ lesssim ≲ gtrsim ≳ colon :
""")

BIG = _table(r"""
    sum ∑ prod ∏ coprod ∐ int ∫ iint ∬ iiint ∭ oint ∮ bigcup ⋃ bigcap ⋂ bigoplus ⨁ bigotimes ⨂ bigvee ⋁ bigwedge ⋀ bigsqcup ⨆
""")

FUNCTIONS = frozenset(
    """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp arg deg dim ker hom Pr det gcd lcm
""".split()
)
WITH_LIMITS = frozenset("lim limsup liminf max min sup inf argmax argmin det gcd Pr".split())

OPENING = _table("( ( [ [ { { lbrace { langle ⟨ lfloor ⌊ lceil ⌈ lvert | lVert ‖ lbrack [")
CLOSING = _table(") ) ] ] } } rbrace } rangle ⟩ rfloor ⌋ rceil ⌉ rvert | rVert ‖ rbrack ]")
FENCES = OPENING | CLOSING | {"|": "‖", "Vert": "‖", "vert": "|", "/": "/", "backslash": "∖", "uparrow": "↑", "downarrow": "↓"}

SPACES = {",": " ", ":": " ", ";": " ", " ": " ", ">": " ", "!": "", "quad": "  ", "qquad": "    ", "enspace": " ", "thinspace": " "}
IGNORED = frozenset(
    """
    displaystyle textstyle scriptstyle limits nolimits big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr nonumber notag
    rm bf it
""".split()
)
TEXTS = frozenset("text textbf textit textrm texttt textsf textnormal mbox mathrm mathsf mathtt operatorname emph".split())
PLAIN = frozenset("mathbf boldsymbol bm mathit mathop mathbin mathrel mathord mathstrut pmb".split())

ACCENTS = {
    "hat": "\u0302", "widehat": "\u0302", "bar": "\u0305", "overline": "\u0305", "underline": "\u0332", "tilde": "\u0303",
    "widetilde": "\u0303", "vec": "\u20d7", "overrightarrow": "\u20d7", "dot": "\u0307", "ddot": "\u0308", "acute": "\u0301",
    "grave": "\u0300", "breve": "\u0306", "check": "\u030c", "cancel": "\u0338",
}  # fmt: skip

MATRICES = {
    "matrix": ("", ""), "smallmatrix": ("", ""), "pmatrix": ("(", ")"), "bmatrix": ("[", "]"), "Bmatrix": ("{", "}"),
    "vmatrix": ("|", "|"), "Vmatrix": ("‖", "‖"), "array": ("", ""), "cases": ("{", ""), "dcases": ("{", ""), "rcases": ("", "}"),
}  # fmt: skip
ALIGNED = frozenset(
    "aligned align align* alignedat gathered gather gather* split equation equation* eqnarray eqnarray* multline multline*".split()
)

SKIPPED = frozenset("label color hspace vspace".split())  # with what follows: layout, not text

_SUPERSCRIPTS = dict(zip("0123456789+-=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWαβγδεθιφχ′∗°†",
                         "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵅᵝᵞᵟᵋᶿᶥᵠᵡ′*°†", strict=True))  # fmt: skip
_SUBSCRIPTS = dict(zip("0123456789+-=()aehijklmnoprstuvxβγρφχ",
                       "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ", strict=True))  # fmt: skip
_LETTERLIKE = {
    "DOUBLE-STRUCK": dict(zip("CHNPQRZ", "ℂℍℕℙℚℝℤ", strict=True)),
    "SCRIPT": dict(zip("BEFHILMRego", "ℬℰℱℋℐℒℳℛℯℊℴ", strict=True)),
    "FRAKTUR": dict(zip("CHIRZ", "ℭℌℑℜℨ", strict=True)),
}
ALPHABETS = {"mathbb": "DOUBLE-STRUCK", "mathcal": "SCRIPT", "mathscr": "SCRIPT", "mathfrak": "FRAKTUR"}
NEGATED = dict(zip("=∈∋⊂⊆≡<>≤≥∼≈∃∣|", "≠∉∌⊄⊈≢≮≯≰≱≁≉∄∤∤", strict=True))


def small(text: str, up: bool) -> str | None:
    """As a superscript or subscript; None: not all of it has one."""
    table = _SUPERSCRIPTS if up else _SUBSCRIPTS
    return "".join(table[c] for c in text) if all(c in table for c in text) else None


def letter(c: str, alphabet: str) -> str | None:
    """A letter or digit of another alphabet."""
    if c in _LETTERLIKE[alphabet]:
        return _LETTERLIKE[alphabet][c]
    try:
        name = unicodedata.name(c).replace("LATIN ", "").replace("LETTER ", "")
        return unicodedata.lookup(f"MATHEMATICAL {alphabet} {name}")
    except (KeyError, ValueError):
        return None
