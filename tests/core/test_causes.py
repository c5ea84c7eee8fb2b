"""Real last words of engines, and what a reader is told instead."""

import pytest

from engine.core.causes import Cause, Ended, cause_of

# Copied from vLLM 0.32, torch 2.13, transformers 5.23, uvicorn and public bug reports.
UVICORN = """\
INFO:     Application startup complete.
ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 18999): address \
already in use
INFO:     Waiting for application shutdown.
INFO:     Application shutdown complete.
"""
TORCHRUN = """\
[W socket.cpp:464] The server socket has failed to bind to [::]:29500 (errno: 98 - Address \
already in use).
RuntimeError: The server socket has failed to listen on any local network address.
"""
KV_0_32 = """\
(EngineCore pid=9112) ERROR 11-21 10:02:43 [core.py:1136] ValueError: To serve at least one \
request with the model's max seq len (131072), (14.0 GiB KV cache is needed, which is larger than \
the available KV cache memory (3.31 GiB). Based on the available memory, the estimated maximum \
model length is 30960. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when \
initializing the engine.
(APIServer pid=9001) RuntimeError: Engine core initialization failed. See root cause above. \
Failed core proc(s): {'EngineCore': 1}
"""
KV_0_5 = """\
ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can \
be stored in KV cache (7344). Try increasing `gpu_memory_utilization` or decreasing \
`max_model_len` when initializing the engine.
"""
KV_0_8 = """\
ERROR 04-05 01:12:55 [core.py:390] ValueError: To serve at least one request with the models's \
max seq len (1048576), (24.00 GiB KV cache is needed, which is larger than the available KV cache \
memory (9.97 GiB). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when \
initializing the engine.
"""
NO_BLOCKS = """\
(EngineCore_DP0 pid=223840) ERROR 10-25 13:08:43 [core.py:708]     raise ValueError("No available \
memory for the cache blocks. "
(EngineCore_DP0 pid=223840) ERROR 10-25 13:08:43 [core.py:708]                      "Try \
increasing `gpu_memory_utilization` when "
(EngineCore_DP0 pid=223840) ERROR 10-25 13:08:43 [core.py:708] ValueError: No available memory \
for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.
"""
CPU_STARTUP = """\
ValueError: Available memory on node 0 (5.91/15.63 GiB) on startup is less than desired CPU \
memory utilization (0.92, 14.38 GiB). On the CPU backend, the `--gpu-memory-utilization` flag \
controls the fraction of CPU memory reserved (despite its name).
"""
CPU_KV = """\
ValueError: Available memory on node 1 (3.2/15.63 GiB) on kv cache allocation is less than \
requested memory for kv (8.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or \
reduce CPU memory used by other processes.
"""
XPU = """\
torch.OutOfMemoryError: XPU out of memory. Tried to allocate 4.66 GiB. GPU 0 has a total capacity \
of 5.65 GiB of which 5.65 GiB is free. Of the allocated memory 195.50 KiB is allocated by PyTorch.
"""
LEVEL_ZERO = """\
terminate called after throwing an instance of 'sycl::_V1::exception'
  what():  Enqueue process failed.
level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)
Fatal Python error: Aborted
"""
LOST = "RuntimeError: level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)\n"
CPU_ALLOCATOR = """\
RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate \
memory: you tried to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)
"""
# ipex-llm 2.2.0 with vLLM 0.6.6: health answered, and the first request asked too much.
ENGINE_DIED = """\
ERROR 11-22 17:29:57 engine.py:135] RuntimeError('NF3, NF4, FP4 and FP8 quantization are \
currently not supported on CPU')
CRITICAL 11-22 17:29:57 launcher.py:99] MQLLMEngine is already dead, terminating server process
ERROR 11-22 17:29:57 engine.py:135]     raise RuntimeError(errMsg)
ERROR 11-22 17:29:57 engine.py:135] RuntimeError: NF3, NF4, FP4 and FP8 quantization are \
currently not supported on CPU
INFO:     Shutting down
INFO:     Finished server process [28825]
"""
NUMA = """\
AssertionError: Not enough allowed NUMA nodes to bind threads of 2 local CPUWorkers. Allowed NUMA \
nodes are [0]. Please try to bind threads manually or decrease DP/TP/PP.
"""
NO_DEVICE = """\
RuntimeError: Failed to infer device type, please set the environment variable \
`VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging to help debug the issue.
"""
CUDA_WHEEL = """\
ImportError: libcudart.so.12: cannot open shared object file: No such file or directory
"""
MODULE = """\
Traceback (most recent call last):
  File "<frozen runpy>", line 189, in _run_module_as_main
ModuleNotFoundError: No module named 'intel_extension_for_pytorch'
"""
ONLY_A_WARNING = """\
WARNING 11-18 18:07:28 [interface.py:9] Failed to import from vllm._C: ModuleNotFoundError("No \
module named 'vllm._C'")
Segmentation fault
"""
LIBRARY = "OSError: libze_loader.so.1: cannot open shared object file: No such file or directory\n"
DRI = "PermissionError: [Errno 13] Permission denied: '/dev/dri/renderD128'\n"
DRI_TOO = "\x1b[31mMESA: error: Failed to open /dev/dri/renderD129: Permission denied\x1b[0m\n"
TOKENIZER = """\
OSError: Can't load tokenizer for 'meta-llama/Llama-2-7b-hf'. If you were trying to load it from \
'https://huggingface.co/models', make sure you don't have a local directory with the same name.
"""
NO_HUB_ID = """\
OSError: vicuna-13b-v1.3 is not a local folder and is not a valid model identifier listed on \
'https://huggingface.co/models'
If this is a private repository, make sure to pass a token having permission to this repo.
"""
NO_DIRECTORY = """\
huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or \
'namespace/repo_name': '/mnt/models/DeepSeek-R1'. Use `repo_type` argument if needed.
"""
NO_CONFIG = """\
OSError: /models/qwen does not appear to have a file named config.json. Checkout \
'https://huggingface.co//models/qwen/tree/main' for available files.
"""
OFFLINE = """\
OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find \
them in the cached files.
"""
FLAG = "api_server.py: error: unrecognized arguments: --max-model-length 2048\n"
SHM = """\
RuntimeError: unable to write to file </torch_812_1>: No space left on device (28), in /dev/shm
"""


