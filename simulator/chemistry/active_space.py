"""Which orbitals are active: by energy, by number, name or irrep, or by natural occupation; and a warning where a set is cut."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.chemistry.basis_sets import ecp_of
from simulator.chemistry.elements import core_orbitals
from simulator.chemistry.orbitals import by_irrep, canonical_within, fock_diagonal
from simulator.errors import InputError
from simulator.memory import check_memory

if TYPE_CHECKING:
    from simulator.chemistry.problem_spec import ProblemSpec

DEGENERATE = 5e-4
"""Hartree. Orbitals closer than this are one set for the warning: coordinates with four decimals split a pair by 1e-4."""

SAME_OCCUPATION = 1e-4
"""Electrons. Natural orbitals whose occupations are closer than this are one set for the warning."""


@dataclass(frozen=True)
class Space:
    """Sizes of an active space that are known before the orbitals are."""

    n_core: int
    norb: int
    nelec: tuple[int, int]  # alpha, beta


@dataclass(frozen=True)
class ActiveOrbitals:
    """The active orbitals among all, by index from 0; the occupied ones stand first."""

    indices: tuple[int, ...]
    core: tuple[int, ...]  # doubly occupied and left out
    nelec: tuple[int, int]  # alpha, beta, in the active orbitals
    names: tuple[str, ...]  # of all orbitals, e.g. 2a1; their numbers from 1 where there is no symmetry
    energies: np.ndarray  # Fock diagonal, hartree, shape: (n_orbitals,)
    occupations: np.ndarray  # natural occupations where these chose the orbitals, else 2, 1 or 0, shape: (n_orbitals,)
    numbers: tuple[int, ...] | None = None  # what errors call each orbital; None: its index and one

    def number(self, index: int) -> int:
        """What a user calls an orbital, from 1."""
        return index + 1 if self.numbers is None else self.numbers[index]


def checked_space(spec: "ProblemSpec", n_orbitals: int) -> Space | None:
    """Sizes of the active space; None where only the orbitals tell.

    Raises:
        InputError: it does not fit the molecule.
    """
    if spec.natural_orbitals is not None:
        return None
    if spec.orbitals is not None:
        if not all(name.isdigit() for name in spec.orbitals):
            return None
        chosen = _resolved(spec, tuple(str(i + 1) for i in range(n_orbitals)))
        return _split(spec, chosen)
    n_core, norb = _by_energy(spec, n_orbitals)
    n_alpha, n_beta = spec.nelec
    return Space(n_core, norb, (n_alpha - n_core, n_beta - n_core))


def choose_orbitals(
    spec: "ProblemSpec", mf: Any, coefficients: np.ndarray, orbsym: np.ndarray | None
) -> tuple[ActiveOrbitals, np.ndarray, np.ndarray | None]:
    """The active orbitals, and coefficients and irreps of all orbitals in the order that the indices mean.

    Raises:
        InputError: an orbital that there is not, or a choice that leaves an unpaired electron out or nothing to correlate.
    """
    n_orbitals = coefficients.shape[1]
    occupations = np.sort(np.asarray(mf.mo_occ))[::-1].astype(float)
    if spec.natural_orbitals is not None:
        return _by_natural_occupation(spec, mf, coefficients, orbsym)
    names = orbital_names(mf, coefficients)
    if spec.orbitals is not None:
        chosen = _resolved(spec, names)
    else:
        n_core, norb = _by_energy(spec, n_orbitals)
        chosen = tuple(range(n_core, n_core + norb))
    space = _split(spec, chosen)
    core = tuple(i for i in range(spec.nelec[1]) if i not in set(chosen))
    energies = fock_diagonal(mf, coefficients)
    return ActiveOrbitals(chosen, core, space.nelec, names, energies, occupations), coefficients, orbsym


def cut_sets(spec: "ProblemSpec", active: ActiveOrbitals) -> tuple[str, ...]:
    """A warning for each degenerate set of which the active space takes some orbitals and leaves others."""
    natural = spec.natural_orbitals is not None
    values, within = _criterion(spec, active)
    inside, told = set(active.indices), []
    for members in _sets(spec, values, within):
        taken = [i for i in members if i in inside]
        left = [i for i in members if i not in inside]
        if not taken or not left:
            continue
        listed = lambda indices: ", ".join(_called(active, i) for i in indices)  # noqa: E731
        at = f"occupation {values[taken[0]]:.4f}" if natural else f"{values[taken[0]]:.4f} hartree"
        whole = ",".join(map(str, sorted(active.number(i) for i in inside | set(members))))
        on = "the molecule's orientation" if spec.integrals is None else "which mixture of them the integrals are over"
        other = f"another number of natural orbitals than {len(inside)}" if natural else f"orbitals {whole}"
        told.append(
            f"active space cuts a degenerate set at {at}: orbital{'s' if len(taken) > 1 else ''} {listed(taken)} inside,"
            f" {listed(left)} outside, so the energy depends on {on} (choose whole sets, e.g. {other})"
        )
    return tuple(told)


def orbital_names(mf: Any, coefficients: np.ndarray) -> tuple[str, ...]:
    """Each orbital's name, e.g. 2a1: irrep, counted from below. Their numbers from 1 where there is no symmetry."""
    mol = mf.mol
    if not mol.symmetry or getattr(mf.mo_coeff, "orbsym", None) is None:
        return tuple(str(i + 1) for i in range(coefficients.shape[1]))
    overlap = mol.intor_symmetric("int1e_ovlp")
    weights = np.array([np.sum((c.T @ overlap @ coefficients) ** 2, axis=0) for c in mol.symm_orb])
    counts: dict[str, int] = {}
    names = []
    for irrep in np.argmax(weights, axis=0):
        name = str(mol.irrep_name[irrep]).lower()
        counts[name] = counts.get(name, 0) + 1
        names.append(f"{counts[name]}{name}")
    return tuple(names)


