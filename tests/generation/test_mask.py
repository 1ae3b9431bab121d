import numpy as np
import pytest
import torch

from adiff.datasets.augmentation import augment_mask
from adiff.errors import InputError
from adiff.generation import MaskSampling, sample_masks
from adiff.generation.mask import draw_candidates
from adiff.generation.seeds import generator_for, rng_for
from adiff.masks import MaskRules, check_mask
from adiff.pixels import masks_as_images

RULES = MaskRules(min_area=0.01, max_area=0.3, max_components=1, min_component=4)


@pytest.fixture
def drawn(monkeypatch, make_mask):
    """Candidates in place of the sampler's: every third passes, by turns of other sizes."""
    calls = []

    def draw(backbone, embedding, count, settings, seed, first, shots):
        calls.append((first, count))
        broken = [np.zeros((64, 64), bool), np.ones((64, 64), bool)]
        return np.stack([make_mask(width=4 + i) if i % 3 == 2 else broken[i % 3] for i in range(first, first + count)])

    monkeypatch.setattr("adiff.generation.mask.draw_candidates", draw)
    return calls


def sample(count, tries=8, batch=16, rules=RULES, **options):
    return sample_masks(
        None, None, count, rules=rules, shots=[], settings=MaskSampling(tries=tries, batch=batch), **options
    )


def test_what_passes_the_rules_is_kept_in_order(drawn):
    found = sample(4)
    assert [one.candidate for one in found] == [2, 5, 8, 11]
    assert [one.mask.sum() for one in found] == [16 * (4 + i) for i in (2, 5, 8, 11)]
    assert not any(check_mask(one.mask, RULES) for one in found)


def test_which_masks_are_found_does_not_depend_on_the_batch(drawn):
    for batch in (1, 3, 16):
        assert [one.candidate for one in sample(3, batch=batch)] == [2, 5, 8]


def test_candidates_are_drawn_once_each_and_no_more_than_allowed(drawn):
    with pytest.raises(InputError, match="only 1 of 2 masks passed in 4 tries"):
        sample(2, tries=2, batch=3)
    numbers = [first + i for first, count in drawn for i in range(count)]
    assert numbers == [0, 1, 2, 3]


def test_when_the_tries_are_spent_the_reasons_are_named(drawn):
    with pytest.raises(
        InputError, match=r"only 0 of 2 masks passed in 6 tries; broken: .*area too small \(2\)"
    ) as error:
        sample(2, tries=3, rules=MaskRules(min_area=0.5, max_area=0.9))
    assert "empty (2)" in str(error.value) and "area too large (2)" in str(error.value)


def test_likeness_to_the_shots_is_reported(drawn, make_mask):
    shot = make_mask(0, 0, 16, 6)
    found = sample_masks(None, None, 1, rules=RULES, shots=[shot, make_mask()])
    assert found[0].iou == 1.0  # candidate 2 is 16 by 6 elsewhere
    assert sample(1)[0].iou == 0.0


def test_the_listener_hears_of_masks_and_tries(drawn, stopper):
    told = stopper()
    sample(2, progress=told)
    assert told.told[-1] == (2, {"tries": sum(count for _, count in drawn)}) and told.ended


def test_no_masks_cannot_be_asked_for():
    with pytest.raises(InputError, match="0 masks were asked for"):
        sample(0)


def test_a_candidate_depends_on_the_seed_and_its_number_alone(backbone):
    embedding, settings = torch.randn(4, 768, generator=torch.Generator().manual_seed(0)), MaskSampling(steps=2)
    many = draw_candidates(backbone, embedding, 4, settings, 3, 0)
    assert many.shape == (4, 64, 64) and many.dtype == bool
    later = draw_candidates(backbone, embedding, 2, settings, 3, 2)
    assert (many[2:] != later).mean() < 1e-3 < (many[:2] != later).mean()
    assert (draw_candidates(backbone, embedding, 1, settings, 4, 0) != many[:1]).mean() > 1e-3


def test_sampling_begins_at_a_noised_view_of_a_real_mask(backbone, monkeypatch, make_mask):
    """Of 5 steps at 0.6 the last 3 are taken, from q(x_t | y) with y a shot's view; at 1 all 5, from noise alone."""
    embedding, begun = torch.randn(4, 768, generator=torch.Generator().manual_seed(0)), []

    def first(backbone, x, t, *others):
        begun.append((t, x))
        return torch.zeros_like(x)

    monkeypatch.setattr("adiff.generation.sampler.guided_noise", first)
    shots = [make_mask(), make_mask(0, 0, 30, 30)]
    for denoise, steps in ((0.6, 3), (1.0, 5)):
        begun.clear()
        draw_candidates(backbone, embedding, 2, MaskSampling(steps=5, denoise=denoise), 0, 0, shots)
        assert len(begun) == steps
        (t, x), noise = (
            begun[0],
            torch.stack([torch.randn(4, 8, 8, generator=generator_for(0, "mask", i)) for i in (0, 1)]),
        )
        if denoise == 1:
            assert t == 999 and torch.equal(x, noise)
            continue
        alpha_bar = float(backbone.alphas_cumprod[t])
        y = (x - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5
        views = [
            augment_mask(shots[int(r.integers(2))], 64, r) for r in (rng_for(0, "view of a mask", i) for i in (0, 1))
        ]
        expected = backbone.encode(masks_as_images(torch.from_numpy(np.stack(views))))
        assert t == 599 and torch.allclose(y, expected, atol=1e-4)


def test_without_real_masks_sampling_begins_at_noise(backbone):
    embedding = torch.randn(4, 768, generator=torch.Generator().manual_seed(0))
    some, none = (draw_candidates(backbone, embedding, 1, MaskSampling(steps=3, denoise=d), 0, 0) for d in (0.5, 1.0))
    assert (some == none).all()


def test_pixels_above_the_threshold_are_on(backbone, monkeypatch):
    """Channels -1, 0, 1 and brighter: their mean in [0, 1] against 0.5 and 0.6 (Eq. 10)."""
    picture = torch.stack([torch.full((64, 64), v) for v in (-1.0, 0.2, 1.0)])[None]  # mean 0.0667 -> 0.533
    monkeypatch.setattr(type(backbone), "decode", lambda self, z: picture.expand(len(z), -1, -1, -1))
    for threshold, on in ((0.5, True), (0.6, False)):
        found = draw_candidates(backbone, torch.randn(4, 768), 1, MaskSampling(steps=1, threshold=threshold), 0, 0)
        assert (found == on).all()


def test_the_rules_hold_for_what_the_model_draws(backbone):
    """An untrained model draws specks; wide rules let them through, narrow ones refuse with their names."""
    embedding = torch.randn(4, 768, generator=torch.Generator().manual_seed(0))
    few = MaskSampling(steps=1, tries=2)
    with pytest.raises(InputError, match="only 0 of 1 masks passed in 2 tries; broken: "):
        sample_masks(backbone, embedding, 1, rules=MaskRules(min_area=0.999), shots=[], settings=few)
