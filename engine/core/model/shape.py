"""What a model is made of, as far as its config.json tells: layers, caches, parameters, form."""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.core.model.config import Config
from engine.core.model.layers import Layer, LayerReader
from engine.core.model.mixture import Mixture, read_mixture
from engine.core.model.parameters import Parameters, count_parameters
from engine.core.model.quantization import StoredForm, read_stored_form
from engine.core.topology import Missing

MOST_RANKS = 1024
"""Splits beyond it are not looked for: a config may claim any number of heads."""
OTHER_MODALITIES = ("vision_config", "audio_config", "visual", "vision_tower", "speech_config")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Facts from one config.json; None is "not told", and `missing` says why."""

    model_type: str | None = None
    layers: tuple[Layer, ...] | None = None
    hidden: int | None = None
    width: int | None = None
    """Of the widest feed-forward part that one token passes, its chosen experts added up."""
    heads: int | None = None
    vocabulary: int | None = None
    max_length: int | None = None
    tied: bool = False
    """Whether the output head is the embedding."""
    dtype: str | None = None
    """In which the weights are stored, as the config says it."""
    mixture: Mixture | None = None
    """The experts of a mixture; None when the model has none."""
    parameters: Parameters | None = None
    """Counted from the config alone."""
    stored_form: StoredForm | None = None
    """How the weights are packed already; None when they are not."""
    split_by: tuple[int, ...] = ()
    """Widths that a tensor-parallel size must divide, beside the heads."""
    missing: tuple[Missing, ...] = ()

    @property
    def splits(self) -> tuple[int, ...] | None:
        """Lawful tensor-parallel sizes, None when the heads are not known.

        As vLLM and the AutoTP engines want it: a size divides the attention heads; it divides the
        key heads or is a multiple of them (then each is kept more than once); it divides the
        feed-forward widths.
        """
        if self.heads is None or self.layers is None:
            return None
        key_heads = {layer.kv_heads for layer in self.layers if layer.kv_heads}
        return tuple(
            size
            for size in range(1, min(self.heads, MOST_RANKS) + 1)
            if self.heads % size == 0
            and all(heads % size == 0 or size % heads == 0 for heads in key_heads)
            and all(width % size == 0 for width in self.split_by)
        )


def read_shape(config: Mapping[str, object] | None) -> ModelShape:
    """Never raises: what is odd is unknown, with its reason in `missing`."""
    if config is None:
        return ModelShape(missing=(Missing("the model's shape", "there is no config.json here"),))
    whole = Config(config)
    text = whole.text_part()
    missing: list[Missing] = []
    layers, hidden, heads = _layers(text, missing)
    mixture, odd = read_mixture(text, len(layers) if layers else None)
    if odd:
        missing.append(Missing("the mixture of experts", odd))
    tied = text.flag("tie_word_embeddings", "tie_embedding", otherwise=_tied_when_silent(text))
    parameters = None
    if odd is None and layers is not None:
        counted = count_parameters(text, layers=layers, mixture=mixture, tied=tied)
        if isinstance(counted, Missing):
            missing.append(counted)
        else:
            parameters = counted
            if whole.part(*OTHER_MODALITIES) is not None:
                missing.append(
                    Missing("the parts that see or hear", "only the language part is counted")
                )
    width = text.number("intermediate_size", "ffn_hidden_size", "n_inner")
    return ModelShape(
        model_type=whole.text("model_type"),
        layers=layers,
        hidden=hidden,
        width=_widest(width, mixture),
        heads=heads,
        vocabulary=_told(text, missing, "the vocabulary", "vocab_size", "padded_vocab_size"),
        max_length=_told(
            text,
            missing,
            "the longest context",
            *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
            *("model_max_length", "max_sequence_length", "n_ctx"),
        ),
        tied=tied,
        dtype=text.text("dtype", "torch_dtype"),
        mixture=mixture,
        parameters=parameters,
        stored_form=read_stored_form(text),
        split_by=_split_by(text, width, mixture),
        missing=tuple(missing),
    )


def _layers(
    config: Config, missing: list[Missing]
) -> tuple[tuple[Layer, ...] | None, int | None, int | None]:
    reader = LayerReader.of(config)
    layers = reader.layers()
    if isinstance(layers, Missing):
        missing.append(layers)
        return None, reader.hidden, reader.heads
    # Thirty layers of one kind have one reason.
    missing.extend(
        Missing("the cache", why) for why in dict.fromkeys(layer.why for layer in layers) if why
    )
    return layers, reader.hidden, reader.heads


def _told(config: Config, missing: list[Missing], what: str, *names: str) -> int | None:
    number = config.number(*names)
    if number is None:
        why = "is not a number above zero" if config.has(*names) else "is not in config.json"
        missing.append(Missing(what, f"{names[0]} {why}"))
    return number


def _tied_when_silent(config: Config) -> bool:
    """The default of these families' own classes; files leave out what is the default."""
    kind = config.text("model_type") or ""
    return kind.startswith(("gemma", "cohere", "lfm2", "minicpm3", "smollm3"))


def _widest(width: int | None, mixture: Mixture | None) -> int | None:
    if mixture is None:
        return width
    active = mixture.width * mixture.per_token + mixture.shared_width
    dense = mixture.dense_width if len(mixture.layers) < mixture.of_layers else 0
    return max(active, dense or 0)


def _split_by(config: Config, width: int | None, mixture: Mixture | None) -> tuple[int, ...]:
    widths = {config.number("linear_num_key_heads"), config.number("mamba_n_heads")}
    if mixture is None:
        widths.add(width)
    else:
        widths |= {mixture.width, mixture.shared_width or None}
        if len(mixture.layers) < mixture.of_layers:
            widths.add(mixture.dense_width)
    return tuple(sorted(one for one in widths if one))
