"""Trains a small network on digits, in one process or in many.

With several processes each takes its share of every batch and torch averages the gradients,
so the loss is that of one process with the whole batch. The first process saves a checkpoint
after each epoch; whoever starts again goes on from there.
"""

import argparse
import csv
import gzip
import os
import pathlib

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def read(folder):
    """Returns the pixels, [rows, 64] from 0 to 1, and the digits, [rows], of all files."""
    rows = []
    for path in sorted(pathlib.Path(folder).glob("*.csv.gz")):
        with gzip.open(path, "rt") as file:
            rows += [[float(cell) for cell in row] for row in csv.reader(file)]
    table = torch.tensor(rows)
    return table[:, :-1] / 16, table[:, -1].long()


def resume(path, model, optimizer, rank):
    """Returns the first epoch to do; every process goes on from what the first one saved."""
    saved = [torch.load(path) if rank == 0 and path.exists() else None]
    if dist.is_initialized():
        dist.broadcast_object_list(saved)
    if saved[0] is None:
        return 0
    model.load_state_dict(saved[0]["model"])
    optimizer.load_state_dict(saved[0]["optimizer"])
    print(f"resumed after epoch {saved[0]['epoch']}", flush=True)
    return saved[0]["epoch"] + 1


def save(path, epoch, model, optimizer):
    part = path.with_suffix(".tmp")
    torch.save({"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, part)
    part.rename(path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64, help="rows of a batch, of all processes together")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoints", type=pathlib.Path, default="/opt/ml/checkpoints")
    options = parser.parse_args()

    world = int(os.environ.get("WORLD_SIZE", 1))
    rank = int(os.environ.get("RANK", 0))
    if world > 1:
        dist.init_process_group("gloo")
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    pixels, digits = read(os.environ["SM_CHANNEL_TRAIN"])
    plain = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(plain.parameters(), lr=options.rate, momentum=0.9)
    checkpoint = options.checkpoints / "last.pt"
    first = resume(checkpoint, plain, optimizer, rank)
    model = DistributedDataParallel(plain) if world > 1 else plain
    share = options.batch // world

    for epoch in range(first, options.epochs):
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(options.seed + epoch))
        total, batches = 0.0, len(order) // options.batch
        for batch in range(batches):
            start = batch * options.batch + rank * share
            rows = order[start : start + share]
            loss = nn.functional.cross_entropy(model(pixels[rows]), digits[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        mean = torch.tensor(total / batches / world, dtype=torch.float64)
        if world > 1:
            dist.all_reduce(mean)
        if rank == 0:
            print(f"epoch {epoch} loss {mean.item():.6f}", flush=True)
            save(checkpoint, epoch, plain, optimizer)
    if rank == 0:
        torch.save(plain.state_dict(), os.path.join(os.environ["SM_MODEL_DIR"], "model.pt"))


if __name__ == "__main__":
    main()
