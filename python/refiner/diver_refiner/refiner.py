"""The refiner."""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, NoReturn, Protocol, Self, SupportsIndex, Unpack, cast

import numpy as np
import numpy.typing as npt
import torch

from diver import _options, _ranks
from diver.errors import OptionError, OptionTypeError
from diver_refiner import _knobs, _refiner, _tensors
from diver_refiner._knobs import KnobOptions
from diver_refiner._tensors import IntegersLike, TensorLike

_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class CancelToken(Protocol):
    """Says when a refinement is not wanted any more."""

    def is_cancelled(self) -> bool: ...


class Refiner:
    """DIVER on a frozen backbone: pixels in, refined pixels out.

    Make one with :meth:`from_pretrained`. :meth:`refine` does the whole of it; :meth:`encode`,
    :meth:`sample_latents` and :meth:`decode` are its three stages. Called as a function, it is the refiner of
    a loader::

        refiner = diver.Refiner.from_pretrained(folder)
        loader = diver.DataLoader(path, refiner=refiner, cache="~/.cache/diver")

    By hand, stage by stage, a loader's images come of a source's pixels, classes and digests::

        source = diver.open(path)
        samples = [source[index] for index in range(8)]
        classes = [source.class_map[s.label] if source.class_map else s.label for s in samples]
        z0 = refiner.encode(source.pixels(range(8)))
        z = refiner.sample_latents(z0, classes, keys=[s.digest for s in samples])
        images = refiner.decode(z)

    Tensors may be torch's (of any device, dtype of floats and layout in memory), numpy's, or those of any
    library with DLPack. Results are torch's, without a graph, on the refiner's device.

    All its work is done on one thread of its own, in the order of the calls; the interpreter is free
    meanwhile, and Ctrl-C is answered at once. Several threads may share a refiner. Use it as a context
    manager, or :meth:`close` it, to have its memory back at once.

    In float32, a refined image depends on the batch that it is in by one grey level at most; in bfloat16, by
    more.

    Raises (all methods):
        OptionError: an argument has a wrong value or shape. The message names the argument.
        OptionTypeError: an argument has a wrong type or dtype.
        RefineError: libtorch failed, the images came out as values that are not finite, or networks that were
            released cannot be read again.
        ClosedError: the refiner was closed, or was made by the process that this one was forked from.
    """

    #: The settings that were given, which those of a call are laid over.
    _own: dict[str, Any]
    _rust: _refiner.Refiner
    _about: dict[str, Any]
    _latent: tuple[int, int, int]
    _device: torch.device

    def __init__(self, *_arguments: object, **_options: object) -> None:
        raise OptionTypeError("a Refiner is made by Refiner.from_pretrained(path)")

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        vae: str | os.PathLike[str] | None = None,
        model: Literal["dit", "sit"] | None = None,
        num_heads: SupportsIndex | None = None,
        prompt: str | None = None,
        class_names: Sequence[str] | None = None,
        resolution: SupportsIndex | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        batch_size: SupportsIndex | None = None,
        preset: str | None = None,
        refine_seed: SupportsIndex | None = None,
        **knobs: Unpack[KnobOptions],
    ) -> Self:
        """Reads the weights of a backbone.

        Args:
            path: A diffusers folder (``vae/``, ``scheduler/``, and ``transformer/`` of a DiT or ``unet/``,
                ``text_encoder/`` and ``tokenizer/`` of Stable Diffusion 1.5), a repository of the Hugging Face hub
                as ``"owner/name"`` or ``"owner/name@revision"`` (into the cache that ``huggingface_hub`` shares),
                or a checkpoint of the DiT or SiT repository, which is not executed. ``~`` is expanded.
            vae: A folder with an autoencoder of diffusers, or with one in ``vae/``, or a repository: needed beside
                a checkpoint, which has none.
            model: Whether a checkpoint is of a ``"dit"`` or a ``"sit"``, which its weights do not tell; what its
                file's name says unless given.
            num_heads: Attention heads of a checkpoint that is none of the sizes S, B, L and XL, at most 65,536.
            prompt: What Stable Diffusion is asked for, ``{}`` standing for the class's name; ``"a photo of a {}"``
                unless given.
            class_names: The names by which Stable Diffusion knows classes, in their order; those of ImageNet-1K
                unless given.
            resolution: Rows and columns of the images that Stable Diffusion works on, at most 65,536; those of its
                training (512) unless given.
            device: ``"auto"`` (the same as ``"cuda"`` if there is a CUDA device, else the CPU), ``"cpu"``, ``"cuda"``
                (this process's own device: torch's current one if it was set, else that of the local rank, as
                ``LOCAL_RANK`` or ``SLURM_LOCALID`` say it, else the first) or ``"cuda:N"``.
            dtype: In which precision the diffusion network computes: ``"auto"`` (bfloat16 on CUDA, else
                float32), ``"f32"`` (``"float32"``) or ``"bf16"`` (``"bfloat16"``). The autoencoder is float32
                in any case.
            batch_size: How many images go through the networks at a time, at most 65,536; unless given, 32 on a CPU,
                and on a GPU 8 to 256, the more the smaller the network. Halved when the device's memory runs out.
            preset: Settings by name. Distillation methods: ``"ncfm"`` has ``gamma=0.02``; ``"paper"``,
                ``"dc"``, ``"dsa"``, ``"dm"``, ``"mtt"``, ``"datm"``, ``"edf"``, ``"idc"``, ``"sre2l"`` and
                ``"g_vbsm"`` have the paper's. ``"small_latents"`` is for latents of about 8 x 8:
                ``window=(30, 12)``, ``gamma=0.2``. What is given beside it wins.
            refine_seed: Seed of the noise, 0 unless given; another seed makes other images.
            **knobs: The settings of the method (:class:`KnobOptions`). The paper's values are
                ``mode="full"``, ``steps=50``, ``t_f=25``, ``window=(40, 25)``, ``gamma=0.1``,
                ``cfg_scale=4.0``, ``cfg_channels=3``, ``sigma="posterior"``, ``chain="dit"``,
                ``start="t_r"``, ``window_ends="closed"``, ``gradient="latent"``. With other ``steps``,
                ``t_f`` and ``window`` scale in proportion unless given.

        Raises:
            OptionError: an option has a wrong value, or the settings do not suit the backbone.
            FileError: a file cannot be read.
            DataError: there is no whole backbone; the message names file and key.
            RefineError: a repository cannot be fetched, or is none that can be run; the message says why.
        """
        device, dtype = _device_name(device), _dtype_name(dtype)
        options = _options.given("refiner", locals())
        own = _knobs.checked(knobs) | _options.given("knobs", {"preset": preset, "refine_seed": refine_seed})
        return cls._from_args(json.dumps(options | {"backbone": _path("path", path), "knobs": own}))

    @classmethod
    def _from_args(cls, args: str, cancel: CancelToken | None = None) -> Self:
        """The refiner that a command line asks for: ``diver_loaders::cli::RefinerArgs`` as JSON."""
        self = cls.__new__(cls)
        self._own = json.loads(args)["knobs"]
        self._rust = _refiner.Refiner.load(args, cancel)
        self._about = json.loads(self._rust.description)
        channels, height, width = self._about["latent"]
        self._latent = (channels, height, width)
        self._device = torch.device(self._about["device"])
        return self

    def encode(self, images: TensorLike) -> torch.Tensor:
        """The latents of images.

        Args:
            images: Floats ``[B, 3, H, W]`` in [0, 1] of any size, as from :meth:`diver.Source.pixels`; resized to the
                backbone's.

        Returns:
            ``z0``, float32 ``[B, C, h, w]``: the mode of the autoencoder's posterior, scaled as the diffusion
            network wants it.
        """
        self._rust.check_open()
        return _tensors.from_rust(self._rust.encode(_tensors.images("images", images, self._device)))

    def sample_latents(
        self,
        z0: TensorLike,
        labels: IntegersLike,
        noise: TensorLike | None = None,
        *,
        keys: Iterable[bytes | str] | None = None,
        variants: IntegersLike | None = None,
        seed: SupportsIndex | None = None,
        **knobs: Unpack[KnobOptions],
    ) -> torch.Tensor:
        """Runs the method on latents.

        Args:
            z0: Floats ``[B, C, h, w]``, as from :meth:`encode`.
            labels: ``B`` class indices of the backbone.
            noise: The noise to start from, of the shape of ``z0``.
            keys: ``B`` hashes that the noise is drawn from beside the seed, where it is not given itself; by
                default those of the rows of ``z0``. With the digests of a source's samples it is the loader's.
            variants: ``B`` integers from 0 to 2**32 - 1: which of several refinements of the same image is wanted
                (default: 0 for all). Another variant draws other noise.
            seed: Seed of the noise; the refiner's ``refine_seed`` unless given. ``keys``, ``variants``
                and ``seed`` cannot be given together with ``noise``.
            **knobs: Settings for this call alone; what is not given is as for the refiner.

        Returns:
            The refined latents, float32 ``[B, C, h, w]``. With ``mode="vae"``, ``z0`` as it is.
        """
        self._rust.check_open()
        for name, value in (("seed", seed), ("keys", keys), ("variants", variants)):
            if noise is not None and value is not None:
                raise OptionError(f"{name}: noise was given too; give one of them")
        settings = self._settings(seed, knobs)
        latents = _tensors.latents("z0", z0, self._latent, self._device)
        classes = _tensors.labels(labels, len(latents), "latents", self.num_classes)
        if noise is not None:
            noise = _tensors.latents("noise", noise, self._latent, self._device)
            if len(noise) != len(latents):
                raise OptionError(f"noise: {len(noise)} rows were given for {len(latents)} latents")
        digests = None if keys is None else _tensors.keys(keys, len(latents))
        numbers = _tensors.variants(variants, len(latents), "latents")
        z = self._rust.sample_latents(latents, classes, noise, digests, numbers, settings)
        return _tensors.from_rust(z)

    def decode(self, z: TensorLike) -> torch.Tensor:
        """The images of latents.

        Args:
            z: Floats ``[B, C, h, w]``, as from :meth:`sample_latents`.

        Returns:
            Float32 ``[B, 3, R, R]`` in [0, 1], with the backbone's resolution ``R``.
        """
        self._rust.check_open()
        latents = _tensors.latents("z", z, self._latent, self._device)
        return _tensors.from_rust(self._rust.decode(latents))

    def refine(
        self,
        images: TensorLike,
        labels: IntegersLike,
        *,
        keys: Iterable[bytes | str] | None = None,
        variants: IntegersLike | None = None,
        seed: SupportsIndex | None = None,
        **knobs: Unpack[KnobOptions],
    ) -> torch.Tensor:
        """Refines images: encodes, samples and decodes them, ``batch_size`` at a time.

        With the digests of a source's samples as ``keys``, that is what a loader does to them before it rounds to
        bytes.

        Args:
            images: Floats ``[B, 3, H, W]`` in [0, 1] of any size; resized to the backbone's.
            labels: ``B`` class indices of the backbone.
            keys: ``B`` hashes that the noise depends on beside the seed, each 32 bytes or 64 hex digits; by
                default those of the images themselves. (A loader's keys are the hashes of the samples as
                stored.)
            variants: ``B`` integers from 0 to 2**32 - 1: which of several refinements of the same image is wanted
                (default: 0 for all). Another variant draws other noise.
            seed: Seed of the noise; the refiner's ``refine_seed`` unless given.
            **knobs: Settings for this call alone; what is not given is as for the refiner.

        Returns:
            Float32 ``[B, 3, R, R]`` in [0, 1], with the backbone's resolution ``R``.
        """
        self._rust.check_open()
        settings = self._settings(seed, knobs)
        pixels = _tensors.images("images", images, self._device)
        classes = _tensors.labels(labels, len(pixels), "images", self.num_classes)
        digests = None if keys is None else _tensors.keys(keys, len(pixels))
        numbers = _tensors.variants(variants, len(pixels), "images")
        return _tensors.from_rust(self._rust.refine(pixels, classes, digests, numbers, settings))

    def __call__(
        self,
        images: TensorLike,
        labels: IntegersLike,
        keys: Iterable[bytes | str],
        *,
        variants: IntegersLike | None = None,
        cancel: CancelToken | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Refines a batch as a loader does: the bytes are those of the ``diver`` command.

        Args:
            images: Floats ``[B, 3, H, W]`` in [0, 1].
            labels: ``B`` class indices of the backbone.
            keys: ``B`` hashes of 32 bytes, those of the samples as stored.
            variants: ``B`` integers from 0 to 2**32 - 1: which of several refinements of the same image is wanted
                (default: 0 for all). Another variant draws other noise.
            cancel: Ends the call with a ClosedError soon after ``cancel.is_cancelled()`` is true.
            progress: Called as ``progress(done, total)`` at every step. What it raises ends the call.

        Returns:
            uint8 ``[B, 3, R, R]``, with the backbone's resolution ``R``.
        """
        self._rust.check_open()
        if cancel is not None and not hasattr(cancel, "is_cancelled"):
            _options.wrong_type("cancel", cancel, "an object with is_cancelled()")
        if progress is not None and not callable(progress):
            _options.wrong_type("progress", progress, "a callable")
        pixels = _tensors.images("images", images, torch.device("cpu"))
        classes = _tensors.labels(labels, len(pixels), "images", self.num_classes)
        digests = _tensors.keys(keys, len(pixels))
        numbers = _tensors.variants(variants, len(pixels), "images")
        refined = self._rust.refine_bytes(pixels, classes, digests, numbers, cancel, progress)
        return cast(npt.NDArray[np.uint8], np.from_dlpack(refined))

    def _settings(self, seed: SupportsIndex | None, knobs: KnobOptions) -> str:
        """The refiner's own settings, with those of a call; checked again as a whole."""
        return json.dumps(self._own | _knobs.checked(knobs) | _knobs.seed("seed", seed))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides refined pixels beside the batch. A cache on disk is found by it."""
        fingerprint: dict[str, Any] = json.loads(self._rust.description)["fingerprint"]
        return fingerprint

    @property
    def knobs(self) -> dict[str, Any]:
        """Every setting of the method, with the values that are used."""
        knobs: dict[str, Any] = dict(self._about["knobs"])
        high, low = knobs["window"]
        knobs["window"] = (high, low)
        return knobs

    @property
    def preferred_batch(self) -> int:
        """How many images go through the networks at a time."""
        return self._rust.preferred_batch

    @property
    def num_classes(self) -> int:
        """How many classes the backbone knows."""
        return int(self._about["num_classes"])

    @property
    def resolution(self) -> int:
        """Rows and columns of refined images."""
        return int(self._about["resolution"])

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """In which precision the diffusion network computes."""
        return _DTYPES[self._about["fingerprint"]["dtype"]]

    def release(self) -> None:
        """Gives the memory of the networks back, on a GPU to other processes too; the next call reads them again. A
        loader does this itself once its cache on disk has every sample. Does nothing while a call runs, or once the
        refiner is closed.
        """
        if self._rust.release() and self._device.type == "cuda":
            # Without it, torch takes CUDA for unused, and its pool for empty.
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Ends what runs and gives the memory back. Closing again does nothing."""
        self._rust.close()

    def __enter__(self) -> Self:
        self._rust.check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise OptionTypeError(
            "a Refiner cannot be pickled or copied: pass the path of its folder, and make it where it is used"
        )

    def __repr__(self) -> str:
        knobs, side = self._about["knobs"], self.resolution
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"<Refiner of {self.num_classes} classes at {side} x {side} on {self.device}, {dtype}, "
            f"mode {knobs['mode']}, {knobs['steps']} steps>"
        )


