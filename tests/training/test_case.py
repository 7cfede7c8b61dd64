"""From files to what the network sees, without a shift."""

from __future__ import annotations

import labelled
import numpy as np
import pytest

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import ScanError
from napari_sparsetok.training.augmentation import Windows, cut, swap_sides
from napari_sparsetok.training.case import read_case
from napari_sparsetok.training.configuration import Preparation, TrainingConfig
from napari_sparsetok.training.dataset import open_dataset
from napari_sparsetok.weights import Body

TABLE = LabelTable.of(["front", "back"])


def read(root, preparation=None, table=TABLE, item=0):
    dataset = open_dataset(root)
    preparation = preparation or Preparation((1.0, 1.0, 1.0), {"name": "standardise"})
    return read_case(dataset["train"][item], dataset.matching(table).numbers, table, preparation)


def test_labels_that_were_not_drawn_are_unknown_and_their_voxels_background(tmp_path):
    case = read(labelled.write_decathlon(tmp_path, contoured=[2]))
    assert case.known.tolist() == [True, False, True]
    assert set(np.unique(case.labels)) == {0, 2}
    assert list(case.places) == [2]
    assert (case.labels[tuple(case.places[2].T)] == 2).all()


def test_labels_of_the_recipe_that_the_dataset_lacks_are_unknown(tmp_path):
    case = read(labelled.write_decathlon(tmp_path), table=LabelTable.of(["back", "nose", "front"]))
    assert case.known.tolist() == [True, True, False, True]
    assert set(np.unique(case.labels)) == {0, 1, 3}


def test_labels_that_the_recipe_lacks_are_background_and_the_others_keep_their_names(tmp_path):
    case = read(labelled.write_decathlon(tmp_path), table=LabelTable.of(["Back", "nose"]))
    assert case.known.tolist() == [True, True, False]
    assert set(np.unique(case.labels)) == {0, 1}
    _, labels = labelled.arrays(1)
    assert (case.labels == 1).sum() == (labels == 2).sum()


def test_a_number_that_nobody_named_is_refused_and_not_taken_for_background(tmp_path):
    root = labelled.write_decathlon(tmp_path)
    _, labels = labelled.arrays(1)
    labelled.save(root / "labelsTr" / "1.nii.gz", np.array([0, 1, 4], np.uint8)[labels])
    with pytest.raises(ScanError, match=r"1\.nii\.gz holds the label number\(s\) 4"):
        read(root)


def test_only_the_body_is_read(tmp_path):
    root = labelled.write_decathlon(tmp_path)
    whole = read(root)
    case = read(root, Preparation((1.0, 1.0, 1.0), {"name": "standardise"}, Body(1.2, 1.0)))
    assert np.prod(case.labels.shape) < np.prod(whole.labels.shape)
    assert (case.labels > 0).sum() == (whole.labels > 0).sum()


@pytest.mark.parametrize("spacing", [(1.6, 1.3, 0.7), (0.8, 0.8, 0.8)])
def test_a_ball_off_the_grid_stays_where_it_is_when_resampled(tmp_path, spacing):
    """Image and labels of a ball whose middle is no voxel: their centres of mass agree, in millimetres."""
    shape, middle, radius = (40, 36, 44), np.array([19.3, 17.8, 21.6]), 9.0
    far = np.linalg.norm(np.indices(shape).T - middle[::-1][[2, 1, 0]], axis=-1).T
    ball = far <= radius
    soft = np.clip(radius + 0.5 - far, 0, 1).astype(np.float32)
    root = labelled.write_decathlon(tmp_path, cases=2, splits={"train": [0], "val": [1]})
    labelled.save(root / "imagesTr" / "0.nii.gz", soft)
    labelled.save(root / "labelsTr" / "0.nii.gz", ball.astype(np.uint8))
    case = read(root, Preparation(spacing, {"name": "window", "low": 0, "high": 1}))
    met = [n / m for n, m in zip(reversed(shape), case.labels.shape, strict=True)]
    weight = (case.image[0] + 1) / 2
    centres = []
    for values in (weight, case.labels == 1):
        places = (np.indices(values.shape).reshape(3, -1) + 0.5) * np.array(met)[:, None]
        centres.append((places * values.ravel()).sum(1) / values.sum())
    assert np.abs(centres[0] - centres[1]).max() < 0.1
    volume = (case.labels == 1).sum() * np.prod(met)
    assert volume == pytest.approx(ball.sum(), rel=0.03)


