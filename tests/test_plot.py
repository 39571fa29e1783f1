"""eval/plot.py on results: pictures of what docs/data records, with their words and points, and what is no result; and on
profiles: bars and points where the data has them, the report's places filled for both kinds of screen, or left. Needs matplotlib; without it the test is skipped (77)."""

import importlib.util
import json
import pathlib
import sys
import tempfile
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "docs" / "data"
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "eval"))


def run(*arguments):
    """The error that plot.py ends with; None: none."""
    import plot
    sys.argv = ["plot.py", *map(str, arguments)]
    try:
        return plot.main()
    except SystemExit as end:
        return end.code


def words_of(path):
    texts = [element.text for element in xml.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    return {text.strip() for text in texts if text}


def check_picture(folder, name, files, words):
    assert run(folder / name, *files) is None
    for theme in ("light", "dark"):
        missing = words - words_of(folder / f"{name}-{theme}.svg")
        assert not missing, f"{name}-{theme}.svg does not say {missing}"


def check_pictures(folder):
    check_picture(folder, "speed", [DATA / "speed.json"], {"full", "quantized (int8)", "tokens a second", "MB of cache", "8,000"})
    by_layer = "by layer: --kv_budget"
    check_picture(folder, "divergence", sorted(DATA.glob("codecs-*.json")), {"int8", "int3", "fp8", "rotated"})
    assert by_layer not in words_of(folder / "divergence-light.svg")
    check_picture(folder, "budgets", sorted(DATA.glob("budget-*.json")), {by_layer, "bits of an old element, scales counted"})
    check_picture(folder, "recall", sorted(DATA.glob("recall-*.json")) + sorted(DATA.glob("needle-*.json")),
                  {"full", "dropped", "8.25 bits", "64", "2,048"})
    check_picture(folder, "needles", [DATA / "needle-2048.json"], {"4.5 bits", "2,048"})


def check_kv_quant(folder):
    row = {"device": "cpu", "variant": "row_major", "n_tokens": 1024, "n_channels": 64, "bytes_per_second": 4e9,
           "copy_bandwidth": 8e10}
    skipped = {"device": "cpu", "variant": "column_walk", "n_tokens": 9, "n_channels": 9, "skipped": "no memory"}
    (folder / "variants.json").write_text(json.dumps({"devices": [], "results": [row, {**row, "n_tokens": 4096}, skipped]}))
    check_picture(folder, "variants", [folder / "variants.json"], {"row_major", "copies, cpu", "GB/s, quantized and back"})
    assert "column_walk" not in words_of(folder / "variants-light.svg")
    codec = {"data": "normal", "side": "keys", "codec": "int4", "rotated": False, "bytes_per_element": 0.5625, "relative_error": 0.09}
    (folder / "codecs.json").write_text(json.dumps({"codecs": [codec, {**codec, "rotated": True}, {**codec, "side": "values"},
                                                               {**codec, "codec": "nf4", "skipped": "head_dim"}]}))
    check_picture(folder, "codecs", [folder / "codecs.json"], {"int4", "normal, as keys"})


def check_errors(folder):
    (folder / "other.json").write_text(json.dumps({"text": ""}))
    (folder / "alone.json").write_text(json.dumps({"task": "distance", "modes": [
        {"mode": "full", "policy": "f16:*", "points": [{"distance": 64, "n": 1, "log_likelihood": -1}]}]}))
    for files, message in (([folder / "alone.json"], "nothing in them is compared"), ([folder / "missing.json"], "No such file"), ([ROOT / "README.md"], "README.md"),
                           ([folder / "other.json"], "nothing is drawn of this"),
                           ([DATA / "speed.json", DATA / "recall-near.json"], "not of one kind")):
        error = run(folder / "none", *files)
        assert error.startswith("plot.py: error: ") and message in error and "\n" not in error, error
    assert not list(folder.glob("none*"))


def check_intervals():
    """Newcombe's examples of the score interval (Statistics in Medicine 17, 1998, table I)."""
    from plot_results import wilson
    for right, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)):
        below, above = wilson(right, n)
        assert abs(right / n - below - low) < 5e-5 and abs(right / n + above - high) < 5e-5, (right, n, below, above)


# ---- Profiles


def mode_of(name, policy, cache, perplexity, divergence):
    """A run with so many bytes of cache, and a step of 4 ms of which one operation is under 1 %."""
    operations = [{"operation": o, "share": ms / 4, "seconds": ms * 1e-2} for o, ms in (("attention", 1.0), ("down", 2.9), ("embedding", 0.03))]
    phase = {"phase": "decode", "tokens": 10, "operations": operations, "unaccounted_seconds": 0.07e-2}
    run = {"mode": name, "policy": policy, "n_ctx": 512, "weights_bytes": 100e6, "activations_bytes": 3e6, "moments_bytes": 1e6 * (name == "quantized"),
           "profile": {"phases": [phase]},
           "tiers": [{"name": "f16", "bytes": cache}], "growth": [{"tokens": n, "bytes_held": n * cache / 512} for n in (0, 512)]}
    quality = {"mode": name, "policy": policy, "ppl": perplexity, "ppl_stderr": 0.5}
    if divergence:
        quality |= {"kld": {"mean": divergence, "stderr": divergence / 10, "same_top1": 0.9}, "rouge": {"f": 0.8, "f_stderr": 0.1}}
    return run, quality


