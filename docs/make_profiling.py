#!/usr/bin/env python3
"""Fills the tables of docs/profiling.md from a profile, and takes its picture. The prose is written by hand.

    build/generate --checkpoint_path MODEL.gguf --prompt_file LICENSE --max_new_tokens 200 --temperature 0 --ignore_eos \\
        --threads 2 --profile walk --profile_quality --profile_text TEXT
    python3 docs/make_profiling.py outputs/walk"""

import json
import pathlib
import re
import shutil
import sys

sys.dont_write_bytecode = True

from make_quality import ROOT, markdown  # noqa: E402

LEAST_SHARE = 0.01  # of a token's time, in any mode: operations with less are put together


def mb(n_bytes):
    return f"{n_bytes / 1e6:.1f}"


def mode_table(summary):
    lines = [[mode["mode"], f"`{mode['policy']}`", f"{mode['prefill_tokens_per_second']:.0f}",
              f"{mode['decode_tokens_per_second']:.0f}", mb(sum(tier["bytes_held"] for tier in mode["tiers"])),
              mb(mode["kv_bytes"]), f"{mode['kv_bytes'] / mode['kv_bytes_full']:.3f}"] for mode in summary["modes"]]
    return markdown(["mode", "policy", "prompt, tokens/s", "generated, tokens/s", "cache at the end, MB",
                     f"allocated for {summary['modes'][0]['n_ctx']:,}, MB", "of full"], lines)


def decode_phase(mode):
    return next(phase for phase in mode["profile"]["phases"] if phase["phase"] == "decode")


def operation_cell(phase, operation):
    """Milliseconds of a generated token, and the share of the measured bandwidth where it moves enough to tell."""
    text = f"{1e3 * operation['seconds'] / phase['tokens']:.2f}"
    return text + (f" ({100 * operation['bandwidth_share']:.0f} %)" if operation.get("bandwidth_share", 0) > 0.05 else "")


def operation_table(summary):
    phases = [decode_phase(mode) for mode in summary["modes"]]
    lines, rest = [], [phase["unaccounted_seconds"] for phase in phases]
    for operations in zip(*(phase["operations"] for phase in phases)):
        assert len({operation["operation"] for operation in operations}) == 1
        if max(operation["share"] for operation in operations) >= LEAST_SHARE:
            lines.append([operations[0]["operation"]] + [operation_cell(*pair) for pair in zip(phases, operations)])
        else:
            rest = [seconds + operation["seconds"] for seconds, operation in zip(rest, operations)]
    for name, seconds in (("all else", rest), ("a token", [phase["seconds"] for phase in phases])):
        lines.append([name] + [f"{1e3 * value / phase['tokens']:.2f}" for value, phase in zip(seconds, phases)])
    return markdown(["ms of a generated token (of bandwidth)"] + [mode["mode"] for mode in summary["modes"]], lines)


def depth_table(summary):
    results = summary["depths"]["results"]
    speeds = {(row["depth"], row["policy"]): f"{row['decode_tokens_per_second']:.0f}" for row in results}
    policies = [mode["policy"] for mode in summary["modes"]]
    lines = [[f"{depth:,}"] + [speeds[depth, policy] for policy in policies] for depth in sorted({row["depth"] for row in results})]
    overtakes = [summary["depths"]["break_even"].get(policy) for policy in policies]
    lines.append(["faster than full from"] + ["" if depth is None else f"{depth:,.0f}" for depth in overtakes])
    return markdown(["tokens in the cache"] + [f"{mode['mode']}, tokens/s" for mode in summary["modes"]], lines)


def quality_table(summary):
    def measured(mode, measures):
        return ["reference" if mode["mode"] == "full" else text(mode) for text in measures]
    measures = [lambda m: f"{m['kld']['mean']:.6f} ± {m['kld']['stderr']:.6f}", lambda m: f"{100 * m['kld']['same_top1']:.1f} %",
                lambda m: f"{m['rouge']['f']:.2f} ± {m['rouge']['f_stderr']:.2f}",
                lambda m: f"{m['rouge']['n_same']} of {m['rouge']['n']}"]
    modes = summary["quality"]["modes"]
    lines = [[mode["mode"], f"{mode['ppl']:.4f} ± {mode['ppl_stderr']:.4f}"] + measured(mode, measures) for mode in modes]
    return markdown(["mode", "perplexity", "divergence, nats", "same most likely token", "ROUGE-L against full", "same texts"], lines)


TABLES = {"quality": quality_table, "modes": mode_table, "operations": operation_table, "depths": depth_table}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    summary = json.loads((folder / "summary.json").read_text())
    page = ROOT / "docs" / "profiling.md"
    page.write_text(re.sub(r"<!-- begin (\S+) -->.*?<!-- end \1 -->",
                           lambda match: f"<!-- begin {match[1]} -->\n{TABLES[match[1]](summary)}\n<!-- end {match[1]} -->",
                           page.read_text(), flags=re.S))
    shutil.copy(folder / "operations.svg", ROOT / "docs" / "pictures" / "operations.svg")


if __name__ == "__main__":
    main()
