"""tpSGD: every block learns from a loss of its own, during the forward pass.

Source: Lomnitz, Daniels, Zhang, Piacentino, *Learning with Local Gradients at the Edge*, arXiv 2208.08503.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Literal, get_args

import torch
import torch.optim.optimizer as hooks
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from fedtp.block_sgd import BlockSGD
from fedtp.blocks import Block
from fedtp.descent import Descent, Summed
from fedtp.errors import ModelError
from fedtp.losses import Loss, LossFunction, Space
from fedtp.numpy_sweep import NumpySweep
from fedtp.projection import Kind, Projection
from fedtp.readout import Readout, width
from fedtp.sequences import Chunk, Sequences

ReadoutKind = Literal["fixed", "learnt"]

#: Cells per axis, of which the maps of a convolution are read as means.
GRID = 2

#: How far a block goes along the mean of a batch's descents where its output is normalised (docs/findings.md).
NORMALIZED_STEP = 0.1


class TPSGD(BlockSGD):
    """Target projection SGD for an ``nn.Sequential`` of ordinary layers.

    `step` makes one forward sweep over a batch. As soon as a block's output ``a`` is known, the block is
    compared with the label by its own loss and updated; nothing is carried back to earlier blocks. With a fixed
    random projection ``P`` (classes × features, drawn from `seed` and the block's name) and labels ``y*`` (one-hot),

    - in *label space* the loss is ``ℓ(γ a Pᵀ / √features, y*)``, with γ = 3 for cross-entropy, and 1 for other
      losses and in blocks with a normalisation, whose scale is learnt,
    - in *target space* (the paper's form) it is ``ℓ(a, y* P)``,

    and for the last block ``ℓ(a, y*)``: it learns the task itself.

    Parameters
    ----------
    model
        The network; its parameters are updated in place. A block with a parameter that asks for no gradient is
        passed through and stays as it is. A stack of devices (`fedtp.cohort.stack`) works alike.
    seed
        Of the projections. Devices that learn together share it.
    lr
        Learning rate, for every block unless its parameter group says otherwise.
    loss
        What a block's output is compared by: one of `fedtp.losses.LOSSES` by name, a `fedtp.losses.Loss` with settings
        of its own, or any function ``loss(output, target) -> number``. The default suits classes; take ``"squared"``
        to predict numbers and ``"binary_cross_entropy"`` where several labels may hold at once.
    space
        ``"label"``, or ``"target"`` with a loss that measures a distance.
    projection
        How projections are drawn: ``"normal"``, ``"uniform"``, ``"sign"`` or ``"orthogonal"``.
    grid
        The maps of a convolution are read as means over so many cells per axis: 1 is one feature per channel, None the
        full map.
    readout
        ``"fixed"``, or ``"learnt"``: the matrix that a hidden block is read through starts as the projection, 0.3 times
        as large as features of unit size, and follows its own block's error (label space). It closes most of the gap of
        convolutions, for classes × features numbers per block.
    momentum, weight_decay
        As in ``torch.optim.SGD``.
    normalize
        Divide each block's step by one plus the mean squared norm of its input, as normalised LMS does (the one is
        the bias's input), and add up the steps of a batch's samples instead of averaging them: a batch moves a block
        as far as its samples would one by one, and one learning rate serves every width, scale and batch size. Where
        many samples point the same way their sum would overshoot; there the step is divided by the loss's curvature
        times the samples and the squared spectral norm of the batch, if that is larger. A block with a normalisation
        layer answers the same whatever the scale of its input: it goes a tenth of the mean of its samples' steps,
        undivided.
    classes
        The keys of the classes, in the order of the last block's outputs; their indices by default.

    Attributes
    ----------
    losses
        The latest loss of every block by name, ``[]`` or ``[devices]``; blocks that were not trained are absent.
    output
        What the model answered for the latest batch, before it learnt from it; None if the sweep stopped early.

    Raises
    ------
    ModelError
        If the model cannot be split into blocks, or the loss does not fit the space.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    >>> optimizer = TPSGD(model, seed=7)
    >>> x = torch.randn(256, 2)
    >>> y = (x[:, 0] * x[:, 1] > 0).long()
    >>> for _ in range(300):
    ...     loss = optimizer.step(x, y)
    >>> bool((model(x).argmax(1) == y).float().mean() > 0.9)
    True
    """

    own = (*BlockSGD.own, "space", "projection", "grid", "readout", "normalize", "readouts")

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int,
        lr: float = 1.0,
        loss: str | Loss | LossFunction = "cross_entropy",
        space: Space = "label",
        projection: Kind = "normal",
        grid: int | None = GRID,
        readout: ReadoutKind = "fixed",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        normalize: bool = True,
        classes: Collection[int | str] | None = None,
    ) -> None:
        super().__init__(model, lr=lr, loss=loss, space=space, momentum=momentum, weight_decay=weight_decay)
        if grid is not None and grid < 1:
            raise ModelError(f"grid must be at least one cell per axis, or None for the full map, got {grid!r}.")
        if readout not in get_args(ReadoutKind):
            raise ModelError(f"There is no readout {readout!r}; choose {' or '.join(get_args(ReadoutKind))}.")
        if readout == "learnt" and space == "target":
            raise ModelError("In target space nothing is read out; choose readout='fixed', or space='label'.")
        self.space = space
        self.grid = grid
        self.readout = readout
        self.normalize = normalize
        outputs = self.chain.blocks[-1].outputs
        if classes is not None and len(classes) != outputs:
            raise ModelError(f"The last block has {outputs} outputs, but {len(classes)} classes were named.")
        self.projection = Projection(seed, kind=projection, classes=outputs if classes is None else list(classes))
        self.readouts: dict[str, Readout] = {}

    def digest(self, like: Tensor | None = None) -> str:
        """Return a hash of the projections that all who learn together must share.

        Parameters
        ----------
        like
            An input of the model, ``[batch, ...]``; needed where the widths of the blocks depend on the input's.
        """
        widths = self.chain.widths(like, lambda a: width(a, 1, self.grid))
        return self.projection.digest(widths)

    def feedback(self, block: Block) -> list[Tensor]:
        """Return the matrix that a block is read through, in a list; none before the first step, and of the last."""
        return [self.readouts[block.name].matrix] if block.name in self.readouts else []

    def step(  # type: ignore[override]
        self,
        x: Tensor | PackedSequence,
        y: Tensor,
        *,
        blocks: Iterable[int | str] | None = None,
        weights: Tensor | None = None,
        lengths: Tensor | None = None,
        carry: bool = False,
    ) -> Tensor | None:
        """Learn from one batch in one forward sweep.

        Parameters
        ----------
        x
            Inputs, ``[batch, ...]``, or ``[devices, batch, ...]`` for a stack of devices. A model with
            `fedtp.Recurrent` layers takes sequences, ``[batch, time, ...]``: time is then the outer loop and the
            blocks the inner one, and every block adds up its errors over the time steps. A ``PackedSequence`` is
            unpacked, and brings its lengths.
        y
            Labels, one per sample or, of sequences, one per sample or per time step: class indices ``[batch]``, or
            what else the loss compares with, ``[batch, outputs]`` (`fedtp.targets`).
        blocks
            Positions or names of the blocks to train; all by default. The sweep stops after the last of them.
        weights
            Weight of each sample, ``[batch]``, not negative; equal by default. A sample of weight 0 is as if it
            were not there. Of sequences also ``[batch, time]``: the last step only is ``[[0, ..., 0, 1]]``.
        lengths
            Of padded sequences: how many time steps each has, ``[batch]``; all by default.
        carry
            Go on from the state that the recurrent layers had after the last step, instead of from zeros. So a model
            can be fed one time step at a time, and learns as it goes.

        Returns
        -------
        Tensor | None
            The last block's loss, ``[]`` or ``[devices]``, before the update; None if the sweep stopped before it.

        Raises
        ------
        ModelError
            If there is no such block, inputs, labels and weights do not belong together, a label is out of range,
            the input is not finite, or a layer does not fit the one before it. No weight has changed then.
        """
        plain = weights is None and lengths is None and not carry
        if plain and self._numpy is not None and isinstance(x, Tensor) and not self._has_hooks():
            wanted = self.chain.positions(blocks)
            learnt = self._numpy.step(x, y, self.param_groups, wanted)
            if learnt is not None:
                self.losses, self.output = learnt
                return self.losses.get(self.chain.blocks[-1].name)
        return self._learn(x, y, blocks, weights, lengths, carry)

    # PyTorch wraps what is not marked so; a single sample would take twice as long. `_learn` is wrapped instead.
    step.hooked = True  # type: ignore[attr-defined]

    @cached_property
    def _numpy(self) -> NumpySweep | None:
        """What learns from few samples where NumPy can."""
        if self.readout != "fixed" or not NumpySweep.fits(self.chain, self.loss):
            return None
        return NumpySweep(
            self.chain,
            self.loss,
            readout=self._fixed_readout,
            momentum=self._momentum,
            target_space=self.space == "target",
            normalize=self.normalize,
        )

    def _has_hooks(self) -> bool:
        mine = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        return bool(mine or hooks._global_optimizer_pre_hooks or hooks._global_optimizer_post_hooks)

    @torch.optim.Optimizer.profile_hook_step
    @torch.no_grad()
    def _learn(
        self,
        x: Tensor | PackedSequence,
        y: Tensor,
        blocks: Iterable[int | str] | None,
        weights: Tensor | None,
        lengths: Tensor | None,
        carry: bool,
    ) -> Tensor | None:
        wanted = self.chain.positions(blocks)
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise ModelError("A PackedSequence has lengths of its own; leave out lengths.")
            x, lengths = pad_packed_sequence(x, batch_first=True)
        self.losses, self.output = {}, None
        if self.chain.recurrent:
            sequences = Sequences(self.chain, self.loss, x, y, weights, lengths)
            self._try_out(sequences.x.narrow(sequences.axes, 0, 1), wanted)
            self._sweep_over_time(wanted, sequences, carry=carry)
        elif lengths is not None or carry:
            raise ModelError("The model has no fedtp.Recurrent layer, so it takes neither lengths nor a carried state.")
        else:
            x, target, weights = self.chain.prepare(x, y, weights, self.loss)
            self._try_out(x, wanted)
            self._sweep(wanted, 0, x, target, weights)
        return self.losses.get(self.chain.blocks[-1].name)

    @cached_property
    def _tried(self) -> set[tuple[torch.Size, torch.dtype, int]]:
        """The forms of samples that so many blocks of the model are known to take."""
        return set()

    def _try_out(self, x: Tensor, wanted: frozenset[int]) -> None:
        """See to it that layers fit each other, the first time that samples of this form come."""
        stop = max(wanted, default=-1) + 1
        form = x.shape[2 if self.chain.devices else 1 :], x.dtype, stop
        if form not in self._tried:
            self.chain.try_out(x, stop)
            self._tried.add(form)

    def _sweep(self, wanted: frozenset[int], first: int, x: Tensor, target: Tensor, weights: Tensor | None) -> None:
        """Pass a batch through the blocks from the first to the last that is wanted, and train these."""
        for position in range(first, max(wanted, default=-1) + 1):
            if position in wanted:
                x = self.learn_block(position, x, target, weights)
            else:
                x = self.chain.blocks[position].apply(x)
        if max(wanted, default=-1) == len(self.chain) - 1:
            self.output = x

    def learn_block(self, position: int, x: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        """Update one block, without autograd; what `step` does for each in turn.

        Parameters
        ----------
        position
            Of the block.
        x
            Its input.
        target, weights
            As `fedtp.blocks.Chain.prepare` returns them.

        Returns
        -------
        Tensor
            What it put out before the update: the next block's input.
        """
        block = self.chain.blocks[position]
        a, value, descents = self._compare(block, x, target)
        size = target.shape[-2] if weights is None else _effective_size(weights)
        for descent in descents:
            step = self._step(descent, weights, size)
            if weights is None:
                step = step / size
            else:
                descent.weigh(weights)
            self._descend(position, descent, step)
        self.losses[block.name] = value.mean(-1) if weights is None else torch.linalg.vecdot(value, weights)
        return a

    def _sweep_over_time(self, wanted: frozenset[int], sequences: Sequences, *, carry: bool) -> None:
        """Train the blocks that see every time step, a chunk of steps at a time; then those that see the last one."""
        chain, stop = self.chain, max(wanted, default=-1) + 1
        every = chain.blocks[: min(stop, chain.temporal)]
        sums: dict[int, list[Summed]] = {position: [] for position in range(len(every)) if position in wanted}
        if not carry:
            chain.begin()
        for chunk in sequences.chunks():
            a = chunk.x
            for position, block in enumerate(every):
                a = sequences.enter(block, a, chunk)
                a = self._add(block, a, chunk, sums[position]) if position in sums else block.apply(a)
            sequences.keep(chunk, a, all_steps=chain.temporal == len(chain))
        size = _effective_size(sequences.shares.flatten(-2))
        for position, summed in sums.items():
            for part in summed:
                self._descend(position, part, self._step(part, None, size))
        if stop > len(every):
            self._sweep(wanted, len(every), sequences.kept(), sequences.last_target, sequences.last_shares)
        elif stop == len(chain):
            self.output = sequences.kept()

    def _add(self, block: Block, x: Tensor, chunk: Chunk, sums: list[Summed]) -> Tensor:
        """Add up what a chunk of time steps makes of a block, and return what the block put out."""
        a, value, descents = self._compare(block, x, chunk.target)
        if not sums:
            sums += [Summed() for _ in descents]
            self.losses[block.name] = value.new_zeros(())
        for summed, descent in zip(sums, descents, strict=True):
            summed.add(descent, chunk.shares)
        self.losses[block.name] = self.losses[block.name] + torch.linalg.vecdot(value, chunk.shares)
        return a

    def _compare(self, block: Block, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor, list[Descent]]:
        """Return what a block puts out, the loss of each sample, and how the block and its readout should change."""
        a, saved = block.forward(x)
        if block is self.chain.blocks[-1]:
            output = a.flatten(target.dim() - 1)
            if output.shape != target.shape:
                raise ModelError(
                    f"The model must end in one number per class, {target.shape[-1]}, got {output.shape[-1]}."
                )
            value, error = self.loss.value_and_error(output, target)
            return a, value, [block.descent(saved, error.view_as(a))]
        maps = block.maps(a, saved)
        value, error, reading = self._readout(block, maps, target.dim() - 1).compare(maps, target)
        descent = block.descent(saved, error.view_as(a))
        return a, value, [descent] if reading is None else [descent, reading]

    def _step(self, descent: Descent | Summed, shares: Tensor | None, size: float | Tensor) -> float | Tensor:
        """Return how far to go along the mean of a batch's descents: a number, or ``[devices]``.

        Normalised, it is as far as the samples would go one by one, `size` of them, each by its error over one plus
        its input's squared norm; less where they point the same way.
        """
        if not self.normalize:
            return 1.0
        if descent.normalized:
            return NORMALIZED_STEP
        norm = 1.0 + descent.norm(shares)  # the one is the bias's input
        if not isinstance(size, int) or size > 1:
            norm = torch.maximum(norm, self.loss.curvature * size * (1.0 + descent.spectral(shares)))
        # PyTorch takes ten times as long as Python to work with one number.
        return size / norm if norm.dim() else float(size) / norm.item()

    def _fixed_readout(self, block: Block) -> Tensor:
        """Return the matrix that a dense hidden block is read through."""
        return self._readout(block, block.parameters[0].new_empty(1, block.outputs), 1).matrix

    def learnt_readouts(self, like: Tensor | None = None) -> dict[str, Tensor]:
        """Return the readouts that learn, of every hidden block by name: change them in place.

        They are part of the optimizer's state, with their momentum: ``state_dict`` and ``load_state_dict`` hold them.

        Parameters
        ----------
        like
            An input of the model; needed before the first step where the widths of the blocks depend on the input's.

        Returns
        -------
        dict
            ``[classes, features]`` each, or ``[devices, classes, features]`` for a stack; empty if readouts are fixed.

        Raises
        ------
        ModelError
            If `like` is needed and not there.
        """
        if self.readout == "fixed":
            return {}
        hidden = self.chain.blocks[:-1]
        if any("readout" not in self.state[block.parameters[0]] for block in hidden):
            axes = 2 if self.chain.devices else 1
            for name, features in self.chain.widths(like, lambda a: width(a, axes, self.grid)).items():
                block = self.chain[name]
                self._readout(block, block.parameters[0].new_empty(*[1] * axes, features), axes)
        return {block.name: self.state[block.parameters[0]]["readout"] for block in hidden}

    @torch.no_grad()
    def answers(self, x: Tensor) -> Tensor:
        """Return the class that each block names for some samples, hidden blocks by way of their readouts.

        Parameters
        ----------
        x
            ``[batch, ...]``, or ``[devices, batch, ...]`` for a stack of devices.

        Returns
        -------
        Tensor
            ``[..., batch, blocks]``, class indices.

        Raises
        ------
        ModelError
            In target space, where no block is read out, and of a model with a recurrent layer.
        """
        if self.space == "target" or self.chain.recurrent:
            raise ModelError("Blocks are read in label space only, and not over time.")
        axes = 2 if self.chain.devices else 1
        a, named = self.chain.enter(x), []
        for block in self.chain:
            a, saved = block.forward(a)
            last = block is self.chain.blocks[-1]
            maps = a if last else block.maps(a, saved)
            named.append((a.flatten(axes) if last else self._readout(block, maps, axes).read(maps, axes)).argmax(-1))
        return torch.stack(named, -1)

    def _memory(self, position: int, learning: Tensor) -> Tensor:
        if isinstance(learning, nn.Parameter):
            return self._momentum(learning)
        return self._kept(self.chain.blocks[position].parameters[0], "readout_momentum", learning)

    def _readout(self, block: Block, a: Tensor, axes: int) -> Readout:
        """Return what a hidden block is read through."""
        readout = self.readouts.get(block.name)
        features = width(a, axes, self.grid)
        learns = self.readout == "learnt"
        state = self.state[block.parameters[0]] if learns else {}
        if readout is not None and "readout" in state:  # it may have been loaded
            readout.matrix = state["readout"]
        if readout is None or not readout.fits(features, a):
            rows = torch.tensor(self.projection.rows(block.name, features), dtype=torch.float64)
            readout = self.readouts[block.name] = Readout(
                rows,
                self.loss,
                self.space,
                like=a,
                grid=self.grid,
                devices=self.chain.devices,
                learns=learns,
                normalized=block.normalized,
            )
            if learns:
                kept = state.get("readout")
                if kept is not None and kept.shape == readout.matrix.shape:
                    readout.matrix = kept.to(readout.matrix)
                state["readout"] = readout.matrix
        return readout


def _effective_size(shares: Tensor) -> Tensor:
    """Return Kish's effective size of a batch, ``[]`` or ``[devices]``: its samples where they count alike."""
    return 1.0 / shares.square().sum(-1)
