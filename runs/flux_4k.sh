#!/usr/bin/env bash
# FLUX.1-dev to 4096 px by the paper's published code: the minor components, on real images of at least 4K, on top of the
# 2K adapter. Usage: runs/flux_4k.sh [folder of captioned images] [GPUs] [key=value ...]. Run runs/flux_2k.sh first.
# Stopped, it goes on. Hours, disk and what to add for a smaller card: urae plan flux_4k gradient_accumulation=8 --gpu 4090
set -euo pipefail
data="${1:-data/4k}"
gpus="${2:-$(nvidia-smi --list-gpus 2> /dev/null | wc -l || true)}"
if [[ ! "$gpus" =~ ^[1248]$ && " $* " != *" batch_size="* ]]; then
    echo "GPUs is $gpus: expected 1, 2, 4 or 8, which share a batch of 8 evenly; others take batch_size=$gpus, say" >&2
    exit 2
fi
# One image at a time on each GPU, the batch of 8 in as many parts as are left, unless the settings say otherwise.
settings=("${@:3}")
if [[ " ${settings[*]} " != *" gradient_accumulation="* ]]; then
    settings+=("gradient_accumulation=$((8 / gpus))")
fi

torchrun --nproc-per-node "$gpus" --no-python urae train flux_4k data="$data" \
    start=out/flux_2k/adapter.safetensors "${settings[@]}"

urae generate "a lighthouse on a cliff in a storm, waves breaking against the rocks, oil painting" \
    --model black-forest-labs/FLUX.1-dev --size 4096x4096 \
    --adapter out/flux_4k/adapter.safetensors --out out/flux_4k/images
