"""A simulated CUDA device: tensors say that they are on `cuda:0`, and their operators run on the CPU.

It shows what a run would do on a GPU, where there is none: which operators would mix tensors of both devices (CUDA
refuses them), where the host would wait for the device, which copies would block, and how many kernels would start.
Values are real, so that whole trainings run. It changes PyTorch for the whole process: use a process of its own.

    import device  # before torch

    with device.Watch() as watch:
        trainer.train()
    watch.waits, watch.mixes, watch.copies, watch.launches
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Unavailable(RuntimeError):
    """There is no compiler for the guard."""


def build_guard() -> tuple[Path, Path]:
    """Folder of PyTorch's libraries, and the guard: built once for this release of PyTorch and this source.

    Raises:
        Unavailable: If there is no C++ compiler, or it fails.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise Unavailable("there is no PyTorch")
    root, source = Path(spec.origin).parent, Path(__file__).with_name("guard.cpp")
    key = hashlib.sha256(source.read_bytes() + importlib.metadata.version("torch").encode()).hexdigest()[:16]
    built = Path(tempfile.gettempdir()) / f"simulated_cuda_guard_{key}.so"
    if built.exists():
        return root / "lib", built
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise Unavailable("there is no C++ compiler (g++ or clang++)")
    part = built.with_suffix(f".{os.getpid()}")
    folders = (root / "include", root / "include" / "torch" / "csrc" / "api" / "include")
    options = ["-shared", "-fPIC", "-std=c++20", "-O0", "-w", *(f"-I{folder}" for folder in folders)]
    command = [compiler, *options, str(source), "-o", str(part)]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise Unavailable(f"{compiler} does not compile the guard: {found.stderr[-500:]}")
    part.replace(built)
    return root / "lib", built


def _load_guard() -> None:
    """Register the device: PyTorch asks once, while it is imported, which devices there are."""
    if "torch" in sys.modules:
        raise RuntimeError("Import the simulated device before PyTorch, in a process of its own.")
    folder, guard = build_guard()
    for library in (folder / "libc10.so", folder / "libtorch_cpu.so", guard):
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


_load_guard()

import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from torch._library.custom_ops import OPDEFS  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_flatten, tree_map  # noqa: E402

CUDA = torch.device("cuda:0")
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
# These take no CPU tensor beside those of the device, not even one of a single number.
STACKING = {aten.cat.default, aten.stack.default}
# The host must know what the device has computed: a number, or the size of a result.
WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.unique_consecutive.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
}
# A place in the code is named by the last frame in one of these.
NAMED = ("hf_distill/", "transformers/", "accelerate/", "torch/optim", "torch/amp", "clip_grad")


