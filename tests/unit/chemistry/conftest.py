"""What tests of the mean field share."""

from collections.abc import Callable
from typing import Any

import pytest

from simulator.chemistry import integrals


@pytest.fixture
def mean_fields(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has `change` called with every mean field before it is converged, and with whether its molecule has symmetry."""

    def changed_by(change: Callable[[Any, bool], None]) -> None:
        plain = integrals._scf

        def changed(mol: Any) -> Any:
            mf = plain(mol)
            change(mf, bool(mol.symmetry))
            return mf

        monkeypatch.setattr(integrals, "_scf", changed)

    return changed_by
