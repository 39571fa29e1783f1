"""Pictures of what programs have written with --json: a kind of result is a row of PICTURES, with how to know it and how to
draw it. See plot.py."""

import json
import math
import re
import sys

from plot_style import BOTH_THEMES, MARKERS, from_zero, legend_above, new_figure, plt

MB = 1e6
MODES = {"full": 0, "compressed": 1, "quantized": 2}  # each keeps its colour, whichever are there


def modes_of(results):
    return [mode for result in results for mode in result.get("modes", [result])]


def codec_of(policy):
    """The codec of a policy's last tier: "int4" of "rotate=on,sink=16,f16:32,int4:*"."""
    return policy.split(",")[-1].split(":")[0]


# ---- bench: memory and speed by depth


def draw_speed(results, theme):
    """What a generated token reads of the cache, which is all that the cache holds, and tokens a second."""
    figure, (memory, speed) = new_figure(3.4, columns=2)
    series = {}
    for row in (row for result in results for row in result["results"]):
        series.setdefault(row["policy"], []).append(row)
    for i, rows in enumerate(series.values()):
        mode = rows[0]["mode"]
        label = mode if mode == "full" else f"{mode} ({'dropped' if mode == 'compressed' else codec_of(rows[0]['policy'])})"
        style = {"marker": MARKERS[i % 8], "color": theme.colours[MODES.get(mode, 3 + i) % 8], "linewidth": 2,
                 "clip_on": False, "zorder": 3}
        depths = [row["depth"] for row in rows]
        memory.plot(depths, [row["kv_bytes_per_token"] / MB for row in rows], **style, label=label)
        speed.plot(depths, [row["decode_tokens_per_second"] for row in rows], **style)
    for axes, title in ((memory, "MB of cache"), (speed, "tokens a second")):
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("tokens in the cache")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        from_zero(axes)
    legend_above(figure, 4)
    return figure


# ---- perplexity: divergence by bits

# Families of codecs, by the beginning of their names and by whether keys are rounded with an eye to the queries; how far a
# point stands beside its place, so that none hides another; and whether names stand above the upper point or below the lower
# one.
FAMILIES = [("int", False, "int: keys by channel", -0.06, False), ("q", False, "q: GGML's blocks", 0.0, True),
            ("", False, "nf4, fp8: no integers", 0.08, True), ("int", True, "int, rounded with queries", -0.18, False)]


def family_of(codec, aware=False):
    return next(i for i, (prefix, with_queries, *_) in enumerate(FAMILIES)
                if codec.startswith(prefix) and with_queries == aware)


def is_aware(mode):
    return codec_of(mode["policy"]).startswith("int") and any(tier.get("aware_k") for tier in mode["tiers"])


def is_rotated(mode):
    return any(tier["rotated_k"] for tier in mode["tiers"])


def draw_by_layer(axes, modes, theme):
    """Policies whose layers have codecs of their own, as --kv_budget finds them: a line through all of them."""
    modes = sorted(modes, key=lambda mode: mode["bits_per_old_element"])
    axes.errorbar([mode["bits_per_old_element"] for mode in modes], [mode["kld"]["mean"] for mode in modes],
                  yerr=[mode["kld"]["stderr"] for mode in modes], marker="*", markersize=9, linestyle=":", linewidth=1.4,
                  color=theme.ink, label="by layer: --kv_budget")


