"""Expressive attention for PyTorch."""

import copy
import inspect
import pickle
from itertools import product

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from torch.nn import functional as F  # noqa: E402
from torch.nn.attention.flex_attention import create_block_mask  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from sklearn_attnembed import nn  # noqa: E402
from sklearn_attnembed.nn import (  # noqa: E402
    ExpressiveMultiheadAttention,
    SquaredRecurrentAttention,
    expressive_attention,
    expressive_flex_attention,
    expressive_score,
    squared_attention,
)

INF = torch.inf
HALF = (torch.float16, torch.bfloat16)
MODES = pytest.mark.parametrize("is_causal", [False, True], ids=["all", "causal"])
# What follows are warnings of PyTorch about itself.
NESTED = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
NOT_COMPILED = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
BETA = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True, but")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Run PyTorch on one thread: two would wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def randn(*shape, dtype=torch.float64, **settings):
    return torch.randn(*shape, dtype=dtype, **settings)


def close(actual, expected, atol=1e-9, rtol=1e-9):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol, check_dtype=False)


def definition(query, key, value, attn_mask=None, is_causal=False, scale=None, enable_gqa=False):
    """Compute expressive attention from all weights at once, with zeros for queries that may attend to no key."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // key.shape[-3], -3) for x in (key, value))
    z = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    weight = z**2 / (1 + z**2)
    if is_causal:
        weight = weight * torch.ones(z.shape[-2:]).tril()
    if attn_mask is not None:
        weight = weight * (attn_mask if attn_mask.dtype == torch.bool else attn_mask.to(z.dtype).exp())
    total = weight.sum(-1, keepdim=True)
    return weight / torch.where(total == 0, 1, total) @ value


def boolean(*shape):
    return torch.rand(shape) > 0.4


def alibi(length, n_keys):
    """Return a mask with one slope for each head (ALiBi)."""
    distance = (torch.arange(length)[:, None] - torch.arange(n_keys)).abs().double()
    return -(0.5 ** torch.arange(3.0))[:, None, None] * distance


# For each case: leading dimensions of query, key and value, and settings for L queries and S keys.
HEADS = ((2, 3),) * 3
CASES = {
    "no batch": (((),) * 3, lambda L, S: {}),
    "batch": (((2,),) * 3, lambda L, S: {}),
    "heads": (HEADS, lambda L, S: {}),
    "three dimensions": (((2, 1, 3),) * 3, lambda L, S: {}),
    "broadcast": (((2, 1), (3,), (1, 1)), lambda L, S: {}),
    "scale": (HEADS, lambda L, S: {"scale": 0.1}),
    "negative scale": (HEADS, lambda L, S: {"scale": -2.0}),
    "causal": (HEADS, lambda L, S: {"is_causal": True}),
    "causal, scale": (((),) * 3, lambda L, S: {"is_causal": True, "scale": 2.0}),
    "heads in groups": (((2, 4), (2, 2), (2, 2)), lambda L, S: {"enable_gqa": True}),
    "one group, causal": (((4,), (1,), (1,)), lambda L, S: {"enable_gqa": True, "is_causal": True}),
    "groups, mask": (((2, 4), (2, 2), (2, 2)), lambda L, S: {"enable_gqa": True, "attn_mask": boolean(2, 4, L, S)}),
    "mask 1-D": (HEADS, lambda L, S: {"attn_mask": boolean(S)}),
    "mask 2-D": (HEADS, lambda L, S: {"attn_mask": boolean(L, S)}),
    "mask 2-D, no batch": (((),) * 3, lambda L, S: {"attn_mask": boolean(L, S)}),
    "mask 4-D": (HEADS, lambda L, S: {"attn_mask": boolean(2, 3, L, S)}),
    "mask for all heads": (HEADS, lambda L, S: {"attn_mask": boolean(2, 1, L, S)}),
    "mask for all of the batch": (HEADS, lambda L, S: {"attn_mask": boolean(3, L, S)}),
    "mask for all queries": (HEADS, lambda L, S: {"attn_mask": boolean(2, 1, 1, S)}),
    "mask for all keys": (HEADS, lambda L, S: {"attn_mask": boolean(L, 1)}),
    "mask for all": (HEADS, lambda L, S: {"attn_mask": torch.ones(1, 1, 1, 1, dtype=bool)}),
    "mask, broadcast": (((2, 1), (3,), (1, 1)), lambda L, S: {"attn_mask": boolean(2, 3, L, S)}),
    "float mask": (HEADS, lambda L, S: {"attn_mask": 3 * randn(L, S)}),
    "float mask 4-D": (HEADS, lambda L, S: {"attn_mask": 3 * randn(2, 3, L, S)}),
    "float mask of another dtype": (HEADS, lambda L, S: {"attn_mask": randn(2, 1, L, S, dtype=torch.float32)}),
    "-inf": (HEADS, lambda L, S: {"attn_mask": torch.where(boolean(2, 1, L, S), randn(2, 1, L, S), -INF)}),
    "alibi": (HEADS, lambda L, S: {"attn_mask": alibi(L, S)}),
}
ALL = pytest.mark.parametrize("name", CASES)


def case(name, length=5, n_keys=7, **settings):
    """Return the arguments of a case."""
    leading, kwargs = CASES[name]
    sizes = ((length, 3), (n_keys, 3), (n_keys, 2))
    tensors = [randn(*lead, *size, **settings) for lead, size in zip(leading, sizes, strict=True)]
    return tensors, kwargs(length, n_keys)


# expressive_attention ------------------------------------------------------------------------------------
def test_signature_is_that_of_scaled_dot_product_attention():
    """PyTorch's function is a builtin, whose documentation begins with its signature."""
    parameters = inspect.signature(expressive_attention).parameters.values()
    ours = ", ".join(str(parameter.replace(annotation=parameter.empty)) for parameter in parameters)
    theirs = F.scaled_dot_product_attention.__doc__.split(")")[0].split("(")[1]
    assert ours == " ".join(theirs.split())
    assert ours == ("query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False")


