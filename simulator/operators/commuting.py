"""Groups of Pauli strings that are measured together, and the Clifford circuit that turns a commuting group into Z strings.

Two strings commute where the letters differ, neither being I, on an even number of qubits. Qubit-wise commutation asks for none: such a
group is measured after one-qubit gates. Groups of general commutation are larger and fewer, and their change of basis entangles.
"""

from dataclasses import dataclass

import numpy as np

from simulator.operators.paulis import PauliSum


@dataclass(frozen=True)
class CommutingGroup:
    """A group of commuting strings, and the change of basis after which all of them are strings of Z.

    The circuit is CNOTs from pivots to other qubits, then S and CZ on the pivots, then H on the pivots. In this order it needs no
    simulation gate by gate (`engines.shots`).
    """

    members: np.ndarray  # indices of the group's strings in the operator, shape: (n_members,)
    outcome_masks: np.ndarray  # Z masks of the strings after the change of basis, uint64, shape: (n_members,)
    coefficients: np.ndarray  # with the signs of the change of basis, hartree, shape: (n_members,)
    pivots: np.ndarray  # qubits that an H ends on, int64, shape: (n_pivots,)
    flips: np.ndarray  # qubits that a pivot's generator flips, itself among them, uint64, shape: (n_pivots,)
    phases: np.ndarray  # bit j of row i: a CZ between pivots i and j, or where i is j an S, uint64, shape: (n_pivots,)

    def circuit(self) -> list[tuple[str, tuple[int, ...]]]:
        """The change of basis as gates (cx, s, cz, h; the names are Qiskit's) with their qubits, in order of action."""
        return _circuit(self.pivots.tolist(), self.flips.tolist(), self.phases.tolist())


def commuting_groups(operator: PauliSum) -> list[CommutingGroup]:
    """Groups of strings that commute, by sorted insertion: largest coefficients first, each into the first group that it commutes with.

    The identity, which needs no measurement, is in no group. Source: Crawford et al., Quantum 5, 385 (2021), doi:10.22331/q-2021-01-20-385.

    Args:
        operator: Hermitian, coefficients in hartree.
    """
    order = np.argsort(-np.abs(operator.coefficients), kind="stable")
    order = order[(operator.x | operator.z)[order] != 0]
    x, z = operator.x[order], operator.z[order]
    group_of = np.zeros(len(order), np.int64)
    n_groups = 0
    for k in range(len(order)):
        crossings = np.bitwise_count(x[:k] & z[k]) + np.bitwise_count(z[:k] & x[k])
        is_open = np.ones(n_groups + 1, bool)
        is_open[group_of[:k][crossings % 2 == 1]] = False
        group_of[k] = np.argmax(is_open)
        n_groups = max(n_groups, int(group_of[k]) + 1)
    return [diagonalised(operator, order[group_of == group]) for group in range(n_groups)]


def diagonalised(operator: PauliSum, members: np.ndarray) -> CommutingGroup:
    """A commuting set of an operator's strings with the Clifford circuit that makes Z strings of them.

    Gaussian elimination of the X masks over GF(2) leaves generators that flip one pivot qubit each, and products of Zs. CNOTs leave each
    generator's X on its pivot only; products of Zs commute with all of these, so they are off the pivots. S turns a Y on a generator's
    own pivot into X, and CZs take its Zs off the other pivots. What is left on the pivots is X, which H turns into Z; Zs elsewhere stay.
    Source: Aaronson and Gottesman, doi:10.1103/PhysRevA.70.052328; Gokhale et al., arXiv:1907.13623.

    Args:
        operator: Hermitian, coefficients in hartree.
        members: indices of the strings, shape: (n_members,).

    Raises:
        ValueError: the strings do not commute.
    """
    rows = _eliminated(operator.x[members].tolist(), operator.z[members].tolist())
    pivots = [pivot for pivot, *_ in rows]
    flips, zs = [x for _, x, _ in rows], [z for *_, z in rows]
    # After the CNOTs a generator has a Z on pivot j where its Zs meet generator j's flips an odd number of times.
    phases = [sum(((z & x).bit_count() & 1) << j for j, x in enumerate(flips)) for z in zs]
    x, z, negative = operator.x[members], operator.z[members], np.zeros(len(members), bool)
    for gate, qubits in _circuit(pivots, flips, phases):
        x, z, negative = _conjugated(gate, qubits, x, z, negative)
    if np.any(x):
        raise ValueError("the strings of a group do not commute")
    coefficients = operator.coefficients.real[members] * np.where(negative, -1.0, 1.0)
    masks = (np.array(m, np.uint64) for m in (flips, phases))
    return CommutingGroup(members, z, coefficients, np.array(pivots, np.int64), *masks)


