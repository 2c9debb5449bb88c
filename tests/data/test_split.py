from collections import Counter
from pathlib import Path

import pytest

from vidette.data.manifest import LabelledClip, Manifest
from vidette.data.split import Split, SplitPlan, make_folds, split_manifest
from vidette.errors import SplitError


def make_manifest(
    *,
    num_groups: int = 12,
    per_group: int = 4,
    classes: tuple[str, ...] = ("fight", "noFight"),
    grouped: bool = True,
    splits: tuple[str | None, ...] | None = None,
    num_folds: int | None = None,
) -> Manifest:
    """Groups of clips, each group holding every class; splits and folds cycle over the groups."""
    clips = tuple(
        LabelledClip(
            Path(f"g{g}/c{c}.mp4"),
            classes[c % len(classes)],
            f"g{g}" if grouped else None,
            split=splits[g % len(splits)] if splits else None,
            fold=str(g % num_folds) if num_folds else None,
        )
        for g in range(num_groups)
        for c in range(per_group)
    )
    return Manifest(Path("clips.csv"), clips, tuple(sorted(classes)))


def of_labels(*counts: int, grouped: bool = False) -> Manifest:
    """``counts[k]`` clips of class k; grouped: each clip is a group."""
    clips = tuple(
        LabelledClip(Path(f"{k}/{i}.mp4"), f"class{k}", f"{k}-{i}" if grouped else None)
        for k, count in enumerate(counts)
        for i in range(count)
    )
    return Manifest(Path("clips"), clips, tuple(f"class{k}" for k in range(len(counts))))


def groups_of(manifest, indices):
    return {manifest.group_of(i) for i in indices}


def assert_whole(manifest, split):
    """Three disjoint sets that hold every clip once."""
    everything = [*split.train, *split.validation, *split.test]
    assert sorted(everything) == list(range(len(manifest)))


def assert_no_group_on_two_sides(manifest, split):
    sides = [groups_of(manifest, part) for part in (split.train, split.validation, split.test)]
    assert sum(map(len, sides)) == len(set.union(*sides))


@pytest.mark.parametrize("seed", range(3))
def test_grouped_keeps_groups_on_one_side(seed):
    manifest = make_manifest()
    split = split_manifest(manifest, SplitPlan(strategy="grouped", seed=seed))
    assert_whole(manifest, split)
    assert_no_group_on_two_sides(manifest, split)
    assert split.warnings == ()


def test_grouped_sizes_and_classes_follow_the_plan():
    manifest = make_manifest(num_groups=40)
    split = split_manifest(manifest, SplitPlan(validation_fraction=0.15, test_fraction=0.2))
    total = len(manifest)
    assert len(split.test) / total == pytest.approx(0.2, abs=0.05)
    assert len(split.validation) / total == pytest.approx(0.15, abs=0.05)
    for part in (split.train, split.validation, split.test):
        shares = Counter(manifest.clips[i].label for i in part)
        assert shares["fight"] == pytest.approx(shares["noFight"], abs=1)


def test_groups_of_one_class_each_still_reach_every_set():
    """As where a person or source video shows one class only: few groups a class."""
    clips = tuple(
        LabelledClip(Path(f"{label}{g}-{i}.mp4"), label, f"{label}{g}")
        for label in ("a", "b", "c")
        for g in range(4)
        for i in range(3)
    )
    manifest = Manifest(Path("clips"), clips, ("a", "b", "c"))
    for seed in range(3):
        split = split_manifest(manifest, SplitPlan(seed=seed))
        assert_no_group_on_two_sides(manifest, split)
        for part in (split.train, split.validation, split.test):
            assert {manifest.clips[i].label for i in part} == {"a", "b", "c"}


@pytest.mark.parametrize("strategy", ["grouped", "stratified"])
def test_same_seed_same_split_and_other_seed_another(strategy):
    manifest = make_manifest()
    first = split_manifest(manifest, SplitPlan(strategy=strategy, seed=3))
    assert split_manifest(manifest, SplitPlan(strategy=strategy, seed=3)) == first
    others = {split_manifest(manifest, SplitPlan(strategy=strategy, seed=s)).test for s in range(4)}
    assert len(others) > 1


def test_auto_takes_column_then_groups_then_clips():
    with_column = make_manifest(splits=("train", "validation", "test"))
    assert split_manifest(with_column, SplitPlan()).name == "column"
    assert split_manifest(make_manifest(), SplitPlan()).name == "grouped"
    assert split_manifest(make_manifest(grouped=False), SplitPlan()).name == "stratified"


def test_stratified_keeps_shares_of_unequal_classes():
    manifest = of_labels(80, 20)
    split = split_manifest(manifest, SplitPlan(strategy="stratified", test_fraction=0.2))
    assert_whole(manifest, split)
    assert Counter(manifest.clips[i].label for i in split.test) == {"class0": 16, "class1": 4}
    assert Counter(manifest.clips[i].label for i in split.validation) == {"class0": 12, "class1": 3}


