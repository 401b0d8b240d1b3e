#!/usr/bin/env bash
# Any recipe on any number of machines: the same command on each, with its number.
# Usage: runs/torchrun.sh RECIPE MACHINES NUMBER HOST[:PORT] [key=value ...]
#   runs/torchrun.sh flux_4k 2 0 node-a data=/shared/4k out=/shared/out/flux_4k     on the first machine
#   runs/torchrun.sh flux_4k 2 1 node-a data=/shared/4k out=/shared/out/flux_4k     on the second
# HOST is the first machine's name, and PORT one that is free there (29500): two runs that begin on one machine need two.
# data and out lie where all machines see them. When a machine is lost, start again on those that are left, as long as
# their GPUs share the batch evenly: the run goes on after its last checkpoint.
set -euo pipefail
recipe="$1" machines="$2" number="$3" host="$4"
shift 4
[[ "$host" == *:* ]] || host="$host:29500"
[[ "$machines" != 1 ]] || host="localhost:0" # any free port
# Not nvidia-smi, which also counts what CUDA_VISIBLE_DEVICES hides. PROCESSES is for machines without a GPU.
gpus="${PROCESSES:-$(python -c 'import torch; print(torch.cuda.device_count())')}"
if [[ "$gpus" == 0 ]]; then
    echo "there is no GPU here that torch can use: set CUDA_VISIBLE_DEVICES, or PROCESSES=2 for processes on the CPU" >&2
    exit 2
fi
total=$((machines * gpus))
# One image at a time on each GPU, unless the settings say otherwise. More than 8 GPUs need a larger batch: add
# batch_size=16, say.
settings=("$@")
if [[ " ${settings[*]} " != *" gradient_accumulation="* ]]; then
    settings+=("gradient_accumulation=$((total < 8 ? 8 / total : 1))")
fi
# A run that is asked to end finishes its step and saves: the launcher passes a scheduler's warning (USR1) on, and waits
# ten minutes rather than 30 seconds.
export TORCHELASTIC_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1
export PET_SIGNALS_TO_HANDLE="$TORCHELASTIC_SIGNALS_TO_HANDLE"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}"

exec torchrun --nnodes "$machines" --node-rank "$number" --nproc-per-node "$gpus" \
    --rdzv-backend c10d --rdzv-endpoint "$host" --rdzv-id "${RUN_ID:-urae}" \
    --no-python urae train "$recipe" "${settings[@]}"
