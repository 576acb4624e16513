"""Flower's SuperNode, which ends when it has failed, as a process: ``python -m clients.federation.node``.

By itself one that gives up, as after a TLS handshake that timed out, stays for ever: its main thread is gone, and the
thread that serves its own processes is not.
"""

from __future__ import annotations

from fedtp.supervision import run_as_process

if __name__ == "__main__":
    from flwr.supernode.cli import flower_supernode

    run_as_process(flower_supernode)
