from itertools import product

import pytest
import torch
from diffusers import AutoencoderTiny

from adiff.embedding import Condition
from adiff.generation.sampler import guided_noise, make_reweighter, sample_blended, sample_plain, seeded_noise
from adiff.generation.settings import GenerationSettings
from adiff.reweighting import DISTANCES, MODES, Reweighter

SPAN = (0, 12)


def generators(count=2, seed=0):
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


@pytest.fixture
def y():
    return 0.3 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def cells():
    cells = torch.zeros(2, 1, 8, 8)
    cells[0, 0, 2:5, 3:6] = 1
    cells[1, 0, 5:, :2] = 1
    return cells


def condition(tokens=12, seed=1, batch=2):
    context = torch.randn(1, tokens, 768, generator=torch.Generator().manual_seed(seed)).expand(batch, -1, -1)
    return Condition(context, (0, tokens))


class Fake:
    """The noise is the context's mean; remembers the calls."""

    null_context = torch.full((1, 3, 2), 1.0)

    def __init__(self):
        self.calls = []

    def predict_noise(self, z, t, context, edit=None):
        self.calls.append((z, t, context, edit))
        return context.mean((1, 2)).view(-1, 1, 1, 1).expand_as(z)


def settings(**options):
    return GenerationSettings(**{"steps": 3, "guidance": 1.0, "reweighting": "off", **options})


@pytest.mark.parametrize("blending", ["fixed", "fresh"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_outside_the_mask_the_latents_end_as_the_normal_image(backbone, y, cells, blending, eta):
    x = sample_blended(backbone, y, cells, condition(), settings(blending=blending, eta=eta), generators())
    outside = cells.expand_as(y) == 0
    assert torch.equal(x[outside], y[outside])
    assert ((x - y).abs()[~outside] > 1e-3).all()


def test_fixed_and_fresh_noise_start_alike_and_end_apart(backbone, y, cells):
    ends = [
        sample_blended(backbone, y, cells, condition(), settings(blending=kind, steps=steps), generators())
        for steps in (1, 3) for kind in ("fixed", "fresh")
    ]  # fmt: skip
    assert torch.equal(ends[0], ends[1])  # one step: no outside but y itself
    assert not torch.allclose(ends[2], ends[3])


def test_an_image_does_not_depend_on_its_batch(backbone, y, cells):
    both = sample_blended(backbone, y, cells, condition(), settings(), generators())
    alone = sample_blended(backbone, y[1:], cells[1:], condition(batch=1), settings(), generators()[1:])
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-4)


def test_noise_is_each_images_own():
    both = seeded_noise((4, 2, 2), generators(2), torch.zeros(1, dtype=torch.float64))
    assert both.shape == (2, 4, 2, 2) and both.dtype == torch.float64
    assert torch.equal(both[1], seeded_noise((4, 2, 2), generators(1, seed=1), both)[0])


def test_guidance_by_hand():
    """null 1, condition 3: 1 + 5 (3 - 1) = 11."""
    x, fake = torch.zeros(2, 4, 2, 2), Fake()
    out = guided_noise(fake, x, 7, Condition(torch.full((2, 3, 2), 3.0), (0, 3)), 5.0)
    assert out.shape == x.shape and (out == 11).all()
    ((z, t, context, edit),) = fake.calls
    assert z.shape[0] == 4 and t.tolist() == [7] * 4 and edit is None
    assert context[:, 0, 0].tolist() == [1, 1, 3, 3]


def test_guidance_one_asks_the_model_once_without_the_null_context():
    fake = Fake()
    out = guided_noise(fake, torch.zeros(2, 4, 2, 2), 7, Condition(torch.full((2, 3, 2), 3.0), (0, 3)), 1.0)
    assert (out == 3).all() and [call[2].shape[0] for call in fake.calls] == [2]


def test_contexts_of_other_length_take_two_calls(backbone, y, cells):
    fake = Fake()
    out = guided_noise(fake, torch.zeros(2, 4, 2, 2), 7, Condition(torch.full((2, 5, 2), 3.0), (0, 5)), 5.0)
    assert (out == 11).all() and [call[2].shape for call in fake.calls] == [(2, 3, 2), (2, 5, 2)]


def test_two_calls_say_what_one_says(backbone, y):
    """A context told twice over attends as told once."""
    once, twice = condition(12), condition(12)
    twice = Condition(twice.context.repeat(1, 2, 1), (0, 24))
    one, two = (guided_noise(backbone, y, 500, c, 3.0) for c in (once, twice))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [12, 5])
