"""Settings for every suite."""

from hypothesis import HealthCheck, settings

# Engines work on disk, so a slow example says nothing; every case is reproducible by its seed.
settings.register_profile(
    "nestvec", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("nestvec")
