#!/usr/bin/env python3
"""Draws figures from what the programs have measured. Needs matplotlib alone.

    python3 eval/plot.py outputs/NAME                   a profile's, from its data
    python3 eval/plot.py PICTURE RESULT.json [...]      one of results that --json has written

Of a profile it reads summary.json and steps.csv, writes NAME.svg and NAME.png for each figure, and fills the places in
report.html that wait for them, for light and dark screens. Results are those of bench (memory and speed by depth), of
perplexity with several policies (divergence by bits), of recall (what is recalled, by policy) or of kv_quant_bench (speed by
size, or errors by bits); several files of one kind make one picture, PICTURE-light.svg and PICTURE-dark.svg."""

import base64
import io
import json
import os
import re
import sys

sys.dont_write_bytecode = True  # where this is installed is no place for caches

import plot_results  # noqa: E402
from plot_style import BOTH_THEMES, MARKERS, from_zero, legend_above, new_figure, plt  # noqa: E402

MB = 1e6
WIDTH = 5.4  # inches: letters can be read on a telephone


def labels_of(summary):
    """A mode's name, with its policy where several modes have that name."""
    modes = [m["mode"] for m in summary["modes"]]
    return [m["mode"] if modes.count(m["mode"]) == 1 else m["policy"] for m in summary["modes"]]


def draw_bars(rows, labels, theme, unit, columns):
    """A bar for each label, of the (name, value) parts of its row one behind the other, with their sum; the same name has
    the same colour in all of them."""
    figure, axes = new_figure(1.8 + 0.5 * len(rows), width=WIDTH)
    names = list(dict.fromkeys(name for row in rows for name, _ in row))
    styles = {}
    for i, name in enumerate(names):
        again = {"hatch": "///", "edgecolor": theme.ink} if i >= len(theme.colours) else {"edgecolor": "none"}
        styles[name] = {"color": theme.colours[i % len(theme.colours)], "linewidth": 0, **again}
        axes.barh(0, 0, **styles[name], label=name)  # for the legend, in this order
    for at, row in enumerate(rows):
        left = 0.0
        for name, value in row:
            axes.barh(at, value, 0.6, left=left, **styles[name])
            left += value
        axes.text(left, at, f"  {left:,.0f} {unit}" if left >= 50 else f"  {left:.2f} {unit}", va="center")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlim(left=0)
    legend_above(figure, columns)
    return figure, axes


def draw_memory(summary, theme):
    """Weights, what each tier takes for the whole context, and activations of a batch, a mode under the other."""
    rows = []
    for m in summary["modes"]:
        parts = [("weights", m["weights_bytes"])] + [(f"cache: {t['name']}", t["bytes"]) for t in m["tiers"]]
        parts += [("cache: moments", m.get("moments_bytes", 0)), ("activations", m.get("activations_bytes", 0))]
        rows.append([(name, n_bytes / MB) for name, n_bytes in parts if n_bytes > 0])
    figure, axes = draw_bars(rows, labels_of(summary), theme, "MB", 3)
    axes.set_xlabel(f"MB for a context of {summary['modes'][0]['n_ctx']:,} tokens")
    return figure


def draw_growth(summary, theme):
    """Bytes of the tokens that the cache holds, by tokens that it has seen, up to the whole context."""
    figure, axes = new_figure(3.2, width=WIDTH)
    for i, (mode, label) in enumerate(zip(summary["modes"], labels_of(summary))):
        points = mode["growth"]
        axes.plot([p["tokens"] for p in points], [p["bytes_held"] / MB for p in points], color=theme.colours[i % 8],
                  linestyle=["-", "--", "-.", ":"][i % 4], linewidth=2, label=label)
    axes.set_xlabel("tokens that were read and generated")
    axes.set_ylabel("MB that the cache holds")
    from_zero(axes)
    legend_above(figure, 4)
    return figure


def series_by_policy(depths):
    series = {}
    for row in depths["results"]:
        series.setdefault(row["policy"], []).append((row["depth"], row["decode_tokens_per_second"], row["mode"]))
    return series


BETWEEN = 32  # points of a line between two that were measured


