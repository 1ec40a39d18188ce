"""Text-to-image by diffusers: what a prompt and a seed give is the same alone, in a batch, and when asked again.

Importing this module imports torch and diffusers, which takes seconds: only the load thread does it. A prompt longer
than the text encoder takes is cut there, as diffusers does.
"""

import copy
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any, ClassVar, Final

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from numpy.typing import NDArray
from transformers.utils import logging as transformers_logging

from modelpool_worker.capabilities.base import Loaded, LoadRequest, NobodyWaitsError, Prepared
from modelpool_worker.errors import InferenceFailedError, InvalidRequestError, NeverLoadsError
from modelpool_worker.models import diffusion_folder
from modelpool_worker.models.devices import choose_device, choose_dtype, name_of, reserved_mib
from modelpool_worker.models.diffusion_classes import check_classes
from modelpool_worker.models.memory import free_bytes
from modelpool_worker.openai.images import MAX_SIDE, MAX_STEPS, MIN_SIDE, ImageRequest, check_pixels

Pixels = NDArray[np.uint8]

#: Pipelines whose images were shown not to depend on what is drawn beside them, in float32. Any other, and half
#: precision, where sums depend on the batch's size and the steps add them up, draws one image at a time.
_DRAWS_SEVERAL: Final = frozenset({"StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline"})
#: A CPU draws several images hardly faster than one after the other: 512x512 of a usual model, or several smaller ones.
_CPU_CELLS: Final = 4_096
#: What one latent cell of a running batch takes on a GPU at most, for each byte of the number format.
_CELL_BYTES: Final = 512 * 1024
#: The decoder's largest layers hold this many numbers per pixel and channel at once (measured: 4 to 5.4), ...
_DECODER_COPIES: Final = 6
#: ... and this many channels at full size, unless its config says otherwise.
_DECODER_CHANNELS: Final = 256
#: Larger images than so many times the model's own show everything twice, and take minutes between two steps.
_TIMES_OWN: Final = 4
_ALWAYS_PIXELS: Final = 512 * 512
#: The part of the free memory that an image may take.
_USABLE: Final = 0.8
_WARM_UP_STEPS: Final = 2
_RUNGE_KUTTA_STEPS: Final = 4


