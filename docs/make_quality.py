#!/usr/bin/env python3
"""Regenerates the tables and pictures of docs/quality.md: runs build/perplexity, build/rouge and build/recall, keeps each run's
JSON, and fills what stands between the page's markers. The prose is written by hand.

    python3 docs/make_quality.py --checkpoint MODEL.gguf --data FOLDER [--gemma MODEL.gguf] [--work FOLDER] [--only RUN …]

FOLDER of --data holds wiki.test.raw and xsum.jsonl. Runs of the second model are made where --gemma names it. A run whose JSON is in --work is not repeated, so an interrupted
regeneration goes on where it stopped; all runs together take some six hours on two cores. What pictures show of the results is
recorded in docs/data; they are drawn from there where this Python has matplotlib. A run of recall that Ctrl-C ends has written
its first samples all the same."""

import argparse
import importlib.util
import json
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CODECS = ["int8", "q8_0", "fp8", "q4_1", "q4_0", "int4", "nf4", "int2"]
WIDTHS = ["int8g", "int6", "int4", "int3", "int2"]  # one arithmetic, so that bits alone differ
BY_CHANNEL = WIDTHS + ["int8"]  # their keys can be rounded in both ways
BOTH = ("nearest", "aware")
WINDOWS = [32, 128, 512]
CHUNKS = {(512, 32): 8, (512, 128): 8, (2048, 32): 4, (2048, 128): 2, (2048, 512): 2,
          (8192, 32): 1, (8192, 128): 1, (8192, 512): 1}


def has_roundings(tiers):
    return any(re.match(r"\w*", tier)[0] in BY_CHANNEL for tier in tiers.split(","))


def prefix(rotate=None, rounding=None):
    return (f"rotate={rotate}," if rotate else "") + (f"rounding={rounding}," if rounding else "")


def layer_policy(tiers, window=32, sink=16):
    return f"sink={sink},f16:{window}" + (f",{tiers}:*" if tiers else "")


def policy(tiers, window=32, sink=16, rotate=None, rounding=None):
    return prefix(rotate, rounding) + layer_policy(tiers, window, sink)


def nearest(tiers, window=32, sink=16, rotate=None):
    return policy(tiers, window, sink, rotate, "nearest" if has_roundings(tiers) else None)


def both(tiers, window=32, rotate=None):
    """A policy for each way in which these tiers' keys can be rounded."""
    roundings = BOTH if has_roundings(tiers) else [None]
    return [policy(tiers, window, rotate=rotate, rounding=rounding) for rounding in roundings]


def perplexity(context, chunks, policies=(), *more, model="$MODEL"):
    command = ["build/perplexity", "--checkpoint_path", model, "--text_file", "$DATA/wiki.test.raw", "--context",
               str(context), "--chunks", str(chunks)]
    for text in policies:
        command += ["--kv_policy", text]
    return command + list(more)


def codec_grid(context, window):
    if context == 8192 and window > 32:  # each costs minutes: the codecs that one would choose
        return [policy("", window), nearest("int8", window, rotate="off")] + \
               [text for codec in ("int8", "q4_0", "int4", "nf4") for text in both(codec, window, "on")]
    grid = [policy("", window)]
    for codec in CODECS:
        main = (context, window) == (2048, 32)  # unrotated keys that are rounded with queries, too
        grid += both(codec, window, "off") if main else [nearest(codec, window, rotate="off")]
        grid += both(codec, window, "on")
    return grid


