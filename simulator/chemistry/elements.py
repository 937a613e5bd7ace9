"""The chemical elements: symbols, atomic numbers and how many core orbitals an atom has."""

# fmt: off
SYMBOLS = (
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca",
    "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr",
    "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba",
    "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",
    "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U",
    "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds",
    "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og",
)
# fmt: on
"""Element symbols, the atomic number less one as index."""

ATOMIC_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS, start=1)}

_NOBLE_GASES = ((86, 43), (54, 27), (36, 18), (18, 9), (10, 5), (2, 1))  # electrons, doubly occupied orbitals


def core_orbitals(symbol: str, ecp_electrons: int = 0) -> int:
    """Number of doubly occupied orbitals in the noble-gas core of an atom (He: 0, Li: 1, Na: 5), less those that an ECP replaces.

    The (n-1)d and (n-2)f shells count as valence, as they do in the frozen cores of most programs.
    """
    number = ATOMIC_NUMBERS[symbol]
    core = next((orbitals for electrons, orbitals in _NOBLE_GASES if number > electrons), 0)
    return max(0, core - ecp_electrons // 2)
