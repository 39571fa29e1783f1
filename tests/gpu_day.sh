#!/usr/bin/env bash
# Everything that only a GPU can show, in one run of less than 8 minutes, for a bare machine with a driver and Python with
# PyTorch, without network: parity with the CPU, then speeds, then the sanitizer; the most important first.
#
#     tests/gpu_day.sh [--rehearse] [FOLDER]
#
# Programs come from $STOWKV_BUILD (default: build-portable, else build), SmolLM2 from $STOWKV_SMOLLM2, its text from
# $STOWKV_TEXT (default: wiki.test.raw in $STOWKV_DATA), Python is $STOWKV_PYTHON (default python3). FOLDER (default $OUT,
# else outputs/gpu_day) gets results.json, results.md and logs.tar.gz, after each stage anew, so that whatever ends the run
# leaves what there is. A stage that fails or takes too long keeps no other from running. Exit status: 0, or 1 where a
# stage failed.
#
# --rehearse takes small sizes and stories260K of $STOWKV_DATA, for machines without a GPU: each stage that needs one must
# say so.
set -u
export LC_ALL=C PYTHONUNBUFFERED=1

here=$(cd "$(dirname "$0")/.." && pwd)
rehearse=false
[ "${1:-}" != --rehearse ] || { rehearse=true; shift; }
[ $# -le 1 ] || { echo 'usage: gpu_day.sh [--rehearse] [FOLDER]' >&2; exit 2; }
out=${1:-${OUT:-$here/outputs/gpu_day}}
python=${STOWKV_PYTHON:-python3}
build=${STOWKV_BUILD:-$here/build-portable}
[ -n "${STOWKV_BUILD:-}" ] || [ -x "$build/gpu_parity" ] || build=$here/build
budget=${STOWKV_GPU_DAY_SECONDS:-465}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$PATH:/usr/local/cuda/bin
begin=$(date +%s)

summarise() {
    "$python" "$here/tests/gpu/summarise.py" "$work" "$out" || echo "gpu_day.sh: no summary: $python failed" >&2
    tar -C "$work" -czf "$out/logs.tar.gz" . 2>/dev/null
}

# What a stage's exit status means. Programs other than those of tests/gpu end with 1 where there is no GPU.
meaning() {
    case $1 in
    0) echo passed ;;
    77) echo skipped ;;
    124 | 137) echo 'out of time' ;;
    126 | 127) echo 'not there' ;;
    *) if grep -q 'no NVIDIA GPU' "$2"; then echo skipped
       elif grep -qE 'build has no (backend|CUDA)' "$2"; then echo 'not there'
       else echo failed; fi ;;
    esac
}

# stage NAME SECONDS COMMAND…: its output is in NAME.out, what it says of errors in NAME.err.
stage() {
    local name=$1 limit=$2 left=$((budget - ($(date +%s) - begin))) status=0 started seconds
    shift 2
    [ "$limit" -le "$left" ] || limit=$left
    started=$(date +%s%N)
    if [ "$limit" -lt 2 ]; then
        status=124
        echo 'left out: no time was left' >"$work/$name.err"
    else
        timeout -k 3 "$limit" "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null || status=$?
    fi
    seconds=$(($(date +%s%N) - started))
    printf '%s\t%d\t%d.%03d\t%d\t%s\n' "$name" "$limit" $((seconds / 1000000000)) $((seconds / 1000000 % 1000)) "$status" \
        "$(meaning "$status" "$work/$name.err")" >>"$work/stages.tsv"
    tail -n 1 "$work/stages.tsv"
    summarise
}

machine() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit --format=csv,noheader
    uname -sr
    lscpu | grep -E '^(Model name|CPU\(s\))'
    getconf GNU_LIBC_VERSION
    nvcc --version 2>/dev/null | tail -n 1
    "$python" -c 'import torch; print("PyTorch", torch.__version__)' 2>/dev/null
    command -v nvidia-smi >/dev/null || return 77
}
export -f machine
export python

# Sizes of a day and of a rehearsal.
model=${STOWKV_SMOLLM2:-}
text=${STOWKV_TEXT:-${STOWKV_DATA:-$here/../shared/data}/wiki.test.raw}
context=512 chunks=4 depths=8192,32768,131072 bench_depths=0,2048,7000 fourbits=q4_0
parity=(--prompt_tokens 300 --decoded_tokens 100 --repeats 100)
bench=(--prompt_tokens 512 --generate_tokens 64 --repetitions 2)
quant=(--shape 131072x1024 --shape 262144x128 --shape 1024x64 --shape 1025x63)
quant_variants=cuda_naive,cuda_tiled,cuda_coarsened,cuda_vectorized,cuda_host_scales,cuda_fused,cuda_vectorized_f16,cuda_fused_f16
largest=131072x8192
if $rehearse; then
    quant=(--shape 1025x63) largest=1025x63
    model=${STOWKV_DATA:-$here/../shared/data}/stories260K.bin
    context=256 chunks=1 depths=1024 bench_depths=0,100 fourbits=int4
    parity=(--prompt_tokens 30 --decoded_tokens 5 --repeats 5)
    bench=(--prompt_tokens 16 --generate_tokens 8 --repetitions 1)
fi
policies=(--kv_policy 'f16:*' --kv_policy 'sink=16,f16:32,int8:*' --kv_policy "sink=16,f16:32,$fourbits:*")
perplexity=("$build/perplexity" --checkpoint_path "$model" --text_file "$text" --context "$context" --chunks "$chunks"
    --kld "${policies[@]}" --json -)

stage machine 15 bash -c machine
stage copy 15 "$build/gpu_attention" --copy
stage parity 70 "$build/gpu_parity" --checkpoint_path "$model" "${parity[@]}"
stage perplexity_cuda 60 "${perplexity[@]}" --device cuda
stage perplexity_cpu 60 "${perplexity[@]}" --device cpu
stage attention 60 "$build/gpu_attention" --depths "$depths"
stage model_f16 70 "$build/gpu_model" --type F16 --depths "0,$depths"
stage torch_attention 45 "$python" "$here/tests/gpu/torch_attention.py" --depths "$depths"
stage bench 60 "$build/bench" --device cuda --checkpoint_path "$model" --depths "$bench_depths" "${bench[@]}" --compare \
    --kv_policy "sink=16,f16:32,$fourbits:*" --json -
stage kv_quant 40 "$build/kv_quant_bench" --device cuda --variants "$quant_variants" "${quant[@]}" --json -
stage kv_quant_largest 60 "$build/kv_quant_bench" --device cuda --variants cuda_vectorized,cuda_fused --shape "$largest" --json -
stage poisoned 30 "$build/gpu_attention" --poison --depths 2,17,1000,5000
stage model_q4_0 50 "$build/gpu_model" --type Q4_0 --depths "0,$depths"
for tool in memcheck racecheck initcheck synccheck; do
    watched=(compute-sanitizer --tool "$tool" --error-exitcode 9)
    stage "${tool}_attention" 30 "${watched[@]}" "$build/gpu_attention" --depths 200 --heads 8 --kv_heads 2 --cache_times 0
    stage "${tool}_model" 30 "${watched[@]}" "$build/gpu_model" --tiny --prompt_tokens 70 --steps 2 --depths 0,200
    stage "${tool}_kv_quant" 30 "${watched[@]}" "$build/kv_quant_bench" --device cuda \
        --variants "$quant_variants" --repetitions 1 --shape 1025x63 --shape 300x264
done

cat "$out/results.md"
! grep -qE '	(failed|out of time)$' "$work/stages.tsv"
