"""What the targets of a batch are made of: the labels stored with the images, a teacher's, or both.

    >>> import diver
    >>> labels = diver.labels.hard(smoothing=0.1)
    >>> with diver.DataLoader("examples/digits/dm_ipc1", labels=labels) as loader:
    ...     images, targets = next(iter(loader))
    >>> [round(share, 2) for share in targets[0].tolist()]
    [0.91, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]

Targets are distributions, whatever they are made of, so that one line is the loss for all of them, the soft
cross-entropy::

    loss = torch.nn.functional.cross_entropy(model(images), targets)

Distillation at a temperature ``T`` compares softmaxes at ``T``. Those of the teacher are the targets already; with
``F`` for ``torch.nn.functional``, the Kullback-Leibler divergence that SRe2L and RDED train on is::

    loss = F.kl_div(F.log_softmax(model(images) / T, 1), targets, reduction="batchmean")

Some methods multiply it by ``T * T``, so that its gradients do not shrink with the temperature.

G_VBSM compares logits, which are the targets of ``teacher(..., temperature=None)``, and adds a little of the
cross-entropy with the stored classes::

    outputs = model(images)
    loss = F.mse_loss(outputs, targets) + 0.1 * F.cross_entropy(outputs, batch.labels)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, SupportsFloat, SupportsIndex

from diver import _callables, _engine, _options, teachers
from diver.errors import OptionError

__all__ = ["Average", "Hard", "Labels", "Stored", "Teacher", "average", "hard", "stored", "teacher"]


class Labels:
    """What targets are made of. Made by the functions of this module, and checked when it is made."""

    def __post_init__(self) -> None:
        # The engine says what it does not take.
        self._targets()

    def _targets(self) -> _engine.Targets:
        """The same for the engine."""
        raise NotImplementedError

    def _asked(self) -> Teacher | None:
        """The teacher, if there is one."""
        return None

    def __repr__(self) -> str:
        given = [
            f"{field.name}={_shown(getattr(self, field.name))}"
            for field in fields(self)  # type: ignore[arg-type] # Every subclass is a data class.
            if getattr(self, field.name) != field.default
        ]
        return f"diver.labels.{type(self).__name__.lower()}({', '.join(given)})"


@dataclass(frozen=True, kw_only=True, repr=False)
class Stored(Labels):
    """The labels stored with the images: what :func:`stored` makes."""

    temperature: float = 1.0

    def _targets(self) -> _engine.Targets:
        return _engine.Targets.stored(self.temperature)


@dataclass(frozen=True, kw_only=True, repr=False)
class Hard(Labels):
    """The classes of the stored labels: what :func:`hard` makes."""

    smoothing: float = 0.0

    def _targets(self) -> _engine.Targets:
        return _engine.Targets.hard(self.smoothing)


@dataclass(frozen=True, kw_only=True, repr=False)
class Teacher(Labels):
    """A teacher's labels: what :func:`teacher` makes, whose arguments are the fields."""

    model: Callable[..., Any]
    temperature: float | None = 1.0
    #: A JSON object; None says nothing, and is the hash of the weights for a torch module.
    fingerprint: str | None = None
    per: str = "image"
    batch_size: int = 32
    num_classes: int | None = None
    dtype: str = "float32"
    top_k: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._adapter(is_kept=False)

    def _targets(self) -> _engine.Targets:
        if self.temperature is None:
            return _engine.Targets.logits()
        return _engine.Targets.teacher(self.temperature)

    def _asked(self) -> Teacher:
        return self

    def _adapter(self, *, is_kept: bool) -> teachers.Adapter:
        """The teacher as the engine calls it."""
        return teachers.Adapter(
            self.model,
            fingerprint=self.fingerprint,
            batch_size=self.batch_size,
            num_classes=self.num_classes,
            is_kept=is_kept,
        )

    def _for_engine(self, *, is_kept: bool) -> tuple[teachers.Adapter, bool, bool, int | None]:
        """The teacher, whether it labels views, whether its logits are stored as float16, and how many of them."""
        adapter = self._adapter(is_kept=is_kept)
        return adapter, self.per == "view", self.dtype == "float16", self.top_k


@dataclass(frozen=True, kw_only=True, repr=False)
class Average(Labels):
    """A weighted average of stored and teacher's labels: what :func:`average` makes."""

    stored: Stored
    teacher: Teacher
    weight: float

    def _targets(self) -> _engine.Targets:
        return _engine.Targets.average(self.weight, self.stored.temperature)

    def _asked(self) -> Teacher:
        return self.teacher


def stored(*, temperature: SupportsFloat = 1.0) -> Stored:
    """The labels stored with the images: ``softmax(logits / temperature)`` of logits, probabilities as they are,
    one-hot for a class.

    Args:
        temperature: What logits are divided by; above 0.

    Raises:
        OptionError: an argument is out of its range.

    >>> stored(temperature=20)
    diver.labels.stored(temperature=20.0)
    """
    return Stored(temperature=_options.number("temperature", temperature))