def test_stratified_warns_with_the_count_of_leaking_clips_where_groups_exist():
    manifest = make_manifest()
    split = split_manifest(manifest, SplitPlan(strategy="stratified"))
    seen = groups_of(manifest, (*split.train, *split.validation))
    leaking = sum(manifest.group_of(i) in seen for i in split.test)
    assert leaking > 0
    assert split.warnings == (
        f"{leaking} of {len(split.test)} test clips share a group with training or validation:"
        " this score leaks.",
    )


def test_unknown_groups_are_told():
    split = split_manifest(make_manifest(grouped=False), SplitPlan())
    assert len(split.warnings) == 1
    assert "each clip is its own group" in split.warnings[0]
    assert "--group-from" in split.warnings[0]


def test_column_is_obeyed():
    manifest = make_manifest(splits=("train", "train", "validation", "test"))
    split = split_manifest(manifest, SplitPlan(strategy="column"))
    for name in ("train", "validation", "test"):
        assert [manifest.clips[i].split for i in getattr(split, name)] == [name] * len(getattr(split, name))
    assert_whole(manifest, split)


@pytest.mark.parametrize("grouped", [True, False])
def test_column_without_validation_takes_it_from_training_never_from_test(grouped):
    manifest = make_manifest(splits=("train", "train", "test"), grouped=grouped)
    split = split_manifest(manifest, SplitPlan(strategy="column"))
    assert split.validation
    assert {manifest.clips[i].split for i in (*split.train, *split.validation)} == {"train"}
    assert {manifest.clips[i].split for i in split.test} == {"test"}
    assert len(split.test) == sum(clip.split == "test" for clip in manifest.clips)
    if grouped:
        assert_no_group_on_two_sides(manifest, split)


