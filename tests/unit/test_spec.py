"""The run specification: validated, canonical, and its ids stable."""

import dataclasses
import json

import pytest

from simulator.errors import InputError
from simulator.molecules import load_molecule
from simulator.spec import Noise, RunSpec, make_spec, parse_active_space, parse_noise

H2 = load_molecule("h2")


def test_canonical_json_gives_the_same_specification_and_id_again():
    spec = make_spec(
        load_molecule("lih"), ansatz="efficient_su2", optimizer="spsa", shots=1000, seed=7,
        noise=Noise(0.001, 0.01, 0.02), engine="auto", active_electrons=2, active_orbitals=3,
    )  # fmt: skip
    again = RunSpec.from_json(spec.canonical_json())
    assert again == spec
    assert again.spec_id == spec.spec_id


def test_spec_id_is_pinned_so_that_resumed_sweeps_find_their_results():
    spec = RunSpec(elements=("H", "H"), geometry=((0, 0, 0), (0, 0, 0.735)))
    assert spec.spec_id == "d32d7867cd0f460242d03ce2a3474804725759b1ab571cf86de3235f15ab498b"


def test_a_field_that_decides_numbers_changes_the_id():
    base = make_spec(H2)
    changes = {
        "basis": "6-31g", "freeze_core": True, "mapper": "parity", "reps": 2, "optimizer": "slsqp",
        "max_iterations": 7, "tolerance": 1e-3, "initial_point": "zeros", "seed": 1, "engine": "aer", "charge": 1,
    }  # fmt: skip
    ids = {base.spec_id}
    for name, value in changes.items():
        extra = {"charge": {"multiplicity": 2, "initial_point": "hf"}, "optimizer": {"optimizer_options": ()}}.get(
            name, {}
        )
        ids.add(dataclasses.replace(base, **{name: value, **extra}).spec_id)
    assert len(ids) == len(changes) + 1


def test_molecule_id_ignores_signed_zeros_names_and_noise_below_1e_8():
    a = RunSpec(elements=("H", "H"), geometry=((0.0, 0.0, 0.0), (0.0, 0.0, 0.735)))
    b = RunSpec(elements=("H", "H"), geometry=((-0.0, 0.0, 1e-10), (0.0, -0.0, 0.735)))
    assert a.molecule_id == b.molecule_id
    assert a.molecule_id != RunSpec(elements=("H", "H"), geometry=((0, 0, 0), (0, 0, 0.73500002))).molecule_id


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"optimizer": "lbfgs"}, "did you mean l-bfgs-b"),
        ({"ansatz": "uccd"}, "did you mean uccsd"),
        ({"mapper": "jw"}, "jordan_wigner"),
        ({"max_iterations": 0}, "max iterations must be a whole number from 1"),
        ({"max_iterations": True}, "max iterations"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"seed": -1}, "seed"),
        ({"shots": 0}, "shots"),
        ({"multiplicity": 2}, "multiplicity 2 is impossible"),
        ({"active_electrons": 2}, "both electrons and orbitals"),
        ({"active_electrons": 4, "active_orbitals": 4}, "larger than the molecule"),
        ({"active_electrons": 2, "active_orbitals": 0}, "active orbitals"),
        ({"initial_point": "vector"}, "initial vector"),
        ({"initial_vector": (0.1,)}, "initial vector"),
        ({"initial_point": "vector", "initial_vector": (float("inf"),)}, "not a finite number"),
        ({"ansatz": "efficient_su2", "initial_point": "mp2"}, "mp2 is for the uccsd ansatz"),
        ({"engine": "sector", "shots": 100}, "shots"),
        ({"optimizer_options": {"no_such_option": 1}}, "no_such_option"),
        ({"basis": " "}, "basis"),
        ({"nonsense": 1}, "unknown specification keys: nonsense"),
    ],
)
def test_bad_input_is_one_line_that_says_what_is_allowed(given, says):
    with pytest.raises(InputError) as caught:
        make_spec(H2, **given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"elements": ["H"], "geometry": [[0, 0]]}', '{"elements": 3, "geometry": 4}']
)
def test_a_malformed_specification_is_an_input_error(text):
    with pytest.raises(InputError):
        RunSpec.from_json(text)


def test_unknown_keys_of_a_specification_are_named():
    text = json.dumps({**make_spec(H2).to_dict(), "colour": "red"})
    with pytest.raises(InputError, match="colour"):
        RunSpec.from_json(text)


def test_noise_and_active_space_texts():
    assert parse_noise("one_qubit=0.001, readout=0.02") == Noise(one_qubit=0.001, readout=0.02)
    assert parse_active_space("4e,5o") == (4, 5)
    for text in (
        "",
        "one_qubit",
        "one_qubit=x",
        "one_qubit=0.1,one_qubit=0.2",
        "gamma=0.1",
        "one_qubit=2",
        "readout=nan",
    ):
        with pytest.raises(InputError):
            parse_noise(text)
    for text in ("", "4,4", "4e", "e,o", "4o,4e", "-1e,2o", "²e,2o"):
        with pytest.raises(InputError):
            parse_active_space(text)


def test_noise_without_shots_is_exact_on_density_matrices_unless_a_method_is_asked_for():
    assert make_spec(H2, noise=Noise(0.01)).aer_method == "density_matrix"
    assert make_spec(H2, noise=Noise(0.01), shots=100).aer_method == "statevector"
