"""Expressive attention in PyTorch against dot-product attention.

Compares milliseconds and memory by length, forward and backward, on the CPU and, where there is one, a GPU: expressive
attention, dot-product attention, FlexAttention compiled, and squared attention in linear time against all scores.

Run ``python benchmarks/bench_attention.py`` from the repository's root, on Linux with nothing else running: threads
that wait for each other get a hundred times slower otherwise.

Needs ``pip install -e ".[torch]"``.

Data: none; the folder that ``ATTNEMBED_DATA`` names is not looked at.

Takes about 15 minutes on two cores; with ``--quick`` the shortest length, in less than three, printed only.

Writes ``benchmarks/bench_attention.md``.
"""

import json
import subprocess
import sys
import tempfile
import time

import torch
from _common import apart, measure, options, write
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from sklearn_attnembed.nn import expressive_attention, expressive_flex_attention, squared_attention

SIZES = {128: (64, 8), 512: (8, 8), 2048: (1, 8), 8192: (1, 1)}  # length: batch, heads
WIDTH = 64
SQUARED = [(n, width) for width in (16, 32) for n in (1024, 4096, 16384)]
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
TARGETS = 1.3, 1.1  # of ratios of time and of memory
PATIENCE = 180  # seconds for a compilation
PASSIVE = {"OMP_WAIT_POLICY": "passive"}  # a thread that waits sleeps: others may be at work on the machine


# what is compared ------------------------------------------------------------------------------------
def eager(query, key, value, is_causal):
    """Dot-product attention as matrix products and a softmax."""
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(query, key, value, is_causal=is_causal)


def ours(query, key, value, is_causal):
    """The function measured."""
    return expressive_attention(query, key, value, is_causal=is_causal)


def plain(query, key, value, is_causal):
    """What one would write."""
    z = query @ key.mT / query.shape[-1] ** 0.5
    weight = z * z / (1 + z * z)
    if is_causal:
        weight = weight.tril()
    return weight / weight.sum(-1, keepdim=True) @ value


def fused(query, key, value, is_causal):
    """Dot-product attention as PyTorch chooses it."""
    return scaled_dot_product_attention(query, key, value, is_causal=is_causal)


def linear(query, key, value):
    """Squared attention, causal, with a state."""
    return squared_attention(query, key, value, is_causal=True)[0]


def quadratic(query, key, value):
    """The same from all scores."""
    weight = (query @ key.mT).square().tril()
    return weight @ value / weight.sum(-1, keepdim=True)


# children --------------------------------------------------------------------------------------------
def task(function, inputs, backward):
    """A call without arguments: forward alone, or with gradients."""
    if not backward:

        def call():
            with torch.no_grad():
                return function(*inputs)

        return call
    inputs = [x.detach().requires_grad_() for x in inputs]

    def call():
        output = function(*inputs)
        return torch.autograd.grad(output, inputs, torch.ones_like(output))

    return call


def made(device, *shape):
    """Queries, keys and values."""
    torch.manual_seed(0)
    return [torch.randn(*shape, device=device) for _ in range(3)]


def attention_task(name, device, length, is_causal, backward):
    """The task of a row of the first table."""
    functions = {f.__name__: f for f in (eager, ours, plain, fused)}
    inputs = made(device, *SIZES[int(length)], int(length), WIDTH)
    is_causal, backward = is_causal == "True", backward == "True"
    return task(lambda *x: functions[name](*x, is_causal), inputs, backward)


def squared_task(name, device, length, width, backward):
    """The task of a row of the second table."""
    inputs = made(device, 1, 1, int(length), int(width))
    return task({"linear": linear, "quadratic": quadratic}[name], inputs, backward == "True")


TASKS = {"attention": attention_task, "squared": squared_task}


def best(tasks, seconds=4.0, least=4):
    """Milliseconds of the best call of each, one after the other, so that they meet the same noise."""
    cuda = torch.cuda.is_available()
    times = {name: [] for name in tasks}
    end = time.perf_counter() + seconds
    for call in tasks.values():
        call()
    while time.perf_counter() < end or len(times[next(iter(tasks))]) < least:
        for name, call in tasks.items():
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            if cuda:
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * min(values) for name, values in times.items()}


