#!/usr/bin/env bash
# Builds archives of the libraries that Debian has as shared objects alone, cJSON and SentencePiece, for preset portable:
# lib/*.a in a folder. Their sources, with Debian's patches, come from the archives that apt is configured for, with
# their signatures checked, but through lists and a cache that lie in the folder too: nothing of the system changes. Does
# nothing where the folder is complete.
set -euo pipefail

(($# == 1)) || { printf 'usage: build_static_libraries.sh FOLDER\n' >&2; exit 2; }
{ command -v apt-get && command -v dpkg-source && command -v patch && command -v cmake; } >/dev/null ||
    { printf 'build_static_libraries.sh: error: needs apt-get, dpkg-source, patch and cmake, of Debian\n' >&2; exit 1; }

mkdir -p "$1"
cd "$1"
exec 8>lock
flock 8
wanted="$(</etc/debian_version) cjson sentencepiece 1"
[[ ! -r made-from || $(<made-from) != "$wanted" ]] || exit 0

rm -rf apt lib source made-from
mkdir -p apt/state/lists/partial apt/cache/archives/partial apt/sources.d lib source
touch apt/state/status
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    [[ ! -r $list ]] || ! grep -q debian "$list" ||
        sed -e 's/^Types:.*/Types: deb-src/' -e 's/^deb /deb-src /' "$list" >"apt/sources.d/${list##*/}"
done
[[ ! -e apt/sources.d/sources.list ]] || mv apt/sources.d/sources.list apt/sources.d/main.list
options=(-qq -o Acquire::Languages=none -o APT::Sandbox::User= -o "Dir::State=$PWD/apt/state"
    -o "Dir::State::status=$PWD/apt/state/status" -o "Dir::Cache=$PWD/apt/cache" -o Dir::Etc::SourceList=/dev/null
    -o "Dir::Etc::SourceParts=$PWD/apt/sources.d")
apt-get "${options[@]}" update >&2
(cd source && apt-get "${options[@]}" source --download-only cjson sentencepiece >&2)
for package in cjson sentencepiece; do
    dpkg-source --extract source/"$package"_*.dsc "source/$package" >&2
done
patch --quiet -R -p1 -d source/sentencepiece <source/sentencepiece/debian/patches/disable-static-library.patch >&2

compile=(-O2 -DNDEBUG -ffunction-sections -fdata-sections)
gcc "${compile[@]}" -DENABLE_LOCALES -c source/cjson/cJSON.c -o source/cJSON.o
ar rcs lib/libcjson.a source/cJSON.o
cmake -S source/sentencepiece -B source/build -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS="${compile[*]}" \
    -DSPM_ENABLE_SHARED=OFF -DSPM_ENABLE_TCMALLOC=OFF >&2
cmake --build source/build --target sentencepiece-static -j "${JOBS:-$(nproc)}" >&2
cp source/build/src/libsentencepiece.a lib/
rm -rf apt source
printf '%s\n' "$wanted" >made-from
