"""Expressive attention for PyTorch, with the interfaces of PyTorch's own attention.

This module needs PyTorch, which the extra ``torch`` installs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from math import prod, sqrt
from typing import TYPE_CHECKING, NamedTuple

try:
    import torch
except ImportError as error:
    raise ImportError(
        "sklearn_attnembed.nn needs PyTorch, which is not installed. Install it with the extra: "
        "pip install 'sklearn-attnembed[torch]'"
    ) from error
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

__all__ = [
    "ExpressiveMultiheadAttention",
    "SquaredRecurrentAttention",
    "SquaredState",
    "expressive_attention",
    "expressive_flex_attention",
    "expressive_score",
    "squared_attention",
]

# A weight is (z^2 + _FLOOR) / (1 + z^2 + _FLOOR), so that a query whose scores are all zero attends uniformly.
_FLOOR = 1e-30
# Number of scores in a block: 4 MB in float32 on a CPU, which fit its cache. On other devices kernel launches cost more
# than memory, so blocks are larger.
_CPU_BLOCK, _DEVICE_BLOCK = 2**20, 2**26
# Number of queries in a block of causal squared attention.
_CHUNK = 64


# expressive attention --------------------------------------------------------------------------------
def expressive_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute expressive attention, with the signature of PyTorch's scaled dot-product attention.

    The output for query i is ``sum_j a_ij v_j`` with ``a_ij = w_ij / sum_j w_ij``, ``w = z^2 / (1 + z^2)`` and
    ``z = scale q . k`` [1]_. Arguments are those of :func:`torch.nn.functional.scaled_dot_product_attention`. Scores
    are computed block by block, also in the backward pass, so memory is linear in the lengths except for one block of
    at most 4 MB (on a CPU). Inputs in half precision are computed in float32, also under autocast.

    Parameters
    ----------
    query : Tensor of shape (..., L, E)
        Queries. Leading dimensions, such as batch and heads, are broadcast.
    key : Tensor of shape (..., S, E)
        Keys.
    value : Tensor of shape (..., S, Ev)
        Values.
    attn_mask : Tensor broadcastable to (..., L, S), default=None
        Attention mask. A boolean mask is True where a query may attend. A floating mask is added to the logarithm of
        the weight, as it is added to the score in softmax attention; -inf forbids a pair.
    dropout_p : float, default=0.0
        Probability with which a weight is set to zero. If it is positive, all weights are held in memory at once.
    is_causal : bool, default=False
        Whether query i attends to keys 0 to i only. Cannot be combined with `attn_mask`.
    scale : float, default=None
        Factor by which dot products are multiplied; ``1 / sqrt(E)`` if None.
    enable_gqa : bool, default=False
        Whether to use grouped-query attention, in which each head of keys and values (dimension -3) serves several
        heads of queries.

    Returns
    -------
    Tensor of shape (..., L, Ev)
        Attended values, of the dtype of `query`. A query whose scores are all zero attends uniformly to the keys that
        it may attend to. A query that may attend to no key gets zeros.

    Raises
    ------
    ValueError
        If shapes or dtypes do not match, or if a mask is given together with `is_causal`.

    See Also
    --------
    ExpressiveMultiheadAttention : Module with projections and heads.
    expressive_flex_attention : Variant with block masks, one fused kernel when compiled.
    sklearn_attnembed.attention : The same on arrays, without gradients.

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    A query attends equally to parallel and antiparallel keys, and not to orthogonal ones:

    >>> import torch
    >>> from sklearn_attnembed.nn import expressive_attention
    >>> keys, values = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0], [2.0], [9.0]])
    >>> expressive_attention(torch.tensor([[3.0, 0.0]]), keys, values)
    tensor([[1.5000]])
    """
    query, key, value = _autocast(query, key, value)
    if enable_gqa:
        key, value = _repeat_heads(query, key, value)
    _check(query, key, value, attn_mask, is_causal)
    scale = 1 / sqrt(query.shape[-1]) if scale is None else scale
    with _no_autocast(query.device.type):
        is_learned = attn_mask is not None and attn_mask.requires_grad and torch.is_grad_enabled()
        if dropout_p > 0 or is_learned:
            return _at_once(query, key, value, attn_mask, is_causal, scale, dropout_p)[0]
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
        return _InBlocks.apply(query, key, value, attn_mask, is_causal, scale, keep)[0]


def _autocast(*tensors):
    """Return the tensors in the dtype of autocast, if it is enabled."""
    device = tensors[0].device.type
    if not _is_autocast(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors)