@ALL
@pytest.mark.parametrize(("length", "n_keys"), [(5, 7), (7, 5), (6, 6), (1, 4), (4, 1)])
def test_attention_is_its_definition(name, length, n_keys):
    tensors, settings = case(name, length, n_keys)
    close(expressive_attention(*tensors, **settings), definition(*tensors, **settings))


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"mask 1-D", "float mask of another dtype"}))
def test_shape_is_that_of_dot_product_attention(name):
    """PyTorch's function takes neither masks of one dimension nor masks of another dtype, so these are left out."""
    tensors, settings = case(name)
    expected = F.scaled_dot_product_attention(*tensors, **settings)
    assert expressive_attention(*tensors, **settings).shape == expected.shape


@ALL
@pytest.mark.parametrize(("length", "n_keys"), [(40, 37), (37, 40)])
def test_blocks_are_one(monkeypatch, name, length, n_keys):
    """Outputs and gradients do not depend on the size of the blocks of queries and heads."""
    tensors, settings = case(name, length, n_keys, requires_grad=True)
    results = []
    for block in (1, 18 * n_keys, 2 * length * n_keys, 2**30):
        monkeypatch.setattr(nn, "_CPU_BLOCK", block)
        output = expressive_attention(*tensors, **settings)
        results.append((output, *torch.autograd.grad(output.sin().sum(), tensors)))
    expected = definition(*tensors, **settings)
    close(results[0], (expected, *torch.autograd.grad(expected.sin().sum(), tensors)))
    for result in results[1:]:
        close(result, results[0], atol=1e-12)


@ALL
def test_gradients(name):
    tensors, settings = case(name, 3, 4, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *t: expressive_attention(*t, **settings), tensors)


@ALL
def test_second_derivatives(name):
    tensors, settings = case(name, 3, 4, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda *t: expressive_attention(*t, **settings), tensors, fast_mode=True)


@pytest.mark.parametrize("shape", [(3, 4), (4,), (2, 1, 3, 4), (2, 3, 3, 4), (3, 1)])
def test_gradient_with_respect_to_a_float_mask(shape):
    tensors, _ = case("heads", 3, 4, requires_grad=True)
    mask = randn(*shape, requires_grad=True)
    assert torch.autograd.gradcheck(expressive_attention, (*tensors, mask))
    assert torch.autograd.gradgradcheck(expressive_attention, (*tensors, mask), fast_mode=True)
    by_func = torch.func.grad(lambda m: expressive_attention(*tensors, m).sin().sum())(mask)
    close(by_func, torch.autograd.grad(definition(*tensors, mask).sin().sum(), mask)[0])


def test_gradient_with_respect_to_one_of_three():
    tensors, _ = case("heads")
    for i in range(3):
        some = [tensor.clone().requires_grad_(i == j) for j, tensor in enumerate(tensors)]
        slopes = [
            torch.autograd.grad(attend(*some).sin().sum(), some[i])[0] for attend in (expressive_attention, definition)
        ]
        close(*slopes)


@pytest.mark.parametrize("batched", [p for p in product([0, None], repeat=4) if 0 in p], ids=str)
def test_vmap_and_func_grad(batched):
    """vmap may run over any of query, key, value and mask, also to get the gradients of every sample."""
    query, key, value, mask = randn(2, 5, 3), randn(2, 7, 3), randn(2, 7, 2), boolean(2, 5, 7)
    given = [x if b == 0 else x[0] for x, b in zip((query, key, value, mask), batched, strict=True)]
    rows = [x if b == 0 else x[:1].expand_as(x) for x, b in zip((query, key, value, mask), batched, strict=True)]
    close(torch.vmap(expressive_attention, batched)(*given), definition(*rows))

    def slopes(attend):
        return torch.func.grad(lambda *arguments: attend(*arguments).sin().sum(), (0, 1, 2))

    each = [slopes(definition)(*row) for row in zip(*rows, strict=True)]
    close(torch.vmap(slopes(expressive_attention), batched)(*given), tuple(map(torch.stack, zip(*each, strict=True))))


@pytest.mark.parametrize("batched", [p for p in product([0, None], repeat=3) if 0 in p], ids=str)
def test_gradients_through_vmap(batched):
    """Gradients may be taken outside of vmap."""
    tensors = [randn(*[2][: b == 0], n, 3, requires_grad=True) for n, b in zip((5, 7, 7), batched, strict=True)]
    ours, plain = torch.vmap(expressive_attention, batched)(*tensors), definition(*tensors)
    close(torch.autograd.grad(ours.sin().sum(), tensors), torch.autograd.grad(plain.sin().sum(), tensors))


def test_jacobian():
    (query, key, value), _ = case("batch")
    ours, plain = (
        torch.func.jacrev(lambda q, attend=attend: attend(q, key, value))(query)
        for attend in (expressive_attention, definition)
    )
    close(ours, plain)


def test_dropout_is_right_in_the_mean():
    (query, key, value), _ = case("no batch")
    draws = expressive_attention(query.expand(20000, -1, -1), key, value, dropout_p=0.3)
    close(draws.mean(0), definition(query, key, value), atol=0.03)
    assert draws.std(0).min() > 0.01
    assert torch.equal(expressive_attention(query, key, value, dropout_p=1.0), torch.zeros(5, 2).double())


@ALL
def test_nothing_is_dropped_with_a_tiny_probability(name):
    """The code path with dropout computes the same numbers as the one without."""
    tensors, settings = case(name)
    close(expressive_attention(*tensors, dropout_p=1e-12, **settings), definition(*tensors, **settings))


@pytest.mark.parametrize("size", [1e-8, 1e-4, 1e-2, 1, 1e2, 1e4, 1e8])
@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
@pytest.mark.parametrize("kind", [None, "causal", "boolean"])
def test_stable_in_low_precision(size, dtype, kind):
    """Errors are those of rounding in half precision, and no larger than those of the plain formula in float32."""
    settings = {None: {}, "causal": {"is_causal": True}, "boolean": {"attn_mask": boolean(20, 30)}}[kind]
    tensors = [randn(2, n, 8, dtype=dtype) for n in (20, 30, 30)]
    results = []
    for attend, work in ((expressive_attention, dtype), (definition, torch.float64), (definition, torch.float32)):
        inputs = [tensor.to(work, copy=True).requires_grad_() for tensor in tensors]
        output = attend(*inputs, **settings, scale=size)
        results.append((output, *torch.autograd.grad(output, inputs, torch.ones_like(output).cumsum(-1))))
    for ours, exact, plain in zip(*results, strict=True):
        assert ours.dtype == dtype
        assert ours.isfinite().all()
        rounding = 8 * torch.finfo(dtype).eps * exact.abs().max().clamp(min=1)
        assert (ours - exact).abs().max() < rounding + 16 * (plain - exact).abs().max()