def _install() -> None:
    """Make this process believe that there is one CUDA device."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)
    # Backward passes would run in a thread of the device, which nobody has started.
    torch.autograd.set_multithreading_enabled(False)
    answers: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "is_bf16_supported": True,
        "get_device_name": "a simulated device",
        "get_device_capability": (9, 0),
        "is_initialized": True,
        "mem_get_info": (2**36, 2**36),
        **dict.fromkeys(("_lazy_init", "set_device", "synchronize", "empty_cache", "ipc_collect")),
        **dict.fromkeys(("manual_seed", "manual_seed_all", "set_rng_state", "set_rng_state_all")),
    }
    for place in (torch.cuda, torch.cuda.random):
        for name, answer in answers.items():
            setattr(place, name, lambda *args, _answer=answer, **kwargs: _answer)
        place.get_rng_state = lambda *args, **kwargs: torch.get_rng_state()
        place.get_rng_state_all = lambda: [torch.get_rng_state()]
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.Tensor.pin_memory = lambda self, *args: self  # type: ignore[method-assign,assignment]
    # Nobody could run what Triton compiles: it is not there, for whoever asks.
    sys.modules["triton"] = None  # type: ignore[assignment]
    safetensors.torch.save_file = functools.partial(_save_file, safetensors.torch.save_file)


def _save_file(save: Any, tensors: Any, *args: Any, **kwargs: Any) -> Any:
    """Write a file as `safetensors` does, which reads the memory of tensors."""
    plain = {name: one.elem if isinstance(one, DeviceTensor) else one for name, one in tensors.items()}
    return save(plain, *args, **kwargs)


class DeviceTensor(torch.Tensor):
    """A tensor on the simulated device; `elem` holds its numbers."""

    elem: torch.Tensor

    @staticmethod
    def __new__(cls, elem: torch.Tensor) -> DeviceTensor:
        """Wrap a CPU tensor."""
        wrapped = torch.Tensor._make_wrapper_subclass(
            cls,
            elem.shape,
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            device=CUDA,
            requires_grad=False,
        )
        wrapped.elem = elem
        return wrapped

    def storage(self) -> Any:
        """The memory of the numbers, by which tensors that share it are told."""
        return self.elem.storage()

    def untyped_storage(self) -> Any:
        """See `storage`."""
        return self.elem.untyped_storage()

    def data_ptr(self) -> int:
        """See `storage`."""
        return self.elem.data_ptr()

    def __repr__(self, **kwargs: Any) -> str:
        """The numbers."""
        return f"DeviceTensor({self.elem})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A file holds a plain tensor."""
        return self.elem.detach().clone().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy on the device; a parameter stays one."""
        if id(self) not in memo:
            new = DeviceTensor(self.elem.detach().clone())
            new.requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                new._is_param = True
            memo[id(self)] = new
        return memo[id(self)]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Indexing goes by operators: PyTorch's own way in C++ would touch the device."""
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.Tensor.__getitem__:
                return _get_item(args[0], args[1])
            if func is torch.Tensor.__setitem__:
                return _set_item(*args)
            if func is torch.Tensor.tolist:
                return aten._to_copy.default(args[0], device=torch.device("cpu")).tolist()
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator on the CPU and watch it."""
        return _run(func, args, kwargs or {}, _WATCHING[-1] if _WATCHING else None)


_WATCHING: list[Watch] = []


class Watch(TorchDispatchMode):
    """Counts what operators would do on a CUDA device, and where in the code.

    Attributes:
        waits: Places where the host waits for the device.
        mixes: Operators over tensors of both devices.
        copies: Copies to the device; those that block begin with `blocking`.
        launches: Kernels that are started.
        bytes_by_part: Bytes that kernels read and write, those of named parts (see `part`) and of the rest (`""`).
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.waits: collections.Counter[str] = collections.Counter()
        self.mixes: collections.Counter[str] = collections.Counter()
        self.copies: collections.Counter[str] = collections.Counter()
        self.launches = 0
        self.bytes_by_part: collections.Counter[str] = collections.Counter()
        self._part = ""
        self._parts_of_nodes: list[tuple[int, int, str]] = []

    def __enter__(self) -> Watch:
        """Begin to watch."""
        _WATCHING.append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """Watch no longer."""
        _WATCHING.pop()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `DeviceTensor`; what makes a tensor on the device has none among its arguments."""
        return _run(func, args, kwargs or {}, self)

    def counts(self) -> dict[str, Any]:
        """What was counted so far."""
        return {
            "waits": collections.Counter(self.waits),
            "mixes": collections.Counter(self.mixes),
            "copies": collections.Counter(self.copies),
            "launches": self.launches,
            "bytes": collections.Counter(self.bytes_by_part),
        }

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the bytes of what is computed here, and of its backward pass, as those of a part."""
        before, self._part = self._part, name
        first = torch._C._autograd._get_sequence_nr()
        try:
            yield
        finally:
            self._part = before
            self._parts_of_nodes.append((first, torch._C._autograd._get_sequence_nr(), name))
            del self._parts_of_nodes[:-64]

    def note(self, func: Any, args: Any, kwargs: Any, on_device: list[DeviceTensor], on_cpu: list[Any]) -> None:
        """Look at an operator before it runs."""
        if on_device and not func.is_view and func is not aten.detach.default:
            self.launches += 1
        if func in COPIES:
            self._note_copy(func, args, kwargs)
        elif on_device and func in WAITING:
            self.waits[f"{func.name()} @ {_place()}"] += 1
        elif on_device and func in INDEXING:
            self._note_indices(func, args[1])
        elif on_device and any(one.dim() > 0 or func in STACKING for one in on_cpu):
            self.mixes[f"{func.name()} @ {_place()}"] += 1

    def count_bytes(self, func: Any, inputs: list[Any], output: Any) -> None:
        """Count what a kernel reads and writes."""
        if func.is_view or not any(isinstance(one, DeviceTensor) for one in inputs):
            return
        written = [one for one in tree_flatten(output)[0] if isinstance(one, torch.Tensor)]
        self.bytes_by_part[self._current_part()] += sum(one.numel() * one.element_size() for one in inputs + written)

    def _current_part(self) -> str:
        node = None if self._part else torch._C._current_autograd_node()
        if node is None:
            return self._part
        number = node._sequence_nr()
        return next((name for first, last, name in self._parts_of_nodes if first <= number < last), "")

    def _note_copy(self, func: Any, args: Any, kwargs: Any) -> None:
        if func is aten._to_copy.default:
            source, device = args[0], kwargs.get("device")
            to_device = isinstance(source, DeviceTensor) if device is None else _is_cuda(device)
            blocks = not kwargs.get("non_blocking", False)
        else:
            source, to_device = args[1], isinstance(args[0], DeviceTensor)
            blocks = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if isinstance(source, DeviceTensor) and not to_device:
            self.waits[f"copy to the host @ {_place()}"] += 1
        elif to_device and not isinstance(source, DeviceTensor):
            self.copies[f"{'blocking' if blocks else 'queued'} @ {_place()}"] += 1

    def _note_indices(self, func: Any, indices: Any) -> None:
        for index in indices:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self.waits[f"{func.name()} with a mask @ {_place()}"] += 1
            elif index is not None and not isinstance(index, DeviceTensor):
                self.copies[f"blocking, index of {func.name()} @ {_place()}"] += 1


