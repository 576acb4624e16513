from simulations.places import key_lines

TEXT = '''\
# comment = 1
title = "a" # = "b"
"quoted" = 2
description = """
lr = 3
"""
[run]
  seed = 1
[concepts.upright]
kind = "identity"
[[devices]]
class = "pi"
[[ devices ]]
class = "mcu"
[server]
rounds = 3
options.deep = 4
swaps = [
  [1, 2],
]
last = 1
'''


def test_lines() -> None:
    assert key_lines(TEXT) == {
        ("title",): 2,
        ("quoted",): 3,
        ("description",): 4,
        ("run",): 7,
        ("run", "seed"): 8,
        ("concepts", "upright"): 9,
        ("concepts", "upright", "kind"): 10,
        ("devices", 0): 11,
        ("devices", 0, "class"): 12,
        ("devices", 1): 13,
        ("devices", 1, "class"): 14,
        ("server",): 15,
        ("server", "rounds"): 16,
        ("server", "options", "deep"): 17,
        ("server", "swaps"): 18,
        ("server", "last"): 21,
    }
