from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.contracts.sandbox_driver")
pytest.register_assert_rewrite("tests.contracts.checkpoint_sink")