@pytest.mark.parametrize("size", [3e4, 1e-4])
@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
def test_scores_beyond_the_range_of_half_precision(size, dtype):
    """3e4 squared overflows in float16, 1e-4 squared underflows."""
    query, key = (size * randn(10, 4, dtype=dtype).sign()).requires_grad_(), size * randn(12, 4, dtype=dtype).sign()
    value = randn(12, 3, dtype=dtype)
    output = expressive_attention(query, key, value)
    expected = definition(query.double(), key.double(), value.double())
    close(output.double(), expected, atol=8 * torch.finfo(dtype).eps)
    output.float().square().sum().backward()
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("way", ["blocks", "dropout", "weights", "mask with gradient"])
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-12, 1e-10, 1e-8, 1e8, 1e15])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_gradients_of_tiny_and_huge_scores_are_finite(way, size, dtype):
    query, key, value = (randn(n, 4, dtype=dtype, requires_grad=True) for n in (5, 6, 6))
    settings = {
        "blocks": {},
        "dropout": {"dropout_p": 0.5},
        "weights": {},
        "mask with gradient": {"attn_mask": torch.zeros(5, 6, dtype=dtype, requires_grad=True)},
    }[way]
    if way == "weights":
        attention = ExpressiveMultiheadAttention(4, 1, bias=False, dtype=dtype)
        with torch.no_grad():
            attention.in_proj_weight.mul_(size**0.5)
        output, weights = attention(query, key, value, need_weights=True)
        assert weights.isfinite().all()
    else:
        output = expressive_attention(query, key, value, scale=size, **settings)
    output.sum().backward()
    for tensor in (output, query.grad, key.grad, value.grad):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("size", [1e-6, 1.0])  # at zero they are beyond float32
def test_second_derivatives_of_tiny_scores_are_finite(size):
    tensors = [randn(n, 4, dtype=torch.float32, requires_grad=True) for n in (5, 6, 6)]
    output = expressive_attention(*tensors, scale=size)
    slopes = torch.autograd.grad(output.sum(), tensors, create_graph=True)
    plain = torch.autograd.grad(output.sum(), tensors, retain_graph=True)
    close(slopes, plain, atol=1e-5, rtol=1e-4)
    assert all(s.isfinite().all() for s in torch.autograd.grad(sum(s.sum() for s in slopes), tensors))


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
def test_query_without_any_score_attends_uniformly(dtype):
    """It attends to the keys that it may attend to, in the proportions of a floating mask."""
    key, value = torch.eye(6, dtype=dtype)[:, :5], torch.arange(12, dtype=dtype).reshape(6, 2)
    query, key = torch.zeros(3, 6, dtype=dtype), F.pad(key, (0, 1))
    query[:, 5] = 1
    close(expressive_attention(query, key, value), value.mean(0).expand(3, -1), rtol=1e-6)
    mask = torch.tensor([1, 0, 1, 0, 0, 1]).bool()
    close(expressive_attention(query, key, value, mask), value[mask].mean(0).expand(3, -1), rtol=1e-2)
    causal = torch.stack([value[: i + 1].mean(0) for i in range(3)])
    close(expressive_attention(query, key, value, is_causal=True), causal, rtol=1e-2)
    bias = torch.tensor([0, 1, 2, -1, 0, -INF], dtype=dtype)
    expected = bias.double().softmax(0) @ value.double()
    close(expressive_attention(query, key, value, bias), expected.expand(3, -1), rtol=1e-2)


@pytest.mark.parametrize("kind", ["boolean", "floating"])
@pytest.mark.parametrize("way", ["blocks", "dropout", "mask with gradient"])
def test_row_that_may_attend_to_nothing_gets_zeros(kind, way):
    tensors = [randn(n, 4, dtype=torch.float32, requires_grad=True) for n in (5, 6, 6)]
    mask = torch.ones(5, 6, dtype=bool)
    mask[2] = False
    if kind == "floating":
        mask = torch.zeros(5, 6).masked_fill(~mask, -INF).requires_grad_(way == "mask with gradient")
    output = expressive_attention(*tensors, mask, dropout_p=0.1 * (way == "dropout"))
    output.sin().sum().backward()
    assert torch.equal(output[2], torch.zeros(4))
    assert torch.equal(tensors[0].grad[2], torch.zeros(4))
    slopes = [t.grad for t in (*tensors, mask) if t.grad is not None]
    assert all(slope.isfinite().all() for slope in slopes)
    if mask.grad is not None:
        assert torch.equal(mask.grad[2], torch.zeros(6))


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_mask_counts_up_to_a_constant(offset):
    tensors, settings = case("float mask", dtype=torch.float32)
    mask = settings["attn_mask"].float()
    close(expressive_attention(*tensors, mask + offset), expressive_attention(*tensors, mask), atol=1e-2)


@pytest.mark.parametrize("dtype", HALF)
def test_autocast(dtype):
    """The output is in half precision, and as precise as without autocast."""
    tensors, settings = case("float mask", dtype=torch.float32, requires_grad=True)
    halves = [tensor.to(dtype) for tensor in tensors]
    with torch.autocast("cpu", dtype):
        output, same = (expressive_attention(*inputs, **settings) for inputs in (tensors, halves))
    assert output.dtype == same.dtype == dtype
    assert torch.equal(output, same)
    assert torch.equal(output, expressive_attention(*halves, **settings))
    output.sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in tensors)


def test_autocast_leaves_float64_alone():
    """PyTorch does so for dot-product attention."""
    tensors, _ = case("heads")
    with torch.autocast("cpu", torch.bfloat16):
        assert F.scaled_dot_product_attention(*tensors).dtype == torch.float64
        assert expressive_attention(*tensors).dtype == torch.float64


