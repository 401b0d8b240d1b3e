"""Key layouts: round trips, and proof by diffusers' own readers of the same layouts."""

import json

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file
from tiny_flux import GOLDEN, fresh_transformer, name_of, output, trained_adapter, with_transformer

from urae.adapters import Adapter, Full, Lora, Minor
from urae.adapters.convert import LAYOUTS, lost_by_stock, parse, to_layout
from urae.adapters.targets import linear_layers
from urae.errors import BadFile

LAYOUT = pytest.mark.parametrize("layout", LAYOUTS)


def flux_factors(rank=2, seed=0, shared=False):
    """Factors for every linear layer of a FLUX.1 of full width, two blocks of each kind."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True)
    generator = torch.Generator().manual_seed(seed)
    inputs: dict = {}
    factors = {}
    for name, layer in linear_layers(transformer).items():
        A = torch.randn(rank, layer.in_features, generator=generator)
        if shared:  # as in a file that was trained on fused projections
            A = inputs.setdefault((name.rsplit(".", 1)[0], layer.in_features, "add" in name), A)
        factors[name] = (A, torch.randn(layer.out_features, rank, generator=generator))
    return factors


FACTORS = flux_factors()


def probe(pair):
    """B A x for a fixed x: as good as the product, and small."""
    A, B = pair
    return B @ (A @ torch.randn(A.shape[1], 2, generator=torch.Generator().manual_seed(9)))


def assert_same_products(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(probe(found[name]), probe(expected[name]), rtol=1e-5, atol=1e-3)


@LAYOUT
def test_round_trip_of_every_module_of_flux(layout):
    parsed = parse(to_layout(FACTORS, layout))
    assert parsed.layout == layout
    assert parsed.factors.keys() == FACTORS.keys()
    for name, (A, B) in FACTORS.items():
        assert torch.equal(parsed.factors[name][0], A), name
        assert torch.equal(parsed.factors[name][1], B), name


@LAYOUT
def test_round_trip_of_some_modules_with_mixed_ranks(layout):
    single, double = "single_transformer_blocks.1.attn", "transformer_blocks.0.attn"
    other = flux_factors(rank=3, seed=1)
    some = {
        f"{single}.to_k": FACTORS[f"{single}.to_k"],
        f"{single}.to_v": other[f"{single}.to_v"],
        f"{double}.to_q": other[f"{double}.to_q"],
    }
    parsed = parse(to_layout(some, layout)).factors
    assert parsed.keys() == some.keys()
    assert all(torch.equal(parsed[name][side], some[name][side]) for name in some for side in (0, 1))


def test_fused_ranks_add_up_and_shared_inputs_stay_shared():
    single = "lora_unet_single_blocks_0_linear1"
    apart, shared = to_layout(FACTORS, "kohya"), to_layout(flux_factors(shared=True), "kohya")
    assert apart[f"{single}.lora_down.weight"].shape == (8, 3072)
    assert apart[f"{single}.lora_up.weight"].shape == (3 * 3072 + 12288, 8)
    assert float(apart[f"{single}.alpha"]) == 8
    assert shared["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"].shape == (2, 3072)


def test_the_papers_targets_make_linear1_of_three_ranks():
    names = [f"single_transformer_blocks.0.attn.{part}" for part in ("to_q", "to_k", "to_v")]
    tensors = to_layout({name: FACTORS[name] for name in names}, "kohya")
    up = tensors["lora_unet_single_blocks_0_linear1.lora_up.weight"]
    assert up.shape == (3 * 3072 + 12288, 6)
    assert not up[3 * 3072 :].any()


def test_stock_diffusers_reads_our_kohya_file_at_full_width(tmp_path):
    blocks = {name: pair for name, pair in FACTORS.items() if "transformer_blocks" in name}
    save_file(to_layout(blocks, "kohya"), tmp_path / "kohya.safetensors")
    stock = FluxPipeline.lora_state_dict(tmp_path / "kohya.safetensors")
    pairs = {}
    for key in stock:
        name = key.removeprefix("transformer.").rpartition(".lora_")[0]
        pairs[name] = (stock[f"transformer.{name}.lora_A.weight"], stock[f"transformer.{name}.lora_B.weight"])
    assert_same_products(pairs, blocks)


@pytest.mark.parametrize("spec", [Lora(rank=4), Minor(rank=4)], ids=name_of)
def test_stock_pipeline_runs_our_kohya_file(spec, pipe, tmp_path):
    """Double blocks only: diffusers reads `linear1` at the width of FLUX alone (see the next test)."""
    spec = type(spec)(rank=4, targets=("re:transformer_blocks.*attn.to_(q|k|v|out.0)",))
    adapter = trained_adapter(spec)
    path = adapter.save(tmp_path / "kohya.safetensors", layout="kohya")
    stock = with_transformer(pipe, fresh_transformer())
    stock.load_lora_weights(path)
    transformer = fresh_transformer()
    with adapter.on(transformer):
        torch.testing.assert_close(output(stock.transformer), output(transformer), atol=1e-5, rtol=0)
    assert Adapter.load(path, base=transformer).metadata() == adapter.metadata()


def test_stock_pipeline_runs_our_kohya_file_with_single_blocks_of_full_width(pipe, tmp_path):
    torch.manual_seed(0)
    wide = FluxTransformer2DModel(num_layers=0, num_single_layers=1, joint_attention_dim=32).eval()
    names = [name for name in FACTORS if name.startswith("single_transformer_blocks.0.")]
    factors = {name: (FACTORS[name][0] / 100, FACTORS[name][1] / 100) for name in names}
    adapter = Adapter(factors=factors)
    path = adapter.save(tmp_path / "kohya.safetensors", layout="kohya")
    inputs = {
        "hidden_states": torch.randn(1, 16, 64),
        "encoder_hidden_states": torch.randn(1, 3, 32),
        "pooled_projections": torch.randn(1, 768),
        "timestep": torch.tensor([0.5]),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(3, 3),
    }
    with torch.no_grad():
        plain = wide(**inputs).sample
        with adapter.on(wide):
            ours = wide(**inputs).sample
        stock = with_transformer(pipe, wide)
        stock.load_lora_weights(path)
        theirs = wide(**inputs).sample
    assert (ours - plain).abs().max() > 1e-3
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)


def test_original_names_are_those_of_diffusers_checkpoint_converter():
    """Each update, passed off as a checkpoint's weight, must land on the modules that we read it to."""
    tensors = to_layout(FACTORS, "comfy")
    tensors = {key.removeprefix("diffusion_model."): tensor for key, tensor in tensors.items()}
    modules = {key.partition(".lora_")[0] for key in tensors}
    checkpoint = {}
    for module in modules:
        pair = tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"]
        checkpoint[f"{module}.weight"] = probe(pair)
        checkpoint[f"{module}.bias"] = torch.zeros(pair[1].shape[0])
    for index in range(2):
        for stream in ("img_attn", "txt_attn"):
            for norm in ("query_norm", "key_norm"):
                checkpoint[f"double_blocks.{index}.{stream}.norm.{norm}.scale"] = torch.zeros(1)
                checkpoint[f"single_blocks.{index}.norm.{norm}.scale"] = torch.zeros(1)
    converted = convert_flux_transformer_checkpoint_to_diffusers(checkpoint)
    for name, pair in FACTORS.items():
        torch.testing.assert_close(converted[f"{name}.weight"], probe(pair), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("rename", "layout"),
    [
        (lambda key: key.removeprefix("transformer."), "diffusers"),
        (lambda key: f"base_model.model.{key.removeprefix('transformer.')}", "diffusers"),
        (lambda key: key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"), "diffusers"),
        (lambda key: key.replace(".weight", ".default.weight"), "diffusers"),
    ],
)
def test_other_spellings_of_the_diffusers_layout(rename, layout):
    tensors = load_file(GOLDEN / "urae_2k_adapter.safetensors")
    parsed = parse({rename(key): tensor for key, tensor in tensors.items()})
    assert parsed.layout == layout
    assert_same_products(parsed.factors, parse(tensors).factors)


def test_comfyui_and_underscored_spellings():
    blocks = {name: pair for name, pair in FACTORS.items() if "transformer_blocks" in name}
    comfy = to_layout(blocks, "comfy")
    assert_same_products(parse(comfy).factors, blocks)
    bare = parse({key.removeprefix("diffusion_model."): tensor for key, tensor in comfy.items()})
    assert bare.layout == "bfl"
    assert_same_products(bare.factors, blocks)
    underscored = {}
    for name, (A, B) in blocks.items():
        underscored[f"lora_transformer_{name.replace('.', '_')}.lora_down.weight"] = A
        underscored[f"lora_transformer_{name.replace('.', '_')}.lora_up.weight"] = B
    assert_same_products(parse(underscored).factors, blocks)


def test_alpha_is_multiplied_in():
    tensors = to_layout(FACTORS, "kohya")
    halved = {key: tensor / 2 if key.endswith("alpha") else tensor for key, tensor in tensors.items()}
    expected = {name: (A, B / 2) for name, (A, B) in FACTORS.items()}
    assert_same_products(parse(halved).factors, expected)


def test_an_alpha_may_be_a_whole_number():
    tensors = to_layout(FACTORS, "kohya")
    whole = {key: tensor.long() if key.endswith("alpha") else tensor for key, tensor in tensors.items()}
    assert_same_products(parse(whole).factors, FACTORS)


def test_the_alpha_of_diffusers_training_scripts(pipe, tmp_path):
    """Kept in the metadata, and applied as stock `load_lora_weights` applies it."""
    tensors = load_file(GOLDEN / "urae_2k_adapter.safetensors")
    modules = sorted({key.removeprefix("transformer.").rpartition(".lora_")[0] for key in tensors})
    config = {"r": 4, "lora_alpha": 8, "target_modules": modules, "alpha_pattern": {"attn.to_k": 2}}
    metadata = {f"transformer.{key}": value for key, value in config.items()}
    path = tmp_path / "script.safetensors"
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(metadata)})
    stock, transformer = with_transformer(pipe, fresh_transformer()), fresh_transformer()
    stock.load_lora_weights(path)
    with Adapter.load(path).on(transformer):
        torch.testing.assert_close(output(transformer), output(stock.transformer), atol=1e-5, rtol=0)


