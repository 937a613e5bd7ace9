"""The options that say what to run, shared by `vqe run` and whoever else makes specifications."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.errors import InputError
from simulator.input_files import read_text

if TYPE_CHECKING:
    from simulator.chemistry.molecules import Molecule
    from simulator.operators.given_circuit import GivenCircuit
    from simulator.vqe.spec import RunSpec


def _option(*names: str, variable: str, text: str) -> Any:
    return typer.Option(*names, envvar=f"VQE_{variable}", help=text, show_default=False)


MOLECULE_HELP = (
    "bundled name (vqe molecules) or file: .xyz, .extxyz, .mol, .sdf, .json, .fcidump; FILE#3 is the third in a file"
)
Atoms = Annotated[
    str | None,
    typer.Option(
        "--atoms",
        help='A geometry in angstrom instead, as PySCF and Qiskit write it: "H 0 0 0; H 0 0 0.735".',
        show_default=False,
    ),
]
Basis = Annotated[str | None, _option("--basis", variable="BASIS", text="Basis set, by PySCF's name. [sto-3g]")]
Charge = Annotated[int | None, _option("--charge", variable="CHARGE", text="Total charge. [the molecule's, else 0]")]
Multiplicity = Annotated[
    int | None,
    _option("--multiplicity", variable="MULTIPLICITY", text="Spin multiplicity 2S+1. [the molecule's, else lowest]"),
]
ActiveSpace = Annotated[
    str | None,
    _option(
        "--active-space",
        variable="ACTIVE_SPACE",
        text="Active electrons and orbitals, e.g. 4e,4o; or auto:6, six orbitals by natural occupation.",
    ),
]
OrbitalChoice = Annotated[
    str | None,
    _option(
        "--orbitals",
        variable="ORBITALS",
        text="Active orbitals, as `vqe orbitals` lists them: numbers 2,3,6 or 2-4, names 2a1,1e1, or irreps b1.",
    ),
]
Symmetrize = Annotated[
    bool,
    typer.Option(
        "--symmetrize",
        envvar="VQE_SYMMETRIZE",
        help="Move atoms onto the symmetry that they have within 0.001 angstrom (rounded coordinates).",
    ),
]
FreezeCore = Annotated[bool, typer.Option("--freeze-core", envvar="VQE_FREEZE_CORE", help="Freeze the chemical core.")]
Mapper = Annotated[
    str | None,
    _option("--mapper", variable="MAPPER", text="jordan_wigner, parity or bravyi_kitaev. [jordan_wigner]"),
]
Ansatz = Annotated[
    str | None,
    _option(
        "--ansatz",
        variable="ANSATZ",
        text="uccsd, efficient_su2, real_amplitudes, excitation_preserving, or a file of OpenQASM (.qasm). [uccsd]",
    ),
]
Reps = Annotated[
    int | None, _option("--reps", variable="REPS", text="Repetitions of the ansatz. [1 for uccsd and a file, else 2]")
]
Optimizer = Annotated[
    str | None,
    _option(
        "--optimizer", variable="OPTIMIZER", text="l-bfgs-b, slsqp, cobyla, spsa, nelder-mead or powell. [l-bfgs-b]"
    ),
]
OptimizerOption = Annotated[
    list[str] | None,
    _option(
        "--optimizer-option", variable="OPTIMIZER_OPTION", text="An option of the optimizer, NAME=VALUE; repeatable."
    ),
]
MaxIterations = Annotated[
    int | None, _option("--max-iterations", variable="MAX_ITERATIONS", text="Most optimizer iterations. [500]")
]
Tolerance = Annotated[
    float | None, _option("--tolerance", variable="TOLERANCE", text="Convergence tolerance of the optimizer. [1e-5]")
]
InitialPoint = Annotated[
    str | None,
    _option(
        "--initial-point",
        variable="INITIAL_POINT",
        text="mp2, hf, zeros, random, a JSON file of numbers, or the id of an earlier run. [by ansatz: mp2, hf or random]",
    ),
]
Seed = Annotated[int | None, _option("--seed", variable="SEED", text="Seed of everything random. [0]")]
EngineName = Annotated[
    str | None, _option("--engine", variable="ENGINE", text="auto, sector, statevector or aer. [auto]")
]
AerMethod = Annotated[
    str | None,
    _option(
        "--aer-method",
        variable="AER_METHOD",
        text="Aer's method: statevector, automatic, density_matrix or matrix_product_state. [statevector]",
    ),
]
Device = Annotated[str | None, _option("--device", variable="DEVICE", text="cpu or gpu (aer engine). [cpu]")]
Precision = Annotated[
    str | None, _option("--precision", variable="PRECISION", text="double or single (aer engine). [double]")
]
Shots = Annotated[
    int | None,
    _option("--shots", variable="SHOTS", text="Shots of a group of strings, on average; none: exact. (aer engine)"),
]
NoiseText = Annotated[
    str | None,
    _option(
        "--noise",
        variable="NOISE",
        text="Noise of the aer engine: one_qubit=P,two_qubit=P,readout=P; each may be left out.",
    ),
]
OneMolecule = Annotated[str | None, typer.Argument(help=f"A {MOLECULE_HELP}.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of raw files and tables.", show_default="./vqe-data")
]
SinkName = Annotated[str | None, typer.Option("--sink", help="Where events go: file or kafka.", show_default="file")]
RecordParameters = Annotated[
    str | None,
    typer.Option(
        "--record-parameters", help="Iterations that keep parameters: all, none or every:N.", show_default="all"
    ),
]
JsonOfRuns = Annotated[bool, typer.Option("--json", envvar="VQE_JSON", help="One JSON object a run on stdout.")]


def load_molecules(
    names: list[str] | None, atoms: str | None, charge: int | None, multiplicity: int | None
) -> "list[Molecule]":
    """The molecules of a command line; what a user should know of how they were read is told on stderr.

    Raises:
        InputError: none is given, or one cannot be read.
    """
    from simulator.chemistry.molecules import load_molecule, molecule_from_atoms

    if not names and atoms is None:
        raise InputError('Missing argument MOLECULE: give a name, a file or --atoms "H 0 0 0; H 0 0 0.735"')
    found = [load_molecule(name, charge=charge, multiplicity=multiplicity) for name in names or []]
    if atoms is not None:
        found.append(molecule_from_atoms(atoms, charge=charge, multiplicity=multiplicity))
    for molecule in found:
        for note in molecule.notes:
            typer.echo(f"{molecule.name}: {note}", err=True)
    return found


def specification(
    molecule: str | None, atoms: str | None, charge: int | None, multiplicity: int | None, *, symmetrize: bool,
    active_space: str | None, orbitals: str | None, **given: Any,
) -> "tuple[Molecule, RunSpec]":  # fmt: skip
    """The one molecule that a command is about, and the specification of its orbitals; `given` are other fields of that.

    Raises:
        InputError: none or two are given, one cannot be read, or there is no such specification.
    """
    from simulator.vqe.spec import make_spec

    if molecule is not None and atoms is not None:
        raise InputError("give a molecule or --atoms, not both")
    (loaded,) = load_molecules(None if molecule is None else [molecule], atoms, charge, multiplicity)
    if symmetrize:
        loaded = symmetrized(loaded)
    return loaded, make_spec(loaded, **active_orbitals(active_space, orbitals), **given)


def active_orbitals(active_space: str | None, orbitals: str | None) -> dict[str, Any]:
    """The fields of a specification that `--active-space` and `--orbitals` name.

    Raises:
        InputError: a text that is neither.
    """
    from simulator.vqe.spec import parse_orbitals, parse_space

    space: dict[str, Any] = dict(parse_space(active_space).fields()) if active_space else {}
    return space | {"orbitals": parse_orbitals(orbitals) if orbitals else None}


def symmetrized(molecule: "Molecule") -> "Molecule":
    """The molecule on its nearest symmetry; how far atoms moved is told on stderr."""
    from simulator.chemistry.symmetrize import largest_move
    from simulator.chemistry.symmetrize import symmetrized as moved

    found = moved(molecule)
    name = molecule.name or molecule.formula
    typer.echo(f"{name}: symmetrized, atoms moved by at most {largest_move(molecule, found):.1e} angstrom", err=True)
    return found


@dataclass(frozen=True)
class InitialChoice:
    """An initial point resolved to what a specification holds."""

    initial_point: str | None
    initial_vector: tuple[float, ...] | None = None


def resolve_initial_point(text: str | None, data_dir: Path) -> InitialChoice:
    """What `--initial-point` means: a name, a file of numbers, or an earlier run's final parameters.

    Raises:
        InputError: no such name, file or run, or the file holds no list of numbers.
    """
    from simulator.vqe.spec import INITIAL_POINTS, check_choice

    if text is None or text in INITIAL_POINTS[:-1]:
        return InitialChoice(text)
    if _is_run_id(text):
        return InitialChoice("vector", _parameters_of_run(text, data_dir))
    path = Path(os.path.expanduser(text))
    if not _exists(path):
        if path.suffix:
            raise InputError(f"initial point {text}: no such file")
        check_choice("initial_point", text, (*INITIAL_POINTS[:-1], "FILE", "RUN_ID"))
    content = read_text(path, f"initial point {text}")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"initial point {text}: not a JSON list of numbers") from None
    if isinstance(values, dict):
        values = values.get("parameters")
    if not isinstance(values, list) or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise InputError(
            f"initial point {text}: not a JSON list of numbers (or an object with such a list `parameters`)"
        )
    try:
        return InitialChoice("vector", tuple(float(v) for v in values))
    except OverflowError:
        raise InputError(f"initial point {text}: a number is too large") from None


def resolve_circuit(ansatz: str | None) -> "GivenCircuit | None":
    """The circuit where `--ansatz` names a file of one.

    Raises:
        InputError: the file cannot be read, or holds no ansatz.
    """
    from simulator.operators.circuit_files import is_circuit_file, read_circuit

    return read_circuit(Path(ansatz)) if ansatz is not None and is_circuit_file(ansatz) else None


def parse_optimizer_options(given: list[str] | None) -> dict[str, Any]:
    """A dict from NAME=VALUE texts; values are JSON, else plain text.

    Raises:
        InputError: a text has no `=`, or a name comes twice.
    """
    options: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"optimizer option {text!r} is not of the form NAME=VALUE")
        if name in options:
            raise InputError(f"optimizer option {name} is given twice")
        try:
            options[name] = json.loads(value)
        except (ValueError, RecursionError):
            options[name] = value
    return options


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # e.g. a name that is longer than names can be
        return False


def _is_run_id(text: str) -> bool:
    import uuid

    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _parameters_of_run(run_id: str, data_dir: Path) -> tuple[float, ...]:
    from spark_jobs.query import query

    statement = f"select optimal from vqe_parameters where run_id = '{run_id.lower()}' order by parameter_index"
    rows = query(data_dir, statement).rows.to_pylist()
    if not rows:
        raise InputError(f"initial point {run_id}: the tables in {data_dir} hold no parameters of that run")
    return tuple(float(row["optimal"]) for row in rows)