@pytest.mark.parametrize(
    ("text", "why", "do"),
    [
        (UVICORN, "port 18999 is in use by another program", "another port"),
        (TORCHRUN, "port 29500 is in use by another program", "not the instance's own port"),
        (
            KV_0_32,
            "its memory holds no request of 131072 tokens, but one of 30960",
            "max-model-len = 30960 }",
        ),
        (KV_0_5, "no request of 32768 tokens, but one of 7344", "max-model-len = 7344 }"),
        (KV_0_8, "its memory holds no request of 1048576 tokens", "max-model-len = … }"),
        (NO_BLOCKS, "no memory for the KV cache", "gpu-memory-utilization = … }"),
        (CPU_STARTUP, "node 0 has 5.91 of 15.63 GiB free", "Lower args = { gpu-memory-"),
        (CPU_KV, "node 1 has 3.2 of 15.63 GiB left", "VLLM_CPU_KVCACHE_SPACE"),
        (XPU, "the GPU's memory ran out when it wanted 4.66 GiB more", "more GPUs"),
        (LEVEL_ZERO, "the GPU's memory ran out", "more GPUs"),
        (LOST, "the driver lost the GPU", "dmesg"),
        (CPU_ALLOCATOR, "memory ran out when it wanted 68719476736 bytes more", "smaller model"),
        (NUMA, "a NUMA node for each of its 2 ranks", "tensor-parallel-size"),
        (NO_DEVICE, "a build for other hardware", "slotdeck engines install"),
        (CUDA_WHEEL, "a build for other hardware", "slotdeck engines install"),
        (MODULE, "lacks the module intel_extension_for_pytorch", "slotdeck engines check"),
        (LIBRARY, "the library libze_loader.so.1 is missing", "Install it"),
        (DRI, "it may not open /dev/dri/renderD128", "render or video"),
        (DRI_TOO, "it may not open /dev/dri/renderD129", "render or video"),
        (TOKENIZER, "meta-llama/Llama-2-7b-hf has no tokenizer", "tokenizer = … }"),
        (NO_HUB_ID, "there is no model vicuna-13b-v1.3", "Correct model"),
        (NO_DIRECTORY, "there is no directory /mnt/models/DeepSeek-R1", "Correct model"),
        (NO_CONFIG, "the model in /models/qwen has no config.json", "Name the directory"),
        (OFFLINE, "the hub cannot be reached", "name its directory"),
        (FLAG, "it does not know the flag --max-model-length 2048", "Correct args"),
        (SHM, "/dev/shm is full", "--shm-size"),
    ],
)
def test_last_words_become_a_cause(text: str, why: str, do: str) -> None:
    cause = cause_of(Ended(1, text, port=18999))
    assert cause is not None
    assert why in cause.why
    assert do in cause.do
    assert "\x1b" not in cause.why


