# For the suites that are written in Python, to be sourced: builds the binary, makes a virtual environment under target/ with
# the packages that are asked for, and runs a program with it. `suite PROGRAM PACKAGE…`

suite() {
    local here root venv program=$1
    shift
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    root=$(cd "$here/../../.." && pwd)
    venv=$root/target/suites-python
    export PATH="$HOME/.cargo/bin:$PATH"
    (cd "$root" && cargo build --locked --quiet --bin switchback) || return
    if [[ ! -x $venv/bin/pip ]]; then
        python3 -m venv "$venv" || {
            echo "hint: \`tests/run tools\` installs what the suites need (Debian: python3-venv)" >&2
            return 1
        }
    fi
    # Asks the index only when something is missing.
    if (($#)); then
        "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" || return
    fi
    SWITCHBACK="$root/target/debug/switchback" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 exec "$venv/bin/python" "$here/$program"
}