def test_column_that_parts_a_group_is_warned_of():
    clips = tuple(
        LabelledClip(Path(f"{i}.mp4"), "ab"[i % 2], "scene", split=("train", "validation", "test")[i // 4])
        for i in range(12)
    )
    split = split_manifest(Manifest(Path("c.csv"), clips, ("a", "b")), SplitPlan())
    assert split.warnings == ("4 of 4 test clips share a group with training or validation: this score leaks.",)


def test_column_set_without_a_class_is_warned_of():
    clips = tuple(
        LabelledClip(Path(f"{i}.mp4"), label, f"g{i}", split=split)
        for i, (label, split) in enumerate(
            [("a", "train"), ("b", "train"), ("a", "validation"), ("b", "validation"), ("a", "test")]
        )
    )
    split = split_manifest(Manifest(Path("c.csv"), clips, ("a", "b")), SplitPlan())
    assert split.warnings == ("The test set has no clip of b.",)


@pytest.mark.parametrize(("splits", "absent"), [(("train", "validation"), "test"), (("test",), "train")])
def test_column_without_a_needed_set(splits, absent):
    with pytest.raises(SplitError, match=f"no clip has split '{absent}'; fill the split column"):
        split_manifest(make_manifest(splits=splits), SplitPlan())


def test_column_asked_but_absent():
    with pytest.raises(SplitError, match="no clip has split 'train'"):
        split_manifest(make_manifest(), SplitPlan(strategy="column"))


# Bad input.


def test_one_class():
    with pytest.raises(SplitError, match=r"has one class only \(class0\); expected two or more"):
        split_manifest(of_labels(20), SplitPlan())


@pytest.mark.parametrize("count", [1, 2])
def test_class_with_too_few_clips_is_named(count):
    with pytest.raises(SplitError, match=rf"too few clips .*class1 \({count}\).*at least 3 clips") as caught:
        split_manifest(of_labels(30, count), SplitPlan())
    assert "class0" not in str(caught.value)


def test_three_clips_of_a_class_are_enough():
    manifest = of_labels(30, 3)
    split = split_manifest(manifest, SplitPlan())
    assert_whole(manifest, split)
    for part in (split.train, split.validation, split.test):
        assert sum(manifest.clips[i].label == "class1" for i in part) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_class_with_too_few_groups_is_named(count):
    with pytest.raises(SplitError, match=rf"too few groups .*class1 \({count}\).*--split stratified"):
        split_manifest(of_labels(30, count, grouped=True), SplitPlan(strategy="grouped"))


def test_three_groups_of_a_class_are_enough():
    manifest = of_labels(30, 3, grouped=True)
    for seed in range(3):
        split = split_manifest(manifest, SplitPlan(strategy="grouped", seed=seed))
        assert_no_group_on_two_sides(manifest, split)
        for part in (split.train, split.validation, split.test):
            assert sum(manifest.clips[i].label == "class1" for i in part) == 1


def test_grouped_asked_without_groups():
    with pytest.raises(SplitError, match=r"no groups to split by; add a group column, .*--group-from"):
        split_manifest(make_manifest(grouped=False), SplitPlan(strategy="grouped"))


@pytest.mark.parametrize("fractions", [(0.0, 0.2), (0.2, 1.0), (-0.1, 0.2), (0.5, 0.45)])
def test_impossible_fractions(fractions):
    with pytest.raises(SplitError, match="validation_fraction"):
        SplitPlan(validation_fraction=fractions[0], test_fraction=fractions[1])


def test_a_split_refuses_a_clip_on_two_sides():
    with pytest.raises(SplitError, match="a clip is in two of training, validation and test"):
        Split("mine", (0, 1), (1, 2), (3,))


@pytest.mark.parametrize("part", ["training", "validation", "test"])
def test_a_split_refuses_an_empty_side(part):
    sides = {name: (i,) for i, name in enumerate(("training", "validation", "test"))} | {part: ()}
    with pytest.raises(SplitError, match=f"no clip is left for {part}"):
        Split("mine", *sides.values())


# Folds.


@pytest.mark.parametrize(
    ("by", "num_folds", "grouped"),
    [
        ("column", 4, True),
        ("column", 4, False),
        ("grouped", 5, True),
        ("stratified", 5, True),
        ("stratified", 5, False),
        ("leave_one_group_out", 12, True),
    ],
)
def test_folds_test_every_clip_once_and_validate_on_training_only(by, num_folds, grouped):
    manifest = make_manifest(num_folds=4, grouped=grouped)
    folds = make_folds(manifest, by=by, num_folds=num_folds)
    assert len(folds) == num_folds
    assert sorted(i for fold in folds for i in fold.test) == list(range(len(manifest)))
    for fold in folds:
        assert_whole(manifest, fold)
        if by != "stratified" and grouped:
            assert_no_group_on_two_sides(manifest, fold)
        assert not any("leaks" in text for text in fold.warnings) or by == "stratified"


def test_column_folds_are_the_columns():
    manifest = make_manifest(num_folds=3)
    for fold in make_folds(manifest, by="column"):
        assert {manifest.clips[i].fold for i in fold.test} == {fold.name.rsplit(" ", 1)[1]}


def test_leave_one_group_out_tests_one_group_each():
    manifest = make_manifest()
    tested = [groups_of(manifest, fold.test) for fold in make_folds(manifest, by="leave_one_group_out")]
    assert [len(groups) for groups in tested] == [1] * 12
    assert set.union(*tested) == set(manifest.groups)


def test_folds_are_the_same_for_the_same_seed():
    manifest = make_manifest()
    assert make_folds(manifest, by="grouped", seed=1) == make_folds(manifest, by="grouped", seed=1)
    assert make_folds(manifest, by="grouped", seed=1) != make_folds(manifest, by="grouped", seed=2)


def test_stratified_folds_warn_where_groups_exist():
    manifest = make_manifest()
    for fold in make_folds(manifest, by="stratified"):
        assert any(f"of {len(fold.test)} test clips share a group" in text for text in fold.warnings)


def test_column_folds_that_part_a_group_warn():
    clips = tuple(
        LabelledClip(Path(f"{i}.mp4"), "ab"[i % 2], f"g{i // 2 % 5}", fold=str(i % 3)) for i in range(30)
    )
    folds = make_folds(Manifest(Path("c.csv"), clips, ("a", "b")), by="column")
    assert all("10 of 10 test clips share a group" in fold.warnings[0] for fold in folds)


def test_validation_of_folds_has_the_asked_share_of_all_clips():
    manifest = make_manifest(num_groups=40, num_folds=4)
    for fold in make_folds(manifest, by="column", validation_fraction=0.15):
        assert len(fold.validation) / len(manifest) == pytest.approx(0.15, abs=0.05)


def test_no_fold_column():
    with pytest.raises(SplitError, match="48 of 48 clips have no fold; fill the fold column"):
        make_folds(make_manifest(), by="column")


def test_one_fold_only():
    with pytest.raises(SplitError, match=r"one fold only \(0\); expected two or more"):
        make_folds(make_manifest(num_folds=1), by="column")


def test_no_groups_to_leave_out():
    with pytest.raises(SplitError, match="no groups to leave out"):
        make_folds(make_manifest(grouped=False), by="leave_one_group_out")


@pytest.mark.parametrize(
    ("by", "num", "most"), [("grouped", 13, 12), ("stratified", 25, 24), ("grouped", 1, 12)]
)
def test_more_folds_than_there_can_be(by, num, most):
    with pytest.raises(SplitError, match=f"{num} folds asked, but there are {most} .*use 2 to {most} folds"):
        make_folds(make_manifest(), by=by, num_folds=num)


def test_folds_of_one_class():
    with pytest.raises(SplitError, match="one class only"):
        make_folds(of_labels(20), by="stratified")
