#!/usr/bin/env bash
# Gathers what a CUDA machine without a network lacks into the ignored folder .gpu, at most 57 MiB:
#   bash benchmarks/gpu_setup.sh DATA WEIGHTS [.gpu]
# wheels/ (CPython 3.12, Linux x86-64), ears.zip (DATA/ears_earvn and DATA/ears_awe in canonical form, which takes
# minutes and stays in runs/gpu_ears), weights/ (EdgeFace of WEIGHTS).
# Run it where there is a package index; then carry the folder and run benchmarks/gpu_run.sh there.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$1 weights=$2 out=${3:-.gpu}
python=${PYTHON:-.venv/bin/python}
lacking="albumentations albucore stringzilla simsimd pydantic pydantic-core annotated-types typing-inspection typing-extensions
  jsonargparse pycocotools"

prepare() {  # NAME FIRST LAST: the validation people
  local folder=runs/gpu_ears/$1
  test -f "$folder/val_teacher.npy" && return
  mkdir -p "$folder"
  printf '{"val": [%s]}' "$(seq -f '"%03g"' -s , "$2" "$3")" > "$folder.json"
  "$python" -m earface.data.prepare_ears --images "$data/ears_$1" --index "$data/ears_$1/index.csv" \
    --splits "$folder.json" --duplicates keep-together --out "$folder" --overwrite
}
prepare earvn 97 110
prepare awe 53 70
rm -rf "$out/wheels" && mkdir -p "$out/wheels"  # two versions of one package stop its installation
pins=()
for name in $lacking; do
  pins+=("$(sed -n "s/^\($name==[^ ;]*\).*/\1/p" requirements.lock)")
done
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_24_x86_64 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
  --dest "$out/wheels" "${pins[@]}"
"$python" -m benchmarks.gpu.pack --ears runs/gpu_ears/earvn runs/gpu_ears/awe --weights "$weights" --out "$out"
find "$out" -type f -printf '%10s %P\n' | sort -k2
total=$(du -sb "$out" | cut -f1)
echo "$((total / 1048576)) MiB in $out"
test "$total" -le $((57 * 1048576))
