"""Circuits on state vectors: gates as a program of few passes over memory.

Rotations of one qubit are most of a hardware-efficient ansatz. Within a layer of them those of different qubits commute: they are sorted
by qubit, and a Y rotation with the Z rotation that follows it on its qubit is one pass. Gates of the lowest qubits are applied to one
piece of the vector after the other, as many gates in turn as stay within a piece: it is in the cache meanwhile. Real and imaginary
parts lie apart, as processors work on numbers side by side.
"""

from typing import NamedTuple

import numpy as np

from simulator.engines.kernels import njit
from simulator.operators.circuits import CNOT, Gates

GENERIC, SWAP, Y, Z, Y_THEN_Z = range(5)
"""Operations: a rotation by any Pauli string, a CNOT, rotations of one qubit."""

LOW_QUBITS = 13
"""Qubits of a piece: 128 KiB of the state, and as much of H times it."""


class Program(NamedTuple):
    """Operations in order, in segments; those of a `low` segment touch the lowest qubits only."""

    operation: np.ndarray  # int64, shape: (n_operations,)
    gate: np.ndarray  # number of the gate in `Gates`, the first of two, int64, shape: (n_operations,)
    second: np.ndarray  # number of the second gate, -1 for none, int64, shape: (n_operations,)
    segment: np.ndarray  # first operation of each segment, and the end, int64, shape: (n_segments + 1,)
    low: np.ndarray  # bool, shape: (n_segments,)


class Angles(NamedTuple):
    """What the kernels read of `Gates`, at given angles."""

    x: np.ndarray  # uint64, shape: (n_gates,)
    z: np.ndarray  # uint64, shape: (n_gates,)
    cosine: np.ndarray  # of half the angle, shape: (n_gates,)
    sine: np.ndarray  # of half the angle, shape: (n_gates,)


def angles_of(gates: Gates, angles: np.ndarray) -> Angles:
    """The kernels' view of gates at angles in radian, shape: (n_gates,)."""
    return Angles(gates.x, gates.z, np.cos(0.5 * angles), np.sin(0.5 * angles))


def program_of(gates: Gates, low_qubits: int = LOW_QUBITS) -> Program:
    """The gates' program; equal to them in their order up to rounding."""
    x, z, kind = gates.x.tolist(), gates.z.tolist(), gates.kind.tolist()
    support = [a | b for a, b in zip(x, z, strict=True)]
    of_one_qubit = [
        k != CNOT and s & (s - 1) == 0 and (a == 0 or a == b) for k, s, a, b in zip(kind, support, x, z, strict=True)
    ]
    rows: list[tuple[int, int, int]] = []
    g = 0
    while g < len(kind):
        if not of_one_qubit[g]:
            rows.append((SWAP if kind[g] == CNOT else GENERIC, g, -1))
            g += 1
            continue
        layer = [g]
        while g + len(layer) < len(kind) and of_one_qubit[g + len(layer)]:
            layer.append(g + len(layer))
        g += len(layer)
        for gate in sorted(layer, key=lambda k: support[k]):  # a stable sort: each qubit's keep their order
            operation = Z if x[gate] == 0 else Y
            if operation == Z and rows and rows[-1][0] == Y and support[rows[-1][1]] == support[gate]:
                rows[-1] = (Y_THEN_Z, rows[-1][1], gate)
            else:
                rows.append((operation, gate, -1))
    is_low = [operation != GENERIC and support[gate] < 1 << low_qubits for operation, gate, _ in rows]
    edges = [k for k in range(len(rows)) if k == 0 or is_low[k] != is_low[k - 1]]
    operation, gate, second = np.ascontiguousarray(np.array(rows, np.int64).reshape(-1, 3).T)
    low = np.array([is_low[k] for k in edges], np.bool_)
    return Program(operation, gate, second, np.array([*edges, len(rows)], np.int64), low)


@njit(cache=True, inline="always")
def odd(mask: np.uint64) -> bool:
    """Whether a mask has an odd number of ones."""
    mask ^= mask >> np.uint64(32)
    mask ^= mask >> np.uint64(16)
    mask ^= mask >> np.uint64(8)
    mask ^= mask >> np.uint64(4)
    return (np.uint64(0x6996) >> (mask & np.uint64(15))) & np.uint64(1) == np.uint64(1)


@njit(cache=True)
def i_power(x: np.uint64, z: np.uint64) -> complex:
    """i^|x & z|, the phase in P(x, z)."""
    both, count = x & z, 0
    while both:
        both &= both - np.uint64(1)
        count += 1
    return (1.0 + 0.0j, 1.0j, -1.0 + 0.0j, -1.0j)[count % 4]


