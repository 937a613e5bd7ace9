"""Sweeps: an experiment file as a matrix of specifications, each error with the line of the file."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from simulator.chemistry.formats import is_molecule_file
from simulator.chemistry.molecules import MAX_NAME, Molecule, load_molecule, molecule_from_atoms
from simulator.errors import InputError
from simulator.input_files import read_text, shown
from simulator.operators.circuit_files import is_circuit_file, read_circuit
from simulator.operators.given_circuit import GivenCircuit
from simulator.vqe.spec import Noise, RunSpec, make_spec, parse_noise, parse_orbitals, parse_space

TOP_KEYS = ("name", "molecules", "settings", "matrix", "seeds")
MOLECULE_KEYS = ("molecule", "atoms", "charge", "multiplicity", "scale")
SPEC_KEYS = (
    "basis", "active_space", "orbitals", "freeze_core", "mapper", "ansatz", "reps", "optimizer", "optimizer_options",
    "max_iterations", "tolerance", "initial_point", "engine", "aer_method", "device", "precision", "shots", "noise",
    "charge", "multiplicity",
)  # fmt: skip
MAX_RUNS = 1_000_000
MAX_BYTES = 4 << 20
"""Bytes of an experiment file, which the parser takes by the second."""
MAX_VALUES = 2 * MAX_RUNS
"""Values of an experiment file: more cannot be runs."""
MAX_DEPTH = 20
"""Levels of an experiment file: the deepest value that is allowed is four levels deep."""


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep."""

    name: str
    spec: RunSpec


@dataclass(frozen=True)
class Sweep:
    """A sweep as planned: every run once, in the order of the file."""

    sweep_id: str
    runs: tuple[PlannedRun, ...]
    notes: tuple[str, ...] = ()  # what a user should know of how molecules were read


