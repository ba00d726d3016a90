"""A formula on one line says what it says in LaTeX: brackets where they are needed, and raw where it is not known."""

from __future__ import annotations

import pytest

from localr1.latex import in_pieces, on_one_line

# formula -> what it reads as, written by hand
TABLE = [
    # what R1's answers are full of
    (r"\boxed{\frac{3}{4}}", "[ 3/4 ]"),
    (r"\boxed{\text{Sunday}}", "[ Sunday ]"),
    (r"\sqrt[3]{x+1}", "∛(x + 1)"),
    (r"\sum_{i=1}^{n} i = \frac{n(n+1)}{2}", "∑ᵢ₌₁ⁿ i = n(n + 1)/2"),
    (r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}", "(a, b; c, d)"),
    (r"x_{n+1}", "xₙ₊₁"),
    (r"e^{i\pi} + 1 = 0", "e^(iπ) + 1 = 0"),
    (r"\text{if } x > 0", "if x > 0"),
    (r"\frac{\partial f}{\partial x}", "∂f/∂x"),
    (r"\int_0^\infty e^{-x^2} \, dx = \frac{\sqrt{\pi}}{2}", "∫₀^∞ e^(-x²) dx = √π/2"),
    (r"\lim_{x \to 0} \frac{\sin x}{x} = 1", "lim_(x→0) (sin x)/x = 1"),
    (r"x = \frac{-b \pm \sqrt{b^2-4ac}}{2a}", "x = (-b ± √(b² - 4ac))/(2a)"),
    (r"A = \pi r^2", "A = πr²"),
    (r"\text{Area} = \frac{1}{2} \times \text{base} \times \text{height}", "Area = 1/2 × base × height"),
    (r"\angle ABC = 90^{\circ}", "∠ABC = 90°"),
    (r"5\,\text{cm} \times 3\ \text{cm}", "5 cm × 3 cm"),
    (r"a \equiv b \pmod{n}", "a ≡ b (mod n)"),
    (r"12 \div 4 = 3 \quad \checkmark", "12 ÷ 4 = 3  ✓"),
    # fractions: brackets only where the line would say something else
    (r"\frac{a+b}{c+d}", "(a + b)/(c + d)"),
    (r"\frac{ab}{c}", "ab/c"),
    (r"\frac{1}{ab}", "1/(ab)"),
    (r"\frac{1}{(a+b)}", "1/(a + b)"),
    (r"\frac{(a+b)(c+d)}{(a)(b)}", "(a + b)(c + d)/((a)(b))"),
    (r"\frac{\frac{a}{b}}{c}", "(a/b)/c"),
    (r"\frac{a}{\frac{b}{c}}", "a/(b/c)"),
    (r"\cfrac{1}{1+\cfrac{1}{x}}", "1/(1 + 1/x)"),
    (r"\frac{\sin x}{x}", "(sin x)/x"),
    (r"\frac12mv^2", "(1/2)mv²"),
    (r"z\frac{x}{y}", "z(x/y)"),
    (r"2\frac{1}{2}", "2 1/2"),
    (r"3\frac{x}{2}", "3(x/2)"),
    (r"2\frac{1}{2}\text{ hours}", "2 1/2 hours"),
    (r"3\frac{3}{4}\%", "3 3/4%"),
    (r"\frac{P(A|B)P(B)+P(A|C)P(C)}{2}", "(P(A|B)P(B) + P(A|C)P(C))/2"),
    (r"\frac{1}{(A|B)+(C|D)}", "1/((A|B) + (C|D))"),
    (r"\frac{1−x}{2}", "(1 - x)/2"),
    (r"\frac{a＋b}{c}", "(a + b)/c"),
    (r"\frac{d_1 v_2}{d_2 v_1}", "d₁v₂/(d₂v₁)"),
    (r"\frac{1}{2}\,(a+b)", "(1/2) (a + b)"),
    (r"\frac{G}{c^2}\,\frac{2M}{r}", "(G/c²) (2M/r)"),
    (r"\frac{{a+b}}{d}", "(a + b)/d"),
    (r"\frac{x}{y}(a+b)", "(x/y)(a + b)"),
    (r"\sin\frac{x}{2}", "sin(x/2)"),
    (r"\left(\frac{1}{2}\right)^2", "(1/2)²"),
    (r"\frac{d^2y}{dx^2} + \frac{dy}{dx} = 0", "d²y/dx² + dy/dx = 0"),
    (r"\frac{1}{dx}", "1/(dx)"),
    (r"\frac{\text{total distance}}{\text{time}}", "(total distance)/time"),
    (r"\binom{n}{k} = \frac{n!}{k!(n-k)!}", "(n choose k) = n!/(k!(n - k)!)"),
    # roots
    (r"\sqrt{2}", "√2"),
    (r"\sqrt{x^2}", "√(x²)"),
    (r"\sqrt{x}^2", "(√x)²"),
    (r"\sqrt{2}x", "√2 x"),
    (r"2\sqrt[n]{x}", "2 ⁿ√x"),
    (r"\sqrt{(a+b)}", "√(a + b)"),
    # powers and indices
    (r"10^{-3}", "10⁻³"),
    (r"2^10", "2¹0"),
    (r"x_B y", "x_B y"),
    (r"x_B^2 + x_{\text{max}}", "x_B² + x_max"),
    (r"a_{ij} b^{k}", "aᵢⱼbᵏ"),
    (r"a_{n_k}", "a_(nₖ)"),
    (r"e^{\frac{x}{2}}", "e^(x/2)"),
    (r"{x^2}^3", "(x²)³"),
    (r"f'(x) = f''(x)^2", "f′(x) = f′′(x)²"),
    (r"x'_1", "x₁′"),
    (r"A^T B^{-1}", "AᵀB⁻¹"),
    (r"{}^{14}\text{C}, \text{H}_2\text{O}", "¹⁴C, H₂O"),
    # sums and the like
    (r"\sum_{k \in S} \frac{1}{k^2}", "∑_(k∈S) 1/k²"),
    (r"\prod_{p} \left(1 - p^{-s}\right)^{-1}", "∏ₚ (1 - p⁻ˢ)⁻¹"),
    (r"\max_{x \in [0,1]} f(x) \ge \max(a, b)", "max_(x∈[0,1]) f(x) ≥ max(a, b)"),
    (r"\log_2 8 = 3", "log₂ 8 = 3"),
    (r"\sin^2\theta + \cos^2\theta = 1", "sin² θ + cos² θ = 1"),
    (r"2\sin x\cos x", "2 sin x cos x"),
    (r"\operatorname{Var}(X) = E[X^2]", "Var(X) = E[X²]"),
    (r"\underbrace{1+1}_{n \text{ times}}", "(1 + 1)_(n times)"),
    # signs, relations, brackets
    (r"-x + (-y) = -(x - y)", "-x + (-y) = -(x - y)"),
    (r"|x| = |-5|", "|x| = |-5|"),
    (r"P(A|B) = 1", "P(A|B) = 1"),
    (r"\left| x - 3 \right| < \epsilon", "|x - 3| < ε"),
    (r"\{ x \in \mathbb{R} \mid x > 0 \}", "{x ∈ ℝ | x > 0}"),
    (r"x \neq y, \; x \not= y, \; x \not\in A", "x ≠ y, x ≠ y, x ∉ A"),
    (r"\lfloor x \rfloor + \lceil y \rceil", "⌊x⌋ + ⌈y⌉"),
    (r"|\psi\rangle", "|ψ⟩"),
    (r"1{,}000 + 1,234.5 + 3.14", "1,000 + 1,234.5 + 3.14"),
    (r"\$5 + 100\% + 50%", "$5 + 100% + 50%"),
    # layout
    (r"\textcolor{red}{x} \color{blue} = y \label{eq:1} \hspace{1cm} \text{so}", "x = y  so"),
    (r"\sum_{\substack{i < n \\ i > 0}} i", "∑_(i < n; i > 0) i"),
    (r"\begin{array}{r} 12 \\ +34 \\ \hline 46 \end{array}", "[12; +34; ―; 46]"),
    (r"2×3 ≤ 7", "2 × 3 ≤ 7"),
    (r"\boxed{12,\!600} a\!b 1,\!2", "[ 12,600 ]ab1, 2"),
    (r"x \equiv 3 \mod 7, \; a \equiv b \,(\bmod n)", "x ≡ 3 mod 7, a ≡ b (mod n)"),
    (r"5\mathrm{~kg} = 9.8\ \mathrm{m/s^2} = \mathrm{H_2O} = 5 \, \mathrm{kg \cdot m}", "5 kg = 9.8 m/s² = H₂O = 5 kg · m"),
    (r"2\frac{1}{2}\,\mathrm{h} + 1\frac{1}{2}\text{ cups}", "2 1/2 h + 1 1/2 cups"),
    # letters
    (r"\alpha\beta\Gamma\Omega", "αβΓΩ"),
    (r"\mathcal{L}(\mathbf{x}) \mathfrak{g} \mathbb{1}", "ℒ(x)𝔤𝟙"),
    (r"\vec{v} \cdot \hat{x} = \overline{AB}", "v⃗ · x̂ = A̅B̅"),
    (r"\nabla \times \vec{E} = -\frac{\partial \vec{B}}{\partial t}", "∇ × E⃗ = -∂B⃗/∂t"),
    # tables
    (r"\left[\begin{array}{cc|c} 1 & 2 & 3 \\ 4 & 5 & 6 \end{array}\right]", "[[1, 2 | 3; 4, 5 | 6]]"),
    (r"f(x) = \begin{cases} x^2, & \text{if } x > 0 \\ -x & \text{otherwise} \end{cases}", "f(x) = {x², if x > 0; -x, otherwise}"),
    (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix} = -2", "|1, 2; 3, 4| = -2"),
    (r"\begin{aligned} x &= 1 + 2 \\ &= 3 \end{aligned}", "x = 1 + 2; = 3"),
    (r"a = b \\ c = d", "a = b; c = d"),
]  # fmt: skip