def make_summary():
    pairs = [mode_of("full", "f16:*", 40e6, 20.0, 0), mode_of("compressed", "f16:32", 2e6, 40.0, 0.5),
             mode_of("quantized", "f16:32,int8:*", 20e6, 20.1, 1e-4)]
    rows = [{"mode": m["mode"], "policy": m["policy"], "depth": d, "decode_tokens_per_second": 100 - d / 10}
            for m, _ in pairs for d in (0, 400)]
    return {"modes": [m for m, _ in pairs], "quality": {"modes": [q for _, q in pairs]},
            "recall": {"modes": [{"mode": m["mode"], "policy": m["policy"], "points": [
                {"distance": d, "right": d / 500, "right_stderr": 0.02} for d in (64, 256)]} for m, _ in pairs]},
            "depths": {"results": rows, "break_even": {"f16:32": 200, "f16:32,int8:*": None}}}


def check_bars(figure, sums):
    """The bars of each row end where its sum is, without gaps."""
    bars = [bar for bar in figure.axes[0].patches if bar.get_width() > 0]
    for row, expected in enumerate(sums):
        ends = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars if round(bar.get_y() + 0.3) == row)
        assert ends[0][0] == 0 and all(abs(a[1] - b[0]) < 1e-9 for a, b in zip(ends, ends[1:])), ends
        assert abs(ends[-1][1] - expected) < 1e-6, (row, ends, expected)


def check_points(axes, values, errors):
    """Points, and how far their bars reach to each side."""
    for container, value, error in zip(axes.containers, values, errors):
        point, _, (bar,) = container
        assert list(point.get_xdata()) == [value]
        low, high = bar.get_segments()[0][:, 0]
        assert abs(value - low - error) < 1e-9 and abs(high - value - error) < 1e-9, (value, low, high)
    assert len(axes.containers) == len(values)


def check_figures():
    import plot
    from plot_style import BOTH_THEMES
    summary = make_summary()
    for theme in BOTH_THEMES:
        assert len(set(theme.colours)) == 8
        check_bars(plot.draw_memory(summary, theme), [143, 105, 124])
        check_bars(plot.draw_operations(summary, theme), [4, 4, 4])
        quality = plot.draw_quality(summary, theme)
        check_points(quality.axes[0], [20, 40, 20.1], [0.5, 0.5, 0.5])
        check_points(quality.axes[1], [0.5, 1e-4], [0.05, 1e-5])
        assert quality.axes[1].get_xscale() == "log" and quality.axes[0].get_xscale() == "linear"
        check_points(quality.axes[3], [0.8, 0.8], [0.1, 0.1])
        recall = plot.draw_recall(summary, theme).axes[0]
        for at, container in enumerate(recall.containers):
            point, _, (bars,) = container
            assert [round(float(y), 9) for y in point.get_ydata()] == [12.8, 51.2]
            assert abs(bars.get_segments()[1][1][1] - 53.2) < 1e-9
        assert at == 2 and plot.draw_recall({"recall": {"left_out": "no room"}}, theme) is None
        plot.plt.close("all")


def check_crossing():
    """Lines cross where the times of a token, as straight lines, are equal: 5 + d / 100 and 8 + d / 200 ms at 600."""
    from plot import line_through
    lines = [line_through([(d, 1e3 / (a + d * b), "") for d in (0, 400, 1000)]) for a, b in ((5, 0.01), (8, 0.005))]
    assert lines[0][0] == lines[1][0] and set(lines[0][0]) >= {0, 400, 1000}
    slower = [x for x, a, b in zip(lines[0][0], lines[0][1], lines[1][1]) if a < b]
    assert 600 < slower[0] <= 600 + 600 / 32, slower


def draw_profile(folder, summary):
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    names = ("memory", "growth", "depth", "quality", "recall", "operations")
    (folder / "report.html").write_text("".join(f"<p>{name}<!--figure {name}-->" for name in names))
    assert run(folder) is None
    return {name for name in names if f"<!--figure {name}-->" not in (folder / "report.html").read_text()}


def check_profiles(folder):
    """What the data does not have is no picture, and its place in the report stays."""
    summary = make_summary()
    assert draw_profile(folder / "all", summary) == {"memory", "growth", "depth", "quality", "recall", "operations"}
    html = (folder / "all" / "report.html").read_text()
    assert html.count("data:image/svg+xml;base64,") == 12 and html.count('media="(prefers-color-scheme: dark)"') == 6
    assert sorted(p.name for p in (folder / "all").glob("*.png"))[0] == "depth.png" and len(list((folder / "all").glob("*.svg"))) == 6
    del summary["quality"], summary["recall"], summary["depths"]
    assert draw_profile(folder / "runs", summary) == {"memory", "growth", "operations"}
    assert draw_profile(folder / "none", {"modes": []}) == set()
    error = run(folder / "nowhere")
    assert error.startswith("plot.py: error: ") and "must be a folder" in error, error


def main():
    if importlib.util.find_spec("matplotlib") is None:
        print("skipped: no matplotlib")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        check_pictures(pathlib.Path(folder))
        check_kv_quant(pathlib.Path(folder))
        check_errors(pathlib.Path(folder))
        check_profiles(pathlib.Path(folder))
    check_figures()
    check_crossing()
    check_intervals()


main()
