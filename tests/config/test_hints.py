"""A setting of another variant says which one it belongs to."""

import pytest

from rlvr.config.compose import compose
from rlvr.errors import UserError


def test_a_setting_of_another_variant_names_it() -> None:
    with pytest.raises(
        UserError, match=r"data.train_files belongs to data=files, not to data=arithmetic; choose it too"
    ):
        compose(["data.train_files=train.jsonl"])
