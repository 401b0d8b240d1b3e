from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from urae.adapters import Adapter
from urae.data import Sample
from urae.families import Posterior
from urae.families.flux import Flux
from urae.resolution import ResolutionPolicy
from urae.training.objective import Batch, draw_batch, losses, mixed, velocity_error
from urae.training.prediction import predictor

GOLDEN = Path(__file__).parents[1] / "golden"


def sample(index: int) -> Sample:
    generator = torch.Generator().manual_seed(index)
    text = {"prompt_embeds": torch.full((3, 2), float(index))}
    mean = torch.randn(16, 4, 6, generator=generator)
    return Sample(id=str(index), posterior=Posterior(mean=mean, std=torch.full_like(mean, 0.1)), text=text)


def drawn(places, *, seed=0, step=0, shift=1.0) -> Batch:
    samples = [sample(place) for place in places]
    return draw_batch(
        samples,
        places=list(places),
        seed=seed,
        step=step,
        distribution="uniform",
        shift=shift,
    )


def test_the_reference_step_has_its_loss(transformer):
    """The published training step before its first update, computed by our objective."""
    golden = load_file(GOLDEN / "training_step.safetensors")
    posterior = Posterior(mean=golden["latent_mean"], std=golden["latent_std"])
    raw = posterior.sample(golden["posterior_noise"])
    batch = Batch(
        clean=(raw - 0.1159) * 0.3611,
        noise=golden["noise"],
        sigma=golden["sigmas"],
        embeddings={name: golden[name] for name in ("prompt_embeds", "pooled_prompt_embeds")},
    )
    fused = Adapter.load(GOLDEN / "urae_2k_adapter.safetensors")
    with torch.no_grad(), fused.on(transformer, policy=ResolutionPolicy.reference()):
        for guidance in (1.0, 3.5):
            predict = predictor(Flux(), transformer, guidance=guidance, base_dtype="fp32")
            loss = losses(predict(batch), batch, None, flow_weight=1.0, distill_weight=0.0)["loss"].mean()
            assert loss.item() == pytest.approx(golden[f"g{guidance}.loss"].item(), rel=1e-5)


def test_mixing_runs_from_clean_to_noise():
    clean, noise = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    noisy = mixed(clean, noise, torch.tensor([0.0, 1.0, 0.25]))
    assert torch.equal(noisy[0], clean[0])
    assert torch.equal(noisy[1], noise[1])
    torch.testing.assert_close(noisy[2], 0.75 * clean[2] + 0.25 * noise[2])


def test_a_batch_is_drawn_alike_however_it_is_split():
    whole = drawn(range(6))
    parts = [drawn(range(0, 6, 2)), drawn(range(1, 6, 2))]
    for process, part in enumerate(parts):
        assert torch.equal(part.noisy, whole.noisy[process::2])
        assert torch.equal(part.sigma, whole.sigma[process::2])
        assert torch.equal(part.embeddings["prompt_embeds"], whole.embeddings["prompt_embeds"][process::2])


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 1}])
def test_other_seeds_and_steps_draw_everything_anew(change):
    first, second = drawn(range(4)), drawn(range(4), **change)
    assert not (first.noise == second.noise).any()
    assert not (first.sigma == second.sigma).any()
    assert not (first.clean == second.clean).any()


def test_samples_of_a_batch_are_independent():
    batch = drawn(range(8))
    rows = torch.cat(
        [
            batch.noise.flatten(1),
            (batch.clean - torch.stack([sample(i).posterior.mean for i in range(8)])).flatten(1),
        ]
    )
    correlation = torch.corrcoef(rows) - torch.eye(16)
    assert correlation.abs().max() < 0.25  # 384 numbers each: five standard deviations


def test_the_clean_latent_is_drawn_from_the_posterior():
    batch = drawn(range(8))
    deviation = batch.clean - torch.stack([sample(i).posterior.mean for i in range(8)])
    assert deviation.std().item() == pytest.approx(0.1, rel=0.05)


def test_each_image_comes_with_its_text():
    assert drawn([3, 0, 5]).embeddings["prompt_embeds"][:, 0, 0].tolist() == [3, 0, 5]


def test_losses_are_weighted_and_of_each_sample():
    batch = drawn(range(2))
    predicted, taught = torch.zeros_like(batch.noise), torch.ones_like(batch.noise)
    found = losses(predicted, batch, taught, flow_weight=0.5, distill_weight=2.0)
    dense = ((batch.noise - batch.clean) ** 2).mean(dim=(1, 2, 3))
    torch.testing.assert_close(found["flow"], dense)
    torch.testing.assert_close(found["distill"], torch.ones(2))
    torch.testing.assert_close(found["loss"], 0.5 * dense + 2.0)


def test_a_part_without_weight_is_absent():
    batch = drawn(range(2))
    assert losses(batch.noise, batch, None, flow_weight=1.0, distill_weight=0.0).keys() == {"loss", "flow"}


def test_errors_are_means_over_elements_in_fp32():
    predicted = torch.zeros(2, 1, 2, 2, dtype=torch.bfloat16)
    target = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    error = velocity_error(predicted, target)
    assert error.tolist() == [1.0, 9.0]
    assert error.dtype == torch.float32