def factors_of(module, down=(2, 8), up=(8, 2), names=("lora_A", "lora_B")):
    return {f"{module}.{name}.weight": shape for name, shape in zip(names, (down, up), strict=True)}


KOHYA = ("lora_down", "lora_up")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"lora_unet_img_in.lora_down.weight": (2, 8)}, "'lora_unet_img_in' has a factor A but no B"),
        (
            factors_of("lora_unet_double_blocks_0_img_magic", names=KOHYA),
            "img_magic' is not a module of .*FLUX.1",
        ),
        (
            factors_of("double_blocks.0.img_attn.qkv", up=(23, 2)),
            "23 rows, which do not split into 3 parts of width 8",
        ),
        ({**factors_of("img_in"), **factors_of("x_embedder")}, "mixes key layouts: 'img_in' beside"),
        (factors_of("img_in", (2, 8, 1, 1), (8, 2, 1, 1)), "do not form a product B A"),
    ],
)
def test_files_of_no_layout(shapes, message):
    with pytest.raises(BadFile, match=message):
        parse({key: torch.ones(shape) for key, shape in shapes.items()})


def test_what_has_no_other_layout(tmp_path):
    with pytest.raises(
        ValueError, match="layout 'onnx' is unknown: valid layouts are diffusers, kohya, comfy"
    ):
        to_layout(FACTORS, "onnx")
    with pytest.raises(ValueError, match=r"'blocks.0.attn1.to_q' is not a module of .*FLUX.1"):
        to_layout({"blocks.0.attn1.to_q": (torch.ones(2, 8), torch.ones(8, 2))}, "kohya")
    with pytest.raises(ValueError, match="a full adapter has no low-rank form.*use comfy"):
        trained_adapter(Full(targets=("proj_out",))).save(tmp_path / "full.safetensors", layout="kohya")
    assert not list(tmp_path.iterdir())