def _is_autocast(device):
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _no_autocast(device):
    """Return a context in which autocast is disabled."""
    return torch.autocast(device, enabled=False) if _is_autocast(device) else nullcontext()


def _repeat_heads(query, key, value):
    """Repeat the heads of keys and values to as many as the queries have."""
    if (
        min(query.dim(), key.dim(), value.dim()) < 3
        or query.shape[-3] % key.shape[-3]
        or key.shape[-3] != value.shape[-3]
    ):
        raise ValueError(
            "enable_gqa=True needs heads in dimension -3, those of query a multiple of those of key and value; got "
            f"shapes {tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}. Pass (..., heads, length, width)."
        )
    times = query.shape[-3] // key.shape[-3]
    return key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)


def _check(query, key, value, attn_mask, is_causal):
    """Raise an error for arguments that do not match, before anything is computed."""
    _refuse_nested(query, key, value)
    names = zip(("query", "key", "value"), (query, key, value), strict=True)
    for name, tensor in names:
        if tensor.dim() < 2 or not tensor.is_floating_point() or tensor.dtype != query.dtype:
            raise ValueError(
                f"{name} must be a floating tensor of at least two dimensions, of the dtype of query; got shape "
                f"{tuple(tensor.shape)} and {tensor.dtype}, query has {query.dtype}. Use to(dtype), or unsqueeze it."
            )
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError(
            "query and key need the same last dimension, key and value the same length; got shapes "
            f"{tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}. Project one, or add values."
        )
    try:
        scores = (*_batch(query, key, value), query.shape[-2], key.shape[-2])
    except RuntimeError as error:
        raise ValueError(
            "the leading dimensions of query, key and value need to broadcast; got shapes "
            f"{tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}. Make them equal, or 1."
        ) from error
    if attn_mask is None:
        return
    if is_causal:
        raise ValueError("attn_mask and is_causal=True were both given: put the causal part into the mask.")
    if attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
        raise ValueError(
            f"attn_mask must be boolean (True: attend) or floating (added to log weights); got {attn_mask.dtype}. Use "
            "attn_mask.bool()."
        )
    sizes = zip(attn_mask.shape[::-1], scores[::-1], strict=False)
    if attn_mask.dim() > len(scores) or any(size not in (1, whole) for size, whole in sizes):
        raise ValueError(
            f"attn_mask must broadcast to the scores, {scores}; got shape {tuple(attn_mask.shape)}. Pass shape "
            f"{scores[-2:]} for one that is the same for all."
        )


def _refuse_nested(*tensors):
    if any(tensor.is_nested for tensor in tensors):
        raise ValueError(
            "query, key and value must be no nested tensors: pad them. A torch.nn.TransformerEncoder makes none with "
            "enable_nested_tensor=False."
        )


def _working(*tensors):
    """Return the tensors, in float32 if they are in half precision."""
    return tuple(t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors)


def _weigh(scores):
    """Return the weights of scores, with one temporary tensor and without overflow."""
    floor = torch.full((), _FLOOR, dtype=scores.dtype, device=scores.device)
    return torch.addcmul(floor, scores, scores).reciprocal_().add_(1).reciprocal_()


def _factor(mask, dtype):
    """Return the factors by which a mask multiplies weights, scaled so that the largest of each row is 1."""
    if mask.dtype == torch.bool:
        return mask.to(dtype)
    mask = mask.to(dtype)
    if mask.shape[-1] == 0:
        return mask
    top = mask.amax(-1, keepdim=True).detach()
    return torch.exp(mask - torch.where(top.isfinite(), top, 0))


def _inverse(total):
    """Return 1 / total, and zero for rows that may attend to no key."""
    return torch.where(total > 0, total, 1).reciprocal() * (total > 0)


def _divided(part, total):
    """Return part / total, and zero for rows that may attend to no key.

    The backward pass of a product with 1 / total would overflow.
    """
    return part / torch.where(total > 0, total, 1)


def _at_once(query, key, value, mask, is_causal, scale, dropout_p=0.0):
    """Return output and all weights, which can be differentiated any number of times, also in the mask."""
    q, k, v = _working(query, key, value)
    z = (scale * q) @ k.mT
    square = (z * z).clamp(max=1 / _FLOOR)
    weight = (square + _FLOOR) / (1 + square)
    if is_causal:
        weight = weight.tril()
    if mask is not None:
        weight = weight * _factor(mask, weight.dtype)
    weight = F.dropout(_divided(weight, weight.sum(-1, keepdim=True)), dropout_p)
    return (weight @ v).to(query.dtype), weight.to(query.dtype)


