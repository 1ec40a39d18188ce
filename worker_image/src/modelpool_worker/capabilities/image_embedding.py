"""Image embedding by transformers and torch: CLIP and SigLIP models, whose texts share the space, and vision encoders.

A vector is the pooled output (projected, for models of image and text) made length 1. What the library's own
``get_image_features`` returns, normalised, is the same.
Importing this module imports torch and transformers, which takes seconds: only the load thread does it.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_MAPPING,
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,
)

from modelpool_worker.capabilities.base import Loaded, LoadRequest, Prepared
from modelpool_worker.embedding.rounding import agree, choose_compared
from modelpool_worker.errors import InvalidRequestError, NeverLoadsError
from modelpool_worker.imaging.decode import decode_image
from modelpool_worker.imaging.encoded import EncodedImage
from modelpool_worker.imaging.pixel_budget import PixelBudget
from modelpool_worker.models import model_files
from modelpool_worker.models.devices import choose_device, name_of, reserved_mib
from modelpool_worker.models.memory import free_bytes
from modelpool_worker.models.pretrained import (
    build_skeleton,
    check_weights,
    convert,
    load_model,
    load_tokenizer,
    read_config,
)
from modelpool_worker.models.processors import load_image_processor
from modelpool_worker.models.rearranged import rearrange

Vector = NDArray[np.float32]

#: What of the free memory the processed images of waiting requests may take.
_WAITING_SHARE: Final = 0.125
#: Images of a batch on a CPU: more do not make it faster, only later.
_CPU_ITEMS: Final = 16
#: Numbers of a patch of 16 x 16 pixels, which stands for one token in a batch's size and in the usage.
_PATCH: Final = 16 * 16 * 3
#: These were trained on texts padded to a fixed length, without a mask.
_FIXED_LENGTH: Final = ("siglip", "siglip2")


class _Input(NamedTuple):
    """One input of the model: its tensors by name, each with a batch of one."""

    text: bool
    tensors: dict[str, torch.Tensor]

    @property
    def group(self) -> Hashable:
        """What may be joined in one batch: the same tensors in the same shapes."""
        return self.text, tuple(sorted((name, *tensor.shape) for name, tensor in self.tensors.items()))


class ImageEmbedding:
    """Images, and texts where the model has a text side → vectors of length 1 (float32) in one space."""

    name: ClassVar[str] = "image-embedding"

    def __init__(self) -> None:
        self._model: Any = None
        self._processor: Any = None
        self._tokenizer: Any = None
        self._pair = False
        self._text_options: dict[str, Any] = {}
        self._text_names: tuple[str, ...] = ()
        self._device = torch.device("cpu")
        self._dtype = torch.float32
        self._budget = PixelBudget(0)

    def load(self, request: LoadRequest) -> Loaded:
        """Load from a local folder, safetensors only, no code of the model's author."""
        self._device = choose_device(request.gpus)
        torch.set_num_threads(request.threads)
        files = model_files.check(request.folder, request.source)
        config = _config(files)
        self._pair = type(config) in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING
        dtype, compares = choose_compared(request.dtype, files, self._device)
        self._dtype = torch.float32 if compares else dtype
        skeleton = build_skeleton(AutoModel, config, files)
        check_weights(skeleton, files)
        _check_pooler(skeleton, files)
        self._processor = load_image_processor(files)
        self._model = load_model(AutoModel, config, files, self._dtype, self._device)
        texts = getattr(config, "text_config", None)
        if self._pair and texts is not None and (files.folder / "tokenizer.json").exists():
            self._load_tokenizer(files, int(texts.max_position_embeddings), fixed=config.model_type in _FIXED_LENGTH)
        vectors = self._try_out(files.source, _SAMPLES if compares else _SAMPLES[:1])
        if compares and not self._converts(dtype, vectors, files.source):
            self._model = None  # its weights are rounded by now
            self._dtype = torch.float32
            self._model = load_model(AutoModel, config, files, self._dtype, self._device)
        if not rearrange(self._model, lambda _model: self._try_out(files.source, _SAMPLES[:1])):
            self._model = None  # before the next one: both at once would take more memory than either needs
            self._model = load_model(AutoModel, config, files, self._dtype, self._device)
        # a batch's own room at least: where memory is short a request of some images must not be refused for ever
        one = sum(tensor.nbytes for tensor in self._read_image(_WARM_UP_IMAGE).tensors.values())
        waiting = int(free_bytes(torch.device("cpu")) * _WAITING_SHARE)
        self._budget = PixelBudget(max(waiting, one * _CPU_ITEMS))
        items = _CPU_ITEMS if self._device.type == "cpu" else None
        return Loaded(str(self._device), name_of(self._dtype), vectors.shape[1], max_items=items)

    def warm_up(self) -> None:
        """Embed two small images together, and a text where that is served."""
        inputs = [self._read_image(_WARM_UP_IMAGE), self._read_image(_WARM_UP_IMAGE)]
        vectors = self.run_batch(inputs, lambda: True)
        if self._tokenizer is not None:
            vectors += self.run_batch([self._read_text("warm up")], lambda: True)
        if not all(np.isfinite(vector).all() for vector in vectors):
            raise NeverLoadsError("the model's vectors are not finite numbers; try dtype float32")

    def prepare(self, inputs: Sequence[EncodedImage | str]) -> list[Prepared]:
        """Decode images and make the model's inputs of them, and of texts their tokens. Each alone, as if it came so.

        Raises ``InvalidRequestError``, also where the images of one request take too much memory together, and
        ``QueueFullError`` where those of other requests do.
        """
        # no list by name: an error remembers this frame, and would hold the room of what was well for a while
        return [self._prepare(given) for given in inputs]

    def run_batch(self, values: Sequence[_Input], wanted: Callable[[], bool]) -> list[Vector]:
        """Embed inputs of one group and let go of them; the result does not depend on what else is in the batch."""
        inputs = {name: self._cast(torch.cat([value.tensors[name] for value in values])) for name in values[0].tensors}
        with torch.inference_mode():
            if values[0].text:
                output = self._model.get_text_features(**inputs, return_dict=True)
            elif self._pair:
                output = self._model.get_image_features(**inputs, return_dict=True)
            else:
                output = self._model(**inputs, return_dict=True)
            vectors = torch.nn.functional.normalize(output.pooler_output.float().flatten(1), p=2, dim=1)
            rows: Vector = vectors.cpu().numpy()
        for value in values:
            # whoever remembers the batch, until the next one perhaps, must not hold room that others wait for
            value.tensors.clear()
        return list(rows)

    def unload(self) -> None:
        """Drop model, processor and tokenizer."""
        self._model = self._processor = self._tokenizer = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def accelerator_mib(self) -> int:
        """Return what torch has reserved on the accelerator, MiB."""
        return reserved_mib(self._device)

    def _load_tokenizer(self, files: model_files.ModelFiles, longest: int, *, fixed: bool) -> None:
        self._tokenizer = load_tokenizer(files.folder, files.source)
        self._text_options = {
            "truncation": True,
            "max_length": longest,
            "padding": "max_length" if fixed else False,
            "return_tensors": "pt",
        }
        self._text_names = ("input_ids",) if fixed else ("input_ids", "attention_mask")

    def _prepare(self, given: EncodedImage | str) -> Prepared:
        if isinstance(given, str):
            made = self._read_text(given)
            cost = made.tensors["input_ids"].shape[1]
        else:
            made = self._read_image(decode_image(given.data, max_pixels=given.max_pixels, param="input"))
            self._budget.hold(made.tensors.values(), given.share)
            cost = max(1, made.tensors["pixel_values"].numel() // _PATCH)
        return Prepared(made, cost, cost, made.group)

    def _read_image(self, image: Image.Image) -> _Input:
        try:
            made = self._processor(images=image, return_tensors="pt")
        except Exception as error:  # processors raise errors of many kinds for what they cannot scale
            raise InvalidRequestError(
                "this model cannot take an image of this size; expected one neither tiny nor very long or narrow",
                param="input",
            ) from error
        return _Input(False, dict(made))

    def _read_text(self, text: str) -> _Input:
        if self._tokenizer is None:
            raise InvalidRequestError(
                'this model takes no texts; expected images only: "input": {"image": "data:image/png;base64,…"}',
                param="input",
            )
        made = self._tokenizer([text], **self._text_options)
        if not made["input_ids"].shape[1]:
            raise InvalidRequestError('an input has no tokens; expected text such as "hello"', param="input")
        return _Input(True, {name: made[name] for name in self._text_names if name in made})

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)

    def _converts(self, dtype: torch.dtype, exact: torch.Tensor, source: str) -> bool:
        """Change the loaded model's format; return whether its vectors keep the direction they had before."""
        convert(self._model, dtype)
        self._dtype = dtype
        return agree(exact, self._try_out(source, _SAMPLES))

    def _try_out(self, source: str, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the vectors of images, and of texts where they are served, each calculated alone.

        Raises ``NeverLoadsError`` where model and processor do not fit together.
        """
        try:
            inputs = [self._read_image(image) for image in images]
            if self._tokenizer is not None:
                inputs += [self._read_text(text) for text in _SAMPLE_TEXTS[: len(images)]]
            return torch.tensor(np.concatenate([self.run_batch([each], lambda: True) for each in inputs]))
        except Exception as error:  # whatever they make of each other's files
            raise NeverLoadsError(
                f"{source} makes no vector of an image ({type(error).__name__}); expected one with a pooled output, "
                "such as CLIP, SigLIP or DINOv2, with the processor and tokenizer that it came with"
            ) from error


_WARM_UP_IMAGE: Final = Image.new("RGB", (64, 64), "gray")
_ROUND, _SLOPE = Image.radial_gradient("L"), Image.linear_gradient("L")
#: Of these and the texts both formats' vectors are compared where ``auto`` may be bfloat16: areas, and fine lines.
_SAMPLES: Final = (
    Image.merge("RGB", (_ROUND, _SLOPE, _SLOPE.transpose(Image.Transpose.ROTATE_90))),
    Image.effect_mandelbrot((256, 192), (-2, -1.2, 1, 1.2), 60).convert("RGB"),
)
_SAMPLE_TEXTS: Final = ("a red fox under the bridge, 3 p.m.", "two")


def _config(files: model_files.ModelFiles) -> Any:
    config = read_config(files)
    known = MODEL_FOR_IMAGE_MAPPING, MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING
    if not any(type(config) in mapping for mapping in known):
        raise NeverLoadsError(
            f"{files.source} is a {config.model_type} model, which does not fit capability image-embedding; expected "
            "one such as clip, siglip, siglip2, vit or dinov2"
        )
    return config


def _check_pooler(skeleton: Any, files: model_files.ModelFiles) -> None:
    """A pooler that was not saved would be made of random numbers, and every vector with it."""
    wanted = [name for name, _ in skeleton.named_parameters() if name.startswith("pooler.")]
    if not all(any(held == name or held.endswith(f".{name}") for held in files.shapes) for name in wanted):
        raise NeverLoadsError(
            f"{files.source} was saved without its pooler, which makes the vector; expected an encoder such as dinov2"
        )
