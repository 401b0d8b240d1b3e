"""Policies of every kind, as settings."""

from __future__ import annotations

CLIP = {"rope_scale": 10.0, "rope_clip": True, "scale": 2.0}
POLICIES = {
    "neutral": {},
    "shift": {"shift": 6.0},
    "reference": {"rope_scale": 10.0, "proportional": True, "exact_ids": False},
    "clip": {**CLIP, "proportional": True},
    "clip4": {"rope_scale": 10.0, "rope_clip": True, "scale": 4.0},
    "linear": {"linear": True, "scale": 2.0},
    "linear theta": {"linear": True, "scale": 2.0, "rope_scale": 4.0, "proportional": True},
    "ntk": {"rope": "ntk", "scale": 2.0, "proportional": True},
    "yarn": {"rope": "yarn", "scale": 2.0},
    "dype": {"rope": "dype", "scale": 2.0},
    "dype_ntk": {"rope": "dype_ntk", "scale": 3.0, "proportional": True},
}
REFUSED = [
    {"rope_clip": True},
    {"linear": True},
    {"scale": 2.0},
    {"scale": 0.5, "linear": True},
    {"rope_clip": True, "linear": True, "scale": 2.0, "rope_scale": 10.0},
    {"rope_clip": True, "scale": 4.0, "rope_scale": 3.0},
    {"rope": "ntk"},
    {"rope": "ntk", "scale": 2.0, "rope_scale": 2.0},
    {"rope": "yarn", "scale": 2.0, "proportional": True},
    {"rope": "spline", "scale": 2.0},
    {"native_grid": 32},
    {"native_grid": 0, "rope": "yarn", "scale": 2.0},
    {"native_tokens": 1},
    {"rope_scale": 0.0},
    {"shift": 0.0},
    {"shift": float("nan")},
    {"shift": "3"},
    {"linear": 1, "scale": 2.0},
    {"native_tokens": 4608.0},
    {"scale": True},
    {"no_such": 1},
]