# Name in the study (evaluation of 2026-11-22, numpy in float32), its figures, our policy.
STUDY = [
    ("q8_0, no sink, no window", 0.000417, 98.8, "rotate=off,f16:0,q8_0:*"),
    ("q8_0", 0.000067, 99.7, nearest("q8_0", rotate="off")),
    ("int8 channel / int8 per token", 0.000069, 99.8, nearest("int8", rotate="off")),
    ("int8 channel / q4_0 r", 0.000433, 99.2, nearest("int8/q4_0", rotate="v")),
    ("int8 channel / nf4 r", 0.000553, 99.0, nearest("int8/nf4", rotate="v")),
    ("q4_0 r, no sink, no window", 0.0367, 89.7, "rotate=on,f16:0,q4_0:*"),
    ("q4_0", 0.0203, 93.3, nearest("q4_0", rotate="off")),
    ("q4_0 r", 0.0067, 96.5, nearest("q4_0")),
    ("q4_1", 0.0120, 95.0, nearest("q4_1", rotate="off")),
    ("q4_1 r", 0.0059, 96.9, nearest("q4_1")),
    ("nf4", 0.0196, 94.4, nearest("nf4", rotate="off")),
    ("nf4 r", 0.0097, 95.6, nearest("nf4")),
    ("int4 channel / int4 of 64", 0.0051, 97.4, nearest("int4", rotate="off")),
    ("int4 channel / int4 r, window 512", 0.0034, 98.2, nearest("int4", 512, rotate="v")),
    ("int2 of 32, channel", 0.182, 79.0, "rotate=off,rounding=nearest,block=32,sink=16,f16:32,int2:*"),
]

PAIRS = [
    ("int8g/int8", None), ("int8", None), ("int8/q5_1", None), ("int8/q4_1", None), ("int8/int4", None),
    ("int8/q4_0", None), ("int8/nf4", None), ("int8/int2", None), ("int6/q5_0", None), ("q5_1", None), ("q5_0", None),
    ("q5_1/int4", None), ("q5_0/nf4", None), ("int4/q5_0", None), ("int4", None), ("int4", "k"), ("int4", "v"),
    ("int4/nf4", None), ("nf4/int4", None), ("nf4/int8", None), ("int4/int3", None), ("int4/int2", None),
    ("int3/int2", None), ("int8:512,int4", None), ("int8:512,int4/nf4", None),
]

# What sink and window each save, for eight bits and for four.
SINKS = [(sink, window, codec) for codec in ("q8_0", "q4_0")
         for sink, window in ((0, 0), (16, 0), (0, 32), (4, 32), (16, 32), (64, 32), (16, 128))]

# The six layers in which attribution finds the largest errors of the output, against six others: the same bytes.
WORST, OTHERS = ("@7:{0};@17-18:{0};@20:{0};@23-24:{0};@*:{1}", "@1:{0};@11-13:{0};@16:{0};@27:{0};@*:{1}")
LAYERS = [("all layers int4", nearest("int4"))] + [
    (f"{tiers} in {what} six layers", prefix(rounding="nearest") + text.format(layer_policy(tiers), layer_policy("int4")))
    for tiers in ("int8", "int8/int4") for what, text in (("the worst", WORST), ("the best", OTHERS))]

# The second model's codecs, and what of each is rotated.
GEMMA_CODECS = [("int8", "off"), ("int8", "on"), ("q8_0", "off"), ("fp8", "off"), ("int8/nf4", "v"), ("q4_1", "off"), ("q4_1", "on"),
                ("q4_0", "off"), ("q4_0", "on"), ("int4", "off"), ("int4", "on"), ("int4", "v"), ("int4/nf4", "on"),
                ("int4/nf4", "v"), ("nf4", "off"), ("nf4", "on"), ("int2", "on"), ("int2", "v")]

RUNS = {
    "anchor-512": perplexity(512, 20),
    "anchor-2048": perplexity(2048, 4),
    "definition-hf": perplexity(1024, 8, (), "--ppl_mode", "hf", "--stride", "512"),
    "definition-gptq": perplexity(2048, 4, (), "--ppl_mode", "gptq"),
    "study": perplexity(2048, 2, [row[3] for row in STUDY]),
    "pairs-2048": perplexity(2048, 2, [text for tiers, rotate in PAIRS for text in both(tiers, rotate=rotate)]),
    "layers": perplexity(2048, 4, [text for _, text in LAYERS]),
    "sinks": perplexity(2048, 2, [nearest(codec, window, sink) for sink, window, codec in SINKS]),
    "attribution": perplexity(2048, 2, [nearest("int8"), nearest("int4", rotate="off"), nearest("int4"), nearest("q4_0")],
                              "--attribution"),
}
for (_context, _window), _chunks in CHUNKS.items():
    RUNS[f"codecs-{_context}-{_window}"] = perplexity(_context, _chunks, codec_grid(_context, _window))
