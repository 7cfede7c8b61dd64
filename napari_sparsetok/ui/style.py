"""Colours and words of what is drawn."""

from __future__ import annotations

# What happened to a token. Distinct in lightness as well as in hue, so that colour-blind eyes can tell them apart.
_STAGES = ("#14163F", "#B5488A", "#EE8866", "#99DDFF")
KEPT = "#F2E85C"

# napari's own rules cut the words of tabs, and begin labels further right than what stands above and below them.
SHEET = "QTabBar::tab { padding: 5px 12px; min-height: 16px; } QLabel { qproperty-indent: 0; }"
BELOW_TITLE = 7  # pixels of a dock that its title bar covers


def stage_color(stage: int, stages: int) -> str:
    """Colour of the tokens that `stage` pruned, counted from 1; `stages` + 1 is kept to the end."""
    return KEPT if stage > stages else _STAGES[(stage - 1) % len(_STAGES)]


def stage_name(stage: int, stages: int) -> str:
    """Words for it."""
    return "kept to the end" if stage > stages else f"pruned at stage {stage}"


def share(part: float, whole: float) -> str:
    """A share in per cent, never broken over two lines, with as many digits as say something: "25 %", "1.6 %"."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.05:
        return "≤\u00a00.1\u00a0%"
    return f"{percent:.0f}\u00a0%" if percent >= 9.95 or percent == 0 else f"{percent:.1f}\u00a0%"


def duration(seconds: float) -> str:
    """A time in words, as in "84 ms", "1.2 s" or "2 min 5 s"."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f}\u00a0ms"
    if seconds < 100:
        return f"{seconds:.1f}\u00a0s"
    whole = round(seconds)
    return f"{whole // 60}\u00a0min {whole % 60}\u00a0s"


def signed(number: float) -> str:
    """A change, with its sign: "+0.04", "−0.12"."""
    return f"{number:+.2f}".replace("-", "−")


def ticks(ink: str, is_dark: bool) -> str:
    """The style sheet of the boxes in a list or table, in the colour of its words.

    Those that Qt draws without one are lost on a dark ground while they are empty.
    """
    box = "width: 12px; height: 12px; border-radius: 2px; "
    tick = f"url(theme_{'dark' if is_dark else 'light'}:/check.svg)"
    return (
        f"QAbstractItemView::indicator {{ {box} border: 1px solid {ink}; }} "
        f"QAbstractItemView::indicator:checked {{ image: {tick}; }}"
    )
