"""Two processes on the CPU learn as one does: with whole copies (DDP), and with halves (FSDP)."""

from __future__ import annotations

import socket
from functools import partial

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


def learn(wrap, rows, folder=None):
    """Two steps for "a", two for "b", two more for "a"; on all of the batch or on these rows."""
    torch.manual_seed(0)
    model = inject(classifier(), SerialLoRAConfig(RANK), ALSO[1:], name="a").eval()
    add_adapter(fill_adapters(model, seed=1), "b")
    activate(fill_adapters(model, seed=2), "a")
    wrapped = wrap(model)
    for name in "aba":
        activate(wrapped, name)
        optimizer = torch.optim.SGD(lora_plus_groups(wrapped, lr=0.1))
        for _ in range(2):
            optimizer.zero_grad()
            x = torch.randn(8, 5, 32, generator=torch.Generator().manual_seed(3))
            wrapped(x[rows]).square().mean().backward()
            optimizer.step()
    if folder is not None:
        save_adapter(wrapped, folder / "a", "a")
        save_adapter(wrapped, folder / "b", "b")
    return model, x


def half(rank, port, folder):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    learn(DistributedDataParallel, slice(4 * rank, 4 * rank + 4), folder if rank == 0 else None)
    distributed.destroy_process_group()


def sharded(rank, port, folder):
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    mesh = distributed.device_mesh.init_device_mesh("cpu", (2,))
    model = one_step(lambda m: [*map(partial(fully_shard, mesh=mesh), [*m.children(), m])][-1])
    save_adapter(model, folder / "sharded")
    with pytest.raises(SerialLoRAError, match="FSDP"):
        add_adapter(model, "b")
    distributed.destroy_process_group()


def one_step(wrap):
    torch.manual_seed(0)
    model = fill_adapters(inject(classifier(), SerialLoRAConfig(RANK), ALSO[1:])).eval()
    wrap(model)
    optimizer = torch.optim.SGD(lora_plus_groups(model, lr=0.1))
    x = torch.randn(8, 5, 32, generator=torch.Generator().manual_seed(3))
    model(x).square().mean().backward()
    optimizer.step()
    return model


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
    alone, x = one_step(lambda m: m), torch.randn(2, 5, 32)
    loaded = load_adapter(classifier().eval(), tmp_path / "sharded")
    torch.testing.assert_close(loaded(x), alone(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path):
    spawn(half, tmp_path)
    alone, x = learn(lambda model: model, slice(None))
    for name in "ab":
        loaded = load_adapter(classifier().eval(), tmp_path / name)
        torch.testing.assert_close(loaded(x), activate(alone, name)(x), rtol=1e-4, atol=1e-5)
