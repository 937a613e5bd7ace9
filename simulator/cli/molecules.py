"""`vqe molecules`: what is bundled."""

from typing import Annotated

import typer


def molecules(json_output: Annotated[bool, typer.Option("--json", help="One JSON object a molecule.")] = False) -> None:
    """List the bundled molecules."""
    import json

    from simulator.chemistry.molecules import bundled_molecules

    found = bundled_molecules()
    if json_output:
        for molecule in found:
            typer.echo(
                json.dumps(
                    {
                        "name": molecule.name,
                        "formula": molecule.formula,
                        "molecule_id": molecule.molecule_id,
                        "elements": molecule.elements,
                        "geometry": molecule.geometry,
                        "charge": molecule.charge,
                        "multiplicity": molecule.multiplicity,
                        "n_electrons": molecule.n_electrons,
                    }
                )
            )
        return
    from rich.table import Table

    from simulator.cli.console import PlainConsole

    table = Table("name", "formula", "charge", "multiplicity", "electrons", "atoms", title="Bundled molecules")
    for m in found:
        table.add_row(m.name, m.formula, f"{m.charge:+d}" if m.charge else "0", str(m.multiplicity), str(m.n_electrons), str(len(m.elements)))  # fmt: skip
    console = PlainConsole()
    console.print(table)
    console.print(
        "Files work in their place (.xyz, .extxyz, .mol, .sdf, .json, .fcidump): vqe run water.xyz --charge 0 --multiplicity 1"
    )