@dataclass(frozen=True, slots=True)
class Drawing:
    """A checked image to be drawn, in pixels; a guidance that its request leaves open is the pipeline's own."""

    request: ImageRequest
    width: int
    height: int
    steps: int

    @property
    def group(self) -> Hashable:
        """What images of one batch must have in common."""
        request = self.request
        return self.width, self.height, self.steps, request.guidance, request.negative_prompt is not None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the loaded pipeline draws, in pixels: ``size`` is its own (width, height), ``cell`` a latent cell's side.

    A client that names no ``steps`` gets so many.
    """

    size: tuple[int, int]
    factor: int
    cell: int
    steps: int
    min_steps: int
    max_steps: int
    max_pixels: int
    takes_negative: bool


class TextToImage:
    """Image requests → pixels (uint8, height × width × 3, RGB)."""

    name: ClassVar[str] = "text-to-image"

    def __init__(self) -> None:
        self._pipeline: Any = None
        self._tokenizer: Any = None
        self._device = torch.device("cpu")
        self._limits = Limits((MIN_SIDE, MIN_SIDE), 8, 8, 1, 1, MAX_STEPS, MIN_SIDE * MIN_SIDE, takes_negative=False)

    def load(self, request: LoadRequest) -> Loaded:
        """Load from a local folder, safetensors only, no code of the model's author."""
        # also because diffusers' warnings quote the prompts that it cuts
        diffusers_logging.set_verbosity_error()
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._device = choose_device(request.gpus)
        torch.set_num_threads(request.threads)
        folder = diffusion_folder.check(request.folder, request.source)
        kind = check_classes(folder)
        dtype = choose_dtype(request.dtype, self._device)
        self._pipeline = pipeline = _load(folder, dtype).to(self._device)
        pipeline.set_progress_bar_config(disable=True)
        if hasattr(pipeline.vae, "enable_slicing"):
            pipeline.vae.enable_slicing()  # images are decoded one by one, whatever the batch: the peak of memory
        # of its own, because a tokenizer must not be used by two threads at once
        self._tokenizer = copy.deepcopy(getattr(pipeline, "tokenizer", None))
        self._limits = _limits(pipeline, kind, self._device, dtype)
        return Loaded(
            str(self._device),
            name_of(dtype),
            max_items=None if folder.pipeline in _DRAWS_SEVERAL and dtype is torch.float32 else 1,
            max_tokens=_cells(self._device, dtype),
        )

    def warm_up(self) -> None:
        """Draw a small image in few steps."""
        side = -(-MIN_SIDE // self._limits.factor) * self._limits.factor
        steps = min(max(_WARM_UP_STEPS, self._limits.min_steps), self._limits.max_steps)
        drawing = Drawing(ImageRequest("warm up", seed=0), side, side, steps)
        try:
            self.run_batch([drawing], lambda: True)
        except InferenceFailedError:
            raise NeverLoadsError("the model's pixels are not finite numbers; try dtype float32") from None

    def prepare(self, inputs: Sequence[ImageRequest]) -> list[Prepared]:
        """Check what the model itself bounds: sizes, steps, negative prompts. The cost is in latent cells."""
        limits, prepared = self._limits, []
        for request in inputs:
            width, height = request.size or limits.size
            check_pixels(len(inputs), width, height)
            self._check(request, width, height)
            drawing = Drawing(request, width, height, request.steps or limits.steps)
            cells = -(-width // limits.cell) * -(-height // limits.cell)
            prepared.append(Prepared(drawing, cost=cells, tokens=self._tokens(request.prompt), group=drawing.group))
        return prepared

    def run_batch(self, values: Sequence[Drawing], wanted: Callable[[], bool]) -> list[Pixels]:
        """Draw images of one group together; stops at the end of a step once nobody wants any of them."""
        first, request = values[0], values[0].request
        options: dict[str, Any] = {}
        if request.guidance is not None:
            options["guidance_scale"] = request.guidance
        if request.negative_prompt is not None:
            options["negative_prompt"] = [each.request.negative_prompt for each in values]

        def on_step_end(_pipeline: Any, _step: int, _time: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
            if not wanted():
                raise NobodyWaitsError
            return {}

        images = self._pipeline(
            prompt=[each.request.prompt for each in values],
            width=first.width,
            height=first.height,
            num_inference_steps=first.steps,
            # one each: else an image would depend on its neighbours. On the CPU wherever the model is: a seed then
            # means the same noise on every machine
            generator=[torch.Generator("cpu").manual_seed(each.request.seed) for each in values],
            callback_on_step_end=on_step_end,
            output_type="np",
            **options,
        ).images
        if images.shape != (len(values), first.height, first.width, 3) or not np.isfinite(images).all():
            raise InferenceFailedError("the model's pixels are not finite numbers")
        return list((images * 255).round().astype(np.uint8))

    def unload(self) -> None:
        """Drop the pipeline."""
        self._pipeline = self._tokenizer = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def accelerator_mib(self) -> int:
        """Return what torch has reserved on the accelerator, MiB."""
        return reserved_mib(self._device)

    def _check(self, request: ImageRequest, width: int, height: int) -> None:
        limits = self._limits
        own = f"{limits.size[0]}x{limits.size[1]}"
        if width % limits.factor or height % limits.factor:
            raise InvalidRequestError(
                f"size does not fit this model; expected multiples of {limits.factor}, for example {own}", param="size"
            )
        if width * height > limits.max_pixels:
            raise InvalidRequestError(
                f"size is {width * height} pixels; expected at most {limits.max_pixels} of this model in this worker's "
                "memory",
                param="size",
            )
        if request.steps is not None and not limits.min_steps <= request.steps <= limits.max_steps:
            raise InvalidRequestError(
                f"num_inference_steps is {request.steps}; expected {limits.min_steps} to {limits.max_steps} with this "
                "model's scheduler",
                param="num_inference_steps",
            )
        if request.negative_prompt is not None and not limits.takes_negative:
            raise InvalidRequestError(
                "this model takes no negative_prompt; say in the prompt what you want instead", param="negative_prompt"
            )

    def _tokens(self, prompt: str) -> int:
        if self._tokenizer is None:
            return 0
        return len(self._tokenizer(prompt, truncation=True)["input_ids"])


def _load(folder: diffusion_folder.DiffusionFolder, dtype: torch.dtype) -> Any:
    try:
        return DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            str(folder.folder),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            low_cpu_mem_usage=False,  # true asks for the accelerate package
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # its checks raise errors of many kinds
        raise NeverLoadsError(
            f"{folder.source} was refused by diffusers ({type(error).__name__}); expected a whole folder as saved by "
            "the pipeline's save_pretrained()"
        ) from error


def _limits(pipeline: Any, kind: type[Any], device: torch.device, dtype: torch.dtype) -> Limits:
    cell = int(pipeline.vae_scale_factor)
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    # what each of them silently rounds to, or refuses
    patch = getattr(denoiser.config, "patch_size", 1)
    rounded = int(pipeline.image_processor.config.vae_scale_factor)
    factor = lcm(cell * (patch if isinstance(patch, int) else 1), rounded)
    sample = getattr(pipeline, "default_sample_size", None) or getattr(denoiser.config, "sample_size", None)
    sample_height, sample_width = sample if isinstance(sample, list | tuple) else (sample or 1024 // cell,) * 2
    bounded = [min(MAX_SIDE, max(MIN_SIDE, side * cell)) for side in (sample_width, sample_height)]
    width, height = (max(1, side // factor) * factor for side in bounded)
    least, most = _steps(pipeline.scheduler.config)
    parameters = inspect.signature(kind.__call__).parameters
    channels = getattr(pipeline.vae.config, "block_out_channels", None) or (_DECODER_CHANNELS,)
    pixel = _DECODER_COPIES * max(channels[:2]) * dtype.itemsize
    in_memory = max(MIN_SIDE * MIN_SIDE, int(free_bytes(device) * _USABLE) // pixel)
    return Limits(
        size=(width, height),
        factor=factor,
        cell=cell,
        steps=min(most, max(least, parameters["num_inference_steps"].default)),
        min_steps=least,
        max_steps=most,
        max_pixels=min(in_memory, max(_ALWAYS_PIXELS, _TIMES_OWN * width * height)),
        # where guidance is part of the model, a negative prompt would be ignored without a word
        takes_negative="negative_prompt" in parameters and "true_cfg_scale" not in parameters,
    )


def _steps(scheduler: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many steps a scheduler takes at least and at most; with others it fails in the middle."""
    bounds = [scheduler.get(name) for name in ("num_train_timesteps", "original_inference_steps")]
    most = min([MAX_STEPS, *(each for each in bounds if isinstance(each, int) and each > 0)])
    # Runge-Kutta steps come before the others, unless its config says that they are left out
    least = _RUNGE_KUTTA_STEPS if scheduler.get("skip_prk_steps") is False else 1
    return min(least, most), most


def _cells(device: torch.device, dtype: torch.dtype) -> int:
    if device.type != "cuda":
        return _CPU_CELLS
    return max(1, int(free_bytes(device) * _USABLE) // (_CELL_BYTES * dtype.itemsize))
