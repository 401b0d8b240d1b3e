"""Draw latents with a stock pipeline that has no text encoders."""

import torch

SIZE = (96, 64)


def draw(pipe, embeds, size=SIZE, num=1, steps=3, **settings):
    embeds = {
        name: value.repeat(num, *[1] * (value.ndim - 1)).to(pipe.dtype) for name, value in embeds.items()
    }
    return pipe(
        **embeds,
        width=size[0],
        height=size[1],
        num_inference_steps=steps,
        output_type="latent",
        max_sequence_length=7,
        generator=[torch.Generator().manual_seed(seed) for seed in range(num)],
        **settings,
    ).images
