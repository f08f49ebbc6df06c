"""Attention that has to find two numbers in a sequence: softmax and expressive weights, trained alike."""

import argparse
import math
import sys
import time
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from joblib import Parallel, delayed
from torch.nn.functional import cross_entropy, embedding, relu

from sklearn_attnembed.datasets import make_modular_sequences

KERNELS = {"softmax": "DPA", "expressive": "EA"}
WIDTH, BATCH, EVERY, N_TEST = 16, 64, 50, 2048


@dataclass(frozen=True)
class Cell:
    """A task and the size of its network."""

    base: int
    delays: tuple
    context: int = 0  # numbers seen, the longest delay if 0
    token: bool = False  # one more in front, that tells the delay
    everywhere: bool = False  # loss on all positions that can be told
    layers: int = 1
    heads: int = 1
    recency: bool = False
    positions: bool = True
    norm: bool = False
    scale: float = 0.25

    @property
    def length(self):
        """Positions."""
        return (self.context or max(self.delays)) + self.token

    @property
    def first(self):
        """First position with a loss."""
        return max(self.delays) + self.token - 1 if self.everywhere else self.length - 1


@dataclass(frozen=True)
class Protocol:
    """An optimiser."""

    clip: float = math.inf
    cosine: bool = False
    adam: bool = False
    rates: tuple = (0.01, 0.03, 0.1, 0.2, 0.4)


PROTOCOLS = {
    "constant": Protocol(),
    "cosine": Protocol(clip=1, cosine=True),
    "Adam": Protocol(adam=True, rates=(0.001, 0.003, 0.01, 0.03)),
}
STEPS, LONG = 1500, 6000
SHORT = ("three tasks, with a token", "context twice the delay", "same, loss on all positions", "2 layers", "4 heads")
CHOOSING, REPORTED = (100, 101, 102), (110, 111, 112, 113, 114, 115)
CELLS = [Cell(b, (d,)) for b, d in ((2, 5), (2, 10), (2, 15), (2, 20), (4, 5), (4, 10), (4, 15), (8, 5), (16, 5))]


def jobs(quick):
    """All that is run: (group, label, cell, protocol, steps)."""
    if quick:
        return [("main", "", cell, protocol, STEPS) for cell in CELLS[5:7] for protocol in PROTOCOLS]
    found = [("main", "", cell, protocol, STEPS) for cell in CELLS for protocol in PROTOCOLS]
    found += [("long", "", CELLS[place], protocol, LONG) for place in (3, 6, 8) for protocol in ("constant", "cosine")]
    for cell in (CELLS[5], CELLS[2]):
        twice = 2 * max(cell.delays)
        variants = {
            "three tasks, with a token": Cell(cell.base, (3, 6, 9) if cell.base == 4 else (5, 10, 15), token=True),
            "three tasks, no token": Cell(4, (3, 6, 9), 18),
            "context twice the delay": replace(cell, context=twice),
            "same, loss on all positions": replace(cell, context=twice, everywhere=True),
            "2 heads": replace(cell, heads=2),
            "4 heads": replace(cell, heads=4),
            "4 heads, recency too": replace(cell, heads=4, recency=True),
            "4 heads, recency alone": replace(cell, heads=4, recency=True, positions=False),
            "2 layers": replace(cell, layers=2),
            "layer normalisation": replace(cell, norm=True),
            "embeddings of variance 1": replace(cell, scale=1),
        }
        if cell.base == 2:
            variants = {label: variants[label] for label in list(variants) if label in SHORT}
        found += [("other", *variant, protocol, STEPS) for variant in variants.items() for protocol in PROTOCOLS]
    return found


# networks, many at once: the first axis of all parameters is the network --------------------------------
def shapes(cell):
    """Shapes of the parameters: two tables, then linear maps with their intercept as last row."""
    d = WIDTH
    layer = [(d + 1, d), (d + 1, 2 * d), (d + 1, d), (d + 1, 4 * d), (4 * d + 1, d)]
    return [(cell.base + len(cell.delays) * cell.token, d), (cell.length, d), *layer * cell.layers, (d + 1, cell.base)]


