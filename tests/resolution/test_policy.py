"""The policy as an object, and what it does to a stock model and pipeline."""

import copy
import json
import warnings
from dataclasses import replace

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FluxImg2ImgPipeline, FluxTransformer2DModel
from PIL import Image
from transformers import T5TokenizerFast

from urae.errors import BadFile
from urae.resolution import ResolutionPolicy, active_policy, native_size, text_tokens, without_policy

SCALED = ResolutionPolicy(rope_scale=10.0, proportional=True, native_tokens=23)
CLIPPED = ResolutionPolicy(rope_scale=10.0, rope_clip=True, scale=2.0, proportional=True, native_tokens=23)
LINEAR = ResolutionPolicy(linear=True, scale=2.0, native_tokens=23, shift=1.5)
POLICIES = {"scaled": SCALED, "clipped": CLIPPED, "linear": LINEAR}


def grid_ids(height, width, dtype=torch.float32):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).to(dtype)


def inputs(height=8, width=6, batch=1, text=7, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    return {
        "hidden_states": torch.randn(batch, height * width, 64, generator=generator).to(dtype),
        "encoder_hidden_states": torch.randn(batch, text, 32, generator=generator).to(dtype),
        "pooled_projections": torch.randn(batch, 24, generator=generator).to(dtype),
        "timestep": torch.full((batch,), 0.5),
        "guidance": torch.full((batch,), 3.5),
        "img_ids": grid_ids(height, width, dtype),
        "txt_ids": torch.zeros(text, 3, dtype=dtype),
    }


def run(transformer, **changes):
    with torch.no_grad():
        return transformer(**inputs(**changes)).sample


def draw(pipe, embeds, size=(128, 96), **settings):
    width, height = size
    settings = {"num_inference_steps": 2, "output_type": "latent", "max_sequence_length": 7, **settings}
    generator = torch.Generator().manual_seed(0)
    return pipe(**embeds, width=width, height=height, generator=generator, **settings).images


def img2img(pipe, embeds, **settings):
    image = Image.linear_gradient("L").resize((128, 96)).convert("RGB")
    return draw(FluxImg2ImgPipeline(**pipe.components), embeds, image=image, strength=1.0, **settings)


@pytest.fixture
def tokenized(pipe):
    pipe.tokenizer_2 = T5TokenizerFast(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)], model_max_length=7
    )
    return pipe