RUNS["codecs-widths"] = perplexity(2048, 4, [text for codec in WIDTHS if codec not in CODECS for rotate in ("off", "on")
                                             for text in both(codec, rotate=rotate)])
RUNS["gemma-512"] = perplexity(512, 20, model="$GEMMA")
RUNS["gemma-2048"] = perplexity(2048, 4, model="$GEMMA")
RUNS["gemma-codecs"] = perplexity(2048, 4, [policy("")] + [text for tiers, rotate in GEMMA_CODECS
                                                           for text in both(tiers, rotate=rotate)], model="$GEMMA")
BUDGETS = ("3", "3.5", "4", "4.5", "5", "6")  # bits
for _bits in BUDGETS:
    RUNS[f"budget-{_bits}"] = perplexity(2048, 4, (), "--kld", "--kv_budget", f"{_bits}b")
RUNS["rouge"] = ["build/rouge", "--checkpoint_path", "$MODEL", "--data", "$DATA/xsum.jsonl", "--prompt_field", "article",
                 "--reference_field", "summary", "--samples", "200", "--max_new_tokens", "64", "--compare"]
RECALLED = ["f16:*"] + [policy(codec) for codec in ("int8", "q4_0", "int4", "int2", "")]


def recall(*more):
    command = ["build/recall", "--checkpoint_path", "$MODEL"]
    for text in RECALLED:
        command += ["--kv_policy", text]
    return command + list(more)


RUNS["recall-near"] = recall("--distances", "64,256,1024", "--samples", "50")
RUNS["recall-far"] = recall("--distances", "4096", "--samples", "10")  # where the full cache itself recalls nothing
NEEDLES = {512: (10, 20), 1024: (10, 20), 2048: (10, 20), 4096: (5, 40)}  # positions and samples of each, by length
for _length, (_positions, _samples) in NEEDLES.items():
    RUNS[f"needle-{_length}"] = recall("--needle", "--lengths", str(_length), "--positions", str(_positions), "--samples",
                                       str(_samples))

PICTURES = {"divergence": ["codecs-2048-32", "codecs-widths"] + [f"budget-{bits}" for bits in BUDGETS],
            "recall": [name for name in RUNS if name.startswith(("recall-", "needle-"))]}


# ---- Running


def run(name, arguments):
    result = arguments.work / f"{name}.json"
    if result.exists():
        return
    places = {"$MODEL": arguments.checkpoint, "$GEMMA": arguments.gemma, "$DATA": arguments.data}
    if any(word in places and places[word] is None for word in RUNS[name]):
        return print(f"{name} is left out, for want of --gemma", file=sys.stderr)
    command = [re.sub(r"\$[A-Z]+", lambda m: str(places[m[0]]), word) for word in RUNS[name]] + ["--json", str(result)]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    if name == "rouge":
        command += ["--output", str(arguments.work / "rouge.jsonl")]
    print("+", shlex.join(command), file=sys.stderr)
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)


# ---- Tables


def rows(result):
    """One object for each policy; the first is the full cache where several were run."""
    return result.get("modes", [result])


def with_error(value, error, digits):
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def kld_text(kld):
    return f"{kld['mean']:.2g} ± {kld['stderr']:.1g}" if kld["mean"] >= 0.001 else \
        f"{kld['mean']:.6f} ± {kld['stderr']:.6f}"


def markdown(header, lines):
    out = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(out + ["| " + " | ".join(line) + " |" for line in lines])


def shown_commands(names):
    """In one block; of recall's, with the policies that all of them have once."""
    policies = [word for text in RECALLED for word in ("--kv_policy", text)]
    if not names[0].startswith(("recall-", "needle-")):
        return "\n".join(["```sh"] + [folded(RUNS[name]) for name in names] + ["```"])
    lines = [folded([word for word in RUNS[name] if word not in policies]) + ' "${policies[@]}"' for name in names]
    return "\n".join(["```sh", "policies=(" + folded(policies) + ")"] + lines + ["```"])


def folded(command):
    words = [word if word.startswith("$") else shlex.quote(word) for word in command]
    flags = re.sub(r" (?=--)", "\n", " ".join(words)).split("\n")  # a flag and its value stay on one line
    lines = [flags[0]]
    for flag in flags[1:]:
        if len(lines[-1]) + len(flag) > 115:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += " " + flag
    return "\n".join(lines)