def start(cell, seed):
    """All parameters of a network in a vector."""
    generator, parts = torch.Generator().manual_seed(seed), []
    for place, shape in enumerate(shapes(cell)):
        if place < 2:
            part = cell.scale * torch.randn(shape, generator=generator)
        else:
            part = (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(shape[0] - 1)
        parts.append(part.flatten())
    return torch.cat(parts)


def linear(h, W):
    """A linear map of the last axis."""
    return torch.baddbmm(W[:, -1:], h.flatten(1, -2), W[:, :-1]).unflatten(1, h.shape[1:-1])


def attention(q, k, v, kernel, heads, bias):
    """Heads' means of values, with weights that are softmax or expressive."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(2, 3) for part in (q, k, v))
    z = q @ k.mT / math.sqrt(q.shape[-1])
    if kernel == "softmax":
        a = (z + bias).softmax(-1)
    else:
        square = z * z
        a = (square + 1e-30) / (1 + square) * bias.exp()
        a = a / a.sum(-1, keepdim=True)
    return (a @ v).transpose(2, 3).flatten(-2)


def biases(cell, asked):
    """What is added to the scores: no look ahead, and with recency less for what is far (ALiBi)."""
    distance = asked[:, None] - torch.arange(cell.length)
    slopes = 2.0 ** (-8 * torch.arange(1, cell.heads + 1) / cell.heads) * cell.recency
    return torch.where(distance < 0, -math.inf, -slopes[:, None, None] * distance)


def unpack(cell, theta):
    """Parameters by shape, with position and token embeddings already added."""
    sizes = shapes(cell)
    parts = theta.split([rows * columns for rows, columns in sizes], 1)
    token, position, *maps = (part.unflatten(1, size) for part, size in zip(parts, sizes, strict=True))
    return token[:, None] + cell.positions * position[:, :, None], *maps


def logits(cell, kernel, theta, x):
    """Scores of the next number at all positions with a loss."""
    table, *maps, out = unpack(cell, theta)
    networks, positions, tokens, _ = table.shape
    norm = (lambda h: torch.layer_norm(h, h.shape[-1:])) if cell.norm else (lambda h: h)
    offset = torch.arange(networks * positions).reshape(networks, 1, positions)
    shared = cell.layers == 1 and cell.first == cell.length - 1
    h = embedding((x + tokens * offset)[..., cell.first if shared else 0 :], table.flatten(0, 2))
    for layer in range(cell.layers):
        query, pair, mix, up, down = maps[5 * layer : 5 * layer + 5]
        asked = torch.arange(cell.first if layer == cell.layers - 1 else 0, cell.length)
        bias, known, h = biases(cell, asked), h, h[:, :, -len(asked) :]
        q = linear(norm(h), query)
        if shared:  # the same, and faster: keys are those of the table, all contexts of a batch ask it at once
            hit = x[..., None] == torch.arange(tokens)
            bias = bias[:, None, :, :, None].where(hit[:, None, :, None], -math.inf).flatten(4).flatten(2, 3)[:, None]
            q, known = q.transpose(1, 2), table.flatten(1, 2)[:, None]
        seen = attention(q, *linear(norm(known), pair).chunk(2, -1), kernel, cell.heads, bias)
        h = h + linear(seen.reshape(h.shape), mix)
        h = h + linear(relu(linear(norm(h), up)), down)
    return linear(norm(h), out)


# data ---------------------------------------------------------------------------------------------------
def split(cell, x, task):
    """Contexts and what follows at positions with a loss."""
    x = torch.cat([cell.base + task[..., None], x], -1) if cell.token else x
    return x[..., :-1], x[..., cell.first + 1 :]


def draw(cell, n_seeds, generator):
    """Batches of new sequences, one for each seed."""
    task = torch.randint(len(cell.delays), (n_seeds, BATCH), generator=generator)
    x = torch.randint(cell.base, (n_seeds, BATCH, (cell.context or max(cell.delays)) + 1), generator=generator)
    delay = torch.tensor(cell.delays)[task]
    for t in range(min(cell.delays), x.shape[-1]):
        back = x.gather(-1, (t - delay).clamp(0)[..., None])[..., 0]
        x[..., t] = torch.where(t < delay, x[..., t], (x[..., t - 1] + back) % cell.base)
    return split(cell, x, task)


def test_set(cell):
    """Sequences to score on, as many of each delay."""
    n, length = N_TEST // len(cell.delays), (cell.context or max(cell.delays)) + 1
    x = [make_modular_sequences(n, cell.base, delay, length, random_state=12345) for delay in cell.delays]
    return split(cell, torch.tensor(np.concatenate(x)), torch.arange(len(x)).repeat_interleave(n))


@torch.no_grad()
def score(cell, kernel, theta):
    """Share of right answers by network and delay."""
    x, y = test_set(cell)
    right = torch.stack([(logits(cell, kernel, one[None], x[None])[0].argmax(-1) == y).float() for one in theta])
    return right.unflatten(1, (len(cell.delays), -1)).mean((2, 3))


# training -----------------------------------------------------------------------------------------------
def train(cell, kernel, protocol, rates, seeds, steps):
    """Networks of all rates and seeds: accuracies of shape (rates, seeds, delays), and curves by blocks of steps."""
    theta = torch.stack([start(cell, seed) for _, seed in product(rates, seeds)]).requires_grad_()
    rate = torch.tensor([rate for rate, _ in product(rates, seeds)])[:, None]
    generator = torch.Generator().manual_seed(seeds[0])
    m, s, alive = torch.zeros_like(theta), torch.zeros_like(theta), torch.ones(len(theta), 1, dtype=torch.bool)
    curve = torch.zeros(steps // EVERY, len(theta))
    for step in range(steps):
        x, y = (part.repeat(len(rates), 1, 1) for part in draw(cell, len(seeds), generator))
        found = logits(cell, kernel, theta, x)
        loss = cross_entropy(found.flatten(0, -2), y.flatten(), reduction="sum") / y[0].numel()
        (gradient,) = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            curve[step // EVERY] += (found.argmax(-1) == y).float().mean((1, 2)) / EVERY
            alive &= gradient.isfinite().all(1, keepdim=True)  # the others stop here
            gradient = gradient.where(alive, 0)
            gradient *= (protocol.clip / gradient.norm(dim=1, keepdim=True)).clamp(max=1)
            now = rate * (0.5 + 0.5 * math.cos(math.pi * step / steps) if protocol.cosine else 1)
            if protocol.adam:
                m.lerp_(gradient, 0.1)
                s.lerp_(gradient**2, 0.001)
                move = m / (1 - 0.9 ** (step + 1)) / ((s / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            else:
                move = m.mul_(0.9).add_(gradient)
            theta -= now * move * alive
    shape = len(rates), len(seeds), -1
    return score(cell, kernel, theta).reshape(shape).numpy(), curve.T.reshape(shape).numpy(), int((~alive).sum())


@dataclass
class Found:
    """What one mechanism reached with the rate that was best on other seeds."""

    rate: float
    accuracies: np.ndarray  # (seeds, delays)
    curve: np.ndarray  # (seeds, blocks of steps)
    stopped: int
    trials: np.ndarray  # means by rate, of the seeds that it was chosen on


@dataclass
class Result:
    """Both mechanisms on a task."""

    group: str
    label: str
    cell: Cell
    protocol: str
    steps: int
    found: dict  # by kernel


def tuned(cell, kernel, protocol, steps):
    """Choose a rate, then train on seeds that had no part in that."""
    accuracies, curves, _ = train(cell, kernel, protocol, protocol.rates, CHOOSING, steps)
    trials = accuracies.mean((1, 2))
    rate = max(zip(trials.round(2), curves.mean((1, 2)), protocol.rates, strict=True))[-1]
    accuracies, curves, stopped = train(cell, kernel, protocol, (rate,), REPORTED, steps)
    return Found(rate, accuracies[0], curves[0], stopped, trials)


def work(group, label, cell, protocol, steps):
    """Both mechanisms on a job."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    begin = time.perf_counter()
    found = {kernel: tuned(cell, kernel, PROTOCOLS[protocol], steps) for kernel in KERNELS}
    means = [f"{name} {found[kernel].accuracies.mean():.2f} {found[kernel].rate}" for kernel, name in KERNELS.items()]
    seconds = f"{time.perf_counter() - begin:.0f} s"
    print(group, label, cell.base, cell.delays, protocol, *means, seconds, file=sys.stderr, flush=True)
    return Result(group, label, cell, protocol, steps, found)


def run(jobs):
    """Results of jobs, two at a time, one thread each: faster here than two threads for each."""
    return Parallel(n_jobs=2, return_as="generator")(delayed(work)(*job) for job in jobs)
