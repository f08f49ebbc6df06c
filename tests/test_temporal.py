"""Walks on contacts in time against a transition matrix computed state by state."""

import datetime

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.affinity import random_walk, temporal


def random_contacts(n_contacts=60, n_nodes=7, seed=0):
    """Return unsorted columns time, i, j and weight, with self-contacts and a node without contacts."""
    rng = np.random.default_rng(seed)
    i, j = rng.integers(n_nodes, size=(2, n_contacts))
    return np.column_stack([rng.integers(100, size=n_contacts), i, j, rng.integers(0, 4, n_contacts)]).astype(float)


def frame(contacts, names=("time", "i", "j", "weight")):
    """Return the contacts as a DataFrame with names of nodes."""
    table = pd.DataFrame(np.asarray(contacts), columns=list(names[: len(contacts[0])]))
    for end in ("i", "j"):
        table[end] = [f"node {int(number)}" for number in table[end]]
    return table


def brute_force(contacts, slice_of, direction, directed, advance):
    """Return the states (node, slice) in order and their transition matrix."""
    meetings, weight = {}, {}
    start = min(time for time, i, j, w in contacts if i != j and w > 0)
    for time, i, j, w in contacts:
        if i != j and w > 0:
            a, b = ((int(end), slice_of(time - start)) for end in (i, j))
            for here, there in [(a, b)] if directed else [(a, b), (b, a)]:
                meetings.setdefault(here, set()).add(there)
                weight[here, there] = weight.get((here, there), 0) + w
            for state in (a, b):
                meetings.setdefault(state, set())
    states = sorted(meetings)
    walk = np.zeros((len(states), len(states)))
    for row, (node, slot) in enumerate(states):
        later = [state for state in states if state[0] == node and state[1] > slot]
        earlier = [state for state in states if state[0] == node and state[1] < slot]
        on = {"forward": [later[:1]], "backward": [earlier[-1:]], "both": [later[:1], earlier[-1:]]}[direction]
        total = sum(weight[(node, slot), other] for other in meetings[node, slot])
        for way in on:
            stay = (1 - advance if way else 1) if total else 0
            for other in meetings[node, slot]:
                walk[row, states.index(other)] += stay * weight[(node, slot), other] / total
            for other in way:
                walk[row, states.index(other)] += advance if total else 1
        if walk[row].any():
            walk[row] /= walk[row].sum()
    return states, walk


def assert_same(walk, other):
    """Assert that walks have the same states and probabilities."""
    assert_array_equal(walk.node, other.node)
    assert_array_equal(walk.slice, other.slice)
    assert_allclose(walk.affinity.toarray(), other.affinity.toarray(), atol=1e-15)
    assert walk.nodes.tolist() == other.nodes.tolist()


