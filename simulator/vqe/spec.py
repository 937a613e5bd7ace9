"""What a run is: `RunSpec`, everything that decides the numbers, and the ids that follow from it.

Where results go, how much is logged and who may read them is not here but in `settings.Settings`.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache, cached_property
from typing import Any

import rfc8785

from simulator.chemistry.basis_sets import check_basis_name, ecp_electrons, ecp_of
from simulator.chemistry.bonds import stretched_bond
from simulator.chemistry.elements import ATOMIC_NUMBERS
from simulator.chemistry.given_integrals import BASIS, GivenIntegrals, check_needs_no_atoms
from simulator.chemistry.molecules import BOHR, Molecule, bundled_molecules
from simulator.errors import InputError
from simulator.input_files import check_whole, shown
from simulator.operators.given_circuit import GivenCircuit

MAPPERS = ("jordan_wigner", "parity", "bravyi_kitaev")
GIVEN_CIRCUIT = "circuit"
ANSATZE = ("uccsd", "efficient_su2", "real_amplitudes", "excitation_preserving", GIVEN_CIRCUIT)
INITIAL_POINTS = ("mp2", "hf", "zeros", "random", "vector")
ENGINES = ("sector", "statevector", "aer")
AER_METHODS = ("automatic", "statevector", "density_matrix", "matrix_product_state")
DEVICES = ("cpu", "gpu")
PRECISIONS = ("double", "single")
SPEC_VERSION = 2
"""Version 2 is a specification whose numbers are not what version 1 gave: see `RunSpec.spec_version`."""
MAX_SEED = 2**32 - 1
MAX_PARAMETERS = 5_000
"""Keeps every record under 500 kB: a result holds each parameter's label, initial and optimal value."""

LATER_FIELDS = ("orbitals", "natural_orbitals", "integrals", "circuit")
"""Fields that came after the first release: they are in no record of a specification, and in its JSON where they are given."""

RECORD_ROOM = 480_000
"""Bytes of a record for what was given by value and all that is there once a parameter; the rest is for notes, references and timings."""

BYTES_PER_PARAMETER = 100
"""Label, initial and optimal value, and the initial vector twice: in the specification's record and in its JSON."""