@njit(cache=True, fastmath=True)
def _rotate_any(psi: np.ndarray, x: np.uint64, z: np.uint64, c: float, s: float) -> None:
    """exp(-i angle/2 P(x, z)) on psi, c and s the cosine and sine of half the angle."""
    re, im = psi[0], psi[1]
    size = len(re)
    if x == 0:
        for k in range(size):
            t = s if odd(z & np.uint64(k)) else -s
            re[k], im[k] = c * re[k] - t * im[k], c * im[k] + t * re[k]
        return
    phase = -1j * s * i_power(x, z)
    a, d = phase.real, phase.imag
    flips_sign = odd(x & z)
    top = x
    while top & (top - np.uint64(1)):
        top &= top - np.uint64(1)
    for start in range(
        0, size, 2 * np.int64(top)
    ):  # the highest of the flipped qubits is 0 in the first half of each block
        for k in range(start, start + np.int64(top)):
            b = np.uint64(k)
            partner = np.int64(b ^ x)
            sign = -1.0 if odd(z & b) else 1.0  # <partner| -i s P |b> = sign phase
            back = -sign if flips_sign else sign  # <b| -i s P |partner> = back phase
            ur, ui, vr, vi = re[k], im[k], re[partner], im[partner]
            re[k], im[k] = c * ur + back * (a * vr - d * vi), c * ui + back * (a * vi + d * vr)
            re[partner], im[partner] = c * vr + sign * (a * ur - d * ui), c * vi + sign * (a * ui + d * ur)


@njit(cache=True, fastmath=True)
def _undo_any(psi: np.ndarray, lam: np.ndarray, x: np.uint64, z: np.uint64, c: float, s: float) -> float:
    """Undo a rotation on psi and lam; returns Im <lam| P(x, z) |psi>, which undoing it leaves as it is."""
    re, im, lre, lim = psi[0], psi[1], lam[0], lam[1]
    if x == 0:
        total = 0.0
        for k in range(len(re)):
            sign = -1.0 if odd(z & np.uint64(k)) else 1.0
            total += sign * (lre[k] * im[k] - lim[k] * re[k])
        _rotate_any(psi, x, z, c, -s)
        _rotate_any(lam, x, z, c, -s)
        return total
    power = i_power(x, z)
    phase = 1j * s * power
    a, d = phase.real, phase.imag
    flips_sign = odd(x & z)
    top = x
    while top & (top - np.uint64(1)):
        top &= top - np.uint64(1)
    real, imaginary = 0.0, 0.0
    for start in range(0, len(re), 2 * np.int64(top)):
        for k in range(start, start + np.int64(top)):
            b = np.uint64(k)
            partner = np.int64(b ^ x)
            sign = -1.0 if odd(z & b) else 1.0
            back = -sign if flips_sign else sign
            ur, ui, vr, vi = re[k], im[k], re[partner], im[partner]
            wr, wi, yr, yi = lre[k], lim[k], lre[partner], lim[partner]
            real += sign * (yr * ur + yi * ui) + back * (wr * vr + wi * vi)
            imaginary += sign * (yr * ui - yi * ur) + back * (wr * vi - wi * vr)
            re[k], im[k] = c * ur + back * (a * vr - d * vi), c * ui + back * (a * vi + d * vr)
            re[partner], im[partner] = c * vr + sign * (a * ur - d * ui), c * vi + sign * (a * ui + d * ur)
            lre[k], lim[k] = c * wr + back * (a * yr - d * yi), c * wi + back * (a * yi + d * yr)
            lre[partner], lim[partner] = c * yr + sign * (a * wr - d * wi), c * yi + sign * (a * wi + d * wr)
    return real * power.imag + imaginary * power.real


@njit(cache=True)
def _cnot(part: np.ndarray, first: int, last: int, control: int, target: int) -> None:
    """A CNOT on numbers first to last - 1 of real or imaginary parts; control and target are masks."""
    for start in range(first, last, 2 * target):
        if control > target:
            if start & control:
                for k in range(start, start + target):
                    part[k], part[k + target] = part[k + target], part[k]
        else:
            for inner in range(start + control, start + target, 2 * control):
                for k in range(inner, inner + control):
                    part[k], part[k + target] = part[k + target], part[k]


@njit(cache=True, fastmath=True)
def _rotate_qubit(psi: np.ndarray, first: int, last: int, h: int, cy: float, sy: float, cz: float, sz: float) -> None:
    """exp(-i z/2 Z) exp(-i y/2 Y) on the qubit of mask h, amplitudes first to last - 1."""
    for start in range(first, last, 2 * h):
        r0, r1 = psi[0, start : start + h], psi[0, start + h : start + 2 * h]
        i0, i1 = psi[1, start : start + h], psi[1, start + h : start + 2 * h]
        for k in range(h):
            ar, ai = cy * r0[k] - sy * r1[k], cy * i0[k] - sy * i1[k]
            br, bi = sy * r0[k] + cy * r1[k], sy * i0[k] + cy * i1[k]
            r0[k] = cz * ar + sz * ai
            i0[k] = cz * ai - sz * ar
            r1[k] = cz * br - sz * bi
            i1[k] = cz * bi + sz * br


