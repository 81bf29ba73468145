#!/usr/bin/env bash
# What a machine with one CUDA card answers in nine minutes at most: deploy/gpu_check.sh [--small] [torch] [loader] [sweep]
# PYTHON names another Python than that of .venv; what each part does and writes: deploy/gpu_check.sh --help
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
exec "$python" deploy/gpu_check.py "$@"
