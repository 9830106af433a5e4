#!/bin/sh
# Prints the command of a Python that can run AOS, or says what is missing.
# In sh because the question is whether there is a Python, and which.
oldest="3.11"

fits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
    if fits "$PYTHON"; then
        printf '%s\n' "$PYTHON"
        exit 0
    fi
    printf 'x PYTHON=%s is not Python %s or newer.\n  Next: give another one, or unset PYTHON.\n' "$PYTHON" "$oldest" >&2
    exit 1
fi

for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if fits "$name"; then
        printf '%s\n' "$name"
        exit 0
    fi
done

found=$(python3 -V 2>&1 || true)
printf 'x AOS needs Python %s or newer; this machine has: %s.\n' "$oldest" "${found:-none}" >&2
printf '  Next: sudo apt install python3.11 python3.11-venv, or name one: PYTHON=/path/to/python3.11 make demo\n' >&2
exit 1