def cells(mode):
    kld = mode["kld"]
    return [f"{mode['bits_per_old_element']:.2f}", f"{mode['kv_bytes'] / mode['kv_bytes_full']:.3f}",
            f"{mode['ppl']:.4f}", with_error(mode["ln_ratio"], mode["ln_ratio_stderr"], 6), kld_text(kld),
            f"{kld['p99']:.2g}", f"{100 * kld['same_top1']:.2f} %"]


CELLS = ["bits of an old element", "cache of full", "PPL", "ln(PPL / full)", "KLD", "KLD 99 %", "same top 1"]


# llama.cpp's perplexities, of all chunks and of the first ones where it was asked for them.
ANCHORS = {"anchor-512": ("llama.cpp, 512 × 20", 28.6250, [12.9560, 21.3753, 22.5255, 22.7458, 22.2583]),
           "anchor-2048": ("llama.cpp, 2,048 × 4", 20.8676, [16.4377, 19.6078, 21.6128, 20.8676]),
           "gemma-512": ("llama.cpp, 512 × 20", 18.9504, []),
           "gemma-2048": ("llama.cpp, 2,048 × 4", 16.7813, [])}


def anchor_table(names):
    def make(results):
        header, lines = ["definition", "llama.cpp", "stowkv", "difference"], []
        for name in names:
            (label, ppl, chunks), ours = ANCHORS[name], results[name]
            lines.append([label, f"{ppl:.4f}", with_error(ours["ppl"], ours["ppl_stderr"], 4),
                          f"{100 * (ours['ppl'] / ppl - 1):+.4f} %"])
            if chunks:
                worst = max(abs(a / b - 1) for a, b in zip(ours["ppl_by_chunk"], chunks))
                lines[-1].append(f"{100 * worst:.4f} %")
        return markdown(header + ["largest over the first chunks"] * (len(lines[0]) - len(header)), lines)
    return make


def definition_table(results):
    lines = []
    for name in ("anchor-2048", "definition-gptq", "definition-hf"):
        r = results[name]
        lines.append([f"`{r['definition']}`", str(r["context"]), str(r["stride"]), r["bos"], str(r["tokens_scored"]),
                      with_error(r["ppl"], r["ppl_stderr"], 4)])
    return markdown(["`--ppl_mode`", "context", "stride", "BOS", "tokens scored", "PPL"], lines)


def study_table(results):
    by_policy = {mode["policy"]: mode for mode in rows(results["study"])}
    lines = []
    for (label, kld, same, _), mode in zip(STUDY, rows(results["study"])[1:]):
        ours = mode["kld"]
        lines.append([label, f"{mode['bits_per_old_element']:.2f}", f"{kld:.6f}".rstrip("0"), kld_text(ours),
                      f"{(ours['mean'] - kld) / ours['stderr']:+.1f}", f"{same} %", f"{100 * ours['same_top1']:.1f} %",
                      f"`{mode['policy']}`"])
    assert by_policy
    return markdown(["K / V", "bits", "study: KLD", "ours", "standard errors apart", "study: same top 1", "ours",
                     "policy"], lines)


def label_of(mode):
    """The last tier's codec, what of it is rotated, and whether its keys are rounded with an eye to the queries."""
    if mode["mode"] == "compressed":
        return "dropped"
    tier = mode["tiers"][-1]
    rotated = {(True, True): " r", (True, False): ", keys r", (False, True): ", values r", (False, False): ""}
    return tier["name"] + rotated[tier["rotated_k"], tier["rotated_v"]] + (", aware" if tier["aware_k"] else "")


def codec_table(names, codecs=None):
    """The policies of one or several runs, or those of the codecs that are named, in their order."""
    def make(results):
        modes = [mode for name in names for mode in rows(results[name])[1:]]
        if codecs is not None:
            modes = sorted((mode for mode in modes if mode["tiers"][-1]["name"] in codecs),
                           key=lambda mode: codecs.index(mode["tiers"][-1]["name"]))
        full = rows(results[names[0]])[0]
        lines = [["full", "16.00", "1.000", f"{full['ppl']:.4f}", "", "", "", ""]]
        return markdown(["codec"] + CELLS, lines + [[label_of(mode)] + cells(mode) for mode in modes])
    return make


