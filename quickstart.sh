#!/usr/bin/env bash
# From a fresh Debian machine to generated text, or to a tested build, in one command. Prints each command that it runs.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly CHECKPOINT=smollm2-135m-instruct
PROMPT='Anna lives in Lisbon and works as a baker. Her brother Paul lives in Oslo and repairs violins. '
PROMPT+='Every summer they meet at the lake where they learned to swim, and they talk about bread and music until the '
PROMPT+='stars come out. The water is cold and clear, the boats rock at the pier, and on the other shore the lights of '
PROMPT+='the village go on one after the other. Then they promise each other to write more often, and every year they '
PROMPT+='forget it. Summarise the story in two sentences.'
readonly PROMPT
readonly MAX_NEW_TOKENS=80
readonly PACKAGES=(build-essential cmake pkg-config ca-certificates curl python3 python3-venv libsentencepiece-dev
    libpcre2-dev libcjson-dev libminizip-dev libutf8proc-dev libxxhash-dev liblmdb-dev libcmocka-dev zlib1g-dev)
readonly CROSS_PACKAGES=(gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user)

usage() {
    cat <<END
usage: ./quickstart.sh          install what is missing, build, fetch $CHECKPOINT, and answer one
                                prompt with a full, a compressed and a quantized cache, on an NVIDIA GPU where there
                                are one and a CUDA toolkit (12 or later)
       ./quickstart.sh test     install what is missing, build, run every test that needs no GPU; then build for
                                64-bit Arm and run under emulation the tests that depend on the processor
       ./quickstart.sh --help   this text

Packages are installed with apt-get (through sudo where you are not root), only those that are missing. The checkpoint
and the tests' Python environment are kept in \${XDG_CACHE_HOME:-~/.cache}/stowkv. With CI=true a checkpoint or a cross
compiler that cannot be had fails the tests; otherwise the tests that need it are skipped.
END
}

die() { printf 'quickstart.sh: error: %s\n' "$*" >&2; exit 1; }

run() { # prints a command and runs it
    printf '+' >&2
    printf ' %q' "$@" >&2
    printf '\n' >&2
    "$@"
}

install_missing() { # PACKAGE…
    local package missing=() as_root=()
    command -v dpkg-query >/dev/null || {
        printf 'quickstart.sh: not a Debian system; install under their local names: %s\n' "$*" >&2
        return 0
    }
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | head -n 1) == installed ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "missing packages: ${missing[*]}; run as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    run "${as_root[@]}" apt-get update
    run "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

cache_directory() {
    [[ -n ${XDG_CACHE_HOME:-}${HOME:-} ]] || die "there is no home directory; set XDG_CACHE_HOME"
    printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/stowkv"
}

# Prints the path of a Python that has tests/fixtures/requirements.txt; it is made anew when those or python3 change.
python_environment() {
    local venv wanted
    venv=$(cache_directory)/test-venv
    wanted=$(python3 --version; cat tests/fixtures/requirements.txt)
    mkdir -p "${venv%/*}"
    exec 8>"$venv.lock"
    flock 8
    if [[ ! -x $venv/bin/python || ! -r $venv/made-from || $(<"$venv/made-from") != "$wanted" ]]; then
        run python3 -m venv --clear "$venv" >&2 &&
            run "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
                --requirement tests/fixtures/requirements.txt >&2 &&
            printf '%s\n' "$wanted" >"$venv/made-from" || return 1
    fi
    exec 8>&-
    printf '%s\n' "$venv/bin/python"
}

has_gpu() {
    [[ -e /dev/nvidia0 || -e /proc/driver/nvidia/gpus ]] || nvidia-smi -L &>/dev/null
}

