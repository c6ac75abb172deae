"""The comparison behind ``make bench``: both ways give one answer, and say what they keep."""

from __future__ import annotations

import pytest
import torch

from helpers.bench.actdiff import storing_sides
from helpers.studies.actdiff import organisms

pytestmark = pytest.mark.unit
torch.set_num_threads(1)


def test_streaming_and_storing_agree_and_storing_grows_with_the_documents():
    kept = {}
    for documents in (16, 64):
        sides = storing_sides(str(organisms.POCKET), documents, 32)
        found = {side.name: side.run() for side in sides}
        assert found["streamed"][0] == found["everything stored"][0] == documents * 32
        assert found["streamed"][1] == pytest.approx(found["everything stored"][1], abs=2e-5)
        kept[documents] = {side.name: side.kept() for side in sides}
    assert kept[64]["streamed"] == kept[16]["streamed"]
    assert kept[64]["everything stored"] == 4 * kept[16]["everything stored"] == 2 * 4 * 64 * 32 * 64 * 4