# --- what comes from other tools -----------------------------------------------------------------------------------

SINGLE = "single_transformer_blocks.0.proj_out"
SOME = {name: FACTORS[name] for name in (SINGLE, "transformer_blocks.1.attn.to_k", "x_embedder", "proj_out")}
PAIR = ("lora_A", "lora_B")


def spelled(prefix, *, flat=False, names=PAIR):
    """`SOME` under diffusers' names after a prefix."""
    tensors = {}
    for name, pair in SOME.items():
        module = prefix + (name.replace(".", "_") if flat else name)
        tensors |= {f"{module}.{side}.weight": tensor for side, tensor in zip(names, pair, strict=True)}
    return tensors


@pytest.mark.parametrize(
    "prefix", ["", "transformer.", "diffusion_model.", "model.diffusion_model.", "base_model.model."]
)
def test_prefixes_before_names_with_dots(prefix):
    parsed = parse(spelled(prefix))
    assert parsed.layout == "diffusers"
    assert_same_products(parsed.factors, SOME)


@pytest.mark.parametrize("prefix", ["lora_transformer_", "lycoris_", "lora_unet_"])
def test_prefixes_before_names_without_dots(prefix):
    assert_same_products(parse(spelled(prefix, flat=True, names=KOHYA)).factors, SOME)


