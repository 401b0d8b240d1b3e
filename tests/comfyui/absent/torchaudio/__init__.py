"""Stands for torchaudio where there is none, so that ComfyUI can be imported: the models here use nothing of it."""
