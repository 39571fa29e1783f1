"""eval/plot.py on results: pictures of what docs/data records, with their words and points, and what is no result.
Needs matplotlib; without it the test is skipped (77)."""

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
    check_picture(folder, "divergence", sorted(DATA.glob("codecs-*.json")), {"int8", "int3", "fp8", "rotated"})
    check_picture(folder, "recall", sorted(DATA.glob("recall-*.json")) + sorted(DATA.glob("needle-*.json")),
                  {"full", "dropped", "8.25 bits", "64", "2,048"})
    check_picture(folder, "needles", [DATA / "needle-2048.json"], {"4.5 bits", "2,048"})


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


def main():
    if importlib.util.find_spec("matplotlib") is None:
        print("skipped: no matplotlib")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        check_pictures(pathlib.Path(folder))
        check_errors(pathlib.Path(folder))
    check_intervals()


main()