def _run(func: Any, args: Any, kwargs: dict[str, Any], watch: Watch | None) -> Any:
    """Run an operator on the numbers, and put its results where CUDA would have them."""
    if func.namespace == "hf_distill":
        # Our own operators are made of others, which are watched one by one.
        return OPDEFS[func.name()]._init_fn(*args, **kwargs)
    flat = tree_flatten((args, kwargs))[0]
    tensors = [one for one in flat if isinstance(one, torch.Tensor)]
    on_device = [one for one in tensors if isinstance(one, DeviceTensor)]
    device = kwargs.get("device")
    to_device = bool(on_device) if device is None else _is_cuda(device)
    if watch is not None:
        watch.note(func, args, kwargs, on_device, [one for one in tensors if not isinstance(one, DeviceTensor)])
    if func is aten._fused_sdp_choice.default:
        return 0
    output = _computed(func, args, kwargs)
    if watch is not None:
        watch.count_bytes(func, tensors, output)
    written = _written(func, args, kwargs)
    if written is not None:
        return written[0] if len(func._schema.returns) == 1 else tuple(written)
    if not to_device or func is aten._local_scalar_dense.default:
        return output
    return tree_map(_wrapped, output)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operator gives on the CPU; a copy is always a new tensor."""
    plain_args, plain_kwargs = tree_map(_unwrapped, (args, kwargs))
    output = func(
        *plain_args, **{n: False if n in ("pin_memory", "non_blocking") else v for n, v in plain_kwargs.items()}
    )
    return output.clone() if func is aten._to_copy.default and output is plain_args[0] else output


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Any] | None:
    """The arguments that an operator in place returns; `None` for any other."""
    schema = func._schema
    if not schema.returns or not all(one.alias_info is not None and one.alias_info.is_write for one in schema.returns):
        return None
    found = []
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            by_name = argument.kwarg_only or place >= len(args)
            found.append(kwargs.get(argument.name) if by_name else args[place])
    return found


def _unwrapped(value: Any) -> Any:
    if isinstance(value, DeviceTensor):
        return value.elem
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "cuda" else value


def _wrapped(value: Any) -> Any:
    return DeviceTensor(value) if isinstance(value, torch.Tensor) and not isinstance(value, DeviceTensor) else value


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _get_item(x: torch.Tensor, index: Any) -> torch.Tensor:
    if not isinstance(x, DeviceTensor):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    dim, out, tensors = 0, x, []
    for one in _spelt_out(index if isinstance(index, tuple) else (index,), x.dim()):
        if one is None:
            out, dim = torch.unsqueeze(out, dim), dim + 1
        elif isinstance(one, int) and not isinstance(one, bool):
            out = torch.select(out, dim, one)
        elif isinstance(one, slice):
            if one != slice(None):
                out = aten.slice.Tensor(out, dim, *one.indices(out.shape[dim]))
            dim += 1
        else:
            one = one if isinstance(one, torch.Tensor) else torch.tensor(one)
            tensors += [None] * (dim - len(tensors)) + [one]
            dim += _axes(one)
    if tensors:
        return aten.index.Tensor(out, tensors)
    return aten.alias.default(x) if out is x else out


def _spelt_out(index: tuple[Any, ...], dims: int) -> list[Any]:
    """An index without `...`."""
    used = sum(_axes(one) for one in index if one is not None and one is not Ellipsis)
    return [part for one in index for part in ([slice(None)] * (dims - used) if one is Ellipsis else [one])]


def _axes(one: Any) -> int:
    """How many axes a part of an index stands for."""
    return one.dim() if isinstance(one, torch.Tensor) and one.dtype in (torch.bool, torch.uint8) else 1


def _set_item(x: torch.Tensor, index: Any, value: Any) -> None:
    if not isinstance(value, torch.Tensor):
        value = torch.full((), value, dtype=x.dtype, device=x.device)
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(one, torch.Tensor) for one in parts):
        aten.index_put_.default(x, [one if isinstance(one, torch.Tensor) else None for one in parts], value)
    else:
        _get_item(x, index).copy_(value)


def _place() -> str:
    """Where in the code an operator was called: the innermost place that has a name, and the innermost of ours."""
    frame: Any = sys._getframe(1)
    found: list[str] = []
    while frame is not None and len(found) < 2:
        name = frame.f_code.co_filename
        is_ours = "/hf_distill/" in name and "site-packages" not in name
        if is_ours or (not found and "_dynamo" not in name and any(part in name for part in NAMED)):
            found.append(f"{name.split('site-packages/')[-1].split('/hf_distill/')[-1]}:{frame.f_lineno}")
        if is_ours:
            break
        frame = frame.f_back
    return " from ".join(found) or "?"


_install()
