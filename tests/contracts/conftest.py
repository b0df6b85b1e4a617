"""The backends for control groups that this machine can show, one after the other."""

from __future__ import annotations

import pytest

from tarbox.kernel import cgroups


@pytest.fixture(params=["v1", "hybrid", "v2"])
def facts(request):
    """What this machine has, if it has it in this form."""
    found = cgroups.detect()
    if request.param == "v1" and found.v1:
        return cgroups.Cgroups("v1", found.v1)
    if request.param == "hybrid" and found.v1 and found.controllers:
        return found
    if request.param == "v2" and found.layout == "v2" and found.v2:
        return found
    pytest.skip(f"this machine's layout is {found.layout}, without what {request.param} needs")


@pytest.fixture
def backend(facts):
    return cgroups.pick(facts)