@njit(cache=True, fastmath=True)
def _undo_qubit(
    psi: np.ndarray, lam: np.ndarray, first: int, last: int, h: int, cy: float, sy: float, cz: float, sz: float
) -> tuple[float, float]:
    """Undo that on psi and lam; returns Im <lam| Y |psi> before exp(-i z/2 Z), and Im <lam| Z |psi> after it."""
    of_y, of_z = 0.0, 0.0
    for start in range(first, last, 2 * h):
        r0, r1 = psi[0, start : start + h], psi[0, start + h : start + 2 * h]
        i0, i1 = psi[1, start : start + h], psi[1, start + h : start + 2 * h]
        s0, s1 = lam[0, start : start + h], lam[0, start + h : start + 2 * h]
        j0, j1 = lam[1, start : start + h], lam[1, start + h : start + 2 * h]
        for k in range(h):
            of_z += s0[k] * i0[k] - j0[k] * r0[k] - s1[k] * i1[k] + j1[k] * r1[k]
            ar, ai = cz * r0[k] - sz * i0[k], cz * i0[k] + sz * r0[k]
            br, bi = cz * r1[k] + sz * i1[k], cz * i1[k] - sz * r1[k]
            dr, di = cz * s0[k] - sz * j0[k], cz * j0[k] + sz * s0[k]
            er, ei = cz * s1[k] + sz * j1[k], cz * j1[k] - sz * s1[k]
            of_y += er * ar + ei * ai - dr * br - di * bi
            r0[k] = cy * ar + sy * br
            i0[k] = cy * ai + sy * bi
            r1[k] = cy * br - sy * ar
            i1[k] = cy * bi - sy * ai
            s0[k] = cy * dr + sy * er
            j0[k] = cy * di + sy * ei
            s1[k] = cy * er - sy * dr
            j1[k] = cy * ei - sy * di
    return of_y, of_z


@njit(cache=True)
def _angles(program: Program, at: Angles, k: int) -> tuple[float, float, float, float]:
    """Cosine and sine of half the Y and of half the Z angle of an operation on one qubit."""
    g, second = program.gate[k], program.second[k]
    if program.operation[k] == Z:
        return 1.0, 0.0, at.cosine[g], at.sine[g]
    if program.operation[k] == Y:
        return at.cosine[g], at.sine[g], 1.0, 0.0
    return at.cosine[g], at.sine[g], at.cosine[second], at.sine[second]


@njit(cache=True)
def run_program(psi: np.ndarray, program: Program, at: Angles, low_qubits: int) -> None:
    """All gates on psi, real and imaginary parts, shape (2, 2^n), in place."""
    size = psi.shape[1]
    for segment in range(len(program.low)):
        piece = min(size, 1 << low_qubits) if program.low[segment] else size
        for first in range(0, size, piece):
            for k in range(program.segment[segment], program.segment[segment + 1]):
                g, operation = program.gate[k], program.operation[k]
                if operation == GENERIC:
                    _rotate_any(psi, at.x[g], at.z[g], at.cosine[g], at.sine[g])
                elif operation == SWAP:
                    for part in range(2):
                        _cnot(psi[part], first, first + piece, np.int64(at.x[g]), np.int64(at.z[g]))
                else:
                    cy, sy, cz, sz = _angles(program, at, k)
                    _rotate_qubit(psi, first, first + piece, np.int64(at.z[g]), cy, sy, cz, sz)


@njit(cache=True)
def undo_program(
    psi: np.ndarray, lam: np.ndarray, program: Program, at: Angles, low_qubits: int, slopes: np.ndarray
) -> None:
    """Undo all gates on psi and lam = H psi, both of shape (2, 2^n), adding Im <lam| P |psi> of every rotation to slopes, (n_gates,).

    That is the derivative of <psi| H |psi> by the gate's angle, 2 Re <lam| -i/2 P |psi>.
    """
    size = psi.shape[1]
    for segment in range(len(program.low) - 1, -1, -1):
        piece = min(size, 1 << low_qubits) if program.low[segment] else size
        for first in range(0, size, piece):
            for k in range(program.segment[segment + 1] - 1, program.segment[segment] - 1, -1):
                g, operation = program.gate[k], program.operation[k]
                if operation == GENERIC:
                    slopes[g] += _undo_any(psi, lam, at.x[g], at.z[g], at.cosine[g], at.sine[g])
                elif operation == SWAP:
                    for part in range(2):
                        _cnot(psi[part], first, first + piece, np.int64(at.x[g]), np.int64(at.z[g]))
                        _cnot(lam[part], first, first + piece, np.int64(at.x[g]), np.int64(at.z[g]))
                else:
                    cy, sy, cz, sz = _angles(program, at, k)
                    of_y, of_z = _undo_qubit(psi, lam, first, first + piece, np.int64(at.z[g]), cy, sy, cz, sz)
                    slopes[g] += of_z if operation == Z else of_y
                    if operation == Y_THEN_Z:
                        slopes[program.second[k]] += of_z
