"""Attention that has to find two numbers in a sequence: softmax and expressive weights, trained alike.

Compares the accuracy that small networks reach with dot-product and with expressive attention, by task, optimiser and
protocol, rates chosen for each on seeds that are not scored.

Run ``python benchmarks/bench_autoregression.py`` from the repository's root.

Needs ``pip install -e ".[torch,plot]"``.

Data: none; the folder that ``ATTNEMBED_DATA`` names is not looked at.

Takes about 17 minutes on two cores; with ``--quick`` two tasks, in about one, printed only.

Writes ``benchmarks/bench_autoregression.md``, ``doc/images/autoregression_overview.png``,
``doc/images/autoregression_curves.png``, ``doc/images/autoregression_adam.png``.
"""

import math
import sys
import time
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from _common import bold, options, save, write
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from torch.nn.functional import cross_entropy, embedding, relu

from sklearn_attnembed.datasets import make_modular_sequences

KERNELS = {"softmax": "DPA", "expressive": "EA"}
WIDTH, BATCH, EVERY, N_TEST = 16, 64, 50, 2048
ALIKE = 0.05  # accuracies less apart are not told apart


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

    rates: tuple
    clip: float = math.inf
    cosine: bool = False
    adam: bool = False


SGD, ADAM = (0.003, 0.01, 0.03, 0.1, 0.2, 0.4), (0.001, 0.003, 0.01, 0.03)
PROTOCOLS = {
    "SGD, constant": Protocol(SGD),
    "SGD, clip, cosine": Protocol(SGD, clip=1, cosine=True),
    "Adam, constant": Protocol(ADAM, adam=True),
    "Adam, clip, cosine": Protocol(ADAM, clip=1, cosine=True, adam=True),
}
STEPS, LONG = 1500, 6000
CHOOSING, REPORTED = (100, 101, 102), (110, 111, 112, 113, 114, 115)
BASES, DELAYS = (2, 4, 8, 16), (5, 10, 15, 20)
LONGER, QUICK = ((2, 20), (4, 15), (16, 5)), ((4, 10), (4, 15))
FEW = ("three tasks, with a token", "context twice the delay", "4 heads")


def others(cell):
    """Variants of a cell and their steps, by name."""
    twice = 2 * max(cell.delays)
    tasks = replace(cell, delays=(3, 6, 9) if cell.base == 4 else (5, 10, 15))
    told, untold = replace(tasks, token=True), replace(tasks, context=2 * max(tasks.delays))
    return {
        "three tasks, with a token": (told, STEPS),
        "same, 4500 steps": (told, 3 * STEPS),
        "three tasks, no token": (untold, STEPS),
        "context twice the delay": (replace(cell, context=twice), STEPS),
        "same, loss on all positions": (replace(cell, context=twice, everywhere=True), STEPS),
        "2 heads": (replace(cell, heads=2), STEPS),
        "4 heads": (replace(cell, heads=4), STEPS),
        "4 heads, recency too": (replace(cell, heads=4, recency=True), STEPS),
        "4 heads, recency alone": (replace(cell, heads=4, recency=True, positions=False), STEPS),
        "2 layers": (replace(cell, layers=2), STEPS),
        "layer normalisation": (replace(cell, norm=True), STEPS),
        "embeddings of variance 1": (replace(cell, scale=1), STEPS),
    }


def jobs(quick=False):
    """All that is run: (group, label, cell, protocol, steps)."""
    for base, delay, protocol in product(BASES, DELAYS, PROTOCOLS):
        if not quick or (base, delay) in QUICK:
            yield "main", "", Cell(base, (delay,)), protocol, STEPS
    for (base, delay), protocol in product(LONGER, list(PROTOCOLS)[:2]):
        if not quick:
            yield "long", "", Cell(base, (delay,)), protocol, LONG
    for base, delay in () if quick else ((4, 10), (2, 15)):
        for label, (cell, steps) in others(Cell(base, (delay,))).items():
            for protocol in list(PROTOCOLS)[:3] if base == 4 or label in FEW else ():
                yield "other", label, cell, protocol, steps


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
    trial: tuple  # accuracy on the seeds that the rate was chosen on, and the mean of their curves
    accuracies: np.ndarray  # (seeds, delays)
    curve: np.ndarray  # (seeds, blocks of steps)
    stopped: int
    protocol: str


