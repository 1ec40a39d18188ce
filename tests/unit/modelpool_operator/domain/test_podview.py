"""Pods as the API server shows them, whatever somebody wrote on them."""

import pytest

from modelpool_operator.api import names
from modelpool_operator.domain.podview import pod_view


@pytest.mark.parametrize("text", ["soon", "", "2026-01-02", "2026-01-02T03:04:05"], ids=repr)
def test_an_annotation_that_is_no_time_counts_as_none(text):
    """Anybody who may patch a pod can write it; it must not keep the operator from reading its pods."""
    meta = {"namespace": "n", "name": "p", "uid": "u", "resourceVersion": "1"}
    view = pod_view({"metadata": meta | {"annotations": {names.ANNOTATION_GATE_LIFTED: text}}})

    assert view.gate_lifted is None