@pytest.mark.parametrize("name", ["heads", "causal", "mask 4-D", "float mask"])
def test_inputs_need_not_be_contiguous_and_are_not_modified(name):
    tensors, settings = case(name)
    strange = [tensor.mT.contiguous().mT.requires_grad_() for tensor in tensors]
    everything = [*strange, *(x for x in settings.values() if isinstance(x, torch.Tensor))]
    before = [(x._version, x.clone()) for x in everything]
    output = expressive_attention(*strange, **settings)
    close(output, definition(*tensors, **settings))
    output.sum().backward()
    assert all(x._version == version and torch.equal(x, y) for x, (version, y) in zip(everything, before, strict=True))
    sliced = [torch.stack([x, x], -1)[..., 0] for x in tensors]
    close(expressive_attention(*sliced, **settings), output)


@pytest.mark.parametrize(("length", "n_keys", "batch"), [(0, 3, 2), (3, 0, 2), (0, 0, 2), (3, 3, 0)])
@pytest.mark.parametrize("kind", [None, "causal", "boolean", "floating"])
def test_nothing_to_do(length, n_keys, batch, kind):
    """Without queries, keys or batch, shapes are those of dot-product attention, and outputs without keys are zero."""
    tensors = [randn(batch, n, 2, requires_grad=True) for n in (length, n_keys, n_keys)]
    settings = {
        None: {},
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": boolean(batch, length, n_keys)},
        "floating": {"attn_mask": randn(length, n_keys)},
    }[kind]
    output = expressive_attention(*tensors, **settings)
    assert torch.equal(output, torch.zeros(batch, length, 2))
    output.sum().backward()
    assert all(torch.equal(tensor.grad, torch.zeros_like(tensor)) for tensor in tensors)


class Largest(TorchDispatchMode):
    """Record the number of elements of the largest tensor created, apart from given ones."""

    def __init__(self, *given):
        super().__init__()
        self.given, self.most = {x.untyped_storage().data_ptr() for x in given}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in self.given:
                self.most = max(self.most, x.untyped_storage().nbytes() // x.element_size())
        return result


@pytest.mark.parametrize("kind", [None, "causal", "boolean", "floating"])
def test_no_matrix_of_all_scores(monkeypatch, kind):
    """Neither the forward nor the backward pass creates a matrix of all scores."""
    n = 2048
    monkeypatch.setattr(nn, "_CPU_BLOCK", 2**16)
    tensors = [randn(n, 16, dtype=torch.float32, requires_grad=True) for _ in range(3)]
    mask = {"boolean": boolean(n, n), "floating": randn(n, n, dtype=torch.float32)}.get(kind)
    with Largest(*tensors, *([] if mask is None else [mask])) as made:
        expressive_attention(*tensors, mask, is_causal=kind == "causal").sum().backward()
    assert n * 16 <= made.most < n * n / 4


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"key": randn(2, 4, 7, 2)}, r"query and key need the same last dimension.*\(2, 4, 7, 2\)"),
        ({"value": randn(2, 4, 6, 3)}, "key and value the same length"),
        ({"query": randn(3)}, r"query must be .* of at least two dimensions.*shape \(3,\)"),
        (
            {"value": randn(2, 4, 7, 3).float()},
            r"value must be .*of the dtype of query; got .*torch.float32, query has",
        ),
        ({"key": torch.ones(2, 4, 7, 3, dtype=int)}, "key must be a floating tensor.*torch.int64"),
        ({"query": torch.ones(2, 4, 5, 3, dtype=int)}, "query must be a floating tensor.*torch.int64"),
        ({"is_causal": True, "attn_mask": boolean(5, 7)}, "both given: put the causal part into the mask"),
        ({"attn_mask": torch.ones(5, 7, dtype=int)}, r"attn_mask must be boolean.*or floating.*got torch.int64"),
        ({"enable_gqa": True, "key": randn(2, 3, 7, 3)}, "multiple of those of key and value; got shapes"),
        ({"enable_gqa": True, "key": randn(2, 2, 7, 3)}, "multiple of those of key and value; got shapes"),
        ({"enable_gqa": True, "query": randn(5, 3)}, "needs heads in dimension -3"),
    ],
)
def test_attention_explains_bad_input(change, match):
    given = {"query": randn(2, 4, 5, 3), "key": randn(2, 4, 7, 3), "value": randn(2, 4, 7, 3)}
    with pytest.raises(ValueError, match=match):
        expressive_attention(**given | change)


@pytest.mark.parametrize("shape", [(6,), (5, 6), (9, 7), (4, 7), (3, 5, 7), (5, 5, 7), (1, 2, 5, 7)])
def test_mask_of_a_wrong_shape(shape):
    """A mask that is too long is refused like one that is too short."""
    tensors, _ = case("batch")
    for mask in (boolean(*shape), randn(*shape)):
        with pytest.raises((ValueError, RuntimeError)):
            expressive_attention(*tensors, mask)


def test_leading_dimensions_that_do_not_broadcast():
    with pytest.raises((ValueError, RuntimeError)):
        expressive_attention(randn(2, 5, 3), randn(3, 5, 3), randn(3, 5, 3))


@NESTED
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_refused(layout):
    nested = torch.nested.nested_tensor([torch.randn(3, 4), torch.randn(2, 4)], layout=layout)
    with pytest.raises(ValueError, match="no nested tensors: pad them"):
        expressive_attention(nested, nested, nested)


# FlexAttention -------------------------------------------------------------------------------------------
def test_score_is_the_logarithm_of_the_weight():
    z = torch.tensor([-3.0, -1, -1e-3, 1e-3, 0.5, 2, 1e3, 1e9])
    close(expressive_score(z, 0, 0, 0, 0).exp(), z**2 / (1 + z**2), rtol=1e-5)
    assert expressive_score(torch.zeros(1), 0, 0, 0, 0).isfinite()


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
def test_score_is_finite_in_every_precision(dtype):
    """This includes scores whose squares overflow, such as 300 in float16."""
    z = torch.tensor([0, 1e-3, 1, 300, 3e4 if dtype == torch.float16 else 1e15], dtype=dtype, requires_grad=True)
    log_weight = expressive_score(z, 0, 0, 0, 0)
    log_weight.sum().backward()
    assert log_weight.isfinite().all()
    assert z.grad.isfinite().all()


