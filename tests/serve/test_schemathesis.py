import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="session")
def api(server):
    return schemathesis.openapi.from_url(f"{server.base_url}/openapi.json")


GOOD, BAD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


# the server's thread may use `random` while a case is drawn, which looks as if drawing did
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.parametrize(
    ("method", "path", "mode", "n"),
    [
        ("POST", "/predict", GOOD, 80),
        ("POST", "/predict", BAD, 80),
        *[("GET", f"/{name}", GOOD, 2) for name in ("health", "classes", "metrics")],
    ],
)
def test_whatever_is_asked_is_answered_as_described(api, method, path, mode, n):
    operation = api[path][method]
    statuses = []

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def ask(case):
        answer = case.call()
        statuses.append(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    ask()
    assert statuses and 500 not in statuses
    assert n < 10 or len(statuses) > 50