@pytest.mark.parametrize(("formula", "text"), TABLE)
def test_a_formula_reads_as_it_should(formula: str, text: str):
    assert on_one_line(formula) == text


@pytest.mark.parametrize(
    "formula",
    [
        r"\unknown{x}", r"\frac{1}{", r"\frac{1}", r"x^", r"x^2^3", r"x_1_2", "a & b", "}", "{", r"\left( x", r"x \right)", "\\",
        r"\begin{foo} x \end{foo}", r"\begin{matrix} x \end{pmatrix}", r"\begin{array}{c@{}c} x & y \end{array}", r"\text{a $b$ c}",
        r"\text{a \textbf{b}}", "$x$", r"\mathbb{R x}", "x\x1b[31m", "x\u202ey", r"\not x", r"\hline", "{" * 100 + "x" + "}" * 100, "x" * 5000,
    ],
)  # fmt: skip
def test_what_is_not_known_for_certain_is_not_rendered(formula: str):
    assert on_one_line(formula) is None


def test_what_is_boxed_is_told_apart():
    assert in_pieces(r"x = \boxed{\frac{1}{2}} \text{ cm}") == (
        ("x", False), (" ", False), ("=", False), (" ", False), ("[ 1/2 ]", True), (" cm", False),
    )  # fmt: skip
