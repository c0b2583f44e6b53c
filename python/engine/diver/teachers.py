"""Anything that classifies images as a teacher: what :func:`diver.labels.teacher` takes.

A torch module is called as ``model(images)`` with a tensor ``[B, C, H, W]`` on the device and in the dtype of its
parameters, in evaluation mode and without gradients. Afterwards each of its parts is in the mode that it was in. It is
called from a thread of the loader: give the loader a copy (``copy.deepcopy(model)``) of a module that the training goes
on to change or to call.

Any other callable is called as ``teacher(images)``:

- ``images``: float32 ``[B, C, H, W]``, normalised with the ``mean`` and ``std`` of the loader's source, a numpy array
  of its own to write on;
- ``cancel``, as a keyword, if it has a parameter of this name: ``cancel.is_cancelled()`` says that the logits are not
  wanted any more.

It may have a method ``release`` without arguments, called once nothing has been asked of it for a while. It gives back
memory, above all a device's; a later call has to answer as before.

Both return logits ``[B, classes]``, a tensor or an array: as many classes as the dataset has, in the same order. A row
must depend on its own image only.

    >>> import numpy
    >>> def bright(images):
    ...     means = images.mean(axis=(1, 2, 3))
    ...     return numpy.stack([-means, means], axis=1)
    >>> check(bright)
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

from diver import _callables, _engine, _options, _tensors
from diver.errors import OptionError, OptionTypeError, TeachError

if TYPE_CHECKING:
    import numpy

__all__ = ["check"]

#: What a function may be given; the first also by position.
_NAMES = ("images", "cancel")
_CALLED = "it is called with images; `cancel` by name"


def check(
    model: Callable[..., Any],
    *,
    shape: Iterable[SupportsIndex] = (3, 32, 32),
    tolerance: SupportsFloat = 1e-4,
) -> None:
    """Runs the suite that every teacher has to pass: an image gets finite logits, the same ones in every call, whatever
    else is in its batch, and a cancelled call or a release leaves nothing behind.

    Args:
        model: What is to be checked.
        shape: Channels, height and width of the images it is called with.
        tolerance: How far apart logits may lie that must agree, as a share of the largest one (of 1 if all are
            smaller): 1e-4 suits float32 on a CPU, 1e-2 lower precision.

    Raises:
        AssertionError: names the rule that it breaks.
    """
    sides = _options.integers("shape", shape, least=1, most=4096)
    if len(sides) != 3:
        raise OptionError(f"shape: channels, height and width are expected, not {len(sides)} numbers")
    channels, height, width = sides
    allowed = _options.bounded("tolerance", _options.number("tolerance", tolerance), {"minimum": 0})
    _engine.check_teacher(Adapter(model), (channels, height, width), allowed)


class Adapter:
    """A teacher as the engine wants it: a tensor in, the bytes of logits out."""

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        fingerprint: str | None = None,
        batch_size: int = 32,
        num_classes: int | None = None,
        is_kept: bool = True,
    ) -> None:
        """``fingerprint`` is a JSON object; where nothing is kept across runs (``is_kept``), none is needed."""
        if not callable(model):
            raise OptionTypeError(
                f"model: a torch module or another callable is expected, not {type(model).__name__}"
            )
        self._model = model
        self._is_module = is_module(model)
        self._positional, self._named = (
            ([], {})
            if self._is_module
            else _callables.signature("model", model, known=_NAMES, places=1, called=_CALLED)
        )
        self._fingerprint, self._is_kept = fingerprint, is_kept
        self.preferred_batch, self.num_classes = batch_size, num_classes

    @property
    def fingerprint(self) -> str | None:
        """The teacher's fingerprint as a JSON object: of a module, that of its weights unless another was given."""
        if not self._is_kept:
            return None
        if self._fingerprint is None and self._is_module:
            return weights(self._model)
        return self._fingerprint

    def teach(self, pixels: _engine.Tensor, cancel: _engine.CancelToken) -> bytes:
        """The logits of normalised images, float32, row-major."""
        images = _tensors.numpy_array(pixels)
        return _logits(self._call(images, cancel), len(images)).tobytes()

    def release(self) -> None:
        """Has the teacher give back what it can have again."""
        release = None if self._is_module else getattr(self._model, "release", None)
        if callable(release):
            release()

    def _call(self, images: numpy.ndarray[Any, Any], cancel: _engine.CancelToken) -> Any:
        if self._is_module:
            return _called(self._model, images)
        given: dict[str, Any] = {"images": images, "cancel": cancel}
        return self._model(
            *(given[name] for name in self._positional),
            **{name: given[value] for name, value in self._named.items()},
        )


def is_module(model: object) -> bool:
    """Whether it is a torch module. There is none before torch was imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def weights(module: Any) -> str:
    """The fingerprint of a torch module, a JSON object: its class, what it prints of its parts, and the hash of its
    parameters and buffers (names, dtypes, shapes and bytes).

    Raises:
        OptionError: a part of its state is not a tensor whose bytes can be read.
    """
    import hashlib

    import torch

    hasher = hashlib.sha256()
    # Buffers that are not saved decide the logits as well: the constants of a normalisation often are.
    state = {**module.state_dict(), **dict(module.named_buffers())}
    for name, value in sorted(state.items()):
        try:
            content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
            raise OptionError(
                f"fingerprint: the bytes of the module's `{name}` cannot be read: pass fingerprint= with a string that "
                "names its weights"
            ) from error
        hasher.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        hasher.update(content)
    # Addresses differ in every run.
    parts = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(module))
    kind = type(module)
    return json.dumps(
        {
            "teacher": "torch",
            "module": f"{kind.__module__}.{kind.__qualname__}",
            "parts": hashlib.sha256(parts.encode()).hexdigest(),
            "weights": hasher.hexdigest(),
        }
    )


def _called(module: Any, images: numpy.ndarray[Any, Any]) -> Any:
    """What a torch module returns for images."""
    import torch

    values = itertools.chain(module.parameters(), module.buffers())
    floats = next((value for value in values if value.is_floating_point()), None)
    tensor = torch.from_numpy(images)
    if floats is not None:
        tensor = tensor.to(floats.device, floats.dtype)
    # Each part by itself: some may be frozen.
    training = [part for part in module.modules() if part.training]
    try:
        if training:
            module.eval()
        with torch.no_grad():
            return module(tensor)
    finally:
        for part in training:
            part.training = True


def _logits(answer: Any, count: int) -> numpy.ndarray[Any, Any]:
    """What a teacher returned, once it is known to be float32 ``[count, classes]``."""
    import numpy

    expected = f"logits [{count}, classes] are expected"
    try:
        values = _tensors.as_numpy("logits", answer)
    except OptionError as error:
        raise TeachError(
            f"an object of type {type(answer).__name__} came back, {expected}: wrap the model in a function that "
            "returns nothing else"
        ) from error
    if values.ndim != 2 or len(values) != count or 0 in values.shape or values.dtype.kind not in "fiu":
        raise TeachError(f"{values.dtype} {list(values.shape)} came back, {expected}")
    # What overflows is infinite, and is refused as such.
    with numpy.errstate(over="ignore"):
        return numpy.ascontiguousarray(values, dtype=numpy.float32)
