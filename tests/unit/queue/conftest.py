"""The promises that SQLite and Postgres share are in a module of their own, whose assertions are to be explained too."""

import pytest

pytest.register_assert_rewrite("queue_promises")