def degenerate_sets(spec: "ProblemSpec", active: ActiveOrbitals) -> list[list[int]]:
    """Indices of the orbitals of each degenerate set of two or more."""
    return [members for members in _sets(spec, *_criterion(spec, active)) if len(members) > 1]


def _criterion(spec: "ProblemSpec", active: ActiveOrbitals) -> tuple[np.ndarray, float]:
    """What tells that orbitals are degenerate, and how near it must be: occupations of natural ones, else energies."""
    natural = spec.natural_orbitals is not None
    return (active.occupations, SAME_OCCUPATION) if natural else (active.energies, DEGENERATE)


def natural_density(spec: "ProblemSpec", mf: Any, coefficients: np.ndarray) -> np.ndarray:
    """Spin-summed one-particle density of MP2 (CISD for open shells, or where MP2 breaks down) over the orbitals.

    Args:
        spec: the specification; a frozen core stays doubly occupied.
        mf: the mean field.
        coefficients: its orbitals, occupied ones first, shape (n_functions, n_orbitals).

    Returns:
        shape (n_orbitals, n_orbitals)

    Raises:
        InputError: the amplitudes do not fit into memory.
    """
    from pyscf import ci, mp, scf

    from simulator.chemistry.scf import unrestricted_copy, without_checkpoint

    mol = mf.mol.copy()
    if mol.symmetry:
        mol.build(dump_input=False, parse_arg=False, symmetry=False)
    n_alpha, n_beta = spec.nelec
    n_orbitals = coefficients.shape[1]
    n_virtual = n_orbitals - n_beta
    check_memory(
        f"natural orbitals of {n_orbitals} orbitals", 8 * 4 * (n_alpha * n_virtual) ** 2, "choose orbitals by number"
    )
    plain = without_checkpoint(scf.RHF(mol) if mol.spin == 0 else scf.ROHF(mol))
    plain.mo_coeff, plain.mo_occ = coefficients, np.sort(np.asarray(mf.mo_occ))[::-1]
    plain.mo_energy, plain._eri, plain.e_tot, plain.converged = fock_diagonal(mf, coefficients), mf._eri, mf.e_tot, True
    core = _core(spec)
    frozen = core or None
    if core >= n_alpha or n_alpha == n_orbitals:
        return np.diag(plain.mo_occ.astype(float))  # nothing to correlate
    if mol.spin == 0:
        method = mp.MP2(plain, frozen=frozen)
        method.verbose = 0
        method.kernel()
        density = np.asarray(method.make_rdm1())
        occupations = np.linalg.eigvalsh(density)
        if np.all((occupations > -1e-3) & (occupations < 2 + 1e-3)) and np.isfinite(occupations).all():
            return density
    method = ci.RCISD(plain, frozen=frozen) if mol.spin == 0 else ci.UCISD(unrestricted_copy(plain), frozen=frozen)
    method.verbose = 0
    method.kernel()
    density = np.asarray(method.make_rdm1())
    return density if density.ndim == 2 else np.asarray(density[0] + density[1])