def _output(query, key, value, **settings):
    return _at_once(query, key, value, **settings)[0]


class _InBlocks(torch.autograd.Function):
    """Expressive attention by blocks of scores.

    If there is one block alone, its scores are kept for the backward pass; otherwise they are computed again.
    """

    @staticmethod
    def forward(query, key, value, mask, is_causal, scale, keep):
        batch = _batch(query, key, value)
        q, k, v, blocks = _plan(query, key, value, scale)
        output, totals = q.new_empty(*q.shape[:2], v.shape[2]), q.new_empty(*q.shape[:2], 1)
        for heads, rows in blocks:
            seen = min(rows.stop, k.shape[1]) if is_causal else k.shape[1]
            scores = q[heads, rows] @ k[heads, :seen].mT
            weight = _masked(_weigh(scores), mask, batch, heads, rows, is_causal)
            total = weight.sum(-1, keepdim=True)
            output[heads, rows] = (weight @ v[heads, :seen]).mul_(_inverse(total))
            totals[heads, rows] = total
        kept = scores if keep and len(blocks) == 1 else q.new_empty(len(q), 0, 0)
        parts = output.to(query.dtype), totals, kept
        return tuple(part.reshape(*batch, *part.shape[1:]) for part in parts)

    @staticmethod
    def setup_context(ctx, inputs, output):
        query, key, value, mask, ctx.is_causal, ctx.scale, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(query, key, value, mask, *output)

    @staticmethod
    def backward(ctx, slope, *_):
        query, key, value, mask, *results = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted, or this runs inside torch.func
            again = partial(_output, mask=mask, is_causal=ctx.is_causal, scale=ctx.scale)
            return *torch.func.vjp(again, query, key, value)[1](slope), None, None, None, None
        batch = _batch(query, key, value)
        q, k, v, blocks = _plan(query, key, value, ctx.scale)
        slope, output, totals, kept = (_flat(tensor, batch) for tensor in _working(slope, *results))
        slope = slope * _inverse(totals)  # now with respect to the output before normalization
        offset = (slope * output).sum(-1, keepdim=True).neg_()  # from the derivative of the totals
        by_q, by_k, by_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for heads, rows in blocks:
            seen = min(rows.stop, k.shape[1]) if ctx.is_causal else k.shape[1]
            keys = k[heads, :seen]
            scores = kept if kept.numel() else q[heads, rows] @ keys.mT
            weight = _weigh(scores)
            rest = 1 - weight
            weight = _masked(weight, mask, batch, heads, rows, ctx.is_causal)
            by_v[heads, :seen].baddbmm_(weight.mT, slope[heads, rows])
            z = torch.mul(scores, rest, out=weight).mul_(rest)  # half the derivative of the weight
            torch.baddbmm(offset[heads, rows], slope[heads, rows], v[heads, :seen].mT, out=rest)
            z = _masked(z.mul_(rest), mask, batch, heads, rows, ctx.is_causal)
            torch.matmul(z, keys, out=by_q[heads, rows])
            by_k[heads, :seen].baddbmm_(z.mT, q[heads, rows])
        slopes = zip((by_q.mul_(2 * ctx.scale), by_k.mul_(2), by_v), (query, key, value), strict=True)
        return *(_folded(part, tensor, batch) for part, tensor in slopes), None, None, None, None

    @staticmethod
    def vmap(info, in_dims, query, key, value, mask, is_causal, scale, keep):
        """Apply the function to tensors with one more leading dimension, in front of the others."""
        tensors = list(zip((query, key, value, mask), in_dims[:4], strict=True))
        rank = max(t.dim() - (d is not None) for t, d in tensors if t is not None)

        def leading(tensor, dim):
            tensor = tensor[None] if dim is None else tensor.movedim(dim, 0)
            return tensor.reshape(len(tensor), *[1] * (rank + 1 - tensor.dim()), *tensor.shape[1:])

        query, key, value, mask = (None if t is None else leading(t, d) for t, d in tensors)
        query = query.expand(info.batch_size, *query.shape[1:])
        return _InBlocks.apply(query, key, value, mask, is_causal, scale, keep), (0, 0, 0)


