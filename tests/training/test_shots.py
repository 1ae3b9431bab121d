from adiff.training.shots import shot_digests


def test_the_digest_sees_each_shot_and_its_defect(shots):
    key = ("metal", "hole")
    image, mask = shots[key][0]
    others = [
        {**shots, key: shots[key][::-1]}, {**shots, key: shots[key][:1]},
        {**shots, key: [(image, ~mask), shots[key][1]]},
        {("metal", "holes"): shots[key], ("wood", "stain"): shots["wood", "stain"]},
    ]  # fmt: skip
    assert len({tuple(shot_digests(given).items()) for given in [shots, *others]}) == 5


def test_a_digest_goes_by_the_file_s_name_where_there_is_one(shots):
    key = ("metal", "hole")
    plain, named = shot_digests({key: shots[key]}), shot_digests({key: shots[key]}, {key: ["a.png", "b.png"]})
    assert list(plain) == ["metal/hole: shot 1", "metal/hole: shot 2"]
    assert list(named) == ["metal/hole: a.png", "metal/hole: b.png"] and list(named.values()) == list(plain.values())
