"""What a picture says about itself, for tests."""

from urae.provenance import Provenance
from urae.resolution import ResolutionPolicy

MADE = Provenance(
    prompt='a "glossy" tiger,\nnoch ein Bär, 猫',
    seed=7,
    size=(256, 128),
    steps=28,
    guidance=3.5,
    method="direct",
    options={},
    native="",
    policy=ResolutionPolicy.reference(),
    adapter_hash="ab" * 32,
    adapter_file="a.safetensors",
    model="mini",
    memory="as it is on cpu: no CUDA device here",
    versions={"torch": "2.13.0"},
)
