from tests.fixtures_cluster import (  # noqa: F401  # fixtures
    admin_api,
    control_plane,
    fake_world,
    least_privilege,
    real_world,
    user_api,
    world,
)
