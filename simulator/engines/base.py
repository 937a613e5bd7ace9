"""The engines behind one interface: which there are, which fits a run, and what they cannot do together."""

# NumPy's types are named below, NumPy is not loaded: the command line reads this module
from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from simulator.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from simulator.operators.given_circuit import GivenCircuit


class NoiseModel(Protocol):
    """Depolarizing channels after gates and symmetric readout error; all are probabilities."""

    @property
    def one_qubit(self) -> float: ...
    @property
    def two_qubit(self) -> float: ...
    @property
    def readout(self) -> float: ...


class EngineSpec(Protocol):
    """What an engine reads of a specification (`vqe.spec.RunSpec` has it all)."""

    @property
    def ansatz(self) -> str: ...
    @property
    def mapper(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def aer_method(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def shots(self) -> int | None: ...
    @property
    def noise(self) -> NoiseModel | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def circuit(self) -> GivenCircuit | None: ...


class Engine(Protocol):
    """Evaluates an ansatz's energy (total, hartree) at parameters in radian, shape: (n_parameters,)."""

    name: str
    n_parameters: int
    labels: tuple[str, ...]

    def energy(self, parameters: np.ndarray) -> tuple[float, float | None]:
        """Energy and its standard error, None where the energy is exact."""

    def energy_and_gradient(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy and its derivatives, shape: (n_parameters,)."""

    def n_electrons_and_spin(self, parameters: np.ndarray) -> tuple[float, float]:
        """<N> over the active space and <S^2> of the state (of the noiseless one, where the engine has noise)."""


def choose_engine(
    *, ansatz: str, shots: int | None = None, noise: Any = None, device: str = "cpu", precision: str = "double",
    aer_method: str = "statevector", **_: Any,
) -> str:  # fmt: skip
    """What `--engine auto` means: aer where only Aer can do it, else sector for uccsd, else statevector."""
    sampled = shots is not None or noise is not None
    if sampled or device != "cpu" or precision != "double" or aer_method != "statevector":
        return "aer"
    return "sector" if ansatz == "uccsd" else "statevector"


def samples_states(spec: EngineSpec) -> bool:
    """Whether shots are drawn from a state vector, and not by Aer from a circuit that it measures."""
    return spec.shots is not None and spec.noise is None and spec.aer_method in ("statevector", "automatic")


def check_engine(spec: EngineSpec) -> None:
    """Refuse what no engine or not this engine can do; nothing that was asked for is dropped in silence.

    Raises:
        InputError: the combination is impossible; says what to change.
    """
    if spec.engine != "aer":
        for name, value, plain in (
            ("shots", spec.shots, None), ("noise", spec.noise, None), ("device", spec.device, "cpu"),
            ("precision", spec.precision, "double"), ("aer method", spec.aer_method, "statevector"),
        ):  # fmt: skip
            if value != plain:
                shown = "" if name == "noise" else f" {value}"
                raise InputError(f"engine {spec.engine} cannot do {name}{shown} (use engine aer or auto)")
    if spec.engine == "sector" and spec.ansatz != "uccsd":
        raise InputError(
            f"engine sector is for ansatz uccsd: {spec.ansatz} leaves the space of fixed electron numbers"
            " (use statevector, aer or auto)"
        )
    if spec.noise is not None and spec.shots is None and spec.aer_method not in ("density_matrix", "automatic"):
        raise InputError(
            f"noise without shots needs a density matrix, not aer method {spec.aer_method}"
            " (use aer method density_matrix, or give shots)"
        )
    if spec.device == "gpu" and spec.aer_method == "matrix_product_state":
        raise InputError("aer method matrix_product_state does not run on a gpu (use statevector or density_matrix)")
