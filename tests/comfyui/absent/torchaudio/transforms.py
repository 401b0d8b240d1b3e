"""One name that ComfyUI imports; using it fails."""

MelScale = None