def line_through(points):
    """Depths and speeds between those measured: the time of a token is a straight line, as break_even takes it."""
    depths, speeds = [], []
    for (x0, y0, _), (x1, y1, _) in zip(points, points[1:]):
        for i in range(BETWEEN):
            share = i / BETWEEN
            depths.append(x0 + share * (x1 - x0))
            speeds.append(1 / ((1 - share) / y0 + share / y1))
    return depths + [points[-1][0]], speeds + [points[-1][1]]


def draw_depth(summary, theme):
    """Tokens a second by depth; a dotted line is the depth from which a policy is faster than the full cache."""
    depths = summary.get("depths")
    if not depths or len({r["depth"] for r in depths["results"]}) < 2:
        return None
    figure, axes = new_figure(3.2, width=WIDTH)
    series = series_by_policy(depths)
    modes, n_marked = [points[0][2] for points in series.values()], 0
    for i, (policy, points) in enumerate(series.items()):
        label = points[0][2] if modes.count(points[0][2]) == 1 else policy
        axes.plot(*line_through(points), marker=MARKERS[i % 8], markevery=BETWEEN, color=theme.colours[i % 8], linewidth=2,
                  clip_on=False, zorder=3, label=label)
        depth = depths["break_even"].get(policy)
        if depth:
            axes.axvline(depth, color=theme.colours[i % 8], linestyle=":", linewidth=1.5)
            axes.annotate(f"{depth:,.0f}", (depth, 1), (0, 2 + 11 * n_marked), color=theme.colours[i % 8], ha="center",
                          xycoords=axes.get_xaxis_transform(), textcoords="offset points", fontsize=9)
            n_marked += 1
    axes.set_xlabel("tokens in the cache")
    axes.set_ylabel("tokens a second")
    from_zero(axes)
    legend_above(figure, 4)
    return figure


def phase_of(mode, name):
    return next((p for p in mode["profile"]["phases"] if p["phase"] == name), None)


def draw_operations(summary, theme):
    """Milliseconds of a generated token by operation, a mode under the other; those that are 1 % nowhere are one part."""
    modes = [(m, label) for m, label in zip(summary["modes"], labels_of(summary)) if phase_of(m, "decode")]
    if not modes:
        return None
    phases = [phase_of(m, "decode") for m, _ in modes]
    shown = {o["operation"] for phase in phases for o in phase["operations"] if o["share"] >= 0.01}
    rows = []
    for phase in phases:
        ms = 1e3 / phase["tokens"]
        row = [(o["operation"], o["seconds"] * ms) for o in phase["operations"] if o["operation"] in shown]
        rest = sum(o["seconds"] for o in phase["operations"] if o["operation"] not in shown)
        rows.append(row + [("all else", (rest + phase["unaccounted_seconds"]) * ms)])
    figure, axes = draw_bars(rows, [label for _, label in modes], theme, "ms", 2)
    axes.set_xlabel("milliseconds of a generated token")
    return figure


QUALITY = [("perplexity", lambda m: m["ppl"], lambda m: m["ppl_stderr"]),
           ("KL divergence, nats", lambda m: m["kld"]["mean"], lambda m: m["kld"]["stderr"]),
           ("same most likely token, %", lambda m: 100 * m["kld"]["same_top1"], None),
           ("ROUGE-L against full", lambda m: m["rouge"]["f"], lambda m: m["rouge"]["f_stderr"])]


def draw_measure(axes, modes, value, error, theme):
    """A point with its error for each mode that has the measure."""
    values = []
    for row, mode in enumerate(modes):
        try:
            x, spread = value(mode), error(mode) if error else 0
        except KeyError:  # the full cache, which is what others are compared with
            axes.text(0.03, row, "reference", va="center", fontsize=9, alpha=0.75, transform=axes.get_yaxis_transform())
            continue
        axes.errorbar(x, row, xerr=spread, color=theme.colours[row % 8], marker=MARKERS[row % 8], markersize=7,
                      capsize=4, linewidth=2)
        values.append(x)
    if len(values) > 1 and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.grid(True, axis="x", linewidth=0.6)