# What it computes


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_tables_equal_the_dense_formula(transformer, policy):
    ids = torch.cat([torch.zeros(7, 3), grid_ids(9, 5)]).double()
    columns = []
    for axis, dim in enumerate(transformer.config.axes_dims_rope):
        for i in range(dim // 2):
            s = 2 * i / dim
            omega = (10000 * policy.rope_scale) ** -s
            if policy.rope_clip:
                omega = max(omega, 10000**-s / policy.scale)
            columns += [ids[:, axis] * omega / (policy.scale if policy.linear else 1)] * 2
    angles = torch.stack(columns, dim=1)
    factor = (torch.tensor(52.0).log() / torch.tensor(23.0).log()) ** 0.25 if policy.proportional else 1.0
    with policy.on(transformer):
        cos, sin = transformer.pos_embed(ids)
    torch.testing.assert_close(cos, (angles.cos() * factor).float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(sin, (angles.sin() * factor).float(), rtol=0, atol=1e-6)


def test_clip_and_no_clip_agree_where_no_frequency_is_lowered_too_far(transformer):
    # k^s <= 10, so a scale of just under 10 leaves every frequency to theta scaling
    unclipped = ResolutionPolicy(rope_scale=10.0)
    with unclipped.on(transformer):
        expected = run(transformer)
    with replace(unclipped, rope_clip=True, scale=9.99).on(transformer):
        assert torch.equal(run(transformer), expected)


def test_plain_policy_changes_nothing_in_a_transformer(transformer):
    before = run(transformer)
    with ResolutionPolicy().on(transformer):
        assert torch.equal(run(transformer), before)


def test_proportional_attention_multiplies_the_queries(transformer):
    """cos and sin carry the fourth root; the dense form multiplies each query."""
    policy = ResolutionPolicy(proportional=True, native_tokens=23)
    with policy.on(transformer):
        ours = run(transformer)
    tokens = 8 * 6 + 7
    factor = (torch.tensor(float(tokens)).log() / torch.tensor(23.0).log()).sqrt()
    for module in transformer.modules():  # the queries' RMS norms are linear in their weights
        for name in ("norm_q", "norm_added_q"):
            if getattr(module, name, None) is not None:
                getattr(module, name).weight.data *= factor
    torch.testing.assert_close(ours, run(transformer), rtol=0, atol=1e-5)


def test_proportional_attention_counts_the_tokens_of_each_call(transformer):
    policy = ResolutionPolicy(proportional=True, native_tokens=55)
    with policy.on(transformer):
        at_native, above = run(transformer), run(transformer, height=12)
    # T = 55 = 7 + 8 * 6: at that size the factor is 1
    torch.testing.assert_close(at_native, run(transformer), rtol=0, atol=1e-6)
    assert (above - run(transformer, height=12)).abs().max() > 1e-4


def test_each_image_of_a_batch_is_as_alone(transformer):
    batch = inputs(batch=3)
    with torch.no_grad(), CLIPPED.on(transformer):
        together = transformer(**batch).sample
        shared = {"img_ids", "txt_ids"}
        alone = [
            transformer(**{k: v if k in shared else v[i : i + 1] for k, v in batch.items()}).sample
            for i in range(3)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_ids_may_be_positional(transformer):
    x = inputs()
    names = ["hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "img_ids", "txt_ids"]
    with torch.no_grad(), CLIPPED.on(transformer):
        by_position = transformer(*(x[name] for name in names), x["guidance"]).sample
    with CLIPPED.on(transformer):
        assert torch.equal(run(transformer), by_position)


def test_exact_ids_tell_neighbours_apart_that_bf16_merges(transformer):
    transformer = transformer.bfloat16()
    wide = {"height": 2, "width": 300, "dtype": torch.bfloat16}
    exact = inputs(**wide) | {"img_ids": grid_ids(2, 300)}
    with torch.no_grad(), ResolutionPolicy(exact_ids=False).on(transformer):
        expected = transformer(**exact).sample
        merged = run(transformer, **wide)
    with ResolutionPolicy(exact_ids=True).on(transformer):
        assert torch.equal(run(transformer, **wide), expected)
    assert not torch.equal(merged, expected)


# Where it works


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("call", [draw, img2img])
def test_pipelines_run_with_the_policys_tables_and_shift(pipe, embeds, call, policy):
    plain = call(pipe, embeds)
    with policy.on(pipe):
        under_policy = call(pipe, embeds)
        assert pipe.scheduler.config.shift == policy.shift
    assert not torch.allclose(under_policy, plain, atol=1e-3)
    # the same by hand: a static scheduler, and the policy on the transformer alone
    stock = pipe.scheduler
    pipe.scheduler = type(stock).from_config(stock.config, use_dynamic_shifting=False, shift=policy.shift)
    with policy.on(pipe.transformer):
        assert torch.equal(call(pipe, embeds), under_policy)


def test_policy_on_one_pipeline_reaches_another_that_shares_the_transformer(pipe, embeds):
    other = FluxImg2ImgPipeline.from_pipe(pipe)
    with LINEAR.on(pipe):
        assert other.transformer.pos_embed is pipe.transformer.pos_embed


def test_an_offloaded_pipeline_gives_the_same(pipe, embeds):
    with CLIPPED.on(pipe):
        expected = draw(pipe, embeds)
    pipe.enable_model_cpu_offload(device="cpu")
    plain = draw(pipe, embeds)
    with CLIPPED.on(pipe):
        assert torch.equal(draw(pipe, embeds), expected)
    assert torch.equal(draw(pipe, embeds), plain)


def test_offload_turned_on_inside_the_block_gives_the_same(pipe, embeds):
    with CLIPPED.on(pipe):
        expected = draw(pipe, embeds)
        pipe.enable_model_cpu_offload(device="cpu")
        assert torch.equal(draw(pipe, embeds), expected)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="diffusers offloads layer by layer on accelerators only"
)
def test_a_sequentially_offloaded_pipeline_gives_the_same(pipe, embeds):
    pipe.to("cuda")
    with CLIPPED.on(pipe):
        expected = draw(pipe, embeds)
    pipe.to("cpu")
    pipe.enable_sequential_cpu_offload()
    plain = draw(pipe, embeds)
    with CLIPPED.on(pipe):
        torch.testing.assert_close(draw(pipe, embeds), expected)
    assert torch.equal(draw(pipe, embeds), plain)


def test_gradient_checkpointing_gives_the_same_gradients(transformer):
    def gradient():
        transformer.zero_grad()
        with CLIPPED.on(transformer):
            transformer(**inputs()).sample.square().sum().backward()
        return transformer.x_embedder.weight.grad.clone()

    expected = gradient()
    transformer.enable_gradient_checkpointing()
    torch.testing.assert_close(gradient(), expected)


@pytest.mark.parametrize("style", ["wrapped", "in place"])
def test_compiled_before_the_policy_obeys_it(style):
    """Forward hooks would be ignored here, in silence: torch.compile does not guard on them."""
    torch._dynamo.reset()
    transformer = small_transformer(num_single_layers=0)
    plain = run(transformer)
    with CLIPPED.on(transformer):
        expected = run(transformer)
    compiled = compile_as(style, transformer, backend="eager")
    assert torch.equal(run(compiled), plain)
    with CLIPPED.on(compiled):
        assert torch.equal(run(compiled), expected)
    assert torch.equal(run(compiled), plain)
    assert not torch.allclose(expected, plain, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("style", ["wrapped", "in place"])
def test_inductor_gives_the_same_at_every_policy_and_size(style):
    torch._dynamo.reset()
    transformer = small_transformer(num_single_layers=1)
    expected = []
    for policy in POLICIES.values():
        with policy.on(transformer):
            expected.append([run(transformer), run(transformer, height=9)])
    compiled = compile_as(style, transformer, backend="inductor")
    for policy, outputs in zip([*POLICIES.values()] * 2, expected * 2, strict=True):
        with policy.on(compiled):
            torch.testing.assert_close([run(compiled), run(compiled, height=9)], outputs, rtol=0, atol=1e-5)


def small_transformer(num_single_layers):
    torch.manual_seed(0)
    config = {"num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32}
    config |= {"pooled_projection_dim": 24, "axes_dims_rope": (4, 6, 6), "guidance_embeds": True}
    return FluxTransformer2DModel(**config, num_single_layers=num_single_layers).eval()


def compile_as(style, transformer, backend):
    if style == "wrapped":
        return torch.compile(transformer, backend=backend, fullgraph=True)
    transformer.compile(backend=backend, fullgraph=True)
    return transformer


def test_entering_again_does_not_compile_again(transformer):
    torch._dynamo.reset()
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    class Model(type(transformer)):
        """Of the family, with nothing but its positions."""

        def __init__(self):
            torch.nn.Module.__init__(self)
            self.pos_embed, self._internal_dict = transformer.pos_embed, transformer.config

        def forward(self, ids):
            return self.pos_embed(ids)

    compiled = torch.compile(Model(), backend=backend)
    for _ in range(3):
        with SCALED.on(compiled):
            compiled(grid_ids(4, 4))
        with CLIPPED.on(compiled):
            compiled(grid_ids(4, 4))
    assert len(graphs) == 2


def test_context_parallel_shards_count_as_one_sequence(transformer):
    from diffusers import ContextParallelConfig
    from diffusers.models._modeling_parallel import ParallelConfig

    policy = ResolutionPolicy(proportional=True, native_tokens=23)
    ids = grid_ids(8, 6)
    with policy.on(transformer):
        whole = transformer.pos_embed(ids)[0]
    transformer._parallel_config = ParallelConfig(
        context_parallel_config=ContextParallelConfig(ulysses_degree=2)
    )
    with policy.on(transformer):
        shard = transformer.pos_embed(ids[:24])[0]
    assert torch.equal(shard, whole[:24])


# What it leaves behind


def test_everything_is_restored_to_the_bit(pipe, embeds):
    pipe.scheduler.set_timesteps(3, mu=1.0)
    before = draw(pipe, embeds)
    embedding, scheduler = pipe.transformer.pos_embed, pipe.scheduler
    state = (copy.deepcopy(vars(embedding)), copy.deepcopy(vars(scheduler)), dict(pipe.config))
    names = [name for name, _ in pipe.transformer.named_modules()]
    with CLIPPED.on(pipe):
        draw(pipe, embeds)
    assert pipe.transformer.pos_embed is embedding
    assert pipe.scheduler is scheduler
    assert str((vars(embedding), vars(scheduler), dict(pipe.config))) == str(state)
    assert [name for name, _ in pipe.transformer.named_modules()] == names
    assert torch.equal(draw(pipe, embeds), before)


def test_exceptions_inside_the_block_restore_too(pipe):
    embedding, scheduler = pipe.transformer.pos_embed, pipe.scheduler

    def fail():
        with SCALED.on(pipe), LINEAR.on(pipe):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert pipe.transformer.pos_embed is embedding
    assert pipe.scheduler is scheduler


def test_inner_policy_replaces_the_outer_until_exit(pipe, embeds):
    alone = {}
    for name, policy in POLICIES.items():
        with policy.on(pipe):
            alone[name] = draw(pipe, embeds)
    with SCALED.on(pipe):
        with CLIPPED.on(pipe):
            with LINEAR.on(pipe):
                assert torch.equal(draw(pipe, embeds), alone["linear"])
            assert torch.equal(draw(pipe, embeds), alone["clipped"])
        assert torch.equal(draw(pipe, embeds), alone["scaled"])


def test_inner_plain_policy_switches_the_outer_off(transformer):
    plain = run(transformer)
    with SCALED.on(transformer), ResolutionPolicy(exact_ids=False).on(transformer):
        assert torch.equal(run(transformer), plain)


def test_without_policy_is_stock_behaviour_inside_a_policy(pipe, embeds):
    plain = draw(pipe, embeds)
    with LINEAR.on(pipe), CLIPPED.on(pipe):
        under_policy = draw(pipe, embeds)
        with without_policy(pipe):
            assert active_policy(pipe) is None
            assert torch.equal(draw(pipe, embeds), plain)
        assert torch.equal(draw(pipe, embeds), under_policy)
    with without_policy(pipe):
        assert torch.equal(draw(pipe, embeds), plain)


def test_active_policy_is_the_innermost(pipe):
    assert active_policy(pipe) is None
    with SCALED.on(pipe):
        with LINEAR.on(pipe.transformer):
            assert active_policy(pipe) is LINEAR
        assert active_policy(pipe) is SCALED
    assert active_policy(pipe) is None


def test_for_size_inside_a_policy_is_as_outside(tokenized):
    outside = ResolutionPolicy.for_size(tokenized, (128, 128))
    with LINEAR.on(tokenized):
        assert ResolutionPolicy.for_size(tokenized, (128, 128)) == outside


def test_weights_and_their_names_stay(transformer):
    before = transformer.state_dict()
    with CLIPPED.on(transformer):
        inside = transformer.state_dict()
    assert inside.keys() == before.keys()
    assert all(inside[name].data_ptr() == before[name].data_ptr() for name in before)


def test_theta_in_effect_can_be_read(transformer):
    with SCALED.on(transformer):
        assert transformer.pos_embed.policy.rope_scale == 10
    assert transformer.pos_embed.theta == 10_000
    assert isinstance(transformer.pos_embed.theta, int)


# Choosing one


def test_reference_is_what_the_published_code_does():
    assert ResolutionPolicy.reference() == ResolutionPolicy(
        rope_scale=10.0, proportional=True, native_tokens=4608, shift=3.0, exact_ids=False
    )


def test_for_size_at_or_below_native_only_fixes_the_shift(tokenized):
    native = ResolutionPolicy(native_tokens=7 + 16, shift=3.0)
    assert native_size(tokenized) == 64
    assert text_tokens(tokenized) == 7
    for size in [(64, 64), (32, 32), (128, 32), 64]:
        assert ResolutionPolicy.for_size(tokenized, size) == native


def test_for_size_interpolates_where_the_native_grid_is_small(tokenized):
    expected = ResolutionPolicy(linear=True, scale=2.0, proportional=True, native_tokens=23)
    assert ResolutionPolicy.for_size(tokenized, (256, 64)) == expected


def test_for_size_clips_where_the_native_grid_is_large(tokenized):
    tokenized.vae.register_to_config(sample_size=1024)
    policy = ResolutionPolicy.for_size(tokenized, (2048, 2048))
    expected = ResolutionPolicy(
        rope_scale=10.0, rope_clip=True, scale=2.0, proportional=True, native_tokens=7 + 4096, shift=3.0
    )
    assert policy == expected
    assert ResolutionPolicy.for_size(tokenized, (16384, 16384)).rope_scale == 32


def test_for_size_turns_from_theta_scaling_to_interpolation_between_12_and_13_tokens(tokenized):
    tokenized.vae.register_to_config(sample_size=12 * 16)
    assert ResolutionPolicy.for_size(tokenized, (512, 512)).linear
    tokenized.vae.register_to_config(sample_size=13 * 16)
    assert ResolutionPolicy.for_size(tokenized, (512, 512)).rope_clip


def test_for_size_keeps_the_checkpoints_shift(tokenized):
    tokenized.scheduler = type(tokenized.scheduler).from_config(tokenized.scheduler.config, shift=1.0)
    assert ResolutionPolicy.for_size(tokenized, (128, 128)).shift == 1.0


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope_clip": True, "rope_scale": 10.0}, "rope_clip has no effect at scale 1: set scale"),
        ({"linear": True}, "linear has no effect at scale 1: set scale"),
        ({"rope_clip": True, "scale": 2.0}, "rope_clip has no effect at rope_scale 1.0 and scale 2.0"),
        ({"rope_clip": True, "scale": 4.0, "rope_scale": 3.0}, "it acts only where rope_scale exceeds scale"),
        ({"rope_clip": True, "linear": True, "scale": 2.0, "rope_scale": 10.0}, "no effect with linear"),
        ({"scale": 2.0}, "scale 2.0 has no effect without rope_clip or linear"),
        ({"scale": 0.5, "linear": True}, "scale is 0.5: expected size / native size, 1 or more"),
        ({"rope_scale": 0.0}, "rope_scale is 0.0: expected a factor above 0"),
        ({"rope_scale": float("nan")}, "rope_scale is nan: expected a finite number"),
        ({"shift": 0.0}, "shift is 0.0: expected a static timestep shift above 0"),
        ({"shift": float("inf")}, "shift is inf: expected a finite number"),
        ({"native_tokens": 1}, "native_tokens is 1: expected 2 or more"),
        ({"native_tokens": 4608.0}, "native_tokens is 4608.0: expected a whole number"),
        ({"proportional": 1}, "proportional is 1: expected true or false"),
        ({"rope_scale": "10"}, "rope_scale is '10': expected a finite number"),
        ({"rope_scale": True}, "rope_scale is True: expected a finite number"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ResolutionPolicy(**settings)


def test_linear_may_go_with_theta_scaling(transformer):
    both = ResolutionPolicy(linear=True, scale=2.0, rope_scale=4.0)
    with both.on(transformer):
        ours = run(transformer)
    with ResolutionPolicy(rope_scale=4.0).on(transformer), torch.no_grad():
        x = inputs()
        torch.testing.assert_close(
            ours, transformer(**x | {"img_ids": x["img_ids"] / 2}).sample, rtol=0, atol=1e-6
        )


def test_a_model_without_rotary_embedding_is_refused():
    with (
        pytest.raises(ValueError, match="Linear is not a supported model family"),
        ResolutionPolicy().on(torch.nn.Linear(2, 2)),
    ):
        pass


def test_a_scheduler_without_static_shift_is_refused(tokenized):
    tokenized.scheduler = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    with (
        pytest.raises(ValueError, match="DPMSolverMultistepScheduler has no static timestep shift"),
        SCALED.on(tokenized),
    ):
        pass
    with pytest.raises(ValueError, match="DPMSolverMultistepScheduler has no static timestep shift"):
        ResolutionPolicy.for_size(tokenized, (64, 64))


def test_a_pipeline_without_tokenizer_is_refused(pipe):
    with pytest.raises(ValueError, match="no tokenizer_2"):
        ResolutionPolicy.for_size(pipe, (128, 128))


# JSON


@pytest.mark.parametrize("policy", [*POLICIES.values(), ResolutionPolicy.reference()])
def test_json_round_trip(policy):
    assert ResolutionPolicy.from_json(policy.to_json()) == policy
    assert ResolutionPolicy.from_dict(policy.to_dict()) == policy
    assert json.loads(policy.to_json()) == policy.to_dict()


def test_json_with_some_settings_keeps_the_other_defaults():
    assert ResolutionPolicy.from_json('{"shift": 6}') == ResolutionPolicy(shift=6.0)


def test_unknown_settings_are_refused_with_the_valid_ones():
    with pytest.raises(
        ValueError, match=r"has no 'ntk', 'x': valid settings are rope_scale, rope_clip, linear"
    ):
        ResolutionPolicy.from_json('{"ntk": 10, "x": 1, "shift": 3}')


def test_json_that_is_no_object_is_refused():
    for text in ("[1]", "{", '{"shift": NaN}', '{"shift": 1, "shift": 2}'):
        with pytest.raises(BadFile, match="a resolution policy in JSON is"):
            ResolutionPolicy.from_json(text)


def test_a_policy_runs_without_warnings(pipe, embeds):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with CLIPPED.on(pipe):
            draw(pipe, embeds)
