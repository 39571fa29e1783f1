# shellcheck shell=bash
# What the tests of the programs share: running one as a user does, and checking what it does. A script sources this with
# the program's name, defines usual(), and ends with finish:
#
#     . "$(dirname "$0")/program_test.sh" generate
#     usual() { run --checkpoint_path "$stories" "$@"; }
#     usual --prompt a
#     check 'one line' [ "$(wc -l <"$work/stdout")" -eq 1 ]
#     finish
#
# It runs $STOWKV_BUILD/PROGRAM on stories260K of $STOWKV_DATA, under the words of $STOWKV_EMULATOR where the program is
# another machine's, and leaves status 77 where the checkpoint is not there.
set -u
export LC_ALL=C

program_name=$1
program=${STOWKV_BUILD:?names the folder with the program}/$program_name
stories=${STOWKV_DATA:-}/stories260K.bin
read -r -a emulator <<<"${STOWKV_EMULATOR:-}"
readme=$(dirname "${BASH_SOURCE[0]}")/../README.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n_passed=0
n_failed=0

skip_loudly() {
    printf '\n*** SKIPPED: %s ***\n\n' "$1" | tee /dev/stderr
}

if [ ! -r "$stories" ] || [ ! -r "$STOWKV_DATA/tok512.model" ]; then
    skip_loudly "test_$program_name; STOWKV_DATA has no stories260K.bin and tok512.model"
    exit 77
fi

# run ARGUMENT…: leaves $status, $work/stdout (unless $output says where it goes) and $work/stderr.
run() {
    : >"$work/stdout"
    timeout 600 "${emulator[@]}" "$program" "$@" >"${output:-$work/stdout}" 2>"$work/stderr"
    status=$?
}

# check NAME COMMAND…: whether the command succeeds.
check() {
    local name=$1
    shift
    if "$@"; then
        n_passed=$((n_passed + 1))
        echo "ok      $name"
    else
        n_failed=$((n_failed + 1))
        echo "FAILED  $name"
        echo "        status $status"
        sed 's/^/        stdout: /' "$work/stdout" | head -c 2000
        sed 's/^/        stderr: /' "$work/stderr" | head -c 2000
    fi
}

status_is() { [ "$status" -eq "$1" ]; }
stdout_is() { [ "$status" -eq 0 ] && printf %s "$1" | cmp -s - "$work/stdout"; }
stderr_has() { grep -qF -e "$1" "$work/stderr"; }

# One line on stderr, which has the text, and nothing on stdout.
failed_cleanly() {
    [ "$status" -eq "$1" ] && [ ! -s "$work/stdout" ] && [ "$(wc -l <"$work/stderr")" -eq 1 ] &&
        grep -q "^$program_name: error: " "$work/stderr" && stderr_has "$2"
}

# The same for a failure after text was printed: the notes of the run may stand before the error.
failed_late() {
    [ "$status" -eq "$1" ] && [ "$(grep -c 'error' "$work/stderr")" -eq 1 ] &&
        tail -n 1 "$work/stderr" | grep -q "^$program_name: error: " && stderr_has "$2"
}

expect_status() { check "$1" status_is "$2"; }
expect_stdout() { check "$1" stdout_is "$2"; }

# expect_error STATUS TEXT ARGUMENT…: of usual().
expect_error() {
    local expected=$1 text=$2
    shift 2
    usual "$@" </dev/null
    check "status $expected: $*" failed_cleanly "$expected" "$text"
}

# interrupt CONDITION ARGUMENT…: runs the program and sends it SIGINT (or $signal) once CONDITION succeeds: a shell
# command that looks at what the program has written so far, or is_blocked. It is tried until it succeeds or the program
# ends; ctest's TIMEOUT is the only limit, for the same second is another place in the run on another machine.
# interrupt_begin returns after the signal, for a test that has to do something before interrupt_end.
interrupt() {
    interrupt_begin "$@"
    interrupt_end
}

# A shell's background jobs ignore SIGINT and read /dev/null, and who runs the tests may ignore others; env and <&0 undo
# that.
interrupt_begin() {
    local condition=$1
    shift
    : >"$work/stdout" # or CONDITION might see what an earlier run wrote
    : >"$work/stderr"
    env --default-signal "$program" "$@" <&0 >"${output:-$work/stdout}" 2>"$work/stderr" &
    pid=$!
    until eval "$condition" || ! kill -0 "$pid" 2>/dev/null; do
        sleep 0.01
    done
    kill -"${signal:-INT}" "$pid"
}

interrupt_end() {
    wait "$pid" 2>/dev/null
    status=$?
}

# Whether the program's main thread waits for what will not come by itself: input, or a reader. With --threads 1 it
# waits for nothing else.
is_blocked() {
    grep -qs "($program_name) S" "/proc/$pid/stat"
}

# The folder $work/ends is empty: the run that had its outputs there has left nothing.
left_nothing() { [ -z "$(ls -A "$work/ends")" ]; }

# ended_by_signals CONDITION ARGUMENT…: each signal that ends a program, once CONDITION succeeds, does so; and so does a
# reader of stdout that goes away where the arguments let text come there. Outputs are to be in $work/ends.
ended_by_signals() {
    local condition=$1 signal
    shift
    mkdir -p "$work/ends"
    for signal in TERM HUP QUIT; do
        interrupt "$condition" "$@"
        check "SIG$signal ends the program" status_is $((128 + $(kill -l "$signal")))
        check 'and leaves nothing' left_nothing
    done
}

# Makes $work/long.bin: stories260K with 60,000 positions instead of 512, so that a run has not finished when a signal
# comes. llama2.c's files end in RoPE tables, here 32 bytes a position, that nothing reads.
make_long_stories() {
    cp "$stories" "$work/long.bin"
    cp "${STOWKV_DATA}/tok512.model" "$work/tokenizer.model"
    chmod u+w "$work/long.bin"
    truncate -s "+$(((60000 - 512) * 32))" "$work/long.bin"
    printf '\x60\xea\0\0' | dd of="$work/long.bin" bs=1 seek=24 conv=notrunc status=none
}

flags_of_help() {
    "$program" --help | grep -o '^  --[a-z_]*\( [A-Z][A-Z]*\)\?'
}

# A flag that the parser knows complains about a value that is missing, or about one too many.
test_help() {
    local flag argument
    run --help
    expect_status '--help' 0
    check 'a usage line' grep -q "^Usage: $program_name " "$work/stdout"
    run --version
    check '--version' grep -Eqx 'stowkv [0-9]+\.[0-9]+\.[0-9]+' "$work/stdout"
    run --list_kernels
    check '--list_kernels' grep -q '^matmul ' "$work/stdout"
    while read -r flag argument; do
        if [ -n "$argument" ]; then
            run "$flag"
            check "$flag of --help takes a value" failed_cleanly 2 "$flag: needs a value"
        else
            run "$flag=1"
            check "$flag of --help takes no value" failed_cleanly 2 "$flag: takes no value"
        fi
    done < <(flags_of_help)
}

finish() {
    echo "$n_passed checks passed, $n_failed failed"
    [ "$n_failed" -eq 0 ]
}
