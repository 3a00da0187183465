from search.operations import Asked, Bound, Exclude, NewSearch, NextPage, Refine, Replace, Reset, applied

RED = NewSearch("summer", {"colour": ("red",), "kind": ("dress",)}, bounds=(Bound("price", "<", 50),))


def test_a_search_grows_by_operations_and_ends_with_a_reset() -> None:
    asked = applied(None, RED, 10)
    asked = applied(asked, Refine("long", {"style": ("party",)}), 10)
    asked = applied(asked, Replace({"colour": ("blue",)}), 10)
    asked = applied(asked, Exclude({"pattern": ("dotted",)}), 10)
    asked = applied(asked, NextPage(), 10)

    assert asked == Asked(
        "summer long",
        where={"colour": ("blue",), "kind": ("dress",), "style": ("party",)},
        without={"pattern": ("dotted",)},
        bounds=(Bound("price", "<", 50),),
        offset=10,
    )
    assert asked.text == "blue dress party summer long"
    assert applied(asked, Reset(), 10) is None


def test_what_is_named_last_holds() -> None:
    asked = applied(applied(None, RED, 10), Exclude({"colour": ("red",)}), 10)
    assert asked is not None
    back = applied(asked, Refine(where={"colour": ("red",)}, bounds=(Bound("price", "<=", 80),)), 10)

    assert (asked.where, asked.without) == ({"kind": ("dress",)}, {"colour": ("red",)})
    assert back is not None
    assert (back.where, back.without) == ({"kind": ("dress",), "colour": ("red",)}, {})
    assert back.bounds == (Bound("price", "<=", 80),)


def test_a_search_is_a_filter_of_the_language() -> None:
    asked = Asked(
        where={"colour": ("red", "blue")},
        without={"kind": ("dress",), "style": ("party",)},
        bounds=(Bound("price", ">=", 20), Bound("price", "<=", 50)),
    )

    assert asked.filter() == {
        "colour": ["red", "blue"],
        "price": {">=": 20, "<=": 50},
        "not": {"or": [{"kind": ["dress"]}, {"style": ["party"]}]},
    }