def draw_quality(summary, theme):
    """Each measure with its standard error, a mode under the other."""
    modes = summary.get("quality", {}).get("modes")
    if not modes:
        return None
    measures = QUALITY if any("rouge" in m for m in modes) else QUALITY[:3] if len(modes) > 1 else QUALITY[:1]
    n_rows = (len(measures) + 1) // 2
    figure, grid = plt.subplots(n_rows, min(len(measures), 2), figsize=(WIDTH, n_rows * (1.0 + 0.4 * len(modes))),
                                layout="constrained", sharey=True, squeeze=False)
    figure.get_layout_engine().set(wspace=0.06)
    for axes, (name, value, error) in zip(grid.flat, measures):
        draw_measure(axes, modes, value, error, theme)
        axes.set_xlabel(name)
    for axes in grid.flat[len(measures):]:
        axes.set_axis_off()
    grid[0][0].set_yticks(range(len(modes)), labels_of({"modes": modes}))
    grid[0][0].set_ylim(len(modes) - 0.5, -0.5)
    return figure


def draw_recall(summary, theme):
    """The share of a segment's tokens that were the most likely ones, by how long ago it was read."""
    modes = summary.get("recall", {}).get("modes")
    if not modes:
        return None
    figure, axes = new_figure(3.2, width=WIDTH)
    distances = [p["distance"] for p in modes[0]["points"]]
    for i, (mode, label) in enumerate(zip(modes, labels_of({"modes": modes}))):
        places = [at + 0.12 * (i - (len(modes) - 1) / 2) for at in range(len(mode["points"]))]
        axes.errorbar(places, [100 * p["right"] for p in mode["points"]],
                      yerr=[100 * p["right_stderr"] for p in mode["points"]], color=theme.colours[i % 8],
                      marker=MARKERS[i % 8], linestyle="none", markersize=7, capsize=4, linewidth=2, clip_on=False,
                      label=label)
    axes.set_xticks(range(len(distances)), [f"{d:,}" for d in distances])
    axes.set_xlim(-0.5, len(distances) - 0.5)
    axes.set_xlabel("tokens ago")
    axes.set_ylabel("% recalled")
    axes.set_ylim(0, 100)
    axes.grid(True, axis="y", linewidth=0.6)
    legend_above(figure, 4)
    return figure


FIGURES = [("memory", draw_memory, "Memory: the weights, the cache that is allocated for the whole context, and activations."),
           ("growth", draw_growth, "What the cache holds as tokens come."),
           ("depth", draw_depth, "Speed by depth, with straight lines for the time of a token; dotted: from there on faster than the "
                                 "full cache."),
           ("quality", draw_quality, "Quality, with standard errors: how far each mode is from the full cache."),
           ("recall", draw_recall, "Recall of random tokens, with standard errors: what was dropped is gone, what was rounded is there."),
           ("operations", draw_operations, "Where the time of a generated token goes.")]


def picture(svgs, caption):
    """Both forms of a figure in one element, whichever the reader's screen wants."""
    uris = {theme: "data:image/svg+xml;base64," + base64.b64encode(svg).decode() for theme, svg in svgs.items()}
    return (f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{uris["dark"]}">'
            f'<img alt="{caption}" src="{uris["light"]}"></picture><figcaption>{caption}</figcaption></figure>')


def draw_all(summary, folder):
    html = {}
    for name, draw, caption in FIGURES:
        svgs = {}
        for theme in BOTH_THEMES:
            with plt.rc_context(theme.parameters()):
                figure = draw(summary, theme)
                if figure is None:
                    break
                memory = io.BytesIO()
                figure.savefig(memory, format="svg", metadata={"Date": None})
                svgs[theme.name] = memory.getvalue()
                if theme.name == "light":
                    figure.savefig(os.path.join(folder, f"{name}.svg"), facecolor="white", metadata={"Date": None})
                    figure.savefig(os.path.join(folder, f"{name}.png"), facecolor="white", dpi=144)
                plt.close(figure)
        if len(svgs) == 2:
            html[name] = picture(svgs, caption)
    return html


def fill_report(path, html):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    text = re.sub(r"<!--figure (\w+)-->", lambda m: html.get(m.group(1), m.group(0)), text)
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def draw_profile(folder):
    try:
        with open(os.path.join(folder, "summary.json"), encoding="utf-8") as file:
            summary = json.load(file)
        if summary["modes"]:
            fill_report(os.path.join(folder, "report.html"), draw_all(summary, folder))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"plot.py: error: {folder}: {error}; it must be a folder that --profile has written")


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    if len(sys.argv) == 2:
        draw_profile(sys.argv[1])
    else:
        plot_results.draw(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    main()