def draw_divergence(results, theme):
    """Mean KL divergence from the full cache by bits of an old element; a line joins a codec with its rotated form."""
    figure, axes = new_figure(4.4)
    policies = {}
    compared = [mode for mode in modes_of(results) if "kld" in mode and mode["bits_per_old_element"] > 0]
    if not compared:
        return None
    by_layer = [mode for mode in compared if "@" in mode["policy"]]
    if by_layer:
        draw_by_layer(axes, by_layer, theme)
    for mode in (mode for mode in compared if "@" not in mode["policy"]):
        policy = re.sub(r"(rotate|rounding)=\w+,", "", mode["policy"])
        policies.setdefault((policy, is_aware(mode)), {})[is_rotated(mode)] = mode
    for (policy, aware), forms in policies.items():
        codec = codec_of(policy)
        family = family_of(codec, aware)
        colour, dodge, above = theme.colours[family], *FAMILIES[family][3:]
        points = [(mode["bits_per_old_element"] + dodge, mode["kld"]["mean"], mode["kld"]["stderr"], rotated)
                  for rotated, mode in forms.items()]
        axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, linewidth=1)
        for x, y, error, rotated in points:
            axes.errorbar(x, y, yerr=error, marker=MARKERS[family], markersize=7, color=colour, linewidth=1,
                          markerfacecolor=colour if rotated else "none", markeredgewidth=1.4)
        if aware or (policy, True) not in policies:  # otherwise the other way of rounding has the name
            x, y = (max if above else min)(points, key=lambda p: p[1])[:2]
            axes.annotate(codec, (x, y), (0, 7 if above else -6), textcoords="offset points",
                          ha="center" if above else "right", va="bottom" if above else "top", fontsize=9, color=colour)
    for family, (_, _, label, *_) in enumerate(FAMILIES):
        axes.plot([], [], MARKERS[family], color=theme.colours[family], label=label)
    axes.plot([], [], "o", color=theme.ink, label="rotated")
    axes.plot([], [], "o", color=theme.ink, markerfacecolor="none", label="as it is")
    axes.set_yscale("log")
    axes.set_xlabel("bits of an old element, scales counted")
    axes.set_ylabel("divergence from the full cache, nats")
    axes.margins(y=0.12)
    axes.grid(True, linewidth=0.6)
    axes.legend()
    return figure


# ---- recall: what is recalled, by policy


def bits_of(results):
    """Bits of an old element by policy: of the last tier, where a result does not tell them."""
    return {mode["policy"]: mode.get("bits_per_old_element",
                                     0 if mode["mode"] == "compressed" else mode["tiers"][-1]["bits_per_element"])
            for mode in modes_of(results)}


def wilson(right, n):
    """The 95 % interval of a share (Wilson 1927): as lengths of a bar below and above it."""
    z, share = 1.96, right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, share - (middle - half)), max(0.0, middle + half - share)


def distance_series(results):
    """By distance: by policy a difference from the full cache and its standard error, twice."""
    series = {}
    for mode in modes_of(results):
        for point in mode["points"]:
            if "less_full" in point:
                error = point["less_full_stderr"]
                series.setdefault(f"{point['distance']:,}", {})[mode["policy"]] = (point["less_full"], (error, error))
    return series


def needle_series(results):
    """By length: by policy the share that was found, over all positions, and its interval."""
    counts = {}
    for mode in modes_of(results):
        for point in mode["points"]:
            if point["n"] > 0:
                count = counts.setdefault(f"{point['length']:,}", {}).setdefault(mode["policy"], [0, 0])
                count[0] += round(point["n"] * point["right"])
                count[1] += point["n"]
    return {length: {policy: (right / n, wilson(right, n)) for policy, (right, n) in policies.items()}
            for length, policies in counts.items()}


def policy_label(policy, bits):
    if policy == "f16:*":
        return "full"
    return "dropped" if bits == 0 else f"{codec_of(policy)}\n{bits:g} bits"


def draw_by_policy(axes, series, bits, theme):
    policies = sorted({policy for points in series.values() for policy in points}, key=lambda policy: bits[policy])
    for i, (label, points) in enumerate(series.items()):
        shown = [policy for policy in policies if policy in points]
        places = [policies.index(policy) + 0.14 * (i - (len(series) - 1) / 2) for policy in shown]
        axes.errorbar(places, [points[policy][0] for policy in shown],
                      yerr=list(zip(*(points[policy][1] for policy in shown))), fmt=MARKERS[i % 8],
                      color=theme.colours[i % 8], linewidth=1.5, markersize=6, label=label)
    axes.set_xticks(range(len(policies)), [policy_label(policy, bits[policy]) for policy in policies], fontsize=9)
    axes.grid(True, axis="y", linewidth=0.6)
    axes.legend(fontsize=9, loc="lower right")


def draw_recall(results, theme):
    distances = [result for result in results if result["task"] == "distance"]
    needles = [result for result in results if result["task"] == "needle"]
    panels = [("random tokens: log-likelihood less full's, nats", distance_series(distances)),
              ("needles: share that was found", needle_series(needles))]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return None
    figure, axes = new_figure(3.6, columns=len(panels))
    for panel, (title, series) in zip([axes] if len(panels) == 1 else axes, panels):
        draw_by_policy(panel, series, bits_of(results), theme)
        panel.set_title(title, loc="left", fontsize=11)
        panel.get_legend().set_title("tokens ago" if "random" in title else "tokens", prop={"size": 9})
    return figure


# ---- kv_quant_bench: speed by size, error by bits


