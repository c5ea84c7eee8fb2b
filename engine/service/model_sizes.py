"""What the models of a layout need, read from their own files once for a whole plan."""

from dataclasses import dataclass, field
from pathlib import Path

from engine.core.errors import ControlError
from engine.core.layout import Instance
from engine.core.model.fit import would_fit
from engine.core.model.shape import ModelShape, read_shape
from engine.core.model.tensors import StoredWeights
from engine.core.sizing import Asking, Needs, size
from engine.drivers.registry import driver_of
from engine.host.models import find_model

LONGEST = ("max-model-len", "ctx-size")
"""Flags that limit the context: vLLM's and our worker's, llama.cpp's."""
TOGETHER = ("max-num-seqs", "parallel")
"""Flags that limit how many sequences run at once, of the same engines."""


@dataclass
class ModelSizes:
    """Answers placement; a model that is not here has unknown sizes."""

    base: Path
    """Where relative model directories start."""
    bundled: Path
    card_bytes: int | None = None
    """The memory of one GPU of this machine, for the public rule beside the sum."""
    _known: dict[str, tuple[ModelShape, StoredWeights | None] | None] = field(default_factory=dict)
    _sized: dict[tuple[object, ...], Needs] = field(default_factory=dict)

    def needs(self, wish: Instance, tensor_parallel: int) -> Needs:
        """Of this instance split over so many devices."""
        model = self._model(wish.model)
        if model is None:
            return Needs()
        asking = self._asking(wish, tensor_parallel)
        # A thousand copies ask the same.
        key = (wish.model, *asking.values())
        if key not in self._sized:
            self._sized[key] = size(*model, **asking, card_bytes=self.card_bytes)
        return self._sized[key]

    def would_fit(
        self, wish: Instance, tensor_parallel: int, available_bytes: int, devices: int
    ) -> tuple[str, ...]:
        """What could be changed so that it fits, as the engine has it."""
        model = self._model(wish.model)
        if model is None:
            return ()
        driver = driver_of(wish.engine)
        return would_fit(
            *model,
            available_bytes=available_bytes,
            devices=devices,
            forms=driver.weight_only,
            dtypes=[dtype for dtype in driver.dtypes if dtype != "auto"],
            **self._asking(wish, tensor_parallel),
        )

    def _asking(self, wish: Instance, tensor_parallel: int) -> Asking:
        driver = driver_of(wish.engine)
        on_gpu = (
            driver.device == "gpu"
            or wish.gpus is not None
            or wish.slot.startswith(("gpu", "each gpu"))
        )
        cache = wish.args.get("kv-cache-dtype", "auto")
        return Asking(
            dtype=wish.dtype,
            weight_only=wish.weight_only,
            context=_number(wish, LONGEST),
            sequences=_number(wish, TOGETHER) or 1,
            tensor_parallel=tensor_parallel,
            device="gpu" if on_gpu else "cpu",
            kv_dtype=cache if isinstance(cache, str) else "auto",
            framework_bytes=None if on_gpu else driver.framework_bytes,
        )

    def _model(self, wished: str) -> tuple[ModelShape, StoredWeights | None] | None:
        if wished not in self._known:
            try:
                model = find_model(wished, base=self.base, bundled=self.bundled)
            except ControlError:
                self._known[wished] = None
            else:
                here = model.config is not None or model.stored is not None
                self._known[wished] = (read_shape(model.config), model.stored) if here else None
        return self._known[wished]


def _number(wish: Instance, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = wish.args.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None