def hard(*, smoothing: SupportsFloat = 0.0) -> Hard:
    """The class of each stored label (of a soft one, its most likely class), smoothed:
    ``(1 - smoothing) * one_hot + smoothing / classes``.

    Args:
        smoothing: Share of the target that is spread evenly over all classes; at least 0 and below 1.

    Raises:
        OptionError: an argument is out of its range.

    >>> hard(smoothing=0.1)
    diver.labels.hard(smoothing=0.1)
    """
    return Hard(smoothing=_options.number("smoothing", smoothing))


def teacher(
    model: Callable[..., Any],
    *,
    temperature: SupportsFloat | None = 1.0,
    fingerprint: str | Mapping[str, Any] | None = None,
    per: str = "image",
    batch_size: SupportsIndex = 32,
    num_classes: SupportsIndex | None = None,
    dtype: str = "float32",
    top_k: SupportsIndex | None = None,
) -> Teacher:
    """A teacher's labels: ``softmax(logits / temperature)`` of what a network says of each image as it comes, refined
    or raw.

    Logits are kept in the loader's ``cache``, if it has one, and are found again by every later epoch, run and process:
    an image is not labelled twice.

    Args:
        model: A torch module or any other callable that takes normalised images ``[B, C, H, W]`` and returns logits
            ``[B, classes]``: see :mod:`diver.teachers`, whose ``check`` tries one.
        temperature: What logits are divided by; above 0. With None, targets are the logits themselves, for losses on
            logits.
        fingerprint: A string, or a dict like JSON, that names everything the logits depend on besides the images. By
            default, a torch module is known by its class, its parts as it prints them, and the bytes of its parameters
            and buffers, when the loader is made; give one where something else decides its logits, as its code does.
            The logits of other callables without one stay in memory.
        per: What the teacher looks at. ``"image"``: each image before augmentation, once; what augmentation makes of it
            has the same label. ``"view"``: each view as it leaves in a batch, cropped, flipped and mixed, in every
            epoch anew.
        batch_size: Images of a call, 1 or more.
        num_classes: Number of classes that the teacher knows. With it, a teacher of other classes is refused when the
            loader is made; otherwise by the first batch.
        dtype: How logits are stored: ``"float32"``, or ``"float16"`` for half the room, to three digits.
        top_k: Logits of an image that are stored, the greatest ones, 1 or more; all by default. The probability of the
            other classes is spread evenly over them.

    Raises:
        OptionError: an argument is out of its range.
        OptionTypeError: the model cannot be called, or an argument is of another type.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    >>> teacher(model, temperature=20, dtype="float16")
    diver.labels.teacher(model=Sequential, temperature=20.0, dtype='float16')
    """
    return Teacher(
        model=model,
        temperature=None if temperature is None else _options.number("temperature", temperature),
        fingerprint=_callables.fingerprint("fingerprint", fingerprint, "teacher"),
        per=_options.choice("per", per, ("image", "view")),
        batch_size=_options.integer("batch_size", batch_size, least=1),
        num_classes=None if num_classes is None else _options.integer("num_classes", num_classes, least=1),
        dtype=_options.choice("dtype", dtype, ("float32", "float16")),
        top_k=None if top_k is None else _options.integer("top_k", top_k, least=1),
    )


def average(stored: Stored, teacher: Teacher, *, weight: SupportsFloat) -> Average:
    """A weighted average of both: ``weight * stored + (1 - weight) * teacher``.

    Args:
        stored: What :func:`stored` makes.
        teacher: What :func:`teacher` makes, at the same temperature.
        weight: Weight of the stored label, in [0, 1].

    Raises:
        OptionError: an argument is out of its range, or the temperatures differ.
        OptionTypeError: an argument is of another type.

    >>> import diver, numpy
    >>> labels = average(stored(), teacher(lambda images: numpy.zeros((len(images), 10))), weight=0.25)
    >>> with diver.DataLoader("examples/digits/dm_ipc1", labels=labels) as loader:
    ...     images, targets = next(iter(loader))
    >>> [round(share, 3) for share in targets[0].tolist()[:2]]
    [0.325, 0.075]
    """
    if not isinstance(stored, Stored):
        _options.wrong_type("stored", stored, "what diver.labels.stored makes")
    if not isinstance(teacher, Teacher):
        _options.wrong_type("teacher", teacher, "what diver.labels.teacher makes")
    if teacher.temperature is None:
        raise OptionError(
            "teacher: its targets are logits (temperature=None), which cannot be averaged with distributions: give it "
            "the temperature of the stored labels"
        )
    if stored.temperature != teacher.temperature:
        raise OptionError(
            f"temperature: the stored labels have {stored.temperature}, the teacher has {teacher.temperature}: give "
            "both the same one"
        )
    return Average(stored=stored, teacher=teacher, weight=_options.number("weight", weight))


def _shown(value: object) -> str:
    """A value as its repr shows it: a function or a module by its name."""
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return repr(value)