# The walk ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cut", [{"width": 10}, {"width": 7.5}, {"n_slices": 4}, {"n_slices": 1}], ids=str)
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("direction", ["both", "forward", "backward"])
def test_walk_is_that_of_brute_force(direction, directed, cut, seed):
    contacts = random_contacts(seed=seed)
    walk = temporal(contacts, direction=direction, directed=directed, advance=0.3, nodes=range(8), **cut)
    times = contacts[(contacts[:, 1] != contacts[:, 2]) & (contacts[:, 3] > 0), 0]
    n, width = cut.get("n_slices"), cut.get("width")

    def slice_of(time):
        return int(time // width) if width else min(int(time / np.ptp(times) * n), n - 1)

    states, expected = brute_force(contacts, slice_of, direction, directed, 0.3)
    assert_array_equal(walk.node, [node for node, _ in states])
    assert_array_equal(walk.slice, [slot for _, slot in states])
    assert_allclose(walk.affinity.toarray(), expected, atol=1e-15)
    assert walk.start == times.min()
    assert walk.n_slices == (n or int(np.ptp(times) // width) + 1)
    assert_allclose(walk.width, width or np.ptp(times) / n)


def test_walk_by_hand():
    """Ann meets Bob twice and Cem once in slice 0, Bob alone in slice 2."""
    contacts = pd.DataFrame(
        {"time": [0, 1, 1, 25], "i": ["Ann", "Bob", "Ann", "Ann"], "j": ["Bob", "Ann", "Cem", "Bob"]}
    )
    walk = temporal(contacts, width=10, direction="forward", advance=0.25)
    assert walk.nodes.tolist() == ["Ann", "Bob", "Cem"]
    assert_array_equal(walk.node, [0, 0, 1, 1, 2])
    assert_array_equal(walk.slice, [0, 2, 0, 2, 0])
    assert_allclose(
        walk.affinity.toarray(),
        [[0, 0.25, 0.5, 0, 0.25], [0, 0, 0, 1, 0], [0.75, 0, 0, 0.25, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0]],
    )
    assert_array_equal(walk.edges, [0, 10, 20, 30])
    backward = temporal(contacts, width=10, direction="backward", advance=0.25).affinity.toarray()
    assert_allclose(backward[1], [0.25, 0, 0, 0.75, 0])
    both = temporal(contacts, width=10, advance=0.25).affinity.toarray()
    assert_allclose(both, (walk.affinity.toarray() + backward) / 2)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("direction", ["both", "forward", "backward"])
def test_rows_sum_to_one(direction, directed):
    """With directed contacts, rows of states without outgoing transitions sum to zero."""
    walk = temporal(random_contacts(), width=10, direction=direction, directed=directed)
    total = walk.affinity.sum(axis=1)
    assert_allclose(total[total > 0], 1)
    assert np.all(total > 0) or (directed and direction != "both")
    assert walk.affinity.data.min() > 0


@pytest.mark.parametrize("directed", [False, True])
def test_forward_walks_never_lead_to_an_earlier_slice(directed):
    """Their powers do not either, and backward walks never lead to a later slice."""
    for direction, sign in (("forward", 1), ("backward", -1)):
        walk = temporal(random_contacts(300), n_slices=9, direction=direction, directed=directed)
        power = walk.affinity
        for _ in range(4):
            before, after = power.nonzero()
            assert np.all(sign * (walk.slice[after] - walk.slice[before]) >= 0)
            power = power @ walk.affinity


def test_backward_is_forward_with_time_reversed():
    contacts = random_contacts()
    mirrored = contacts * [-1, 1, 1, 1]
    kept = contacts[(contacts[:, 1] != contacts[:, 2]) & (contacts[:, 3] > 0), 0]
    walk = temporal(contacts, width=1, direction="backward", nodes=range(8))
    other = temporal(mirrored, width=1, direction="forward", nodes=range(8))
    order = np.lexsort([np.ptp(kept) - other.slice, other.node])
    assert_array_equal(walk.slice, np.ptp(kept) - other.slice[order])
    assert_allclose(walk.affinity.toarray(), other.affinity.toarray()[np.ix_(order, order)])


def test_states_are_sorted_by_node_then_time():
    walk = temporal(random_contacts(), width=10)
    assert_array_equal(np.lexsort([walk.slice, walk.node]), np.arange(len(walk.node)))


# What contacts may look like --------------------------------------------------------------------------------
def test_order_of_contacts_does_not_matter():
    contacts = random_contacts()
    walk = temporal(contacts, width=10, nodes=range(8))
    for order in (np.argsort(contacts[:, 0]), np.arange(60)[::-1], np.random.default_rng(1).permutation(60)):
        assert_same(temporal(contacts[order], width=10, nodes=range(8)), walk)


def test_shifted_and_stretched_time_does_not_matter():
    contacts = random_contacts()
    walk = temporal(contacts, width=10)
    assert_same(temporal(contacts * [60, 1, 1, 1] + [7e9, 0, 0, 0], width=600), walk)
    assert_same(temporal(contacts * [1, 1, 1, 0.25], width=10), walk)


@pytest.mark.parametrize(
    "form", [np.asarray, np.ndarray.tolist, lambda rows: frame(rows)[["weight", "j", "time", "i"]]]
)
def test_forms_of_contacts(form):
    """Nodes are in order of first appearance, and columns are found by name if they have the expected names."""
    contacts = random_contacts()
    walk, expected = temporal(form(contacts), width=10), temporal(contacts, width=10)
    assert_allclose(walk.affinity.toarray(), expected.affinity.toarray())
    numbers = [int(str(label).removeprefix("node ").removesuffix(".0")) for label in walk.nodes]
    assert numbers == list(dict.fromkeys(contacts[:, 1:3].ravel().astype(int)))


def test_columns_by_place_where_names_are_others():
    contacts = random_contacts()
    expected = temporal(frame(contacts), width=10)
    assert_same(temporal(frame(contacts).set_axis(["t", "from", "to", "weight"], axis=1), width=10), expected)
    counted = temporal(frame(contacts[contacts[:, 3] > 0, :3]), width=10)
    unweighted = frame(contacts[contacts[:, 3] > 0]).set_axis(["t", "from", "to", "length"], axis=1)
    assert_same(temporal(unweighted, width=10), counted)


@pytest.mark.parametrize("width", ["20min", datetime.timedelta(minutes=20), pd.Timedelta(minutes=20)], ids=repr)
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_dates(unit, width):
    contacts = random_contacts()
    dates = frame(contacts)
    dates["time"] = np.datetime64("2020-02-28T23:00", unit) + (contacts[:, 0] * 120).astype("m8[s]")
    walk, expected = temporal(dates, width=width), temporal(frame(contacts), width=10)
    assert_same(walk, expected)
    assert walk.start == dates["time"][(contacts[:, 1] != contacts[:, 2]) & (contacts[:, 3] > 0)].min()
    assert_array_equal(np.diff(walk.edges), np.timedelta64(20, "m"))
    assert len(walk.edges) == walk.n_slices + 1


def test_dates_of_strings_objects_and_time_zones():
    """This includes the change to daylight saving time."""
    contacts = random_contacts()
    dates = frame(contacts)
    stamps = pd.Timestamp("2020-03-29") + pd.to_timedelta(contacts[:, 0] * 120, unit="s")
    expected = temporal(frame(contacts), width=10)
    for times in (
        stamps.strftime("%Y-%m-%d %H:%M"),
        stamps.astype(object).to_numpy(),
        stamps.tz_localize("UTC").tz_convert("CET"),
    ):
        assert_same(temporal(dates.assign(time=times), width="20min"), expected)


def test_numpy_length_of_time():
    dates = pd.DataFrame({"time": np.array([0, 5, 10], "M8[s]"), "i": "a", "j": ["b", "c", "b"]})
    assert_array_equal(temporal(dates, width=np.timedelta64(5, "s")).slice, [0, 1, 2, 0, 2, 1])


@pytest.mark.parametrize("unit", ["s", "us"])
def test_slices_of_dates_end_where_contacts_end(unit):
    dates = pd.DataFrame({"time": np.array([0, 5, 10], "M8[s]").astype(f"M8[{unit}]"), "i": "a", "j": ["b", "c", "b"]})
    walk = temporal(dates, n_slices=4)
    assert_array_equal(walk.slice, [0, 2, 3, 0, 3, 2])
    assert walk.edges[-1] == np.datetime64(10, "s")


@pytest.mark.parametrize("params", [{"width": 1.0}, {"width": 1e-3}, {"n_slices": 10**13}], ids=str)
def test_long_gaps_cost_nothing(params):
    walk = temporal([[0, 0, 1], [1e13, 1, 2], [1e13, 0, 2]], **params)
    assert walk.affinity.shape == (5, 5)
    assert_array_equal(walk.slice, [0, walk.n_slices - 1] * 2 + [walk.n_slices - 1])
    assert_allclose(walk.affinity.toarray()[0], [0, 0.25, 0.75, 0, 0])
    assert walk.at(np.eye(5), walk.n_slices // 2).any(axis=1).tolist() == [True, True, False]


def test_contacts_on_the_edge_of_slices():
    """A slice contains its start but not its end, except for the last of `n_slices`."""
    contacts = [[time, 0, 1] for time in (0, 10, 20, 30)]
    assert_array_equal(temporal(contacts, width=10).slice[:4], [0, 1, 2, 3])
    assert_array_equal(temporal(contacts, n_slices=3).slice[:3], [0, 1, 2])
    assert temporal(contacts, n_slices=3).affinity.shape == (6, 6)
    walk = temporal([[3, 0, 1], [3, 1, 2]], n_slices=5)  # all at once
    assert_array_equal(walk.slice, 0)


def test_contacts_with_oneself_or_of_no_weight_are_left_out():
    contacts = [[5, 0, 1, 1], [6, 1, 2, 2], [0, 3, 3, 9], [9, 0, 0, 1], [99, 1, 2, 0]]
    walk = temporal(contacts, width=5, nodes=range(4))
    assert_same(walk, temporal(contacts[:2], width=5, nodes=range(4)))
    assert walk.start == 5
    assert walk.n_slices == 1


def test_labels_are_those_given_in_their_order():
    """Renaming or reordering the nodes permutes the states."""
    contacts = frame(random_contacts())
    walk = temporal(contacts, width=10)
    order = ["never", *walk.nodes[::-1]]
    other = temporal(contacts, width=10, nodes=order)
    assert other.nodes.tolist() == order
    same = np.lexsort([walk.slice, -walk.node])
    assert_array_equal(walk.nodes[walk.node][same], other.nodes[other.node])
    assert_allclose(other.affinity.toarray(), walk.affinity.toarray()[np.ix_(same, same)])
    odd = {f"node {i}": (i, "x") if i % 2 else i for i in range(8)}
    renamed = temporal(contacts.assign(i=contacts.i.map(odd), j=contacts.j.map(odd)), width=10)
    assert renamed.nodes.tolist() == [odd[label] for label in walk.nodes]
    assert_array_equal(renamed.affinity.toarray(), walk.affinity.toarray())


def test_contacts_are_not_modified():
    contacts = random_contacts()
    table = frame(contacts)
    before = table.copy(deep=True)
    temporal(table, width=10)
    pd.testing.assert_frame_equal(table, before)
    contacts.flags.writeable = False
    temporal(contacts, n_slices=3)


# Vectors ----------------------------------------------------------------------------------------------------
@pytest.fixture
def small():
    """Return a walk with states (a, 0), (a, 2), (b, 0), (c, 0), (c, 2), a node without states, and vectors."""
    walk = temporal([[0, 0, 1], [5, 1, 2], [20, 0, 2]], width=10, nodes=[0, 1, 2, 3])
    return walk, np.array([[1, 0], [3, 0], [0, 1], [5, 5], [0, 0]], float)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_by_node_is_the_mean_over_states(dtype, small):
    walk, X = small
    vectors = walk.by_node(X.astype(dtype))
    assert_allclose(vectors, [[2, 0], [0, 1], [2.5, 2.5], [0, 0]])
    assert vectors.dtype == dtype
    assert_allclose(walk.by_node(X.tolist()), vectors)


def test_at_is_the_latest_state_until_then(small):
    walk, X = small
    for slot, last in enumerate([[[1, 0], [0, 1], [5, 5], [0, 0]]] * 2 + [[[3, 0], [0, 1], [0, 0], [0, 0]]]):
        assert_array_equal(walk.at(X, slot), last)
    assert walk.at(X.astype(np.float32), 0).dtype == np.float32


def test_at_of_who_had_no_contact_yet_is_zero():
    walk = temporal([[0, 0, 1], [10, 2, 3]], width=10)
    assert_array_equal(walk.at(np.ones((4, 2)), 0).any(axis=1), [True, True, False, False])
    assert walk.at(np.ones((4, 2)), 1).all()


def test_time_alone_tells_groups_apart():
    """Two groups that never meet have contact with the same persons, one in the morning, one in the afternoon."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 12)
    contacts = np.array(
        [
            (10 * slot + rng.integers(10), person, 24 + hub)
            for slot in range(24)
            for hub in range(6)
            for person in rng.choice(np.flatnonzero(y == (slot >= 12)), 6, replace=False)
        ]
    )

    def clusters(vectors):
        return normalized_mutual_info_score(y, KMeans(2, n_init=5, random_state=0).fit_predict(vectors[:24]))

    model = AttentionEmbedding(8, affinity="precomputed", walk_length=3, temperature=0.5, random_state=0)
    for direction in ("both", "forward", "backward"):
        walk = temporal(contacts, width=10, direction=direction, nodes=range(30))
        assert clusters(walk.by_node(model.fit_transform(walk.affinity))) == 1
    edges = pd.DataFrame(contacts[:, 1:], columns=["i", "j"])
    assert clusters(model.fit_transform(random_walk(edges, nodes=range(30)))) < 0.3


# Bad input --------------------------------------------------------------------------------------------------
def contact(time=0, i="a", j="b", **more):
    return pd.DataFrame({"time": [0, time], "i": ["a", i], "j": ["b", j], **{k: [1, v] for k, v in more.items()}})


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (contact(time=np.nan), "1 of 2 times are missing or infinite. Drop or fill"),
        (contact(time=np.inf), "1 of 2 times are missing or infinite"),
        (contact(time=-np.inf), "1 of 2 times are missing or infinite"),
        (contact().assign(time=pd.to_datetime(["2020-01-01", None])), "1 of 2 times are missing or infinite"),
        (
            contact().assign(time=["2020-01-01", "soon"]),
            r"(?s)times must be numbers or dates, but .*soon",
        ),
        (contact(weight=np.nan), "must hold finite weights >= 0, but holds nan"),
        (contact(weight=-1), "must hold finite weights >= 0, but holds -1"),
        ([[0, 1, 2, -1]], r"contacts\[:, 3\] must hold finite weights >= 0, but holds -1.0. Clip or drop"),
        ([[0, 1, 2, np.nan]], "must hold finite weights >= 0, but holds nan"),
        (contact(j=None), "nodes: a label is missing"),
        (contact(i=np.nan), "nodes: a label is missing"),
        (contact().iloc[:0], "at least one of two different nodes and positive weight, but none of 0 rows is one"),
        ([[0, 1, 1], [1, 2, 2]], "at least one of two different nodes and positive weight, but none of 2 rows is one"),
        ([[0, 1, 2, 0]], "at least one of two different nodes and positive weight, but none of 1 rows is one"),
        (pd.DataFrame({"time": [0], "i": [1]}), r"contacts needs columns time, i and j, but has \['time', 'i'\]"),
        ([[0, 1]], r"columns time, i, j and, if wanted, weight, but its shape is \(1, 2\)"),
        ([0, 1, 2], r"but its shape is \(3,\)"),
        (np.ones((3, 5)), r"but its shape is \(3, 5\)"),
    ],
)
def test_bad_contacts(bad, match):
    with pytest.raises(ValueError, match=match):
        temporal(bad, width="1D" if hasattr(bad, "time") and bad.time.dtype.kind == "M" else 10)


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        (["a"], "nodes must name every node, but lacks 'b'"),
        (["a", "b", "a"], "nodes must name each label once, but has 'a' twice"),
        (["a", "b", None], "nodes: a label is missing"),
    ],
    ids=str,
)
def test_bad_nodes(nodes, match):
    with pytest.raises(ValueError, match=match):
        temporal(contact(), width=1, nodes=nodes)


@pytest.mark.parametrize("params", [{}, {"width": 1, "n_slices": 2}], ids=str)
def test_neither_or_both_of_width_and_n_slices(params):
    with pytest.raises(ValueError, match="Give either width or n_slices, how long slices are or how many; got width="):
        temporal(contact(), **params)


@pytest.mark.parametrize(
    "width",
    [
        *(0, -1, np.nan, np.inf, "20min", [1], datetime.timedelta(1)),
        np.timedelta64(1, "s"),
    ],
    ids=repr,
)
def test_bad_width_of_numbers(width):
    with pytest.raises(ValueError, match=r"width must be a positive length of time.*; got .* for times of type f"):
        temporal(contact(), width=width)


@pytest.mark.parametrize("width", [0, 5, 1.5, "soon", "-1D", "0s", "NaT", [1], datetime.timedelta(0)], ids=repr)
def test_bad_width_of_dates(width):
    dates = contact().assign(time=pd.to_datetime(["2020-01-01", "2020-01-02"]))
    with pytest.raises(ValueError, match=r"width must be a positive length of time.* like '20min'; got .*date"):
        temporal(dates, width=width)


@pytest.mark.parametrize("slot", [-1, 3, 10**9, 0.5, "x", None])
def test_slice_that_there_is_not(slot, small):
    walk, X = small
    with pytest.raises(ValueError, match=f"slice must be from 0 to 2, one of the slices there are; got {slot!r}"):
        walk.at(X, slot)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.ones((4, 2)), "embedding must have a row for each of the 5 states; it has 4"),
        (np.full((5, 2), np.nan), "embedding contains NaN"),
        (np.ones(5), "Expected 2D array"),
    ],
    ids=["rows", "NaN", "1-d"],
)
def test_bad_embedding(bad, match, small):
    for method in (small[0].by_node, lambda X: small[0].at(X, 0)):
        with pytest.raises(ValueError, match=match):
            method(bad)


@pytest.mark.parametrize(
    "params",
    [
        {"n_slices": 0},
        {"n_slices": 2.5},
        {"n_slices": 10**30},
        {"direction": "sideways"},
        {"advance": 0.0},
        {"advance": 1.0},
        {"directed": "yes"},
        {"nodes": 3},
    ],
    ids=str,
)
def test_bad_parameters(params):
    (name,) = params
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of temporal must be"):
        temporal(contact(), **params)
