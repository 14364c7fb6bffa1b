"""Requests that are generated from the server's own OpenAPI document find no error of the server."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nailseg
from nailseg.serving import app

schemathesis = pytest.importorskip("schemathesis", reason="not installed: pip install schemathesis")


@pytest.fixture(scope="module")
def operations(mixed_model) -> list:
    segment = nailseg.load(mixed_model, device="cpu")
    api = schemathesis.openapi.from_asgi("/openapi.json", app.create_app(segment))
    return [operation.ok() for operation in api.get_all_operations()]


@pytest.mark.filterwarnings("ignore")  # of the packages of the generator
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_generated_request_is_an_error_of_the_server(operations: list, data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from(operations))
    case = data.draw(operation.as_strategy())
    reply = case.call()
    assert reply.status_code < 500, (case, reply.status_code)
