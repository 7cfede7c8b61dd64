"""What to look at next: found where it is, worst first, and remembered as looked at."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakes import LABELS, make_tokens

from napari_sparsetok.review import Doubt, Finding, Mark, Notes, findings
from napari_sparsetok.scan import Geometry, Region, Scan

SHAPE = (16, 20, 24)
GEOMETRY = Geometry.shown(SHAPE, (2.0, 1.0, 1.0), (3.0, -4.0, 5.0))


def test_bits_apart_are_found_largest_first_and_diagonal_neighbours_are_one():
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:8, 2:8, 2:8] = 1
    mask[12:14, 15:17, 20:22] = 1
    mask[14, 17, 22] = 1  # touches the bit at a corner
    mask[0, 19, 0] = 1
    mask[5, 12, 12] = 2  # the only part of its label
    found = findings(mask, LABELS, GEOMETRY)
    assert [(x.kind, x.label, x.voxels) for x in found] == [("apart", 1, 9), ("apart", 1, 1)]
    assert found[0].region == Region((12, 15, 20), (15, 18, 23))
    assert mask[found[0].at] == 1
    assert found[0].volume == 9 * 2.0
    assert found[1].at == (0, 19, 0)


def test_tissue_far_from_every_kept_token_is_found_where_it_lies():
    scan = Scan(np.zeros(SHAPE, np.float32), GEOMETRY)
    tokens = make_tokens(scan, 1.0, Region.whole(SHAPE))
    tokens.stage[...] = 1  # pruned
    tokens.stage[0, 0, 0] = tokens.stages + 1  # one kept, in a corner
    mask = np.zeros(SHAPE, np.uint8)
    mask[0:2, 0:3, 0:3] = 1  # beside it
    mask[13:15, 16:19, 20:23] = 2  # far away
    (found,) = findings(mask, LABELS, GEOMETRY, tokens)
    assert (found.kind, found.label, found.voxels) == ("unseen", 2, 18)
    assert found.region == Region((13, 16, 20), (15, 19, 23))
    tokens.stage[...] = tokens.stages + 1  # everything is kept
    assert findings(mask, LABELS, GEOMETRY, tokens) == []


def test_doubt_from_elsewhere_feeds_the_list():
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:8, 2:8, 2:8] = 2
    values = np.zeros(SHAPE, np.float32)
    values[2:4, 2:4, 2:5] = 0.9
    values[10:, 10:, 10:] = 1.0  # no mask there
    (found,) = findings(mask, LABELS, GEOMETRY, doubt=Doubt(values, above=0.5))
    assert (found.kind, found.label, found.voxels) == ("unsettled", 2, 12)
    assert findings(mask, LABELS, GEOMETRY, doubt=Doubt(values, above=0.95)) == []


def test_it_can_be_stopped():
    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        findings(np.ones(SHAPE, np.uint8), LABELS, GEOMETRY, step=stop)


def finding(**changes: object) -> Finding:
    fields = {"kind": "apart", "label": 1, "at": (3, 4, 5), "region": Region((2, 3, 4), (5, 6, 7)), "voxels": 20}
    return Finding(**(fields | {"volume": 20.0} | changes))  # type: ignore[arg-type]


def test_a_finding_stays_looked_at_when_it_changes_a_little():
    notes = Notes().with_finding(finding(), True)
    assert notes.has(finding(voxels=18, at=(4, 4, 5)))
    assert not notes.has(finding(label=2))
    assert not notes.has(finding(kind="unseen"))
    assert not notes.has(finding(region=Region((6, 3, 4), (8, 6, 7))))
    assert not notes.with_finding(finding(voxels=3), False).has(finding())


def test_notes_survive_the_disk():
    notes = Notes(12.5).with_finding(finding(), True).with_slice(0, 7, True).with_slice(2, 3, True)
    notes = notes.with_slice(0, 9, True).with_slice(0, 9, False)
    document = json.loads(json.dumps(notes.to_json()))
    assert document["reviewed_slices"] == {"axial": [7], "coronal": [], "sagittal": [3]}
    assert Notes.from_json(document) == notes
    assert notes.findings == {Mark("apart", 1, (3, 4, 5))}


@pytest.mark.parametrize("document", [{}, {"seconds": "x"}, {"reviewed_slices": 3}, {"reviewed_findings": [1]}])
def test_notes_that_cannot_be_read_are_none(document):
    assert Notes.from_json(document) == Notes()
