"""Two processes on the CPU learn as one does: with whole copies (DDP), and with halves (FSDP)."""

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


def start(rank, port):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)


def half(rank, port, folder):
    start(rank, port)
    model = DistributedDataParallel(two_adapters())
    learn(model, slice(4 * rank, 4 * rank + 4))
    for name in "ab" if rank == 0 else "":
        save_adapter(model, folder / name, name)
    distributed.destroy_process_group()


def sharded(rank, port, folder):
    from torch.distributed.fsdp import fully_shard

    start(rank, port)
    mesh, model = distributed.device_mesh.init_device_mesh("cpu", (2,)), one_adapter()
    for module in (*model.children(), model):
        fully_shard(module, mesh=mesh)
    step(model)
    save_adapter(model, folder / "sharded")
    with pytest.raises(SerialLoRAError, match="FSDP"):
        add_adapter(model, "b")
    distributed.destroy_process_group()


def spawn(act, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(act, (port, folder), nprocs=2)


@pytest.mark.slow
def test_two_processes_with_half_the_weights_each_learn_as_one(tmp_path):
    if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
        pytest.skip("fully_shard came with PyTorch 2.6")
    spawn(sharded, tmp_path)
    alone, x = step(one_adapter()), torch.randn(2, 5, 32)
    loaded = load_adapter(classifier().eval(), tmp_path / "sharded")
    torch.testing.assert_close(loaded(x), alone(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path):
    spawn(half, tmp_path)
    alone, x = learn(two_adapters()), torch.randn(2, 5, 32)
    for name in "ab":
        loaded = load_adapter(classifier().eval(), tmp_path / name)
        torch.testing.assert_close(loaded(x), activate(alone, name)(x), rtol=1e-4, atol=1e-5)
