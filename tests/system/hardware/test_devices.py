import pytest
import torch

from dvlae.system.errors import UserError
from dvlae.system.hardware import devices
from dvlae.system.hardware.devices import (
    choose_device,
    device_name,
    has_fast_bfloat16,
    tune_malloc,
    use_fast_arithmetic,
)


@pytest.fixture
def sees(monkeypatch):
    """Return a function that sets which kinds of GPU PyTorch sees."""

    def sees(*kinds: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return sees


@pytest.fixture
def arithmetic():
    """Restore the arithmetic of this process afterwards."""
    precision, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    yield
    torch.set_flush_denormal(False)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.parametrize(("kinds", "chosen"), [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda")])
def test_auto_is_a_gpu_if_there_is_one(sees, kinds, chosen):
    sees(*kinds)
    assert choose_device("auto") == torch.device(chosen)


def test_a_device_that_is_named_is_chosen_although_there_is_a_faster_one(sees):
    sees("cuda", "mps")
    assert [choose_device(name).type for name in ("cpu", "mps", "cuda")] == ["cpu", "mps", "cuda"]


@pytest.mark.parametrize(
    ("name", "kinds", "found"), [("cuda", (), "cpu"), ("mps", (), "cpu"), ("mps", ("cuda",), "cuda, cpu")]
)
def test_a_device_that_is_missing_is_refused_with_those_that_are_there(sees, name, kinds, found):
    sees(*kinds)
    with pytest.raises(UserError) as error:
        choose_device(name)
    assert str(error.value) == (
        f"device: found '{name}', but PyTorch sees no such device here (it sees: {found}); use 'auto'"
    )


def test_a_gpu_has_the_name_of_its_model_and_another_device_that_of_its_kind(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU with index {device.index}")
    assert device_name(torch.device("cuda", 1)) == "a GPU with index 1"
    assert device_name(torch.device("mps")) == "mps"


@pytest.mark.parametrize(
    ("described", "name"),
    [
        ("processor\t: 0\nmodel name\t: Intel(R) Core(TM) i7\nflags : a\n\nmodel name\t: another\n", "Intel Core i7"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", "arm"),
        (None, "arm"),
    ],
)
def test_a_processor_has_the_name_of_its_model_or_of_its_architecture(monkeypatch, tmp_path, described, name):
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(devices.platform, "processor", lambda: "")
    monkeypatch.setattr(devices.platform, "machine", lambda: "arm")
    if described:
        devices.CPUINFO.write_text(described)
    assert devices.processor_name.__wrapped__() == name


def test_this_processor_is_known_to_have_instructions_for_bfloat16_or_not():
    assert isinstance(has_fast_bfloat16(torch.device("cpu")), bool)


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({}, False),
        ({"avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
    ],
)
def test_a_processor_with_instructions_for_bfloat16_is_recognised(monkeypatch, capabilities, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is fast


def test_a_pytorch_that_cannot_tell_and_a_device_of_another_kind_count_as_slow(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is False
    assert has_fast_bfloat16(torch.device("mps")) is False


def test_emulated_bfloat16_of_a_gpu_counts_as_slow(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert has_fast_bfloat16(torch.device("cuda")) is False


def test_fast_arithmetic_takes_denormal_numbers_for_zero_and_can_be_set_back(arithmetic):
    smallest = torch.tensor([torch.finfo(torch.float32).tiny])
    use_fast_arithmetic()
    assert (smallest / 2).item() == 0
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.benchmark
    torch.set_flush_denormal(False)
    assert (smallest / 2).item() > 0


def test_malloc_is_tuned_with_glibc_only(monkeypatch):
    calls = []

    class Library:
        def mallopt(self, *arguments):
            calls.append(arguments)

    monkeypatch.setattr("dvlae.system.hardware.devices.ctypes.CDLL", lambda name: Library())
    monkeypatch.setattr("platform.libc_ver", lambda: ("musl", ""))
    tune_malloc()
    assert calls == []
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    tune_malloc()
    # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h.
    assert calls == [(-4, 0), (-1, 2**30)]