def _path(name: str, path: str | os.PathLike[str]) -> str:
    given = _options.path(name, path)
    try:
        given.encode()
    except UnicodeEncodeError:
        raise OptionError(f"{name}: {given!r} is not UTF-8") from None
    return given


def _device_name(device: str | torch.device) -> str:
    if isinstance(device, torch.device):
        # torch writes "cpu:0" for the only one there is.
        name = device.type if device.type == "cpu" else str(device)
    else:
        name = _options.text("device", device)
    if "," in name or name == "cuda:all":
        raise OptionError("device: expected one device; diver.refiners.Fleet joins the refiners of several")
    # The extension knows the local rank, but not which device the program has made torch's current one.
    is_used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if name == "cuda" or (name == "auto" and is_used):
        return f"cuda:{_ranks.own_card(torch)}" if torch.cuda.device_count() else name
    return name


def _dtype_name(dtype: str | torch.dtype) -> str:
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    name = _options.text("dtype", dtype)
    return {"float32": "f32", "bfloat16": "bf16"}.get(name, name)


@atexit.register
def _close_all() -> None:
    """No thread may be in libtorch while the process takes it down."""
    try:
        _refiner.close_all()
    except KeyboardInterrupt:
        # The first Ctrl-C lets the current step end; a second one does not wait.
        os._exit(130)
