"""Memory for batches, and where it begins."""

import pytest
import torch

from loader.prefetch import OFF_LINE, host_buffer


@pytest.mark.parametrize("shape", [(3, 5), (2, 64, 64, 3), (16, 384, 384, 3)], ids=str)
@pytest.mark.parametrize("off", [0, OFF_LINE])
def test_a_buffer_begins_where_it_was_asked_to(shape, off):
    buffer = host_buffer(*shape, off=off)
    assert buffer.shape == shape
    assert buffer.dtype == torch.uint8
    assert buffer.is_contiguous()
    assert buffer.data_ptr() % 64 == off
    assert not buffer.any()
    buffer.fill_(255)  # all of it is there
    assert buffer.min() == 255


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("off", [0, OFF_LINE])
def test_a_pinned_buffer_begins_where_it_was_asked_to(off):
    buffer = host_buffer(2, 64, 64, 3, pinned=True, off=off)
    assert buffer.is_pinned()
    assert buffer.data_ptr() % 64 == off
    assert buffer.is_contiguous()
