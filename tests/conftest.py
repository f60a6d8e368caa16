"""What takes minutes to build, and is kept, is built before the first test's clock runs."""

from __future__ import annotations

import pytest

from fleetdrv.lab import images, k8sbuild


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the control plane's programs ready, where a test of this run wants them.

    Compiled on two cores while others work on them, they outlast a test's timeout (seen: more than 300 s).
    """
    wanted = any("control_plane" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        k8sbuild.binaries(images.cache(), print)
