import pytest

from nameonly.review.guard import LOOPBACK, Guard

TOKEN = "secret"


async def nothing(scope, receive, send):
    raise AssertionError("not asked")


def refusal(method="GET", path=f"/{TOKEN}/", guard=None, **headers):
    guard = guard or Guard(nothing, TOKEN)
    pairs = {"host": "127.0.0.1:8000", **{k.replace("_", "-"): v for k, v in headers.items()}}
    found = guard.refusal(
        method, path, [(k.encode(), v.encode()) for k, v in pairs.items() if v is not None]
    )
    return None if found is None else found[0]


@pytest.mark.parametrize(
    "path", ["/", "", "/secre/", "/secret2/", "/wrong/secret/", "/sécret/", "/\udcff/"]
)
def test_a_path_without_the_token_is_refused(path):
    assert refusal(path=path) == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LocalHost:99", "[::1]:8000"])
def test_hosts_that_are_this_machine(host):
    assert refusal(host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil:8000",
        "10.0.0.1",
        "",
        None,
        "[",
        "::1",
    ],
)
def test_other_hosts_are_refused(host):
    assert refusal(host=host) == 403


def test_two_hosts_are_refused():
    guard = Guard(nothing, TOKEN)
    assert guard.refusal("GET", "/secret/", [(b"host", b"localhost")] * 2)[0] == 403


def test_any_address_takes_numbers_and_the_named_host_but_no_foreign_name():
    guard = Guard(nothing, TOKEN, (*LOOPBACK, "box"), any_address=True)
    assert refusal(guard=guard, host="192.168.1.5:8000") is None
    assert refusal(guard=guard, host="box:8000") is None
    assert refusal(guard=guard, host="evil.example") == 403


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://127.0.0.1:9", "https://127.0.0.1:8000"]
)
def test_foreign_origins_are_refused(origin):
    assert refusal(origin=origin) == 403
    assert refusal(origin="http://127.0.0.1:8000") is None


@pytest.mark.parametrize(("site", "expected"), [("cross-site", 403), ("same-site", 403)])
def test_another_page_may_link_here_and_ask_nothing(site, expected):
    assert refusal(sec_fetch_site=site) == expected
    assert refusal(sec_fetch_site=site, sec_fetch_mode="no-cors") == expected
    assert refusal(sec_fetch_site=site, sec_fetch_mode="navigate") is None
    assert refusal(sec_fetch_site="same-origin") is None


def test_bodies_are_json_of_a_stated_and_bounded_size():
    good = {"content_type": "application/json; charset=utf-8", "content_length": "10"}
    assert refusal("POST", **good) is None
    assert refusal("POST", **{**good, "content_type": "text/plain"}) == 415
    assert refusal("POST", content_length="10") == 415
    assert refusal("POST", **{**good, "content_length": "99999999999"}) == 413
    assert refusal("POST", **{**good, "content_length": "-1"}) == 411
    assert refusal("POST", content_type="application/json") == 411
