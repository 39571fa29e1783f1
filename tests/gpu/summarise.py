#!/usr/bin/env python3
"""Results of a GPU day as one JSON file and one table: what tests/gpu_day.sh calls after each stage.

    python3 tests/gpu/summarise.py LOGS RESULTS

LOGS has stages.tsv (name, limit, seconds, exit status, meaning) and each stage's NAME.out and NAME.err; RESULTS gets
results.json and results.md."""

import json
import math
import os
import sys

PPL_TOLERANCE = 2e-4  # of perplexity, relative


def read(folder, name):
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def read_stages(folder):
    stages = []
    for line in read(folder, "stages.tsv").splitlines():
        name, limit, seconds, status, meaning = line.split("\t")
        stages.append({"name": name, "status": meaning, "exit_status": int(status), "seconds": float(seconds),
                       "limit_seconds": int(limit), "error": last_line(read(folder, name + ".err"))})
        if meaning == "passed":
            stages[-1]["error"] = ""
    return stages


def json_lines(text):
    """The objects of a program that prints one a line; a last line that was cut off is left out."""
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            pass
    return [x for x in found if isinstance(x, dict)]


def whole_json(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


# ---- Checks: each is a name, what was found, what is wanted, and whether that holds (None: nothing was found)

def check(name, found, wanted, holds):
    return {"check": name, "found": found, "wanted": wanted, "holds": holds}


def parity_checks(lines):
    found = [check(f"parity, {x['policy']}",
                   f"{x['same_tokens']} of {x['decoded_tokens']} tokens, logits {x['logits_rms_difference']:.1e}",
                   "all tokens, 2e-2", x["passes"]) for x in lines if x["test"] == "parity"]
    return found + [check(f"repeated steps, {x['policy']}", f"{x['differ']} of {x['steps']} differ", "0", x["passes"])
                    for x in lines if x["test"] == "repeat"]


def perplexity_checks(cuda, cpu):
    found = []
    for a, b in zip((cuda or {}).get("modes", []), (cpu or {}).get("modes", [])):
        ratio = a["ppl"] / b["ppl"] - 1
        found.append(check(f"perplexity, {a['policy']}", f"{a['ppl']:.4f} and {b['ppl']:.4f} on the CPU, {ratio:+.1e}",
                           f"{PPL_TOLERANCE:.0e}", abs(ratio) <= PPL_TOLERANCE))
        if "kld" in a and "kld" in b:
            bound = 2 * math.hypot(a["kld"]["stderr"], b["kld"]["stderr"])
            found.append(check(f"divergence, {a['policy']}",
                               f"{a['kld']['mean']:.3e} and {b['kld']['mean']:.3e} on the CPU", f"within {bound:.1e}",
                               abs(a["kld"]["mean"] - b["kld"]["mean"]) <= bound))
    return found


def of(lines, **wanted):
    """The first line that has these values."""
    return next((x for x in lines if all(x.get(k) == v for k, v in wanted.items())), None)


def target(name, value, least):
    return check(name, None if value is None else f"{value:.2f}", f">= {least}", None if value is None else value >= least)


def ratio(a, b, key):
    return a[key] / b[key] if a and b else None


def share(line):
    return line["bandwidth_share"] if line else None


def target_checks(attention, torch, products, models):
    at = lambda codec, depth: of(attention, codec=codec, depth=depth)
    time = "us_per_layer"
    baselines = [x for x in torch if x["depth"] == 32768]
    best = min(baselines, key=lambda x: x[time]) if baselines else None
    step = of(models, policy="sink=16,f16:32,int8:*", depth=32768, weights="F16")
    return [
        target("attention f16 at 32k, share of copies", share(at("f16", 32768)), 0.85),
        target("attention int8 at 32k, share of copies", share(at("int8", 32768)), 0.85),
        target("int8 over f16 at 32k, attention", ratio(at("f16", 32768), at("int8", 32768), time), 1.7),
        target("int8 over f16 at 128k, attention", ratio(at("f16", 131072), at("int8", 131072), time), 1.85),
        target("int4 over f16 at 128k, attention", ratio(at("f16", 131072), at("int4", 131072), time), 2.5),
        target("f16 over PyTorch's best at 32k", ratio(best, at("f16", 32768), time), 1.0),
        target("int8 over PyTorch's best at 32k", ratio(best, at("int8", 32768), time), 1.7),
        target("Llama-3-8B's shapes in F16, int8 at 32k, tokens a second", step and step.get("tokens_per_second"), 150),
        target("products F16, share of copies", share(of(products, weights="F16")), 0.90),
        target("products Q4_0, share of copies", share(of(products, weights="Q4_0")), 0.90),
    ]


def quant_rows(quant):
    """Rows of the GPU that have figures, with what the codes of one take of the copies' speed."""
    rows = [x for x in (quant or {}).get("results", []) if x["device"] == "cuda" and "skipped" not in x]
    for x in rows:
        bytes_ = x["n_tokens"] * x["n_channels"] * (3 if x["variant"].endswith("_f16") else 5)
        x["codes_share"] = bytes_ / (x["codes_ms"] * 1e-3) / x["copy_bandwidth"] if x["codes_ms"] > 0 else None
    return rows


def quant_checks(rows):
    n_wrong = sum(x["n_wrong"] for x in rows)
    fused = of(rows, variant="cuda_fused", n_tokens=131072, n_channels=1024)
    return [check("per-channel INT8, numbers that are not the reference's", str(n_wrong) if rows else None, "0",
                  n_wrong == 0 if rows else None),
            target("per-channel INT8 131072x1024, fused, share of copies", fused and fused["codes_share"], 0.85)]


# ---- The table

def table(head, rows):
    return ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + \
        ["| " + " | ".join(str(x) for x in row) + " |" for row in rows]


def gb(rate):
    return f"{rate / 1e9:.0f}"


def markdown(r):
    lines = [f"# GPU day: {r['device_name'] or 'no GPU'}", "", "```", r["machine"].rstrip(), "```"]
    if r["copy"]:
        lines += ["", f"Copies: {gb(r['copy']['bytes_per_second'])} GB/s read and written."]
    lines += table(["check", "found", "wanted", "holds"],
                   [(c["check"], "-" if c["found"] is None else c["found"], c["wanted"],
                     {True: "yes", False: "**NO**", None: "-"}[c["holds"]]) for c in r["checks"]])
    rows = [(x["depth"], x["codec"], x.get("kernel") or "PyTorch " + x["backend"], f"{x['bytes_per_layer'] / 1e6:.2f}",
             f"{x['us_per_layer']:.1f}", gb(x["bytes_per_second"]), f"{100 * x['bandwidth_share']:.0f}%")
            for x in sorted(r["attention"] + r["torch_attention"], key=lambda x: x["depth"])]
    if rows:
        lines += table(["depth", "codec", "attention", "MB a layer", "µs a layer", "GB/s", "of copies"], rows)
    rows = [(x["weights"], x.get("depth", "products alone"), x.get("policy", ""), f"{x['us'] / 1e3:.3f}",
             f"{1e6 / x['us']:.1f}", gb(x["bytes_per_second"]), f"{100 * x['bandwidth_share']:.0f}%")
            for x in r["products"] + r["model"] if "us" in x]
    if rows:
        lines += table(["weights", "depth", "policy", "ms a token", "tokens/s", "GB/s", "of copies"], rows)
    if r["bench"]:
        lines += table(["bench at depth", "policy", "tokens/s", "prompt tokens/s", "of copies"],
                       [(x["depth"], x["policy"], f"{x['decode_tokens_per_second']:.1f}",
                         f"{x['prefill_tokens_per_second']:.0f}", f"{100 * x['bandwidth_share']:.0f}%")
                        for x in r["bench"]["results"]])
    rows = [(f"{x['n_tokens']} x {x['n_channels']}", x["variant"], f"{x['scales_ms']:.3f}", f"{x['codes_ms']:.3f}",
             f"{x['dequantize_ms']:.3f}", f"{100 * (x['codes_share'] or 0):.0f}%", "from cache" if x["from_cache"] else "")
            for x in r["kv_quant"]]
    if rows:
        lines += table(["per-channel INT8", "variant", "scales ms", "codes ms", "decoded ms", "codes of copies", ""], rows)
    lines += table(["stage", "status", "seconds", "of", "error"],
                   [(s["name"], s["status"], f"{s['seconds']:.1f}", s["limit_seconds"], s["error"].replace("|", "\\|"))
                    for s in r["stages"]])
    return "\n".join(lines) + "\n"


def collect(folder):
    lines = {name: json_lines(read(folder, name + ".out"))
             for name in ("copy", "parity", "attention", "torch_attention", "model_f16", "model_q4_0", "poisoned")}
    models = lines["model_f16"] + lines["model_q4_0"]
    cuda, cpu = (whole_json(read(folder, f"perplexity_{device}.out")) for device in ("cuda", "cpu"))
    copy = lines["copy"][0] if lines["copy"] else None
    r = {"device_name": copy and copy["device_name"], "machine": read(folder, "machine.out"), "copy": copy,
         "stages": read_stages(folder), "checks": [], "parity": lines["parity"], "perplexity": {"cuda": cuda, "cpu": cpu},
         "attention": lines["attention"], "torch_attention": lines["torch_attention"],
         "products": [x for x in models if x["test"] == "products"],
         "model": [x for x in models if x["test"] == "model"],
         "bench": whole_json(read(folder, "bench.out")), "poisoned": lines["poisoned"],
         "kv_quant": [x for name in ("kv_quant", "kv_quant_largest")
                      for x in quant_rows(whole_json(read(folder, name + ".out")))]}
    r["checks"] = parity_checks(r["parity"]) + perplexity_checks(cuda, cpu) + \
        target_checks(r["attention"], r["torch_attention"], r["products"], r["model"]) + quant_checks(r["kv_quant"])
    return r


def main(folder, to):
    results = collect(folder)
    for name, text in (("results.json", json.dumps(results, indent=1) + "\n"), ("results.md", markdown(results))):
        path = os.path.join(to, name)
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path + ".new", path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
