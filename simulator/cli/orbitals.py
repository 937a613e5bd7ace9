"""`vqe orbitals`: the table from which active orbitals are chosen."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli import options as o
from simulator.errors import InputError

if TYPE_CHECKING:
    from simulator.chemistry.integrals import Orbitals
    from simulator.vqe.spec import RunSpec


def orbitals(
    molecule: Annotated[str | None, typer.Argument(help=f"A {o.MOLECULE_HELP}.")] = None,
    atoms: o.Atoms = None,
    basis: o.Basis = None,
    charge: o.Charge = None,
    multiplicity: o.Multiplicity = None,
    active_space: o.ActiveSpace = None,
    orbitals: o.OrbitalChoice = None,
    symmetrize: o.Symmetrize = False,
    freeze_core: o.FreezeCore = False,
    json_output: Annotated[
        bool, typer.Option("--json", envvar="VQE_JSON", help="One JSON object an orbital on stdout.")
    ] = False,
) -> None:
    """List a molecule's orbitals: number, name, energy, occupation, natural occupation, and which are active."""
    import json

    from simulator.chemistry.integrals import solve_orbitals
    from simulator.vqe.spec import make_spec, parse_orbitals, parse_space

    if molecule is not None and atoms is not None:
        raise InputError("give a molecule or --atoms, not both")
    (loaded,) = o.load_molecules(None if molecule is None else [molecule], atoms, charge, multiplicity)
    if symmetrize:
        loaded = o.symmetrized(loaded)
    given: dict[str, Any] = {} if active_space is None else dict(parse_space(active_space).fields())
    given |= {"orbitals": parse_orbitals(orbitals) if orbitals else None, "basis": basis, "freeze_core": freeze_core}
    spec = make_spec(loaded, **given)
    found = solve_orbitals(spec)
    rows = orbital_rows(spec, found)
    if json_output:
        for row in rows:
            typer.echo(json.dumps(row))
        for note in found.notes:
            typer.echo(note, err=True)
        return
    _show(loaded.name or loaded.formula, spec, found, rows)


def orbital_rows(spec: "RunSpec", found: "Orbitals") -> list[dict[str, Any]]:
    """A dict an orbital: number (from 1), name, energy (hartree), occupation, natural_occupation, degenerate_with, active,
    functions (the basis functions that it is made of, largest share first)."""
    import numpy as np

    from simulator.chemistry.active_space import degenerate_sets, natural_density

    active, mf = found.active, found.solution.mf
    n_alpha, n_beta = spec.nelec
    if spec.natural_orbitals is not None:
        natural = active.occupations
    else:
        natural = natural_density(spec, mf, found.coefficients).diagonal()
    partners = {i: [j + 1 for j in members if j != i] for members in degenerate_sets(spec, active) for i in members}
    overlap = mf.mol.intor_symmetric("int1e_ovlp")
    values, vectors = np.linalg.eigh(overlap)
    shares = (vectors * np.sqrt(np.abs(values)) @ vectors.T @ found.coefficients) ** 2  # Löwdin populations
    labels = [" ".join(str(part) for part in label if str(part)) for label in mf.mol.ao_labels(fmt=None)]
    rows = []
    for i, name in enumerate(active.names):
        largest = [k for k in np.argsort(-shares[:, i])[:3] if shares[k, i] > 0.1]
        rows.append(
            {
                "number": i + 1,
                "name": name,
                "energy": float(active.energies[i]),
                "occupation": 2 if i < n_beta else 1 if i < n_alpha else 0,
                "natural_occupation": float(natural[i]),
                "degenerate_with": partners.get(i, []),
                "active": i in active.indices,
                "functions": [labels[k] for k in largest],
            }
        )
    return rows


def _show(name: str, spec: "RunSpec", found: "Orbitals", rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from simulator.cli.progress import _stdout

    table = Table(
        title=f"Orbitals of {name} in {spec.basis}: {found.solution.energy:.8f} hartree (HF)", title_justify="left",
        box=SIMPLE_HEAD,
    )  # fmt: skip
    for heading in (
        "number",
        "name",
        "energy / Ha",
        "occupation",
        "natural occ.",
        "degenerate with",
        "active",
        "mostly",
    ):
        table.add_column(heading, justify="right" if heading in ("number", "energy / Ha", "occupation", "natural occ.") else "left", no_wrap=True)  # fmt: skip
    for row in rows:
        table.add_row(
            str(row["number"]), row["name"], f"{row['energy']:.4f}", str(row["occupation"]),
            f"{row['natural_occupation']:.4f}", ", ".join(map(str, row["degenerate_with"])),
            "yes" if row["active"] else "", ", ".join(row["functions"]),
        )  # fmt: skip
    console = _stdout()
    console.print(table)
    for note in found.notes:
        console.print(note, highlight=False, soft_wrap=True)
    if spec.natural_orbitals is not None:
        console.print(
            "These are natural orbitals; --orbitals takes the numbers of the list without auto.", highlight=False
        )
        return
    console.print("Choose active ones by number, name or irrep: vqe run ... --orbitals 2,3,6", highlight=False)
