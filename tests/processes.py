"""Processes that share a batch: real ones, over gloo, kept from test to test."""

import concurrent.futures
import datetime
import multiprocessing

import torch
import torch.distributed as dist


def join(path, world):
    """Become the next member of the group that meets at this file."""
    torch.set_num_threads(1)
    store = dist.FileStore(path, world)
    rank = store.add("joined", 1) - 1
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=datetime.timedelta(seconds=60))


def once(work, arguments):
    """`work(rank, *arguments)`: nobody starts, and so takes a second task, before everybody has one."""
    dist.barrier()
    return dist.get_rank(), work(dist.get_rank(), *arguments)


class Processes:
    """`ask(work, *arguments)` gives what each process returned, in the order of their ranks."""

    def __init__(self, path, world):
        self.world = world
        spawn = multiprocessing.get_context("spawn")
        self.pool = concurrent.futures.ProcessPoolExecutor(world, spawn, join, (str(path), world))

    def ask(self, work, *arguments):
        asked = [self.pool.submit(once, work, arguments) for _ in range(self.world)]
        return [found for _, found in sorted((each.result() for each in asked), key=lambda pair: pair[0])]

    def end(self):
        self.pool.shutdown()
