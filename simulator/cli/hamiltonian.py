"""`vqe hamiltonian`: a molecule's Hamiltonian, told in short or written for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli import options as o
from simulator.errors import InputError

if TYPE_CHECKING:
    from simulator.chemistry.problem import Problem
    from simulator.operators.hamiltonian import QubitHamiltonian
    from simulator.vqe.spec import RunSpec


def hamiltonian(
    molecule: o.OneMolecule = None,
    atoms: o.Atoms = None,
    basis: o.Basis = None,
    charge: o.Charge = None,
    multiplicity: o.Multiplicity = None,
    active_space: o.ActiveSpace = None,
    orbitals: o.OrbitalChoice = None,
    symmetrize: o.Symmetrize = False,
    freeze_core: o.FreezeCore = False,
    mapper: o.Mapper = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Write it: integrals to FILE.fcidump, Pauli strings to FILE.json (Qiskit) or FILE.txt (OpenFermion).",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of --out.")] = False,
    json_output: Annotated[bool, typer.Option("--json", envvar="VQE_JSON", help="One JSON object on stdout.")] = False,
) -> None:
    """Tell of the Hamiltonian that a run would have, or write it to a file."""
    import json

    from simulator.chemistry.integrals import build_problem
    from simulator.operators.hamiltonian_files import check_out, write_lines
    from simulator.stages import Stages

    if out is not None:
        out = out.expanduser()
        check_out(out, force=force)
    loaded, spec = o.specification(
        molecule, atoms, charge, multiplicity, symmetrize=symmetrize, active_space=active_space, orbitals=orbitals,
        basis=basis, freeze_core=freeze_core, mapper=mapper,
    )  # fmt: skip
    problem = build_problem(spec, Stages())
    qubits, uncounted = _on_qubits(spec, problem)
    if out is not None:
        write_lines(out, _lines(out, problem, qubits, uncounted))
    told = summary(loaded.name or loaded.formula, spec, problem, qubits, uncounted)
    if json_output:
        typer.echo(json.dumps(told | {"out": None if out is None else str(out)}))
        return
    _show(told)
    if out is not None:
        typer.echo(f"written to {out}")


def summary(
    name: str, spec: "RunSpec", problem: "Problem", qubits: "QubitHamiltonian | None", uncounted: str | None
) -> dict[str, Any]:
    """What `vqe hamiltonian` tells; energies in hartree."""
    of_qubits: dict[str, Any] = dict.fromkeys(("n_qubits", "n_terms", "hamiltonian_id"))
    if qubits is not None:
        of_qubits = {
            "n_qubits": qubits.n_qubits, "n_terms": len(qubits.labels), "hamiltonian_id": qubits.hamiltonian_id,
        }  # fmt: skip
    return {
        "molecule": name, "basis": spec.basis, "mapper": spec.mapper, "n_orbitals": problem.norb,
        "orbital_numbers": [i + 1 for i in problem.active_orbitals], "n_alpha": problem.nelec[0],
        "n_beta": problem.nelec[1], "n_frozen_orbitals": problem.n_core, "hf_energy": problem.hf_energy,
        "energy_offset": problem.energy_offset, **of_qubits, "problem_id": problem.problem_id,
        "notes": [*problem.notes, *([] if uncounted is None else [f"no qubit Hamiltonian: {uncounted}"])],
    }  # fmt: skip


def _on_qubits(spec: "RunSpec", problem: "Problem") -> "tuple[QubitHamiltonian | None, str | None]":
    """The operator, or why there is none: integrals may be written of more orbitals than runs can have."""
    from simulator.memory import too_many_qubits
    from simulator.operators.hamiltonian import qubit_hamiltonian
    from simulator.stages import Stages

    if (reason := too_many_qubits(problem.n_qubits)) is not None:
        return None, reason
    try:
        return qubit_hamiltonian(problem, spec.mapper, Stages()), None
    except InputError as error:
        return None, str(error)


def _lines(out: Path, problem: "Problem", qubits: "QubitHamiltonian | None", uncounted: str | None) -> Any:
    from simulator.chemistry.formats.fcidump import is_fcidump
    from simulator.operators.hamiltonian_files import fcidump_lines, openfermion_lines, qiskit_lines

    if is_fcidump(out):
        return fcidump_lines(problem)
    if qubits is None:
        raise InputError(f"out {out}: {uncounted} (use a smaller active space, or write .fcidump)")
    return qiskit_lines(qubits) if out.suffix.lower() == ".json" else openfermion_lines(qubits)


def _show(told: dict[str, Any]) -> None:
    from simulator.cli.console import stdout_console

    numbers, n_qubits = told["orbital_numbers"], told["n_qubits"]
    frozen = f", {told['n_frozen_orbitals']} frozen" if told["n_frozen_orbitals"] else ""
    rows = [
        ("molecule", f"{told['molecule']} in {told['basis']}"),
        ("electrons", f"{told['n_alpha']} alpha, {told['n_beta']} beta"),
        ("orbitals", f"{told['n_orbitals']} ({', '.join(map(str, numbers))}){frozen}"),
        ("HF energy", f"{told['hf_energy']:.8f} hartree"),
        ("energy offset", f"{told['energy_offset']:.8f} hartree"),
        ("qubits", "" if n_qubits is None else f"{n_qubits} ({told['mapper']})"),
        ("terms", "" if told["n_terms"] is None else f"{told['n_terms']:,}"),
        ("hamiltonian_id", told["hamiltonian_id"] or ""),
    ]
    console = stdout_console()
    for name, value in rows:
        if value:
            console.print(f"{name:<15}{value}", soft_wrap=True)
    for note in told["notes"]:
        console.print(note, soft_wrap=True)
