"""Whether the steps on streams run compiled: where Numba is installed, which the extra ``fast`` brings.

The first steps of an installation are compiled for some ten seconds, and kept on disk. This does it beforehand:

    python -m fedtp.streaming.fast
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

#: False has everything that is made or loaded from now on work in NumPy.
enabled = True


def compiled() -> ModuleType | None:
    """Return `fedtp.streaming.compiled`, or None where steps are NumPy's.

    It is imported no sooner than something learns: Numba takes a third of a second to import.
    """
    if not enabled:
        return None
    try:
        from fedtp.streaming import compiled
    except ImportError:  # it is not installed, or refuses this version of NumPy
        return None
    return compiled


def prepare() -> bool:
    """Compile the steps of networks of one hidden layer; return whether there is anything to compile with."""
    if compiled() is None:
        return False
    from fedtp.streaming.features import Features
    from fedtp.streaming.perceptrons import build

    for loss, outputs in (("cross_entropy", 2), ("squared", 1)):
        features, network = Features(), build((2,), (1.0,), loss, 0)  # type: ignore[arg-type]
        network.grow_inputs(features.appear({"x": 0.0}))
        network.grow_outputs(range(outputs))
        values, target = features.vector({"x": 1.0}), np.eye(outputs)
        network.forward(features.standardized(values))
        network.learn(target[0])
        features.learn(values)
        many = features.matrix(["x"], np.array([[0.0], [1.0]]))
        network.forward_many(features.standardized(many))
        network.learn_many(target[:, [0, -1]])
        features.learn_many(many)
    return True


if __name__ == "__main__":
    print("compiled" if prepare() else "Numba is not installed: pip install 'fedtp[fast]'")
