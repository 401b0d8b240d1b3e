#!/usr/bin/env bash
# FLUX.1-dev to 2048 px by the paper: a LoRA on some 3,000 images of a strong teacher, 2,000 steps of 8.
# Usage: runs/flux_2k.sh [folder of captioned images] [GPUs]. Stopped, it goes on.
set -euo pipefail
data="${1:-data/2k}"
gpus="${2:-1}"
# One image at a time on each GPU: the batch of 8 in as many parts as are left.
parts=$((8 / gpus))

torchrun --nproc-per-node "$gpus" --no-python urae train flux_2k data="$data" gradient_accumulation="$parts"

urae generate "a lighthouse on a cliff in a storm, waves breaking against the rocks, oil painting" \
    --model black-forest-labs/FLUX.1-dev --size 2048x2048 \
    --adapter out/flux_2k/adapter.safetensors --out out/flux_2k/images
