"""The loader: what a training loop holds."""

from __future__ import annotations

import atexit
import json
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, SupportsFloat, SupportsIndex

from diver import _batch, _engine, _options, _ranks
from diver import augment as augmentations
from diver import mix as mixes
from diver._batch import Batch
from diver._datasets import as_source
from diver._drop_in import hinted
from diver._output import Output
from diver._wording import counted
from diver.cache import Cache
from diver.errors import ClosedError, OptionError, OptionTypeError, StateError
from diver.labels import Labels, stored
from diver.progress import Bar, Progress, hears, listener
from diver.refiners import Adapter
from diver.source import Source

if TYPE_CHECKING:
    from diver_refiner import Refiner


#: The default of `labels`.
_STORED = stored()


class DataLoader:
    """Streams a distilled dataset in batches, epoch after epoch: raw, refined, or mixed.

    Each ``for`` loop over it is one epoch. Samples are refined when a batch first needs them, in the background, and
    kept: in ``cache`` for all later runs, else in memory. Equal sets, seeds and options give the same samples in the
    same order, here and in Rust, whatever the threads and whatever the cache holds.

    It takes the place of torch's loader, without worker processes, samplers or a collate function: an option of torch's
    that it has not is refused with what stands in for it.

    Args:
        source: What :func:`diver.open` gives, or a path for it; or what :func:`diver.from_dataset` takes: ``(images,
            labels)``, a ``TensorDataset``, a ``Subset``.
        refiner: A folder or repository with a diffusion model (for :meth:`diver.Refiner.from_pretrained`), a
            refiner, or any callable (:mod:`diver.refiners`). Without one, samples come raw.
        cache: Where refined images and a teacher's logits are kept across runs: a :class:`diver.Cache` or its folder.
            Without one they are kept in memory, which must then be large enough for all images (``memory_limit``), and
            are lost with the loader, which is logged as a warning.
        classes: The refiner's class for each label of the set, as :func:`diver.open` takes it; by default what the
            source says, else labels are the refiner's classes. A list for a source that says must agree with it on
            every label.
        labels: What targets are made of: the labels stored with the images, a teacher's, or both (:mod:`diver.labels`).
        augment: Random views of the images, in the order of the list (:mod:`diver.augment`); none by default.
        mix: The share of refined samples in each epoch, a number in [0, 1] or a schedule of :mod:`diver.mix`. All are
            refined by default where there is a refiner.
        mode: How raw and refined samples make an epoch. ``"replace"``: each sample comes once, raw or refined, and the
            mix is the share of refined ones. ``"both"``: each comes raw, and a share of them, as large as the mix,
            refined as well, so that the epoch is longer. ``"blend"``: each comes once, as
            ``(1 - share) * raw + share * refined``.
        variants: Refinements of each sample, 1 to 1,024, each with its own noise.
        pick: Which of them comes. ``"turn"``: one in an epoch, another in the next, until all have come. ``"all"``: all
            in every epoch, which is longer by that. ``"best"``: the one whose class is most probable to the teacher
            (``labels``). ``"nearest"``: the one nearest to the raw image, by the mean squared difference of pixels.
        on_miss: What happens to a sample that is not refined yet: ``"wait"`` lets its batch wait (equal seeds, equal
            batches); ``"raw"`` serves it raw and refines it for a later epoch.
        batch_size: Samples of a batch, 1 or more.
        shuffle: Whether every epoch has its own order.
        drop_last: Whether a last, smaller batch is left out.
        seed: The seed of order, mix and augmentation, from 0 to below 2**64. It does not touch refined images.
        rank: The rank of this process among ``world_size``. By default, ``torch.distributed`` decides both if it is
            initialised, else the launcher: torchrun, accelerate or Lightning (``RANK`` and ``WORLD_SIZE``), Open MPI
            (``OMPI_COMM_WORLD_RANK`` and ``_SIZE``), MPICH (``PMI_RANK`` and ``PMI_SIZE``), or Slurm (``SLURM_PROCID``
            and ``SLURM_NTASKS``) in a task that ``srun`` started: a batch script itself and an interactive shell are
            one process. Else the rank is 0 of 1. Which of them decided is in ``repr(loader)``, and is logged once as a
            warning if there are several ranks. A loader that is made before ``init_process_group`` takes its rank from
            it when its length is asked for or its first epoch begins. Pass ``rank=0, world_size=1`` to the loader of
            your test images, and the data-parallel rank and size if several processes share one copy of the model.
        world_size: Number of processes that share an epoch. Pass both ``rank`` and ``world_size``, or neither.
        uneven: Where samples do not divide among ranks: ``"pad"`` with the first ones, which come twice; ``"drop"`` the
            last ones, which are logged as a warning; or ``"partial"``, where the last ranks have one sample less.
        image_size: Size of images in batches, a side or (height, width), each from 1 to 16,384; the set's own by
            default. Raw and refined are resized alike, antialiased.
        dtype: What the values of images are written as. ``"float32"``, ``"float16"`` and ``"bfloat16"`` are normalised
            values, rounded to the nearest (numpy has no bfloat16). ``"uint8"`` are pixels from 0 to 255, which are
            **not** normalised: they take a quarter of the memory and of the time to copy, and the training program
            normalises them on its device. Stored and refined bytes come as they are then, unless they are augmented,
            blended or resized; values outside [0, 1], as raw distilled images often have, are clipped, which is logged
            as a warning. Whatever the dtype, images are augmented and labelled as normalised float32.
        memory_format: ``"contiguous"`` or ``"channels_last"``: torch's names for the order of images in memory. The
            shape is ``[B, C, H, W]`` in both.
        memory_limit: Bytes of decoded refined images that may stay in memory, and up to a quarter as much of a
            teacher's logits; while the cache cannot be written, images that wait for it may take as much again.
        threads: Threads that assemble batches, 1 to 1,024.
        prefetch: Batches made ahead, 1 to 65,536.
        on_error: What happens to a sample that cannot be read or refined: ``"raise"`` makes its batch an error; with
            ``"skip"`` a sample that comes after the batch takes its place, in all later epochs too, and the error is
            logged. What a teacher fails on is an error all the same.
        max_skipped: Number of samples that may be skipped before their errors are raised after all.
        progress: What hears how far the work is while a batch is waited for: a function of a
            :class:`diver.progress.Progress`, called from the loop over batches; or ``"auto"``, a bar of tqdm where it
            is installed and there is a terminal or a notebook, else a line on standard error every 30 seconds, from
            rank 0 and of what takes more than two seconds; or None.
        format: ``"torch"`` or ``"numpy"``; ``"auto"`` is torch where it is installed.
        device: Where torch tensors go, as in ``"cuda"``; they stay on the CPU by default. ``"cuda"`` is this process's
            own device: torch's current one if it was set, else that of the local rank (``LOCAL_RANK``,
            ``SLURM_LOCALID`` and the like), else the first. Batches for it are written to pinned memory, and copied
            while the program goes on.
        pin_memory: Whether torch tensors are written to pinned memory, for a program that copies them to a CUDA device
            itself (``images.to("cuda", non_blocking=True)``). With ``device="cuda"`` they always are.
        resident: A device, as ``"cuda"``, that keeps the images. Each is copied there when it first comes, and batches
            are gathered there from then on, which costs the CPU next to nothing. Batches come on that device; leave
            ``device`` out. It needs memory for every image that may come, raw or refined, in the given ``dtype``. A
            loader that augments, blends or asks a teacher cannot keep images on a device.

    Raises:
        DiverError: of the class that says what is wrong (:mod:`diver.errors`); nothing has been started then.

    >>> with DataLoader("examples/digits/dm_ipc1", batch_size=4, seed=7) as loader:
    ...     [tuple(images.shape) for images, targets in loader]
    [(4, 3, 32, 32), (4, 3, 32, 32), (2, 3, 32, 32)]
    """

    @hinted
    def __init__(
        self,
        source: Source | str | os.PathLike[str],
        *,
        refiner: Callable[..., Any] | str | os.PathLike[str] | None = None,
        cache: Cache | str | os.PathLike[str] | None = None,
        classes: str | os.PathLike[str] | Iterable[SupportsIndex] | None = None,
        labels: Labels = _STORED,
        augment: Iterable[augmentations.Augmentation] = (),
        mix: mixes.Mix | SupportsFloat | None = None,
        mode: str = "replace",
        variants: SupportsIndex = 1,
        pick: str = "turn",
        on_miss: str = "wait",
        batch_size: SupportsIndex = 64,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: SupportsIndex = 0,
        rank: SupportsIndex | None = None,
        world_size: SupportsIndex | None = None,
        uneven: str = "pad",
        image_size: SupportsIndex | Iterable[SupportsIndex] | None = None,
        dtype: str = "float32",
        memory_format: str = "contiguous",
        memory_limit: SupportsIndex = 1 << 30,
        threads: SupportsIndex = 2,
        prefetch: SupportsIndex = 4,
        on_error: str = "raise",
        max_skipped: SupportsIndex = 10,
        progress: Callable[[Progress], object] | str | None = "auto",
        format: str = "auto",
        device: Any = None,
        pin_memory: bool = False,
        resident: Any = None,
    ) -> None:
        if not isinstance(labels, Labels):
            _options.wrong_type("labels", labels, "what diver.labels makes, as diver.labels.stored(),")
        teacher = labels._asked()
        if refiner is None and teacher is None and cache is not None:
            raise OptionError(
                "cache: without a refiner or a teacher there is nothing to keep; give one of them, or no cache"
            )
        options = _options.given("loader", locals())
        share, views = _mix(mix), augmentations.made(augment)
        self._ranks = _ranks.decided(rank, world_size)
        self._progress = listener(progress, self._ranks.rank)
        self._output = Output(
            format,
            device,
            pin_memory,
            resident,
            dtype=options["dtype"],
            memory_format=options["memory_format"],
        )
        if not isinstance(source, Source):
            # The source has the classes then.
            classes = options.pop("classes", None)
            source = as_source("source", source, classes=classes)
        self._source = source
        if cache is not None and not isinstance(cache, Cache):
            cache = Cache(cache)
        self._batch_size: int = options["batch_size"]
        self._drop_last: bool = options["drop_last"]
        #: Closed with the loader, which made it.
        self._own_refiner: Refiner | None = None
        if isinstance(refiner, (str, os.PathLike)):
            from diver._torch import refiner_class

            refiner = self._own_refiner = refiner_class().from_pretrained(refiner)
        #: Counts iterators: the last one is the one in turn.
        self._turn = 0
        self._process = os.getpid()
        #: Makes an engine for other ranks; None once the first epoch has begun.
        self._make_engine: Callable[..., _engine.Loader] | None = None
        try:
            make_engine = partial(
                _engine.Loader,
                self._source._engine,
                _options.to_json(options),
                refiner=None if refiner is None else Adapter(refiner),
                cache=None if cache is None else cache._engine,
                mix=share,
                targets=labels._targets(),
                teacher=None if teacher is None else teacher._for_engine(is_kept=cache is not None),
                augment=views,
                allocate=self._output.allocate,
                is_resident=self._output.is_resident,
            )
            self._engine = make_engine(shard=self._ranks[:2])
            self._make_engine = make_engine
            if self._output.is_resident:
                self._reside(options, has_refiner=refiner is not None, is_mixed=mix is not None)
        except BaseException:
            if self._own_refiner is not None:
                self._own_refiner.close()
            raise
        _OPEN.add(self)
        _ranks.say(self._ranks)
        if cache is None and self._ranks.rank == 0 and getattr(refiner, "fingerprint", None) is not None:
            _warn_of_loss(source.path)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch; after :meth:`load_state_dict`, the rest of an epoch. An epoch that is left in
        the middle is over. A batch that fails raises in its place, and the ones after it still come."""
        self._begin()
        epoch = self._engine.start_epoch()
        self._turn += 1
        return _Epoch(self, epoch)

    def __len__(self) -> int:
        """Number of batches in the epoch that comes next, or is being iterated. All are alike, but where a share
        changes with ``mode="both"`` or ``pick="all"``, and where a loaded state leaves the rest of an epoch."""
        self._follow_ranks()
        return len(self._engine)

    def set_epoch(self, epoch: SupportsIndex) -> None:
        """Goes to the start of ``epoch``, which decides order and mix; to where a state stands that was loaded in it.
        Needed only to leave the natural order of epochs."""
        self._begin()
        self._engine.set_epoch(_options.integer("epoch", epoch))
        self._turn += 1

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: after the batch that was taken last. A few numbers, the same as the JSON of a Rust
        loader's state. That of one rank serves all: it may be saved by rank 0 and loaded by every rank.

        In an epoch that was left by ``break``, that is in this epoch, and who loads the state goes on with the rest of
        it; call :meth:`set_epoch` with the next one before, if the epoch is meant to be over.
        """
        self._follow_ranks()
        state: dict[str, Any] = json.loads(self._engine.state())
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes to where the loader stood that ``state_dict`` was taken from; the next loop goes on from there. Ranks,
        batch size, threads and cache may have changed since: what has come in the epoch that was begun does not come in
        it again.

        Raises:
            StateError: it is no state, or belongs to a loader with another order; says which field differs. The loader
                stays where it is.
        """
        if not isinstance(state_dict, Mapping):
            raise StateError(f"state_dict: a dict is expected, not {type(state_dict).__name__}")
        try:
            text = json.dumps(dict(state_dict), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise StateError(f"state_dict: not a loader state: {error}") from error
        self._begin()
        self._engine.load_state(text)
        self._turn += 1

    def stats(self) -> dict[str, Any]:
        """What the loader has done since it was made, batches made ahead included, and what it is doing; once it is
        closed, what it had done.

        Counts: ``batches``, ``samples``, ``refined`` (those that came refined, or as a blend), ``memory_hits``,
        ``disk_hits``, ``misses`` (what was refined now), ``raw_fallbacks``, ``skipped``, ``label_hits`` (images or
        views whose logits were at hand), ``taught`` (those that the teacher looked at now).

        ``stages``: for ``fetch`` (filling batches with pixels), ``label`` (targets and augmentation), ``refine``,
        ``keep`` (writing to the cache), ``teach`` and ``next`` (the loop's waits for a batch), each ``calls``,
        ``items`` and ``seconds`` of all calls, and ``p50``, ``p90`` and ``p99``, the seconds that so many percent of
        the calls took at most.

        ``queues``: what waits now, ``batches`` to be made, ``refining`` and ``teaching`` images, ``ready`` batches.
        ``refining``: ``done`` of ``total`` images that the epoch asks for, and ``eta_seconds`` for the others; None
        where all were there from the start. ``eta_seconds``: until the epoch is over, at its pace so far.
        """
        stats: dict[str, Any] = json.loads(self._engine.stats())
        return stats

    @property
    def source(self) -> Source:
        """What is streamed, as it was opened: its ``class_map`` is its own."""
        return self._source

    @property
    def class_map(self) -> list[int] | None:
        """The refiner's class for each label, as it is used: that of ``classes``, else of the source; None where labels
        are the refiner's classes."""
        return self._engine.class_map

    @property
    def dataset(self) -> Source:
        """The same as ``source``, by the name that torch's loader has for it."""
        return self._source

    @property
    def batch_size(self) -> int:
        """Samples of a batch."""
        return self._batch_size

    @property
    def drop_last(self) -> bool:
        """Whether a last, smaller batch is left out."""
        return self._drop_last

    @property
    def closed(self) -> bool:
        """Whether the loader was closed."""
        return self._engine.closed

    def close(self) -> None:
        """Ends the loader's threads and waits for them; a refinement under way ends within one step, a teacher's call
        when it is over. What was refined or labelled stays in the cache. Happens by itself when the loader is dropped
        and when the program ends; a loader whose own refiner or teacher refers to it is not dropped before, and is
        better closed by hand."""
        self._make_engine = None
        self._engine.close()
        if self._own_refiner is not None:
            self._own_refiner.close()

    def _finish(self) -> dict[str, Any]:
        """Ends the loader, and says what it did; an error if the cache has not taken all that was made."""
        self._make_engine = None
        stats: dict[str, Any] = json.loads(self._engine.finish())
        return stats

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        batches = f"{counted(len(self), 'batch')} of {self._batch_size}"
        ranks = "" if self._ranks.origin is None else f", {self._ranks}"
        closed = ", closed" if self.closed else ""
        return f"<DataLoader of {self._source!r}: {batches}{ranks}{closed}>"

    def _reside(self, options: Mapping[str, Any], *, has_refiner: bool, is_mixed: bool) -> None:
        """Takes memory for the images on the device that keeps them."""
        samples, variants = len(self._source), options["variants"]
        channels, *size = self._source.shape
        height, width = options.get("image_size", size)
        is_refined = (
            has_refiner and not is_mixed and options["mode"] == "replace" and options["on_miss"] == "wait"
        )
        raw = 0 if is_refined else samples
        refined = samples * variants if has_refiner else 0
        slots = samples * (1 + variants)
        try:
            self._output.reside((channels, height, width), slots=slots, rows=raw + refined)
        except BaseException:
            self._engine.close()
            raise

    def _follow_ranks(self) -> None:
        """Takes the share that ``torch.distributed`` says, if that was initialised after the loader was made and before
        its first epoch. Otherwise every process that makes its loader first would train on every sample."""
        ranks = self._newer_ranks()
        if ranks is None or self._make_engine is None:
            return
        engine = self._make_engine(shard=ranks[:2])
        self._engine.close()
        self._engine, self._ranks = engine, ranks
        _ranks.say(ranks)

    def _begin(self) -> None:
        """Settles the ranks, which the position in an epoch depends on."""
        self._follow_ranks()
        self._make_engine = None
        ranks = self._newer_ranks()
        if ranks is not None:
            raise OptionError(
                f"rank: this loader has begun to stream as {self._ranks}, but this process is {ranks} now; make the "
                "loader after init_process_group, or pass rank and world_size"
            )

    def _newer_ranks(self) -> _ranks.Ranks | None:
        # A loader that is closed, or of the process that this one was forked from, has an error of its own.
        is_usable = not self.closed and os.getpid() == self._process
        return _ranks.newer(self._ranks) if is_usable else None

    def __reduce__(self) -> NoReturn:
        raise OptionTypeError("a loader has threads and cannot be pickled: make it where it is used")


class _Epoch(Iterator[Batch]):
    """The batches of one epoch. It goes on after a batch that failed, and after Ctrl-C."""

    def __init__(self, loader: DataLoader, epoch: int) -> None:
        self._loader, self._turn, self._epoch = loader, loader._turn, epoch
        self._output = loader._output
        self._next_batch, self._hold = loader._engine.next_batch, loader._engine.hold
        self._progress = None if loader._progress is None else partial(hears, loader._progress)
        self._over = False

    def __next__(self) -> Batch:
        if self._over:
            raise StopIteration
        if self._loader._turn != self._turn:
            raise ClosedError("this epoch ended when another was begun: a loader has one iterator at a time")
        try:
            raw = self._next_batch(self._epoch, self._progress)
        finally:
            # However the wait ended.
            if isinstance(self._loader._progress, Bar):
                self._loader._progress.hide()
        if self._loader._turn != self._turn:
            raise ClosedError("this epoch ended when another was begun by what `progress` called")
        if raw is None:
            self._over = True
            raise StopIteration
        return _batch.made(self._output.images(raw, self._hold), self._output.targets(raw), raw)


def _warn_of_loss(path: Path) -> None:
    """Says, once for each set in a process, that a cache would keep what is refined of it."""
    if path not in _WARNED:
        _WARNED.add(path)
        _LOG.warning(
            "%s: no cache is given: refined images are kept in memory and lost with the loader; cache='...' keeps them",
            path,
        )


def _mix(mix: mixes.Mix | SupportsFloat | None) -> _engine.Mix | None:
    if mix is None:
        return None
    if isinstance(mix, mixes.Mix):
        return mix._engine
    return _engine.Mix.constant(_options.number("mix", mix))


#: The sets of which it was said that what is refined of them will be lost.
_WARNED: set[Path] = set()

_LOG = logging.getLogger(__name__)

#: Loaders whose threads are to end before the interpreter does.
_OPEN: weakref.WeakSet[DataLoader] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """No thread may be in Python while the interpreter is taken down."""
    try:
        for loader in list(_OPEN):
            loader.close()
        _engine.join_threads()
    except KeyboardInterrupt:
        # The first Ctrl-C lets the current step end; a second one does not wait.
        os._exit(130)
