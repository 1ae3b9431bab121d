"""The suites: their variants, and what each is compared with."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from adiff.benchmark.matrix import Budget
from adiff.benchmark.suites import SUITES, cells_of, variants_of
from adiff.benchmark.target import open_units
from adiff.cli.benchmark import DEFAULTS, Suites
from adiff.errors import InputError
from adiff.evaluation.uplift import ROWS
from adiff.generation import GenerationSettings
from adiff.reweighting import balanced_weights, uniform_weights, with_strength
from adiff.training import AnomalySettings, MaskSettings

DEFAULT = GenerationSettings()


def recipe(suite, name):
    return next(variant.recipe for variant in SUITES[suite].variants if variant.name == name)


@pytest.mark.parametrize("name", SUITES)
def test_variants_have_names_of_their_own_and_a_control_among_them(name):
    variants = SUITES[name].variants
    names = [variant.name for variant in variants]
    assert len(set(names)) == len(names)
    assert len({repr(variant.recipe) for variant in variants}) == len(names)
    for variant in variants:
        assert variant.control is None or (variant.control in names and variant.control != variant.name)
    assert SUITES[name].main in SUITES[name].shown


def test_the_command_offers_the_suites_that_there_are():
    assert [suite.value for suite in Suites] == list(SUITES)
    assert all(suite.value in SUITES for suites in DEFAULTS.values() for suite in suites)


def test_the_ablation_takes_one_part_away_at_a_time():
    parts = {v.name: (v.recipe.spatial, v.recipe.masked, v.recipe.generation.reweighting != "off")
             for v in SUITES["ablation"].variants}  # fmt: skip
    assert parts == {
        "textual inversion": (False, False, False),
        "textual inversion + Prompt-to-Prompt": (False, False, False),
        "SAE": (True, False, False),
        "SAE + masked loss": (True, True, False),
        "masked loss + AAR": (False, True, True),
        "all": (True, True, True),
    }  # fmt: skip


def test_every_balanced_has_the_uniform_weight_of_its_mean_beside_it():
    by_name = {variant.name: variant for variant in SUITES["reweighting"].variants}
    balanced = [v for v in by_name.values() if v.recipe.generation.reweighting == "balanced"]
    assert len(balanced) == 10
    for variant in balanced:
        control, own = by_name[variant.control].recipe.generation, variant.recipe.generation
        if own.level == 1:
            assert control == replace(own, reweighting="off", level=DEFAULT.level)
        else:
            assert control == replace(own, reweighting="uniform", distance="latent")
    assert {v.recipe.generation.level for v in balanced} == {1.0, 1.25, 1.5, 2.0}
    assert by_name["uniform, mean 1.25, guidance 3"].control == "off, guidance 3"


def test_a_fitted_guidance_stands_beside_the_default_and_alone_makes_another_recipe():
    fixed, fitted, *_ = SUITES["guidance"].variants
    assert fitted.control == fixed.name and fitted.recipe == replace(fixed.recipe, fitted=True)
    assert "fitted" not in fixed.recipe.record() and fitted.recipe.record()["fitted"]
    assert fixed.recipe.painting() == [asdict(DEFAULT)] and fitted.recipe.painting() == [asdict(DEFAULT), "fitted"]


def test_all_maps_that_are_tried_have_the_mean_of_their_control():
    d, m = torch.arange(1.0, 101).view(1, 1, 10, 10), torch.ones(1, 1, 10, 10)
    settings = [variant.recipe.generation for variant in SUITES["adaptivity"].variants]
    uniform = with_strength(uniform_weights(m, settings[0].level), settings[0].strength)
    for one in settings[1:]:
        weights = with_strength(balanced_weights(d, m, one.level), one.strength)
        assert one.reweighting == "balanced" and torch.isclose(weights.mean(), uniform.mean())
    assert weights.std() / balanced_weights(d, m, DEFAULT.level).std() == pytest.approx(1.5)  # the last


def test_some_variants_come_with_their_controls():
    found = variants_of(["reweighting", "steps"], ["balanced, mean 1.5", "1? steps"])
    assert [v.name for v in found["reweighting"]] == ["uniform, mean 1.5", "balanced, mean 1.5"]
    assert [v.name for v in found["steps"]] == ["10 steps", "15 steps", "200 steps"]
    assert {suite: len(every) for suite, every in variants_of(["grid", "steps"]).items()} == {"grid": 4, "steps": 6}
    with pytest.raises(InputError, match="there is no variant 'aar'; choose from neither; SAE; AAR; SAE \\+ AAR"):
        variants_of(["grid"], ["AAR", "aar"])



def test_the_uplift_has_the_rows_of_adiff_evaluate():
    varied = [f"{row}, shots' masks varied" for row in (ROWS[-2], ROWS[-1])]
    mixed = "real + generated and crop-paste, half each"
    assert [variant.name for variant in SUITES["uplift"].variants] == [*ROWS, *varied, mixed]
    assert [v.recipe.varied for v in SUITES["uplift"].variants] == [False] * len(ROWS) + [True, True, False]
    assert recipe("uplift", mixed).mixed == "crop-paste" and "mixed" not in recipe("uplift", "generated").record()
    assert recipe("uplift", "real").source is None and recipe("uplift", "real").real
    assert recipe("uplift", "real + cutpaste").source == "cutpaste" and not recipe("uplift", "generated").real


def test_curated_pairs_are_compared_with_the_same_as_they_come():
    by_name = {variant.name: variant for variant in SUITES["curation"].variants}
    for name, real in (("real + generated", True), ("generated", False)):
        refined, filtered = by_name[f"{name}, refined masks"], by_name[f"{name}, filtered"]
        assert {refined.control, filtered.control} == {name} and by_name[name].control is None
        assert refined.recipe.generation.refine and filtered.recipe.filtered
        assert {one.recipe.real for one in (by_name[name], refined, filtered)} == {real}


def test_dual_is_compared_with_the_other_method_and_its_parts_with_itself():
    by_name = {variant.name: variant for variant in SUITES["dual"].variants}
    assert {name: variant.control for name, variant in by_name.items()} == {
        "real": None, "real + generated": "real", "generated alone": "real", "real + dual": "real + generated",
        "dual alone": "generated alone", "dual, low-rank SAIM": "dual alone", "dual, without SAIM": "dual alone",
        "dual, with BCM": "dual alone", "dual, without nested conditions": "dual alone",
        "real + dual, low-rank SAIM": "real + dual",
    }  # fmt: skip
    whole = by_name["dual alone"].recipe
    changed = {"low-rank SAIM": {"saim": "low"}, "without SAIM": {"saim": "off"}, "with BCM": {"bcm": "paper"},
               "without nested conditions": {"nested": False}}  # fmt: skip
    for told, changes in changed.items():
        assert by_name[f"dual, {told}"].recipe == replace(whole, dual=replace(whole.dual, **changes), detect=False)
    low = by_name["dual, low-rank SAIM"].recipe
    assert by_name["real + dual, low-rank SAIM"].recipe == replace(low, real=True, detect=True)


def test_steps_shots_and_tokens_change_nothing_else():
    assert [v.recipe.generation for v in SUITES["steps"].variants] == [
        replace(DEFAULT, steps=n) for n in (10, 15, 20, 30, 50, 200)
    ]  # fmt: skip
    assert [v.recipe.shots for v in SUITES["shots"].variants] == [n for n in (1, 2, 3, 5, 10) for _ in range(2)]
    assert {(v.recipe.tokens, v.recipe.spatial_tokens, v.recipe.mask_tokens) for v in SUITES["tokens"].variants} == {
        (8, 4, 4), (8, 8, 4), (16, 4, 4), (16, 8, 4), (8, 4, 2), (8, 4, 16)
    }  # fmt: skip


def test_the_whole_matrix_is_made_for_one_seed_before_the_next(data):
    units, _ = open_units(data, [], [])
    cells = cells_of({"steps": units, "grid": units}, 2)
    assert len(cells) == 2 * 2 * (6 + 4) == len({cell.place for cell in cells})
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


@pytest.mark.parametrize("size", [128, 512])
def test_a_budget_has_the_method_s_steps_for_the_base(size):
    base = SimpleNamespace(native_size=size)
    budget = Budget().on(base)
    own = [kind.for_base(base, [5], early_stop=False).steps for kind in (AnomalySettings, MaskSettings)]
    assert [budget.learn_steps, budget.mask_steps] == own