def _batch(*tensors):
    """Return the leading dimensions of the tensors, broadcast."""
    shapes = {tensor.shape[:-2] for tensor in tensors}
    return shapes.pop() if len(shapes) == 1 else torch.broadcast_shapes(*shapes)


def _flat(tensor, batch):
    """Expand the leading dimensions to `batch` and flatten them to one."""
    return tensor.expand(*batch, *tensor.shape[-2:]).reshape(prod(batch), *tensor.shape[-2:])


def _folded(slope, tensor, batch):
    """Return the gradient of a tensor, given that of its broadcast, flattened version."""
    return slope.reshape(*batch, *slope.shape[-2:]).sum_to_size(tensor.shape).to(tensor.dtype)


def _plan(query, key, value, scale):
    """Return scaled queries, keys and values with one leading dimension, and the blocks of scores.

    A block is a slice of the leading dimension and a slice of the queries.
    """
    batch = _batch(query, key, value)
    q, k, v = (_flat(tensor, batch) for tensor in _working(query, key, value))
    most = _CPU_BLOCK if q.device.type == "cpu" else _DEVICE_BLOCK
    n_rows = max(min(most // max(k.shape[1], 1), q.shape[1]), 16)
    n_heads = max(most // max(n_rows * k.shape[1], 1), 1)
    spans = [slice(i, min(i + n_rows, q.shape[1])) for i in range(0, q.shape[1], n_rows)]
    return q * scale, k, v, [(slice(i, i + n_heads), rows) for i in range(0, len(q), n_heads) for rows in spans]


def _masked(weight, mask, batch, heads, rows, is_causal):
    """Multiply the weights of a block by the factors of the mask, in place."""
    if is_causal:
        return weight.tril_(rows.start)
    if mask is None:
        return weight
    mask = mask if mask.dim() > 1 else mask[None]
    mask = mask if mask.shape[-2] == 1 else mask[..., rows, :]
    if mask.shape[:-2].numel() == 1:
        mask = mask.reshape(mask.shape[-2:])
    else:
        here = torch.arange(heads.start, heads.start + len(weight))
        mask = mask.expand(*batch, *mask.shape[-2:])[torch.unravel_index(here, batch)]
    return weight.mul_(_factor(mask, weight.dtype))


# FlexAttention ---------------------------------------------------------------------------------------
def expressive_score(
    score: Tensor, batch: Tensor | int, head: Tensor | int, q_idx: Tensor | int, kv_idx: Tensor | int
) -> Tensor:
    """Compute the logarithm of the expressive weight of a score.

    This is a `score_mod` for :func:`torch.nn.attention.flex_attention.flex_attention`: the softmax of these logarithms
    is expressive attention. It turns every implementation of softmax attention that lets scores be modified into
    expressive attention.

    Parameters
    ----------
    score : Tensor
        Scaled dot products z.
    batch, head, q_idx, kv_idx : Tensor
        Indices of the score, which are ignored.

    Returns
    -------
    Tensor
        ``log(z^2 / (1 + z^2))``. It is about -69 where z = 0, so that a query whose scores are all zero attends
        uniformly.

    See Also
    --------
    expressive_flex_attention : FlexAttention with this function as `score_mod`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_attnembed.nn import expressive_score
    >>> expressive_score(torch.tensor([1.0, -1.0, 3.0]), 0, 0, 0, 0).exp()
    tensor([0.5000, 0.5000, 0.9000])
    """
    square = score.float() if score.dtype in (torch.float16, torch.bfloat16) else score
    square = (square * square).clamp(max=1 / _FLOOR)
    return (torch.log(square + _FLOOR) - torch.log1p(square)).to(score.dtype)


def expressive_flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
    block_mask: BlockMask | None = None,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute expressive attention by FlexAttention, with block-sparse masks.

    The result is that of :func:`expressive_attention`. Compiled by ``torch.compile(expressive_flex_attention)``, it is
    one fused kernel, the fastest way on a GPU. If it is not compiled, FlexAttention holds all scores in memory and
    warns.

    Parameters
    ----------
    query : Tensor of shape (B, Hq, L, E)
        Queries.
    key : Tensor of shape (B, H, S, E)
        Keys.
    value : Tensor of shape (B, H, S, Ev)
        Values.
    score_mod : callable, default=None
        Function ``(log_weight, batch, head, q_idx, kv_idx) -> log_weight`` that modifies the logarithm of the weight.
    block_mask : torch.nn.attention.flex_attention.BlockMask, default=None
        Mask of the pairs of query and key that attend; all pairs if None.
    scale : float, default=None
        Factor by which dot products are multiplied; ``1 / sqrt(E)`` if None.
    enable_gqa : bool, default=False
        Whether to use grouped-query attention, in which each head of keys and values serves several heads of queries.

    Returns
    -------
    Tensor of shape (B, Hq, L, Ev)
        Attended values.

    See Also
    --------
    expressive_attention : Faster without compilation, and in memory linear in the lengths.

    Examples
    --------
    >>> import warnings
    >>> import torch
    >>> from torch.nn.attention.flex_attention import create_block_mask
    >>> from sklearn_attnembed.nn import expressive_flex_attention
    >>> window = create_block_mask(lambda b, h, i, j: (i >= j) & (i - j < 64), None, None, 256, 256, device="cpu")
    >>> query = key = value = torch.randn(1, 2, 256, 16)
    >>> attend = expressive_flex_attention  # torch.compile(expressive_flex_attention), where time matters
    >>> with warnings.catch_warnings(action="ignore"):  # FlexAttention warns that it is not compiled
    ...     output = attend(query, key, value, block_mask=window)
    >>> output.shape
    torch.Size([1, 2, 256, 16])
    """
    from torch.nn.attention.flex_attention import flex_attention

    def modified(score, *where):
        log_weight = expressive_score(score, *where)
        return log_weight if score_mod is None else score_mod(log_weight, *where)

    return flex_attention(query, key, value, modified, block_mask, scale, enable_gqa)


# squared attention, in linear time -------------------------------------------------------------------
class SquaredState(NamedTuple):
    """Sums over keys and values from which squared attention is computed.

    The size of the state does not depend on the number of keys.

    Parameters
    ----------
    moments : Tensor of shape (..., E (E + 1) / 2, Ev + 1)
        Sum over the keys of the products of two components of the key, times the value with a one appended.
    values : Tensor of shape (..., 1, Ev + 1)
        Sum of the values, with the number of keys appended.
    size : Tensor of shape (..., 1, 1)
        Sum of the squared norms of the keys.

    See Also
    --------
    squared_attention : Function that takes and returns the state.

    Examples
    --------
    >>> import torch
    >>> from sklearn_attnembed.nn import squared_attention
    >>> _, state = squared_attention(torch.ones(1, 4), torch.ones(100, 4), torch.ones(100, 2))
    >>> state.moments.shape, state.values
    (torch.Size([10, 3]), tensor([[100., 100., 100.]]))
    """

    moments: Tensor
    values: Tensor
    size: Tensor


def squared_attention(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False, state: SquaredState | None = None
) -> tuple[Tensor, SquaredState]:
    """Compute attention by squared dot products, exactly and in linear time.

    The weight ``(q . k)^2`` is the limit of the expressive weight for small scores [1]_. It is an inner product of
    ``E (E + 1) / 2`` features, so the sums over the keys are taken once for all queries, in O((L + S) E^2 Ev)
    operations instead of O(L S (E + Ev)). There is no `scale`, because it would cancel.

    Parameters
    ----------
    query : Tensor of shape (..., L, E)
        Queries.
    key : Tensor of shape (..., S, E)
        Keys.
    value : Tensor of shape (..., S, Ev)
        Values. Queries, keys and values have equal leading dimensions.
    is_causal : bool, default=False
        Whether query i attends to keys 0 to i only, which requires L = S.
    state : SquaredState, default=None
        State returned for earlier keys and values, to which the queries attend as well.

    Returns
    -------
    output : Tensor of shape (..., L, Ev)
        Attended values, of the dtype of `query`. A query whose scores are all zero attends uniformly.
    state : SquaredState
        State after all keys and values so far.

    Raises
    ------
    ValueError
        If shapes do not match.

    See Also
    --------
    SquaredRecurrentAttention : Module with projections and heads.
    expressive_attention : Weights ``z^2 / (1 + z^2)``, in quadratic time.

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    Step by step, the result is the same as for the whole sequence at once:

    >>> import torch
    >>> from sklearn_attnembed.nn import squared_attention
    >>> q, k, v = torch.randn(3, 10, 4, dtype=torch.float64).unbind()
    >>> together, _ = squared_attention(q, k, v, is_causal=True)
    >>> state, steps = None, []
    >>> for t in range(10):
    ...     step, state = squared_attention(q[t : t + 1], k[t : t + 1], v[t : t + 1], is_causal=True, state=state)
    ...     steps.append(step)
    >>> torch.allclose(torch.cat(steps), together)
    True
    """
    _check(query, key, value, None, is_causal)
    if not query.shape[:-2] == key.shape[:-2] == value.shape[:-2] or (is_causal and query.shape[-2] != key.shape[-2]):
        raise ValueError(
            "query, key and value need equal leading dimensions and, if is_causal, equal lengths; got shapes "
            f"{tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}. Use expand(), or is_causal=False."
        )
    q, k, v = _working(query, key, value)
    v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    if state is None:
        n_features = q.shape[-1] * (q.shape[-1] + 1) // 2
        state = SquaredState(
            *(v.new_zeros(*v.shape[:-2], *shape) for shape in ((n_features, v.shape[-1]), (1, v.shape[-1]), (1, 1)))
        )
    outputs = []
    for start in range(0, k.shape[-2], _CHUNK):
        rows = slice(start, start + _CHUNK)
        if is_causal:
            outputs.append(_causal_chunk(q[..., rows, :], k[..., rows, :], v[..., rows, :], state))
        state = _remember(state, k[..., rows, :], v[..., rows, :])
    if not is_causal:
        outputs = [_recall(q[..., i : i + _CHUNK, :], state, *state[1:]) for i in range(0, q.shape[-2], _CHUNK)]
    sums = torch.cat(outputs, -2) if outputs else v[..., :0, :]
    return _divided(sums[..., :-1], sums[..., -1:]).to(query.dtype), state


def _squared_features(x):
    """Return the products x_a x_b, those with a < b times sqrt(2), whose inner product is (x . y)^2."""
    a, b = torch.triu_indices(x.shape[-1], x.shape[-1], device=x.device)
    return x[..., a] * x[..., b] * torch.where(a == b, 1.0, 2.0).to(x.dtype).sqrt()


def _remember(state, k, v):
    """Return the state with further keys added."""
    moments, values, size = state
    return SquaredState(
        moments + _squared_features(k).mT @ v,
        values + v.sum(-2, keepdim=True),
        size + k.square().sum((-2, -1), keepdim=True),
    )


def _recall(q, state, values, size):
    """Return weighted sums of values and ones.

    A small constant, just above the rounding error of a zero score, is added to the weight of every key.
    """
    floor = 32 * torch.finfo(q.dtype).eps * q.square().sum(-1, keepdim=True) * size
    floor = floor / values[..., -1:].clamp(min=1) + _FLOOR
    return _squared_features(q) @ state.moments + floor * values


def _causal_chunk(q, k, v, state):
    """Return the sums over the keys before a chunk and, causally, within it."""
    values = state.values + v.cumsum(-2)
    size = state.size + k.square().sum(-1, keepdim=True).cumsum(-2)
    return _recall(q, state, values, size) + (q @ k.mT).square().tril() @ v


# modules ---------------------------------------------------------------------------------------------
class ExpressiveMultiheadAttention(nn.MultiheadAttention):
    """Multi-head expressive attention, a replacement for :class:`torch.nn.MultiheadAttention`.

    Constructor, parameters, `forward` and state dict are those of PyTorch's module, but the attention weights are
    ``z^2 / (1 + z^2)`` [1]_ instead of ``exp(z)``. With ``need_weights=False`` and without dropout, memory is linear in
    the lengths.

    Parameters
    ----------
    embed_dim : int
        Number of features of the model.
    num_heads : int
        Number of heads, among which `embed_dim` is divided.
    dropout : float, default=0.0
        Probability with which a weight is set to zero in training.
    bias : bool, default=True
        Whether projections have a bias.
    add_bias_kv : bool, default=False
        Whether to append a learned key and value.
    add_zero_attn : bool, default=False
        Whether to append a key and value of zeros. The score of a zero key is zero, so it has weight only for queries
        whose scores are all zero.
    kdim, vdim : int, default=None
        Number of features of keys and of values; `embed_dim` if None.
    batch_first : bool, default=False
        Whether the batch is the first dimension instead of the second.
    device, dtype : default=None
        Device and dtype of the parameters.

    See Also
    --------
    expressive_attention : Function that computes the attention.
    SquaredRecurrentAttention : Causal attention with constant memory per step.

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    Replace the attention of a transformer layer, keeping its trained weights:

    >>> import torch
    >>> from sklearn_attnembed.nn import ExpressiveMultiheadAttention
    >>> layer = torch.nn.TransformerEncoderLayer(16, 4, batch_first=True)
    >>> attention = ExpressiveMultiheadAttention(16, 4, batch_first=True)
    >>> attention.load_state_dict(layer.self_attn.state_dict())
    <All keys matched successfully>
    >>> layer.self_attn = attention
    >>> layer(torch.randn(2, 5, 16)).shape
    torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        )
        # Unless this is False, a fast path of TransformerEncoderLayer bypasses `forward` and computes softmax
        # attention.
        self._qkv_same_embed_dim = False

    def _reset_parameters(self):
        self._qkv_same_embed_dim = self.in_proj_weight is not None
        super()._reset_parameters()
        self._qkv_same_embed_dim = False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the attention of queries to keys.

        Parameters
        ----------
        query : Tensor of shape (L, N, embed_dim), (N, L, embed_dim) if `batch_first`, or (L, embed_dim)
            Queries.
        key, value : Tensor of shape (S, N, kdim) and (S, N, vdim), or as `query`
            Keys and values.
        key_padding_mask : Tensor of shape (N, S) or (S,), default=None
            Mask of the keys. A boolean mask is True where a key is to be ignored. A floating mask is added to the
            logarithm of the weights of the key.
        need_weights : bool, default=True
            Whether to return the weights, which requires all of them in memory.
        attn_mask : Tensor of shape (L, S) or (N * num_heads, L, S), default=None
            Mask of the pairs. A boolean mask is True where a query may not attend. A floating mask is added to the
            logarithm of the weight.
        average_attn_weights : bool, default=True
            Whether to return the mean of the weights over the heads.
        is_causal : bool, default=False
            Whether `attn_mask` is the causal mask. This is a hint: the mask may then be replaced by a faster
            implementation.

        Returns
        -------
        output : Tensor of the shape of `query`
            Attended values after the output projection.
        weights : Tensor of shape (N, L, S) or (N, num_heads, L, S), or None
            Attention weights if `need_weights`, without the first dimension if there is no batch.
        """
        if is_causal and attn_mask is None:
            raise ValueError("is_causal=True says that attn_mask is causal, but attn_mask is None. Pass the mask too.")
        _refuse_nested(query, key, value)
        is_batched = query.dim() == 3
        if query.dim() not in (2, 3) or key.dim() != query.dim() or value.dim() != query.dim():
            raise ValueError(
                "query, key and value need 3 dimensions, or 2 without a batch; got "
                f"{query.dim()}, {key.dim()} and {value.dim()}. Pass all with a batch, or none."
            )
        query, key, value = self._arranged(query, key, value)
        q, k, v = (self._heads(x) for x in self._project(query, key, value))
        mask = self._mask(attn_mask, key_padding_mask, q, key.shape[1])
        if need_weights:
            with _no_autocast(q.device.type):
                output, weights = _at_once(q, k, v, mask, False, self.head_dim**-0.5, self.dropout * self.training)
        else:
            causal = (
                is_causal and key_padding_mask is None and k.shape[-2] == key.shape[1] and q.shape[-2] == k.shape[-2]
            )
            output = expressive_attention(
                q, k, v, None if causal else mask, dropout_p=self.dropout * self.training, is_causal=causal
            )
        output = self.out_proj(output.transpose(1, 2).flatten(2))
        if not is_batched:
            output = output.squeeze(0)
        elif not self.batch_first:
            output = output.transpose(0, 1)
        if not need_weights:
            return output, None
        weights = weights.mean(1) if average_attn_weights else weights
        return output, weights if is_batched else weights.squeeze(0)

    def _arranged(self, *tensors):
        """Return the tensors with the batch first; equal tensors stay one object."""

        def arranged(x):
            if x.dim() == 2:
                return x.unsqueeze(0)
            return x if self.batch_first else x.transpose(0, 1)

        known = {id(x): arranged(x) for x in tensors}
        return [known[id(x)] for x in tensors]

    def _project(self, query, key, value):
        """Project queries, keys and values, and append those of `add_bias_kv` and `add_zero_attn`."""
        if self.in_proj_weight is None:
            matrices = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        else:
            matrices = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if self.in_proj_weight is not None and query is key is value:
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            q, k, v = (F.linear(*part) for part in zip((query, key, value), matrices, biases, strict=True))
        if self.bias_k is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), 1, -1).to(k.dtype)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), 1, -1).to(v.dtype)], 1)
        if self.add_zero_attn:
            k, v = (torch.cat([x, torch.zeros_like(x[:, :1])], 1) for x in (k, v))
        return q, k, v

    def _heads(self, x):
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _mask(self, attn_mask, key_padding_mask, q, n_keys):
        """Combine both masks into one for `expressive_attention`, with a column for each appended key."""
        n, h, length, _ = q.shape
        pairs = {(length, n_keys): (length, n_keys), (n * h, length, n_keys): (n, h, length, n_keys)}
        keys = {(n, n_keys): (n, 1, 1, n_keys), (n_keys,): (1, 1, 1, n_keys)}
        mask = None
        for name, given, shapes in (("attn_mask", attn_mask, pairs), ("key_padding_mask", key_padding_mask, keys)):
            if given is None:
                continue
            if tuple(given.shape) not in shapes or not (given.dtype == torch.bool or given.is_floating_point()):
                raise ValueError(
                    f"{name} must be boolean (True: ignore) or floating (added to log weights), of shape "
                    f"{' or '.join(map(str, shapes))}; got {given.dtype} of shape {tuple(given.shape)}. Use "
                    f"{name}.bool(), or another shape."
                )
            part = given.reshape(shapes[tuple(given.shape)])
            part = ~part if part.dtype == torch.bool else part
            mask = part if mask is None else _both(mask, part)
        further = (self.bias_k is not None) + self.add_zero_attn
        return mask if mask is None or not further else F.pad(mask, (0, further), value=mask.dtype == torch.bool)


def _both(a, b):
    """Combine two masks into one."""
    if a.dtype == b.dtype == torch.bool:
        return a & b
    a, b = (
        torch.zeros_like(m, dtype=torch.float32).masked_fill(~m, -torch.inf) if m.dtype == torch.bool else m
        for m in (a, b)
    )
    return a + b


class SquaredRecurrentAttention(nn.Module):
    """Causal multi-head attention by squared dot products, with constant memory per step.

    The weights are ``(q . k)^2``, the limit of expressive attention for small scores. They allow a recurrent form: a
    state of fixed size summarizes all earlier steps. Training processes whole sequences, in linear time; generation
    proceeds step by step and gives the same numbers.

    Parameters
    ----------
    embed_dim : int
        Number of features of the model.
    num_heads : int
        Number of heads, among which `embed_dim` is divided. The state of a head has ``(e (e + 1) / 2) (e + 1)`` numbers
        with ``e = embed_dim / num_heads``, so the total state is smaller with more heads.
    bias : bool, default=True
        Whether projections have a bias.
    batch_first : bool, default=False
        Whether the batch is the first dimension instead of the second.
    device, dtype : default=None
        Device and dtype of the parameters.

    See Also
    --------
    squared_attention : Function that computes the attention.
    ExpressiveMultiheadAttention : Weights ``z^2 / (1 + z^2)``, in quadratic time.

    Examples
    --------
    >>> import torch
    >>> from sklearn_attnembed.nn import SquaredRecurrentAttention
    >>> module = SquaredRecurrentAttention(16, 4, batch_first=True)
    >>> x = torch.randn(2, 10, 16)
    >>> output, state = module(x[:, :9])
    >>> last, state = module(x[:, 9:], state)
    >>> torch.allclose(last, module(x)[0][:, 9:], atol=1e-4)
    True
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        bias: bool = True,
        batch_first: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(
                f"embed_dim must be a positive multiple of num_heads; got {embed_dim} and {num_heads}. Change one."
            )
        self.embed_dim, self.num_heads, self.batch_first = embed_dim, num_heads, batch_first
        self.in_proj = nn.Linear(embed_dim, 3 * embed_dim, bias, device, dtype)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias, device, dtype)

    def forward(self, input: Tensor, state: SquaredState | None = None) -> tuple[Tensor, SquaredState]:
        """Process the next steps of sequences.

        Parameters
        ----------
        input : Tensor of shape (L, N, embed_dim), (N, L, embed_dim) if `batch_first`, or (L, embed_dim)
            The next steps, one or many.
        state : SquaredState, default=None
            State returned by the previous call; None at the beginning of a sequence.

        Returns
        -------
        output : Tensor of the shape of `input`
            Attended values after the output projection.
        state : SquaredState
            State after all steps so far.
        """
        swap = input.dim() == 3 and not self.batch_first
        x = self.in_proj(input.transpose(0, 1) if swap else input)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2) for part in x.chunk(3, -1))
        output, state = squared_attention(q, k, v, is_causal=True, state=state)
        output = self.out_proj(output.transpose(-3, -2).flatten(-2))
        return output.transpose(0, 1) if swap else output, state