@NOT_COMPILED
@pytest.mark.parametrize("kind", ["plain", "scale", "groups", "window", "alibi"])
def test_flex_attention_is_the_same(kind):
    n_heads = 2 if kind == "groups" else 4
    query, key, value = randn(2, 4, 128, 4), randn(2, n_heads, 256, 4), randn(2, n_heads, 256, 4)
    i, j = torch.arange(128)[:, None], torch.arange(256)
    flex, ours = {
        "plain": ({}, {}),
        "scale": ({"scale": 0.2}, {"scale": 0.2}),
        "groups": ({"enable_gqa": True}, {"enable_gqa": True}),
        "window": (
            {
                "block_mask": create_block_mask(
                    lambda b, h, i, j: (i >= j) & (i - j < 9) & (i != 5), None, None, 128, 256, device="cpu"
                )
            },
            {"attn_mask": (i >= j) & (i - j < 9) & (i != 5)},
        ),
        "alibi": (
            {"score_mod": lambda score, b, h, i, j: score - (i - j).abs() * 0.5**h},
            {"attn_mask": -(i - j).abs() * 0.5 ** torch.arange(4)[:, None, None].double()},
        ),
    }[kind]
    query[..., 3, :] = 0  # attends uniformly
    close(expressive_flex_attention(query, key, value, **flex), expressive_attention(query, key, value, **ours), 1e-8)


# squared_attention ---------------------------------------------------------------------------------------
def quadratic(query, key, value, is_causal=False):
    """Compute squared attention by its definition."""
    weight = (query @ key.mT) ** 2
    if is_causal:
        weight = weight.tril()
    return weight / weight.sum(-1, keepdim=True) @ value


