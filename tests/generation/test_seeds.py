import hashlib

import numpy as np
import torch

from adiff.generation.seeds import derived_seed, generator_for, rng_for


def test_a_seed_is_a_function_of_its_purpose_by_hand():
    text = b"(3, 'pair', 7)"
    assert derived_seed(3, "pair", 7) == int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def test_every_purpose_has_its_own_seed():
    seeds = {derived_seed(s, what, i) for s in (0, 1, (0, 1), (1, 0)) for what in ("pair", "mask") for i in range(5)}
    assert len(seeds) == 4 * 2 * 5 and all(0 <= seed < 2**63 for seed in seeds)


def test_numpys_numbers_are_numbers():
    assert derived_seed(np.int64(3), "x") == derived_seed(3, "x")
    assert derived_seed((np.int64(3), 4), "x") == derived_seed([3, 4], "x")


def test_generators_repeat():
    assert torch.equal(torch.randn(3, generator=generator_for(1, "a")), torch.randn(3, generator=generator_for(1, "a")))
    assert rng_for(1, "a").integers(1 << 30) == rng_for(1, "a").integers(1 << 30)
