#!/usr/bin/env bash
# Unpacks the libraries that the project links, for 64-bit Arm, into a folder for cmake/aarch64-linux-gnu.cmake. They come
# from the archives that apt is configured for, with their signatures checked, but through lists and a cache that lie in
# the folder too: no root, no foreign architecture, nothing of the system changes. (Multiarch would not do: the amd64 and
# arm64 packages of SentencePiece exclude each other.) Does nothing where the folder is complete.
set -euo pipefail

(($# == 1)) || { printf 'usage: fetch_arm64_libraries.sh FOLDER\n' >&2; exit 2; }
readonly PACKAGES=(libcjson1 libcjson-dev libcmocka0 libcmocka-dev liblmdb0 liblmdb-dev libminizip1 libminizip-dev libpcre2-8-0
    libpcre2-dev libsentencepiece0 libsentencepiece-dev libutf8proc2 libutf8proc-dev libxxhash0 libxxhash-dev zlib1g zlib1g-dev)
{ command -v apt-get && command -v dpkg-deb; } >/dev/null ||
    { printf 'fetch_arm64_libraries.sh: error: needs apt-get and dpkg-deb, of Debian\n' >&2; exit 1; }

mkdir -p "$1"
cd "$1"
exec 8>lock
flock 8
wanted="$(</etc/debian_version) ${PACKAGES[*]}"
[[ ! -r made-from || $(<made-from) != "$wanted" ]] || exit 0

rm -rf apt usr made-from
mkdir -p apt/state/lists/partial apt/cache/archives/partial apt/packages
touch apt/state/status
options=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Acquire::Languages=none -o APT::Sandbox::User=
    -o "Dir::State=$PWD/apt/state" -o "Dir::State::status=$PWD/apt/state/status" -o "Dir::Cache=$PWD/apt/cache")
apt-get "${options[@]}" update >&2
(cd apt/packages && apt-get "${options[@]}" download "${PACKAGES[@]}" >&2)
for package in apt/packages/*.deb; do
    dpkg-deb --extract "$package" .
done
rm -rf apt
printf '%s\n' "$wanted" >made-from