def child_time(kind, names, *arguments):
    """Milliseconds of all competitors."""
    return best({name: TASKS[kind](name, *arguments) for name in names.split(",")})


def child_memory(kind, name, device, *arguments):
    """Megabytes at most beyond the inputs."""
    call = TASKS[kind](name, device, *arguments)
    small = made(device, 1, 1, 64, WIDTH)
    task(quadratic, small, True)()  # what libraries hold, whatever they compute
    if device == "cpu":
        return measure(call)[2]
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def child_flex(device, length):
    """Seconds of compiling FlexAttention and milliseconds of a call, forward, beside the others; largest difference."""
    inputs = made(device, *SIZES[int(length)], int(length), WIDTH)
    compiled = torch.compile(expressive_flex_attention)
    start = time.perf_counter()
    with torch.no_grad():
        output = compiled(*inputs)
    seconds = time.perf_counter() - start
    difference = (output - expressive_attention(*inputs)).abs().max().item()
    tasks = {"flex": task(compiled, inputs, False)}
    tasks |= {f.__name__: task(lambda *x, f=f: f(*x, False), inputs, False) for f in (ours, eager, fused)}
    return {"compile": seconds, "difference": difference, **best(tasks)}


CHILDREN = {"time": child_time, "memory": child_memory, "flex": child_flex}


# tables ----------------------------------------------------------------------------------------------
def attention_rows(device, ratios, lengths):
    """The first table; ratios of time and memory are noted."""
    for length in lengths:
        batch, heads = SIZES[length]
        for is_causal in (False, True):
            for backward in (False, True):
                case = device, length, is_causal, backward
                times = apart(__file__, "time", "attention", "eager,ours,plain,fused", *case, **PASSIVE)
                memory = {
                    name: apart(__file__, "memory", "attention", name, *case) for name in ("eager", "ours", "plain")
                }
                ratio = times["ours"] / times["eager"], memory["ours"] / memory["eager"]
                ratios[length, is_causal, backward] = ratio
                yield (
                    length,
                    f"{batch} x {heads}",
                    "causal" if is_causal else "all",
                    "forward + backward" if backward else "forward",
                    *(f"{times[name]:.1f}" for name in ("eager", "ours", "plain")),
                    f"{ratio[0]:.2f}",
                    *(f"{memory[name]:.0f}" for name in ("eager", "ours", "plain")),
                    f"{ratio[1]:.2f}",
                    f"{times['fused']:.1f}",
                )


def verdict(ratios):
    """A sentence on each ratio."""
    sentences = []
    for i, (name, target) in enumerate(zip(("Time", "Memory"), TARGETS, strict=True)):
        values = {case: ratio[i] for case, ratio in ratios.items()}
        misses = [
            f"{length} {'causal' if is_causal else 'all'} {'forward + backward' if backward else 'forward'} ({v:.2f})"
            for (length, is_causal, backward), v in values.items()
            if v > target
        ]
        held = f"above {target} at: {', '.join(misses)}" if misses else f"nowhere above {target}"
        sentences.append(f"{name} ratios are {min(values.values()):.2f} to {max(values.values()):.2f}, {held}.")
    return " ".join(sentences)


def flex_rows(device, lengths):
    """FlexAttention, compiled; or why not."""
    for length in lengths:
        with tempfile.TemporaryDirectory() as cache:
            try:
                r = apart(__file__, "flex", device, length, limit=PATIENCE, TORCHINDUCTOR_CACHE_DIR=cache, **PASSIVE)
            except subprocess.TimeoutExpired:
                yield device, length, f"more than {PATIENCE}", *[""] * 5
            except subprocess.CalledProcessError:
                yield device, length, "fails", *[""] * 5
            else:
                times = (f"{r[name]:.1f}" for name in ("flex", "ours", "eager", "fused"))
                yield device, length, f"{r['compile']:.0f}", *times, f"{r['difference']:.0e}"