def test_a_checkpoints_prefix_before_original_names():
    tensors = {f"model.{key}": tensor for key, tensor in to_layout(SOME, "comfy").items()}
    assert_same_products(parse(tensors).factors, SOME)


def test_names_that_two_families_have_are_told_apart_by_their_prefix():
    """ "img_in" is FLUX.1's original name of x_embedder, and Krea 2's name in diffusers."""
    for prefix, module in (("transformer.", "img_in"), ("diffusion_model.", "x_embedder")):
        tensors = {f"{prefix}img_in.{side}.weight": torch.ones(2, 2) for side in PAIR}
        assert list(parse(tensors).factors) == [module]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "unet.transformer_blocks.0.attn.to_q.lora_A.weight",
            "adapts a U-Net .*expected a transformer of .*FLUX",
        ),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "adapts a U-Net"),
        ("lora_te2_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight", "also adapts a text encoder"),
        ("text_encoders.clip_l.transformer.text_model.final.lora_A.weight", "also adapts a text encoder"),
        (
            "model.transformer_blocks.0.attn.to_q.lora_A.weight",
            "'model.transformer.*' is not a module of .*FLUX",
        ),
        (
            "diffusion_model.stages.0.attention.qkv.lora_A.weight",
            "'diffusion_model.stages.0.* is not a module of",
        ),
        ("lora_unet_double_blocks_0_img_attn_qkv_extra.lora_down.weight", "is not a module of"),
        ("lycoris_transformer_blocks_0_attn_to_q.lokr_w1", "is a LoKr"),
        ("transformer_blocks.0.attn.to_q.hada_w1_a", "is a LoHa"),
        ("transformer_blocks.0.attn.to_q.oft_blocks", "is an OFT"),
        ("transformer_blocks.0.attn.to_q.lora_magnitude_vector", "is a DoRA"),
        ("transformer_blocks.0.attn.to_q.lora_mid.weight", "is a LoRA of convolutions"),
        ("img_in.lora_B.bias", "is a control LoRA"),
        ("transformer_blocks.0.attn.to_q.lora_A.style.weight", "is not part of a LoRA that urae reads"),
        ("double_blocks.0.processor.qkv_lora1.down.weight", "is not part of a LoRA that urae reads"),
        ("transformer_blocks.0.attn.to_q.vera_lambda_b", "is not part of a LoRA that urae reads"),
        ("double_blocks.0.img_attn.qkv.weight", "holds a model's weights .*give it as the base"),
    ],
)
def test_what_is_not_read_is_named(key, message):
    with pytest.raises(BadFile, match=message) as caught:
        parse({key: torch.ones(2, 2)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("transformer.x_embedder.lora_A.weight", "x_embedder.lora_A.weight"),
        ("x_embedder.lora_A.weight", "x_embedder.lora_down.weight"),
        ("transformer.x_embedder.diff", "x_embedder.weight.diff"),
        ("diffusion_model.img_in.diff", "img_in.weight.diff"),
    ],
)
def test_a_module_in_two_spellings_is_refused(first, second):
    tensors = {key: torch.ones(2, 2) for key in (first, second)}
    tensors |= {key.replace("lora_A", "lora_B").replace("down", "up"): torch.ones(2, 2) for key in tensors}
    with pytest.raises(BadFile, match="in two spellings"):
        parse(tensors)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(2, 8, dtype=torch.complex64), "complex64: expected floating point numbers"),
        (torch.ones(2, 8, dtype=torch.int8), "int8: expected floating point numbers"),
        (torch.ones(0, 8), r"shape \(0, 8\) and the type torch.float32: expected"),
        (torch.ones(()), r"A \(\) and B \(8, 2\), which do not form a product"),
        (torch.ones(2, 8, 1), r"A \(2, 8, 1\) and B"),
        (torch.full((2, 8), 1e300, dtype=torch.float64), "holds NaN or infinite values in 'x_embedder'"),
    ],
)
def test_factors_of_odd_shapes_and_types(tensor, message):
    with pytest.raises(BadFile, match=message):
        parse({"x_embedder.lora_A.weight": tensor, "x_embedder.lora_B.weight": torch.ones(8, 2)})


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        (torch.ones(2), "an alpha of 2 numbers: expected one"),
        (torch.tensor(float("nan")), "its alphas applied, holds NaN or infinite"),
        (torch.tensor(3e38), "its alphas applied, holds NaN or infinite"),
    ],
)
def test_alphas_that_are_none(alpha, message):
    tensors = {f"x_embedder.{side}.weight": torch.full((2, 2), 100.0) for side in PAIR}
    with pytest.raises(BadFile, match=message):
        parse({**tensors, "x_embedder.alpha": alpha})