@MODES
@pytest.mark.parametrize("length", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_squared_attention_is_quadratic_attention(is_causal, length, leading):
    query, key, value = (randn(*leading, length, size) for size in (5, 5, 3))
    expected = quadratic(query, key, value, is_causal)
    output, state = squared_attention(query, key, value, is_causal)
    close(output, expected, atol=1e-9)
    assert [tuple(part.shape) for part in state] == [(*leading, 15, 4), (*leading, 1, 4), (*leading, 1, 1)]
    single, _ = squared_attention(query.float(), key.float(), value.float(), is_causal)
    assert single.dtype == torch.float32
    close(single, expected, atol=2e-3)


def test_squared_attention_with_more_keys_than_queries():
    query, key, value = randn(70, 4), randn(200, 4), randn(200, 3)
    close(squared_attention(query, key, value)[0], quadratic(query, key, value))


@pytest.mark.parametrize("dtype", HALF)
@MODES
def test_squared_attention_in_half_precision(dtype, is_causal):
    """This holds under autocast as well; the state is in float32."""
    tensors = [randn(100, 4, dtype=dtype) for _ in range(3)]
    expected = quadratic(*(tensor.double() for tensor in tensors), is_causal)
    output, state = squared_attention(*tensors, is_causal)
    assert output.dtype == dtype
    assert all(part.dtype == torch.float32 for part in state)
    close(output.double(), expected, atol=2e-3 + 4 * torch.finfo(dtype).eps)
    with torch.autocast("cpu", dtype):
        close(squared_attention(*tensors, is_causal)[0].double(), expected, atol=2e-3 + 4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("cuts", [[1] * 130, [64, 66], [63, 1, 66], [65, 0, 65], [130]])
def test_state_is_carried_on(cuts):
    query, key, value = (randn(2, 130, size) for size in (4, 4, 3))
    state, outputs = None, []
    for parts in zip(*(x.split(cuts, 1) for x in (query, key, value)), strict=True):
        output, state = squared_attention(*parts, is_causal=True, state=state)
        outputs.append(output)
    expected, last = squared_attention(query, key, value, is_causal=True)
    close(torch.cat(outputs, 1), expected)
    close(tuple(state), tuple(last))


def test_state_does_not_grow():
    state, sizes = None, set()
    for length in (1, 100, 1000):
        tensors = [randn(length, 4) for _ in range(3)]
        state = squared_attention(*tensors, is_causal=True, state=state)[1]
        sizes.add(sum(part.untyped_storage().nbytes() for part in state))
    assert sizes == {8 * (10 * 5 + 5 + 1)}


@MODES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squared_attention_without_any_score_is_uniform(is_causal, dtype):
    """Queries of zeros, and queries orthogonal to all keys, attend uniformly."""
    key, value = randn(100, 4, dtype=dtype), randn(100, 3, dtype=dtype)
    key[:, 0] = 0
    query = torch.zeros(100, 4, dtype=dtype)
    query[::2, 0] = torch.rand(50, dtype=dtype)
    query.requires_grad_()
    counts = torch.arange(1, 101, dtype=dtype)[:, None]
    expected = value.cumsum(0) / counts if is_causal else value.mean(0).expand(100, -1)
    output, _ = squared_attention(query, key, value, is_causal)
    close(output, expected, atol=2e-3 if dtype == torch.float32 else 1e-6)
    output.sum().backward()
    assert query.grad.isfinite().all()


@MODES
def test_gradients_of_squared_attention(is_causal):
    tensors = [randn(2, 66, 2, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *t: squared_attention(*t, is_causal)[0], tensors, fast_mode=True)
    plain, ours = (
        torch.autograd.grad(output.sin().sum(), tensors)
        for output in (quadratic(*tensors, is_causal), squared_attention(*tensors, is_causal)[0])
    )
    close(plain, ours, atol=1e-6, rtol=1e-5)


def test_gradients_go_through_the_state():
    first, second = ([randn(3, 2, requires_grad=True) for _ in range(3)] for _ in range(2))

    def both(*tensors):
        output, state = squared_attention(*tensors[:3], is_causal=True)
        return output, squared_attention(*tensors[3:], is_causal=True, state=state)[0]

    assert torch.autograd.gradcheck(both, (*first, *second))


@pytest.mark.parametrize(
    ("shapes", "is_causal", "match"),
    [
        (((2, 5, 3), (5, 3), (5, 3)), False, "equal leading dimensions"),
        (((4, 3), (5, 3), (5, 3)), True, r"if is_causal, equal lengths; got shapes \(4, 3\)"),
        (((5, 3), (5, 2), (5, 3)), False, "same last dimension"),
        (((3,), (5, 3), (5, 3)), False, "at least two dimensions"),
    ],
)
def test_squared_attention_explains_bad_input(shapes, is_causal, match):
    with pytest.raises(ValueError, match=match):
        squared_attention(*(randn(*shape) for shape in shapes), is_causal)


# ExpressiveMultiheadAttention ----------------------------------------------------------------------------
KINDS = {
    "plain": {},
    "no bias": {"bias": False},
    "further key": {"add_bias_kv": True},
    "further zeros": {"add_zero_attn": True},
    "both further": {"add_bias_kv": True, "add_zero_attn": True},
    "widths": {"kdim": 5, "vdim": 6},
    "widths, no bias, further": {"kdim": 5, "vdim": 6, "bias": False, "add_bias_kv": True, "add_zero_attn": True},
    "batch first": {"batch_first": True},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def pair(**settings):
    """Return PyTorch's module and ours with the same parameters, in float64, with 8 features and 2 heads."""
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(8, 2, **settings, dtype=torch.float64)
    torch.manual_seed(0)
    return theirs, ExpressiveMultiheadAttention(8, 2, **settings, dtype=torch.float64)


def written_out(module, query, key, value, attn_mask=None, key_padding_mask=None):
    """Compute output (N, L, 8) and weights (N, 2, L, S) by a loop over samples and heads."""
    if module.in_proj_weight is None:
        matrices = module.q_proj_weight, module.k_proj_weight, module.v_proj_weight
    else:
        matrices = module.in_proj_weight.split(8)
    biases = (0, 0, 0) if module.in_proj_bias is None else module.in_proj_bias.split(8)
    q, k, v = (x @ m.T + b for x, m, b in zip((query, key, value), matrices, biases, strict=True))
    outputs, weights = [], []
    for n, head in product(range(len(q)), range(2)):
        part = slice(4 * head, 4 * head + 4)
        keys, values = k[n, :, part], v[n, :, part]
        log_factor = torch.zeros(q.shape[1], k.shape[1], dtype=torch.float64)
        for mask in (
            attn_mask if attn_mask is None or attn_mask.dim() == 2 else attn_mask[2 * n + head],
            None if key_padding_mask is None else key_padding_mask[n],
        ):
            if mask is not None:
                log_factor = log_factor + (torch.where(mask, -INF, 0.0) if mask.dtype == torch.bool else mask)
        if module.bias_k is not None:
            keys, values = (torch.cat([x, b[0, :, part]]) for x, b in ((keys, module.bias_k), (values, module.bias_v)))
        if module.add_zero_attn:
            keys, values = (torch.cat([x, torch.zeros(1, 4)]) for x in (keys, values))
        z = q[n, :, part] @ keys.T / 2
        weight = z**2 / (1 + z**2) * F.pad(log_factor, (0, len(keys) - k.shape[1])).exp()
        weight = weight / weight.sum(-1, keepdim=True)
        outputs.append(weight @ values)
        weights.append(weight)
    weights = torch.stack(weights).unflatten(0, (-1, 2))
    outputs = torch.stack(outputs).unflatten(0, (-1, 2)).transpose(1, 2).flatten(2)
    bias = 0 if module.out_proj.bias is None else module.out_proj.bias
    return outputs @ module.out_proj.weight.T + bias, weights


def sequences(kind="plain", length=5, n_keys=6, n=3):
    """Return queries, keys and values with the batch first."""
    settings = KINDS[kind]
    return randn(n, length, 8), randn(n, n_keys, settings.get("kdim", 8)), randn(n, n_keys, settings.get("vdim", 8))


def test_signatures_are_those_of_multihead_attention():
    ours, theirs = (
        [[(p.name, p.default, p.kind) for p in inspect.signature(call).parameters.values()] for call in calls]
        for calls in (
            (ExpressiveMultiheadAttention, ExpressiveMultiheadAttention.forward),
            (torch.nn.MultiheadAttention, torch.nn.MultiheadAttention.forward),
        )
    )
    assert ours == theirs


@EVERY_KIND
def test_state_dict_goes_both_ways(kind):
    theirs, ours = pair(**KINDS[kind])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))  # the same initialisation
    for source, target in ((theirs, ours), (ours, theirs)):
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.normal_()
        target.load_state_dict(source.state_dict())
        assert all(map(torch.equal, target.parameters(), source.parameters()))


@EVERY_KIND
@pytest.mark.parametrize("masks", ["none", "boolean", "floating", "mixed", "per head"])
def test_module_is_its_definition(kind, masks):
    """Outputs with and without weights, and the weights, are those of the definition."""
    _, module = pair(**KINDS[kind])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    query, key, value = sequences(kind)
    padding = torch.zeros(3, 6, dtype=bool)
    padding[1, 4:] = padding[2, :1] = True
    forbidden = torch.ones(5, 6, dtype=bool).triu(2)
    given = {
        "none": {},
        "boolean": {"attn_mask": forbidden, "key_padding_mask": padding},
        "floating": {"attn_mask": randn(5, 6), "key_padding_mask": torch.where(padding, -INF, randn(3, 6))},
        "mixed": {"attn_mask": randn(5, 6), "key_padding_mask": padding},
        "per head": {"attn_mask": torch.where(forbidden, -INF, randn(6, 5, 6)), "key_padding_mask": padding},
    }[masks]
    expected, weights = written_out(module, query, key, value, **given)
    swap = (lambda x: x) if module.batch_first else (lambda x: x.transpose(0, 1))
    inputs = [swap(x) for x in (query, key, value)]
    for average in (True, False):
        output, ours = module(*inputs, **given, average_attn_weights=average)
        close(swap(output), expected)
        close(ours, weights.mean(1) if average else weights)
        close(ours.sum(-1), torch.ones(ours.shape[:-1]))
    output, none = module(*inputs, **given, need_weights=False)
    close(swap(output), expected)
    assert none is None


def test_boolean_masks_of_every_head():
    _, module = pair(batch_first=True)
    inputs, mask = sequences(), boolean(6, 5, 6)
    mask[..., 0] = False
    expected, weights = written_out(module, *inputs, mask)
    close(module(*inputs, attn_mask=mask, average_attn_weights=False), (expected, weights))


@pytest.mark.parametrize(
    "settings",
    list(product([False, True], [False, True], [False, True], [False, True], [False, True])),
    ids=lambda s: "".join("01"[x] for x in s),
)
def test_shapes_are_those_of_multihead_attention(settings):
    batch_first, is_batched, need_weights, average, masked = settings
    query, key, value = (x[0] for x in sequences()) if not is_batched else sequences()
    if is_batched and not batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    masks = {"key_padding_mask": torch.zeros(3, 6, dtype=bool), "attn_mask": torch.zeros(6, 5, 6, dtype=bool)}
    if not is_batched:
        masks = {"key_padding_mask": torch.zeros(6, dtype=bool), "attn_mask": torch.zeros(2, 5, 6, dtype=bool)}
    theirs, ours = (
        module(query, key, value, need_weights=need_weights, average_attn_weights=average, **(masks if masked else {}))
        for module in pair(batch_first=batch_first)
    )
    assert [None if x is None else x.shape for x in ours] == [None if x is None else x.shape for x in theirs]


def test_one_sequence_is_a_batch_of_one():
    _, module = pair()
    query, key, value = sequences(n=1)
    forbidden, padding = torch.ones(5, 6, dtype=bool).triu(2), torch.arange(6) == 1
    expected, weights = written_out(module, query, key, value, forbidden, padding[None])
    output, ours = module(query[0], key[0], value[0], padding, attn_mask=forbidden, average_attn_weights=False)
    close((output, ours), (expected[0], weights[0]))
    close(module(query[0], key[0], value[0], padding, False, forbidden)[0], output)


@EVERY_KIND
@pytest.mark.parametrize("n_keys", [4, 5, 6])
@pytest.mark.parametrize("padded", [False, True])
def test_hint_of_a_causal_mask_changes_nothing(kind, n_keys, padded):
    _, module = pair(**KINDS[kind] | {"batch_first": True})
    inputs = sequences(kind, n_keys=n_keys)
    padding = torch.zeros(3, n_keys, dtype=bool)
    padding[0, 3:] = True
    masks = {"attn_mask": torch.ones(5, n_keys, dtype=bool).triu(1), "key_padding_mask": padding if padded else None}
    expected = module(*inputs, **masks)
    close(module(*inputs, **masks, is_causal=True), expected)
    for is_causal in (False, True):
        close(module(*inputs, **masks, need_weights=False, is_causal=is_causal)[0], expected[0])


@pytest.mark.parametrize("need_weights", [False, True])
def test_sample_of_padding_only(need_weights):
    """Outputs are those of the bias, and neither they nor gradients are NaN."""
    _, module = pair(batch_first=True)
    torch.nn.init.ones_(module.out_proj.bias)
    x = randn(2, 5, 8, requires_grad=True)
    padding = torch.tensor([[True] * 5, [False] * 5])
    output, _ = module(x, x, x, padding, need_weights=need_weights)
    close(output[0], torch.ones(5, 8))
    output.sum().backward()
    assert torch.equal(x.grad[0], torch.zeros(5, 8))
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("kind", ["further zeros", "both further"])
def test_gradients_with_keys_of_zeros(kind, need_weights):
    """In float32, squares of tiny weights underflow; gradients stay finite."""
    module = ExpressiveMultiheadAttention(8, 2, **KINDS[kind])
    x = torch.randn(5, 3, 8, requires_grad=True)
    module(x, x, x, need_weights=need_weights)[0].sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@EVERY_KIND
def test_gradients_reach_all_parameters(kind):
    _, module = pair(**KINDS[kind] | {"batch_first": True})
    query, key, value = sequences(kind)
    slopes = [
        torch.autograd.grad(output.sin().sum(), list(module.parameters()))
        for output in (
            module(query, key, value, need_weights=False)[0],
            module(query, key, value)[0],
            written_out(module, query, key, value)[0],
        )
    ]
    assert all(slope.abs().max() > 0 for slope in slopes[0])
    close(slopes[0], slopes[2])
    close(slopes[1], slopes[2])


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_of_the_module(need_weights):
    """Dropout acts in training only."""
    _, module = pair(dropout=0.5)
    inputs = [x.transpose(0, 1) for x in sequences()]
    assert not torch.equal(*(module(*inputs, need_weights=need_weights)[0] for _ in range(2)))
    module.eval()
    expected, _ = written_out(module, *(x.transpose(0, 1) for x in inputs))
    close(module(*inputs, need_weights=need_weights)[0].transpose(0, 1), expected)


def test_module_under_autocast():
    module = ExpressiveMultiheadAttention(8, 2, add_bias_kv=True)
    x = torch.randn(5, 3, 8)
    expected = module(x, x, x)
    with torch.autocast("cpu", torch.bfloat16):
        for need_weights in (False, True):
            output, weights = module(x, x, x, need_weights=need_weights)
            assert output.dtype == torch.bfloat16
            close(output.float(), expected[0], atol=0.03)
    close(weights.float(), expected[1], atol=0.03)


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
def test_module_has_a_dtype(dtype):
    module = ExpressiveMultiheadAttention(8, 2, dtype=dtype, device="cpu")
    x = torch.randn(5, 3, 8, dtype=dtype)
    output, weights = module(x, x, x)
    assert output.dtype == weights.dtype == dtype
    assert all(parameter.dtype == dtype for parameter in module.parameters())


def test_module_has_a_device():
    module = ExpressiveMultiheadAttention(8, 2, device="meta")
    assert all(parameter.is_meta for parameter in module.parameters())
    x = torch.empty(5, 3, 8, device="meta")
    assert module(x, x, x, need_weights=False)[0].shape == (5, 3, 8)


@EVERY_KIND
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_the_same(kind, copied):
    _, module = pair(**KINDS[kind] | {"batch_first": True})
    other, inputs = copied(module), sequences(kind)
    assert type(other) is ExpressiveMultiheadAttention
    close(other(*inputs), module(*inputs), atol=0, rtol=0)
    other.train(False)
    with torch.no_grad():
        close(other(*inputs), module(*inputs), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"is_causal": True}, "attn_mask is None. Pass the mask too"),
        ({"query": randn(8)}, "need 3 dimensions, or 2 without a batch; got 1, 3 and 3"),
        ({"key": randn(6, 8)}, "got 3, 2 and 3"),
        ({"attn_mask": boolean(5, 5)}, r"attn_mask must be boolean.*\(5, 6\) or \(6, 5, 6\); got torch.bool of shape"),
        ({"attn_mask": boolean(3, 5, 6)}, r"attn_mask .*shape \(3, 5, 6\)"),
        ({"attn_mask": torch.ones(5, 6, dtype=int)}, "attn_mask .*got torch.int64"),
        ({"key_padding_mask": boolean(3, 5)}, r"key_padding_mask .*\(3, 6\).* of shape \(3, 5\)"),
        ({"key_padding_mask": torch.ones(3, 6, dtype=torch.uint8)}, "key_padding_mask .*got torch.uint8"),
    ],
)
def test_module_explains_bad_input(change, match):
    _, module = pair(batch_first=True)
    inputs = dict(zip(("query", "key", "value"), sequences(), strict=True))
    with pytest.raises(ValueError, match=match):
        module(**inputs | change)