def _by_energy(spec: "ProblemSpec", n_orbitals: int) -> tuple[int, int]:
    """Frozen doubly occupied orbitals, active orbitals: those nearest the gap."""
    molecule, (n_alpha, n_beta) = spec.molecule, spec.nelec
    core = _core(spec)
    if spec.active_electrons is None or spec.active_orbitals is None:
        n_core, norb = core, n_orbitals - core
        if n_core > n_beta:
            raise InputError(f"freeze core: {molecule.formula} has {n_beta} doubly occupied orbitals, its core {core}")
        what = f"{spec.basis} with the core frozen" if core else spec.basis
    else:
        frozen = n_alpha + n_beta - spec.active_electrons
        n_core, norb = frozen // 2, spec.active_orbitals
        what = f"active space {spec.active_electrons}e,{spec.active_orbitals}o"
        if frozen < 0 or frozen % 2:
            raise InputError(
                f"{what}: {molecule.formula} has {n_alpha + n_beta} electrons, an even number must stay outside"
            )
        if n_core + norb > n_orbitals:
            raise InputError(
                f"{what} is larger than the molecule: {molecule.formula} in {spec.basis} has {n_orbitals} orbitals,"
                f" {n_core} of them doubly occupied outside the active space"
            )
        if n_core < core:
            raise InputError(
                f"{what} reaches into the core: {core} core orbitals are frozen, {n_core} are outside the active space"
            )
    if n_alpha - n_core > norb or n_beta < n_core:
        raise InputError(
            f"{what}: {norb} orbital{'s' if norb > 1 else ''} cannot hold {n_alpha - n_core} alpha electrons"
        )
    if n_alpha == n_core:
        raise InputError(f"{what}: no electron is left to correlate")
    return n_core, norb


def _core(spec: "ProblemSpec") -> int:
    """Orbitals of the frozen core."""
    if not spec.freeze_core:
        return 0
    ecps = ((e, ecp_of(spec.basis, e)) for e in spec.elements)
    return sum(core_orbitals(e, ecp.electrons if ecp else 0) for e, ecp in ecps)


def _split(spec: "ProblemSpec", chosen: tuple[int, ...]) -> Space:
    """Core and electrons of chosen orbitals; the n_beta first are doubly occupied, those up to n_alpha singly."""
    n_alpha, n_beta = spec.nelec
    n_core = n_beta - sum(i < n_beta for i in chosen)
    if missing := [i for i in range(n_beta, n_alpha) if i not in chosen]:
        listed = ", ".join(str(i + 1) for i in missing)
        raise InputError(f"orbitals {_listed(chosen)}: the singly occupied {listed} must be among them")
    nelec = (n_alpha - n_core, n_beta - n_core)
    if nelec[0] == 0:
        raise InputError(f"orbitals {_listed(chosen)}: none of them holds an electron (occupied are 1 to {n_alpha})")
    core = _core(spec)
    if reached := [i for i in chosen if i < core]:
        raise InputError(
            f"orbitals {_listed(chosen)}: {reached[0] + 1} is one of the {core} orbitals of the frozen core"
        )
    return Space(n_core, len(chosen), nelec)


def _resolved(spec: "ProblemSpec", names: tuple[str, ...]) -> tuple[int, ...]:
    """Indices of the orbitals that the specification names."""
    assert spec.orbitals is not None
    n_orbitals, core = len(names), _core(spec)
    found: set[int] = set()
    for wanted in spec.orbitals:
        if wanted.isdigit():
            if int(wanted) > n_orbitals:
                raise InputError(
                    f"orbitals: {wanted} is more than the {n_orbitals} of {spec.molecule.formula} in {spec.basis}"
                )
            found.add(int(wanted) - 1)
            continue
        irrep = wanted.lstrip("0123456789")
        counted = wanted != irrep
        # A degenerate irrep of a linear molecule is listed as its two components, e.g. e1x and e1y.
        accepted = {wanted, *((wanted + c) for c in "xy")}
        matches = [
            i for i, name in enumerate(names)
            if (name if counted else name.lstrip("0123456789")) in accepted and (counted or i >= core)
        ]  # fmt: skip
        if not matches:
            irreps = sorted({name.lstrip("0123456789") for name in names} - {""})
            have = f"irreps here: {', '.join(irreps)}" if irreps else "no symmetry is used here: give numbers"
            raise InputError(f"orbitals: {spec.molecule.formula} in {spec.basis} has no {wanted} ({have})")
        found |= set(matches)
    return tuple(sorted(found))


