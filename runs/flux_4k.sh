#!/usr/bin/env bash
# FLUX.1-dev to 4096 px by the paper's published code: the minor components, on real images of at least 4K, on top of the
# 2K adapter (start=), which runs/flux_2k.sh makes. Stopped, it goes on.
# Usage: runs/flux_4k.sh [folder of captioned images] [GPUs] [key=value ...] [-- options of urae generate]
# Hours, disk and what to add for a smaller card: urae plan flux_4k gradient_accumulation=8 --gpu 4090
set -euo pipefail
data="${1:-data/4k}"
# Not nvidia-smi, which also counts what CUDA_VISIBLE_DEVICES hides.
gpus="${2:-$(python -c 'import torch; print(torch.cuda.device_count())')}"
if [[ ! "$gpus" =~ ^[1-9][0-9]*$ || (! "$gpus" =~ ^[1248]$ && " ${*:3} " != *" batch_size="*) ]]; then
    echo "GPUs is $gpus: expected 1, 2, 4 or 8, which share a batch of 8 evenly" >&2
    exit 2
fi
# Settings of the recipe, and after `--` options of the drawing.
settings=("${@:3}") drawing=()
for ((i = 3; i <= $#; i++)); do
    if [[ "${!i}" == -- ]]; then
        settings=("${@:3:i-3}") drawing=("${@:i+1}")
        break
    fi
done
# A setting as it was given, or as the recipe has it.
setting() {
    local one found
    found="$2"
    for one in "${settings[@]}"; do
        if [[ "$one" == "$1="* ]]; then
            found="${one#*=}"
        fi
    done
    echo "$found"
}

# One image at a time on each GPU, the batch in as many parts as are left, unless the settings say otherwise.
if [[ " ${settings[*]} " != *" gradient_accumulation="* ]]; then
    settings+=("gradient_accumulation=$(($(setting batch_size 8) / gpus))")
fi
if [[ " ${settings[*]} " != *" start="* ]]; then
    settings+=("start=out/flux_2k/adapter.safetensors")
fi

torchrun --nproc-per-node "$gpus" --no-python urae train flux_4k data="$data" "${settings[@]}"

out="$(setting out out/flux_4k)" size="$(setting size 4096)"
urae generate "a lighthouse on a cliff in a storm, waves breaking against the rocks, oil painting" \
    --model "$(setting model black-forest-labs/FLUX.1-dev)" --size "${size}x${size}" \
    --adapter "$out/adapter.safetensors" --out "$out/images" "${drawing[@]}"
