"""How the workers of `make test` share the tests: a file stays together, but every notebook is a task of its own."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for ``--dist loadgroup``, notebooks first: they are the longest, and one must not be left for last.

    Tests of one notebook share the records that its first run leaves; tests of one file share its fixtures.
    """
    for item in items:
        asked = item.callspec.params if hasattr(item, "callspec") else {}
        notebook = item.path.stem == "test_notebooks"
        group = f"notebook-{asked.get('name', 'sweep')}" if notebook else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.path.stem != "test_notebooks")
