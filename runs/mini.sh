#!/usr/bin/env bash
# The whole method on the bundled miniature, from 128 px to 256 and 512 px, on a CPU. Stopped, it goes on.
set -euo pipefail

urae train mini_2x
urae train mini_4x

prompt="a flat tiger on a wood background"
urae generate "$prompt" --size 128x128 --out out/mini/native
urae generate "$prompt" --size 512x512 --policy none --out out/mini/direct
urae generate "$prompt" --size 256x256 --adapter out/mini_2x/adapter.safetensors --out out/mini/2x
urae generate "$prompt" --size 512x512 --adapter out/mini_4x/adapter.safetensors --out out/mini/4x
