"""Other orders in which blocks may learn: one after the other to convergence, or all at once in a pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from fedtp.errors import ModelError
from fedtp.optimizer import TPSGD

#: Inputs and labels, and of padded sequences their lengths, as `fedtp.TPSGD.step` takes them.
Batch = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]
Stage = tuple[Tensor, Tensor]


def greedy(optimizer: TPSGD, epochs: int, batches: Callable[[int], Iterable[Batch]]) -> dict[str, list[float]]:
    """Train each block until it is done, before the next begins.

    The blocks before it pass the batches on as they are, and those after it are not reached. A block that is frozen
    is never trained.

    Parameters
    ----------
    optimizer
        Of the model.
    epochs
        For each block.
    batches
        From the number of an epoch, from 0, to its batches: inputs and labels as `fedtp.TPSGD.step` takes them, and
        lengths third where sequences are padded. It is called anew for every epoch of every block, and may set the
        learning rate of the epoch in ``optimizer.param_groups``.

    Returns
    -------
    dict
        For each block by name the mean loss of each of its epochs, all batches alike.

    Raises
    ------
    ModelError
        If there is no epoch, an epoch has no batches, or a batch cannot be learnt from: blocks may have learnt from
        the batches before it.

    Examples
    --------
    >>> from fedtp.models import mlp
    >>> model = mlp(4, [8], 3)
    >>> x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    >>> losses = greedy(TPSGD(model, seed=7), 5, lambda epoch: [(x, y)])
    >>> [(name, len(values)) for name, values in losses.items()]
    [('0', 5), ('2', 5)]
    """
    if epochs < 1:
        raise ModelError(f"Every block has at least one epoch, got {epochs}.")
    means: dict[str, list[float]] = {}
    for position in sorted(optimizer.chain.positions(None)):
        name = optimizer.chain.blocks[position].name
        for epoch in range(epochs):
            losses = []
            for x, y, *lengths in batches(epoch):
                optimizer.step(x, y, blocks=[position], lengths=lengths[0] if lengths else None)
                losses.append(optimizer.losses[name].mean())
            if not losses:
                raise ModelError(
                    f"Epoch {epoch} of block {name!r} has no batches; `batches` must give them anew at every call."
                )
            means.setdefault(name, []).append(float(torch.stack(losses).mean()))
    return means


def pipeline(optimizer: TPSGD, batches: Iterable[tuple[Tensor, Tensor]], *, threads: int = 2) -> list[float]:
    """Train all blocks at once, each on the batch after the one that the next block is at.

    No block waits for those after it, since no error comes back. The blocks are dealt to the threads in stages of about
    the same number of weights; each block sees the same batches in the same order as by `fedtp.TPSGD.step`, and learns
    the same: bit for bit, or up to rounding where `step` learns from few samples in NumPy. Hooks of the optimizer are
    not called. Whether it is faster depends on the model and the machine: ``benchmarks/deep.py`` measures it.

    Parameters
    ----------
    optimizer
        Of the model, which may not have recurrent layers.
    batches
        Inputs and labels, as `fedtp.TPSGD.step` takes them.
    threads
        How many stages, at most one per block. Give PyTorch as many threads fewer (``torch.set_num_threads``).

    Returns
    -------
    list of float
        The last block's loss of each batch; none if the last block is frozen.

    Raises
    ------
    ModelError
        If the model has recurrent layers, there is no thread, or a batch cannot be learnt from: blocks may have learnt
        from the batches before it.

    Examples
    --------
    >>> from fedtp.models import mlp
    >>> model = mlp(4, [8], 3)
    >>> x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    >>> losses = pipeline(TPSGD(model, seed=7), [(x, y)] * 20, threads=2)
    >>> len(losses), losses[-1] < losses[0]
    (20, True)
    """
    chain = optimizer.chain
    if chain.recurrent:
        raise ModelError(
            "A pipeline has no rule for recurrent layers, which take turns at every time step; use step()."
        )
    if threads < 1:
        raise ModelError(f"A pipeline has at least one thread, got {threads}.")
    stages, wanted = _stages([block.size for block in chain], threads), chain.positions(None)

    @torch.no_grad()
    def work(stage: Sequence[int], at: Stage | None) -> Stage | None:
        if at is None:
            return None
        x, target = at
        for position in stage:
            if position in wanted:
                x = optimizer.learn_block(position, x, target, None)
            else:
                x = chain.blocks[position].apply(x)
        return x, target

    optimizer.losses, optimizer.output = {}, None
    losses, last = [], chain.blocks[-1].name
    line: list[Stage | None] = [None] * len(stages)  # what each stage has worked on
    with ThreadPoolExecutor(len(stages)) as pool:
        for batch in itertools.chain(batches, [None] * len(stages)):
            entering = None
            if batch is not None:
                x, y = batch
                x, target, _ = chain.prepare(x, y, None, optimizer.loss)
                entering = x, target
            line = list(pool.map(work, stages, [entering, *line[:-1]]))
            if line[-1] is not None:
                optimizer.output = line[-1][0]
                if last in optimizer.losses:
                    losses.append(float(optimizer.losses[last].mean()))
    return losses


def _stages(sizes: Sequence[int], threads: int) -> list[list[int]]:
    """Deal blocks of these sizes to stages, each a run of positions, so that each has about the same size."""
    stages: list[list[int]] = [[]]
    total, so_far = sum(sizes), 0
    for position, size in enumerate(sizes):
        if stages[-1] and so_far + size / 2 > total * len(stages) / threads and len(stages) < threads:
            stages.append([])
        stages[-1].append(position)
        so_far += size
    return stages
