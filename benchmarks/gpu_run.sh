#!/usr/bin/env bash
# The one line to run on a CUDA machine without a network: bash benchmarks/gpu_run.sh [OUT] [options of benchmarks.gpu]
# Results are in OUT after every stage: results.json, table.md, log.txt, profile.txt, race_metrics.csv.
set -euo pipefail
cd "$(dirname "$0")/.."
out=runs/gpu
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then out=$1; shift; fi
site=${TMPDIR:-/tmp}/earface_site
mkdir -p "$out"
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .gpu/wheels/*.whl 2>&1 |
  grep -v "root user" || true
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 NO_ALBUMENTATIONS_UPDATE=1 HF_HUB_OFFLINE=1
exec python3 -m benchmarks.gpu --out "$out" "$@"