@pytest.mark.parametrize(
    "ended",
    [
        Ended(0, UVICORN),
        Ended(1, "fake engine: out of luck\n"),
        Ended(-11, ONLY_A_WARNING),
        Ended(None, ""),
        # Somebody else's memory ran out, and this one ended by itself.
        Ended(3, "bye\n", out_of_memory="the kernel ended 1 process"),
    ],
)
def test_where_nothing_is_known_nothing_is_claimed(ended: Ended) -> None:
    assert cause_of(ended) is None


def test_a_killed_engine_behind_a_server_that_ends_in_order() -> None:
    died = (
        "ERROR 11-22 17:39:54 client.py:282] RuntimeError('Engine process (pid 3997) died.')\n"
        "CRITICAL 11-22 17:40:04 launcher.py:99] MQLLMEngine is already dead, terminating server "
        "process\n"
    )
    cause = cause_of(Ended(0, died))
    assert cause is not None
    assert "RuntimeError('Engine process (pid 3997) died.')" in cause.why
    cause = cause_of(Ended(0, "GGML_ASSERT: /home/runner/src/ggml.c:12469: false\n" + died))
    assert cause is not None
    assert cause.why == "its low-bit kernels gave up (GGML_ASSERT in ggml.c:12469)"


@pytest.mark.parametrize("code", [0, 1])
def test_a_server_that_ends_in_order_after_its_engine_died_has_a_cause(code: int) -> None:
    known = cause_of(Ended(code, ENGINE_DIED))
    assert known is not None
    assert known.why == "on CPUs it cannot compute with FP8, FP4, NF4 or NF3 weights"
    assert "sym_int4" in known.do
    unknown = cause_of(Ended(code, ENGINE_DIED.replace("NF3, NF4, FP4 and FP8", "Such")))
    assert unknown is not None
    assert unknown.why == (
        "the engine behind its server died: RuntimeError: Such quantization are currently not "
        "supported on CPU"
    )


def test_the_port_is_the_instances_own_where_the_log_names_none() -> None:
    cause = cause_of(Ended(1, "OSError: [Errno 98] Address already in use\n", port=8001))
    assert cause == Cause(
        "port 8001 is in use by another program",
        "Stop that one, or give the instance another port",
    )


def test_what_it_survived_stands_further_up_and_is_not_the_cause() -> None:
    cause = cause_of(Ended(1, XPU + "recovered, serving\n" + DRI))
    assert cause is not None
    assert "may not open" in cause.why


@pytest.mark.parametrize(
    ("code", "text"), [(-9, "loading weights\n"), (1, KV_0_32.splitlines()[-1] + "\n")]
)
def test_the_kernels_word_is_needed_to_say_that_memory_ran_out(code: int, text: str) -> None:
    assert cause_of(Ended(code, text)) is None
    cause = cause_of(Ended(code, text, out_of_memory="the kernel ended python (pid 7)"))
    assert cause is not None
    assert cause.why == "memory ran out: the kernel ended python (pid 7)"


def test_a_signal_tells_of_a_missing_instruction_without_any_words() -> None:
    cause = cause_of(Ended(-4, ""))
    assert cause is not None
    assert cause.why == "it has an instruction that this processor lacks"


def test_a_name_out_of_a_log_is_short_and_printable() -> None:
    cause = cause_of(Ended(1, f"x.py: error: unrecognized arguments: --a\x07{'b' * 500}\n"))
    assert cause is not None
    assert len(cause.why) < 160
    assert "--a?bbb" in cause.why