# Of at least version 12, where cmake/cuda.cmake looks.
has_cuda_toolkit() {
    local nvcc=${CUDACXX:-nvcc} release
    command -v "$nvcc" >/dev/null || nvcc=${CUDA_PATH:-${CUDA_HOME:-/usr/local/cuda}}/bin/nvcc
    release=$("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\)\..*/\1/p') || return 1
    [[ -n $release ]] && ((release >= 12))
}

# Prints what CMake is told of this machine's GPU, where it has one.
gpu_options() {
    if ! has_gpu; then
        return
    elif has_cuda_toolkit; then
        printf '%s\n' -DCMAKE_CUDA_ARCHITECTURES=native
    else
        cat >&2 <<END

*** quickstart.sh: this machine has an NVIDIA GPU, but no CUDA toolkit (nvcc) of version 12 or later, so the CPU is used.
*** To use the GPU, install NVIDIA's toolkit from https://developer.nvidia.com/cuda-downloads, and run this again.

END
    fi
}

main_job() {
    local checkpoint options
    install_missing "${PACKAGES[@]}"
    mapfile -t options < <(gpu_options)
    run cmake --preset release "${options[@]}"
    run cmake --build --preset release
    checkpoint=$(run checkpoints/fetch.sh "$CHECKPOINT")
    run build/generate --checkpoint_path "$checkpoint" --chat --prompt "$PROMPT" --temperature 0 \
        --max_new_tokens "$MAX_NEW_TOKENS" --compare
}

test_preset() { # PRESET BINARY_DIR OPTION…: configures, builds, tests; the output of ctest is kept in its ctest.log
    local preset=$1 directory=$2
    shift 2
    run cmake --preset "$preset" "$@" &&
        run cmake --build --preset "$preset" &&
        run ctest --preset "$preset" --parallel "$(nproc)" --no-tests=error | tee "$directory/ctest.log"
}

# Prints the folder of the libraries for 64-bit Arm, once they and the cross compiler are there.
arm64_root() {
    local root
    root=$(cache_directory)/arm64
    install_missing "${CROSS_PACKAGES[@]}" >&2
    command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || return 1
    run cmake/fetch_arm64_libraries.sh "$root" || return 1
    printf '%s\n' "$root"
}

summary=()
failed=0

unavailable() { # TESTS REASON: fails in CI, is skipped elsewhere
    if [[ ${CI:-} == true ]]; then
        failed=1
        summary+=("FAILED: $1: $2, and CI=true")
    else
        summary+=("SKIPPED: $1: $2")
    fi
    printf '\n*** %s ***\n\n' "${summary[-1]}" >&2
}

test_job() {
    local python checkpoint='' root='' presets=(release debug) options preset directory
    install_missing "${PACKAGES[@]}"
    python=$(python_environment) ||
        die "the tests' Python environment cannot be made; see pip's message above"
    if ! checkpoint=$(run checkpoints/fetch.sh "$CHECKPOINT"); then
        checkpoint=''
        unavailable "the tests that need $CHECKPOINT" 'it could not be fetched'
    fi
    if [[ $(uname -m) == aarch64 ]]; then
        summary+=("aarch64: this machine is one; no cross build")
    elif root=$(arm64_root); then
        presets+=(aarch64)
    else
        unavailable 'the tests on 64-bit Arm' 'no cross compiler, emulator or libraries; see the message above'
    fi
    options=(-DSTOWKV_TESTS=ON -DSTOWKV_WERROR=ON "-DSTOWKV_PYTHON=$python" "-DSTOWKV_SMOLLM2=$checkpoint")
    for preset in "${presets[@]}"; do
        directory=build
        [[ $preset == release ]] || directory=build-$preset
        [[ $preset != aarch64 ]] || options+=("-DSTOWKV_ARM64_ROOT=$root" -DSTOWKV_SMOLLM2=)
        rm -f "$directory/ctest.log"
        if test_preset "$preset" "$directory" "${options[@]}"; then
            summary+=("$preset: $(grep -E 'tests passed' "$directory/ctest.log")")
        else
            failed=1
            summary+=("$preset: FAILED: $(grep -hE 'tests passed|No tests' "$directory/ctest.log" 2>/dev/null ||
                echo 'it did not come to the tests; see above')")
        fi
    done
    printf '\n' >&2
    printf 'quickstart.sh: %s\n' "${summary[@]}" >&2
    return $failed
}

(($# <= 1)) || { usage >&2; exit 2; }
case ${1:-} in
    '') main_job ;;
    test) test_job ;;
    --help | -h) usage ;;
    *)
        printf 'quickstart.sh: error: unknown argument %q; valid ones are test and --help\n' "$1" >&2
        usage >&2
        exit 2 ;;
esac
