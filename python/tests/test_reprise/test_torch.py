"""Tensors go in and come out in their own type, over the cache's own memory."""

import subprocess
import sys

import pytest

import reprise
from conftest import CacheProcess
from reprise.token_format import DTYPE_BYTES

torch = pytest.importorskip("torch")

SHAPE = (2, 3)


@pytest.mark.parametrize("dtype", DTYPE_BYTES)
def test_every_element_type_comes_back_as_it_was_saved(cache: CacheProcess, dtype: str) -> None:
    tensor = torch.arange(7 * 6).reshape(7, *SHAPE).to(getattr(torch, dtype))
    with reprise.connect(socket=cache.socket_path, model="toy", dtype=dtype, token_shape=SHAPE, chunk_tokens=4) as mine:
        assert mine.save(range(7), tensor) == 7
        with mine.load(range(7)) as known:
            first, second = known.chunks
            assert torch.equal(first.tensor().float(), tensor[:4].float())
            assert torch.equal(second.tensor().float(), tensor[4:].float())
            assert first.tensor().dtype == tensor.dtype
            assert first.tensor().data_ptr() == torch.frombuffer(first.bytes, dtype=torch.uint8).data_ptr()
            assert first.array.shape == (4, *SHAPE)
            assert first.array.tobytes() == bytes(first.bytes)
            with pytest.raises(ValueError, match="read-only"):
                first.array[0] = 0


def test_a_tensor_that_is_not_contiguous_is_saved_as_it_reads(cache: CacheProcess) -> None:
    tensor = torch.arange(24, dtype=torch.float32).reshape(3, 2, 4).permute(2, 1, 0)
    with reprise.connect(socket=cache.socket_path, model="toy", dtype="float32", token_shape=SHAPE) as mine:
        assert mine.save(range(4), tensor[:, :, :]) == 4
        with mine.load(range(4)) as known:
            assert torch.equal(known.chunks[0].tensor(), tensor)


WITHOUT_NUMPY = """
import sys, warnings
sys.modules["numpy"] = None  # as where it is not installed
warnings.simplefilter("ignore")
import reprise, torch
tensor = torch.arange(24, dtype=torch.bfloat16).reshape(4, 2, 3)
with reprise.connect(socket=sys.argv[1], model="toy", dtype="bfloat16", token_shape=(2, 3)) as mine:
    assert mine.save(range(4), tensor) == 4
    with mine.load(range(4)) as known:
        assert torch.equal(known.chunks[0].tensor(), tensor)
"""


def test_tensors_go_in_and_come_out_where_there_is_no_numpy(cache: CacheProcess) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_NUMPY, cache.socket_path], check=True, timeout=60)
