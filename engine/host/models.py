"""Models by name: bundled ones in the cache, directories and hub ids, with their config.json."""

import json
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import ControlError
from engine.core.model.tensors import StoredWeights
from engine.host.safetensors_files import read_weights

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
"""Files of which a model's tokenizer has one."""
BUNDLED = {"smollm2-135m": "SmolLM2-135M-Instruct"}


@dataclass(frozen=True, slots=True)
class Model:
    """A model as an instance will load it."""

    wished: str
    """As the layout says it."""
    path: Path | None
    """The local directory; None for a hub id, which the engine loads itself."""
    config: dict[str, object] | None
    """Its config.json, None when it has none that can be read."""
    weights_bytes: int | None
    """Size of its weights, as their index or the files say."""
    stored: StoredWeights | None = None
    """What is known of its weights; None when there are none here."""
    has_tokenizer: bool = True
    """False where its directory holds none."""

    @property
    def argument(self) -> str:
        """What stands on the engine's command line."""
        return str(self.path) if self.path else self.wished


def find_model(wished: str, *, base: Path, bundled: Path) -> Model:
    """Find a model; `base` is where relative directories start, `bundled` the models' cache.

    Raises ControlError when it is not there.
    """
    if not wished:
        raise ControlError(
            what="No model is named",
            why="the instance has no model key",
            do='Add model = "bundled:smollm2-135m", a directory, or a hub id',
        )
    kind, colon, name = wished.partition(":")
    if colon and kind == "bundled":
        if name not in BUNDLED:
            raise ControlError(
                what=f"There is no bundled model {name!r}",
                why=f"this version has: {', '.join(BUNDLED)}",
                do=f'Write model = "bundled:{next(iter(BUNDLED))}"',
            )
        path = bundled / name
        if not (path / "config.json").is_file():
            raise ControlError(
                what=f"The bundled model {name} is not prepared",
                why=f"{path} does not hold it yet",
                do=f"Run `slotdeck models prepare {name}` once",
            )
        return _described(wished, path)
    try:
        # A relative directory is relative to the layout, wherever the reader of it runs.
        path = base / Path(wished).expanduser()
        if path.is_dir():
            return _described(wished, path.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        # Not allowed, too long, or the home of a user that there is not.
        reason = error.strerror if isinstance(error, OSError) else None
        raise ControlError(
            what=f"Model {wished!r} cannot be used",
            why=reason or str(error),
            do="Correct the path, or name a hub id like owner/name",
        ) from None
    if wished.startswith((".", "/", "~")) or wished.count("/") != 1:
        raise ControlError(
            what=f"Model {wished!r} was not found",
            why=f"there is no directory {path}",
            do="Correct the path, or name a hub id like owner/name",
        )
    return Model(wished, None, None, None)


def _described(wished: str, path: Path) -> Model:
    if not (path / "config.json").is_file():
        raise ControlError(
            what=f"Model {wished!r} cannot be used",
            why=f"{path} has no config.json",
            do="Name the directory that holds config.json and the weights",
        )
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        config = None
    stored = read_weights(path)
    return Model(
        wished=wished,
        path=path,
        config=config if isinstance(config, dict) else None,
        weights_bytes=stored.size_bytes if stored else None,
        stored=stored,
        has_tokenizer=any((path / name).is_file() for name in TOKENIZERS),
    )
