"""`vqe orbitals`: the table from which active orbitals are chosen."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli import options as o

if TYPE_CHECKING:
    from simulator.chemistry.given_problem import GivenOrbitals
    from simulator.chemistry.integrals import Orbitals
    from simulator.vqe.spec import RunSpec


def orbitals(
    molecule: o.OneMolecule = None,
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

    loaded, spec = o.specification(
        molecule, atoms, charge, multiplicity, symmetrize=symmetrize, active_space=active_space, orbitals=orbitals,
        basis=basis, freeze_core=freeze_core,
    )  # fmt: skip
    found: Orbitals | GivenOrbitals
    if spec.integrals is not None:
        from simulator.chemistry.given_problem import given_orbitals

        found = given_orbitals(spec)
        rows, energy = given_rows(spec, found), found.hf_energy
    else:
        found = solve_orbitals(spec)
        rows, energy = orbital_rows(spec, found), found.solution.energy
    if json_output:
        for row in rows:
            typer.echo(json.dumps(row))
        for note in found.notes:
            typer.echo(note, err=True)
        return
    _show(f"{loaded.name or loaded.formula} in {spec.basis}: {energy:.8f} hartree (HF)", spec, found.notes, rows)


def given_rows(spec: "RunSpec", found: "GivenOrbitals") -> list[dict[str, Any]]:
    """As `orbital_rows`, of given integrals: numbers are the file's, names Molpro's (3.1: the third of irrep 1).

    There are no basis functions, and no natural occupations.
    """
    from simulator.chemistry.active_space import degenerate_sets

    active = found.active
    partners = {i: [active.number(j) for j in m if j != i] for m in degenerate_sets(spec, active) for i in m}
    rows = [
        {
            "number": active.number(i),
            "name": name,
            "energy": float(active.energies[i]),
            "occupation": int(active.occupations[i]),
            "natural_occupation": None,
            "degenerate_with": partners.get(i, []),
            "active": i in active.indices,
            "functions": [],
        }
        for i, name in enumerate(active.names)
    ]
    return sorted(rows, key=lambda row: row["number"])


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


def _show(heading: str, spec: "RunSpec", notes: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from simulator.cli.console import stdout_console

    table = Table(title=f"Orbitals of {heading}", title_justify="left", box=SIMPLE_HEAD)
    for column in (
        "number",
        "name",
        "energy / Ha",
        "occupation",
        "natural occ.",
        "degenerate with",
        "active",
        "mostly",
    ):
        table.add_column(column, justify="right" if column in ("number", "energy / Ha", "occupation", "natural occ.") else "left", no_wrap=True)  # fmt: skip
    for row in rows:
        table.add_row(
            str(row["number"]), row["name"], f"{row['energy']:.4f}", str(row["occupation"]),
            "" if row["natural_occupation"] is None else f"{row['natural_occupation']:.4f}", ", ".join(map(str, row["degenerate_with"])),
            "yes" if row["active"] else "", ", ".join(row["functions"]),
        )  # fmt: skip
    console = stdout_console()
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)
    if spec.natural_orbitals is not None:
        console.print("These are natural orbitals; --orbitals takes the numbers of the list without auto.")
        return
    how = "number, name or irrep" if spec.integrals is None else "number"
    console.print(f"Choose active ones by {how}: vqe run ... --orbitals 2,3,6")
