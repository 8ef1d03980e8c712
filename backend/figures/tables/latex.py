"""Writes a table as LaTeX: booktabs, best in bold, second underlined; columns of siunitx by choice."""

from __future__ import annotations

from backend.figures.tables.record import Cell, Rank, Table, TableColumn

PACKAGES = ("booktabs",)
"""What the plain table needs."""
PACKAGES_SIUNITX = ("booktabs", "siunitx")
_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "Δ": r"$\Delta$",
    "γ": r"$\gamma$", "ρ": r"$\rho$", "λ": r"$\lambda$", "α": r"$\alpha$", "τ": r"$\tau$", "μ": r"$\mu$",
    "‖": r"$\Vert$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "→": r"$\to$", "∞": r"$\infty$",
    "·": r"$\cdot$", "–": "--", "—": "---", "…": r"\ldots{}", "“": "``", "”": "''", "’": "'",
    "↵": r"$\hookleftarrow$", "\n": " ",
}  # fmt: skip
_FURTHER = "\u0180"
"""Up to here pdflatex knows every letter: Latin-1 and Latin Extended-A."""
_ARROWS = {"lower": r"$\downarrow$", "higher": r"$\uparrow$"}


def latex_escape(text: str) -> str:
    """Return text that LaTeX prints as it is: its special characters and the signs that we use.

    A letter of a script that pdflatex cannot write without further packages becomes a question mark.
    """
    return "".join(_ESCAPES.get(letter, letter if letter < _FURTHER else "?") for letter in text)


def to_latex(table: Table, *, siunitx: bool = False) -> bytes:
    """Return the table as a ``tabular`` between its rules, to stand in a ``table`` environment.

    Args:
        table: The table.
        siunitx: Columns that align at the decimal point; needs the package siunitx (3).
    """
    packages = PACKAGES_SIUNITX if siunitx else PACKAGES
    kinds = [_kind(table, place) if siunitx else "r" for place in range(len(table.columns))]
    heads = [latex_escape(table.head), *(_head(column, siunitx) for column in table.columns)]
    needed = ", ".join(rf"\usepackage{{{name}}}" for name in packages)
    lines = [
        f"% {_comment(table.title)}",
        f"% Needs {needed}. Best in bold, second underlined.",
    ]
    if table.note:
        lines.append(f"% {_comment(table.note)}")
    if siunitx:
        lines.append(r"\sisetup{detect-weight=true, separate-uncertainty=true, table-align-uncertainty=true}")
    lines += [
        rf"\begin{{tabular}}{{l{''.join(kinds)}}}",
        r"\toprule",
        f"{' & '.join(heads)} \\\\",
        r"\midrule",
    ]
    for row, ranks in zip(table.rows, table.ranks(), strict=True):
        cells = [
            (_number if siunitx else _cell)(column, cell, rank)
            for column, cell, rank in zip(table.columns, row.cells, ranks, strict=True)
        ]
        lines.append(f"{' & '.join([latex_escape(row.label), *cells])} \\\\")
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines).encode()


def _head(column: TableColumn, siunitx: bool) -> str:
    unit = f" ({latex_escape(column.unit)})" if column.unit else ""
    arrow = f" {_ARROWS[column.better]}" if column.better else ""
    head = f"{latex_escape(column.label)}{unit}{arrow}"
    return f"{{{head}}}" if siunitx else head


def _cell(column: TableColumn, cell: Cell, rank: Rank) -> str:
    if cell.value is None:
        return "--"
    value = column.show(cell.value)
    value = f"$-${value[1:]}" if value.startswith("-") else value
    if rank is Rank.BEST:
        value = rf"\textbf{{{value}}}"
    elif rank is Rank.SECOND:
        value = rf"\underline{{{value}}}"
    return value if cell.stderr is None else rf"{value} $\pm$ {column.show(cell.stderr)}"


def _number(column: TableColumn, cell: Cell, rank: Rank) -> str:
    """Return a cell of an S column; an underlined one stands in braces, where siunitx leaves it alone."""
    if cell.value is None:
        return "{--}"
    if rank is Rank.SECOND:
        return f"{{{_cell(column, cell, rank)}}}"
    error = "" if cell.stderr is None else rf" \pm {column.show(cell.stderr)}"
    weight = r"\bfseries " if rank is Rank.BEST else ""
    return f"{weight}{column.show(cell.value)}{error}"


def _kind(table: Table, place: int) -> str:
    """Return an S column with room for the longest number of a column and its error."""
    column = table.columns[place]
    cells = [row.cells[place] for row in table.rows if row.cells[place].value is not None]
    shown = [column.show(cell.value) for cell in cells if cell.value is not None]
    sign = "-" if any(text.startswith("-") for text in shown) else ""
    whole = max((len(text.lstrip("-").split(".")[0]) for text in shown), default=1)
    errors = [column.show(cell.stderr) for cell in cells if cell.stderr is not None]
    error = f"({max(len(text.replace('.', '').lstrip('0')) or 1 for text in errors)})" if errors else ""
    return f"S[table-format={sign}{whole}.{column.digits}{error}]"


def _comment(text: str) -> str:
    return " ".join(text.split())
