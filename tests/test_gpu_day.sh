#!/usr/bin/env bash
# A rehearsal of tests/gpu_day.sh: every stage is recorded, and each that needs a GPU, where there is none, has said so.
set -euo pipefail
export LC_ALL=C

if [ ! -r "${STOWKV_DATA:-}/stories260K.bin" ] || ! command -v python3 >/dev/null; then
    printf '\n*** SKIPPED: test_gpu_day; there is no python3, or STOWKV_DATA has no stories260K.bin ***\n\n' >&2
    exit 77
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$here/gpu_day.sh" --rehearse "$work/day"
python3 - "$work/day" "$STOWKV_BUILD" <<'PYTHON'
import json, os, re, shutil, subprocess, sys

folder, build = sys.argv[1:]
r = json.load(open(f"{folder}/results.json", encoding="utf-8"))
status = {s["name"]: s["status"] for s in r["stages"]}
stages = ("machine copy parity perplexity_cuda perplexity_cpu attention model_f16 torch_attention bench kv_quant "
          "kv_quant_largest poisoned model_q4_0").split()
stages += [f"{tool}check_{of}" for tool in ("mem", "race", "init", "sync") for of in ("attention", "model", "kv_quant")]
assert list(status) == stages, list(status)
assert status["perplexity_cpu"] == "passed", status
has_gpu = subprocess.run(["nvidia-smi"], capture_output=True).returncode == 0 if shutil.which("nvidia-smi") else False
ours = ["copy", "parity", "attention", "model_f16", "kv_quant", "kv_quant_largest", "poisoned", "model_q4_0"]
if has_gpu:
    assert all(status[name] == "passed" for name in ours), status
else:
    built = os.path.exists(f"{build}/gpu_parity")
    assert all(status[name] == ("skipped" if built else "not there") for name in ours), status
    for name in ours if built else []:
        error = next(s["error"] for s in r["stages"] if s["name"] == name)
        why = r"^(gpu_[a-z]+|kv_quant_bench): error: there is no NVIDIA GPU with a driver on this machine; "
        assert re.search(why, error), error
    assert r["device_name"] is None and all(c["holds"] is None for c in r["checks"]), r["checks"]
for key in ("machine copy stages checks parity perplexity attention torch_attention products model bench kv_quant "
            "poisoned").split():
    assert key in r, key
assert len(r["checks"]) >= 12 and len(r["perplexity"]["cpu"]["modes"]) == 3
table = open(f"{folder}/results.md", encoding="utf-8").read()
assert all(f"| {name} |" in table for name in stages), table
assert os.path.getsize(f"{folder}/logs.tar.gz") > 0
PYTHON