def test_a_batch_has_the_window_s_size_whatever_the_case_s():
    training = TrainingConfig(batch=2, windows=((20,), (16,), (24,)), mirror=True)
    cases = [labelled.make_case(0), labelled.make_case(1, (12, 30, 16))]
    batch = Windows(training).draw(cases, np.random.default_rng(0))
    assert batch.images.shape == batch.labels.shape == (2, 1, 20, 16, 24)
    assert batch.known.shape == (2, 3)
    assert set(batch.labels.unique().tolist()) <= {0, 1, 2}


def test_windows_depend_on_their_generator_alone():
    windows, cases = Windows(TrainingConfig(batch=1, windows=((16,), (16,), (16,)))), [labelled.make_case(0)]
    first = windows.draw(cases, np.random.default_rng(7))
    windows.draw(cases, np.random.default_rng(8))
    again = windows.draw(cases, np.random.default_rng(7))
    assert (first.images == again.images).all()
    assert (first.labels == again.labels).all()


def test_empty_patches_stay_empty_and_no_others_become_so():
    """Noise, shifts and contrast change what is there; where nothing is, nothing comes, and nothing vanishes."""
    from napari_sparsetok.training.case import Case

    image = np.full((40, 40, 40), -1.0, np.float32)
    image[:, 20:, :] = np.random.default_rng(0).normal(-0.8, 0.1, (40, 20, 40)).clip(-0.99)
    case = Case.of("half", image[None], (image > -1).astype(np.uint8), [True, True])
    training = TrainingConfig(batch=1, windows=((24,), (24,), (24,)))
    airless, noisy = Windows(training, empty=-1.0), []
    for seed in range(16):
        batch = airless.draw([case], np.random.default_rng(seed))
        something, there = batch.images[0, 0] > -1, batch.labels[0, 0] == 1
        assert batch.images.min() >= -1
        assert (something == there).float().mean() > 0.8  # labels go to the nearest voxel, images lie between two
        assert there.float().mean() > 0.2  # no window is drawn for the sake of nothing
        noisy.append(bool((batch.images[0, 0][something] < -0.997).any()))
    assert any(noisy)  # shifts and noise reached the floor, and stopped above it


def test_windows_laid_around_labels_hold_some():
    image = np.zeros((60, 60, 60), np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[50:54, 4:8, 30:34] = 1
    from napari_sparsetok.training.case import Case

    case = Case.of("far", image[None], labels, [True, True])
    windows = Windows(TrainingConfig(batch=1, windows=((16,), (16,), (16,)), foreground_share=1.0))
    held = [int((windows.draw([case], np.random.default_rng(k)).labels == 1).any()) for k in range(20)]
    assert sum(held) >= 18  # a turn about its middle may carry a small structure out


def test_a_label_that_few_cases_have_is_drawn_as_often_as_one_that_all_have():
    rare = labelled.make_case(0)
    cases = [rare, *(labelled.make_case(k, known=(True, True, False)) for k in range(1, 10))]
    windows = Windows(TrainingConfig(batch=1, windows=((8,), (8,), (8,)), foreground_share=1.0))
    drawn = [windows.draw(cases, np.random.default_rng(k)).known[0, 2].item() for k in range(100)]
    assert 40 < sum(drawn) < 75  # half of the windows, and a tenth of the other half


@pytest.mark.parametrize("start", [-3, 0, 4, 9])
def test_a_cut_beyond_the_edge_is_filled(start):
    line = np.arange(1, 11)
    box = cut(line, [start], [6])
    for k, value in enumerate(box):
        at = start + k
        assert value == (line[at] if 0 <= at < 10 else 0)
    assert (cut(line, [start], [6], edge=True) > 0).all()


def test_mirrored_sides_change_places_with_what_is_known_of_them():
    labels = np.array([0, 1, 2, 3], np.uint8)
    swapped, known = swap_sides(labels, np.array([True, True, False, True]), ((1, 2),))
    assert swapped.tolist() == [0, 2, 1, 3]
    assert known.tolist() == [True, False, True, True]
