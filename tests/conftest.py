"""Hypothesis profiles: `ci` (the default) repeats itself exactly, HYPOTHESIS_PROFILE=thorough looks further."""

import os

from hypothesis import HealthCheck, settings

# torch reads it when it is imported, here and in the processes that tests start: these tensors are too small to share,
# and each worker has but one core
os.environ["OMP_NUM_THREADS"] = "1"

_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, print_blob=True, suppress_health_check=_QUIET
)
settings.register_profile("thorough", deadline=None, max_examples=3000, print_blob=True, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
