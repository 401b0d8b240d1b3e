#!/usr/bin/env bash
# FLUX.1-dev to 4096 px by the paper: the minor components, on real images of at least 4K, on top of the 2K adapter.
# Usage: runs/flux_4k.sh [folder of captioned images] [GPUs]. Run runs/flux_2k.sh first. Stopped, it goes on.
set -euo pipefail
data="${1:-data/4k}"
gpus="${2:-8}"
parts=$((8 / gpus))

torchrun --nproc-per-node "$gpus" --no-python urae train flux_4k data="$data" gradient_accumulation="$parts" \
    start=out/flux_2k/adapter.safetensors

urae generate "a lighthouse on a cliff in a storm, waves breaking against the rocks, oil painting" \
    --model black-forest-labs/FLUX.1-dev --size 4096x4096 \
    --adapter out/flux_4k/adapter.safetensors --out out/flux_4k/images