def draw_variants(results, theme):
    """Bytes a second that all steps move, by elements; copies of the same device as dashes."""
    figure, axes = new_figure(4.4)
    rows = [row for result in results for row in result["results"] if "skipped" not in row]
    if not rows:
        return None
    series, copies = {}, {}
    for row in sorted(rows, key=lambda row: row["n_tokens"] * row["n_channels"]):
        elements = row["n_tokens"] * row["n_channels"]
        series.setdefault(row["variant"], []).append((elements, row["bytes_per_second"] / 1e9))
        copies.setdefault(row["device"], {})[elements] = row["copy_bandwidth"] / 1e9
    for i, (variant, points) in enumerate(series.items()):
        axes.plot(*zip(*points), marker=MARKERS[i % 8], color=theme.colours[i % 8], linewidth=1.5, label=variant)
    for device, points in copies.items():
        axes.plot(*zip(*sorted(points.items())), "--", color=theme.ink, linewidth=1, label=f"copies, {device}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("elements, tokens times channels")
    axes.set_ylabel("GB/s, quantized and back")
    axes.grid(True, linewidth=0.6)
    legend_above(figure, 4)
    return figure


def draw_codecs(results, theme):
    """Relative error of keys by bits of an element, scales counted; a line joins a codec with its rotated form."""
    rows = [row for result in results for row in result["codecs"]
            if "skipped" not in row and row["side"] == "keys" and row["relative_error"] > 0]
    data = list(dict.fromkeys(row["data"] for row in rows))
    if not rows:
        return None
    figure, panels = new_figure(4.2, columns=len(data))
    for axes, name in zip([panels] if len(data) == 1 else panels, data):
        codecs = {}
        for row in (row for row in rows if row["data"] == name):
            codecs.setdefault(row["codec"], []).append(row)
        for i, (codec, forms) in enumerate(codecs.items()):
            colour = theme.colours[family_of(codec)]
            axes.plot([8 * row["bytes_per_element"] for row in forms], [row["relative_error"] for row in forms], color=colour)
            for row in forms:
                axes.plot(8 * row["bytes_per_element"], row["relative_error"], MARKERS[family_of(codec)], color=colour,
                          markerfacecolor=colour if row["rotated"] else "none")
            top = max(forms, key=lambda row: row["relative_error"])
            axes.annotate(codec, (8 * top["bytes_per_element"], top["relative_error"]), (0, 6), textcoords="offset points",
                          ha="center", fontsize=9, color=colour)
        axes.set_yscale("log")
        axes.set_title(f"{name}, as keys", loc="left", fontsize=11)
        axes.set_xlabel("bits of an element, scales counted")
        axes.set_ylabel("relative error; filled: rotated")
        axes.grid(True, linewidth=0.6)
    return figure


# ---- All


PICTURES = [(lambda result: "results" in result and "devices" in result, draw_variants),
            (lambda result: "codecs" in result, draw_codecs),
            (lambda result: "results" in result, draw_speed),
            (lambda result: "task" in result, draw_recall),
            (lambda result: "kld" in result or "modes" in result, draw_divergence)]


def kind_of(result):
    return next((i for i, (is_it, _) in enumerate(PICTURES) if isinstance(result, dict) and is_it(result)), None)


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
    except (OSError, ValueError) as error:
        sys.exit(f"plot.py: error: {path}: {error}; name a file that --json has written")
    if kind_of(result) is None:
        sys.exit(f"plot.py: error: {path}: nothing is drawn of this; name what --json of bench, kv_quant_bench, perplexity or recall has written")
    return result


def draw(stem, paths):
    """Writes STEM-light.svg and STEM-dark.svg."""
    results = [load(path) for path in paths]
    kinds = {kind_of(result) for result in results}
    if len(kinds) > 1:
        sys.exit(f"plot.py: error: {', '.join(map(str, paths))}: not of one kind; draw a picture of each")
    for theme in BOTH_THEMES:
        with plt.rc_context({**theme.parameters(), "svg.fonttype": "none"}):  # the reader's fonts: half the size
            figure = PICTURES[min(kinds)][1](results, theme)
            if figure is None:
                sys.exit(f"plot.py: error: {', '.join(map(str, paths))}: nothing in them is compared with a full cache; measure with "
                         "--compare or several --kv_policy")
            figure.savefig(f"{stem}-{theme.name}.svg", metadata={"Date": None})
            plt.close(figure)
