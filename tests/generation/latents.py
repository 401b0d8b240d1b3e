"""Draw latents with a stock pipeline that has no text encoders, and call its transformer by hand."""

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


def unpacked(pipe, images, size=SIZE):
    return pipe._unpack_latents(images, size[1], size[0], 8)


@torch.no_grad()
def transformer_call(pipe, embeds, latents, sigma, text, text_ids, guidance):
    _, channels, height, width = latents.shape
    patches = [
        latents[0, :, y : y + 2, x : x + 2].reshape(-1)
        for y in range(0, height, 2)
        for x in range(0, width, 2)
    ]
    ids = [[0, y, x] for y in range(height // 2) for x in range(width // 2)]
    tokens = pipe.transformer(
        hidden_states=torch.stack(patches)[None],
        timestep=torch.tensor([sigma]),
        guidance=None if guidance is None else torch.tensor([guidance]),
        pooled_projections=embeds["pooled_prompt_embeds"],
        encoder_hidden_states=text,
        txt_ids=text_ids,
        img_ids=torch.tensor(ids).float(),
    ).sample[0]
    out = torch.zeros_like(latents)
    for (_, y, x), token in zip(ids, tokens, strict=True):
        out[0, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = token.reshape(channels, 2, 2)
    return out