def load_sweep(path: Path) -> Sweep:
    """The sweep that an experiment file describes.

    The file has `molecules` (names, files, or mappings with charge, multiplicity and a list `scale` that stretches the
    geometry), `settings` (one value each), `matrix` (lists; every combination is run), and `seeds` (a number or a list).

    Raises:
        InputError: the file cannot be read or a value is not allowed; names the file and the line.
    """
    return _Reader(path).sweep()


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._circuits: dict[str, GivenCircuit] = {}
        text = read_text(path, f"sweep {path}", MAX_BYTES)
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except RecursionError:
            raise InputError(f"sweep {path}: nested more than {MAX_DEPTH} levels deep") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f":{mark.line + 1}" if mark else ""
            raise InputError(f"sweep {path}{where}: {getattr(error, 'problem', None) or 'not YAML'}") from None
        self.lines: dict[tuple[str | int, ...], int] = {}
        if node is not None:
            self._check_size(node)
        self.data = self._plain(node, ()) if node is not None else None

    def fail(self, where: tuple[str | int, ...], message: str) -> InputError:
        while where and where not in self.lines:
            where = where[:-1]
        return InputError(f"sweep {self.path}:{self.lines.get(where, 1)}: {message}")

    def _check_size(self, root: yaml.Node) -> None:
        """Refuse what would be too large once aliases stand for their values: ten lines can be a billion of them.

        Each node is looked at once, however many aliases name it.
        """
        sizes: dict[int, int] = {}

        def size(node: yaml.Node, depth: int) -> int:
            line = node.start_mark.line + 1
            if depth > MAX_DEPTH:  # an alias within what it stands for never ends
                raise InputError(f"sweep {self.path}:{line}: nested more than {MAX_DEPTH} levels deep")
            if id(node) not in sizes:
                inner = [n for pair in node.value for n in pair] if isinstance(node, yaml.MappingNode) else node.value
                values = inner if isinstance(node, yaml.CollectionNode) else []
                sizes[id(node)] = 1 + sum(size(n, depth + 1) for n in values)
                if sizes[id(node)] > MAX_VALUES:
                    raise InputError(f"sweep {self.path}:{line}: more than {MAX_VALUES:,} values")
            return sizes[id(node)]

        size(root, 0)

    def _plain(self, node: yaml.Node, where: tuple[str | int, ...]) -> Any:
        """The node's value; the line of each value is remembered under its path."""
        self.lines[where] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                self.lines[(*where, key)] = key_node.start_mark.line + 1
                if key in mapping:
                    raise self.fail((*where, key), f"{key} is given twice")
                mapping[key] = self._plain(value_node, (*where, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*where, i)) for i, item in enumerate(node.value)]
        constructor = yaml.SafeLoader("")
        try:
            value = constructor.construct_object(node)
        except Exception:  # the library checks tags such as !!timestamp in ways of its own
            raise self.fail(where, f"{shown(node.value)} cannot be read") from None
        if isinstance(value, str) and _is_float(value):  # YAML 1.1 reads 1e-5 as text
            return float(value)
        return value

    def sweep(self) -> Sweep:
        data = self._mapping(self.data, (), TOP_KEYS)
        name = data.get("name", self.path.stem)
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
            raise self.fail(("name",), f"name must be a text of up to {MAX_NAME} printable characters")
        molecules = list(self._molecules(data.get("molecules")))
        fixed = self._mapping(data.get("settings") or {}, ("settings",), SPEC_KEYS)
        matrix = self._mapping(data.get("matrix") or {}, ("matrix",), SPEC_KEYS)
        for key, values in matrix.items():
            if key in fixed:
                raise self.fail(("matrix", key), f"{key} is in settings too")
            if not isinstance(values, list) or not values:
                raise self.fail(("matrix", key), f"{key} must be a list of values")
        seeds = self._seeds(data.get("seeds", 1))
        count = len(molecules) * len(seeds)
        for values in matrix.values():
            count *= len(values)
        if count > MAX_RUNS:
            raise self.fail(("matrix",), f"{count:,} runs are more than the {MAX_RUNS:,} that are allowed")
        runs: dict[str, PlannedRun] = {}
        for molecule, where in molecules:
            for chosen in itertools.product(*([(k, i, v) for i, v in enumerate(vs)] for k, vs in matrix.items())):
                values = {k: (v, ("settings", k)) for k, v in fixed.items()}
                values |= {k: (v, ("matrix", k, i)) for k, i, v in chosen}
                for seed in seeds:
                    spec = self._spec(molecule, where, values, seed)
                    runs.setdefault(spec.spec_id, PlannedRun(molecule.name, spec))
        notes = dict.fromkeys(f"{molecule.name}: {note}" for molecule, _ in molecules for note in molecule.notes)
        return Sweep(name.strip(), tuple(runs.values()), tuple(notes))

    def _mapping(self, value: Any, where: tuple[str | int, ...], allowed: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(where, f"{where[-1] if where else 'the file'} must be a mapping of {', '.join(allowed)}")
        for key in value:
            if key not in allowed:
                raise self.fail((*where, key), f"unknown key {key[:80]} (use one of {', '.join(allowed)})")
        return value

    def _molecules(self, entries: Any) -> Iterator[tuple[Molecule, tuple[str | int, ...]]]:
        if not isinstance(entries, list) or not entries:
            raise self.fail(("molecules",), "molecules must be a list of names, files or mappings")
        for i, entry in enumerate(entries):
            where: tuple[str | int, ...] = ("molecules", i)
            given: dict[str, Any] = (
                {"molecule": entry} if isinstance(entry, str) else self._mapping(entry, where, MOLECULE_KEYS)
            )
            text, atoms = given.get("molecule"), given.get("atoms")
            if (text is None) == (atoms is None) or not isinstance(text if atoms is None else atoms, str):
                raise self.fail(where, "a molecule needs a name or a file, or atoms (a text: H 0 0 0; H 0 0 0.735)")
            if text is not None and is_molecule_file(text):
                text = str(self._beside(text))
            for key in ("charge", "multiplicity"):
                if not isinstance(given.get(key, 0), int) or isinstance(given.get(key), bool):
                    raise self.fail((*where, key), f"{key} must be a whole number, not {shown(given[key])}")
            try:
                own = {key: given.get(key) for key in ("charge", "multiplicity")}
                molecule = load_molecule(text, **own) if text is not None else molecule_from_atoms(str(atoms), **own)
            except InputError as error:
                raise self.fail(where, str(error)) from None
            scales = given.get("scale", [1.0])
            scales = scales if isinstance(scales, list) else [scales]
            for j, scale in enumerate(scales):
                at = (*where, "scale", j)
                if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < 100:
                    raise self.fail(at, f"scale must be a positive number, not {shown(scale)}")
                yield self._scaled(molecule, float(scale), at if "scale" in given else where), where

    def _scaled(self, molecule: Molecule, scale: float, where: tuple[str | int, ...]) -> Molecule:
        if scale == 1.0:
            return molecule
        if molecule.integrals is not None:
            raise self.fail(where, f"molecule {molecule.name}: scale needs atoms, and an FCIDUMP holds integrals alone")
        geometry = tuple((x * scale, y * scale, z * scale) for x, y, z in molecule.geometry)
        try:
            return Molecule(
                f"{molecule.name}@{scale:g}", molecule.elements, geometry, molecule.charge, molecule.multiplicity
            )
        except InputError as error:
            raise self.fail(where, str(error)) from None

    def _seeds(self, given: Any) -> list[int]:
        if isinstance(given, int) and not isinstance(given, bool):
            if given > MAX_RUNS:  # before a list of them is made
                raise self.fail(
                    ("seeds",), f"{shown(given)} seeds are more than the {MAX_RUNS:,} runs that are allowed"
                )
            seeds: Any = list(range(given))
        else:
            seeds = given
        if (
            not isinstance(seeds, list)
            or not seeds
            or any(isinstance(s, bool) or not isinstance(s, int) for s in seeds)
        ):
            raise self.fail(
                ("seeds",), f"seeds must be a number of seeds or a list of whole numbers, not {shown(given)}"
            )
        return seeds

    def _spec(self, molecule: Molecule, where: tuple[str | int, ...], values: dict[str, Any], seed: int) -> RunSpec:
        def made(keys: dict[str, Any]) -> RunSpec:
            given = _spec_fields({k: v for k, (v, _) in keys.items()})
            if is_circuit_file(str(ansatz := given.get("ansatz"))):
                given["ansatz"] = self._circuit(str(ansatz))
            return make_spec(molecule, seed=seed, **given)

        try:
            return made(values)
        except InputError as error:
            # The culprit is the value without which the rest is allowed; the last of them is what the user varied.
            for key, (_, at) in reversed(values.items()):
                try:
                    made({k: v for k, v in values.items() if k != key})
                except InputError:
                    continue
                raise self.fail(at, f"{molecule.name or molecule.formula}: {error}") from None
            raise self.fail(where, f"{molecule.name or molecule.formula}: {error}") from None

    def _circuit(self, name: str) -> GivenCircuit:
        """The circuit in a file, which is read once."""
        if name not in self._circuits:
            self._circuits[name] = read_circuit(self._beside(name))
        return self._circuits[name]

    def _beside(self, name: str) -> Path:
        """A file that the experiment names: beside the experiment, wherever it is run from."""
        return self.path.parent / os.path.expanduser(name)


def _spec_fields(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of RunSpec from the keys of an experiment file.

    Raises:
        InputError: a text is not of the form its key wants.
    """
    out = dict(values)
    if (space := out.pop("active_space", None)) is not None:
        out |= {name: value for name, value in parse_space(str(space)).fields().items() if value is not None}
    if (orbitals := out.pop("orbitals", None)) is not None:
        out["orbitals"] = parse_orbitals(",".join(map(str, orbitals)) if isinstance(orbitals, list) else str(orbitals))
    noise = out.get("noise")
    if isinstance(noise, str):
        out["noise"] = parse_noise(noise)
    elif isinstance(noise, dict):
        try:
            out["noise"] = Noise(**noise)
        except TypeError:
            raise InputError("noise takes one_qubit, two_qubit and readout") from None
    elif noise is not None:
        raise InputError(f"noise must be a text or a mapping of one_qubit, two_qubit and readout, not {shown(noise)}")
    for key in ("optimizer_options",):
        if out.get(key) is not None and not isinstance(out[key], dict):
            raise InputError(f"{key} must be a mapping")
    if "freeze_core" in out and not isinstance(out["freeze_core"], bool):
        raise InputError(f"freeze_core must be true or false, not {out['freeze_core']!r}")
    if isinstance(out.get("initial_point"), list):
        out["initial_vector"], out["initial_point"] = tuple(out["initial_point"]), "vector"
    return out


def _is_float(text: str) -> bool:
    if "e" not in text.lower() or (not text[:1].strip("+-.").isdigit() and text[:1] not in "+-."):
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True