@dataclass
class Result:
    """Both mechanisms on a task."""

    group: str
    label: str
    cell: Cell
    protocol: str
    found: dict  # by kernel


def tuned(cell, kernel, protocol, steps):
    """Choose a rate, then train on seeds that had no part in that."""
    rates = PROTOCOLS[protocol].rates
    accuracies, curves, _ = train(cell, kernel, PROTOCOLS[protocol], rates, CHOOSING, steps)
    *trial, rate = max(zip(accuracies.mean((1, 2)).round(2), curves.mean((1, 2)), rates, strict=True))
    accuracies, curves, stopped = train(cell, kernel, PROTOCOLS[protocol], (rate,), REPORTED, steps)
    return Found(rate, tuple(trial), accuracies[0], curves[0], stopped, protocol)


def work(group, label, cell, protocol, steps):
    """Both mechanisms on a job."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    begin = time.perf_counter()
    found = {kernel: tuned(cell, kernel, protocol, steps) for kernel in KERNELS}
    means = [f"{name} {found[kernel].accuracies.mean():.2f} {found[kernel].rate}" for kernel, name in KERNELS.items()]
    seconds = f"{time.perf_counter() - begin:.0f} s"
    print(group, label, cell.base, cell.delays, protocol, *means, seconds, file=sys.stderr, flush=True)
    return Result(group, label, cell, protocol, found)


def run(jobs):
    """Results of jobs, two at a time, one thread each: faster here than two threads for each."""
    return Parallel(n_jobs=2, return_as="generator")(delayed(work)(*job) for job in jobs)


# tables -------------------------------------------------------------------------------------------------
def accuracy(found):
    """Accuracies of seeds."""
    return found.accuracies.mean(1)


def steps_to(found, level=0.99):
    """Median, over seeds that end above a level, of the steps it took until a block of steps was above."""
    reached = found.curve[accuracy(found) > level] > level
    return f"{np.median(reached.argmax(1) + 1) * EVERY:.0f}" if reached.any() else ""


def columns(found, named=False):
    """What tables tell of both mechanisms."""
    means = bold([round(float(accuracy(one).mean()), 2) for one in found.values()], "{:.2f}".format, max)
    for mean, one in zip(means, found.values(), strict=True):
        low, high = accuracy(one).min(), accuracy(one).max()
        spread, solved = f"{mean} [{low:.2f}, {high:.2f}]", f"{(accuracy(one) > 0.99).sum()} of {len(REPORTED)}"
        yield from (spread, *[one.protocol.removeprefix("SGD, ").removeprefix("Adam, ")] * named)
        yield from (one.rate, solved, steps_to(one))


def header(*first, named=False):
    """Of such tables."""
    names = ["", *[" protocol"] * named, " rate", " > .99", " steps"]
    return [*first, *(f"{mechanism}{name}" for mechanism in KERNELS.values() for name in names)]


def select(results, group, protocol=""):
    """Results of a group, by task."""
    chosen = {}
    for r in results:
        if r.group == group and r.protocol.startswith(protocol):
            chosen.setdefault((r.cell.base, ", ".join(map(str, r.cell.delays)), r.label), []).append(r)
    return chosen


def better(results):
    """For each mechanism what was best on the seeds for choosing."""
    return {kernel: max((r.found[kernel] for r in results), key=lambda found: found.trial) for kernel in KERNELS}


def tables(results):
    """Heading, text, header and rows."""
    for protocol in PROTOCOLS:
        rows = [
            (base, delay, f"{1 / base:.2f}", *columns(r.found))
            for (base, delay, _), some in select(results, "main").items()
            for r in some
            if r.protocol == protocol
        ]
        yield f"{protocol}", MAIN[protocol], header("base", "delay", "chance"), rows
    rows = [
        (optimiser, base, delay, f"{1 / base:.2f}", *columns(better(some), True))
        for optimiser in ("SGD", "Adam")
        for (base, delay, _), some in select(results, "main", optimiser).items()
    ]
    yield "The better protocol for each", BETTER, header("optimiser", "base", "delay", "chance", named=True), rows
    for heading, group, text in (
        ("Four times the steps", "long", FOUR_TIMES),
        ("Other tasks and networks", "other", OTHER),
    ):
        rows = [
            (*[label] * (group == "other"), base, delay, r.protocol, *columns(r.found))
            for (base, delay, label), some in select(results, group).items()
            for r in some
        ]
        yield heading, text, header(*["variant"] * (group == "other"), "base", "delay", "protocol"), rows


def summary(results):
    """Mean accuracies over cells, and who is ahead, by protocol."""
    choices = [(protocol, protocol, False) for protocol in PROTOCOLS]
    choices += [(f"{optimiser}, the better", optimiser, True) for optimiser in ("SGD", "Adam")]
    for name, protocol, both in choices:
        found = {
            key: better([r for r in some if both or r.protocol == protocol])
            for key, some in select(results, "main", protocol).items()
        }
        means = {key: [accuracy(one).mean() for one in pair.values()] for key, pair in found.items()}
        ahead = [ea - dpa for dpa, ea in means.values()]
        counts = [sum(d > ALIKE for d in ahead), sum(abs(d) <= ALIKE for d in ahead), sum(d < -ALIKE for d in ahead)]
        parts = [[pair for key, pair in means.items() if key[0] == base] for base in BASES]
        parts += [[pair for key, pair in means.items() if key[1] == str(delay)] for delay in DELAYS]
        yield name, *(" / ".join(f"{mean:.2f}" for mean in np.mean(part, 0)) if part else "" for part in parts), *counts


# pictures -----------------------------------------------------------------------------------------------
COLORS = {"softmax": "#0072B2", "expressive": "#D55E00"}
NAMES = {"softmax": "dot-product attention", "expressive": "expressive attention"}


def curves(results, optimiser, name):
    """Accuracy on new batches by step, a panel a base and delay."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 4, figsize=(8.6, 6.8), layout="constrained", sharex=True, sharey=True)
    steps = (np.arange(STEPS // EVERY) + 0.5) * EVERY
    for ax, ((base, delay, _), some) in zip(axes.flat, select(results, "main", optimiser).items(), strict=True):
        for kernel, found in better(some).items():
            color, curve = COLORS[kernel], found.curve
            ax.fill_between(steps, curve.min(0), curve.max(0), color=color, alpha=0.18, linewidth=0)
            ax.plot(steps, curve.mean(0), color=color, linewidth=1.8, label=NAMES[kernel])
        ax.axhline(1 / base, color="0.4", linestyle=":", linewidth=1.2, label="chance")
        ax.set_title(f"base {base}, delay {delay}", fontsize=10)
        ax.set(xlim=(0, STEPS), ylim=(0, 1.04), xticks=(0, 500, 1000), yticks=(0, 0.5, 1))
        ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("accuracy on new sequences", fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    save(figure, f"autoregression_{name}")


def overview(results):
    """Mean accuracies, a panel a mechanism and protocol."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(9.5, 5), layout="constrained", sharex=True, sharey=True)
    for (row, kernel), (column, protocol) in product(enumerate(KERNELS), enumerate(PROTOCOLS)):
        ax = axes[row, column]
        found = [r.found[kernel] for r in results if r.group == "main" and r.protocol == protocol]
        means = np.array([accuracy(one).mean() for one in found]).reshape(len(BASES), len(DELAYS))
        ax.imshow(means, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (y, x), value in np.ndenumerate(means):
            ax.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9, color="k" if value > 0.55 else "w")
        ax.set(xticks=range(4), xticklabels=DELAYS, yticks=range(4), yticklabels=BASES)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        if row == 0:
            ax.set_title(protocol, fontsize=10)
        if column == 0:
            ax.set_ylabel(f"{NAMES[kernel]}\nbase", fontsize=10)
    figure.supxlabel("delay", fontsize=10)
    save(figure, "autoregression_overview")


# everything ---------------------------------------------------------------------------------------------
def margin(pair):
    """By how much EA is ahead in accuracy."""
    return accuracy(pair["expressive"]).mean() - accuracy(pair["softmax"]).mean()


def cells(results, optimiser):
    """For each task what both mechanisms reach with the better protocol, by name; and the accuracy of chance."""
    for (base, delay, _), some in select(results, "main", optimiser).items():
        yield f"base {base}, delay {delay}", better(some), 1 / base


def variants(results, optimiser):
    """The same of the other tasks and networks."""
    before = ""
    for (base, delay, label), some in select(results, "other", optimiser).items():
        before = before if label.startswith("same") else label
        yield f"{label.replace('same', before)} (base {base}, delay {delay})", better(some), 1 / base


def told(pair):
    """Both accuracies."""
    dpa, ea = (accuracy(pair[kernel]).mean() for kernel in KERNELS)
    return f"EA {ea:.2f}, DPA {dpa:.2f}"


def joined(parts):
    """A list in words."""
    return "; ".join(parts) or "none"


def standings(found):
    """In how many EA is ahead, alike and behind; where it is behind."""
    margins = {name: margin(pair) for name, pair, _ in found}
    ahead, behind = (sum(sign * m > ALIKE for m in margins.values()) for sign in (1, -1))
    text = f"EA is ahead in {ahead} of {len(margins)}, alike in {len(margins) - ahead - behind} and behind in {behind}"
    places = [f"{name}: {told(pair)}" for name, pair, _ in found if margins[name] < -ALIKE]
    return f"{text} ({'; '.join(places)})" if places else text


def of_optimiser(results, optimiser):
    """What came out with an optimiser."""
    found = list(cells(results, optimiser))
    solved = {kernel: {n: (accuracy(pair[kernel]) > 0.99).all() for n, pair, _ in found} for kernel in KERNELS}
    alone = [
        name for name, pair, _ in found if solved["expressive"][name] and not (accuracy(pair["softmax"]) > 0.99).any()
    ]
    lost = {
        label: [name for name, pair, chance in found if accuracy(pair[kernel]).mean() < chance + ALIKE]
        for kernel, label in KERNELS.items()
    }
    yield f"With {optimiser} and the better protocol for each {standings(found)}."
    yield f"Cells in which all seeds of EA get above 0.99 and none of DPA: {joined(alone)}."
    for label, names in lost.items():
        yield f"Cells in which {label} is at chance: {joined(names)}."
    both = [pair for name, pair, _ in found if all(solved[kernel][name] for kernel in KERNELS)]
    steps = [[float(steps_to(pair[kernel])) for kernel in KERNELS] for pair in both]
    slower, faster = sum(ea > dpa for dpa, ea in steps), sum(ea < dpa for dpa, ea in steps)
    yield f"Where all seeds of both get there, EA takes more steps in {slower} of {len(both)} and fewer in {faster}."


def of_long(results):
    """What four times the steps change."""
    found = [r for r in results if r.group == "long"]
    constant, clipped = (
        [r for r in found if ("constant" in r.protocol) == is_constant] for is_constant in (True, False)
    )
    if not found:
        return
    means = [accuracy(r.found["softmax"]).mean() for r in constant]
    names = [
        f"{mean:.2f} (base {r.cell.base}, delay {r.cell.delays[0]})" for r, mean in zip(constant, means, strict=True)
    ]
    reached = np.concatenate([accuracy(r.found["expressive"]) > 0.99 for r in clipped])
    yield f"With four times the steps and a constant rate of SGD DPA has {', '.join(names)}, and EA, clipped, is above"
    yield f"0.99 with {reached.sum()} of {len(reached)} seeds."
    if min(means) > 1 - ALIKE:
        yield "What differs there is speed, not what can be represented."


def of_protocols(results):
    """What the clip and the cosine change."""
    for optimiser in ("SGD", "Adam"):
        means = {}
        for protocol, kernel in product(PROTOCOLS, KERNELS):
            some = [accuracy(r.found[kernel]).mean() for r in results if r.group == "main" and r.protocol == protocol]
            means[protocol, kernel] = np.mean(some)
        parts = [
            f"{label} from {means[f'{optimiser}, constant', kernel]:.2f} to "
            f"{means[f'{optimiser}, clip, cosine', kernel]:.2f}"
            for kernel, label in KERNELS.items()
        ]
        yield f"With {optimiser} the clip and the cosine take the mean over cells of {' and of '.join(parts)}."
    yield "Either protocol alone would favour the mechanism that it suits."


def of_variants(results):
    """What the variants change."""
    for optimiser in ("SGD", "Adam"):
        found = list(variants(results, optimiser))
        ahead = [f"{name}: {told(pair)}" for name, pair, _ in found if margin(pair) > ALIKE]
        if found:
            yield f"Of the other tasks and networks, with {optimiser}, {standings(found)}. Ahead: {joined(ahead)}."


def of_choices(results, minutes):
    """What has to be known of the measurement."""
    found = [(r, kernel, one) for r in results for kernel, one in r.found.items()]
    stopped, networks = sum(one.stopped for *_, one in found), len(found) * len(REPORTED)
    where = sorted({one.protocol for *_, one in found if one.stopped})
    yield f"All this says what is learnt within the budget, from {len(REPORTED)} seeds that had no part in choosing"
    yield f"rates; the run took {minutes:.0f} minutes."
    misled = [
        f"{KERNELS[kernel]}, base {r.cell.base}, delay {', '.join(map(str, r.cell.delays))}"
        f"{', ' * bool(r.label)}{r.label}, {one.protocol}"
        for r, kernel, one in found
        if one.trial[0] > 0.99 and accuracy(one).mean() < 1 / r.cell.base + ALIKE
    ]
    if misled:
        yield f"{len(CHOOSING)} seeds are few to choose on: the rate had above 0.99 on these, and is at chance on the"
        yield f"other {len(REPORTED)}, in: {joined(misled)}."
    yield "Networks stop when gradients are not finite, and are scored as they are then:"
    yield f"{stopped} of {networks} reported{f', all with {joined(where)}' * bool(where)}."


def verdict(results, minutes):
    """What came out, from the results."""
    parts = [
        [CLAIM],
        *(of_optimiser(results, optimiser) for optimiser in ("SGD", "Adam")),
        of_long(results),
        of_protocols(results),
        of_variants(results),
        [*of_choices(results, minutes), COUNTED],
    ]
    return "\n\n".join(filter(None, (" ".join(sentences) for sentences in parts)))


CLAIM = (
    "The claim under test is that of arXiv:2407.18601: EA at least equal, and ahead as tasks grow. Alike means within "
    f"{ALIKE} of accuracy, at chance not more than {ALIKE} above it."
)
COUNTED = f"Means over cells, DPA / EA, and cells in which one is ahead by more than {ALIKE}:"
SETTING = (
    "Sequences x(t) = x(t - 1) + x(t - delay) mod base that begin with uniform numbers. A network sees the last "
    "`delay` numbers and tells the next: the first key and the last are all that it needs. Dot-product attention (DPA) "
    "has softmax weights, expressive attention (EA) z^2 / (1 + z^2) divided by the sum over keys, z = q k / sqrt(d); "
    "all else is the same. One layer, one head, width 16, skips, a ReLU layer of 64, no normalisation, embeddings of "
    "tokens and positions normal with deviation 0.25, other weights uniform within 1 / sqrt(inputs). "
    "1500 steps on batches of 64 new sequences, loss at the last position. "
    "{protocol} Rates are chosen for each mechanism by the mean accuracy of 3 seeds, ties by the mean of their curves, "
    "then scored on 6 other seeds, with the same beginning and the same batches for both mechanisms. "
    "Columns: mean [lowest, highest] over these of the accuracy on 2048 other contexts (the higher mean bold), the "
    "rate, how many are above 0.99, and the median of the steps after which those that are had a mean above 0.99 on 50 "
    "batches, each before it was learnt from. Where no rate learns, the chosen one means nothing. "
)
SGD_TEXT, ADAM_TEXT = (f"rates from {', '.join(map(str, rates))}." for rates in (SGD, ADAM))
SAME = "As above, but with {}"
MAIN = {
    "SGD, constant": SETTING.format(
        protocol="SGD with momentum 0.9 and a constant rate, gradients not clipped;" + f" {SGD_TEXT}"
    )
    + "With base 2 and delay 5 there are only 32 contexts, with base 2 and delay 10 or base 4 and delay 5 only 1024: "
    "these cells test fitting.",
    "SGD, clip, cosine": SAME.format(
        "the norm of the gradient clipped at 1 and a rate that falls to zero as a cosine."
    ),
    "Adam, constant": SAME.format("Adam at a constant rate, not clipped; " + ADAM_TEXT),
    "Adam, clip, cosine": SAME.format("Adam, the norm of the gradient clipped at 1 and a rate that falls as a cosine."),
}
BETTER = (
    "For each optimiser and mechanism the better of both protocols above, constant or with clip and cosine, by the "
    "seeds that rates were chosen on: the fairest comparison here, since the clip and the cosine help one of them and "
    "mostly hurt the other. The curves of doc/images/autoregression_curves.png (SGD) and autoregression_adam.png are "
    "of these."
)
FOUR_TIMES = "As above, 6000 steps instead of 1500, rates chosen anew; the cosine falls over 6000 steps."
OTHER = (
    "Variants of two cells, rates chosen anew for each. *Three tasks* are mixed in each batch and test set, told apart "
    "by a token in front or, without, by a context of twice the longest delay; accuracy is the mean over tasks. "
    "*Context twice the delay*: of the numbers that are not needed there are more. *Loss on all positions* from the "
    "first that can be told, with a causal mask; accuracy is that of these positions. *Recency*: scores less m times "
    "distance as in ALiBi, m = 1/4, 1/16, 1/64, 1/256 for four heads; for EA the weights are multiplied by "
    "exp(-m distance). *Alone*: without embeddings of positions. *Layer normalisation* without weights, before each "
    "part and before the read-out. *Embeddings of variance 1*: the default of torch.nn.Embedding."
)


def report(results, minutes, is_whole):
    """Tables and pictures."""
    if is_whole:
        curves(results, "SGD", "curves")
        curves(results, "Adam", "adam")
        overview(results)
    where = [f"base {base}" for base in BASES] + [f"delay {delay}" for delay in DELAYS]
    first = ["protocol", *where, "EA ahead", "alike", "DPA ahead"]
    sections = [("What came out", verdict(results, minutes), first, list(summary(results))), *tables(results)]
    title, threads = "Modular autoregression: dot-product and expressive attention", "two processes of one thread"
    write("bench_autoregression", title, sections, is_whole, peers=["torch"], threads=threads)


def main():
    """Everything."""
    quick = options(__doc__).parse_args().quick
    begin = time.perf_counter()
    results = list(run(jobs(quick)))
    get_reusable_executor().shutdown(wait=True)  # the seconds of processes that have ended count as this one's
    report(results, (time.perf_counter() - begin) / 60, not quick)


if __name__ == "__main__":
    main()
