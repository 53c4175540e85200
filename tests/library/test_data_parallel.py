"""Two processes on the CPU learn as one does with whole copies (DDP); halves (FSDP) are refused."""

from __future__ import annotations

import socket

import pytest
import torch
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel

from serial_lora import (
    SerialLoRAConfig,
    SerialLoRAError,
    activate,
    add_adapter,
    inject,
    load_adapter,
    lora_plus_groups,
    save_adapter,
)
from tests.library.test_also_trained import ALSO, classifier
from tests.library.tiny_models import RANK, fill_adapters


def step(model, rows=slice(None)):
    """One step of plain descent, on all of the batch or on these rows of it."""
    optimizer = torch.optim.SGD(lora_plus_groups(model, lr=0.1))
    x = torch.randn(8, 5, 32, generator=torch.Generator().manual_seed(3))
    model(x[rows]).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model


def learn(model, rows=slice(None)):
    """Two steps for "a", two for "b", two more for "a"."""
    for name in "aba":
        step(step(activate(model, name), rows), rows)
    return model


def one_adapter():
    torch.manual_seed(0)
    return fill_adapters(inject(classifier(), SerialLoRAConfig(RANK), ALSO[1:], name="a")).eval()


def two_adapters():
    return activate(fill_adapters(add_adapter(one_adapter(), "b"), seed=2), "a")


def half(rank, port, folder):
    """What one of two processes does: with a copy of the model, and not with half of one."""
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    model = DistributedDataParallel(two_adapters())
    learn(model, slice(4 * rank, 4 * rank + 4))
    for name in "ab" if rank == 0 else "":
        save_adapter(model, folder / name, name)

    mesh, model = distributed.device_mesh.init_device_mesh("cpu", (2,)), one_adapter()
    for module in (*model.children(), model):
        fully_shard(module, mesh=mesh)
    with pytest.raises(SerialLoRAError, match="FSDP.*DistributedDataParallel"):
        step(model)
    for module in (*(plain := classifier()).children(), plain):
        fully_shard(module, mesh=mesh)
    with pytest.raises(SerialLoRAError, match="by FSDP"):
        inject(plain, SerialLoRAConfig(RANK))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path):
    if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
        pytest.skip("fully_shard came with PyTorch 2.6")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(half, (port, tmp_path), nprocs=2)
    alone, x = learn(two_adapters()), torch.randn(2, 5, 32)
    expected = {name: activate(alone, name)(x) for name in "ab"}
    for name, output in expected.items():
        loaded = load_adapter(classifier().eval(), tmp_path / name)
        torch.testing.assert_close(loaded(x), output, rtol=1e-4, atol=1e-5)