@dataclass(frozen=True)
class Noise:
    """Noise model: depolarizing channels after gates, symmetric readout error. All are probabilities."""

    one_qubit: float = 0.0
    two_qubit: float = 0.0
    readout: float = 0.0

    def __post_init__(self) -> None:
        for name, limit in (("one_qubit", 1.0), ("two_qubit", 1.0), ("readout", 0.5)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= limit:
                raise InputError(f"noise: {name} must be a probability from 0 to {limit:g}, not {value!r}")
            object.__setattr__(self, name, float(value))


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides a run's numbers, validated, defaults filled in.

    Raises:
        InputError: a value is not allowed; the message says what was given and what is allowed.
    """

    elements: tuple[str, ...]
    geometry: tuple[tuple[float, float, float], ...]  # angstrom, shape (n_atoms, 3)
    charge: int = 0
    multiplicity: int = 1
    basis: str = "sto-3g"
    active_electrons: int | None = None
    active_orbitals: int | None = None
    freeze_core: bool = False
    mapper: str = "jordan_wigner"
    ansatz: str = "uccsd"
    reps: int = 1
    optimizer: str = "l-bfgs-b"
    optimizer_options: tuple[tuple[str, Any], ...] = ()
    max_iterations: int = 500
    tolerance: float = 1e-5
    initial_point: str = "mp2"
    initial_vector: tuple[float, ...] | None = None  # radians, shape (n_parameters,)
    seed: int = 0
    engine: str = "sector"
    aer_method: str = "statevector"
    device: str = "cpu"
    precision: str = "double"
    shots: int | None = None
    noise: Noise | None = None
    orbitals: tuple[str, ...] | None = None  # active orbitals by number from 1 (`3`), name (`2a1`) or irrep (`b1`)
    natural_orbitals: int | None = None  # active orbitals, chosen by natural occupation
    integrals: GivenIntegrals | None = None  # in the place of atoms, charge and basis
    circuit: GivenCircuit | None = None  # of ansatz circuit
    spec_version: int = 1
    """Which rules the numbers follow. It is derived, whatever is given, so that nothing else can be asked for.

    1: as ever. 2: the basis has an ECP, or the geometry is one where SCF solutions compete (`may_have_other_solutions`)
    and the lowest is looked for; or there are shots, and the result is measured again at the end. Version 1 of these gave
    other numbers (with shots, the luckiest sample) under another id, which therefore counts as another specification.
    """
    _molecule: Molecule = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        molecule = Molecule(
            "", tuple(self.elements), self.geometry, self.charge, self.multiplicity, integrals=self.integrals
        )
        put("_molecule", molecule)
        put("elements", molecule.elements)
        put("geometry", tuple(tuple(_plain(x) for x in atom) for atom in molecule.geometry))
        put("basis", self._checked_basis())
        for name, allowed in (
            ("mapper", MAPPERS), ("ansatz", ANSATZE), ("initial_point", INITIAL_POINTS), ("engine", ENGINES),
            ("aer_method", AER_METHODS), ("device", DEVICES), ("precision", PRECISIONS),
        ):  # fmt: skip
            check_choice(name, getattr(self, name), allowed)
        check_whole("reps", self.reps, 1, 100)
        check_whole("max iterations", self.max_iterations, 1, 10_000_000)
        check_whole("seed", self.seed, 0, MAX_SEED)
        check_whole("spec version", self.spec_version, 1, SPEC_VERSION)
        if self.noise is not None and not isinstance(self.noise, Noise):
            raise InputError(f"noise must be a noise model, not {shown(self.noise)}")
        if self.shots is not None:
            check_whole("shots", self.shots, 1, 1_000_000_000)
        if not (_is_number(self.tolerance) and 0 < self.tolerance < 1):
            raise InputError(f"tolerance must be a number between 0 and 1, not {self.tolerance!r}")
        put("tolerance", float(self.tolerance))
        put("spec_version", self._version())
        self._check_electrons()
        self._check_active_space()
        self._check_orbitals()
        self._check_circuit()
        self._check_initial_point()
        self._check_optimizer()
        self._check_engine()

    def _checked_basis(self) -> str:
        if self.integrals is not None:
            basis = BASIS if self.basis == RunSpec.basis else self.basis  # nobody has to give one
            given = {"basis": basis, "freeze_core": self.freeze_core, "natural_orbitals": self.natural_orbitals}
            check_needs_no_atoms(given, "")
            return BASIS
        if not isinstance(self.basis, str) or not self.basis.isprintable():
            raise InputError(f"basis must be a name, e.g. sto-3g, not {shown(self.basis)}")
        basis = self.basis.strip().lower()
        check_basis_name(basis)
        return basis

    def _version(self) -> int:
        return 2 if self._has_other_orbitals() or self.shots is not None else 1

    def _has_other_orbitals(self) -> bool:
        """Whether the orbitals, and with them the problem, are not those of version 1."""
        if self.integrals is not None:  # they came with their orbitals
            return False
        has_ecp = any(ecp_of(self.basis, element) is not None for element in self.elements)
        return has_ecp or may_have_other_solutions(self.molecule)

    def _check_electrons(self) -> None:
        n_alpha, n_beta = self.nelec
        if n_alpha < 1 or n_beta < 0:
            molecule, replaced = self.molecule, self.ecp_electrons
            raise InputError(
                f"basis {self.basis}: its ECP leaves {molecule.n_electrons - replaced} of {molecule.formula}'s"
                f" {molecule.n_electrons} electrons, too few for multiplicity {self.multiplicity}"
            )

    def _check_active_space(self) -> None:
        electrons, orbitals = self.active_electrons, self.active_orbitals
        if (electrons is None) != (orbitals is None):
            raise InputError("an active space needs both electrons and orbitals, e.g. --active-space 4e,4o")
        if electrons is None or orbitals is None:
            return
        check_whole("active electrons", electrons, 1, 10_000)
        check_whole("active orbitals", orbitals, 1, 10_000)
        molecule, unpaired = self.molecule, self.multiplicity - 1
        where = f"active space {electrons}e,{orbitals}o"
        available = sum(self.nelec)
        if electrons > available:
            beside = f" beside the ECP's {self.ecp_electrons}" if self.ecp_electrons else ""
            raise InputError(
                f"{where} is larger than the molecule: {molecule.formula} has {available} electrons{beside}"
            )
        if electrons > 2 * orbitals:
            raise InputError(f"{where}: {orbitals} orbitals hold at most {2 * orbitals} electrons")
        if electrons < unpaired or (electrons - unpaired) % 2:
            raise InputError(f"{where}: multiplicity {self.multiplicity} is impossible with {electrons} electrons")
        if (electrons + unpaired) // 2 > orbitals:
            raise InputError(
                f"{where}: {orbitals} orbitals are too few for {unpaired} unpaired of {electrons} electrons"
            )

    def _check_orbitals(self) -> None:
        given = [
            name for name, value in (
                ("an active space of electrons and orbitals", self.active_orbitals), ("orbitals", self.orbitals),
                ("natural orbitals", self.natural_orbitals),
            ) if value is not None
        ]  # fmt: skip
        if len(given) > 1:
            raise InputError(f"{given[0]} and {given[1]} are two ways to choose the active space (use one)")
        if self.natural_orbitals is not None:
            check_whole("natural orbitals", self.natural_orbitals, 1, 10_000)
        if self.orbitals is not None:
            object.__setattr__(self, "orbitals", _orbital_names(self.orbitals))

    def _check_circuit(self) -> None:
        if (self.ansatz == GIVEN_CIRCUIT) != (self.circuit is not None):
            lack = "has no circuit" if self.circuit is None else f"is given for ansatz {self.ansatz}"
            raise InputError(
                f"a circuit and ansatz {GIVEN_CIRCUIT} go together, and this one {lack}"
                " (give an OpenQASM file as the ansatz, or a circuit of Qiskit's)"
            )
        if self.circuit is None:
            return
        if not isinstance(self.circuit, GivenCircuit):
            raise InputError(f"circuit must be a given circuit, not {shown(self.circuit)}")
        if self.reps != RunSpec.reps:
            raise InputError(f"reps {self.reps}: a given circuit is taken as it is, repetitions belong into it")
        check_parameters(len(self.circuit.parameters), self)
        if self.initial_point == "hf":
            raise InputError(
                "initial point hf: nobody knows where a given circuit is the Hartree-Fock determinant (use zeros, random or a vector)"
            )

    def _check_initial_point(self) -> None:
        if (self.initial_point == "vector") != (self.initial_vector is not None):
            raise InputError("an initial vector goes with initial_point vector, and the other way round")
        if self.initial_vector is None:
            if self.initial_point == "mp2" and self.ansatz != "uccsd":
                raise InputError(
                    f"initial point mp2 is for the uccsd ansatz, not {self.ansatz} (use zeros, random or hf)"
                )
            return
        vector = tuple(self.initial_vector)
        if not 1 <= len(vector) <= self.max_parameters:
            raise InputError(f"initial vector has {len(vector)} values (1 to {self.max_parameters} are allowed)")
        for i, value in enumerate(vector):
            if not _is_number(value):
                raise InputError(f"initial vector: value {i} is {value!r}, not a finite number")
        object.__setattr__(self, "initial_vector", tuple(_plain(v) for v in vector))

    def _check_optimizer(self) -> None:
        from simulator.vqe.optimizers import OPTIMIZERS, check_options

        check_choice("optimizer", self.optimizer, tuple(OPTIMIZERS))
        options = dict(self.optimizer_options)
        object.__setattr__(self, "optimizer_options", tuple(sorted(check_options(self.optimizer, options).items())))

    def _check_engine(self) -> None:
        from simulator.engines.base import check_engine

        check_engine(self)

    @property
    def molecule(self) -> Molecule:
        """The molecule, without a name."""
        return self._molecule

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's options."""
        return dict(self.optimizer_options)

    @property
    def max_parameters(self) -> int:
        """Parameters that the ansatz may have: fewer beside integrals or a given circuit, which stand in the same records."""
        given = [part.n_bytes for part in (self.integrals, self.circuit) if part is not None]
        return min(MAX_PARAMETERS, (RECORD_ROOM - sum(given)) // BYTES_PER_PARAMETER) if given else MAX_PARAMETERS

    @property
    def estimated_by(self) -> tuple[str, ...]:
        """What makes the run's energies estimates, in words; empty where they are exact to rounding."""
        given = {"shots": self.shots is not None, "noise": self.noise is not None}
        given["single precision"] = self.precision == "single"
        return tuple(name for name, is_given in given.items() if is_given)

    @property
    def molecule_id(self) -> str:
        return self.molecule.molecule_id

    @property
    def ecp_electrons(self) -> int:
        """Electrons that the basis' effective core potentials replace."""
        return ecp_electrons(self.basis, self.elements)

    @property
    def ecp(self) -> str | None:
        """PySCF's name of the effective core potential that belongs to the basis, None where no element has one."""
        found = {ecp.name for element in self.elements if (ecp := ecp_of(self.basis, element)) is not None}
        return ", ".join(sorted(found)) or None

    @property
    def nuclear_repulsion(self) -> float | None:
        """Coulomb energy of the nuclei, less the electrons of their effective core potentials, in hartree.

        None with integrals: it is an unknown part of their core energy.
        """
        if self.integrals is not None:
            return None
        if not self.ecp_electrons:
            return self.molecule.nuclear_repulsion
        ecps = (ecp_of(self.basis, element) for element in self.elements)
        charges = [
            ATOMIC_NUMBERS[e] - (ecp.electrons if ecp else 0) for e, ecp in zip(self.elements, ecps, strict=True)
        ]
        return sum(
            charges[i] * charges[j] * BOHR / math.dist(self.geometry[i], self.geometry[j])
            for i in range(len(charges))
            for j in range(i)
        )

    @property
    def nelec(self) -> tuple[int, int]:
        """Alpha and beta electrons outside the effective core potentials."""
        replaced = self.ecp_electrons // 2
        return self.molecule.n_alpha - replaced, self.molecule.n_beta - replaced

    @cached_property
    def problem_id(self) -> str:
        """SHA-256 of molecule_id, basis, active space, frozen core and mapper, in hex.

        What is not as it was in the first release (the version, where that concerns orbitals; chosen orbitals) is appended,
        so that ids stay where it is.
        """
        parts = [
            self.molecule_id, self.basis, self.active_electrons, self.active_orbitals, self.freeze_core, self.mapper,
        ]  # fmt: skip
        later = {
            "spec_version": self.spec_version if self._has_other_orbitals() else None,
            "orbitals": None if self.orbitals is None else list(self.orbitals),
            "natural_orbitals": self.natural_orbitals,
        }
        later = {name: value for name, value in later.items() if value is not None}
        return digest([*parts, later] if later else parts)

    @cached_property
    def spec_id(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def canonical_json(self) -> str:
        """The specification as canonical JSON (RFC 8785), from which `from_json` makes it again."""
        return rfc8785.dumps(self.to_dict()).decode()

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain JSON values."""
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        out["elements"] = list(self.elements)
        out["geometry"] = [list(atom) for atom in self.geometry]
        out["optimizer_options"] = self.options
        out["initial_vector"] = None if self.initial_vector is None else list(self.initial_vector)
        out["noise"] = None if self.noise is None else asdict(self.noise)
        out["orbitals"] = None if self.orbitals is None else list(self.orbitals)
        # Fields that came after the first release stand in the JSON only where they are given: ids stay what they were.
        out["integrals"] = None if self.integrals is None else self.integrals.to_dict()
        out["circuit"] = None if self.circuit is None else self.circuit.to_dict()
        for name in LATER_FIELDS:
            if out[name] is None:
                del out[name]
        return out

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """The specification that `canonical_json` wrote.

        Raises:
            InputError: not JSON, a key is unknown or missing, or a value is not allowed.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"specification is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise InputError("specification is not a JSON object")
        known = {f.name for f in fields(cls) if f.init}
        if unknown := sorted(set(values) - known):
            raise InputError(f"specification has unknown keys: {', '.join(unknown)}")
        if missing := sorted({"elements", "geometry"} - set(values)):
            raise InputError(f"specification lacks {', '.join(missing)}")
        try:
            if isinstance(values.get("noise"), Mapping):
                values["noise"] = Noise(**values["noise"])
            if isinstance(values.get("optimizer_options"), Mapping):
                values["optimizer_options"] = tuple(values["optimizer_options"].items())
            values["geometry"] = tuple(tuple(atom) for atom in values["geometry"])
            if values.get("orbitals") is not None:
                values["orbitals"] = tuple(values["orbitals"])
            if values.get("integrals") is not None:
                values["integrals"] = GivenIntegrals.from_dict(values["integrals"])
            if values.get("circuit") is not None:
                values["circuit"] = GivenCircuit.from_dict(values["circuit"])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise InputError(f"specification is malformed: {error}") from None


def make_spec(molecule: Molecule, *, engine: str = "auto", **given: Any) -> RunSpec:
    """A specification with what was left open (engine `auto`, reps, initial point) filled in.

    Args:
        molecule: what to solve; its name does not enter the specification.
        engine: `auto` chooses by ansatz, shots, noise, device, precision and Aer method.
        given: other fields of RunSpec; None means its default. `ansatz` may be a circuit, a `GivenCircuit` or Qiskit's.

    Raises:
        InputError: a value is not allowed.
    """
    from simulator.engines.base import choose_engine

    options = {name: value for name, value in given.items() if value is not None}
    if not isinstance(options.get("ansatz", ""), str):
        options |= _given_ansatz(options["ansatz"])
    if unknown := sorted(set(options) - {f.name for f in fields(RunSpec) if f.init}):
        raise InputError(f"unknown specification keys: {', '.join(unknown)}")
    ansatz = options.setdefault("ansatz", RunSpec.ansatz)
    check_choice("ansatz", ansatz, ANSATZE)
    options.setdefault("reps", 1 if ansatz in ("uccsd", GIVEN_CIRCUIT) else 2)
    options.setdefault("initial_point", {"uccsd": "mp2", "excitation_preserving": "hf"}.get(ansatz, "random"))
    check_choice("engine", engine, ("auto", *ENGINES))
    if engine == "auto":
        default = lambda name: options.get(name, getattr(RunSpec, name))  # noqa: E731
        engine = choose_engine(
            ansatz=ansatz, shots=default("shots"), noise=default("noise"), device=default("device"),
            precision=default("precision"), aer_method=default("aer_method"),
        )  # fmt: skip
    if options.get("noise") is not None and options.get("shots") is None:
        options.setdefault("aer_method", "density_matrix")  # exact expectation values of a mixed state
    if isinstance(options.get("optimizer_options"), Mapping):
        options["optimizer_options"] = tuple(options["optimizer_options"].items())
    if molecule.integrals is not None:
        check_needs_no_atoms(options, f"molecule {molecule.name}: " if molecule.name else "")
    fields_of_molecule = ("elements", "geometry", "charge", "multiplicity", "integrals")
    given_molecule = {name: getattr(molecule, name) for name in fields_of_molecule}
    return RunSpec(**{**given_molecule, **options, "engine": engine})


def _given_ansatz(circuit: Any) -> dict[str, Any]:
    """The fields of an ansatz that is given as a circuit."""
    if isinstance(circuit, GivenCircuit):
        return {"ansatz": GIVEN_CIRCUIT, "circuit": circuit}
    if not hasattr(circuit, "data") or not hasattr(circuit, "parameters"):
        raise InputError(f"ansatz must be one of {', '.join(ANSATZE)} or a circuit, not {shown(circuit)}")
    from simulator.operators.circuit_files import given_circuit

    return {"ansatz": GIVEN_CIRCUIT, "circuit": given_circuit(circuit)}


def parse_noise(text: str) -> Noise:
    """A noise model from `one_qubit=0.001,two_qubit=0.01,readout=0.02` (each optional) or `none`-like nothing.

    Raises:
        InputError: an unknown name or a value that is no probability.
    """
    values: dict[str, float] = {}
    names = [f.name for f in fields(Noise)]
    for part in text.split(","):
        name, equals, value = (s.strip() for s in part.partition("="))
        if not equals or name not in names:
            raise InputError(f"noise {text!r}: {part.strip()!r} is not one of {', '.join(n + '=P' for n in names)}")
        if name in values:
            raise InputError(f"noise {text!r}: {name} is given twice")
        try:
            values[name] = float(value)
        except ValueError:
            raise InputError(f"noise {text!r}: {name} must be a probability, not {value!r}") from None
    return Noise(**values)


def parse_active_space(text: str) -> tuple[int, int]:
    """(electrons, orbitals) from `4e,4o`.

    Raises:
        InputError: not of that form.
    """
    parts = [p.strip().lower() for p in text.split(",")]
    if len(parts) == 2 and parts[0].endswith("e") and parts[1].endswith("o"):
        electrons, orbitals = parts[0][:-1], parts[1][:-1]
        if re.fullmatch("[0-9]{1,9}", electrons) and re.fullmatch("[0-9]{1,9}", orbitals):
            return int(electrons), int(orbitals)
    raise InputError(f"active space {shown(text)} is not of the form 4e,4o (electrons, spatial orbitals)")


@dataclass(frozen=True)
class ActiveSpace:
    """An active space as asked for: electrons and orbitals, or a number of natural orbitals."""

    electrons: int | None = None
    orbitals: int | None = None
    natural_orbitals: int | None = None

    def fields(self) -> dict[str, int | None]:
        """The fields of a specification that hold it."""
        return {
            "active_electrons": self.electrons, "active_orbitals": self.orbitals,
            "natural_orbitals": self.natural_orbitals,
        }  # fmt: skip


def parse_space(text: str) -> ActiveSpace:
    """An active space from `4e,4o`, or `auto:6` for the six orbitals whose natural occupation is furthest from 2 and 0.

    Raises:
        InputError: not of that form.
    """
    name, colon, number = text.strip().lower().partition(":")
    if name == "auto":
        if not (colon and re.fullmatch("0*[1-9][0-9]{0,8}", number)):
            raise InputError(f"active space {shown(text)} is not of the form auto:6 (orbitals by natural occupation)")
        return ActiveSpace(natural_orbitals=int(number))
    electrons, orbitals = parse_active_space(text)
    return ActiveSpace(electrons, orbitals)


def parse_orbitals(text: str) -> tuple[str, ...]:
    """Active orbitals from `2,3,6`, `2-4`, `2a1,1b1` or `b1`: numbers from 1, names or irreps, as `vqe orbitals` lists them.

    Raises:
        InputError: not of that form.
    """
    return _orbital_names(tuple(text.split(",")))


def _orbital_names(given: tuple[Any, ...]) -> tuple[str, ...]:
    """Names of orbitals in lower case, each once, numbers first and in order; ranges are expanded."""
    names: dict[str, None] = {}
    for part in given:
        text = str(part).strip().lower()
        if match := re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text, re.ASCII):
            first, last = int(match[1]), int(match[2] or match[1])
            if not 1 <= first <= last:
                raise InputError(f"orbitals: {text!r} is no range (orbitals are numbered from 1, e.g. 2-4)")
            found = [str(n) for n in range(first, last + 1)]
        elif re.fullmatch(r"(\d{1,4})?[a-z][a-z0-9+\-'\"]{0,11}", text, re.ASCII):
            found = [text]
        else:
            raise InputError(
                f"orbitals: {text!r} is no number from 1, name (2a1) or irrep (b1); `vqe orbitals` lists them"
            )
        for name in found:
            if name in names:
                raise InputError(f"orbitals: {name} is given twice")
            names[name] = None
    if not names:
        raise InputError("orbitals: none is given (use e.g. 2,3,6; `vqe orbitals` lists them)")
    return tuple(sorted(names, key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n)))


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise InputError, naming the nearest allowed value, unless `value` is one of `allowed`."""
    if value in allowed:
        return
    import difflib

    near = difflib.get_close_matches(str(value).lower(), allowed, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"unknown {name.replace('_', ' ')} {value!r} ({hint}use one of {', '.join(allowed)})")


def check_parameters(n_parameters: int, spec: RunSpec) -> None:
    """Raises InputError when an ansatz has more parameters than the records of its run may hold."""
    if n_parameters > spec.max_parameters:
        given = [f"the integrals of {spec.integrals.norb} orbitals"] if spec.integrals is not None else []
        given += [f"the {len(spec.circuit.gates)} gates of the circuit"] if spec.circuit is not None else []
        beside = f" beside {' and '.join(given)}" if given else ""
        raise InputError(
            f"ansatz {spec.ansatz} has {n_parameters} parameters here, at most {max(spec.max_parameters, 0)} are allowed{beside}"
            f" ({'take some out of it' if spec.circuit is not None else 'use a smaller active space or fewer reps'})"
        )


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()


def may_have_other_solutions(molecule: Molecule) -> bool:
    """Whether SCF solutions compete at this geometry, as far as geometry and spin tell before any SCF is run.

    So it is where a bond is stretched (`bonds.stretched_bond`) and with two or more unpaired electrons. One and two electrons
    and single atoms have one solution, and the bundled molecules' own geometries were looked at one by one.
    `benchmarks/scf.py` holds the rule against the stability of the solutions.
    """
    if molecule.n_electrons <= 2 or len(molecule.elements) == 1 or molecule.molecule_id in _bundled_ids():
        return False
    return molecule.multiplicity >= 3 or stretched_bond(molecule)


@cache
def _bundled_ids() -> frozenset[str]:
    return frozenset(molecule.molecule_id for molecule in bundled_molecules())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: float) -> float:
    """A float whose zero has no sign, so that -0.0 and 0.0 give one id."""
    return float(value) + 0.0