def _by_natural_occupation(
    spec: "ProblemSpec", mf: Any, coefficients: np.ndarray, orbsym: np.ndarray | None
) -> tuple[ActiveOrbitals, np.ndarray, np.ndarray | None]:
    """The orbitals whose natural occupation is furthest from 2 and 0.

    Natural orbitals are taken within the doubly occupied and within the empty orbitals, so that the Hartree-Fock determinant
    and its energy stay what they are; the active ones are then made canonical again within either, as MP2 and CCSD want them.
    """
    assert spec.natural_orbitals is not None
    wanted, (n_alpha, n_beta) = spec.natural_orbitals, spec.nelec
    n_orbitals, core = coefficients.shape[1], _core(spec)
    n_single = n_alpha - n_beta
    if wanted > n_orbitals - core:
        raise InputError(
            f"active space auto:{wanted}: {spec.molecule.formula} in {spec.basis} has {n_orbitals - core} orbitals to choose from"
        )
    if wanted < max(n_single + 1, 2) and wanted < n_orbitals - core:
        raise InputError(
            f"active space auto:{wanted}: at least {max(n_single + 1, 2)} orbitals are needed, an occupied and an empty one"
        )
    density = natural_density(spec, mf, coefficients)
    rotated = np.array(coefficients)
    occupations = np.concatenate([np.full(n_beta, 2.0), np.ones(n_single), np.zeros(n_orbitals - n_alpha)])
    doubly, empty = np.arange(core, n_beta), np.arange(n_alpha, n_orbitals)
    for block in (doubly, empty):
        for same in by_irrep(block, orbsym):
            values, vectors = np.linalg.eigh(density[np.ix_(same, same)])
            rotated[:, same] = coefficients[:, same] @ vectors[:, ::-1]
            occupations[same] = values[::-1]
    active = [int(i) for i in range(n_beta, n_alpha)]
    chosen = _whole_sets(spec, occupations, doubly, empty, wanted - n_single)
    active = sorted([*active, *chosen])
    inside = set(active)
    groups = [
        [i for i in range(n_beta) if i not in inside], [i for i in active if i < n_beta],
        [i for i in active if n_beta <= i < n_alpha], [i for i in active if i >= n_alpha],
        [i for i in range(n_alpha, n_orbitals) if i not in inside],
    ]  # fmt: skip
    order = np.array([i for group in groups for i in group], dtype=int)
    rotated, occupations = rotated[:, order], occupations[order]
    labels = None if orbsym is None else np.asarray(orbsym)[order]
    begin = 0
    for group in groups:
        block = np.arange(begin, begin + len(group))
        begin += len(group)
        rotated, labels = canonical_within(mf, rotated, labels, block)
    n_core = len(groups[0])
    nelec = (n_alpha - n_core, n_beta - n_core)
    found = ActiveOrbitals(
        tuple(range(n_core, n_core + len(active))), tuple(range(n_core)), nelec,
        tuple(f"no{i + 1}" for i in range(n_orbitals)), fock_diagonal(mf, rotated), occupations,
    )  # fmt: skip
    return found, rotated, labels


def _whole_sets(
    spec: "ProblemSpec", occupations: np.ndarray, doubly: np.ndarray, empty: np.ndarray, wanted: int
) -> list[int]:
    """The orbitals that correlate most, a degenerate set as a whole where that leaves room; at least one of either side."""
    allowed = {int(i) for i in (*doubly, *empty)}
    weight = lambda i: round(float(min(occupations[i], 2 - occupations[i])), 10)  # noqa: E731
    sets = [[i for i in members if i in allowed] for members in _sets(spec, occupations, SAME_OCCUPATION)]
    sets = sorted((s for s in sets if s), key=lambda s: (-max(weight(i) for i in s), s))
    chosen: list[int] = []
    needed = [side for side in (doubly, empty) if len(side) and (side is empty or spec.nelec[0] == spec.nelec[1])]
    for side in needed:  # something to excite from, and something to excite to
        best = next(s for s in sets if s[0] in side)
        chosen += best if len(chosen) + len(best) <= wanted - (side is doubly) else best[:1]
    for members in sets:
        rest = [i for i in members if i not in chosen]
        if len(rest) == len(members) and len(chosen) + len(members) <= wanted:
            chosen += members
    for members in sets:  # only sets that do not fit are left: one is cut, which is told
        rest = [i for i in members if i not in chosen]
        chosen += rest[: wanted - len(chosen)]
    return chosen[:wanted]


def _sets(spec: "ProblemSpec", values: np.ndarray, within: float) -> list[list[int]]:
    """Indices of orbitals of one occupation (2, 1 or 0 in the mean field) whose neighbours by value are closer than `within`."""
    n_alpha, n_beta = spec.nelec
    found = []
    for block in (range(n_beta), range(n_beta, n_alpha), range(n_alpha, len(values))):
        members: list[int] = []
        for i in sorted(block, key=lambda i: values[i]):
            if members and values[i] - values[members[-1]] > within:
                found.append(members)
                members = []
            members.append(i)
        if members:
            found.append(members)
    return found


def _called(active: ActiveOrbitals, index: int) -> str:
    number, name = str(active.number(index)), active.names[index]
    return number if name == number else f"{number} ({name})"


def _listed(chosen: tuple[int, ...]) -> str:
    return ",".join(str(i + 1) for i in chosen)
