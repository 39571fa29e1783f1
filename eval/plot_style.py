"""How this folder's figures look: colours, sizes and legends. Ends the program where matplotlib is missing."""

import sys

try:
    import matplotlib
except ImportError:
    sys.exit("note: no figures, as Python has no matplotlib; apt-get install python3-matplotlib, or pip install "
             f"matplotlib, then: python3 {' '.join(sys.argv)}")

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

# Okabe & Ito's colours, which colour-blind readers tell apart; dark screens get lighter forms of the dark ones and, to tell
# them apart, of the light blue.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a700", "#7a7a7a"]
DARK = {"#0072b2": "#3f9be0", "#56b4e9": "#b5e2fa", "#7a7a7a": "#a8a8a8"}
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]


class Theme:
    def __init__(self, dark):
        self.name = "dark" if dark else "light"
        self.ink = "#e6edf3" if dark else "#1b1f24"
        self.grid = "#3a424c" if dark else "#d0d7de"
        self.colours = [DARK.get(c, c) if dark else c for c in COLOURS]

    def parameters(self):
        return {"text.color": self.ink, "axes.labelcolor": self.ink, "axes.edgecolor": self.grid,
                "xtick.color": self.ink, "ytick.color": self.ink, "grid.color": self.grid, "axes.facecolor": "none",
                "figure.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False, "font.size": 11,
                "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "stowkv", "svg.fonttype": "path"}


def new_figure(height=3.6, columns=1, width=7.2):
    """A figure and its axes: one, of that width in inches, or as many as columns beside each other."""
    return plt.subplots(1, columns, figsize=(width if columns == 1 else 4.5 * columns, height), layout="constrained")


def from_zero(axes):
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(True, linewidth=0.6)


def legend_above(figure, columns):
    figure.legend(loc="outside upper left", ncols=columns, handlelength=1.4)


BOTH_THEMES = (Theme(dark=False), Theme(dark=True))
