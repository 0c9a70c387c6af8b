import pytest
from markupsafe import Markup

from nameonly.report.places import empty_place, fill_places

PAGE = f"<p>before</p>{empty_place('a')}<hr>\r\n{empty_place('b')}after"


def test_places_are_filled_again_and_again_and_nothing_else_changes():
    once = fill_places(PAGE, {"a": Markup("<b>1</b>"), "b": Markup("long" * 9)})
    assert "<b>1</b>" in once and once.startswith("<p>before</p>") and once.endswith("after")
    twice = fill_places(once, {"b": Markup("3"), "a": Markup("2")})
    assert "<b>1</b>" not in twice and "long" not in twice and "\r\n" in twice
    assert fill_places(twice, {"a": Markup(""), "b": Markup("")}) == PAGE
    assert fill_places(PAGE, {"a": Markup("1")}).endswith(f"{empty_place('b')}after")


@pytest.mark.parametrize(
    "spoilt",
    [
        "",
        PAGE.replace("<!-- begin b -->", ""),
        PAGE.replace("<!-- end b -->", ""),
        PAGE + str(empty_place("b")),
        PAGE.replace(empty_place("b"), "<!-- end b --><!-- begin b -->"),
        "<!-- end b -->" + PAGE,
    ],
)
def test_a_page_without_the_place_is_refused(spoilt):
    with pytest.raises(ValueError, match="the place 'b' once"):
        fill_places(spoilt, {"b": Markup("1")})