# --- full differences ----------------------------------------------------------------------------------------------


def flux_differences():
    """A change of every parameter of a FLUX.1 of full width; weights have two columns."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True)
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(tensor.shape[0], *[2] * (tensor.ndim - 1), generator=generator)
        for name, tensor in transformer.state_dict().items()
    }


def test_every_change_of_flux_goes_to_comfyui_where_diffusers_converter_takes_it_from():
    differences = flux_differences()
    tensors = to_layout({}, "comfy", differences=differences)
    assert {key.rpartition(".")[2] for key in tensors} == {"diff", "diff_b"}
    checkpoint = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("diffusion_model.").removesuffix("_b").removesuffix(".diff")
        end = "" if name.endswith(".scale") else ".bias" if key.endswith("_b") else ".weight"
        checkpoint[f"{name}{end}"] = tensor
    converted = convert_flux_transformer_checkpoint_to_diffusers(checkpoint)
    assert converted.keys() == differences.keys()
    assert all(torch.equal(converted[name], differences[name]) for name in differences)


def test_changes_come_back_from_comfyui():
    """Whole, and where only some parts of a fused layer are changed."""
    differences = flux_differences()
    some = [name for name in differences if "blocks.0" in name and ("to_k" in name or "proj_mlp" in name)]
    some += [
        "norm_out.linear.weight",
        "norm_out.linear.bias",
        "transformer_blocks.1.attn.norm_added_k.weight",
    ]
    for names in (some, [name for name in differences if "blocks.1" in name and "ff" not in name]):
        chosen = {name: differences[name] for name in names}
        parsed = parse(to_layout({}, "comfy", differences=chosen))
        assert parsed.layout == "comfy"
        assert parsed.differences.keys() == chosen.keys()
        assert all(torch.equal(parsed.differences[name], chosen[name]) for name in names)


def test_what_comfyui_extracts_has_factors_and_changes(tmp_path):
    """LoRA of the weights, differences of the biases and norms."""
    transformer = fresh_transformer()
    names = ["transformer_blocks.0.attn.to_q", "proj_out"]
    lora = trained_adapter(Lora(rank=2, targets=tuple(names)))
    biases = {f"{name}.bias": torch.full_like(transformer.get_submodule(name).bias, 0.1) for name in names}
    tensors = to_layout(lora.factors, "comfy", differences=biases)
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / "extracted.safetensors")
    extracted = Adapter.load(tmp_path / "extracted.safetensors", base=transformer)
    assert extracted.is_full
    plain = output(transformer)
    with extracted.on(transformer):
        found = output(transformer)
    assert torch.equal(output(transformer), plain)
    with Adapter(differences=biases).on(transformer), lora.on(transformer, allow_other_base=True):
        torch.testing.assert_close(found, output(transformer), atol=1e-6, rtol=0)
    assert Adapter.load(extracted.save(tmp_path / "again.safetensors")).hash == extracted.hash


def test_full_adapters_in_comfyuis_layout(tmp_path):
    adapter = trained_adapter(Full(targets=("*",)))
    path = adapter.save(tmp_path / "full.safetensors", layout="comfy")
    transformer = fresh_transformer()
    with adapter.on(transformer):
        expected = output(transformer)
    with Adapter.load(path, base=transformer).on(transformer):
        assert torch.equal(output(transformer), expected)


# --- what other loaders take ---------------------------------------------------------------------------------------


@LAYOUT
def test_what_stock_diffusers_leaves_out_is_known(layout, tmp_path):
    save_file(to_layout(FACTORS, layout), tmp_path / "some.safetensors")
    stock = FluxPipeline.lora_state_dict(tmp_path / "some.safetensors")
    lost = [name for name in FACTORS if f"transformer.{name}.lora_A.weight" not in stock]
    assert lost_by_stock(FACTORS, layout) == lost
    assert bool(lost) == (layout != "diffusers")
