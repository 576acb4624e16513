"""How much is tried: a little in `make test`, more than twenty thousand inputs in `make fuzz`."""

from hypothesis import settings

settings.register_profile("fuzz", max_examples=1_600, deadline=None)
