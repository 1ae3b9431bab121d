"""Splits: disjoint by file and by group, whatever the layout and the groups are."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adiff.datasets.images import name_of, write_png
from adiff.datasets.readers import read_dataset
from adiff.errors import InputError
from adiff.evaluation.splits import read_groups, read_split, split_by_group, tell_untested

IMAGE, MASK = np.full((8, 8, 3), 90, np.uint8), np.eye(8, dtype=bool)


def fill(root, shots=6, train=4, test=3, defects=("scratch",)):
    """An MVTec-layout product without contents to speak of."""
    for defect in defects:
        for index in range(shots):
            write_png(root / "test" / defect / f"{index:03d}.png", IMAGE)
            write_png(root / "ground_truth" / defect / f"{index:03d}_mask.png", MASK)
    for folder, count in (("train", train), ("test", test)):
        for index in range(count):
            write_png(root / folder / "good" / f"{index:03d}.png", IMAGE)
    return root


def parts(split):
    record = split.record()
    return {name: set(files) for name, files in record.items()}


def check_disjoint(split, group_of):
    """No file and no group is on both sides; every file is somewhere."""
    teaching = [shot.image for shot in split.train] + list(split.train_normals)
    testing = [shot.image for shot in split.test] + list(split.test_normals)
    assert not set(teaching) & set(testing) and not set(split.dropped) & set(teaching + testing)
    shots = {group_of(shot.image) for shot in split.train}
    assert not shots & {group_of(path) for path in testing}
    assert not {group_of(p) for p in split.train_normals} & {group_of(p) for p in testing}


def test_the_lowest_ids_teach_and_good_images_keep_their_folders(tmp_path):
    split = read_split(fill(tmp_path / "metal"), "metal", {"scratch": 2})
    assert parts(split) == {
        "train": {"test/scratch/000.png", "test/scratch/001.png"},
        "test": {f"test/scratch/{i:03d}.png" for i in range(2, 6)},
        "train_normals": {f"train/good/{i:03d}.png" for i in range(4)},
        "test_normals": {f"test/good/{i:03d}.png" for i in range(3)},
        "dropped": set(),
    }
    assert len(read_split(tmp_path / "metal", "metal", {"scratch": None}).train) == 2  # a third


def test_paths_of_a_library_teach(tmp_path):
    fill(tmp_path / "metal")
    split = read_split(tmp_path, "metal", {"scratch": ["metal/test/scratch/004.png", "metal/test/scratch/001.png"]})
    assert [shot.image.stem for shot in split.train] == ["004", "001"]
    assert [shot.image.stem for shot in split.test] == ["000", "002", "003", "005"]
    with pytest.raises(InputError, match=r"scratch/9.png is not among the 6 shots of \S+; give"):
        read_split(tmp_path, "metal", {"scratch": ["metal/test/scratch/9.png"]})
    with pytest.raises(InputError, match="none is recorded"):
        read_split(tmp_path, "metal", {"scratch": []})


def test_paths_of_the_folder_around_a_product_s_and_of_its_own_are_the_same_shots(tmp_path, monkeypatch):
    """With what groups.json says of them in the folder around it."""
    own = fill(tmp_path / "metal")
    table = {f"metal/test/scratch/{i:03d}.png": "ab"[i % 2] for i in range(4)}
    (tmp_path / "groups.json").write_text(json.dumps(table))
    names = ["metal/test/scratch/001.png", "test/scratch/001.png"]
    around, inside = read_split(tmp_path, "metal", {"scratch": names}), read_split(own, "metal", {"scratch": names})
    monkeypatch.chdir(own)
    for split in (around, inside, here := read_split(Path(), "metal", {"scratch": names})):
        assert [shot.image.stem for shot in split.train] == ["001"]
        assert [shot.image.stem for shot in split.test] == ["000", "002", "004", "005"]
        assert [path.stem for path in split.dropped] == ["003"]
    assert inside.record() == here.record() != around.record()


def test_names_by_pixels_of_a_graph_s_library_teach(tmp_path):
    images = [np.full((8, 8, 3), 90 + index, np.uint8) for index in range(3)]
    fill(tmp_path / "metal")
    for index, image in enumerate(images):
        write_png(tmp_path / "metal" / "test" / "scratch" / f"{index:03d}.png", image)
    split = read_split(tmp_path, "metal", {"scratch": [name_of(images[2]), "metal/test/scratch/000.png"]})
    assert [shot.image.stem for shot in split.train] == ["002", "000"]
    assert [shot.image.stem for shot in split.test] == ["001", "003", "004", "005"]
    with pytest.raises(InputError, match="is not among the 6 shots .* read others from a JPEG"):
        read_split(tmp_path, "metal", {"scratch": [name_of(images[2] + 9)]})


@given(
    groups=st.lists(st.integers(0, 4), min_size=13, max_size=13), shots=st.integers(1, 5),
    nested=st.booleans(), by_rule=st.booleans(),
)  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_no_group_is_on_both_sides(tmp_path_factory, groups, shots, nested, by_rule):
    root = tmp_path_factory.mktemp("set")
    product = fill(root / "metal")
    files = [*(f"test/scratch/{i:03d}.png" for i in range(6)), *(f"train/good/{i:03d}.png" for i in range(4)),
             *(f"test/good/{i:03d}.png" for i in range(3))]  # fmt: skip
    table = {name: f"g{group}" for name, group in zip(files, groups, strict=True)}
    (product / "groups.json").write_text(json.dumps(table))
    place, rule = (root, None) if nested else (product, r"(\d)\.png" if by_rule else None)
    group_of = read_groups(place, "metal", rule)
    try:
        split = read_split(place, "metal", {"scratch": shots}, rule)
    except InputError as error:
        assert "left to test on" in str(error) or "to learn from" in str(error)
        return
    check_disjoint(split, group_of)
    everything = set().union(*parts(split).values())
    assert everything == {(product / name).relative_to(place).as_posix() for name in files}


def test_groups_of_paths_as_windows_writes_them(tmp_path):
    product = fill(tmp_path / "metal")
    (product / "groups.json").write_text(json.dumps({r"test\scratch\000.png": "a"}))
    assert read_groups(product, "metal")(product / "test" / "scratch" / "000.png") == "a"


def test_groups_that_would_part_nothing_are_told(tmp_path, caplog):
    product = fill(tmp_path / "metal")
    assert read_split(product, "metal", {"scratch": 1}, r"scratch/(\d+)").train and "in no path" not in caplog.text
    read_split(product, "metal", {"scratch": 1}, "tile(.+)_")
    assert "the group rule 'tile(.+)_' is found in no path of a shot of metal" in caplog.text
    (product / "groups.json").write_text(json.dumps({"metal/test/scratch/000.png": "a"}))
    with pytest.raises(InputError, match=r"groups.json names no file that is there, as .*metal/metal/test/scratch"):
        read_split(product, "metal", {"scratch": 1})


def test_several_defects_share_no_group_either(tmp_path, caplog):
    product = fill(tmp_path / "metal", defects=("hole", "scratch"))
    table = {"test/hole/000.png": "a", "test/scratch/005.png": "a", "test/scratch/000.png": "b"}
    (product / "groups.json").write_text(json.dumps(table))
    split = read_split(product, "metal", {"hole": 1, "scratch": 1})
    check_disjoint(split, read_groups(product, "metal"))
    assert parts(split)["dropped"] == {"test/scratch/005.png"} and len(split.test) == 9
    assert "metal/hole, scratch: 1 of 10 photos and 0 of 3 normal images are not tested on" in caplog.text


def test_one_folder_of_normals_is_shared_out_by_group(tmp_path):
    product = fill(tmp_path / "metal", train=9, test=0)
    (product / "groups.json").write_text(json.dumps({f"train/good/{i:03d}.png": f"g{i // 3}" for i in range(9)}))
    split = read_split(product, "metal", {"scratch": 2})
    assert [path.stem for path in split.test_normals] == ["006", "007", "008"] and len(split.train_normals) == 6
    (product / "test" / "good").mkdir()
    (product / "test" / "good" / "._000.png").write_bytes(b"junk of macOS")
    assert read_split(product, "metal", {"scratch": 2}) == split  # empty, as if it were not there
    (tmp_path / "plain").mkdir()
    for kind, content in (("images", IMAGE), ("masks", MASK), ("normal", IMAGE)):
        for index in range(3):
            write_png(tmp_path / "plain" / kind / f"{index}.png", content)
    split = read_split(tmp_path / "plain", "plain", {"defect": 1})
    assert (len(split.train_normals), len(split.test_normals)) == (2, 1)


def test_where_near_copies_leave_nothing_to_test_on_fewer_shots_are_told(tmp_path, caplog):
    """Three tiles, photographed in turn: of their six photos three show them all."""
    product = fill(tmp_path / "metal")
    (product / "groups.json").write_text(json.dumps({f"test/scratch/{i:03d}.png": "abc"[i % 3] for i in range(6)}))
    said = "no shot of metal/scratch is left to test on: 4 teach, the other 2 share a group with shots that do; `adiff "
    said += "train --shots 2` would leave 2"
    with pytest.raises(InputError) as refused:
        read_split(product, "metal", {"scratch": 4})
    assert str(refused.value) == said
    files = [shot.image for shot in read_dataset(tmp_path).shots["metal", "scratch"]]
    for count in (2, 4, 6):
        tell_untested(tmp_path, ("metal", "scratch"), files[:count], files[count:])
    (product / "groups.json").write_text("[]")  # somebody else's
    tell_untested(tmp_path, ("metal", "scratch"), files[:4], files[4:])
    assert caplog.messages == [said]


def test_parts_that_would_be_empty_are_refused(tmp_path):
    product = fill(tmp_path / "metal", shots=2)
    with pytest.raises(InputError, match="no shot of metal/scratch is left to test on: 2 teach, there are no others"):
        read_split(product, "metal", {"scratch": 2})
    (product / "groups.json").write_text(json.dumps({f"test/scratch/{i:03d}.png": "a" for i in range(2)}))
    with pytest.raises(InputError, match="the other 1 share a group with shots that do; add photos of other objects"):
        read_split(product, "metal", {"scratch": 1})
    (product / "groups.json").unlink()
    bare = fill(tmp_path / "bare", train=0, test=0)
    with pytest.raises(InputError, match="no normal images of bare to learn from: there are none"):
        read_split(bare, "bare", {"scratch": 1})


def test_bad_groups_are_refused(tmp_path):
    product = fill(tmp_path / "metal")
    for content, said in (("{", "damaged"), ("[]", "no JSON object"), ('{"a": 3}', "no table")):
        (product / "groups.json").write_text(content)
        with pytest.raises(InputError, match=said):
            read_groups(product, "metal")
    with pytest.raises(InputError, match="no regular expression"):
        read_groups(product, "metal", "(")
    with pytest.raises(InputError, match="2 pairs of parentheses"):
        read_groups(product, "metal", "(a)(b)")


@given(
    groups=st.lists(st.integers(0, 5), min_size=1, max_size=30), share=st.floats(0, 0.9), seed=st.integers(0, 100)
)
@settings(deadline=None)
def test_validation_takes_whole_groups_and_never_all(groups, share, seed):
    items = list(enumerate(groups))
    rest, aside = split_by_group(items, lambda item: item[1], share, np.random.default_rng(seed))
    assert sorted(rest + aside) == items and rest
    assert not {group for _, group in rest} & {group for _, group in aside}
    if share > 0 and len(set(groups)) > 1:
        assert aside


def test_splitting_many_pairs_takes_no_quadratic_time():
    """A dual run's pairs are a group each."""
    asked = []
    rest, aside = split_by_group(range(3000), lambda item: asked.append(item) or item, 0.1, np.random.default_rng(0))
    assert len(aside) == 300 and len(rest) == 2700 and len(asked) <= 3 * 3000