def budget_table(results):
    lines = [[f"`--kv_budget {bits}b`"] + cells(rows(results[f"budget-{bits}"])[1]) for bits in BUDGETS]
    return markdown(["codecs by layer"] + CELLS, lines)


def pair_table(results):
    def sides(tier):
        return " / ".join(tier["codec_" + side] + (" r" if tier["rotated_" + side] else "") for side in "kv") + \
            (", aware" if tier["aware_k"] else "")

    def tiers(mode):
        return ", then ".join(sides(tier) for tier in mode["tiers"][2:])
    modes = sorted(rows(results["pairs-2048"])[1:], key=lambda mode: mode["kld"]["mean"])
    return markdown(["K / V"] + CELLS, [[tiers(mode)] + cells(mode) for mode in modes])


def sink_table(results):
    lines = [[codec, str(sink), f"{window} to {window + 63}"] + cells(mode)
             for (sink, window, codec), mode in zip(SINKS, rows(results["sinks"])[1:])]
    return markdown(["codec", "sink", "FP16 at the end"] + CELLS, lines)


def layer_table(results):
    return markdown(["policy"] + CELLS, [[label] + cells(mode)
                                         for (label, _), mode in zip(LAYERS, rows(results["layers"])[1:])])


def attribution_table(results):
    modes = [mode for mode in rows(results["attribution"]) if "attribution" in mode]
    lines = []
    for layer in range(max(row["layer"] for row in modes[0]["attribution"]) + 1):
        line = [str(layer)]
        for mode in modes:
            heads = [row for row in mode["attribution"] if row["layer"] == layer]
            line += [f"{100 * max(row[what] for row in heads):.2f}" for what in ("k", "v", "output")]
        lines.append(line)
    header = ["layer"]
    for mode in modes:
        header += [f"`{mode['policy']}` K", "V", "output"]
    return markdown(header, lines)


def rouge_table(results):
    lines = []
    for mode in results["rouge"]["modes"]:
        difference = mode.get("difference")
        interval = "" if difference is None else \
            f"{difference['f']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
        lines.append([f"`{mode['policy']}`"] + [f"{mode[key]:.4f}" for key in ("precision", "recall", "f")] + [interval])
    return markdown(["policy", "P", "R", "F", "F less full's, 95 % interval"], lines)


def recall_table(results):
    runs = [rows(results[name]) for name in TABLES["recall"][1]]
    modes = [{**parts[0], "points": [point for part in parts for point in part["points"]]} for parts in zip(*runs)]
    points = modes[0]["points"]
    lines = [["samples", ""] + [str(point["n"]) for point in points]]
    for mode in modes:
        line = [f"`{mode['policy']}`", f"{mode['bits_per_old_element']:.2f}"]
        for point in mode["points"]:
            what = with_error(point["log_likelihood"], point["stderr"], 2) if "less_full" not in point else \
                f"{point['less_full']:+.3f} ± {point['less_full_stderr']:.3f}"
            line.append(f"{what}; {100 * point['right']:.1f} ± {100 * point['right_stderr']:.1f} %")
        lines.append(line)
    return markdown(["policy", "bits of an old element"] + [f"{point['distance']:,} tokens ago" for point in points], lines)


def needle_table(results):
    runs = [rows(results[name]) for name in TABLES["needle"][1]]
    lines = []
    for modes in zip(*runs):
        line = [f"`{modes[0]['policy']}`"]
        for points in (mode["points"] for mode in modes):
            n, right = sum(p["n"] for p in points), sum(round(p["n"] * p["right"]) for p in points)
            line.append(f"{right / n:.3f} ({right} of {n})")
        lines.append(line)
    return markdown(["policy"] + [f"{modes[0]['points'][0]['length']:,} tokens" for modes in runs], lines)


