#!/usr/bin/env bash
# Any recipe on any number of machines: the same command on each, with its number.
# Usage: runs/torchrun.sh RECIPE MACHINES NUMBER HOST [key=value ...]
#   runs/torchrun.sh flux_4k 2 0 node-a data=/shared/4k out=/shared/out/flux_4k     on the first machine
#   runs/torchrun.sh flux_4k 2 1 node-a data=/shared/4k out=/shared/out/flux_4k     on the second
# HOST is the first machine's name; data and out lie where all machines see them. When a machine is lost, start again
# on those that are left: the run goes on after its last checkpoint, with the batch shared among fewer.
set -euo pipefail
recipe="$1" machines="$2" number="$3" host="$4"
shift 4
gpus="$(nvidia-smi --list-gpus | wc -l)"
total=$((machines * gpus))
# One image at a time on each GPU. More than 8 GPUs need a larger batch: add batch_size=16, say.
parts=$((total < 8 ? 8 / total : 1))

exec torchrun --nnodes "$machines" --node-rank "$number" --nproc-per-node "$gpus" \
    --rdzv-backend c10d --rdzv-endpoint "$host:29500" --rdzv-id urae \
    --no-python urae train "$recipe" gradient_accumulation="$parts" "$@"
