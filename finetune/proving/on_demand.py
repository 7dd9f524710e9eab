"""PEFT's layers of an adapter without a base: on the meta device, with values for a matrix at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from finetune.lora import adapter_layers, check_saved
from finetune.model import load_skeleton
from finetune.new_rows import trained_rows
from finetune.peft_names import named_in_full
from finetune.proving.blocks import row_blocks
from finetune.proving.experts import experts_delta, rows_apart
from finetune.proving.regions import read_file
from finetune.proving.weights import linear_change, merged_linear
from lensmith.adapter_files import ADAPTER_WEIGHTS

_PREFIX = "base_model.model."
# Elements of a B of experts that is kept whole: 32 MiB in float32.
_KEPT = 8 << 20


class AdapterOnDemand:
    """The adapter in `run` on the model of the checkpoint `root`, as PEFT lays it out. Values are read from
    the adapter's file when a matrix is asked for, in float32.

    linears, experts, rows: the weights of the class that change, by the kind of their change. whole: those
    that a tensor of the file takes the place of, or is added to `scale` times (PEFT's `lora_bias`): (tensor,
    scale or None). facts: how many tensors the file has, and modules that carry them. Raises IntegrityError
    where these are not exactly those, by name and shape, that PEFT would load.
    """

    def __init__(self, root: Path, run: Path) -> None:
        skeleton = load_skeleton(root)
        config = LoraConfig.from_pretrained(str(run))
        if not isinstance(config, LoraConfig):
            raise TypeError(f"{type(config).__name__} is not LoRA's")
        # What it began with: the values are the file's.
        config.init_lora_weights = True
        with named_in_full(skeleton):
            wrapped = get_peft_model(skeleton, config, low_cpu_mem_usage=True)
        check_saved(run, wrapped)
        self._saved = read_file(run / ADAPTER_WEIGHTS)
        model = wrapped.get_base_model()
        self._saved_as: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}
        layers = adapter_layers(model)
        self.linears = {
            f"{name}.weight": each for name, each in layers.items() if isinstance(each, LoraLinear)
        }
        self.experts = {name: each for name, each in layers.items() if isinstance(each, ParamWrapper)}
        self.rows = {f"{name}.weight": numbers for name, (numbers, _) in trained_rows(model).items()}
        self.whole = self._whole(model, {f"{name}.bias": each for name, each in layers.items()})
        modules = len(self.linears) + len(self.experts) + len(self.rows) + len(self.whole)
        # Exactly those of the file have a place: `check_saved`.
        tensors = len(self._saved)
        self.facts = {"tensors": tensors, "modules": modules, "used_once": tensors}
        # Of the experts that a thread is at.
        self._last = threading.local()

    def linear(self, name: str, start: Tensor, first: int) -> Tensor:
        """float32: what rows of a linear's weight become, `start` [rows, in] being theirs in float32, from
        its row `first` on. By PEFT's own layer, with the same rows of B and of DoRA's magnitude."""
        layer = self.linears[name]
        rows = slice(first, first + len(start))
        with self._values(layer, rows):
            return merged_linear(layer, start)

    def change(self, name: str, start: Tensor, first: int) -> Tensor:
        """float32: by how much rows of a linear's weight change, as `linear`. Without DoRA only the shape of
        `start` counts: it may be on the meta device."""
        layer = self.linears[name]
        with self._values(layer, slice(first, first + len(start))):
            return linear_change(layer, start)

    def is_dora(self, name: str) -> bool:
        """Whether a linear's change depends on its base's rows."""
        return bool(self.linears[name].use_dora["default"])

    def expert(self, name: str, number: int) -> Tensor:
        """float32 [out, in]: what is added to one expert of a fused parameter."""
        layer = self.experts[name]
        saved = self._saved[f"{_PREFIX}{self._saved_as[layer]}.lora_B.weight"]
        rank = saved.shape[1] // layer.num_experts
        a = self._read(layer, "lora_A.weight", slice(number * rank, (number + 1) * rank))
        # In each of its rows all experts stand side by side: those of a large one are kept one at a time.
        first, end = (0, layer.num_experts) if math.prod(saved.shape) <= _KEPT else (number, number + 1)
        if getattr(self._last, "of", None) != (name, first):
            parts = [
                rows_apart(saved.read(*rows).float(), layer.num_experts)[..., first:end].clone()
                for rows in row_blocks(*saved.shape)
            ]
            self._last.of, self._last.b = (name, first), torch.cat(parts)
        b = self._last.b[..., number - first : number - first + 1]
        return experts_delta(a[None], b, layer.scaling["default"])[0]

    def held(self, name: str, start: Tensor, first: int) -> Tensor:
        """float32: what entries of a weight in `whole` become, `start` being the base's from `first` on."""
        tensor, scale = self.whole[name]
        values = self._saved[tensor].read(first, first + len(start)).float()
        return values if scale is None else start.float() + values * scale

    def _whole(self, model: nn.Module, biases: dict[str, LoraLayer]) -> dict[str, tuple[str, float | None]]:
        """What PEFT's wrappers of whole modules hold, the base's biases beside adapted weights, and those of
        B. biases: by the name of its bias, each layer."""
        found: dict[str, tuple[str, float | None]] = {}
        for name, module in model.named_modules():
            if isinstance(module, ModulesToSaveWrapper):
                for tensor in module.modules_to_save["default"].state_dict():
                    found[f"{name}.{tensor}"] = (f"{_PREFIX}{name}.{tensor}", None)
        for key in self._saved:
            weight = key.removeprefix(_PREFIX).replace(".base_layer", "")
            if not key.endswith(".bias") or weight in found:
                continue
            if (added := weight.replace(".lora_B.bias", ".bias")) != weight:
                found[added] = (key, biases[added].scaling["default"])
            else:
                found[weight] = (key, None)
        return found

    def new_rows(self, name: str) -> Tensor:
        """float32 [rows, width]: what the rows `rows[name]` of a weight become."""
        key = f"{_PREFIX}{name.removesuffix('.weight')}.token_adapter.trainable_tokens_delta"
        saved = self._saved[key]
        return saved.read(0, saved.shape[0]).float()

    def _read(self, layer: nn.Module, part: str, rows: slice = slice(None)) -> Tensor:
        saved = self._saved[f"{_PREFIX}{self._saved_as[layer]}.{part}"]
        first, end, _ = rows.indices(saved.shape[0])
        return saved.read(first, end).float()

    @contextmanager
    def _values(self, layer: LoraLinear, rows: slice) -> Iterator[None]:
        """While it is open, `layer` has its A, and these rows of what it has a row for each output of."""
        parts: list[tuple[nn.Module, str, slice]] = [
            (layer.lora_A["default"], "lora_A.weight", slice(None)),
            (layer.lora_B["default"], "lora_B.weight", rows),
        ]
        if layer.use_dora["default"]:
            parts.append((layer.lora_magnitude_vector["default"], "lora_magnitude_vector", rows))
        empty = [held.get_parameter("weight") for held, _, _ in parts]
        for held, part, chosen in parts:
            held.weight = nn.Parameter(self._read(layer, part, chosen), requires_grad=False)
        try:
            with torch.no_grad():
                yield
        finally:
            for (held, _, _), weight in zip(parts, empty, strict=True):
                held.weight = weight