def qubitwise_groups(operator: PauliSum) -> list[np.ndarray]:
    """Indices of strings that agree on every qubit on which both act, greedily, largest coefficients first."""
    x, z = operator.x.tolist(), operator.z.tolist()
    groups: list[tuple[int, int, int, list[int]]] = []  # support, x, z of the union, members
    for k in np.argsort(-np.abs(operator.coefficients), kind="stable").tolist():
        support = x[k] | z[k]
        for index, (taken, gx, gz, members) in enumerate(groups):
            both = support & taken
            if (x[k] ^ gx) & both == 0 and (z[k] ^ gz) & both == 0 and (support == 0) == (taken == 0):
                members.append(k)
                groups[index] = (taken | support, gx | x[k], gz | z[k], members)
                break
        else:
            groups.append((support, x[k], z[k], [k]))
    return [np.array(members) for *_, members in groups]


def _eliminated(xs: list[int], zs: list[int]) -> list[tuple[int, int, int]]:
    """(pivot, x, z) of products of the strings: each pivot qubit is flipped by one of them, and together they make every X mask."""
    rows: list[tuple[int, int, int]] = []
    for x, z in zip(xs, zs, strict=True):
        for pivot, other_x, other_z in rows:
            if x >> pivot & 1:
                x, z = x ^ other_x, z ^ other_z
        if not x:
            continue
        pivot = (x & -x).bit_length() - 1
        rows = [(p, a ^ x, b ^ z) if a >> pivot & 1 else (p, a, b) for p, a, b in rows]
        rows.append((pivot, x, z))
    return rows


def _circuit(pivots: list[int], flips: list[int], phases: list[int]) -> list[tuple[str, tuple[int, ...]]]:
    """A group's change of basis, from what `CommutingGroup` holds."""
    bits = lambda mask: [q for q in range(mask.bit_length()) if mask >> q & 1]  # noqa: E731
    gates: list[tuple[str, tuple[int, ...]]] = []
    for pivot, flipped in zip(pivots, flips, strict=True):
        gates += [("cx", (pivot, q)) for q in bits(flipped) if q != pivot]
    for i, (pivot, row) in enumerate(zip(pivots, phases, strict=True)):
        gates += [("s", (pivot,))] if row >> i & 1 else []
        gates += [("cz", (pivot, pivots[j])) for j in bits(row) if j < i]
    return gates + [("h", (pivot,)) for pivot in pivots]


def _conjugated(
    gate: str, qubits: tuple[int, ...], x: np.ndarray, z: np.ndarray, negative: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks and signs of U P U^dagger for a gate U; the rules are Aaronson and Gottesman's."""
    one = np.uint64(1)
    a, b = np.uint64(qubits[0]), np.uint64(qubits[-1])
    xa, za, xb, zb = x >> a & one, z >> a & one, x >> b & one, z >> b & one
    if gate == "h":
        return x ^ (xa ^ za) << a, z ^ (xa ^ za) << a, negative ^ (xa & za).astype(bool)
    if gate == "s":
        return x, z ^ xa << a, negative ^ (xa & za).astype(bool)
    if gate == "cx":
        return x ^ xa << b, z ^ zb << a, negative ^ (xa & zb & (xb ^ za ^ one)).astype(bool)
    if gate == "cz":
        return x, z ^ xb << a ^ xa << b, negative ^ (xa & xb & (za ^ zb)).astype(bool)
    raise ValueError(f"no rule for gate {gate!r}")