# in a transformer ----------------------------------------------------------------------------------------
def encoder_layer(**settings):
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, dtype=torch.float64, **settings)
    attention = ExpressiveMultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    attention.load_state_dict(layer.self_attn.state_dict())
    layer.self_attn = attention
    return layer


def in_every_mode(module, *inputs, **settings):
    """Return outputs in training, in evaluation, and in evaluation without gradients, where PyTorch has a fast path."""
    yield module.train()(*inputs, **settings)
    yield module.eval()(*inputs, **settings)
    with torch.no_grad():
        yield module(*inputs, **settings)
    with torch.inference_mode():
        yield module(*inputs, **settings)


PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
CAUSAL = torch.nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"src_key_padding_mask": PADDING},
        {"src_mask": CAUSAL, "is_causal": True},
        {"src_mask": CAUSAL == -INF, "src_key_padding_mask": PADDING},
    ],
    ids=["none", "padding", "causal", "both"],
)
def test_encoder_layer_does_not_bypass_expressive_attention(norm_first, masks):
    layer, x = encoder_layer(norm_first=norm_first), randn(2, 5, 8)
    first, *others = in_every_mode(layer, x, **masks)
    for other in others:
        close(other, first)
    y = layer.norm1(x) if norm_first else x
    named = {"attn_mask": masks.get("src_mask"), "key_padding_mask": masks.get("src_key_padding_mask")}
    y = x + written_out(layer.self_attn, y, y, y, **named)[0]
    y = y + layer._ff_block(layer.norm2(y)) if norm_first else layer.norm2((z := layer.norm1(y)) + layer._ff_block(z))
    close(first, y)