def test_only_conditional_rows_are_re_weighted(backbone, y, cells, tokens):
    """The null rows stay: with guidance 0 they alone are seen; the conditional ones move."""
    reweighter = Reweighter(cells, y, mode="uniform", strength=1.0)
    reweighter.observe(y, y, 500)
    given = backbone, y, 500, condition(tokens)
    torch.testing.assert_close(guided_noise(*given, 0.0, reweighter), guided_noise(*given, 0.0))
    assert not torch.allclose(guided_noise(*given, 2.0, reweighter), guided_noise(*given, 2.0), atol=1e-3)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_uniform_of_strength_zero_is_off(backbone, y, cells, guidance):
    plain = sample_blended(backbone, y, cells, condition(), settings(guidance=guidance), generators())
    zero = Reweighter(cells, y, mode="uniform", strength=0.0)
    none = sample_blended(backbone, y, cells, condition(), settings(guidance=guidance), generators(), zero)
    torch.testing.assert_close(plain, none, rtol=1e-3, atol=1e-4)
    more = Reweighter(cells, y, mode="uniform", strength=1.0)
    some = sample_blended(backbone, y, cells, condition(), settings(guidance=guidance), generators(), more)
    assert not torch.allclose(plain, some, atol=1e-2)


@pytest.mark.parametrize(("lookahead", "calls"), [(False, 3), (True, 6)])
def test_lookahead_asks_the_model_twice_a_step(backbone, y, cells, monkeypatch, lookahead, calls):
    asked, whole = [], type(backbone).predict_noise
    monkeypatch.setattr(
        type(backbone), "predict_noise", lambda self, *given: (asked.append(given[1][0].item()), whole(self, *given))[1]
    )
    chosen = settings(reweighting="balanced", lookahead=lookahead)
    reweighter = make_reweighter(backbone, y, torch.zeros(2, 3, 64, 64), cells, chosen)
    sample_blended(backbone, y, cells, condition(), chosen, generators(), reweighter)
    assert asked == sorted([999, 666, 332] * (calls // 3), reverse=True)


@pytest.fixture(scope="module")
def preview(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taesd")
    AutoencoderTiny(
        encoder_block_out_channels=(4,) * 4, decoder_block_out_channels=(4,) * 4, num_decoder_blocks=(1, 1, 1, 1),
        num_encoder_blocks=(1, 1, 1, 1),
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.mark.parametrize(("mode", "distance"), list(product(MODES, DISTANCES)))
def test_every_mode_runs_with_every_distance(backbone, y, cells, preview, mode, distance):
    chosen = settings(reweighting=mode, distance=distance, steps=2, preview_decoder=preview)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    reweighter = make_reweighter(backbone, y, images, cells, chosen)
    x = sample_blended(backbone, y, cells, condition(), chosen, generators(), reweighter)
    outside = cells.expand_as(y) == 0
    assert x.isfinite().all() and torch.equal(x[outside], y[outside])
    assert (reweighter is None) == (mode == "off")


def test_the_steps_are_told(backbone, y, cells):
    told = []
    sample_blended(backbone, y, cells, condition(), settings(steps=2), generators(), on_step=told.append)
    assert told == [1, 2]


def test_whole_images_are_sampled_at_native_size(backbone):
    latents = sample_plain(backbone, condition(), 2, 5.0, generators())
    assert latents.shape == (2, 4, 8, 8) and latents.isfinite().all()
    again = sample_plain(backbone, condition(), 2, 5.0, generators())
    assert torch.equal(latents, again) and not torch.allclose(latents[0], latents[1])


def timesteps_asked(backbone, monkeypatch):
    """Remember what the model is asked: (t, x_t)."""
    asked, whole = [], type(backbone).predict_noise
    monkeypatch.setattr(
        type(backbone), "predict_noise",
        lambda self, *given: (asked.append((given[1][0].item(), given[0])), whole(self, *given))[1],
    )  # fmt: skip
    return asked


@pytest.mark.parametrize("blending", ["fixed", "fresh"])
def test_severity_zero_is_the_normal_image(backbone, y, cells, monkeypatch, blending):
    asked = timesteps_asked(backbone, monkeypatch)
    x = sample_blended(backbone, y, cells, condition(), settings(severity=0.0, blending=blending), generators())
    assert torch.equal(x, y) and not asked


def test_severity_one_half_takes_the_last_half_of_the_steps(backbone, y, cells, monkeypatch):
    asked = timesteps_asked(backbone, monkeypatch)
    sample_blended(backbone, y, cells, condition(), settings(severity=0.5, steps=4), generators())
    assert [t for t, _ in asked] == [499, 249]
    alpha_bar = backbone.alphas_cumprod[499].item()
    noise = seeded_noise(y.shape[1:], generators(), y)
    torch.testing.assert_close(asked[0][1], alpha_bar**0.5 * y + (1 - alpha_bar) ** 0.5 * noise)


def test_a_severity_above_one_is_a_factor_on_the_guidance(backbone, y, cells):
    given = backbone, y, cells, condition()
    double = sample_blended(*given, settings(severity=2.0, guidance=1.5), generators())
    assert torch.equal(double, sample_blended(*given, settings(guidance=3.0), generators()))
    assert not torch.equal(double, sample_blended(*given, settings(guidance=1.5), generators()))