ANCHORED = {"anchors": ["anchor-512", "anchor-2048"], "gemma-anchors": ["gemma-512", "gemma-2048"]}
TABLES = {**{name: (anchor_table(runs), runs) for name, runs in ANCHORED.items()},
          "definitions": (definition_table, ["definition-gptq", "definition-hf"]),
          "codecs-widths": (codec_table(["codecs-widths", "codecs-2048-32"], WIDTHS), ["codecs-widths"]),
          "gemma-codecs": (codec_table(["gemma-codecs"]), ["gemma-codecs"]),
          "study": (study_table, ["study"]),
          "pairs": (pair_table, ["pairs-2048"]),
          "layers": (layer_table, ["layers"]),
          "sinks": (sink_table, ["sinks"]),
          "attribution": (attribution_table, ["attribution"]),
          "budgets": (budget_table, [f"budget-{bits}" for bits in BUDGETS]),
          "rouge": (rouge_table, ["rouge"]),
          "recall": (recall_table, ["recall-near", "recall-far"]),
          "needle": (needle_table, [f"needle-{length}" for length in NEEDLES])}
for _name in RUNS:
    if _name.startswith("codecs-"):
        TABLES.setdefault(_name, (codec_table([_name]), [_name]))


def fill(page, results):
    def replace(match):
        make, runs = TABLES[match[1]]
        needed = [name for name in runs if name not in results]
        if needed:
            print(f"docs/quality.md: {match[1]} stays as it is, for want of {', '.join(needed)}", file=sys.stderr)
            return match[0]
        body = make(results) + "\n\n" + shown_commands(runs)
        return f"<!-- begin {match[1]} -->\n{body}\n<!-- end {match[1]} -->"
    return re.sub(r"<!-- begin (\S+) -->.*?<!-- end \1 -->", replace, page, flags=re.S)


# ---- Pictures

RECORDED = ("mode", "policy", "bits_per_old_element", "kld", "points")
RECORDED_OF_TIERS = ("name", "bits_per_element", "rotated_k", "rotated_v", "aware_k")
RECORDED_ONCE = ("task", "definition", "context", "chunks", "device", "threads", "simd", "segment", "scored", "samples", "seed",
                 "haystack", "positions", "max_new_tokens")


def recorded(result):
    """What pictures show of a result, and how it came about; a line for each policy."""
    modes = []
    for mode in rows(result):
        kept = {key: mode[key] for key in RECORDED if key in mode}
        kept["tiers"] = [{key: tier[key] for key in RECORDED_OF_TIERS if key in tier} for tier in mode["tiers"]]
        modes.append(json.dumps(kept))
    once = {"model": pathlib.Path(result["model"]).name} if "model" in result else {}
    once |= {key: result[key] for key in RECORDED_ONCE if key in result}
    return json.dumps(once)[:-1] + ', "modes": [\n' + ",\n".join(modes) + "\n]}\n"


def draw_pictures(results):
    data = ROOT / "docs" / "data"
    for name in {name for names in PICTURES.values() for name in names} & set(results):
        (data / f"{name}.json").write_text(recorded(results[name]))
    if importlib.util.find_spec("matplotlib") is None:
        print("docs/pictures stay as they are, for want of matplotlib", file=sys.stderr)
        return
    for picture, names in PICTURES.items():
        files = [f"docs/data/{name}.json" for name in names if (data / f"{name}.json").exists()]
        subprocess.run([sys.executable, "eval/plot.py", f"docs/pictures/{picture}"] + files, cwd=ROOT, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--gemma", type=pathlib.Path, help="Gemma 3 270M")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("quality-runs"))
    parser.add_argument("--only", nargs="+", choices=list(RUNS), help="run these alone")
    parser.add_argument("--threads", type=int, help="of each program; no figure depends on it")
    parser.add_argument("--no-run", action="store_true", help="fill the page from what has been run")
    arguments = parser.parse_args()
    for what in ("checkpoint", "gemma", "data", "work"):
        if getattr(arguments, what) is not None:
            setattr(arguments, what, getattr(arguments, what).expanduser().resolve())
    arguments.work.mkdir(parents=True, exist_ok=True)
    if not arguments.no_run:
        for name in arguments.only or RUNS:
            run(name, arguments)
    results = {name: json.loads((arguments.work / f"{name}.json").read_text()) for name in RUNS
               if (arguments.work / f"{name}.json").exists()}
    page = ROOT / "docs" / "quality.md"
    page.write_text(fill(page.read_text(), results))
    draw_pictures(results)


if __name__ == "__main__":
    main()
