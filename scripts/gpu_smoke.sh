#!/usr/bin/env bash
# The checks that need a GPU, on one GPU, in under 8 minutes. `--tiny` runs them small, on the CPU too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
[[ -x $python ]] || python=python3
exec timeout 480 "$python" -m scripts.gpu_smoke "$@"