def squared_rows(device, sizes):
    """The second table."""
    for length, width in sizes:
        for backward in (False, True):
            case = device, length, width, backward
            times = apart(__file__, "time", "squared", "linear,quadratic", *case, **PASSIVE)
            memory = {name: apart(__file__, "memory", "squared", name, *case) for name in times}
            state = squared_attention(*(torch.zeros(1, width) for _ in range(3)))[1]
            yield (
                width,
                length,
                "forward + backward" if backward else "forward",
                *(f"{times[name]:.1f}" for name in ("linear", "quadratic")),
                f"{times['linear'] / times['quadratic']:.2f}",
                *(f"{memory[name]:.0f}" for name in ("linear", "quadratic")),
                sum(part.nbytes for part in state),
                2 * 4 * width * length,
            )


def main():
    """Everything."""
    quick = options(__doc__).parse_args().quick
    lengths, sizes = (list(SIZES)[:1], SQUARED[:1]) if quick else (list(SIZES), SQUARED)
    columns = [
        *("length", "batch x heads", "keys", "pass", "dot ms", "expressive ms", "plain ms", "time ratio"),
        *("dot MB", "expressive MB", "plain MB", "memory ratio", "fused dot ms"),
    ]
    text = (
        f"float32, {WIDTH} dimensions a head, random input. dot: "
        "`scaled_dot_product_attention` with the eager backend (`SDPBackend.MATH`). expressive: "
        "`expressive_attention`. plain: `z * z / (1 + z * z)`, divided by its sums, times the values, as one would "
        "write it. fused dot: `scaled_dot_product_attention` as PyTorch chooses it, for information. Ratios are "
        "expressive to dot. Milliseconds are of the best call in four seconds or more, all competitors in turn; two "
        "threads, of which a waiting one sleeps (`OMP_WAIT_POLICY=passive`). MB are the peak beyond the inputs, with "
        "output and gradients, each in a process of its own. Targets: "
        f"time ratio at most {TARGETS[0]}, memory ratio at most {TARGETS[1]}."
    )
    sections = []
    for device in DEVICES:
        ratios = {}
        rows = list(attention_rows(device, ratios, lengths))
        no_gpu = "" if len(DEVICES) > 1 else " No GPU was at hand: where there is one, this script adds its table."
        name = f" ({torch.cuda.get_device_name()})" if device == "cuda" else ""
        sections.append((f"On the {device.upper()}{name}", f"{text} {verdict(ratios)}{no_gpu}", columns, rows))
    sections.append(
        (
            "FlexAttention, compiled",
            "`torch.compile(expressive_flex_attention)`, all keys, forward, sizes as above: seconds of the first call, "
            "milliseconds of the best of the later ones, and the largest difference of its output from that of "
            f"`expressive_attention`. A compilation is given {PATIENCE} seconds.",
            ["device", "length", "compilation s", "flex ms", "expressive ms", "dot ms", "fused dot ms", "difference"],
            [row for device in DEVICES for row in flex_rows(device, lengths)],
        )
    )
    rows = list(squared_rows("cpu", sizes))
    faster = {
        width: [n for n, w in sizes if w == width and all(float(r[5]) < 1 for r in rows if r[:2] == (width, n))]
        for width in dict.fromkeys(w for _, w in sizes)
    }
    sections.append(
        (
            "Squared attention, causal, in linear time",
            "On the CPU, one head: `squared_attention` against all scores, `(q @ k.T)**2` below the diagonal. State: "
            "bytes it hands from step to step, whatever the length. Cache: bytes of the keys and values of the length, "
            "which attention with a cache would hold. "
            + " ".join(
                f"With {width} dimensions the linear form is faster, in both passes, "
                f"{f'from length {min(ns)}' if ns else 'nowhere'}."
                for width, ns in faster.items()
            ),
            [
                *("dimensions", "length", "pass", "linear ms", "quadratic ms", "time ratio"),
                *("linear MB", "quadratic MB", "state bytes", "cache bytes"),
            ],
            rows,
        )
    )
    write("bench_attention", "Expressive attention in PyTorch", sections, not quick, peers=["torch"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        torch.set_num_threads(2)
        print(json.dumps(CHILDREN[sys.argv[2]](*sys.argv[3:])))
    else:
        main()