@pytest.mark.parametrize("masks", [{}, {"src_key_padding_mask": PADDING}, {"mask": CAUSAL}], ids=str)
def test_encoder(masks):
    encoder, x = torch.nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False), randn(2, 5, 8)
    first, *others = in_every_mode(encoder, x, **masks)
    assert not torch.equal(first, x)
    for other in others:
        close(other, first)


@BETA
def test_encoder_that_would_like_nested_tensors():
    encoder, x = torch.nn.TransformerEncoder(encoder_layer(), 2), randn(2, 5, 8)
    first, *others = in_every_mode(encoder, x, src_key_padding_mask=PADDING)
    for other in others:
        close(other, first)


@NESTED
def test_attention_put_into_a_ready_encoder_does_not_take_its_nested_tensors():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    encoder, x = torch.nn.TransformerEncoder(layer, 2), torch.randn(2, 5, 8)
    for layer in encoder.layers:
        layer.self_attn = ExpressiveMultiheadAttention(8, 2, batch_first=True)
    first, *others = in_every_mode(encoder, x)
    for other in others:
        close(other, first, atol=1e-6)
    encoder.train()(x, src_key_padding_mask=PADDING)
    with torch.no_grad(), pytest.raises(ValueError, match="enable_nested_tensor=False"):
        encoder.eval()(x, src_key_padding_mask=PADDING)


def test_decoder_layer():
    layer = torch.nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True, dtype=torch.float64)
    for name in ("self_attn", "multihead_attn"):
        attention = ExpressiveMultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
        attention.load_state_dict(getattr(layer, name).state_dict())
        setattr(layer, name, attention)
    x, memory = randn(2, 5, 8), randn(2, 5, 8)
    first, *others = in_every_mode(
        layer, x, memory, tgt_mask=CAUSAL, tgt_is_causal=True, memory_key_padding_mask=PADDING
    )
    for other in others:
        close(other, first)
    y = layer.norm1(x + written_out(layer.self_attn, x, x, x, CAUSAL)[0])
    y = layer.norm2(y + written_out(layer.multihead_attn, y, memory, memory, None, PADDING)[0])
    close(first, layer.norm3(y + layer._ff_block(y)))


# SquaredRecurrentAttention -------------------------------------------------------------------------------
def test_steps_are_the_whole():
    module, x = SquaredRecurrentAttention(8, 2, dtype=torch.float64), randn(70, 3, 8)
    whole, last = module(x)
    state, steps = None, []
    for step in x.split(1):
        output, state = module(step, state)
        steps.append(output)
    close(torch.cat(steps), whole)
    close(tuple(state), tuple(last))
    q, k, v = (part.unflatten(-1, (2, 4)).permute(1, 2, 0, 3) for part in module.in_proj(x).chunk(3, -1))
    close(whole, module.out_proj(quadratic(q, k, v, True).permute(2, 0, 1, 3).flatten(2)))


def test_batch_first_and_no_batch():
    module, x = SquaredRecurrentAttention(8, 2, batch_first=True, dtype=torch.float64), randn(3, 7, 8)
    other = SquaredRecurrentAttention(8, 2, dtype=torch.float64)
    other.load_state_dict(module.state_dict())
    output, state = module(x)
    assert output.shape == x.shape
    assert state.moments.shape == (3, 2, 10, 5)
    close(other(x.transpose(0, 1))[0].transpose(0, 1), output)
    for one in (module, other):
        close(one(x[1])[0], output[1])


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_reach_all_parameters_through_time(bias):
    """The loss is that of the last step, which depends on all earlier ones."""
    module, x = SquaredRecurrentAttention(8, 2, bias), torch.randn(5, 3, 8, requires_grad=True)
    _, state = module(x[:4])
    module(x[4:], state)[0].sin().sum().backward()
    assert len(list(module.parameters())) == 2 + 2 * bias
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())
    assert (x.grad.abs().amax((1, 2)) > 0).all()


@pytest.mark.parametrize(("embed_dim", "num_heads"), [(8, 3), (0, 1), (8, 0)])
def test_heads_share_the_width(embed_dim, num_heads):
    with pytest.raises(ValueError, match=f"positive multiple of num_heads; got {embed_dim} and {num_heads}"):
        SquaredRecurrentAttention(embed_dim, num_heads)
